"""Published figures of cascades, and a finished bundle set beside them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge._support.files import read_text
from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.bundle.manifest import FiguresEntry, Manifest
from tinysaver_edge.errors import InputError

FOLDER = "published"
"""Folder within `resources.calibration_dir` that holds the tables; each gives its sources."""

_WORDS = ("system", "data", "large", "saver", "source")
_NUMBERS = ("max_drop_points", "top1_percent", "mean_gmacs", "cost_macs_ratio")
COLUMNS = (*_WORDS[:4], *_NUMBERS, _WORDS[4])


@dataclass(frozen=True, slots=True)
class CascadeFigures:
    """One cascade's figures, as a row of a comparison; None where they are not known.

    Attributes:
        system: whose figures they are.
        data: what they were measured on.
        large: the large model; timm's name where it is one of timm's.
        saver: the saver.
        max_drop_points: points that it was allowed to lose.
        top1_percent: how often it is right, 0..100.
        drop_points: points that it lost.
        mean_gmacs: expected 10⁹ multiply-accumulates a frame.
        cost_macs_ratio: those relative to the large model alone.
        source: where they are printed.
    """

    system: str
    data: str
    large: str
    saver: str | None = None
    max_drop_points: float | None = None
    top1_percent: float | None = None
    drop_points: float | None = None
    mean_gmacs: float | None = None
    cost_macs_ratio: float | None = None
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Beside:
    """A bundle's figures and the published ones that they can be held against.

    Attributes:
        own: the bundle's, on each set of samples it was measured on.
        published: those of the same large model; all there are where none is of it.
        same_large: whether they are of the same large model.
    """

    own: tuple[CascadeFigures, ...]
    published: tuple[CascadeFigures, ...]
    same_large: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "own": [one.to_dict() for one in self.own],
            "published": [one.to_dict() for one in self.published],
            "same_large": self.same_large,
        }


def read_published(path: Path | None = None) -> tuple[CascadeFigures, ...]:
    """Read published figures.

    Args:
        path: a table with the columns of `COLUMNS`, its comments after ``#``; None for all that
            come with this package.

    Raises:
        InputError: a table cannot be read, or a line is wrong; names the line.
    """
    paths = sorted((calibration_dir() / FOLDER).glob("*.csv")) if path is None else [path]
    return tuple(row for one in paths for row in _rows(one))


def _rows(path: Path) -> Iterator[CascadeFigures]:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"published {path}: cannot be read: {error}") from error
    if "\0" in text:  # which Python 3.10 takes for no CSV at all
        raise InputError(f"published {path}: cannot be read: it holds a NUL, so it is no text")
    numbered = [
        (number, _cells(f"published {path}, line {number}", line))
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not numbered or tuple(numbered[0][1]) != COLUMNS:
        raise InputError(f"published {path}: its columns must be {', '.join(COLUMNS)}")
    for number, values in numbered[1:]:
        yield _row(f"published {path}, line {number}", values)


def _cells(place: str, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise InputError(f"{place}: is no line of a table ({error})") from error


def _row(place: str, values: Sequence[str]) -> CascadeFigures:
    if len(values) != len(COLUMNS):
        raise InputError(f"{place}: has {len(values)} fields, the table {len(COLUMNS)}")
    said = {name: value.strip() for name, value in zip(COLUMNS, values, strict=True)}
    for name in ("system", "data", "large", "source"):
        if not said[name]:
            raise InputError(f"{place}: {name} is empty; a figure needs it")
    numbers = {name: _number(f"{place}: {name}", said[name]) for name in _NUMBERS}
    words = {name: said[name] for name in ("system", "data", "large", "source")}
    return CascadeFigures(**words, saver=said["saver"] or None, **numbers)  # type: ignore[arg-type]


def _number(place: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{place}: {text!r} is no number from 0; leave it empty if not known")
    return value


def set_beside(manifest: Manifest, published: Iterable[CascadeFigures]) -> Beside:
    """Set a bundle's figures beside published ones.

    Where the large model is the same, what the published cascade costs relative to it is worked
    out from its multiply-accumulates and those that the bundle has for the large model.
    """
    large = manifest.stages[-1].model
    every = tuple(published)
    same = tuple(_with_ratio(one, large.macs) for one in every if one.large == large.name)
    measured = (("calibration samples", manifest.calibration), ("hold-out", manifest.holdout))
    return Beside(
        own=tuple(_own(manifest, what, found) for what, found in measured if found is not None),
        published=same or every,
        same_large=bool(same),
    )


def _with_ratio(one: CascadeFigures, large_macs: float | None) -> CascadeFigures:
    if one.cost_macs_ratio is not None or one.mean_gmacs is None or not large_macs:
        return one
    return CascadeFigures(**{**one.to_dict(), "cost_macs_ratio": 1e9 * one.mean_gmacs / large_macs})


def _own(manifest: Manifest, what: str, found: FiguresEntry) -> CascadeFigures:
    *early, large = (stage.model for stage in manifest.stages)
    ratio = found.cost_macs_ratio
    return CascadeFigures(
        system=f"this bundle ({manifest.method})",
        data=f"{found.samples:,} {what}",
        large=large.name,
        saver=", ".join(one.name for one in early) or None,
        max_drop_points=manifest.max_drop_points,
        top1_percent=None if found.accuracy_cascade is None else 100 * found.accuracy_cascade,
        drop_points=found.drop_points,
        mean_gmacs=None if ratio is None or large.macs is None else ratio * large.macs / 1e9,
        cost_macs_ratio=ratio,
        source=manifest.created_by,
    )
