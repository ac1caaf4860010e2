"""No certificate is had by any of the ways to fool oneself; honest data passes, which is counted.

Frames of clips, copies, labels that a model wrote, classes in another order or missing, files that
were swapped: each is refused before anything is signed. The other way round, CIFAR-10, photos, the
demo's camera and resamples of real records are let through, every one of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from numpy.typing import NDArray

from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model
from tests.real_data import data_folder, needs_records, read_records
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.calibrate import ImageInput, ModelFile, Plan, RecordInput, Targets, calibrate
from tinysaver_edge.calibrate.measured.given_records import check_copies
from tinysaver_edge.calibrate.measured.independence import check_independence
from tinysaver_edge.calibrate.measured.label_check import check_agreement
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.alike import find_alike
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import Looks, read_looks
from tinysaver_edge.demo.camera import SimulatedCamera
from tinysaver_edge.errors import BundleError, DataError, InputError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.outputs import Outputs

Pictures = list[NDArray[np.uint8]]
RNG = np.random.default_rng(0)
VIDEO = data_folder() / "video"
CIFAR10 = data_folder() / "cifar10" / "test.zip"
PHOTOS = data_folder() / "imagenet" / "labels.csv"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"no {path.name} in the shared data")


def saved(folder: Path, pictures: Pictures, suffixes: Sequence[str] = (".png",)) -> Path:
    """Write pictures into two class folders, in order, numbered."""
    for place, picture in enumerate(pictures):
        file = folder / "ab"[place * 2 // len(pictures)] / f"{place:05}"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{file}{suffixes[place % len(suffixes)]}", picture)
    return folder


def checked(folder: Path) -> None:
    """What a calibration does with images before any model looks at them."""
    with open_data(folder) as data:
        check_independence(data, read_looks(data), method=Method.CERTIFIED, stated=False)


def frames(name: str, *, step: int = 1) -> Pictures:
    """120 frames of a clip, small."""
    capture, found = cv2.VideoCapture(str(VIDEO / name)), []
    for place in range(120 * step):
        good, frame = capture.read()
        if good and place % step == 0:
            found.append(cv2.resize(frame, (160, 90), interpolation=cv2.INTER_AREA))
    return found


def shuffled(pictures: Pictures) -> Pictures:
    return [pictures[place] for place in RNG.permutation(len(pictures))]


def cropped(pictures: Pictures) -> Pictures:
    corners = RNG.integers(0, 5, (len(pictures), 2))
    return [
        cv2.resize(one[top : top + 86, left : left + 154], (160, 90))
        for one, (top, left) in zip(pictures, corners, strict=True)
    ]


def relit(pictures: Pictures) -> Pictures:
    return [
        cv2.convertScaleAbs(one, alpha=RNG.uniform(0.7, 1.3), beta=RNG.uniform(-30, 30))
        for one in pictures
    ]


CLIPS: dict[str, Callable[[], Pictures]] = {
    "consecutive": lambda: frames("bottles-360p.mp4"),
    "every second": lambda: frames("bottles-360p.mp4", step=2),
    "every fourth, names shuffled": lambda: shuffled(frames("objects-1080p.mp4", step=4)),
    "two clips interleaved": lambda: [
        one
        for both in zip(frames("bottles-360p.mp4"), frames("objects-1080p.mp4"), strict=True)
        for one in both
    ],
    "cropped, names shuffled": lambda: shuffled(cropped(frames("bottles-360p.mp4", step=2))),
    "brightness changed, names shuffled": lambda: shuffled(relit(frames("objects-1080p.mp4"))),
    "mirrored at random": lambda: [
        one[:, ::-1] if RNG.random() < 0.5 else one for one in shuffled(frames("bottles-360p.mp4"))
    ],
}


@needs(VIDEO)
@pytest.mark.parametrize("clip", CLIPS)
def test_frames_of_clips_are_refused(clip: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--group-column.*--independent"):
        checked(saved(tmp_path, CLIPS[clip](), (".png", ".jpg")))


def some_cifar10(count: int) -> Pictures:
    with open_data(CIFAR10) as data:
        drawn = np.random.default_rng(1).permutation(len(data))[:count]
        found = [data.frame(int(place)) for place in drawn]
    return [one for one in found if one is not None]


COPIES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "renamed": lambda one: one,
    "encoded again": lambda one: cv2.imdecode(cv2.imencode(".jpg", one)[1], cv2.IMREAD_COLOR),
    "mirrored": lambda one: one[:, ::-1],
    "turned": lambda one: cv2.rotate(one, cv2.ROTATE_90_CLOCKWISE),
    "upside down": lambda one: one[::-1],
    "inverted": lambda one: 255 - one,
    "framed": lambda one: cv2.copyMakeBorder(one, 5, 0, 3, 9, cv2.BORDER_CONSTANT),
    "letterboxed": lambda one: cv2.copyMakeBorder(one, 8, 8, 0, 0, cv2.BORDER_CONSTANT),
    "darker": lambda one: cv2.convertScaleAbs(one, alpha=0.8),
}


@needs(CIFAR10)
@pytest.mark.parametrize("way", COPIES)
def test_copies_are_refused(way: str, tmp_path: Path) -> None:
    """One picture in ten is there twice."""
    pictures = some_cifar10(200)
    checked(saved(tmp_path / "once", pictures))
    twice = [*pictures[:180], *(COPIES[way](one) for one in pictures[:20])]
    with pytest.raises(DataError, match=r"copies of others|look like an earlier one"):
        checked(saved(tmp_path / "twice", shuffled(twice)))


def part_of(one: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What torchvision's RandomResizedCrop shows, at a third of the picture and more, relit."""
    height, width = one.shape[:2]
    share, shape = RNG.uniform(0.3, 1) ** 0.5, RNG.uniform(0.9, 1.1)
    down, across = min(height, int(height * share * shape)), min(width, int(width * share / shape))
    top, left = RNG.integers(0, height - down + 1), RNG.integers(0, width - across + 1)
    (kept,) = relit([cv2.resize(one[top : top + down, left : left + across], (width, height))])
    return kept


