"""The package of examples/ros2 with ROS 2 itself, in a network that is loopback alone."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.small_bundle import small_bundle

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "ros2"
ENVIRONMENT = Path(os.environ.get("ROS2", "/nowhere"))
PYTHON = ENVIRONMENT / "bin" / "python"
NAMESPACE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]


RELIABLY = ("--reliability", "reliable")
"""What a camera of `tests.ros2.camera` is told to lose nothing."""


def _why_not():
    if not (ENVIRONMENT / "ready").exists():
        return "no ROS 2 where the variable ROS2 says: .ci/ros2 fetches it and runs these tests"
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "no unshare or no ip"
    if subprocess.run(
        [*NAMESPACE, "ip", "link", "set", "lo", "up"], capture_output=True
    ).returncode:
        return "no network namespace may be made here"
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_why_not()), reason=str(_why_not()))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("ros2") / "bundle")


class Network:
    """A network namespace: what is started in it hears each other and nobody else."""

    def __init__(self, folder, **variables):
        self.holder = subprocess.Popen(
            [*NAMESPACE, "sh", "-c", "ip link set lo up && echo up && exec sleep 600"],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout.readline() == b"up\n"
        enter = ["nsenter", "--net", f"--target={self.holder.pid}"]
        self.enter = enter if os.geteuid() == 0 else [*enter, "--user", "--preserve-credentials"]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": "77",
            "ROS_LOG_DIR": str(folder / "log"),
            **variables,
        }
        self.log = folder / "node.log"

    def start(self, *words, program=PYTHON, **options):
        command = [*self.enter, str(program), *map(str, words)]
        return subprocess.Popen(command, env=self.environment, cwd=ROOT, **options)

    def node(self, *parameters):
        """Start the node; what it says goes into the log."""
        words = [word for one in parameters for word in ("-p", one)]
        with self.log.open("wb") as log:
            return self.start("-m", "tinysaver_ros", "--ros-args", *words, stderr=log)

    def camera(self, *words):
        """Send images; return what was answered."""
        done = self.start("-m", "tests.ros2.camera", *words, stdout=subprocess.PIPE)
        out, _ = done.communicate(timeout=90)
        assert done.returncode == 0, self.log.read_text()
        return json.loads(out.splitlines()[-1])

    @contextmanager
    def flood(self, *words):
        """Send images for as long as the block runs, more than can be answered."""
        words = (*words, "--fps", 200, "--frames", 4000, *RELIABLY)
        camera = self.start("-m", "tests.ros2.camera", *words, stdout=subprocess.PIPE)
        try:
            assert camera.stdout.readline() == b"sending\n"
            time.sleep(1)
            yield
        finally:
            camera.kill()
            camera.communicate()

    def close(self):
        self.holder.kill()
        self.holder.wait()


def lossless(*topics):
    """Parameters by which no image is lost to a machine that has other things to do."""
    quality = {"reliability": "reliable", "depth": 100}
    overrides = {
        f"qos_overrides.{topic}.subscription.{policy}": value
        for topic in topics
        for policy, value in quality.items()
    }
    overrides |= {"waiting": 64, "deadline_ms": 5000}
    return [f"{name}:={value}" for name, value in overrides.items()]


@contextmanager
def network(folder, **variables):
    made = Network(folder, **variables)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def running(network, *parameters, ends_by=signal.SIGTERM, amid=None):
    """The node; at the end it is told to stop, and must do so with 0 and without a traceback.

    Args:
        network: it runs in.
        parameters: of the node.
        ends_by: the signal.
        amid: words for a camera that floods it meanwhile.
    """
    node = network.node(*parameters)
    try:
        yield node
        with nullcontext() if amid is None else network.flood(*amid):
            node.send_signal(ends_by)
            assert node.wait(10) == 0, network.log.read_text()
        said = network.log.read_text()
        assert not any(word in said for word in ("Traceback", "Exception", "InvalidHandle")), said
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()


TRIES = 3
"""What a busy machine loses or delays is not lost each time; what is wrong stays wrong."""


def test_every_image_of_every_encoding_is_answered_with_its_stamp(bundle, tmp_path):
    """Ended by SIGTERM in the midst of images."""
    parameters = [f"bundle:={bundle}", *lossless("/image")]
    encodings = ["bgr8", "rgb8", "bgra8", "yuv422_yuy2", "bayer_rggb8"]
    words = ("--encodings", *encodings, "--frames", 18, "--listens", 2.5, *RELIABLY)
    with network(tmp_path) as lo, running(lo, *parameters, amid=()):
        for number in range(1, TRIES + 1):
            heard = lo.camera(*words)
            print({name: heard[name] for name in ("sent", "exact", "age_ms", "decided_ms")})
            assert heard["sent"] == heard["answered"] == heard["exact"] == heard["right"] == 90
            assert heard["frame_ids"] == [["", "only_optical"]]
            assert {"sec", "nanosec"} == set(heard["decision"]["stamp"])
            assert heard["levels"]["tinysaver: drift"] == [0]
            figures = heard["values"]["tinysaver: image"]
            assert figures["decisions"] == str(90 * number)
            assert (figures["dropped"], figures["corrupt"]) == ("0", "0")
            if quick := heard["age_ms"][0] <= heard["decided_ms"] + 5:
                break
    assert quick


def test_several_cameras_compressed_under_a_lifecycle_manager(bundle, tmp_path):
    """Configured, activated and back twice; ended by Ctrl-C in the midst of images."""
    parameters = [f"bundle:={bundle}", "autostart:=false", "compressed:=true"]
    parameters += ["cameras:=[left,right]"]
    parameters += lossless("/left/image/compressed", "/right/image/compressed")
    configure, activate, deactivate, cleanup = 1, 3, 4, 2
    steps = [configure, activate, deactivate, cleanup, configure, activate]
    cameras = ("--encodings", "jpeg", "--cameras", "left", "right")
    with (
        network(tmp_path) as lo,
        running(lo, *parameters, ends_by=signal.SIGINT, amid=cameras),
    ):
        sent = (*cameras, "--frames", 20, "--fps", 20)
        heard = lo.camera(*sent, "--transitions", *steps, *RELIABLY)
    assert heard["answered"] == heard["exact"] == heard["right"] == 40
    assert heard["frame_ids"] == [["left", "left_optical"], ["right", "right_optical"]]


@pytest.mark.parametrize("how", ["defaults", "shared memory", "reliable"])
def test_large_images(bundle, tmp_path, how):
    """1080p at 30/s is 187 MB/s, of which Fast DDS's defaults lose most."""
    topics = "qos_overrides./image.subscription"
    parameters = [f"bundle:={bundle}", "deadline_ms:=2000", "waiting:=8"]
    variables, words = {}, ()
    if how == "reliable":
        parameters += [f"{topics}.reliability:=reliable", f"{topics}.depth:=10"]
        words = RELIABLY
    if how == "shared memory":
        profile = PACKAGE / "config" / "large_images.xml"
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    with network(tmp_path, **variables) as lo, running(lo, *parameters):
        for _ in range(TRIES):
            heard = lo.camera("--size", "1920x1080", "--frames", 120, "--fps", 30, *words)
            print(how, heard["exact"], heard["age_ms"], heard["decided_ms"])
            assert heard["exact"] == heard["answered"] == heard["right"]
            if how == "defaults" or heard["exact"] >= 118:
                break
        else:
            pytest.fail("images were lost each time")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ([], "parameter bundle: names no bundle"),
        (["bundle:=/nowhere"], "/nowhere"),
        (["bundle:=b", "deadline_ms:=soon"], "parameter deadline_ms: 'soon' will not do"),
        (["bundle:=b", "waiting:=1.5"], "parameter waiting: 1.5 will not do"),
        (["bundle:=b", "cameras:=[a,a]"], "parameter cameras: ['a', 'a'] will not do"),
        (["bundle:=HERE", "cameras:=['a b']"], "Invalid topic name"),
        (["no_value"], "parse parameter override rule: '-p no_value'"),
    ],
    ids=["none", "missing", "no number", "no whole number", "same names", "no name", "no rule"],
)
def test_what_is_wrong_is_told_in_a_line(parameters, says, bundle, tmp_path):
    with network(tmp_path) as lo:
        node = lo.node(*(one.replace("HERE", str(bundle)) for one in parameters))
        assert node.wait(20) == 2
        lines = [one for one in lo.log.read_text().splitlines() if "[rcl]" not in one]
    assert len(lines) == 1, lines
    assert says in lines[0]


