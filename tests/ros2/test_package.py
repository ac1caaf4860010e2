"""The package of examples/ros2 without ROS: pictures of messages, headers of answers, figures."""

import ast
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.small_bundle import small_bundle
from tests.stream.slow import Answers, cascade_of
from tinysaver_edge import Bundle
from tinysaver_edge.engines.remote.traffic import HostState, State
from tinysaver_edge.testing import numbered_frame

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "ros2"
sys.path.insert(0, str(PACKAGE))

from tinysaver_ros.answering import Answering, Level, Settings  # noqa: E402
from tinysaver_ros.pictures import (  # noqa: E402
    ENCODINGS,
    PictureError,
    compressed_picture_of,
    picture_of,
)


@dataclass
class Stamp:
    """builtin_interfaces/Time."""

    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    """std_msgs/Header."""

    stamp: Stamp = field(default_factory=Stamp)
    frame_id: str = ""


@dataclass
class Image:
    """sensor_msgs/Image."""

    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: bytes = b""
    header: Header = field(default_factory=Header)


@dataclass
class CompressedImage:
    """sensor_msgs/CompressedImage."""

    format: str = ""
    data: bytes = b""
    header: Header = field(default_factory=Header)


def message(pixels, encoding, *, padding=0, big=False):
    """Return what a camera sends: rows of whatever holds a pixel, with bytes behind each row."""
    height, width = pixels.shape[:2]
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(">u2" if big else "<u2")
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    step = rows.shape[1] + padding
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=255).tobytes()
    return Image(height, width, encoding, int(big), step, data)


_NOISE = np.random.default_rng(0).random((48, 64, 3))
SMOOTH = cv2.normalize(cv2.GaussianBlur(_NOISE, (0, 0), 6), None, 10, 245, cv2.NORM_MINMAX)
SMOOTH = SMOOTH.astype(np.uint8)
GREY = cv2.cvtColor(SMOOTH, cv2.COLOR_BGR2GRAY)
ALPHA = np.full((48, 64, 1), 7, np.uint8)
WIDE = 257 * SMOOTH.astype(np.uint16)

EXACT = {
    "mono8": (GREY, np.repeat(GREY[:, :, None], 3, 2)),
    "8UC1": (GREY, np.repeat(GREY[:, :, None], 3, 2)),
    "mono16": (257 * GREY.astype(np.uint16), np.repeat(GREY[:, :, None], 3, 2)),
    "bgr8": (SMOOTH, SMOOTH),
    "8UC3": (SMOOTH, SMOOTH),
    "rgb8": (SMOOTH[:, :, ::-1], SMOOTH),
    "bgr16": (WIDE, SMOOTH),
    "rgb16": (WIDE[:, :, ::-1], SMOOTH),
    "bgra8": (np.concatenate([SMOOTH, ALPHA], 2), SMOOTH),
    "8UC4": (np.concatenate([SMOOTH, ALPHA], 2), SMOOTH),
    "rgba8": (np.concatenate([SMOOTH[:, :, ::-1], ALPHA], 2), SMOOTH),
    "bgra16": (np.concatenate([WIDE, 257 * ALPHA.astype(np.uint16)], 2), SMOOTH),
    "rgba16": (np.concatenate([WIDE[:, :, ::-1], 257 * ALPHA.astype(np.uint16)], 2), SMOOTH),
}


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", EXACT)
def test_a_picture_of_whole_pixels_is_exact(encoding, padding):
    pixels, expected = EXACT[encoding]
    for big in (False, True) if pixels.dtype == np.uint16 else (False,):
        found = picture_of(message(pixels, encoding, padding=padding, big=big))
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)


