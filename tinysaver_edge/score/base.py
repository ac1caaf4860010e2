"""What a score is: a function of a saver's outputs that says how far to trust them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from tinysaver_edge._support.parameters import Parametrised
from tinysaver_edge.outputs import FloatArray, Outputs

if TYPE_CHECKING:
    from typing_extensions import Self


class Score(Parametrised, ABC):
    """How far a saver's answer can be trusted; higher is safer.

    The same object ranks the calibration samples and decides on the device. Built-in scores are
    frozen dataclasses whose fields are their parameters; a third party's score may override
    `parameters` and `from_parameters` instead.
    """

    __slots__ = ()
    kind: ClassVar[str] = "score"
    meaning: ClassVar[str] = ""
    """What it is, in words for a reader who does not know its name: "the score, ...". Optional."""

    @abstractmethod
    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample.

        Returns:
            float64 (n,). Always float64: a float32 score would be compared with the threshold
            rounded to float32, which moves samples across it.

        Raises:
            InputError: the score cannot be had from these outputs.
        """

    def suited_to(self, outputs: Outputs) -> Self:
        """This score, pinned to what the outputs hold, so that it means the same on the device.

        A sum over a record's best five probabilities and a sum over all classes are different
        scores. A score that sums returns a copy that sums over as many as the record holds.

        Raises:
            InputError: the score cannot be had from such outputs.
        """
        self(outputs.subset(slice(0, 1)))
        return self

    def fixed_thresholds(self) -> FloatArray | None:
        """Thresholds from strict to loose that hold for any saver, or None where there are none.

        A certificate needs its thresholds before it sees the samples. A score with a known scale
        has such constants; one without needs a tune split to take them from.
        """
        return None
