"""timm's published results: which models there are, how right they are and what they cost."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.errors import InputError

FILE = "timm.csv"
"""Name of the table within `resources.calibration_dir`; its first lines give its sources."""

_COLUMNS = ("model", "image_size", "top1_percent", "gmacs", "params_millions")


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One set of weights that timm publishes, at one image size.

    Attributes:
        model: timm's name of architecture and weights, ``"lcnet_050.ra2_in1k"``.
        image_size: side of the picture in pixels.
        top1_percent: accuracy on ImageNet-1k's validation set, 0..100.
        gmacs: 10⁹ multiply-accumulates of one picture, as trained: a model that can be fused costs
            less once it is. Normalisations count 2 an element, as its authors count them.
        params_millions: 10⁶ parameters, as trained.
    """

    model: str
    image_size: int
    top1_percent: float
    gmacs: float
    params_millions: float

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the facts as plain values for JSON."""
        return asdict(self)


def read_catalogue(path: Path | None = None) -> tuple[PublishedModel, ...]:
    """Read the table of published results.

    Raises:
        InputError: it cannot be read, or a line is wrong; names the line.
    """
    path = calibration_dir() / FILE if path is None else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"catalogue {path}: cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith("#")]
    if not numbered or tuple(next(csv.reader([numbered[0][1]]))) != _COLUMNS:
        raise InputError(f"catalogue {path}: its columns must be {', '.join(_COLUMNS)}")
    return tuple(_row(path, number, line) for number, line in numbered[1:])


def _row(path: Path, number: int, line: str) -> PublishedModel:
    try:
        model, size, top1, gmacs, params = next(csv.reader([line]))
        return PublishedModel(model, int(size), float(top1), float(gmacs), float(params))
    except (ValueError, StopIteration) as error:
        raise InputError(f"catalogue {path}, line {number}: {line!r} is no row: {error}") from error


def select(
    models: Iterable[PublishedModel],
    *,
    pattern: str | None = None,
    max_gmacs: float | None = None,
    min_top1_percent: float | None = None,
    max_params_millions: float | None = None,
    pareto: bool = False,
) -> tuple[PublishedModel, ...]:
    """Return the models that keep all limits, the cheapest first.

    Args:
        models: where to choose from.
        pattern: shell pattern for the name, ``"mobilenet*"``.
        max_gmacs: upper limit on 10⁹ multiply-accumulates.
        min_top1_percent: lower limit on accuracy, 0..100.
        max_params_millions: upper limit on 10⁶ parameters.
        pareto: keep only those that no other of them beats in both accuracy and cost.
    """
    kept = [
        one
        for one in models
        if (pattern is None or fnmatchcase(one.model, pattern))
        and (max_gmacs is None or one.gmacs <= max_gmacs)
        and (min_top1_percent is None or one.top1_percent >= min_top1_percent)
        and (max_params_millions is None or one.params_millions <= max_params_millions)
    ]
    kept.sort(key=lambda one: (one.gmacs, -one.top1_percent, one.params_millions, one.model))
    return _frontier(kept) if pareto else tuple(kept)


def _frontier(by_cost: Iterable[PublishedModel]) -> tuple[PublishedModel, ...]:
    """Return those that are more accurate than everything before them."""
    kept: list[PublishedModel] = []
    for one in by_cost:
        if not kept or one.top1_percent > kept[-1].top1_percent:
            kept.append(one)
    return tuple(kept)


def published(name: str, image_size: int | None = None) -> PublishedModel | None:
    """Return what is published of a model, or None.

    Args:
        name: with its weights (``"lcnet_050.ra2_in1k"``) or without (``"lcnet_050"``: the first).
        image_size: only at this one.
    """
    for one in read_catalogue():
        if name in (one.model, one.model.partition(".")[0]) and (
            image_size is None or one.image_size == image_size
        ):
            return one
    return None


def nearest(name: str, known: Sequence[str], *, count: int = 3) -> tuple[str, ...]:
    """Return the known names most like a wrong one, for messages; none where none is like it."""
    plain = {one.replace("-", "_").lower(): one for one in known}
    wanted = name.replace("-", "_").lower()
    starts = [one for one in plain if one.startswith(wanted)][:count]
    close = difflib.get_close_matches(wanted, plain, n=count, cutoff=0.6)
    return tuple(plain[one] for one in dict.fromkeys([*starts, *close]))[:count]