@needs(PHOTOS)
def test_parts_of_others_are_refused(tmp_path: Path) -> None:
    """Half of the pictures are parts of the other half, as augmentation makes them."""
    with open_data(PHOTOS) as data:
        photos = [data.frame(place) for place in range(0, 300, 2)]
    whole = [one for one in photos if one is not None]
    parts = [part_of(one) for one in whole]
    with pytest.raises(DataError, match="look like an earlier one"):
        checked(saved(tmp_path, shuffled([*whole, *parts]), (".jpg",)))


def test_copies_are_refused_however_few_they_are(tmp_path: Path) -> None:
    copies = [np.full((20, 20, 3), 90, np.uint8)] * 25
    with pytest.raises(DataError, match="24 of 25 images are copies of others"):
        checked(saved(tmp_path, copies))


def with_time(jpeg: bytes, place: int) -> bytes:
    """Put in when it was taken, as Exif does."""
    told = b"Exif\0\0" + f"2026:05:01 10:{place // 60:02}:{place % 60:02}\0".encode()
    return jpeg[:2] + b"\xff\xe1" + (len(told) + 2).to_bytes(2, "big") + told + jpeg[2:]


@pytest.mark.parametrize("told", ["in the files", "in the names", "nowhere"])
def test_a_cameras_frames_are_known_by_their_times(told: str, tmp_path: Path) -> None:
    """The light moves on; all else differs from frame to frame."""
    light = np.linspace(0, 6 * np.pi, 200)
    for place in range(200):
        rng = np.random.default_rng(place)
        rows, columns = np.mgrid[:48, :48] / 48
        lit = np.sin(light[place] + 3 * rows) + np.cos(light[place] - 3 * columns)
        frame = np.clip(128 + 40 * lit[..., None] + rng.normal(0, 40, (48, 48, 3)), 0, 255)
        name = f"{rng.integers(1 << 40):010x}" + f"_{place:04}" * (told == "in the names")
        data = bytes(cv2.imencode(".jpg", frame.astype(np.uint8))[1])
        file = tmp_path / "a" / f"{name}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(with_time(data, place) if told == "in the files" else data)
    if told == "nowhere":
        checked(tmp_path)
    else:
        with pytest.raises(DataError, match="in the order of their names or times"):
            checked(tmp_path)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Two real models on 4,000 images of ImageNet."""
    records = read_records("mobilenetV2", "xception")
    index = np.random.default_rng(0).permutation(50_000)[:4_000]
    saver, large = (
        ModelAnswers(name, outputs.subset(index), records.macs[name])
        for name, outputs in records.outputs.items()
    )
    return Problem(large, (saver,), records.labels[index])


def order(classes: NDArray[np.int64]) -> Callable[[Problem], NDArray[np.int64]]:
    return lambda problem: classes[problem.labels]


AS_TEXT = np.argsort(np.argsort([str(one) for one in range(1000)]))
LABELS: dict[str, Callable[[Problem], NDArray[np.int64]]] = {
    "shuffled": lambda one: np.random.default_rng(2).permutation(one.labels),
    "moved by one": order(np.roll(np.arange(1000), 1)),
    "cycled": order(np.roll(np.arange(1000), 250)),
    "sorted as text": order(AS_TEXT),
    "a tenth cycled": order(np.r_[np.roll(np.arange(100), 3), 100:1000]),
    "the other way round": order(np.arange(1000)[::-1].copy()),
    "the large model's own": lambda one: one.large.outputs.predictions,
    "half the large model's own": lambda one: np.where(
        np.random.default_rng(3).random(len(one.labels)) < 0.5,
        one.large.outputs.predictions,
        one.labels,
    ),
    "half of the classes taken for the others": lambda one: one.labels % 500,
    "the saver's own": lambda one: one.savers[0].outputs.predictions,
}


@needs_records
@pytest.mark.parametrize("labels", LABELS)
def test_labels_that_are_none_are_refused(labels: str, problem: Problem) -> None:
    with pytest.raises(InputError, match="--trust-labels"):
        check_agreement(replace(problem, labels=LABELS[labels](problem)), None)


@needs_records
def test_records_that_leave_out_half_of_the_classes_are_refused() -> None:
    records = read_records("mobilenetV2", "xception")
    half = np.flatnonzero(records.labels < 500)
    saver, large = (
        ModelAnswers(name, one.subset(half), records.macs[name])
        for name, one in records.outputs.items()
    )
    with pytest.raises(InputError, match="no sample of 500 of the 1000 classes"):
        check_agreement(Problem(large, (saver,), records.labels[half]), None)


COPIED = "copies of others"
REPEATS: dict[str, tuple[Callable[[], NDArray[np.int64]], str]] = {
    "thirty, thirty times": (lambda: np.tile(np.arange(30), 30), COPIED),
    "one, a hundred times": (lambda: np.zeros(100, np.int64), COPIED),
    "a tenth twice": (lambda: np.r_[np.arange(1000), np.arange(100)], COPIED),
    "neighbours alike": (lambda: np.arange(1000), "more like the next"),
}


@needs_records
@pytest.mark.parametrize("way", REPEATS)
def test_records_of_copies_and_of_clips_are_refused(way: str, problem: Problem) -> None:
    index, said = REPEATS[way]
    made = problem.subset(index())
    if way == "neighbours alike":  # each answer drifts away from the one before it
        made = drifting(made)
    method, numbered = Method.CERTIFIED, np.arange(len(made.labels))
    with pytest.raises(DataError, match=rf"{said}.*--independent"):
        check_copies(made, where="D", method=method, stated=False, numbered=numbered)


def drifting(problem: Problem) -> Problem:
    """Samples whose answers change as slowly as those of a clip's frames."""
    steps = np.random.default_rng(6).normal(0, 1, (len(problem.labels), 5))
    logits = np.zeros(steps.shape)
    for place in range(1, len(logits)):
        logits[place] = 0.9 * logits[place - 1] + steps[place]
    answers = Outputs.from_logits(logits.astype(np.float32))
    models = [replace(one, outputs=answers) for one in (problem.large, *problem.savers)]
    return Problem(models[0], tuple(models[1:]), np.zeros_like(problem.labels))


