"""The contract of a data source: labelled images in a fixed order, labels as a model's classes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.images import NOTHING, LeftOut, decode_image
from tinysaver_edge.data.store import Place
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


SHOWN_ENDINGS = 8
"""Of so many kinds of image files each is told; more are parts of names."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        file: its name within the data source, with forward slashes.
        label: name or index of its class, as the source states it.
        group: name of the clip or scene it belongs to, or None.
    """

    file: str
    label: str
    group: str | None = None


class DataSource(ABC):
    """Labelled images in a fixed order. A context manager; reading is thread-safe.

    Attributes:
        path: where they come from.
        samples: the images, in an order that only the source's content decides.
        left_out: files beside them that are not among them.
        independent: whether the source itself sees to it that no sample depends on another, as one
            does that draws each anew; nobody looks for copies then.

    Raises:
        DataError: there is nothing that can be read; the message names the place.
    """

    independent = False

    def __init__(
        self, path: Place, samples: Sequence[Sample], *, left_out: LeftOut = NOTHING
    ) -> None:
        if not samples:
            raise DataError(
                f"data {path}: no images; expected one folder a class with images in it, "
                f"a .zip of such folders, or a .csv/.jsonl with columns file and label"
            )
        self.path = path
        self.samples = tuple(samples)
        self.left_out = left_out

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the bytes of image file `index`, from 0.

        Raises:
            OSError: it cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - folders have nothing open
        """Close what is open. Legal in every state."""

    def frame(self, index: int) -> Frame | None:
        """Return image `index`, from 0, decoded; None when it cannot be read or is damaged."""
        try:
            return decode_image(self.read(index))
        except (OSError, ValueError):
            return None

    def fingerprint(self) -> str:
        """Return a hash of the files' names and state: it changes when the images do.

        Labels are left out: what a model answers does not depend on them.
        """
        digest = hashlib.sha256()
        for sample, state in zip(self.samples, self._states(), strict=True):
            digest.update(f"{sample.file}\0{state}\n".encode())
        return digest.hexdigest()

    @abstractmethod
    def _state(self, index: int) -> str:
        """Return what changes when the file's content does, without reading it."""

    def _states(self) -> Sequence[str]:
        """Return the state of every sample; for sources that are asked for all at once."""
        return [self._state(index) for index in range(len(self))]

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """Each sample's group, or None when the source names none."""
        if all(sample.group is None for sample in self.samples):
            return None
        return np.array([sample.group or "" for sample in self.samples])

    @property
    def endings(self) -> str | None:
        """How many files have which ending, for people; None where all have the same."""
        found = Counter(PurePosixPath(one.file).suffix.lower() for one in self.samples)
        if not 1 < len(found) <= SHOWN_ENDINGS:
            return None
        return ", ".join(f"{count} of {one or 'none'}" for one, count in found.most_common())

    def __len__(self) -> int:
        return len(self.samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def one_spelling(name: str) -> str:
    """Return a name with accents as one sign each: systems differ in how they write them."""
    return unicodedata.normalize("NFC", name)


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts frame 2 before frame 10."""
    parts = [part.lstrip("0") if part.isdecimal() else part for part in re.split("([0-9]+)", name)]
    return [(part.isdecimal(), len(part) if part.isdecimal() else 0, part) for part in parts]


def class_indices(
    samples: Sequence[Sample], *, labels: Sequence[str] | None, classes: int, path: Place
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
    names: Sequence[str], *, labels: Sequence[str] | None, classes: int, path: Place
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


def _index(name: str, *, classes: int, path: Place) -> int:
    """Return the class that a number names."""
    number = float(name)
    if not number.is_integer() or number < 0:
        why = "-1 often stands for no label" if number < 0 else "a class is a whole number"
        raise DataError(f"data {path}: label {name} is no class, counted from 0: {why}")
    if number >= classes:
        raise DataError(
            f"data {path}: label {name}, but the model has {classes} classes, counted from 0"
        )
    return int(number)


def _named_indices(names: Sequence[str], labels: Sequence[str], *, path: Place) -> dict[str, int]:
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
