"""What a score is: a function of a saver's outputs that says how far to trust them."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray, Outputs

if TYPE_CHECKING:
    from typing import Self


class Score(ABC):
    """How far a saver's answer can be trusted; higher is safer.

    The same object ranks the calibration samples and decides on the device. Built-in scores are
    frozen dataclasses whose fields are their parameters; a third party's score may override
    `parameters` and `from_parameters` instead.

    Attributes:
        name: the name in the registry and in the bundle.
    """

    __slots__ = ()
    name: ClassVar[str]

    @abstractmethod
    def __call__(self, outputs: Outputs) -> FloatArray:
        """Score each sample.

        Returns:
            float64 (n,). Always float64: a float32 score would be compared with the threshold
            rounded to float32, which moves samples across it.

        Raises:
            InputError: the score cannot be had from these outputs.
        """

    @property
    def parameters(self) -> dict[str, Any]:
        """What `from_parameters` needs to make this score again; JSON values only."""
        return {field: getattr(self, field) for field in _field_names(type(self))}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Make the score from its stored parameters.

        Raises:
            InputError: a parameter is unknown or missing, or has a value that makes no sense.
        """
        known = _field_names(cls)
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise InputError(
                f"score {cls.name!r} has no parameter {unknown[0]!r}: "
                f"it takes {', '.join(known) or 'none'}"
            )
        try:
            return cls(**parameters)
        except TypeError as error:
            raise InputError(f"score {cls.name!r} cannot be made: {error}") from error

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


def _field_names(score: type[Score]) -> list[str]:
    if not hasattr(score, "__dataclass_fields__"):
        return []
    return [field.name for field in dataclasses.fields(score) if field.init]  # type: ignore[arg-type]


def check_number(
    value: object, *, score: str, parameter: str, low: float, high: float = math.inf
) -> None:
    """Refuse a parameter that is no number within low..high.

    Raises:
        InputError: naming the score, the parameter and its range.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not fits or not math.isfinite(float(value)):  # type: ignore[arg-type]
        raise InputError(
            f"score {score!r}: {parameter} is {value!r}, expected a number within {low}..{high}"
        )
