"""The way of one image through a calibration: few files, few forms, each told in order."""

from __future__ import annotations

import dataclasses
from types import FrameType

import numpy as np
import pytest

from tests.calibrate.test_run import model
from tests.colours import LARGE, NAMES, SAVER, colour_folders
from tests.walking import PACKAGE, Walk
from tinysaver_edge.calibrate import ImageInput, Plan, Targets, calibrate
from tinysaver_edge.data.source import Sample

EACH = 40

MOST_FILES_OF_AN_IMAGE = 32
MOST_FILES_OF_A_RUN = 57

LOOKED_AT = {
    "data/looks.py",
    "data/alike.py",
    "data/collection.py",
    "calibrate/measured/independence.py",
}
"""Copies are looked for before any model is asked: a way beside, which leaves hashes and groups."""

FORMS = {
    "Sample": "a file and its label",
    "Frame": "its pixels, decoded",
    "Batch": "its pixels as a model takes them",
    "Outputs": "a model's answer, as a row; a Record keeps them, a Problem has them and the labels",
    "Candidates": "the classes that a fusion weighs",
    "Known": "what is known of what is right: all of it, of labelled images",
    "Verdicts": "what each answer loses",
    "Replay": "what the cascade that was chosen answers",
}
"""The forms that an image takes, in order. After `Verdicts` only counts go on: the certificate and
the choice hold nothing for each image; `Replay` is the chosen cascade looked at again."""

PARTS = {"Reign", "Problem", "SortedScores", "CertifiedTest", "Record", "ModelAnswers"}
"""What holds a form, labels or an order of the samples, and adds no form of its own."""

LOOKS = {"Looks", "_Edges", "_Edge", "Seen"}
"""What the ways beside have of every picture: is it independent, seen, a model's own answer?"""

POSITIONS = {"MeasuredProblem", "CertifiedChoice", "Proposal", "Audit", "_Decided"}
"""What holds positions of samples (which were tuned, certified, held out), and no answer."""


class ImageWalk(Walk):
    """A walk that tells which files are handed the image, or what became of it, and in what form.

    Args:
        samples: how many images there are.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.files: dict[str, None] = {}
        self.with_image: dict[str, None] = {}
        self.holders: dict[str, None] = {}

    def entered(self, file: str, frame: FrameType) -> None:
        if _is_import(frame):
            return
        self.files.setdefault(file)
        for value in list(frame.f_locals.values()):
            if _carries(value):
                self.with_image.setdefault(file)
            if self._is_of_every_sample(value):
                self.holders.setdefault(type(value).__name__)

    def _is_of_every_sample(self, value: object) -> bool:
        """Whether a value of the package itself holds an array with a row for each sample."""
        return _is_ours(value) and any(
            isinstance(held, np.ndarray) and self.samples in (held.shape[:1] + held.shape[-1:])
            for held in _fields(value)
        )


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            return True
        frame = frame.f_back
    return False


def _is_ours(value: object) -> bool:
    return dataclasses.is_dataclass(value) and type(value).__module__.startswith("tinysaver_edge")


def _fields(value: object) -> list[object]:
    names = [one.name for one in dataclasses.fields(value)]  # type: ignore[arg-type]
    return [getattr(value, name, None) for name in names]


def _carries(value: object, depth: int = 3) -> bool:
    """Whether a value is or holds an image or what became of it: pixels, answers, verdicts."""
    if isinstance(value, np.ndarray):
        return value.size > 1
    if isinstance(value, (Sample, bytes)):
        return not isinstance(value, bytes) or len(value) > 64
    if depth == 0:
        return False
    if isinstance(value, (list, tuple)):
        return any(_carries(one, depth - 1) for one in value[:2])
    return _is_ours(value) and any(_carries(one, depth - 1) for one in _fields(value))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> ImageWalk:
    """A small calibration whose models were prepared before.

    Timing, golden samples and the report are left out: they take some images again, beside the way
    to the certificate, and would be a dozen files more.
    """
    work = tmp_path_factory.mktemp("walk")
    large, saver = (model(work, name, kind) for name, kind in (("big", LARGE), ("tiny", SAVER)))
    colour_folders(work / "images", each=EACH)
    given = ImageInput(
        data=work / "images",
        large=large,
        savers=(saver,),
        records=work / "records",
        isolate=False,
        timing=False,
        golden_frames=False,
    )
    plan = Plan(given, Targets(max_drop_points=20.0), report=False)
    calibrate(plan, out=work / "first")
    for record in (work / "records").glob("*.npz"):
        record.unlink()
    with ImageWalk(EACH * len(NAMES)) as walk:
        calibrate(plan, out=work / "second")
    assert isinstance(walk, ImageWalk)
    return walk


def told(names: list[str]) -> str:
    return "\n".join(f"{number:3} {name}" for number, name in enumerate(names, 1))


def test_an_image_passes_few_files(walk: ImageWalk) -> None:
    files = [name for name in walk.with_image if not name.startswith("_support/")]
    assert set(files) >= LOOKED_AT
    files = [name for name in files if name not in LOOKED_AT]
    print(told(files))
    assert {"records/measure.py", "preprocess.py", "calibrate/problem.py"} <= set(files)
    assert len(files) <= MOST_FILES_OF_AN_IMAGE, told(files)


def test_a_calibration_runs_few_files(walk: ImageWalk) -> None:
    files = list(walk.files)
    print(told(files))
    assert len(files) <= MOST_FILES_OF_A_RUN, told(files)


def test_an_image_takes_few_forms(walk: ImageWalk) -> None:
    print(*walk.holders)
    assert len(FORMS) <= 8
    assert {"Outputs", "Candidates", "Verdicts"} <= set(walk.holders)
    assert set(walk.holders) <= set(FORMS) | PARTS | POSITIONS | LOOKS
