"""What was drawn at random counts as so many independent draws, and nothing else that looks so."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.colours import COLOURS, DESCRIPTION, LARGE, NAMES, SAVER, colour_model
from tests.command import spawned
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import Calibration, ImageInput, ModelFile, Plan, Targets, calibrate
from tinysaver_edge.calibrate.targets import Reference
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.recordings import Recording, collect_recorded
from tinysaver_edge.collect.store import Store
from tinysaver_edge.data.collection import Collection
from tinysaver_edge.data.files import open_data
from tinysaver_edge.errors import DataError, TinySaverError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.stream.sources.opening import open_source

SCENES, EACH = 40, 25


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and frames of a camera that looks at forty scenes, each for some time."""
    folder = tmp_path_factory.mktemp("believed")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    rng = np.random.default_rng(0)
    (folder / "camera").mkdir()
    for scene in range(SCENES):
        colour = COLOURS[scene % len(NAMES)] + rng.normal(0, 0.1, (16, 16, 3))
        picture = np.clip(255 * colour, 0, 255).astype(np.uint8)
        for number in range(EACH):
            name = f"{scene * EACH + number:05d}.png"
            cv2.imwrite(str(folder / "camera" / name), picture[..., ::-1])
    drawn(folder, folder / "drawn")
    return folder


def drawn(work: Path, out: Path) -> None:
    recording = Recording("belt", lambda: open_source(work / "camera"))
    with Store(out) as store:
        stop = threading.Event()
        collect_recorded([recording], store, Draw(400, seed=1), wall=lambda: 1.8e9, stop=stop)


def calibrated(work: Path, data: Path, out: Path | None = None, **given: object) -> Calibration:
    paths = (work / "big.onnx", work / "tiny.onnx")
    models = [ModelFile(path, find_description(path)) for path in paths]
    images = ImageInput(
        data=data, large=models[0], savers=(models[1],), isolate=False, timing=False,
        labelled=False, **{"records": data.parent / f"{data.name}.records", **given},  # type: ignore[arg-type]
    )  # fmt: skip
    targets = Targets(max_drop_points=20.0, reference=Reference.LARGE)
    return calibrate(Plan(images, targets), out=out)


def test_frames_in_a_row_are_refused(work: Path) -> None:
    with pytest.raises(DataError, match=r"are copies of others.*`tinysaver-edge collect` does"):
        calibrated(work, work / "camera")


def test_what_was_drawn_is_certified_for_its_period(work: Path, tmp_path: Path) -> None:
    found = calibrated(work, work / "drawn", tmp_path / "bundle")
    assert found.certificate is not None
    said = (
        "that its samples were taken at independent random moments of recordings 16.67 min long"
        ", drawn with seed 1 (all), so that it holds for that period"
    )
    assert found.stated == (said,)
    entry = Bundle.load(tmp_path / "bundle").manifest.certificate
    assert entry is not None
    assert entry.stated == [said]
    assert said in (tmp_path / "bundle.report.html").read_text()


