"""Which pictures something was fitted or calibrated on, as short hashes: none can be made of them.

The hashes are of the files' content, 64 bits each. They tell whether the very same file comes
again, and nothing of what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 20_000
"""Of more files, the hashes that are least are kept: as good as a draw, the same one each time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Files that were seen.

    Attributes:
        hashes: ``(k,)`` uint64, rising, each once.
        whole: whether these are all; else all that are not above the last.
    """

    hashes: NDArray[np.uint64]
    whole: bool = True

    @classmethod
    def of(cls, content: NDArray[np.uint64], *, most: int = MOST) -> Seen:
        """Keep the hashes of some files; 0 stands for none."""
        hashes = np.unique(content[content != 0]).astype(np.uint64)
        return cls(hashes[:most], len(hashes) <= most)

    def places(self, content: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the positions of files that are among them."""
        return np.flatnonzero(np.isin(content, self.hashes)).astype(np.int64)

    def count(self, content: NDArray[np.uint64]) -> int:
        """Return how many of some files are among them, estimated where not all were kept."""
        found = len(self.places(content))
        if self.whole or not len(self.hashes):
            return found
        comparable = int((content <= self.hashes[-1]).sum())
        return round(found * len(content) / comparable) if comparable else 0

    def to_text(self) -> list[str]:
        """Return the hashes as hexadecimal text."""
        return [f"{int(one):016x}" for one in self.hashes]


def seen_from_text(texts: Iterable[str]) -> Seen:
    """Read what `Seen.to_text` wrote.

    Raises:
        ValueError: a text is no hash.
    """
    return Seen.of(np.array([int(text, 16) for text in texts], np.uint64))
