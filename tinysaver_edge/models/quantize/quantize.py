"""Smaller and quicker forms of a model, and what they cost in accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.data.looks import Seen, content_hash
from tinysaver_edge.data.source import DataSource, class_indices
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.registry import create_engine, engine_name
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.models.description.carried import write_metadata
from tinysaver_edge.models.description.describe import to_toml
from tinysaver_edge.models.description.description import (
    ModelDescription,
    check_model_target,
    made_by,
)
from tinysaver_edge.models.quantize.forms import (
    copy_openvino,
    halve_onnx,
    halve_openvino,
    quantize_onnx,
    quantize_openvino,
)
from tinysaver_edge.preprocess import Batch, Frame, Preprocessor

_BATCH = 16
_COMMAND = "models quantize"


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """What a model answered on labelled images.

    Attributes:
        logits: ``(n, classes)`` float32, of the images that could be read.
        labels: ``(n,)`` the true classes.
    """

    engine: str
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of images whose best class is the true one, 0..1."""
        return float((self.logits.argmax(axis=1) == self.labels).mean())

    def agreement(self, other: LabelledAnswers) -> float:
        """Share of images on which two models name the same class, 0..1."""
        return float((self.logits.argmax(axis=1) == other.logits.argmax(axis=1)).mean())