def test_labels_do_not_matter_and_class_folders_neither(work: Path, tmp_path: Path) -> None:
    """Whoever looks at the frames may sort them: all of them."""
    folder = tmp_path / "sorted"
    shutil.copytree(work / "drawn", folder)
    for place, path in enumerate(sorted(folder.glob("*.png"))):
        (folder / NAMES[place % 2]).mkdir(exist_ok=True)
        path.rename(folder / NAMES[place % 2] / f"{place:04d}.png")
    with open_data(folder) as data:
        assert len(data) == 400
    assert calibrated(work, folder).stated


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    """Return what edits the summary."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / "collection.json").read_text())
        change(content)
        (folder / "collection.json").write_text(json.dumps(content))

    return edit


def first(folder: Path) -> Path:
    return min(folder.glob("*.png"))


def in_table(before: str, after: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "moments.csv"
        path.write_text(path.read_text().replace(before, after, 1))

    return edit


FORGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a picture left out": (lambda at: first(at).unlink(), "1 of its 400 pictures are missing"),
    "pictures added": (
        lambda at: shutil.copy(first(at), at / "more.png"),
        "1 pictures beside its 400 were not collected",
    ),
    "a picture changed": (
        lambda at: cv2.imwrite(str(first(at)), np.zeros((16, 16, 3), np.uint8)),
        "1 of its 400 pictures are missing or changed, and 1 are new",
    ),
    "a picture cut short": (
        lambda at: first(at).write_bytes(first(at).read_bytes()[:-9]),
        "missing or changed|cannot be read",
    ),
    "counts": (edited(lambda one: one.update(written=399, drawn=399)), "counts other moments"),
    "its table": (in_table(",belt,", ",yard,"), "is not the table that was collected"),
    "unfinished": (edited(lambda one: one.update(state="collecting")), "is not finished"),
    "newer": (edited(lambda one: one.update(schema_version=99)), "newer than this release"),
    "another field": (edited(lambda one: one.update(trust="me")), "damaged or edited .trust"),
    "no JSON": (lambda at: (at / "collection.json").write_text("{"), "damaged or edited"),
    "half a sign": (
        lambda at: (at / "collection.json").write_text(
            (at / "collection.json").read_text().replace('"cut": "', '"cut": "\\ud800')
        ),
        "damaged or edited",
    ),
    "a list": (lambda at: (at / "collection.json").write_text("[]"), "damaged or edited"),
    "no table": (lambda at: (at / "moments.csv").unlink(), "cannot be read"),
    "an endless moment": (in_table("belt,", "belt,inf"), "cannot be read"),
    "its place": (
        lambda at: (at / "collection.json").rename(at / "other.json"),
        "are copies of others",
    ),
}


@pytest.mark.parametrize(("forge", "said"), FORGED.values(), ids=FORGED.keys())
def test_a_folder_that_is_not_what_was_drawn_is_not_believed(
    forge: Callable[[Path], object], said: str, work: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "forged"
    shutil.copytree(work / "drawn", folder)
    forge(folder)
    with pytest.raises(TinySaverError, match=said):
        calibrated(work, folder)


def test_a_table_of_some_of_them_is_a_choice(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(work / "drawn", folder)
    rows = [f"{one.file},{NAMES[0]}\n" for one in Collection.read(folder).written]
    (folder / "easy.csv").write_text("file,label\n" + "".join(rows[:300]))
    (folder / "all.csv").write_text("file,label\n" + "".join(rows))
    with pytest.raises(DataError, match="100 of its 400 pictures are missing"):
        calibrated(work, folder / "easy.csv")
    assert calibrated(work, folder / "all.csv").stated


def test_what_was_missed_is_said(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "missed"
    shutil.copytree(work / "drawn", folder)
    with Store(folder) as store:
        gone = Collection.read(folder).written[:7]
        for one in gone:
            (folder / one.file).unlink()
            store.miss(one, "the camera was away")
        store.finish()
    found = calibrated(work, folder)
    assert any("7 of 400 drawn moments were missed" in line for line in found.warnings)
    assert "(393 of 400 drawn, the others missed)" in found.stated[0]


def test_a_question_about_a_resting_scene_is_asked_once(work: Path, tmp_path: Path) -> None:
    """Forty scenes were drawn four hundred times; one answer tells of all frames of a scene."""
    table, bundle = tmp_path / "ask.csv", tmp_path / "bundle"
    words = (
        "calibrate", "--data", work / "drawn", "--large", work / "big.onnx",
        "--saver", work / "tiny.onnx", "--max-drop", 20, "--no-timing", "--no-report",
        "--work-dir", tmp_path / "records",
    )  # fmt: skip
    done = spawned(*words, "--questions", table)
    assert done.code == 0, done.err
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len({row["id"] for row in rows}) == len(rows) <= SCENES
    answers = "".join(f"{row['id']},neither\n" for row in rows)
    (tmp_path / "answers.csv").write_text("id,answer\n" + answers)
    done = spawned(*words, "--answers", tmp_path / "answers.csv", "--out", bundle)
    assert done.code == 0, done.err
    entry = Bundle.load(bundle).manifest.certificate
    assert entry is not None
    assert entry.questions is not None
    assert 0 < entry.questions.answered <= len(rows)
    assert entry.questions.open == 0
    assert "random moments" in entry.stated[0]
