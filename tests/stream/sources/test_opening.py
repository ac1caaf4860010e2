"""Sources opened by their addresses: files, programs, the network, the demo camera."""

import socket
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import encoded
from tests.plug_ins import install
from tests.stream.events import listening
from tests.stream.sources.mjpeg import mjpeg_camera
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources.live import LiveOptions
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.metrics import Counter
from tinysaver_edge.testing import FakeClock, FakeSource, numbered_frame

SECRET = "s3cr3t"


def test_a_glob_and_a_name(tmp_path):
    for number, name in enumerate(["b1.png", "a2.png", "a1.png", "sub/a3.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(number))
    (tmp_path / "a9.txt").write_text("no image")
    frames = list(open_source(f"{tmp_path}/a*.png"))
    assert [frame.source_id for frame in frames] == ["a1.png", "a2.png"]
    frames = list(open_source(f"{tmp_path}/**/a*.png"))
    assert [frame.source_id for frame in frames] == ["a1.png", "a2.png", "sub/a3.png"]
    frames = list(open_source(f"door={tmp_path}/a*.png"))
    assert [(frame.source_id, frame.sequence) for frame in frames] == [("door", 0), ("door", 1)]


def test_a_file_that_looks_like_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.png").write_bytes(encoded(1))
    Path("x:y.png").write_bytes(encoded(1))
    assert [frame.source_id for frame in open_source("a=b.png")] == ["a=b.png"]
    assert [frame.source_id for frame in open_source("x:y.png")] == ["x:y.png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.mp4", "no such file"),
        ("nowhere/*.png", "no images match"),
        ("ftp://host/x", "source ftp: no such kind of source; there are camera, demo, file"),
        ("camera:0?size=3", "an option that it does not have; there are width, height, fps"),
        ("camera:0?widht=3", r"does not have \(did you mean width\?\); there are width"),
        ("rtsp://camera/1#thread=4", r"does not have \(did you mean threads\?\); there is threads"),
        ("rtsp://camera/1#threads=none", "threads is no number"),
        ("rtsp://camera/1#4", "options look like #name=value"),
        ("camera:", "names no camera"),
        ("camera:0?width=a", "width 'a' is no number"),
        ("camera:0?width=1.5", "no whole number"),
        ("demo://?velocity=1", "an option that it does not have; there are fps, seed, frames"),
        ("demo://?seed=x", "seed 'x'"),
        ("demo://?fps=0", "fps '0'"),
        ("demo://?fps=1e9", r"fps 1e\+09 is not from 0.01 to 1000"),
        (True, "source True"),
        (3.5, "float is no address"),
    ],
)
def test_what_cannot_be_opened(source, message):
    with pytest.raises(InputError, match=message):
        open_source(source)


@pytest.mark.parametrize(
    ("name", "slip"),
    [("every", "s3cr3t"), ("every", "8712"), ("threads", "s3cr3t"), ("threads", "87.12")],
)
def test_a_password_among_an_address_s_options_is_not_repeated(name, slip):
    with pytest.raises(InputError) as caught:
        open_source(f"http://u:p@camera/a.jpg#{name}={slip}")
    assert name in str(caught.value)
    assert slip not in str(caught.value)


def test_a_source_of_another_package(tmp_path, monkeypatch):
    (tmp_path / "belt.py").write_text(
        "from tinysaver_edge.stream.sources.opening import IterableSource\n"
        "from tinysaver_edge.testing import FakeSource\n"
        "def open_belt(uri):\n"
        "    frames = FakeSource(int(uri.options['frames']), source_id=uri.source_id)\n"
        "    return IterableSource(frames, source_id=uri.source_id)\n"
    )
    brought = {"belt": "belt:open_belt", "broken": "nowhere:nothing", "list": "builtins:repr"}
    install(tmp_path, monkeypatch, "sources", brought)
    frames = list(open_source("left=belt://x?frames=3"))
    assert [(frame.source_id, frame.sequence) for frame in frames] == [
        ("left", 0), ("left", 1), ("left", 2),
    ]  # fmt: skip
    with pytest.raises(SourceError, match=r"plug-in 'broken' of others \(nowhere:nothing\) cannot"):
        open_source("broken://x")
    with pytest.raises(SourceError, match=r"plug-in 'list' .* made no tinysaver_edge"):
        open_source("list://x")
    with pytest.raises(SourceError, match=r"plug-in 'belt' .* failed \(KeyError: 'frames'\)"):
        open_source("belt://x")
    with pytest.raises(InputError, match="there are belt, broken, camera"):
        open_source("other://x")


def test_an_iterable_gives_every_picture():
    clock = FakeClock(5.0)
    source = open_source([numbered_frame(number) for number in range(3)])
    listening(source, clock)
    frames = list(source)
    assert [(frame.sequence, frame.timestamp_s) for frame in frames] == [(0, 5), (1, 5), (2, 5)]
    assert {frame.source_id for frame in frames} == {"frames"}


def test_frames_of_ones_own_are_taken_as_they_are():
    own = FakeSource(5, lost={1}, source_id="door")
    frames = list(open_source(own))
    assert [(frame.source_id, frame.sequence) for frame in frames] == [
        ("door", 0), ("door", 2), ("door", 3), ("door", 4),
    ]  # fmt: skip


def test_an_iterable_of_something_else():
    with pytest.raises(InputError, match=r"source frames, frame 1: is str; expected a uint8"):
        list(open_source([numbered_frame(0), "text"]))
    with pytest.raises(InputError, match="is float64"):
        list(open_source([np.zeros((4, 4, 3))]))


