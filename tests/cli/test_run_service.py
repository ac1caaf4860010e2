"""`tinysaver-edge run` with sinks, metrics, dashboard and drift watch around it."""

import json
import re
import shlex
import shutil
import signal
import socket
import urllib.error
import urllib.request

import cv2
import pytest

from tests.colours import DESCRIPTION, LARGE, SAVER, colour_folders, colour_model
from tests.command import start
from tests.small_bundle import small_bundle
from tests.stream.sinks.test_mqtt import Broker, Subscriber, needs_broker, until
from tinysaver_edge.data.files import open_data

FRAMES = "demo://?fps=200&frames=60"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A file of 90 frames, such as the models know; files are given whole."""
    folder = tmp_path_factory.mktemp("video")
    path = folder / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    with open_data(colour_folders(folder / "images", each=30)) as data:
        for number in range(90):
            writer.write(cv2.resize(data.frame(number), (320, 240)))
    writer.release()
    return path


def get(url, *, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as got:
        return got.read().decode()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Running:
    """The command in a process of its own, with servers that are up."""

    def __init__(self, *arguments):
        self.metrics, self.page = free_port(), free_port()
        self.process = start(
            "run", *arguments,
            "--metrics", f"127.0.0.1:{self.metrics}", "--dashboard", f"127.0.0.1:{self.page}",
        )  # fmt: skip

    def up(self, path="/readyz"):
        def ready():
            assert self.process.poll() is None, self.process.communicate()
            try:
                ports = (self.metrics, self.page)
                return all(get(f"http://127.0.0.1:{port}{path}") for port in ports)
            except OSError:
                return False

        assert until(ready, seconds=60)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        assert "Traceback" not in err
        return self.process.returncode, out, err


def test_every_sink_has_every_frame_of_a_file(command, bundle, video, tmp_path):
    done = command(
        "run", bundle, "--source", video, "--quiet",
        "--jsonl", tmp_path / "log" / "out.jsonl", "--video", tmp_path / "seen.mp4",
        "--hard-frames", tmp_path / "hard", "--field-frames", tmp_path / "field",
        "--audit-share", "1", "--on-drift", "warn",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out == ""
    lines = (tmp_path / "log" / "out.jsonl").read_text().splitlines()
    decisions = [json.loads(line) for line in lines]
    assert [one["frame_id"]["sequence"] for one in decisions] == list(range(90))
    capture = cv2.VideoCapture(str(tmp_path / "seen.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 90
    escalated = sum(one["escalated"] for one in decisions)
    hard = (tmp_path / "hard" / "frames.jsonl").read_text().splitlines()
    assert 0 < len(hard) <= max(1, escalated)
    field = (tmp_path / "field" / "frames.jsonl").read_text().splitlines()
    assert len(field) == 90


def test_what_the_field_gave_calibrates_the_next_bundle(command, bundle, video, tmp_path):
    field = tmp_path / "field"
    done = command(
        "run", bundle, "--source", video, "--quiet", "--field-frames", field, "--audit-share", "1",
        "--on-drift", "warn", "--max-in-flight", "64",
    )  # fmt: skip
    assert done.code == 0, done.err
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(tmp_path / f"{name}.onnx", kind)
        (tmp_path / f"{name}.toml").write_text(DESCRIPTION)
    done = command(
        "calibrate", "--data", field / "frames.jsonl", "--reference", "large",
        "--large", tmp_path / "big.onnx", "--saver", tmp_path / "tiny.onnx",
        "--max-drop", "20", "--no-timing", "--no-report", "--out", tmp_path / "next", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = (field / "frames.jsonl").read_text().splitlines()
    assert done.json["calibration"]["samples"] == len(rows) == 90
    assert done.json["disagreement"]["accepted"] > 0
    assert "each of the decided frames was drawn with probability 1" in done.json["stated"][0]


def test_a_stream_can_be_watched_from_outside_while_it_runs(bundle, tmp_path):
    one = Running(
        bundle, "--source", "belt=demo://", "--quiet", "--log-json", "--jsonl", tmp_path / "o.jsonl"
    )
    one.up()
    page = f"http://127.0.0.1:{one.page}"

    def counted():
        text = get(f"http://127.0.0.1:{one.metrics}/metrics")
        found = re.findall(r'^tinysaver_decisions_total\{.*source="belt"\} (\S+)', text, re.M)
        return sum(map(float, found))

    assert until(lambda: counted() > 20)
    state = json.loads(get(f"{page}/state.json"))
    assert state["ready"]
    assert state["sources"][0]["id"] == "belt"
    assert state["drift"]["promised"] > 0
    with urllib.request.urlopen(f"{page}/frame.jpg?source=belt", timeout=5) as got:
        assert got.headers["content-type"] == "image/jpeg"
    code, out, err = one.stop()
    assert (code, out) == (143, "")
    said = [json.loads(line) for line in err.splitlines()]
    assert {"connected", "ended"} <= {line.get("event") for line in said}
    assert f"dashboard: {page}" in err
    numbers = [
        json.loads(line)["frame_id"]["sequence"]
        for line in (tmp_path / "o.jsonl").read_text().splitlines()
    ]
    assert numbers == sorted(set(numbers))


def test_drift_is_seen_told_and_acted_upon(bundle, command, tmp_path):
    """The bundle promises agreement; on the demo's camera these colour models disagree often."""
    mine = shutil.copytree(bundle, tmp_path / "bundle")
    one = Running(
        mine, "--source", "belt=demo://?fps=120", "--quiet", "--audit-share", "1",
        "--field-frames", tmp_path / "field",
    )  # fmt: skip
    one.up()

    def drift():
        return json.loads(get(f"http://127.0.0.1:{one.page}/state.json"))["drift"]

    assert until(lambda: drift()["alarms"] > 0, seconds=20)
    _, _, err = one.stop()
    assert "audited frames disagree" in err
    (advice,) = [line for line in err.splitlines() if line.startswith("What now: ")]
    words = shlex.split(advice.partition(", then ")[2])
    assert words[0] == "tinysaver-edge"
    done = command(*words[1:], "--max-drop", "99", "--no-timing", "--no-report")
    assert done.code == 0, done.err
    assert (tmp_path / "bundle-2" / "bundle.json").is_file()
    assert "each of the decided frames was drawn with probability 1" in done.out


