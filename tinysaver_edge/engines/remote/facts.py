"""What a host says of its model, what the bundle wants, and whether the two agree.

Whether they do is proven with one empty frame and with the bundle's golden samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import read_arrays
from tinysaver_edge._support.text import brief, name_of
from tinysaver_edge.errors import BundleError
from tinysaver_edge.output_format import BINARY, OutputFormat
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Preprocess, Preprocessor, Resize

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle

SHA256 = "model_sha256"
"""Under this name hosts tell the hash of the model they serve: in Triton's model configuration and
in the parameters of every answer."""

DTYPES = MappingProxyType(
    {
        "BOOL": "bool",
        "UINT8": "uint8",
        "UINT16": "uint16",
        "UINT32": "uint32",
        "UINT64": "uint64",
        "INT8": "int8",
        "INT16": "int16",
        "INT32": "int32",
        "INT64": "int64",
        "FP16": "float16",
        "FP32": "float32",
        "FP64": "float64",
    }
)
"""The protocol's types and numpy's."""

DATATYPES = MappingProxyType({dtype: datatype for datatype, dtype in DTYPES.items()})
"""The other way round."""

MOST_AXES = 8
"""So many axes, and tensors, are told of in a message."""

JPEG = "BYTES"
"""The type of a tensor of JPEG files."""


class Kind(str, Enum):
    """Why a host gave no answer.

    Attributes:
        UNREACHABLE: refused, killed, cut off, or the handshake failed.
        BUSY: the host has more requests than it takes.
        DRAINING: a model that was ready is not there at the moment.
        TIMEOUT: no answer in time.
        DENIED: the token or the client certificate is not accepted.
        REJECTED: the host could not make anything of the request, or failed at it.
        WRONG: the host serves another model, or its answer is none.
        CLOSED: we have closed the connection.
    """

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    DRAINING = "draining"
    TIMEOUT = "timeout"
    DENIED = "denied"
    REJECTED = "rejected"
    WRONG = "wrong"
    CLOSED = "closed"

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed if it is made again at once."""
        return self in (Kind.UNREACHABLE, Kind.BUSY, Kind.DRAINING)

    @property
    def lasting(self) -> bool:
        """Whether the host is of no use until something there is changed."""
        return self in (Kind.DENIED, Kind.WRONG)


