"""What a host is proven with: one empty frame, and the bundle's golden samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import read_arrays
from tinysaver_edge.engines.remote.facts import Kind, RequestError
from tinysaver_edge.errors import BundleError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Preprocess, Preprocessor, Resize

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle


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

    Args:
        bundle: an open bundle.
        preprocess: what the last stage's input is made with.

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