def pairs(picture, first):
    """Return YUV 4:2:2 by BT.601: two pixels share their colours."""
    red, green, blue = np.moveaxis(picture[:, :, ::-1].astype(float) / 255, 2, 0)
    brightness = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    blueness = 128 - 37.797 * red - 74.203 * green + 112.0 * blue
    redness = 128 + 112.0 * red - 93.786 * green - 18.214 * blue
    packed = np.empty((*picture.shape[:2], 2))
    packed[:, :, first] = brightness
    packed[:, 0::2, 1 - first] = (blueness[:, 0::2] + blueness[:, 1::2]) / 2
    packed[:, 1::2, 1 - first] = (redness[:, 0::2] + redness[:, 1::2]) / 2
    return packed.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("encoding", "first"), [("yuv422", 1), ("uyvy", 1), ("yuv422_yuy2", 0), ("yuyv", 0)]
)
def test_yuv_gives_the_picture_back(encoding, first):
    found = picture_of(message(pairs(SMOOTH, first), encoding, padding=4)).astype(int)
    assert np.abs(found - SMOOTH).max() <= 12
    assert np.abs(found[:, :, ::-1] - SMOOTH).max() > 40


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_gives_the_picture_back(pattern, bits):
    mosaic = np.empty(SMOOTH.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        mosaic[rows, columns] = SMOOTH[rows, columns, "bgr".index(colour)]
    sent = mosaic if bits == 8 else 257 * mosaic.astype(np.uint16)
    found = picture_of(message(sent, f"bayer_{pattern}{bits}", padding=2)).astype(int)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(found[inner] - SMOOTH[inner]).max() <= 12
    assert np.abs(found[:, :, ::-1][inner] - SMOOTH[inner]).max() > 40


def test_every_encoding_is_tested_here():
    yuv = {"yuv422", "uyvy", "yuv422_yuy2", "yuyv"}
    bayer = {name for name in ENCODINGS if name.startswith("bayer_")}
    assert set(ENCODINGS) == set(EXACT) | yuv | bayer
    assert len(bayer) == 8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed(suffix):
    data = cv2.imencode(suffix, SMOOTH)[1].tobytes()
    found = compressed_picture_of(CompressedImage(f"bgr8; {suffix[1:]} compressed bgr8", data))
    assert np.abs(found.astype(int) - SMOOTH).max() <= (0 if suffix == ".png" else 12)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (message(SMOOTH, "32FC1"), "encoding '32FC1': expected one of mono8"),
        (Image(2, 2, "bgr8", 0, 5, bytes(10)), "expected rows of at least 6 and 12 bytes"),
        (Image(2, 2, "bgr8", 0, 6, bytes(11)), "11 bytes of data"),
        (Image(0, 2, "mono8", 0, 2, b""), "2x0 mono8"),
        (Image(2, 3, "yuv422", 0, 6, bytes(12)), "3 pixels wide"),
        (Image(1, 2, "bayer_rggb8", 0, 2, bytes(2)), "too small"),
    ],
    ids=["encoding", "step", "data", "empty", "odd", "tiny mosaic"],
)
def test_what_is_no_picture_is_told(wrong, says):
    with pytest.raises(PictureError, match=says):
        picture_of(wrong)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"nonsense"], ids=["none", "cut", "text"])
def test_what_cannot_be_decoded_is_told(data):
    with pytest.raises(PictureError, match="cannot be decoded"):
        compressed_picture_of(CompressedImage("jpeg", data))
    with pytest.raises(PictureError, match="depth image"):
        compressed_picture_of(CompressedImage("16UC1; compressedDepth", data))


# Answers and their headers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with Bundle.load(small_bundle(tmp_path_factory.mktemp("ros2") / "bundle")) as opened:
        yield opened


def settings(**changes):
    given = {
        "cameras": ("",),
        "escalation": "wait",
        "deadline_ms": 5000.0,
        "waiting": 64,
        "audit_share": 0.0,
    }
    return Settings(**(given | changes))


class Rig:
    """Cameras before a cascade of `Answers`, and what came out."""

    def __init__(self, bundle, answers, **changes):
        self.heard, self.events, self.came = [], [], threading.Condition()
        self.cascade = cascade_of(answers)
        self.answering = Answering(
            self.cascade,
            bundle,
            settings(**changes),
            answered=self._hear,
            listener=self.events.append,
        )

    def _hear(self, camera, header, decision):
        with self.came:
            self.heard.append((camera, header, decision))
            self.came.notify_all()

    def put(self, number, camera="", stamp=None, **changes):
        sent = message(numbered_frame(number), "bgr8")
        sent.header = Header(
            stamp or Stamp(1_790_000_000, 999_999_900 + number % 100), f"{camera}_optical"
        )
        for name, value in changes.items():
            setattr(sent, name, value)
        self.answering.put(camera, sent)

    def wait_for(self, number):
        with self.came:
            assert self.came.wait_for(lambda: len(self.heard) >= number, 20)

    def __enter__(self):
        self.answering.start(picture_of)
        return self

    def __exit__(self, *exception):
        self.answering.stop()
        self.cascade.close()