def measure_accuracy(
    description: ModelDescription,
    data: DataSource,
    places: Sequence[int],
    *,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> LabelledAnswers:
    """Run a model over some images of a data source, on its engine, device and precision.

    Raises:
        DataError: the labels are none of the model's, or no image can be read.
        EngineError: the model cannot be run.
    """
    options = EngineOptions(device=description.device, threads=threads)
    if description.precision is not None:
        options = EngineOptions(
            device=description.device, threads=threads, precision=description.precision
        )
    name = engine_name(description.engine, description.file, device=description.device)
    preprocess = description.preprocess
    preprocessor = Preprocessor(preprocess)
    answered: list[NDArray[np.float32]] = []
    known: list[int] = []
    truth: NDArray[np.int64] | None = None
    progress.start(f"{description.name} ({name})", total=len(places))
    with create_engine(
        name,
        description.file,
        preprocess=preprocess,
        output=description.output,
        options=options,
    ) as engine:
        for start in range(0, len(places), _BATCH):
            part = [int(place) for place in places[start : start + _BATCH]]
            frames, readable = readable_frames(data, part)
            if frames:
                answered.append(engine.infer(preprocessor.batch(frames)).copy())
                known.extend(readable)
                if truth is None:  # labels that do not fit end it here, not after the last image
                    truth = _truth(description, data, classes=answered[0].shape[1])
            progress.advance(len(part))
    progress.finish()
    if truth is None:
        raise DataError(f"data {data.path}: none of {len(places)} images can be read")
    return LabelledAnswers(name, np.concatenate(answered), truth[known])


def _truth(description: ModelDescription, data: DataSource, *, classes: int) -> NDArray[np.int64]:
    labels = description.class_labels(classes)
    return class_indices(data.samples, labels=labels, classes=classes, path=data.path)


def readable_frames(data: DataSource, places: Sequence[int]) -> tuple[list[Frame], list[int]]:
    """Decode some images; return those that can be read and which they are."""
    found = [(place, data.frame(place)) for place in places]
    kept = [(place, frame) for place, frame in found if frame is not None]
    return [frame for _, frame in kept], [place for place, _ in kept]


CALIBRATION_SAMPLES = 300
"""Images that activations' ranges are found on, unless told otherwise."""

EVALUATION_SAMPLES = 2000
"""Images that accuracy is measured on, unless told otherwise."""

MOST_HASHES = 5000
"""So many images that a form was fitted to are named in its description, 19 bytes each."""


class Form(str, Enum):
    """What a model's numbers become.

    Attributes:
        INT8: weights and activations of 8 bits.
        FP16: .onnx: arithmetic in float16; .xml: weights stored in float16.
        BF16: .xml: the same weights, arithmetic in bfloat16.
    """

    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


@dataclass(frozen=True, slots=True)
class Quantized:
    """A model's new form beside its old one.

    Attributes:
        name: what the new form is called.
        files: the file to open, then those of its weights where they lie apart.
        form: what its numbers became.
        calibration_samples: images that ranges were found on; 0 where none are needed.
        evaluation_samples: other images, that accuracy was measured on.
        engine_before: what ran the old form.
        engine_after: what ran the new one.
        accuracy_before: share that the old form gets right, 0..1.
        accuracy_after: share that the new one gets right, 0..1.
        lost: images that only the old form gets right.
        gained: images that only the new one does.
        top1_agreement: share on which both name the same class, 0..1.
        bytes_before: size of the old form's files.
        bytes_after: size of the new one's.
    """

    name: str
    files: tuple[Path, ...]
    form: Form
    calibration_samples: int
    evaluation_samples: int
    engine_before: str
    engine_after: str
    accuracy_before: float
    accuracy_after: float
    lost: int
    gained: int
    top1_agreement: float
    bytes_before: int
    bytes_after: int

    @property
    def drop_points(self) -> float:
        """Accuracy lost, in points (1 point = 0.01)."""
        return 100 * (self.accuracy_before - self.accuracy_after)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        plain = {**asdict(self), "form": self.form.value, "drop_points": self.drop_points}
        return {**plain, "files": [str(path) for path in self.files]}


def quantize(
    description: ModelDescription,
    out: Path,
    data: DataSource,
    *,
    form: Form = Form.INT8,
    calibration_samples: int = CALIBRATION_SAMPLES,
    evaluation_samples: int = EVALUATION_SAMPLES,
    reduce_range: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Quantized:
    """Write another form of a model, and measure both on images that neither was fitted to.

    The description goes into the new file's metadata. Calibrate the cascade on the new file: a
    threshold that was found on the old one is not valid for it.

    Args:
        description: the model.
        out: .onnx (made with onnxruntime's tools) or .xml (made with NNCF and OpenVINO).
        data: labelled images.
        form: what the numbers become.
        calibration_samples: images that activations' ranges are found on.
        evaluation_samples: other images, that accuracy is measured on.
        reduce_range: .onnx: 7 bits for weights, for processors without VNNI.
        seed: decides which images are taken for what.
        progress: hears of each image.

    Raises:
        InputError: such a file cannot become that.
        DataError: there are too few images, or labels that are none of the model's.
        ModelError: the model cannot be converted.
        MissingDependencyError: what converts it is not installed.
    """
    _check(description.file, out, form)
    fitted, others = _split(data, calibration_samples if form is Form.INT8 else 0, seed=seed)
    others = others[:evaluation_samples]
    before = measure_accuracy(description, data, others, progress=progress)
    made = replace(
        _described(description, out, form),
        fitted_on=(*description.fitted_on, *_hashes(data, fitted)),
    )
    with tempfile.TemporaryDirectory(dir=_folder(out), prefix=".quantize.") as folder:
        target = Path(folder) / out.name
        _convert(description, target, form, _batches(description, data, fitted), reduce_range)
        write_metadata(target, made_by(_COMMAND, to_toml(made)))
        files = model_files(target)
        after = measure_accuracy(replace(made, file=target), data, others, progress=progress)
        for file in reversed(files):
            file.replace(out.parent / file.name)
    return _result(made, out, form, len(fitted), before, after, description)


def _check(model: Path, out: Path, form: Form) -> None:
    if out.suffix not in (".onnx", ".xml"):
        raise InputError(f"cannot write {out}: it must end in .onnx or .xml")
    if out.suffix == ".onnx" and model.suffix != ".onnx":
        raise InputError(f"model {model}: a {model.suffix} cannot become an .onnx: name an .xml")
    if model.suffix == ".safetensors":
        raise InputError(f"model {model}: export it as .onnx or .xml first")
    if form is Form.BF16 and out.suffix != ".xml":
        raise InputError("bfloat16 is OpenVINO's: name an .xml to write")
    if out.resolve() == model.resolve():
        raise InputError(f"quantising {model} would replace it: choose another name")
    check_model_target(out, command=_COMMAND)


def _folder(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def _split(data: DataSource, calibration: int, *, seed: int) -> tuple[list[int], list[int]]:
    """Draw the images for calibration; all others are for measuring."""
    if len(data) < 2 or calibration > len(data) // 2:
        raise DataError(
            f"data {data.path}: {len(data)} images are too few for {calibration} to calibrate on "
            "and as many others to measure with: give more, or lower --calibration-samples"
        )
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or above")
    order = np.random.default_rng(seed).permutation(len(data))
    return [int(one) for one in order[:calibration]], [int(one) for one in order[calibration:]]


def _hashes(data: DataSource, places: Sequence[int]) -> list[str]:
    """Return short hashes of some images' files, so that calibration can leave them out."""
    found = []
    for place in places:
        try:
            found.append(content_hash(data.read(place)))
        except (OSError, DataError):  # not readable, or drawn and no file
            continue
    return Seen.of(np.array(found, np.uint64), most=MOST_HASHES).to_text()


def _batches(description: ModelDescription, data: DataSource, places: Sequence[int]) -> list[Batch]:
    """Return model input for some images, one at a time."""
    preprocessor = Preprocessor(description.preprocess)
    frames, _ = readable_frames(data, places)
    if places and not frames:
        raise DataError(f"data {data.path}: none of {len(places)} images can be read")
    return [preprocessor(frame) for frame in frames]


def _convert(
    description: ModelDescription,
    out: Path,
    form: Form,
    batches: Sequence[Batch],
    reduce_range: bool,
) -> None:
    model = description.file
    if out.suffix == ".onnx":
        if form is Form.INT8:
            named = description.output.name
            quantize_onnx(model, out, batches, reduce_range=reduce_range, output=named)
        else:
            halve_onnx(model, out)
    elif form is Form.INT8:
        quantize_openvino(model, out, batches)
    elif form is Form.FP16:
        halve_openvino(model, out)
    else:
        copy_openvino(model, out)


def _described(description: ModelDescription, out: Path, form: Form) -> ModelDescription:
    """Return the new form's description: the old one's, with what the form changes."""
    reads = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}[out.suffix]
    return replace(
        description,
        file=out,
        name=out.stem,
        engine=description.engine if description.engine in reads else None,
        precision=Precision.BFLOAT16 if form is Form.BF16 else description.precision,
        source=f"{out} (metadata)",
    )


def _result(
    made: ModelDescription,
    out: Path,
    form: Form,
    fitted: int,
    before: LabelledAnswers,
    after: LabelledAnswers,
    old: ModelDescription,
) -> Quantized:
    files = model_files(out)
    right, still = (one.logits.argmax(axis=1) == one.labels for one in (before, after))
    return Quantized(
        name=made.name,
        files=files,
        form=form,
        calibration_samples=fitted,
        evaluation_samples=len(before.labels),
        engine_before=before.engine,
        engine_after=after.engine,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        lost=int((right & ~still).sum()),
        gained=int((still & ~right).sum()),
        top1_agreement=before.agreement(after),
        bytes_before=sum(file.stat().st_size for file in model_files(old.file)),
        bytes_after=sum(file.stat().st_size for file in files),
    )
