"""A figure that is kept elsewhere, and read when somebody asks for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, for every value of its labels.

    Attributes:
        name: as in the metrics, without what precedes every name and ``_total``.
        help: what it is, in a line.
        samples: values of the labels, and the figure; none where there is nothing to say.
        labels: names of the labels.
        counts: whether it only grows.
    """

    name: str
    help: str
    samples: tuple[tuple[tuple[str, ...], float], ...]
    labels: tuple[str, ...] = ()
    counts: bool = False


def reading(name: str, help: str, value: float | None, *, counts: bool = False) -> Reading:
    """Return a figure without labels; None for nothing to say."""
    return Reading(name, help, () if value is None else (((), value),), counts=counts)