class RequestError(Exception):
    """A host gave no answer; stays inside the engine, which tells it as an `EngineError`.

    Hosts are strangers: what they say is made printable and short here, once for all.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(brief(message))
        self.kind = kind


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One input or output as a host describes it; -1 stands for an axis of any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        axes = ", ".join("n" if axis < 0 else str(axis) for axis in self.shape[:MOST_AXES])
        return f"{name_of(self.name)} {name_of(self.datatype)} ({axes})"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as a host describes it.

    Attributes:
        max_batch: samples a request may hold at most, or None where the host does not say.
        sha256: hash of the model's files, or None where the host does not say.
    """

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    max_batch: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        version: the model's version that answered; empty where the host does not say.
        sha256: hash of the model that answered, or None where the host does not say.
    """

    values: NDArray[np.generic]
    version: str = ""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the bundle wants of a model.

    Attributes:
        classes: how many classes it answers with, or None where that is not known.
        sha256: hash of its files, or None where that is not known.
        jpeg: whether it is sent JPEG files in place of pixels.
    """

    preprocess: Preprocess
    output: OutputFormat
    classes: int | None = None
    sha256: str | None = None
    jpeg: bool = False

    @property
    def outputs(self) -> int | None:
        """How many raw outputs there must be; None where that is not known."""
        if self.classes is None or self.output.class_order is not None:
            return None
        return self.output.class_offset + self.classes

    def takes(self, width: int) -> bool:
        """Whether so many raw outputs will do; a single one stands for two classes."""
        if self.outputs is not None and width != self.outputs:
            return width == 1 and self.outputs == BINARY and self.output.fits(width)
        return self.output.fits(width)

    @property
    def datatype(self) -> str:
        """The input's type."""
        dtype = self.preprocess.format.dtype
        return JPEG if self.jpeg else DATATYPES.get(dtype, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The input's axes, -1 for the first."""
        return (-1,) if self.jpeg else (-1, *self.preprocess.shape(1)[1:])


@dataclass(frozen=True, slots=True)
class Contract:
    """What bundle and host have agreed on.

    Attributes:
        input_shape: its axes without the first.
        max_batch: samples a request may hold at most; None for any number.
        sha256: what the host says it serves, or None.
    """

    input: str
    input_shape: tuple[int, ...]
    output: str
    max_batch: int | None
    sha256: str | None


def agree(facts: ModelFacts, wanted: Wanted) -> Contract:
    """Compare what a host serves with what the bundle wants.

    Raises:
        RequestError: they differ; names both.
    """
    if len(facts.inputs) != 1:
        raise _wrong(f"takes {len(facts.inputs)} inputs ({_list(facts.inputs)})", _input(wanted))
    found = facts.inputs[0]
    if found.datatype != wanted.datatype or not _fits(found.shape, wanted):
        raise _wrong(f"takes {found}", _input(wanted))
    check_sha256(facts.sha256, wanted)
    most = facts.max_batch if facts.max_batch is not None else found.shape[0]
    return Contract(
        input=found.name,
        input_shape=(1,) * (len(found.shape) - 1) if wanted.jpeg else wanted.shape[1:],
        output=_output(facts, wanted).name,
        max_batch=most if most > 0 else None,
        sha256=facts.sha256,
    )


def check_sha256(told: str | None, wanted: Wanted) -> None:
    """Refuse a model whose hash is another.

    Raises:
        RequestError: the host says that it serves another; names both.
    """
    if told is not None and wanted.sha256 is not None and told != wanted.sha256:
        raise RequestError(
            Kind.WRONG,
            f"serves the model with hash {told[:12]}…, the bundle was calibrated with "
            f"{wanted.sha256[:12]}…",
        )


def check_values(values: NDArray[np.generic], samples: int, wanted: Wanted) -> None:
    """Refuse an answer that is none.

    Raises:
        RequestError: it has another shape or type than it should have, or is no number: a
            processor gone wrong, and another host may stand by.
    """
    least = wanted.output.least_outputs
    good = values.ndim == 2 and values.dtype.kind in "fiu" and len(values) == samples
    if not good or not wanted.takes(values.shape[1]):
        raise RequestError(
            Kind.WRONG,
            f"answered {values.dtype} {values.shape}, expected "
            f"({samples}, {wanted.outputs or f'{least} or more'}) numbers",
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RequestError(Kind.WRONG, "answered what is no number (NaN or infinity)")


def _fits(shape: tuple[int, ...], wanted: Wanted) -> bool:
    if wanted.jpeg:  # a file a sample: (n) or (n, 1)
        return len(shape) in (1, 2) and all(axis in (-1, 1) for axis in shape[1:])
    return len(shape) == len(wanted.shape) and all(
        have in (-1, want) for have, want in zip(shape[1:], wanted.shape[1:], strict=True)
    )


def _output(facts: ModelFacts, wanted: Wanted) -> TensorFacts:
    """Return the one output that can be the answer."""
    width = wanted.outputs
    found = [
        one
        for one in facts.outputs
        if one.datatype in DTYPES
        and len(one.shape) == 2
        and (one.shape[1] < 0 or wanted.takes(one.shape[1]))
    ]
    named = [one for one in found if one.name == wanted.output.name]
    if named:
        return named[0]
    if len(found) != 1:
        wish = f"one output (n, {width or 'classes'}) of numbers"
        raise _wrong(f"answers with {_list(facts.outputs)}", wish)
    return found[0]


def _input(wanted: Wanted) -> str:
    axes = ", ".join("n" if axis < 0 else str(axis) for axis in wanted.shape)
    what = " of JPEG files" if wanted.jpeg else ""
    return f"{wanted.datatype} ({axes}){what}"


def _list(tensors: Sequence[TensorFacts]) -> str:
    return brief(", ".join(map(str, tensors[:MOST_AXES]))) or "nothing"


def _wrong(has: str, wants: str) -> RequestError:
    return RequestError(Kind.WRONG, f"{has}, the bundle wants {wants}")


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Inputs whose answers are known.

    Attributes:
        batch: model input ``(n, …)``.
        logits: what the calibrated model answered, ``(n, classes)`` float32.
        tolerance: largest difference of a probability that counts as agreement.
    """

    batch: NDArray[Any]
    logits: NDArray[np.float32]
    tolerance: float


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Golden samples as they are sent.

    Attributes:
        one: one sample, golden or empty.
        golden: all of them, or None where the bundle has none.
        expected: what they are compared with, or None.
        output: how the model states its answer.
    """

    one: NDArray[Any]
    golden: NDArray[Any] | None
    expected: Golden | None
    output: OutputFormat

    def check(self, values: NDArray[np.generic]) -> None:
        """Compare a host's answers with the calibrated model's.

        Raises:
            RequestError: they differ by more than the tolerance.
        """
        assert self.expected is not None
        logits = self.output.to_logits(values)
        if logits.shape != self.expected.logits.shape or not np.isfinite(logits).all():
            raise RequestError(Kind.WRONG, "answers the golden samples with NaN or other shapes")
        moved = np.abs(_probabilities(logits) - _probabilities(self.expected.logits)).max()
        if moved > self.expected.tolerance:
            raise RequestError(
                Kind.WRONG,
                f"answers the bundle's golden samples otherwise than the calibrated model did: "
                f"probabilities differ by {moved:.2g}, allowed are {self.expected.tolerance:.2g}",
            )


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    classes, values = Outputs(logits=logits).top(logits.shape[1])
    result = np.empty_like(logits)
    np.put_along_axis(result, classes, values, axis=1)
    return result


def golden_of(bundle: Bundle, preprocess: Preprocess) -> Golden | None:
    """Return the last stage's golden samples, or None where the bundle has none.

    Raises:
        BundleError: they are damaged.
    """
    entry = bundle.manifest.golden
    if entry is None:
        return None
    last = len(bundle.manifest.stages) - 1
    try:
        kept = read_arrays(bundle.file(entry.answers))
        frames, logits = kept[f"input_{last}"], kept[f"logits_{last}"]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"bundle {bundle.path}: golden answers are damaged ({error})") from error
    # They were kept at the model's size: nothing is left to crop or to shrink.
    size = preprocess.resize
    convert = Preprocessor(replace(preprocess, resize=Resize(size.height, size.width)))
    return Golden(convert.batch(list(frames)), logits, entry.tolerances[last])
