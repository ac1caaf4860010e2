"""The contract of an engine: one way to run one model, strict about what was asked for.

With it the signature: which of a model's tensors are the picture and the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import Seal
from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.model_file import external_files
from tinysaver_edge.errors import (
    DescriptionError,
    EngineError,
    InputError,
    ModelError,
    TinySaverError,
)
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Preprocess

if TYPE_CHECKING:
    from typing_extensions import Self


class Precision(str, Enum):
    """Arithmetic that an engine computes a float model in.

    TF32 is float32 whose products are rounded to ten bits of mantissa, as NVIDIA's tensor cores do
    from Ampere on: quicker, and not the float32 that was calibrated unless it was asked for then.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to be run.

    Attributes:
        device: a device string that the engine knows (``"CPU"``, ``"GPU"``,
            ``"CUDAExecutionProvider"``, …); None takes the engine's CPU.
        precision: arithmetic of float models; what the device cannot do is an error.
        threads: processor threads for one inference; None leaves it to the engine.
        cache_dir: folder for compiled models, so that a second start is quicker; None for none.
        allow_fallback: run on the CPU where the device cannot be had, instead of an error.
        graphs: let an engine record what it does for the first few sizes of batches and replay it
            (CUDA graphs). Answers are the same; a size's first call takes longer, and no other
            thread may wait for the whole GPU meanwhile (``torch.cuda.synchronize``).
        sealed: the model's files as they were hashed; nothing else may then be loaded. None of
            them where it does not matter.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    device: str | None = None
    precision: Precision = Precision.FLOAT32
    threads: int | None = None
    cache_dir: Path | None = None
    allow_fallback: bool = False
    graphs: bool = True
    sealed: tuple[Seal, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads {self.threads}: an engine needs at least 1")


DEFAULT_OPTIONS = EngineOptions()
"""On the CPU, in float32, on as many threads as the engine likes."""


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """What a model file says of its own input and output.

    Attributes:
        input_name: name of the one input.
        input_shape: four axes, None where an axis is dynamic.
        input_dtype: numpy name of the input's type.
        output_name: name of the output that holds the classes.
        output_shape: ``(batch, outputs)``, None where an axis is dynamic.
        output_dtype: numpy name of the output's type.
        file_axes: the output's axes as the file states them, where those are others than
            ``output_shape``: ``(n)``, or ``(n, classes, 1, 1)``.
    """

    input_name: str
    input_shape: tuple[int | None, ...]
    input_dtype: str
    output_name: str
    output_shape: tuple[int | None, ...]
    output_dtype: str
    file_axes: tuple[int | None, ...] | None = None

    @property
    def batch_size(self) -> int | None:
        """The fixed number of samples a call takes, or None where any number will do."""
        return self.input_shape[0] if self.input_shape else None


class Engine(ABC):
    """Runs one model. Subclasses fill in `_load`, `_run` and, where needed, `_release`.

    `concurrency` threads at a time may call `infer`; a `Stage` sees to that. An engine is a context
    manager and `close` may be called any number of times.

    Args:
        model: the model's file.
        preprocess: what the batches given to `infer` look like; checked against the file.
        output: how the model states its answer.
        options: device, precision, threads.

    Attributes:
        device: the device string in use, which is what was asked for unless
            ``options.allow_fallback`` let it be another.
        fell_back: whether `device` is not the one asked for.
        signature: what the file says of its input and output.

    Raises:
        MissingDependencyError: the engine's package is not installed.
        ModelError: the file is missing, truncated or not of a kind this engine reads.
        EngineError: the device or precision cannot be had; names what can.
        DescriptionError: the file's input is not what ``preprocess`` makes, or it has fewer outputs
            than ``output`` names.
    """

    name: ClassVar[str]
    """The engine's name in bundles, recipes and on the command line."""

    suffixes: ClassVar[frozenset[str]]
    """Endings of the model files it reads."""

    concurrency: int = 1
    """How many threads may call `infer` at once."""

    def __init__(
        self,
        model: Path,
        *,
        preprocess: Preprocess,
        output: OutputFormat,
        options: EngineOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.model = model
        self._check_model()
        self.output = output
        self.options = options
        self.precision = options.precision
        self.fell_back = False
        self._closed = False
        self._sample_shape = preprocess.shape(1)[1:]
        self._dtype = np.dtype(preprocess.format.dtype)
        seals = _sealed(model, options.sealed) if self.suffixes else []  # else there is no file
        self.device, self.signature = self._load()
        try:
            _check_unchanged(model, seals)
            check_signature(self.signature, preprocess, model=model)
            _check_outputs(self.signature, output, model=model)
        except TinySaverError:
            self.close()
            raise

    def _check_model(self) -> None:
        """Refuse what this engine cannot open, before anything is loaded."""
        if not self.model.is_file():
            raise ModelError(f"model {self.model}: no such file")
        if self.model.suffix not in self.suffixes:
            known = ", ".join(sorted(self.suffixes))
            raise ModelError(f"model {self.model}: engine {self.name} reads {known} files")

    @classmethod
    def inspect(cls, model: Path, *, output: str | None = None) -> ModelSignature:
        """Read a file's signature without a description.

        Args:
            model: the file.
            output: name of the output that holds the classes, where there are several.

        Raises:
            MissingDependencyError: the engine's package is not installed.
            ModelError: the file is missing, truncated or not of a kind this engine reads.
            EngineError: this engine cannot look into files.
        """
        raise EngineError(f"engine {cls.name} cannot inspect {model}: it only runs models")

    @classmethod
    def accepts_device(cls, device: str) -> bool:
        """Whether a device's name is one of this engine's vocabulary, be it there or not."""
        return True

    @classmethod
    def full_device(cls, device: str | None) -> str:
        """Return a device's name written out, so that two names of one device compare equal."""
        return device or "CPU"

    @property
    def doubt(self) -> str | None:
        """Why a certificate of this model does not cover the engine's answers; None if it does."""
        return self.doubt_about(None)

    def doubt_about(self, answered_by: ModelIdentity | None) -> str | None:
        """Return why a certificate of this model does not cover an answer; None if it does.

        Args:
            answered_by: who gave it, as `answered_by` told; None asks about all who may answer
                at this moment.
        """
        return None

    @property
    def answered_by(self) -> ModelIdentity | None:
        """Which model another host says it gave this thread's last answer with; None for here."""
        return None

    @abstractmethod
    def _load(self) -> tuple[str, ModelSignature]:
        """Build whatever runs the model; return the device in use and the file's signature."""

    @abstractmethod
    def _run(self, batch: Batch) -> NDArray[Any]:
        """Run the model on a batch of a size that it takes; return its raw output, 2-D."""

    def _release(self) -> None:  # noqa: B027 - optional to fill in
        """Let go of what `_load` built. The default drops nothing."""

    def infer(self, batch: Batch, *, timeout_s: float | None = None) -> NDArray[np.float32]:
        """Answer a batch.

        Args:
            batch: what `Preprocessor` made, ``(n, …)``; any n, also where the model's is fixed.
            timeout_s: after so long nobody waits for the answer any more. What runs here runs on;
                an engine that asks others gives up, and lets them know. None for no limit.

        Returns:
            Logits ``(n, classes)`` float32. The array may be reused by the next call.

        Raises:
            EngineError: the engine is closed, the batch does not fit, or the run failed.
        """
        if self._closed:
            raise EngineError(f"engine {self.name} for {self.model.name} is closed")
        if batch.shape[1:] != self._sample_shape or batch.dtype != self._dtype:
            raise EngineError(
                f"{self.model.name} takes batches (n, {', '.join(map(str, self._sample_shape))}) "
                f"of {self._dtype}, got {batch.shape} of {batch.dtype}"
            )
        if not len(batch):
            raise EngineError(f"{self.model.name}: the batch is empty")
        fixed = self.signature.batch_size
        if fixed is None or self._takes(len(batch)):
            return self.output.to_logits(self._run(batch))
        return self._infer_in_parts(batch, fixed)

    def _takes(self, samples: int) -> bool:
        """Whether `_run` takes so many samples, though the file fixes their number."""
        return self.signature.batch_size == samples

    def _infer_in_parts(self, batch: Batch, fixed: int) -> NDArray[np.float32]:
        """Run a model of fixed batch size on any number of samples, the last part padded."""
        samples = len(batch)
        parts = []
        for start in range(0, samples, fixed):
            part = batch[start : start + fixed]
            missing = fixed - len(part)
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            parts.append(self.output.to_logits(self._run(np.ascontiguousarray(part))).copy())
        return np.concatenate(parts)[:samples]

    def close(self) -> None:
        """Let go of the model. Legal in every state, any number of times."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _sealed(model: Path, seals: Sequence[Seal]) -> list[Seal]:
    """Return a model's files as they are now, with the hashes that they were sealed with.

    A file that was written to since is hashed again.

    Raises:
        ModelError: one of them holds something else, or the model needs one that is not sealed.
    """
    if not seals:
        return []
    known = {seal.path.resolve() for seal in seals}
    for path in (model, *external_files(model)):
        if path.resolve() not in known:
            raise ModelError(
                f"model {model}: needs {path.name}, which is none of the files it was hashed with"
            )
    return [seal if seal.holds() else _sealed_again(model, seal) for seal in seals]


def _sealed_again(model: Path, seal: Seal) -> Seal:
    try:
        found = Seal.of(seal.path)
    except OSError as error:
        raise ModelError(f"model {model}: {seal.path.name}: {error.strerror}") from error
    if found.sha256 != seal.sha256:
        raise ModelError(
            f"model {model}: {seal.path.name} is not what was calibrated (its hash differs)"
        )
    return found


def _check_unchanged(model: Path, seals: Sequence[Seal]) -> None:
    """Refuse a model whose files were written to while it was loaded."""
    for seal in seals:
        if not seal.holds():
            raise ModelError(
                f"model {model}: {seal.path.name} was written to while it was loaded; try again"
            )


def signature_for(preprocess: Preprocess) -> ModelSignature:
    """Return the signature of a model that has no file here: it takes what is made for it."""
    return ModelSignature(
        input_name="",
        input_shape=(None, *preprocess.shape(1)[1:]),
        input_dtype=np.dtype(preprocess.format.dtype).name,
        output_name="",
        output_shape=(None, None),
        output_dtype="float32",
    )


def check_signature(signature: ModelSignature, preprocess: Preprocess, *, model: Path) -> None:
    """Compare what a description makes with what the model takes.

    Raises:
        DescriptionError: they differ; names both.
        ModelError: it takes no sample at all.
    """
    described, found = preprocess.shape(1), signature.input_shape
    if found and found[0] == 0:
        raise ModelError(f"model {model}: takes batches of 0 samples: export it again")
    same = len(found) == 4 and all(
        have is None or have == want for have, want in zip(found[1:], described[1:], strict=True)
    )
    if not same or signature.input_dtype != preprocess.format.dtype:
        raise DescriptionError(
            f"model {model}: its description makes {preprocess.format.dtype} "
            f"{_axes((None, *described[1:]))} ({preprocess.format.layout.value}), the file takes "
            f"{signature.input_dtype} {_axes(found)}: correct the description "
            f"(tinysaver-edge models describe {model} writes a new one)"
        )


def _check_outputs(signature: ModelSignature, output: OutputFormat, *, model: Path) -> None:
    outputs = signature.output_shape[-1]
    if outputs is not None and not output.fits(outputs):
        raise DescriptionError(
            f"model {model}: its description names {output.least_outputs} outputs or more "
            f"(class_offset {output.class_offset}), the file has {outputs}: correct the description"
        )


def _axes(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if axis is None else str(axis) for axis in shape) + ")"


def as_rows(raw: NDArray[Any], samples: int, *, model: str) -> NDArray[Any]:
    """Return an answer as ``(samples, outputs)``: a file may leave its shape open until it is run.

    One number for each, ``(samples,)``, becomes a column.

    Raises:
        EngineError: it is no list of class scores for each sample.
    """
    if raw.ndim == 2 and len(raw) == samples:
        return raw
    long = [axis for axis in raw.shape[1:] if axis != 1]
    if not raw.ndim or len(raw) != samples or len(long) > 1:
        raise EngineError(
            f"{model} answers {samples} pictures with {raw.dtype} {raw.shape}, which is no list of "
            "class scores for each: export it with an output (n, classes)"
        )
    return raw.reshape(samples, -1)


def finite_or_raise(logits: NDArray[np.float32], *, model: str, where: str) -> None:
    """Refuse answers that hold NaN or infinity.

    Raises:
        ModelError: there is one among them.
    """
    if not np.isfinite(logits).all():
        raise ModelError(
            f"model {model} answered NaN or infinity on {where}: check its export, its "
            f"description's scale and its precision"
        )
