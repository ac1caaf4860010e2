"""Labels as class indices of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.source import Sample, by_number, one_spelling
from tinysaver_edge.errors import DataError

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def class_indices(
    samples: Sequence[Sample], *, labels: Sequence[str] | None, classes: int, path: Path
) -> NDArray[np.int64]:
    """Turn the labels of samples into class indices of a model.

    Names are looked up among the model's labels: exactly, else regardless of case, spaces and
    underscores, else as the first of several names ("tench" of "tench, Tinca tinca"). Whole
    numbers are indices, written as 7, 07 or 7.0. Names without any labels to look them up in are
    numbered in sorted order, provided there are as many as the model has classes.

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
        if words := [name for name in unknown if not _is_number(name)]:
            unknown = words
        if not all(_is_number(name) for name in names):
            raise DataError(
                f"data {path}: label {unknown[0]!r} ({len(unknown)} such) is none of the model's "
                f"{classes} labels ({', '.join(labels[:3])}, …)"
            )
    if all(_is_number(name) for name in names):
        return {name: _index(name, classes=classes, path=path) for name in names}
    if len(names) != classes:
        raise DataError(
            f"data {path}: {len(names)} classes ({', '.join(names[:3])}, …), but the model has "
            f"{classes}: add the model's labels to its description"
        )
    counted = sorted(names, key=by_number)
    if counted != names:
        first = next(one for one, other in zip(names, counted, strict=True) if one != other)
        raise DataError(
            f"data {path}: which class is {first!r}? Sorted as text it is number "
            f"{names.index(first)}, by the number in it {counted.index(first)}: add the model's "
            f"labels to its description"
        )
    return {name: index for index, name in enumerate(names)}


def _is_number(name: str) -> bool:
    """Whether a label is a number, as tables and other programs write them."""
    return _NUMBER.fullmatch(name.strip()) is not None


def _index(name: str, *, classes: int, path: Path) -> int:
    """Return the class that a number names.

    Raises:
        DataError: it is no whole number of a class, counted from 0.
    """
    number = float(name)
    if not number.is_integer() or number < 0:
        why = "-1 often stands for no label" if number < 0 else "a class is a whole number"
        raise DataError(f"data {path}: label {name} is no class, counted from 0: {why}")
    if number >= classes:
        raise DataError(
            f"data {path}: label {name}, but the model has {classes} classes, counted from 0"
        )
    return int(number)


def _named_indices(names: Sequence[str], labels: Sequence[str], *, path: Path) -> dict[str, int]:
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    first: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        exact.setdefault(one_spelling(label), []).append(index)
        loose.setdefault(_loosely(label), []).append(index)
        first.setdefault(_loosely(label.partition(",")[0]), []).append(index)
    found: dict[str, int] = {}
    for name in names:
        key = _loosely(name)
        places = exact.get(one_spelling(name)) or loose.get(key) or first.get(key, [])
        if len(places) > 1:
            raise DataError(
                f"data {path}: label {name!r} names {len(places)} of the model's classes "
                f"({', '.join(map(str, places))}): label by index instead"
            )
        if places:
            found[name] = places[0]
    return found


def _loosely(label: str) -> str:
    return one_spelling(label.casefold()).replace("_", " ").replace("-", " ").strip()