def test_stamp_and_frame_come_out_as_they_went_in(bundle):
    with Rig(bundle, Answers(), cameras=("left", "right")) as rig:
        for number in range(20):
            rig.put(number, "left")
            rig.put(number, "right", Stamp(number, 7))
            rig.wait_for(2 * number + 2)  # more at once, and some would be degraded
    for camera in ("left", "right"):
        headers = [header for name, header, _ in rig.heard if name == camera]
        assert [header.frame_id for header in headers] == [f"{camera}_optical"] * 20
        decided = [one for name, _, one in rig.heard if name == camera]
        assert [one.index for one in decided] == [(n + n % 2) % 10 for n in range(20)]
        for number, header in enumerate(headers):
            expected = (number, 7) if camera == "right" else (1_790_000_000, 999_999_900 + number)
            assert (header.stamp.sec, header.stamp.nanosec) == expected


LAST = 123_456_789


def test_only_the_newest_wait_and_what_cannot_be_read_is_passed_over(bundle):
    answers = Answers(unsure=lambda n: False, saver_s=0.05)
    with Rig(bundle, answers, waiting=1) as rig:
        started_s = time.monotonic()
        for number in range(200):
            rig.put(number)
        assert time.monotonic() - started_s < 2  # who puts is not held up: 200 take 10 s
        rig.put(0, encoding="32FC1")
        rig.put(200, stamp=Stamp(5, LAST))
        deadline_s = time.monotonic() + 10
        while not rig.heard or rig.heard[-1][1].stamp.nanosec != LAST:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        status = rig.answering.statuses()[0]
    assert len(rig.heard) < 100
    assert int(status.values["dropped"]) + len(rig.heard) + int(status.values["corrupt"]) == 202
    assert status.level is Level.WARN
    assert "left out" in status.message


def test_an_image_that_cannot_be_read_is_told_once_and_counted(bundle):
    with Rig(bundle, Answers()) as rig:
        for number in range(5):
            rig.put(number, encoding="32FC1")
            time.sleep(0.02)
        deadline_s = time.monotonic() + 5
        status = rig.answering.statuses()[0]
        while status.values["corrupt"] != "5" and time.monotonic() < deadline_s:
            time.sleep(0.01)
            status = rig.answering.statuses()[0]
        assert status.values["corrupt"] == "5"
        rig.put(1, encoding="32FC1")
        while rig.answering.statuses()[0].level is not Level.ERROR:
            assert time.monotonic() < deadline_s
            rig.put(1, encoding="32FC1")
            time.sleep(0.05)
        rig.put(2)
        rig.wait_for(1)
    assert [event.kind for event in rig.events].count("corrupt") == 1


def test_a_stuck_large_model_degrades_and_stopping_answers_what_waits(bundle):
    answers = Answers(unsure=lambda n: True)
    answers.gate.clear()
    rig = Rig(bundle, answers, deadline_ms=150.0)
    with rig:
        for number in range(3):
            rig.put(number)
        rig.wait_for(3)
        status = rig.answering.statuses()[0]
        assert status.level is Level.WARN
        assert "degraded" in status.message
        assert all(decision.degraded for _, _, decision in rig.heard)
        assert rig.answering.running
        answers.gate.set()
    heard = len(rig.heard)
    rig.put(9)
    time.sleep(0.1)
    assert len(rig.heard) == heard
    assert not rig.answering.running
    assert rig.answering.statuses()[0].message == "inactive"


def test_it_starts_again_after_it_was_stopped(bundle):
    with Rig(bundle, Answers(unsure=lambda n: False)) as rig:
        for turn in range(1, 4):
            rig.put(turn)
            rig.wait_for(turn)
            rig.answering.stop()
            rig.answering.stop()
            rig.answering.start(picture_of)
    assert [decision.index for _, _, decision in rig.heard] == [1, 2, 3]