def test_records_of_copies_are_known_by_their_images(colours: Path, tmp_path: Path) -> None:
    """Copies that were encoded again are answered otherwise; who measured them saw them."""
    for file in sorted((colours / "images").rglob("*.png")):
        for suffix in (".png", ".jpg"):
            name = hashlib.sha256(f"{file.stem}{suffix}".encode()).hexdigest()
            again = tmp_path / "twice" / file.parent.name / f"{name}{suffix}"
            again.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(again), cv2.imread(str(file)))
    asked = replace(plan(colours), targets=Targets(method=Method.EMPIRICAL))
    calibrate(
        replace(asked, input=replace(asked.input, data=tmp_path / "twice")), out=tmp_path / "bundle"
    )
    (tmp_path / "macs.csv").write_text("name,macs\nbig,100\ntiny,1\n")
    np.save(tmp_path / "labels.npy", np.repeat(np.arange(len(NAMES)), 80))
    given = RecordInput(
        records=tmp_path / "bundle.records",
        labels=tmp_path / "labels.npy",
        macs=tmp_path / "macs.csv",
        large="big",
        savers=("tiny",),
    )
    with pytest.raises(DataError, match=r"\d+ of 480 images look like an earlier one"):
        calibrate(Plan(given, Targets(max_drop_points=20.0)), out=tmp_path / "again")


