"""Every program in examples/ runs, on a real bundle, as a user would run it."""

import csv
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.colours import COLOURS, DESCRIPTION, LARGE, NAMES, SAVER, colour_model
from tests.plug_ins import install
from tests.small_bundle import small_bundle
from tests.stream.slow import Answers, cascade_of
from tinysaver_edge import Cascade, InputError
from tinysaver_edge.stream.sources.live import LiveOptions
from tinysaver_edge.testing import numbered_frame

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TESTED_ELSEWHERE = {"train_demo_models"}
PACKAGES = {"ros2": "tests/ros2"}
"""Examples that are a folder with a setup.py, and where their tests are."""


def example(name):
    """Import an example's file."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("examples") / "bundle")


def test_every_example_has_its_test():
    here = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'example("{path.stem}")' in here or path.stem in TESTED_ELSEWHERE
    assert {path.parent.name for path in EXAMPLES.glob("*/setup.py")} == set(PACKAGES)
    for tests in PACKAGES.values():
        assert list((EXAMPLES.parent / tests).glob("test_*.py"))


@pytest.mark.parametrize(
    "name",
    ["camera", "several_cameras", "robot_loop", "custom_source", "custom_engine", "custom_sink"],
)
def test_without_arguments_an_example_says_what_it_wants(name):
    command = [sys.executable, EXAMPLES / f"{name}.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"python examples/{name}.py " in done.stderr
    assert "Traceback" not in done.stderr


def test_camera(bundle, capsys):
    example("camera").watch(bundle, "demo://?fps=60", frames=10)
    out, err = capsys.readouterr()
    assert len([line for line in out.splitlines() if line.split()[1] in NAMES]) == 10
    assert "demo: connected" in err


def test_several_cameras(bundle, capsys):
    sources = ["left=demo://?fps=40&seed=1", "right=demo://?fps=40&seed=2"]
    sources.append(f"photos={bundle / 'golden'}")
    decided = example("several_cameras").watch(bundle, sources, frames=60)
    assert set(decided) == {"left", "right", "photos"}
    assert min(decided["left"], decided["right"]) >= 15
    assert "on second thoughts" in capsys.readouterr().out


def test_robot_loop(bundle, capsys):
    example("robot_loop").main(bundle, 30)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 30
    assert "of 30 turns took longer than 33 ms" in err


def test_robot_loop_keeps_its_period_while_the_large_model_is_stuck():
    robot = example("robot_loop")
    answers = Answers(unsure=lambda n: n % 2 == 1)
    answers.gate.clear()
    acted = []
    with cascade_of(answers) as cascade:
        started = time.monotonic()
        late = robot.control(cascade, map(numbered_frame, range(30)), acted.append)
        spent = time.monotonic() - started
        answers.gate.set()
    assert len(acted) == 30
    assert sum(decision.degraded is not None for decision in acted) == 15
    assert spent < 1.5 * 30 * robot.PERIOD_S
    assert late <= 10  # the machine may be busy; stuck, every other turn would be late


def test_custom_engine(tmp_path, capsys):
    for name, kind in (("saver", SAVER), ("large", LARGE)):
        colour_model(tmp_path / f"{name}.onnx", kind)
        (tmp_path / f"{name}.toml").write_text(DESCRIPTION)
    images = []
    for number, colour in enumerate(COLOURS):
        picture = np.empty((40, 40, 3), np.uint8)
        picture[:] = 255 * colour[::-1]
        images.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(images[-1]), picture)
    example("custom_engine").main(tmp_path / "saver.onnx", tmp_path / "large.onnx", images)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(len(COLOURS))]
    assert any("(large)" in line for line in lines)


def test_custom_source(bundle, capsys):
    program = (
        "import sys\nfor number in range(5): sys.stdout.buffer.write(bytes([20 * number]) * 96)\n"
    )
    custom = example("custom_source")
    custom.main(bundle, 8, 8, [sys.executable, "-c", program], frames=3)
    assert len(capsys.readouterr().out.splitlines()) == 3
    before = threading.active_count()
    device = custom.Program([sys.executable, "-c", program], width=8, height=8)
    source = custom.LiveSource(device, source_id="x", options=LiveOptions(attempts=3))
    with Cascade.load(bundle) as cascade:
        decisions = list(itertools.islice(cascade.stream(source), 12))
    assert len(decisions) == 12  # the program was started again and again
    with pytest.raises(custom.DeviceError, match="nowhere: No such file"):
        custom.Program(["nowhere"], width=8, height=8).connect(LiveOptions(), threading.Event())
    assert threading.active_count() <= before


def test_custom_sink(bundle, tmp_path):
    custom = example("custom_sink")
    table = tmp_path / "decisions.csv"
    custom.main(bundle, "belt=demo://?fps=60&frames=20", str(table))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["source"] for row in rows} == {"belt"}
    assert {row["label"] for row in rows} <= set(NAMES)
    with pytest.raises(InputError, match="sink csv: names no file"):
        custom.open_csv("")
    with pytest.raises(InputError, match=r"decisions\.csv: cannot be written"):
        custom.main(bundle, "demo://?frames=2", str(tmp_path / "nowhere" / "decisions.csv"))


def test_custom_sink_of_an_installed_package(bundle, tmp_path, monkeypatch):
    """As pip would install it, by its name on the command line."""
    shutil.copy(EXAMPLES / "custom_sink.py", tmp_path)
    install(tmp_path, monkeypatch, "sinks", {"csv": "custom_sink:open_csv"})

    def run(*words):
        command = [Path(sys.executable).with_name("tinysaver-edge"), "run", bundle, *words]
        paths = [str(tmp_path), str(EXAMPLES.parent)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)

    table = tmp_path / "decisions.csv"
    images = bundle / "golden"
    done = run("--source", images, "--quiet", "--sink", f"csv:{table}")
    assert done.returncode == 0, done.stderr
    assert len(table.read_text().splitlines()) == 1 + len(list(images.glob("*.*g")))
    for wrong, why in {
        "csv": "sink csv: names no file",
        "xml:a": "sink 'xml': no such sink; there are csv",
        "csv:/proc/no/such": "/proc/no/such: cannot be written",
    }.items():
        done = run("--source", images, "--quiet", "--sink", wrong)
        assert done.returncode == 2
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
