"""The contract of a data source: labelled images in a fixed order."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.found import NOTHING, LeftOut
from tinysaver_edge.data.images import decode_image
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


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
    """

    independent = False

    def __init__(
        self, path: Path, samples: Sequence[Sample], *, left_out: LeftOut = NOTHING
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
        """Return the bytes of one image file.

        Raises:
            OSError: it cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - folders have nothing open
        """Close what is open. Legal in every state."""

    def frame(self, index: int) -> Frame | None:
        """Return one image decoded, or None when it cannot be read or is damaged."""
        try:
            return decode_image(self.read(index))
        except (OSError, ValueError):
            return None

    def fingerprint(self) -> str:
        """Return a hash of the files' names and state: it changes when the images do.

        Labels are left out: what a model answers does not depend on them.
        """
        digest = hashlib.sha256()
        for index, sample in enumerate(self.samples):
            line = f"{sample.file}\0{self._state(index)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    @abstractmethod
    def _state(self, index: int) -> str:
        """Return what changes when the file's content does, without reading it."""

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """Each sample's group, or None when the source names none."""
        if all(sample.group is None for sample in self.samples):
            return None
        return np.array([sample.group or "" for sample in self.samples])

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
