"""What is had by its name: plug-ins of other packages, and values that a bundle stores so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tinysaver_edge.errors import InputError, TinySaverError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class PlugIns:
    """The plug-ins of one kind that are installed; they are looked up anew each time.

    Attributes:
        kind: what they are, in one word.
        error: raised where one cannot be had.
    """

    kind: str
    error: type[TinySaverError]

    @property
    def group(self) -> str:
        """The group of entry points in which other packages name them."""
        return f"tinysaver_edge.{self.kind}s"

    def names(self) -> frozenset[str]:
        """Return the names that are taken."""
        return frozenset(point.name for point in self._points())

    def distribution(self, name: str) -> str | None:
        """Return the package that brings a plug-in and its version; None where nobody does."""
        for point in self._points(name):
            if point.dist is not None:
                return f"{point.dist.name} {point.dist.version}"
        return None

    def load(self, name: str) -> object:
        """Import what a name stands for.

        Raises:
            TinySaverError: it is named by no package or by several, or cannot be imported. It is
                of the class `error`.
        """
        points = self._points(name)
        if len(points) != 1:
            raise self.claimed(name) if points else self.error(f"no {self.kind} {name!r}")
        try:
            loaded: object = points[0].load()
        except Exception as error:  # whatever another package's import raises
            raise self.error(
                f"{self.told(name)} cannot be loaded ({type(error).__name__}: {error}): "
                "mend or uninstall it"
            ) from error
        return loaded

    def make(self, name: str, argument: object) -> object:
        """Import the function that a name stands for and return what it makes of an argument.

        Raises:
            TinySaverError: as `load`; or the function raised something, or is none.
        """
        function = self.load(name)
        try:
            made: object = function(argument)  # type: ignore[operator]  # TypeError where it is none
        except TinySaverError:
            raise
        except Exception as error:  # whatever another package raises
            raise self.error(
                f"{self.told(name)} failed ({type(error).__name__}: {error})"
            ) from error
        return made

    def claimed(self, name: str) -> TinySaverError:
        """Return the error that a name has more than one owner, of which this package may be."""
        return self.error(
            f"{self.kind} {name!r} is claimed more than once, by {self.told(name)}: remove one"
        )

    def told(self, name: str) -> str:
        """Say for messages who brings a name."""
        return ", ".join(
            f"{self.kind} plug-in {name!r} of "
            f"{'an unknown package' if point.dist is None else point.dist.name} ({point.value})"
            for point in self._points(name)
        )

    def _points(self, name: str | None = None) -> list[EntryPoint]:
        from importlib.metadata import entry_points  # 25 ms, which a device need not spend

        found = entry_points(group=self.group)
        return [point for point in found if name is None or point.name == name]


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
