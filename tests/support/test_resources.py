"""Which of the folders is read: the one beside a checkout, or the copy inside the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tinysaver_edge._support import resources
from tinysaver_edge._support.resources import default_cache_dir
from tinysaver_edge.errors import TinySaverError
from tinysaver_edge.hardware.profile import profile_files, user_devices_dir

FOLDERS = {"devices": resources.devices_dir, "calibration": resources.calibration_dir}
OURS = '[project]\nname = "tinysaver-edge"\n'
THEIRS = '[project]\nname = "somebody-elses"\n'


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package with its copies, and folders of the same names beside it."""
    package = tmp_path / "tinysaver_edge"
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (package / "_data.d" / name).mkdir(parents=True)
    return package


@pytest.mark.parametrize("name", FOLDERS)
def test_checkout_reads_the_folder_beside_the_package(name: str, package: Path) -> None:
    (package.parent / "pyproject.toml").write_text(OURS)
    assert FOLDERS[name](package=package) == package.parent / name


@pytest.mark.parametrize(
    "pyproject",
    [
        pytest.param(None, id="no pyproject"),
        pytest.param(THEIRS, id="another project"),
        pytest.param('name = "tinysaver-edge"\n', id="no project table"),
        pytest.param("project = 3\n", id="project is no table"),
        pytest.param("[project\n", id="not TOML"),
        pytest.param("[project]\nname = 'caf\udce9'\n", id="not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", FOLDERS)
def test_other_folders_of_that_name_are_not_ours(
    name: str, pyproject: str | None, package: Path
) -> None:
    if pyproject is not None:
        (package.parent / "pyproject.toml").write_text(pyproject, "utf-8", "surrogateescape")
    assert FOLDERS[name](package=package) == package / "_data.d" / name


@pytest.mark.parametrize("find", FOLDERS.values(), ids=FOLDERS)
def test_a_lost_folder_is_named(find: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TinySaverError, match=r"_data\.d.*missing.*pip install"):
        find(package=tmp_path / "tinysaver_edge")


def test_this_installation_has_both() -> None:
    assert (resources.devices_dir() / "generic-x86.toml").is_file()
    assert (resources.calibration_dir() / "README.md").is_file()


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_cache_dir() == tmp_path / "cache" / "tinysaver-edge"
    assert (tmp_path / "cache" / "tinysaver-edge").is_dir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache_dir() is None


def test_a_user_without_a_home_has_no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers are run by a number that no name belongs to."""

    def nobody(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert default_cache_dir() is None
    assert user_devices_dir() is None
    assert profile_files()
