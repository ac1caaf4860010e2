"""User and password of an address are in nothing that we say, name, save or look up."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
import traceback

import pytest

from tests.command import ROOT
from tests.small_bundle import small_bundle
from tests.stream.sources.test_snapshot import JPEG, camera, giving
from tinysaver_edge._support.text import for_people, without_logins
from tinysaver_edge._support.urls import HINT, ListenAddress, redacted
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.errors import TinySaverError
from tinysaver_edge.host.listening import parse_bind
from tinysaver_edge.stream.sinks.mqtt import MqttAddress, MqttSink
from tinysaver_edge.stream.sources.opening import open_source

USER, PASSWORD = "hildegard", "Kr4nich"
AT = f"{USER}:{PASSWORD}@127.0.0.1:9"

LOGINS = [
    f"{USER}:{PASSWORD}",
    f"{USER}:12/{PASSWORD}",
    f"{USER}:/{PASSWORD}",
    f"{USER}:{PASSWORD}/",
    f"{USER}:{PASSWORD}?x",
    f"{USER}:1234?{PASSWORD}",
    f"{USER}:{PASSWORD}#1",
    f"{USER}:12#{PASSWORD}",
    f"{USER}:#{PASSWORD}",
    f"{USER}:a@{PASSWORD}",
    f"{USER}:a/b@{PASSWORD}",
    f"{USER}:{PASSWORD}:x",
    f"{USER}:[{PASSWORD}]",
    f"{USER}:{PASSWORD}%zz",
    f"{USER}:{PASSWORD}%40",
    f"{USER}:{PASSWORD}\\x",
    f"{USER}:{PASSWORD} x",
    f"{USER}:{PASSWORD}\tx",
    f"{USER}:{PASSWORD}\u2100",
    f"{USER}:ä{PASSWORD}",
    f":{PASSWORD}",
    f"{PASSWORD}",
    f"{USER}/{PASSWORD}",
    f"{USER}?{PASSWORD}",
]
"""What may stand before the @."""

STARTS = [
    "{scheme}://", "{scheme}:/", "{scheme}:", "{scheme}//", "{scheme}:///", "", "//",
    '"{scheme}://', "'{scheme}://", " {scheme}://", "x{scheme}://", "=", "={scheme}://",
    "1door={scheme}://", "door.1={scheme}://", "Über={scheme}://", "door={scheme}:/",
]  # fmt: skip
"""What may stand before the login, rightly or not."""

ADDRESSES = [
    *(f"{{scheme}}://{login}@127.0.0.1:9/1" for login in LOGINS),
    *(f"{start}{AT}/1" for start in STARTS),
    f'"{{scheme}}://{AT}/1"',
    f"{{scheme}}://{AT}/1?user={USER}&password={PASSWORD}",
    f"{{scheme}}://127.0.0.1:9/1?user={USER}&pwd={PASSWORD}",
    f"{{scheme}}://127.0.0.1:9/user={USER}_password={PASSWORD}_x",
    f"{{scheme}}://127.0.0.1:9/1#{USER}={PASSWORD}@",
    f"{{scheme}}://{AT}",
    f"{{scheme}}://{AT}:99999/1",
    f"{{scheme}}://{USER}:{PASSWORD}@/1",
    f"{{scheme}}://{USER}:{PASSWORD}@",
    f"{{scheme}}://{USER}:{PASSWORD}",
    f"{{scheme}}://{USER}:{PASSWORD}/1",
    f"{{scheme}}://{USER}:{PASSWORD}@[::1/1",
    f"{{scheme}}://{USER}:{PASSWORD}@[::1]:9/1",
    f"{{scheme}}://{AT}/" + 5000 * "x",
    f"door={{scheme}}://{AT}/1",
    f"ftp://{AT}/1",
    f"onvif://{AT}/1",
    f"camera:{AT}",
    f"SCHEME://{AT}/1",
    f"{{scheme}}://{AT}//{USER}@{PASSWORD}",
    f"{{scheme}}:\\\\{AT}/1",
    f"{USER}:{PASSWORD}@{{scheme}}://127.0.0.1:9/1",
]  # fmt: skip


def said(action) -> str:
    """All that comes out of it: what it returns, or the error as a log would have it."""
    try:
        return f"{action()}"
    except TinySaverError as error:
        return "".join(traceback.format_exception(error, limit=0))


@pytest.fixture
def looked_up(monkeypatch):
    """Names that were looked up."""
    names = []
    real = socket.getaddrinfo

    def spied(host, *rest, **options):
        names.append(host)
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", spied)
    return names


def test_there_are_enough_of_them():
    assert len(set(ADDRESSES)) >= 60


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_of_cameras(address, scheme, caplog, looked_up):
    address = address.replace("{scheme}", scheme).replace("SCHEME", scheme.upper())

    def opening():
        source = open_source(address)
        device = getattr(source, "_device", None)
        host = getattr(device, "host", "")
        source.close()
        return f"{source.source_id} {source!r} {device!r} {host}"

    with caplog.at_level(logging.DEBUG):
        told = said(opening) + caplog.text + " ".join(looked_up)
    assert PASSWORD not in told
    assert USER not in told


@pytest.mark.parametrize("address", ADDRESSES)
def test_of_brokers(address, caplog):
    address = address.replace("{scheme}", "mqtt").replace("SCHEME", "MQTT")

    def opening():
        found = MqttAddress.parse(address)
        return f"{found!r} {found} {MqttSink(found).name} {found.host}"

    told = said(opening)
    if "_password=" in address:  # a topic is no secret: every subscriber knows it
        return
    assert PASSWORD not in told
    assert USER not in told


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("scheme", ["grpc", "https"])
def test_of_hosts(address, scheme):
    address = address.replace("{scheme}", scheme).replace("SCHEME", scheme.upper())
    told = said(lambda: Address.parse(address)) + said(lambda: parse_bind(address))
    told += said(lambda: ListenAddress.parse(address, option="--metrics"))
    if "@" in address:
        assert PASSWORD not in told
        assert USER not in told


@pytest.mark.parametrize("sign", "/?#")
@pytest.mark.parametrize(
    "read",
    [
        lambda login: open_source(f"rtsp://{login}@camera/1"),
        lambda login: MqttAddress.parse(f"mqtt://{login}@broker/t"),
        lambda login: Address.parse(f"grpc://{login}@host:1/m"),
    ],
)
def test_the_message_says_how_such_a_password_is_written(read, sign):
    with pytest.raises(TinySaverError) as caught:
        read(f"user:12{sign}34")
    assert HINT in str(caught.value)
    escaped = {"/": "%2F", "?": "%3F", "#": "%23"}[sign]
    assert escaped in str(caught.value)


def test_what_is_written_so_is_taken():
    found = MqttAddress.parse("mqtt://us%40er:a%2Fb%3Fc%23d@broker/t")
    assert (found.host, found.user, found.password) == ("broker", "us@er", "a/b?c#d")


@pytest.mark.parametrize("text", ["photo@2x.png", "a/b.png", "x", ""])
def test_what_is_no_address_may_be_named(text):
    assert redacted(text).endswith(text.rpartition("@")[2])


def test_what_an_address_looks_like_may_be_told():
    hint = "expected [NAME=]rtsp://[USER:PASSWORD@]HOST/…, or mqtt://[USER[:PASSWORD]@]HOST"
    assert for_people(hint) == hint


@pytest.mark.parametrize("start", ["https://", "s3://"])
@pytest.mark.parametrize(
    "words",
    [
        ("verify", "{}"),
        ("bench", "{}"),
        ("models", "check", "{}"),
        ("evaluate", "bundle", "--data", "{}.tar"),
        ("calibrate", "--data", ".", "--large", "{}.onnx", "--saver", "{}.onnx"),
        ("compare", "bundle", "--published", "{}"),
        ("deploy", "bundle", "--target", "device", "--out", "{}"),
        ("run", "bundle", "--source", "demo://?frames=1", "--jsonl", "{}"),
        ("run", "bundle", "--source", "demo://?frames=1", "--hard-frames", "{}"),
    ],
    ids=" ".join,
)
def test_an_address_where_none_is_taken(words, start, command, tmp_path, monkeypatch):
    """A path is wanted; neither stderr, the object for programs nor a folder has the password."""
    small_bundle(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    done = command(*(word.format(f"{start}{AT}/x") for word in words), "--json")
    assert done.code == 2
    assert PASSWORD not in done.err + done.out
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("text", ["a" * 60_000, "a=" * 30_000, "key" * 20_000, "pass" * 15_000])
def test_redaction_takes_no_time_whatever_it_is_given(text):
    before_s = time.process_time()
    assert len(redacted(text)) <= 300
    with pytest.raises(TinySaverError):
        ListenAddress.parse(text, option="--metrics")
    assert time.process_time() - before_s < 2


@pytest.mark.parametrize(
    "text", ["@ " + "http://" * 14_000, "@ " + "a-a+a.a:/" * 11_000, "http://a:b " * 9_000 + "[@"]
)
def test_addresses_without_end_take_no_time_to_be_told_without_logins(text):
    """They come from tables, and go to programs and into reports uncut."""
    before_s = time.process_time()
    assert without_logins(text) == text
    assert time.process_time() - before_s < 2


@pytest.mark.parametrize("scheme", ["rtsp", "https", "amqp", "s3"])
def test_what_libraries_say_of_an_address_loses_its_login(scheme):
    told = for_people(f"cannot open '{scheme}://{AT}/1': refused\nand {scheme}://{AT} too")
    place = f"{scheme}://…@127.0.0.1:9"
    assert told == f"cannot open '{place}/1': refused\nand {place} too"
    told = for_people(f"no such file {scheme}:/{USER}:{PASSWORD} x@127.0.0.1/1")  # as a path
    assert told == f"no such file {scheme}:/…@127.0.0.1/1"
    read = f"reading {scheme}://127.0.0.1/a.tar?"
    told = for_people(f"{read}x=1&X-Amz-Signature={PASSWORD}: 403")
    assert told == f"{read}x=1&X-Amz-Signature=*** 403"
    assert for_people(f"{read}AWSAccessKeyId={USER}&x=1") == f"{read}AWSAccessKeyId=***&x=1"


KINDS = ("rtsp", "mqtt", "grpc", "https")
RUNS = [
    (kind, address.replace("{scheme}", kind).replace("SCHEME", kind.upper()))
    for place, address in enumerate(ADDRESSES)
    for kind in ("http", KINDS[place % len(KINDS)])
    if not (kind in ("grpc", "https") and "@" not in address)  # a model's name is no secret
    and not (kind == "mqtt" and "_password=" in address)  # nor is a topic
]


def test_of_runs_by_every_way_out(tmp_path):
    """stderr at debug, logs, JSON, metrics, videos, saved frames and the names of all files.

    Where an address is as it should be there is a camera, a broker or a host behind it.
    """
    assert len(RUNS) > 120
    bundle = small_bundle(tmp_path / "bundle", golden=False)
    (tmp_path / "runs.json").write_text(json.dumps(RUNS))
    with camera(giving(JPEG)) as (place, asked):
        done = subprocess.run(
            [sys.executable, "-m", "tests.stream.sources.many_runs", tmp_path, bundle, place],
            capture_output=True, text=True, timeout=500, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    logins = {said for *_, said in asked}
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.name == "out.jsonl" and path.stat().st_size for path in written)
    assert any(path.suffix == ".png" for path in written)
    assert any("tinysaver" in path.read_text() for path in written if path.name == "metrics")
    assert len(logins - {None}) > 3  # the camera did get some of them
    leaks = {
        (path.parent.name, path.name, RUNS[int(path.relative_to(tmp_path / "out").parts[0])])
        for path in (tmp_path / "out").rglob("*")
        for secret in (USER, PASSWORD)
        if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes())
    }
    assert not leaks


@pytest.mark.parametrize(
    "text",
    [
        f"Got unexpected extra argument ({USER}:a/{PASSWORD}@host:8001)",
        f"device 'mqtt:{USER}:{PASSWORD}@host': neither a .toml file nor a profile",
        f'Invalid bucket name "{USER}:{PASSWORD}@bucket"',
        f"https://host/x.zip#token={PASSWORD}",
        f"https://host/x;session={PASSWORD}?a=1",
        f"no such file rtsp://[{USER}:{PASSWORD} x@host",
    ],
)
def test_a_login_without_a_scheme_and_a_key_behind_any_sign_are_found(text):
    assert PASSWORD not in for_people(text)
    assert USER not in for_people(text)


@pytest.mark.parametrize(
    "text", ["12:30:01 a@b.c", "big.onnx: photo@2x.png", "[USER:PASSWORD@]HOST", "a: b@c"]
)
def test_what_is_no_login_stays(text):
    assert for_people(text) == text
