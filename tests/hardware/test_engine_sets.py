"""Probe, doctor and bench where only one engine is installed, and where there is none.

Each environment is a real one: the wheel of this project, and links to what it needs from the
environment that the tests run in. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.bench.test_bench import described
from tests.small_bundle import small_bundle

ROOT = Path(__file__).resolve().parents[2]
CORE = ("numpy", "scipy", "click", "rich", "pydantic", "opencv-python")
SETS = {"none": (), "onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}
QUICKLY = ("--runs", "3", "--seconds", "0.05", "--no-throughput")

pytestmark = pytest.mark.slow


def closure(packages: tuple[str, ...]) -> set[str]:
    """What these packages need, and what that needs, extras left out."""
    found: set[str] = set()
    left = list(packages)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another system or Python
        found.add(name)
        left += [re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line]
    return found


def link(packages: tuple[str, ...], target: Path) -> None:
    """Put links to the packages' files into an environment."""
    for name in closure(packages):
        installed = distribution(name)
        files = (file for file in installed.files or () if ".." not in file.parts)
        for top in {file.parts[0] for file in files}:
            place = target / top
            if not place.exists():
                place.symlink_to(Path(str(installed.locate_file(top))).resolve())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=SETS)
def environment(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Name of a set of engines, and the folder of an environment that has it."""
    folder = tmp_path_factory.mktemp("venv")
    make = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(make, check=True, capture_output=True)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link((*CORE, *SETS[request.param]), folder / "lib" / python / "site-packages")
    install = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    offline = ["--no-index", "--no-deps", "--ignore-installed", wheel]
    subprocess.run([*install, *offline], check=True, capture_output=True)
    return request.param, folder


def call(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(home), "USER": "somebody"}
    command = [folder / "bin" / "tinysaver-edge", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_probe_says_which_engines_are_there(environment: tuple[str, Path], tmp_path: Path) -> None:
    engines, folder = environment
    done = call(folder, tmp_path, "devices", "probe", "--json")
    assert done.returncode == 0, done.stderr
    found = next(one for one in json.loads(done.stdout)["sections"] if one["title"] == "engines")
    told = {one["name"]: one for one in found["findings"]}
    for name in ("onnxruntime", "openvino"):
        assert told[name]["there"] == (engines == name)
        if engines != name:
            assert told[name]["reason"].startswith("not installed: pip install '")
            assert told[name]["reason"].endswith(f"[{name}]'")
    runs = [one["name"] for one in found["findings"] if "runs a model" in one.get("value", "")]
    assert len(runs) == len(SETS[engines])


def test_doctor_finds_nothing_broken_but_the_lack_of_any_engine(
    environment: tuple[str, Path], tmp_path: Path
) -> None:
    engines, folder = environment
    done = call(folder, tmp_path, "doctor", "--json")
    checks = json.loads(done.stdout)["checks"]
    broken = {one["name"]: one["mend"] for one in checks if one["state"] == "broken"}
    if engines == "none":
        assert list(broken) == ["engines"]
        assert broken["engines"].startswith("pip install '")
        assert broken["engines"].endswith("[cpu]'")
        assert done.returncode == 2
    else:
        assert broken == {}
        assert done.returncode == 0, done.stderr
    versions = next(one for one in checks if one["name"] == "versions")
    assert versions["detail"] == "all that is installed is new enough"


def test_bench_runs_with_what_is_there(environment: tuple[str, Path], tmp_path: Path) -> None:
    engines, folder = environment
    done = call(folder, tmp_path, "bench", str(described(tmp_path)), *QUICKLY, "--json")
    if engines == "none":
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "pip install '" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads(done.stdout)["stages"]
    assert stage["engine"] == engines


def test_bench_chooses_among_the_engines_that_are_there(
    environment: tuple[str, Path], tmp_path: Path
) -> None:
    engines, folder = environment
    model = str(described(tmp_path))
    done = call(folder, tmp_path, "bench", model, "--engine", "auto", *QUICKLY, "--json")
    if engines == "none":
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "pip install '" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["engine"] for one in report["engine_choice"]["tried"]] == [engines]
    assert list(report["machine"]["engines"]) == [engines]


def test_verify_of_a_bundle_for_another_engine_says_what_to_install(
    environment: tuple[str, Path], tmp_path: Path
) -> None:
    engines, folder = environment
    bundle = small_bundle(tmp_path / "bundle")  # made for onnxruntime
    done = call(folder, tmp_path, "verify", str(bundle))
    if engines == "onnxruntime":
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "engine of saver: was calibrated with onnxruntime on CPU in float32" in last
    assert "[onnxruntime]'" in last


def test_bench_of_a_bundle_for_another_engine_says_what_to_install(
    environment: tuple[str, Path], tmp_path: Path
) -> None:
    engines, folder = environment
    bundle = small_bundle(tmp_path / "bundle")  # made for onnxruntime
    done = call(folder, tmp_path, "bench", str(bundle), *QUICKLY)
    if engines == "onnxruntime":
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "bundle.bench.json").is_file()
        return
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "[onnxruntime]'" in done.stderr
