"""Wheel, editable install and plain checkout all find the data, and only as data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKOUT_FOLDERS = {"devices", "calibration"}

pytestmark = pytest.mark.slow

# Run inside an installation: where is the data, and does any import reach it?
REPORT = """
import importlib, json, pathlib, tinysaver_edge
from tinysaver_edge._support import resources
reached = []
for name in ("devices", "calibration", "tinysaver_edge.devices", "tinysaver_edge.calibration",
             "tinysaver_edge._data", "tinysaver_edge._data.d", "tinysaver_edge._data.d.devices"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    reached.append(name)
print(json.dumps({
    "package": str(pathlib.Path(tinysaver_edge.__file__).resolve().parent),
    "devices": str(resources.devices_dir()),
    "calibration": str(resources.calibration_dir()),
    "profiles": sorted(path.name for path in resources.devices_dir().glob("*.toml")),
    "reached": reached,
}))
"""


def call(*arguments: str | Path, cwd: Path, path: str | None = None) -> str:
    """Run a program and return what it prints; its complaints are part of a failure's report."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    if path is not None:
        environment["PYTHONPATH"] = path
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment that borrows the dependencies of the one the tests run in."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *arguments: str | Path) -> None:
        """Install without the network: no dependencies, the build backend of this environment."""
        pip = (sys.executable, "-m", "pip", "--python", self.python)
        offline = ("--no-index", "--no-deps", "--no-build-isolation")
        # What is installed in the borrowed environment is no reason to leave this one alone.
        call(*pip, "install", "--ignore-installed", *offline, *arguments, cwd=self.folder)

    def report(self, *, cwd: Path | None = None, path: str | None = None) -> dict[str, object]:
        printed = call(self.python, "-c", REPORT, cwd=cwd or self.folder, path=path)
        return json.loads(printed)  # type: ignore[no-any-return]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    folder = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=tmp_path)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / python / "site-packages"
    # A folder named in a .pth file has its own .pth files left alone, so that an editable install
    # of this project in the borrowed environment does not come along.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Environment(folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tinysaver_edge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {
        *package,
        *(
            f"tinysaver_edge/_data.d/{path.relative_to(ROOT)}"
            for folder in CHECKOUT_FOLDERS
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in (".toml", ".csv", ".md")
        ),
    }
    assert {"tinysaver_edge/__init__.py", "tinysaver_edge/py.typed"} <= expected
    assert expected - files == set()
    top = {file.split("/")[0] for file in files}
    assert {name.split("-")[0] for name in top} == {"tinysaver_edge"}
    assert [file for file in files if "_data.d/" in file and file.endswith((".py", ".pyc"))] == []


def test_sdist_builds_the_same_wheel_as_the_checkout(
    built: Path, wheel: Path, tmp_path: Path
) -> None:
    call(
        *(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path),
        cwd=ROOT,
    )
    (direct,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(direct) as theirs:
        assert {i.filename: i.CRC for i in ours.infolist()} == {
            i.filename: i.CRC for i in theirs.infolist()
        }


def test_a_wheel_is_small_enough_for_a_device(wheel: Path) -> None:
    assert wheel.stat().st_size <= 16 << 20


def test_wheel_reads_its_copies(wheel: Path, environment: Environment) -> None:
    environment.install(wheel)
    report = environment.report()
    package = Path(str(report["package"]))
    assert environment.folder in package.parents
    assert report["devices"] == str(package / "_data.d" / "devices")
    assert report["calibration"] == str(package / "_data.d" / "calibration")
    assert "generic-x86.toml" in report["profiles"]
    assert report["reached"] == []


def test_installed_command_runs(wheel: Path, environment: Environment) -> None:
    environment.install(wheel)
    command = environment.folder / "bin" / "tinysaver-edge"
    assert "calibrate" in call(command, "--help", cwd=environment.folder)


def test_sdist_installs_as_the_wheel_does(built: Path, environment: Environment) -> None:
    (sdist,) = built.glob("*.tar.gz")
    environment.install(sdist)
    report = environment.report()
    assert environment.folder in Path(str(report["package"])).parents
    assert "generic-x86.toml" in report["profiles"]
    command = environment.folder / "bin" / "tinysaver-edge"
    assert "calibrate" in call(command, "--help", cwd=environment.folder)


def test_an_index_takes_what_is_built(built: Path) -> None:
    pytest.importorskip("twine")
    call(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=ROOT)


@pytest.mark.parametrize(
    "name",
    ["onnxruntime-nocv", "openvino-nocv", "cpu-nocv", "cuda-nocv", "remote", "dashboard", "mqtt"],
)
def test_extras_for_those_who_bring_opencv_have_none(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (told,) = (file for file in archive.namelist() if file.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(told))
    needs = [line for line in metadata.get_all("Requires-Dist", []) if f"extra == '{name}'" in line]
    assert needs
    assert [line for line in needs if "opencv" in line] == []


def check_reads_folders_of(checkout: Path, report: dict[str, object]) -> None:
    assert report["package"] == str(checkout / "tinysaver_edge")
    assert report["devices"] == str(checkout / "devices")
    assert report["calibration"] == str(checkout / "calibration")
    assert "generic-x86.toml" in report["profiles"]
    assert report["reached"] == []


@pytest.fixture
def checkout(built: Path, tmp_path: Path) -> Path:
    """A plain checkout of our own: the unpacked sdist, nothing of it installed."""
    (sdist,) = built.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path / "checkout")
    (checkout,) = (tmp_path / "checkout").iterdir()
    return checkout


def test_editable_install_reads_the_folders(checkout: Path, environment: Environment) -> None:
    environment.install("--editable", checkout)
    check_reads_folders_of(checkout, environment.report())
    installed = environment.python.parent.parent.rglob("generic-x86.toml")
    assert list(installed) == [], "an editable install must not copy what it reads in place"


def test_plain_checkout_reads_the_folders(checkout: Path, environment: Environment) -> None:
    check_reads_folders_of(checkout, environment.report(cwd=checkout))
    check_reads_folders_of(checkout, environment.report(path=str(checkout)))


def test_new_profile_is_one_new_file(checkout: Path, environment: Environment) -> None:
    (checkout / "devices" / "mine.toml").write_text('name = "mine"\n')
    environment.install("--editable", checkout)
    assert "mine.toml" in environment.report()["profiles"]
