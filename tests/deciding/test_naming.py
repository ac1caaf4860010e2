"""Class names for a finished bundle: what fits, what does not, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.colours import NAMES
from tests.command import spawned
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.naming import name_classes
from tinysaver_edge.errors import BundleError
from tinysaver_edge.testing import numbered_frame


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    folder = small_bundle(tmp_path / "bundle", golden=False)
    said = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**said, "labels": None}))
    return folder


def names_file(folder: Path, names: tuple[str, ...]) -> Path:
    path = folder / "names.txt"
    path.write_text("\n".join(names) + "\n")
    return path


def test_names_are_added_and_nothing_else_changes(nameless: Path, tmp_path: Path) -> None:
    before = {path: sha256_of(path) for path in (nameless / "models").iterdir()}
    manifest = json.loads((nameless / MANIFEST).read_text())
    done = spawned("bundle", "labels", nameless, names_file(tmp_path, NAMES))
    assert done.code == 0, done.stderr
    assert {path: sha256_of(path) for path in (nameless / "models").iterdir()} == before
    after = json.loads((nameless / MANIFEST).read_text())
    assert after.pop("labels") == list(NAMES)
    assert after == {key: value for key, value in manifest.items() if key != "labels"}
    with Cascade.load(nameless) as cascade:
        assert cascade.decide(numbered_frame(0)).label in NAMES


def test_a_packed_bundle_is_named_as_well(nameless: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", nameless))
    assert name_classes(packed, names_file(tmp_path, NAMES)) == NAMES
    with Bundle.load(packed) as bundle:
        assert bundle.manifest.labels == list(NAMES)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (NAMES[1:], "has 5 names, its models tell 6 classes apart"),
        ((*NAMES[:5], NAMES[0]), "names 1 classes alike, among them 'amber'"),
    ],
)
def test_names_that_do_not_fit_are_refused(nameless: Path, tmp_path: Path, names, says) -> None:
    untouched = (nameless / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=says):
        name_classes(nameless, names_file(tmp_path, names))
    assert (nameless / MANIFEST).read_bytes() == untouched


def test_names_that_are_there_stay(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="have names already"):
        name_classes(small_bundle(tmp_path / "bundle", golden=False), names_file(tmp_path, NAMES))
