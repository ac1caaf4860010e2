"""Named values that a bundle stores as a name and JSON parameters: scores and fusions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tinysaver_edge.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class Parametrised:
    """Something made from a name and JSON parameters, by default the fields of a dataclass.

    Attributes:
        kind: what messages call it, "score" or "fusion".
        name: its name in the registry and in the bundle.
    """

    __slots__ = ()
    kind: ClassVar[str]
    name: ClassVar[str]

    @property
    def parameters(self) -> dict[str, Any]:
        """What `from_parameters` needs to make this again; JSON values only."""
        return {field: getattr(self, field) for field in _field_names(type(self))}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Make one from its stored parameters.

        Raises:
            InputError: a parameter is unknown or missing, or has a value that makes no sense.
        """
        known = _field_names(cls)
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise InputError(
                f"{cls.kind} {cls.name!r} has no parameter {unknown[0]!r}: "
                f"it takes {', '.join(known) or 'none'}"
            )
        try:
            return cls(**parameters)
        except TypeError as error:
            raise InputError(f"{cls.kind} {cls.name!r} cannot be made: {error}") from error

    def check_number(
        self, value: object, *, parameter: str, low: float, high: float = math.inf
    ) -> None:
        """Refuse a parameter that is no number within low..high.

        Raises:
            InputError: naming the parameter, its value and its range.
        """
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
            raise InputError(
                f"{self.kind} {self.name!r}: {parameter} is {value!r}, "
                f"expected a number within {low}..{high}"
            )


def _field_names(kind: type[Parametrised]) -> list[str]:
    if not hasattr(kind, "__dataclass_fields__"):
        return []
    return [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
