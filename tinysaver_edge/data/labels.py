"""Labels as class indices of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.source import Sample
from tinysaver_edge.errors import DataError


def class_indices(
    samples: Sequence[Sample], *, labels: Sequence[str] | None, classes: int, path: Path
) -> NDArray[np.int64]:
    """Turn the labels of samples into class indices of a model.

    Names are looked up among the model's labels: exactly, else regardless of case, spaces and
    underscores, else as the first of several names ("tench" of "tench, Tinca tinca"). Whole
    numbers are indices. Names without any labels to look them up in are numbered in sorted order,
    provided there are as many as the model has classes.

    Args:
        samples: the images.
        labels: the model's class names, or None when they are not known.
        classes: how many classes the model has.
        path: where the samples come from, for messages.

    Returns:
        ``(n,)`` int64.

    Raises:
        DataError: a label is none of the model's.
    """
    names = sorted({sample.label for sample in samples})
    index_of = _label_indices(names, labels=labels, classes=classes, path=path)
    return np.array([index_of[sample.label] for sample in samples], np.int64)


def _label_indices(
    names: Sequence[str], *, labels: Sequence[str] | None, classes: int, path: Path
) -> dict[str, int]:
    if labels is not None:
        found = _named_indices(names, labels, path=path)
        if len(found) == len(names):
            return found
        unknown = [name for name in names if name not in found]
        if not all(name.isdecimal() for name in names):
            raise DataError(
                f"data {path}: label {unknown[0]!r} ({len(unknown)} such) is none of the model's "
                f"{classes} labels ({', '.join(labels[:3])}, …)"
            )
    if all(name.isdecimal() for name in names):
        largest = max(int(name) for name in names)
        if largest >= classes:
            raise DataError(f"data {path}: label {largest}, but the model has {classes} classes")
        return {name: int(name) for name in names}
    if len(names) != classes:
        raise DataError(
            f"data {path}: {len(names)} classes ({', '.join(names[:3])}, …), but the model has "
            f"{classes}: add the model's labels to its description"
        )
    return {name: index for index, name in enumerate(names)}


def _named_indices(names: Sequence[str], labels: Sequence[str], *, path: Path) -> dict[str, int]:
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    first: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        exact.setdefault(label, []).append(index)
        loose.setdefault(_loosely(label), []).append(index)
        first.setdefault(_loosely(label.partition(",")[0]), []).append(index)
    found: dict[str, int] = {}
    for name in names:
        key = _loosely(name)
        places = exact.get(name) or loose.get(key) or first.get(key, [])
        if len(places) > 1:
            raise DataError(
                f"data {path}: label {name!r} names {len(places)} of the model's classes "
                f"({', '.join(map(str, places))}): label by index instead"
            )
        if places:
            found[name] = places[0]
    return found


def _loosely(label: str) -> str:
    return label.casefold().replace("_", " ").replace("-", " ").strip()
