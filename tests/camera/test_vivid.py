"""Cameras as the kernel has them: its own test driver, which does what real ones do once a year.

`.ci/vm camera` runs these in an emulated machine. The driver has no picture of anything, but all of
V4L2 above it is the real one: opening, formats, rates, two programs at once, unplugging.
"""

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stream.events import listening
from tinysaver_edge.errors import SourceError
from tinysaver_edge.stream import LiveOptions, open_source

TOOLS = Path(os.environ.get("VIVID", "/nowhere"))
"""Holds busybox, v4l2-ctl and vivid.ko."""

pytestmark = pytest.mark.skipif(
    not (TOOLS / "vivid.ko").exists(), reason="no test camera of the kernel's: .ci/vm has one"
)

NOBODY = 65534
PATIENCE_S = 30
OPTIONS = LiveOptions(open_s=20, read_s=8, shortest_s=0.1, longest_s=0.5)
"""The machine is emulated, and slow: what it loses, it loses by what the tests do to the camera."""


def tool(*words):
    subprocess.run([TOOLS / words[0], *words[1:]], check=True, timeout=30)


def control(device, **values):
    """Set what the driver calls its controls."""
    for name, value in values.items():
        tool("v4l2-ctl", "--device", str(device), "--set-ctrl", f"{name}={value}")


@contextmanager
def plugged(count=1):
    """So many cameras, /dev/video0 and on; unplugged at the end, whatever still holds them."""
    kinds = {"num_inputs": "1", "input_types": "0x0", "node_types": "0x1", "multiplanar": "1"}
    words = [f"{name}={','.join([value] * count)}" for name, value in kinds.items()]
    tool("busybox", "insmod", TOOLS / "vivid.ko", f"n_devs={count}", "vid_cap_nr=0", *words)
    for number in range(count):
        wait_for(Path(f"/dev/video{number}").exists)
    try:
        yield
    finally:
        for _ in range(50):
            done = subprocess.run([TOOLS / "busybox", "rmmod", "vivid"], capture_output=True)
            if not done.returncode:
                break
            time.sleep(0.1)
        assert not done.returncode, done.stderr


def wait_for(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.fixture
def camera():
    with plugged():
        yield


def opened(address="camera:0?width=320&height=180&fps=5", options=OPTIONS):
    source = open_source(address, options=options)
    heard, _ = listening(source)
    return source, heard


def failure(address="0"):
    source, _ = opened(address)
    with source, pytest.raises(SourceError) as error:
        next(iter(source))
    return str(error.value)


@pytest.mark.parametrize(("width", "height"), [(320, 180), (640, 360)])
def test_the_size_is_the_one_asked_for(camera, width, height):
    source, _ = opened(f"camera:0?width={width}&height={height}&fps=5")
    with source:
        frames = iter(source)
        first, second = next(frames), next(frames)
    assert first.image.shape == second.image.shape == (height, width, 3)
    assert first.image.max() > 150  # a picture of stripes, and no black one
    assert second.sequence > first.sequence


def test_so_is_the_rate(camera):
    source, _ = opened("camera:0?width=320&height=180&fps=5")
    with source:
        frames = iter(source)
        next(frames)
        start, begun = next(frames), time.monotonic()
        while time.monotonic() < begun + 3:
            last = next(frames)
    rate = (last.sequence - start.sequence) / (last.timestamp_s - start.timestamp_s)
    assert 4 < rate < 5.5


def test_two_cameras_at_once():
    with plugged(2):
        one, _ = opened("left=camera:0?width=320&height=180&fps=5")
        two, _ = opened("right=camera:/dev/video1?width=640&height=360&fps=5")
        with one, two:
            lefts, rights = iter(one), iter(two)
            left, right = next(lefts), next(rights)
            assert (next(lefts).sequence, next(rights).sequence) > (left.sequence, right.sequence)
    assert (left.source_id, left.image.shape[1]) == ("left", 320)
    assert (right.source_id, right.image.shape[1]) == ("right", 640)


def test_one_that_another_program_holds(camera):
    source, _ = opened()
    with source:
        frames = iter(source)
        next(frames)
        assert failure() == "source camera0: another program holds /dev/video0, or it is no camera"
        next(frames)
    again, _ = opened()
    with again:
        next(iter(again))


def test_one_that_is_not_there():
    assert failure() == "source camera0: there is no /dev/video0: is the camera plugged in?"


def test_one_that_may_not_be_opened(camera):
    assert Path("/dev/video0").group() == "root"  # its module is out of this user's reach later
    Path("/dev/video0").chmod(0o660)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        said = failure()
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
    assert said.startswith("source camera0: no permission to open /dev/video0: ")
    assert "usermod -aG" in said


def test_it_comes_back_when_it_is_plugged_in_again():
    """The driver lets its camera vanish, until nobody holds it; then it can be taken away whole."""
    source, heard = opened(options=replace(OPTIONS, shortest_s=4, longest_s=4, jitter=0))
    with source:
        with plugged():
            frames = iter(source)
            next(frames)
            control(0, disconnect=1)
            heard.wait_for("lost", timeout_s=PATIENCE_S)
        gone = heard.wait_for("retrying", timeout_s=PATIENCE_S)
        assert gone.reason == "there is no /dev/video0: is the camera plugged in?"
        with plugged():
            assert next(frames).image.shape == (180, 320, 3)
            heard.wait_for("reconnected", timeout_s=PATIENCE_S)
            source.close()


def test_an_error_of_the_stream_is_lived_through(camera):
    source, heard = opened()
    with source:
        frames = iter(source)
        next(frames)
        control(0, inject_fatal_streaming_error=1)
        heard.wait_for("lost", timeout_s=PATIENCE_S)
        next(frames)
        heard.wait_for("reconnected", timeout_s=PATIENCE_S)


def test_one_that_freezes_is_lost_until_it_moves_again(camera):
    source, heard = opened(options=replace(OPTIONS, read_s=3))
    with source:
        frames = iter(source)
        next(frames)
        control(0, percentage_of_dropped_buffers=100)
        taker = threading.Thread(target=lambda: [None for _ in frames])
        taker.start()  # who asks for a frame finds out
        assert heard.wait_for("lost", timeout_s=PATIENCE_S).reason == "no frame for 3 s"
        control(0, percentage_of_dropped_buffers=0)
        heard.wait_for("reconnected", timeout_s=PATIENCE_S)
    taker.join(PATIENCE_S)
    assert not taker.is_alive()
