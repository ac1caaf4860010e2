"""A real RTSP server, killed and started again at random: every time the stream comes back."""

import random
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.stream.events import Heard
from tests.stream.slow import Answers
from tinysaver_edge.stream.sources.live import DeviceError, LiveOptions
from tinysaver_edge.stream.sources.opencv import NetworkDevice, why_no_video
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0')"
KILLS = 10
FRESH_S = 1.0
SECRET = "s3cr3t"


def missing():
    """Why the server cannot run here, or None."""
    if not Path(PYTHON).exists():
        return f"no {PYTHON}"
    found = subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False)
    return None if found.returncode == 0 else (
        "no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi "
        "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
    )  # fmt: skip


class Server:
    """The camera, to be killed and started."""

    def __init__(self, *login):
        self.login = login
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [PYTHON, SERVER, str(self.port), *self.login],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout.readline() == b"ready\n"

    def stop(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stdout.close()

    @property
    def address(self):
        return f"rtsp://user:{SECRET}@127.0.0.1:{self.port}/camera"


@pytest.fixture(params=[()], ids=["open"])
def server(request):
    reason = missing()
    if reason:
        pytest.skip(reason)
    one = Server(*request.param)
    one.start()
    yield one
    if one.process.poll() is None:
        one.stop()


def shown_ms(image):
    """The time that a frame shows, or None where it cannot be read."""
    bits = 0
    for place in range(48):
        top, left = divmod(place, 10)
        square = image[top * 32 + 8 : top * 32 + 24, left * 32 + 8 : left * 32 + 24]
        level = square.mean()
        if 90 < level < 160:
            return None
        bits = bits << 1 | int(level > 125)
    return bits


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def settled(read, wanted, *, timeout_s=10.0):
    """What `read` gives once it is down to `wanted`, or at the end of the time."""
    deadline = time.monotonic() + timeout_s
    while read() > wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return read()


@pytest.mark.slow
def test_a_camera_killed_ten_times_comes_back_every_time(server):
    draw = random.Random(0)
    options = LiveOptions(open_s=5, read_s=1, shortest_s=0.1, longest_s=0.5)
    # One connection made and closed before counting: libraries keep what they open once.
    with open_source(server.address, options=options) as warming:
        next(warming.frames())
    time.sleep(0.5)
    before = descriptors(), threading.active_count()
    source = open_source(server.address, options=options, random=draw.random)
    heard, tally = Heard(), Tally()
    source.attach(Context(heard, tally))
    ages, shown, sequences, last = [], [], [], []
    unreadable = 0

    def consume():
        nonlocal unreadable
        for frame in source.frames():
            now_ms = time.time() * 1e3
            moment = shown_ms(frame.image)
            sequences.append(frame.sequence)
            if moment is None:
                unreadable += 1
                continue
            ages.append(now_ms - moment)
            shown.append(moment)

    consumer = threading.Thread(target=consume)
    consumer.start()
    heard.wait_for("connected", timeout_s=20)
    for turn in range(KILLS):
        time.sleep(draw.uniform(0.3, 0.9))
        server.stop(draw.choice([signal.SIGKILL, signal.SIGTERM]))
        heard.wait_for("lost", count=turn + 1, timeout_s=20)
        time.sleep(0.2)  # the consumer may still be looking at the last frame
        count = len(shown)
        time.sleep(draw.uniform(0, 0.5))
        assert len(shown) == count  # nothing is invented while it is away
        last.append(count - 1)
        server.start()
        heard.wait_for("reconnected", count=turn + 1, timeout_s=30)
    time.sleep(1)
    source.close()
    consumer.join(10)
    assert not consumer.is_alive()
    kinds = [kind for kind in heard.kinds if kind in ("lost", "reconnected")]
    assert kinds == ["lost", "reconnected"] * KILLS
    assert tally.total(Counter.RECONNECTED) == tally.total(Counter.LOST) == KILLS
    assert len(shown) > 5 * KILLS
    # In order, and none twice; what it is killed over may be half this picture, half the last one.
    assert min(np.diff(np.delete(shown, last))) > 0
    assert (np.diff(sequences) > 0).all()
    assert max(ages) < 1e3 * FRESH_S
    assert unreadable <= KILLS  # a first picture may be half a picture
    assert settled(threading.active_count, before[1]) <= before[1]
    assert settled(descriptors, before[0]) <= before[0]
    assert SECRET not in repr(heard.events)


def least_age_ms(address, *, frames=40):
    """How old a camera's frames are when they come, once the decoder is at work.

    That of the youngest tenth: what else the machine does makes them older, and none younger.
    """
    ages = []
    with open_source(address) as source:
        for frame in source.frames():
            ages.append(time.time() * 1e3 - shown_ms(frame.image))
            if len(ages) == frames:
                return np.quantile(ages[frames // 2 :], 0.1)
    raise AssertionError("the camera ended")


@pytest.mark.slow
def test_the_decoder_holds_no_frame_back_unless_asked_for_more_threads(server):
    """Each further thread of FFmpeg's works on a frame of its own; at 25 fps that is 40 ms."""
    alone, four = least_age_ms(server.address), least_age_ms(f"{server.address}#threads=4")
    assert alone < 80
    assert 80 < four - alone < 200


@pytest.mark.slow
def test_a_frozen_camera_is_noticed(server):
    """It neither answers nor hangs up: only the time-out tells."""
    source = open_source(server.address, options=LiveOptions(read_s=1, shortest_s=0.2))
    heard, tally = Heard(), Tally()
    source.attach(Context(heard, tally))
    shown = []
    consumer = threading.Thread(target=lambda: shown.extend(
        shown_ms(frame.image) for frame in source.frames()
    ))  # fmt: skip
    consumer.start()
    heard.wait_for("connected", timeout_s=20)
    server.process.send_signal(signal.SIGSTOP)
    lost = heard.wait_for("lost", timeout_s=10)
    assert lost.reason in ("no frame for 1 s", "the device gives no more frames")
    server.process.send_signal(signal.SIGCONT)
    heard.wait_for("reconnected", timeout_s=30)
    source.close()
    consumer.join(10)
    assert not consumer.is_alive()
    readable = [moment for moment in shown if moment is not None]
    assert (np.diff(readable) > 0).all()


@pytest.mark.slow
def test_a_camera_through_a_cascade(server, capfd):
    from tests.stream.slow import cascade_of

    answers = Answers(unsure=lambda n: False)
    answers.saver = lambda batch: np.tile(9 * np.eye(1, 10, 3, dtype=np.float32), (len(batch), 1))
    with cascade_of(answers) as cascade:
        decisions = []
        for one in cascade.stream(server.address):
            decisions.append((one, time.monotonic() - one.timestamp_s))
            if len(decisions) == 20:
                break
    assert {one.frame_id.source_id for one, _ in decisions} == {
        f"rtsp://127.0.0.1:{server.port}/camera"
    }
    assert sorted(age for _, age in decisions)[10] < 0.1
    assert SECRET not in "".join(capfd.readouterr())


def refusal(port, path, login=""):
    """What opening an address ends with."""
    device = NetworkDevice(f"rtsp://{login}127.0.0.1:{port}/{path}", "127.0.0.1", port)
    with pytest.raises(DeviceError) as caught:
        device.connect(LiveOptions(), threading.Event())
    said = str(caught.value)
    assert "hunter2" not in said
    return said.removeprefix(f"127.0.0.1:{port} ")


def test_a_wrong_path_and_one_without_video_are_told_apart(server):
    assert refusal(server.port, "nothing").startswith("has no such path")
    assert refusal(server.port, "sound").startswith("sends no video at this path")


@pytest.mark.parametrize("server", [("basic",), ("digest",)], ids=str, indirect=True)
def test_a_password_that_lacks_and_one_that_is_wrong_are_told_apart(server):
    assert refusal(server.port, "camera").startswith("wants a user and password")
    wrong = refusal(server.port, "camera", "user:hunter2@")
    assert wrong == "refuses this user or password"
    assert refusal(server.port, "nothing", f"user:{SECRET}@").startswith("has no such path")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers, but not in RTSP: check the port"),
        (b"RTSP/1.0 453 Not Enough Bandwidth\r\n\r\n", "has no bandwidth left"),
        (b"RTSP/1.0 461 Unsupported transport\r\n\r\n", "cannot send over TCP"),
        (b"RTSP/1.0 599 \x1b[31mhunter2\r\n\r\n", "refuses with RTSP state 599"),
        (
            b"RTSP/1.0 200 OK\r\nContent-Length: 47\r\n\r\n"
            b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 X-77/90\r\n",
            "offers X-77 video, but no picture of it comes",
        ),
        (b"", "answers, and then hangs up|takes the connection and then says nothing"),
    ],
    ids=["http", "bandwidth", "udp only", "unknown", "codec", "silent"],
)
def test_what_a_camera_says_is_told(answer, said):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def camera():
            with suppress(OSError):
                talking, _ = listening.accept()
                with talking:
                    talking.recv(4096)
                    talking.sendall(answer)

        threading.Thread(target=camera, daemon=True).start()
        port = listening.getsockname()[1]
        found = why_no_video(
            f"rtsp://u:hunter2@127.0.0.1:{port}/x", port, timeout_s=2, stopping=threading.Event()
        )
    assert re.match(said, found), found
    assert "hunter2" not in found