def test_drift_is_told(bundle):
    answers = Answers(unsure=lambda n: False)  # the large model always answers otherwise
    with Rig(bundle, answers, audit_share=1.0) as rig:
        for number in range(40):
            rig.put(number)
            rig.wait_for(number + 1)
        deadline_s = time.monotonic() + 5
        told = rig.answering.statuses()[1]
        while told.level is Level.OK and time.monotonic() < deadline_s:
            time.sleep(0.05)
            told = rig.answering.statuses()[1]
        assert (told.name, told.level) == ("drift", Level.WARN)
        assert int(told.values["alarms"]) >= 1
        assert int(told.values["disagreed"]) > 0


def test_hosts_are_told(bundle):
    """The values are those that a remote engine tells; the engine is not: no server is needed."""
    with Rig(bundle, Answers()) as rig:
        names = {"http://a/large": State.CLOSED, "http://b/large": State.OPEN}
        rig.cascade.stages[-1].engine.hosts = tuple(
            HostState(name, state, True, answered=3, reconnects=0, latency_ms=1.5, identity=None)
            for name, state in names.items()
        )
        told = {one.name: one for one in rig.answering.statuses()}
    assert told["host http://a/large"].level is Level.OK
    assert told["host http://b/large"].level is Level.WARN
    assert told["host http://b/large"].message == "left alone: its breaker is open"
    assert told["host http://a/large"].values["answered"] == "3"


# What is written down twice


def defaults():
    """The parameters that node.py declares; it cannot be imported without ROS."""
    tree = ast.parse((PACKAGE / "tinysaver_ros" / "node.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "DEFAULTS":
            return ast.literal_eval(node.value)
    raise AssertionError("no DEFAULTS")


def test_the_parameters_file_has_every_parameter_with_its_default():
    found = {}
    for line in (PACKAGE / "config" / "classify.yaml").read_text().splitlines():
        name, colon, value = line.strip().partition(": ")
        if colon and not line.strip().startswith("#"):
            words = {"true": True, "false": False}
            bare = value.replace("_", "").isalpha()
            found[name] = words.get(value, value) if bare else ast.literal_eval(value)
    assert found == defaults()


def test_the_package_installs_every_file_it_has():
    listed = (PACKAGE / "setup.py").read_text()
    for folder in ("launch", "config"):
        for path in (PACKAGE / folder).iterdir():
            assert f'"{folder}/{path.name}"' in listed
    name = "tinysaver_ros"
    assert f"<name>{name}</name>" in (PACKAGE / "package.xml").read_text()
    assert (PACKAGE / "resource" / name).is_file()
    assert (PACKAGE / name / "__main__.py").is_file()
    assert f"$base/lib/{name}" in (PACKAGE / "setup.cfg").read_text()


def test_the_launch_file_names_what_there_is():
    """It cannot be run: nobody offers `launch_ros` where the rest of ROS comes from."""
    tree = ast.parse((PACKAGE / "launch" / "classify.launch.py").read_text())
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call)]

    def first_words(function):
        return {
            one.args[0].value
            for one in calls
            if isinstance(one.func, ast.Name) and one.func.id == function
        }

    assert first_words("DeclareLaunchArgument") == first_words("LaunchConfiguration")
    (node,) = (one for one in calls if getattr(one.func, "id", "") == "LifecycleNode")
    given = {one.arg: one.value for one in node.keywords}
    assert {"package", "executable", "name", "namespace"} <= set(given)
    (named,) = (one for one in given["parameters"].elts if isinstance(one, ast.Dict))
    assert {key.value for key in named.keys} <= set(defaults())
    program = f'"{given["executable"].value} = {{NAME}}.__main__:main"'
    assert f'console_scripts": [f{program}]' in (PACKAGE / "setup.py").read_text()
    for config in (one.value for one in ast.walk(tree) if isinstance(one, ast.Constant)):
        if str(config).endswith((".yaml", ".xml")):
            assert (PACKAGE / "config" / config).is_file()


def test_every_package_of_ros_that_is_imported_is_depended_on():
    told = set(re.findall(r"<exec_depend>(\w+)<", (PACKAGE / "package.xml").read_text()))
    used = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(node.module)
    used = {name.partition(".")[0] for name in used} - sys.stdlib_module_names
    of_pip = {"numpy", "cv2", "tinysaver_edge", "tinysaver_ros", "setuptools"}
    assert used - of_pip == told