def test_a_signal_at_any_moment_of_the_start_ends_it_with_0(bundle, tmp_path):
    with network(tmp_path) as lo:
        for wait_s in (0.4, 0.8, 1.2, 1.6, 2.0):
            node = lo.node(f"bundle:={bundle}")
            time.sleep(wait_s)
            node.terminate()
            assert node.wait(10) == 0, (wait_s, lo.log.read_text())
            assert "Traceback" not in lo.log.read_text()


def test_colcon_builds_what_runs_with_its_parameters_file(bundle, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "src" / "tinysaver_ros")
    bins = os.pathsep.join([str(PYTHON.parent), os.environ["PATH"]])
    done = subprocess.run(
        [PYTHON.parent / "colcon", "build"],
        cwd=tmp_path,
        env={**os.environ, "PATH": bins, "AMENT_PREFIX_PATH": str(ENVIRONMENT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "install" / "tinysaver_ros"
    share = installed / "share" / "tinysaver_ros"
    assert (share / "launch" / "classify.launch.py").is_file()
    site = next((installed / "lib").glob("python3*/site-packages"))
    with network(tmp_path, PYTHONPATH=os.pathsep.join([str(site), str(ROOT)])) as lo:
        words = ["--ros-args", "--params-file", share / "config" / "classify.yaml"]
        words += ["-p", f"bundle:={bundle}", "-r", "image:=/front/image_raw"]
        with lo.log.open("wb") as log:
            node = lo.start(
                *words, program=installed / "lib" / "tinysaver_ros" / "classify", stderr=log
            )
        time.sleep(6)
        assert node.poll() is None, lo.log.read_text()
        node.terminate()
        assert node.wait(10) == 0, lo.log.read_text()
        assert all(line.startswith("[INFO]") for line in lo.log.read_text().splitlines())