@needs_records
def test_a_saver_that_is_the_large_model_is_refused(problem: Problem) -> None:
    copy = replace(problem.large, name="copy", macs=1.0)
    with pytest.raises(InputError, match="saver copy answers 1000 samples as the large model"):
        replace(problem, savers=(copy,)).check()


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of colours, and pictures."""
    folder = tmp_path_factory.mktemp("colours")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "images", each=40)
    return folder


def plan(folder: Path, images: str = "images") -> Plan:
    paths = (folder / "big.onnx", folder / "tiny.onnx")
    large, saver = (ModelFile(path, find_description(path)) for path in paths)
    given = ImageInput(
        data=folder / images, large=large, savers=(saver,), isolate=False, timing=False
    )
    return Plan(given, Targets(max_drop_points=20.0), report=False)


@pytest.mark.parametrize("kept", [3, 4])
def test_missing_classes_are_refused(colours: Path, tmp_path: Path, kept: int) -> None:
    for name in NAMES[:kept]:
        target = tmp_path / "some" / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(colours / "images" / name)
    for name in ("big", "tiny"):
        (tmp_path / f"{name}.onnx").symlink_to(colours / f"{name}.onnx")
        described = f"labels = {list(NAMES)}\n{DESCRIPTION}"
        (tmp_path / f"{name}.toml").write_text(described)
    with pytest.raises(InputError, match=rf"no sample of {6 - kept} of the 6 classes"):
        calibrate(plan(tmp_path, "some"), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_swapped_file_is_no_longer_certified(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    found = calibrate(plan(colours), out=out)
    assert found.certificate is not None
    picture = cv2.imread(str(next((colours / "images" / NAMES[0]).glob("*.png"))))
    with Cascade.load(out) as cascade:
        assert cascade.decide(picture).label == NAMES[0]
    (saver,) = out.rglob("tiny*.onnx")
    model = onnx.load(saver)
    weights = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(1.1 * values.astype(np.float32), weights.name))
    onnx.save(model, saver)
    with pytest.raises(BundleError, match="tiny"):
        Cascade.load(out)
    manifest = out / "bundle.json"
    content = json.loads(manifest.read_text())
    (entry,) = content["stages"][0]["model"]["files"]
    entry.update(sha256=sha256_of(saver), size_bytes=saver.stat().st_size)
    manifest.write_text(json.dumps(content))
    with Cascade.load(out) as cascade:
        assert not cascade.decide(picture).certified


def independent(looks: Looks, names: Sequence[str], labels: Sequence[str]) -> bool:
    found = find_alike(looks, names, labels)
    return found is None or found.independent


def refusals(source: Path, *, draws: int, share: float) -> int:
    """How many random parts of honest images are refused."""
    with open_data(source) as data:
        looks, samples = read_looks(data), data.samples
    refused = 0
    for seed in range(draws):
        drawn = np.random.default_rng(seed).permutation(len(samples))
        kept = np.sort(drawn[: round(share * len(samples))])
        part = Looks(looks.content[kept], looks.small[kept], looks.dark_bits[kept])
        names = [samples[place].file for place in kept]
        refused += not independent(part, names, [samples[place].label for place in kept])
    return refused


@needs(CIFAR10)
def test_cifar10_is_not_refused() -> None:
    assert refusals(CIFAR10, draws=5, share=0.1) == 0


@needs(PHOTOS)
def test_photos_are_not_refused() -> None:
    assert refusals(PHOTOS, draws=10, share=0.8) == 0


def test_the_demos_frames_are_not_refused(tmp_path: Path) -> None:
    checked(saved(tmp_path, [frame for frame, _ in SimulatedCamera(seed=5).frames(150)]))


def test_the_demos_stream_is_refused(tmp_path: Path) -> None:
    stream = itertools.islice(SimulatedCamera(seed=5), 150)
    with pytest.raises(DataError, match="--group-column"):
        checked(saved(tmp_path, [frame for frame, _ in stream]))


@needs_records
def test_resamples_of_records_are_not_refused() -> None:
    records = read_records("mobilenetV2", "nasnetmobile", "xception", "nasnetlarge")
    names = sorted(records.outputs, key=lambda name: records.macs[name])
    refused = 0
    for seed in range(20):
        index = np.random.default_rng(seed).integers(0, 50_000, 2_000)
        models = [
            ModelAnswers(name, records.outputs[name].subset(index), records.macs[name])
            for name in names
        ]
        drawn = Problem(models[-1], tuple(models[:-1]), records.labels[index])
        try:
            check_agreement(drawn, None)
        except InputError:
            refused += 1
    assert refused == 0
