"""What an option of a calibration is: its flag, its place in a recipe and in the plan, its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Group(str, Enum):
    """What an option is about: its heading in the help."""

    INPUT = "Images and models"
    RECORDS = "Records, in place of images"
    ASKED = "What is asked"
    MEASURING = "How it is measured"
    WRITTEN = "What is written"


@dataclass(frozen=True, slots=True)
class Option:
    """What flag, recipe and plan call one setting, and what a value of it is.

    Attributes:
        group: where the help lists it.
        kind: type of a value: Path, str, int, float, bool, or an enum for its words.
        flag: on the command line; ``--`` and the setting's name where None.
        many: whether it may be said several times.
        metavar: stands for the value in the help, or None.
        span: least and greatest whole number, or None.
        recipe: its place in a recipe, ``targets.score`` for one; None where recipes have none.
        plan: its place in the plan, ``images.embed`` for one, where it is put as it is and where
            nothing said leaves the plan's own default; None where `plan_of` makes more of it.
        negative: whether saying it takes away what is there otherwise.
    """

    group: Group
    kind: type
    help: str
    flag: str | None = None
    many: bool = False
    metavar: str | None = None
    span: tuple[int, int] | None = None
    recipe: str | None = None
    plan: str | None = None
    negative: bool = False


def setting(group: Group, kind: type, text: str, *, default: object = None, **more: Any) -> Any:  # noqa: ANN401
    """Return a field of `Settings`: what a value is, and where it is said and goes."""
    made = Option(group, kind, text, **more)
    nothing = () if made.many else False if kind is bool else default
    return field(default=nothing, metadata={"option": made})


def is_said(value: object) -> bool:
    """Whether a value says anything; 0 does."""
    return value is not None and value is not False and value not in ("", ())


def listed(value: object) -> Sequence[Any]:
    """Return a list as it is, and a single value as a list of it."""
    return value if isinstance(value, list) else [value]