@needs_broker
def test_decisions_reach_a_broker_and_its_password_no_log(bundle, tmp_path):
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("no mosquitto_passwd: apt-get install mosquitto")
    broker = Broker(tmp_path, password="s3cr3t pass")
    address = f"mqtt://ann:s3cr3t%20pass@127.0.0.1:{broker.port}/line"
    with Subscriber(broker.port, user="ann", password="s3cr3t pass") as subscriber:
        process = start("run", bundle, "--source", FRAMES, "--quiet", "--mqtt", address)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        topic = [one for one, _ in subscriber.heard if one.startswith("line/decisions/")]
        assert len(topic) > 20
        assert until(lambda: subscriber.said("line/status")[-1] == "offline")
    broker.kill()
    assert "s3cr3t" not in out + err


@pytest.mark.parametrize("option", ["--metrics", "--dashboard"])
def test_a_port_that_is_taken_is_one_line(command, bundle, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("run", bundle, "--source", FRAMES, option, f"127.0.0.1:{port}")
    assert done.code == 2
    assert f"{option} 127.0.0.1:{port}: the port is taken" in done.complaint


def test_a_dashboard_for_others_needs_a_token(command, bundle, monkeypatch):
    monkeypatch.delenv("TINYSAVER_TOKEN", raising=False)
    done = command("run", bundle, "--source", FRAMES, "--dashboard", "0.0.0.0:0")
    assert done.code == 2
    assert "needs a token: set TINYSAVER_TOKEN" in done.complaint


def test_the_token_comes_from_the_environment(bundle, monkeypatch):
    monkeypatch.setenv("TINYSAVER_TOKEN", "a long token")
    one = Running(bundle, "--source", "demo://", "--quiet")
    one.up("/healthz")
    for url in (
        f"http://127.0.0.1:{one.page}/state.json",
        f"http://127.0.0.1:{one.metrics}/metrics",
    ):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(url)
        assert get(url, token="a long token")
    _, out, err = one.stop()
    assert "a long token" not in out + err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--video", "x.gif"], "a video ends in"),
        (["--mqtt", "broker"], "give mqtt://"),
        (["--metrics", "8080"], "give HOST:PORT"),
        (["--metrics", "a..b:8080"], "a..b cannot be found"),
        (["--audit-share", "2"], "--audit-share"),
        (["--drift-level", "0"], "--drift-level"),
        (["--on-drift", "panic"], "--on-drift"),
        (["--field-frames", "f", "--audit-share", "0"], "--audit-share"),
        (["--jsonl", "/proc/no/such"], "/proc/no/such: cannot be written"),
        (["--hard-frames", "/proc/no"], "/proc/no: frames cannot be saved"),
        (["--jsonl-max-mb", "0"], "--jsonl-max-mb"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_what_cannot_be_is_one_line(command, bundle, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("run", bundle, "--source", FRAMES, *options)
    assert done.code == 2
    assert words in done.complaint


def test_without_a_display_the_preview_is_one_line(command, bundle, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = command("run", bundle, "--source", FRAMES, "--preview")
    assert done.code == 2
    assert "there is no display here" in done.complaint


def test_a_full_disk_does_not_stop_the_stream(command, bundle):
    done = command("run", bundle, "--source", FRAMES, "--quiet", "--jsonl", "/dev/full")
    assert done.code == 2  # an answer is lost
    assert done.err.count("sink jsonl full failed: No space left on device") == 1
    frames = int(done.err.partition(" frames, ")[0].rsplit(maxsplit=1)[-1])
    lost = f"warning: sink jsonl full: {frames} decisions could not be written"
    assert done.err.splitlines()[-1] == lost


def test_an_old_bundle_runs_and_says_what_it_cannot(command, bundle, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(bundle, old)
    values = json.loads((old / "bundle.json").read_text())
    del values["disagreement"]
    (old / "bundle.json").write_text(json.dumps(values))
    done = command("run", old, "--source", FRAMES, "--quiet")
    assert done.code == 0
    assert "drift is not watched: the bundle does not say" in done.err
    done = command("run", old, "--source", FRAMES, "--quiet", "--audit-share", "0")
    assert "drift" not in done.err
    done = command("run", old, "--source", FRAMES, "--quiet", "--audit-share", "0.5")
    assert done.code == 2
    assert "calibrate it again" in done.complaint
