import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError, TinySaverError
from tinysaver_edge.stream.sources.uri import parse_uri, shown, split_url

SECRET = "s3cr3t-Word"


@pytest.mark.parametrize(
    ("text", "scheme", "target", "source_id"),
    [
        ("0", "camera", "0", "camera0"),
        ("12", "camera", "12", "camera12"),
        ("/dev/video2", "camera", "/dev/video2", "video2"),
        ("camera:1", "camera", "1", "camera1"),
        ("camera://1?width=1280", "camera", "1", "camera1"),
        ("camera:/dev/video3", "camera", "/dev/video3", "video3"),
        ("rtsp://host/path", "rtsp", "rtsp://host/path", "rtsp://host/path"),
        ("RTSP://Host:8554/a", "rtsp", "RTSP://Host:8554/a", "rtsp://host:8554/a"),
        ("http://[::1]:8080/v", "http", "http://[::1]:8080/v", "http://[::1]:8080/v"),
        ("gst:videotestsrc ! appsink", "gst", "videotestsrc ! appsink", "gst"),
        ("demo://", "demo", "", "demo"),
        ("demo://?fps=5&seed=2", "demo", "", "demo"),
        ("video.mp4", "file", "video.mp4", "video.mp4"),
        ("photos/*.png", "file", "photos/*.png", "photos/*.png"),
        ("file:///a%20b/c.png", "file", "/a b/c.png", "/a b/c.png"),
        ("door=rtsp://u:p@host/x", "rtsp", "rtsp://u:p@host/x", "door"),
        ("line-1=0", "camera", "0", "line-1"),
    ],
)
def test_addresses(text, scheme, target, source_id):
    uri = parse_uri(text)
    assert (uri.scheme, uri.target, uri.source_id) == (scheme, target, source_id)


def test_options():
    uri = parse_uri("door=camera:0?width=1280&height=720&fps=29.97")
    assert uri.options == {"width": "1280", "height": "720", "fps": "29.97"}
    assert uri.named


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://user:{SECRET}@host/stream",
        f"rtsp://{SECRET}@host:554/stream",
        f"http://host/video.mjpg?user=me&password={SECRET}",
        f"https://host/video?token={SECRET}#threads=2",
        f"rtsp://host/user=admin_password={SECRET}_a_channel=1_stream=0.sdp",
        f"http://host/pwd={SECRET}/video",
    ],
)
def test_credentials_are_in_no_name_and_no_message(url):
    uri = parse_uri(url)
    assert SECRET not in uri.source_id
    assert SECRET not in repr(uri)
    assert uri.target == url.partition("#")[0]
    assert "host" in uri.source_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("rtsp://", "names no host"),
        (f"rtsp://u:{SECRET}@", "names no host"),
        (
            f"rtsp://u:{SECRET}#1@host",
            r"in a user or password / \? # @ are written %2F %3F %23 %40",
        ),
        (f"rtsp://u:{SECRET}@host:99999/x", "malformed"),
        (f"rtsp://u:{SECRET}@ho..st/x", "malformed"),
        (f"http://u:{SECRET}@{64 * 'h'}.org/x", "malformed"),
        (f"http://u:{SECRET}@[::1/x", "malformed"),
        ("gst:", "pipeline is empty"),
        ("demo://?fps", "options look like"),
    ],
)
def test_malformed_addresses(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_uri(text)
    assert SECRET not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_one_clear_error(text):
    try:
        uri = parse_uri(text)
    except TinySaverError:
        return
    assert uri.source_id
    assert uri.scheme


def _word(alphabet):
    return st.text(alphabet, min_size=6, max_size=12)


@given(user=_word("abcdef"), password=_word("XYZQJK"), path=_word("mnopst/"))
def test_no_password_survives(user, password, path):
    url = f"rtsp://{user}:{password}@camera.local:8554/{path}?k={password}"
    assert password not in shown(split_url(url))