def test_a_callback_is_read_as_a_camera_is():
    pictures = iter([numbered_frame(0), numbered_frame(1), None])
    source = open_source(lambda: next(pictures))
    heard, tally = listening(source)
    frames = list(source)
    assert frames[-1].sequence == 1
    assert len(frames) + tally.total(Counter.DROPPED) == 2
    assert heard.kinds[-1] == "ended"


def test_the_demo_camera_keeps_its_pace():
    source = open_source("demo://?fps=50&frames=25&seed=3")
    _, tally = listening(source)
    began_s = source.context.clock()
    frames = list(source)
    assert len(frames) + tally.total(Counter.DROPPED) == 25
    assert all(one.timestamp_s - began_s >= one.sequence / 50 for one in frames)
    assert isinstance(frames[0], Frame)
    assert frames[0].image.shape == (240, 320, 3)
    seen = {frame.sequence: frame.image for frame in frames}
    runs = (open_source("demo://?fps=50&frames=25&seed=3") for _ in range(9))  # each may leave
    again = next(frame for run in runs for frame in run if frame.sequence in seen)  # some out
    assert (again.image == seen[again.sequence]).all()


def test_corrupt_frames_of_a_video_are_told_and_leave_gaps(tmp_path):
    path = damaged_video(tmp_path, holes=(10, 11, 20), frames=40)
    source = open_source(str(path))
    heard, tally = listening(source)
    numbers, means = zip(
        *((frame.sequence, round(frame.image.mean() / 6)) for frame in source.frames(reuse=True)),
        strict=True,
    )
    assert list(numbers) == [number for number in range(40) if number not in (10, 11, 20)]
    assert list(means) == list(numbers)
    assert [event.sequence for event in heard.of("corrupt")] == [10, 11, 20]
    assert tally.total(Counter.CORRUPT) == 3
    assert heard.of("ended")[0].reason is None


def test_a_video_cut_short(tmp_path):
    path = damaged_video(tmp_path, holes=(), frames=40, keep=25)
    source = open_source(str(path))
    heard, _ = listening(source)
    assert [frame.sequence for frame in source] == list(range(25))
    assert [event.sequence for event in heard.of("corrupt")] == list(range(25, 40))


def damaged_video(folder, *, holes, frames, keep=None):
    """A video of ever brighter frames, some overwritten, perhaps cut off after some."""
    path = folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    places = []
    place = data.find(b"movi") + 4
    while data[place : place + 4] == b"00dc":
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        places.append((place + 8, size))
        place += 8 + size + size % 2
    assert len(places) == frames
    for hole in holes:
        start, size = places[hole]
        data[start : start + size] = bytes(size)
    path.write_bytes(data if keep is None else data[: places[keep][0]])
    return path


@pytest.fixture
def camera():
    """An HTTP camera that gives MJPEG to who knows the password."""
    with mjpeg_camera(open_to_all=False) as port:
        yield port


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_http_camera(camera, capfd):
    source = open_source(f"http://user:{SECRET}@127.0.0.1:{camera}/video?key={SECRET}")
    heard, _ = listening(source)
    frames = source.frames()
    first, *_, last = (next(frames) for _ in range(10))
    assert first.source_id == f"http://127.0.0.1:{camera}/video"
    assert last.sequence >= 9
    assert first.image.shape == (48, 64, 3)
    frames.close()
    assert heard.kinds[0] == "connected"
    assert SECRET not in repr(heard.events)
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers(scheme, capfd):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = f"{scheme}://user:{SECRET}@127.0.0.1:{port}/x"
        before = descriptors(), threading.active_count()
        source = open_source(address, options=LiveOptions(open_s=1.5))
        started = time.monotonic()
        with pytest.raises(
            SourceError,
            match=r"(gives no video|says nothing) within 1\.5 s|then says nothing: check",
        ) as caught:
            next(source.frames())
        assert 1 < time.monotonic() - started < 4
        assert SECRET not in str(caught.value)
        assert SECRET not in "".join(capfd.readouterr())
        # Closed while OpenCV opens: prompt, and nothing is left when its time-out has passed.
        source = open_source(address, options=LiveOptions(open_s=1.5))
        heard, _ = listening(source)
        consumer = threading.Thread(target=lambda: list(source))
        consumer.start()
        time.sleep(0.3)
        started = time.monotonic()
        source.close()
        consumer.join(5)
        assert time.monotonic() - started < 2.2
        deadline = time.monotonic() + 5
        while (descriptors(), threading.active_count()) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (descriptors(), threading.active_count()) == before
        assert heard.kinds == ["ended"]


def test_a_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match=f"127.0.0.1:{port}: connection refused"):
        next(open_source(f"rtsp://u:{SECRET}@127.0.0.1:{port}/x").frames())


def test_an_unknown_host():
    with pytest.raises(SourceError, match=r"host nowhere\.invalid is not known here"):
        next(open_source("rtsp://nowhere.invalid/x").frames())


@pytest.mark.parametrize("address", ["/dev/video97", "camera:97", "97"])
def test_a_camera_that_is_not_there(address):
    with pytest.raises(SourceError, match="there is no /dev/video97"):
        next(open_source(address).frames())


def test_gstreamer_runs_or_says_how_to_get_it():
    source = open_source("gst:videotestsrc num-buffers=3 ! videoconvert ! appsink")
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        assert next(source.frames()).sequence == 0
        source.close()
    else:
        with pytest.raises(SourceError, match=r"without GStreamer.*python3-opencv"):
            next(source.frames())
