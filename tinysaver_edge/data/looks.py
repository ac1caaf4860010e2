"""What pictures look like, in small, and which were seen: enough to find copies and neighbours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write, read_arrays
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.data.animation import MORE_FRAMES, has_more_frames
from tinysaver_edge.data.images import Depth, dark_depth, decode_small
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

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


SIDE = 16
"""Width and height of the small pictures."""

DRAWN = 20_000
"""Of more pictures, so many are drawn, to be kept in small and compared."""

_SPARE = DRAWN // 20  # in place of those that cannot be read
_SEED = 0x5EED

_KEPT = Path("images") / "looks.npz"


@dataclass(frozen=True, slots=True)
class Looks:
    """Every picture of a data source in small, in its order.

    Attributes:
        content: ``(n,)`` uint64, of a hash of the file; 0 for what cannot be read.
        small: ``(n, 16, 16, 3)`` uint8, the pictures in small; of very many those that are drawn.
        dark_bits: ``(n,)`` int64, bits in use of a 16-bit picture that leaves its upper ones empty;
            0 for all others.
        drawn: positions of those kept in small, in the order of the draw; None for all.
        several: ``(n,)`` bool, files that hold more than one picture; None where nobody looked.
    """

    content: NDArray[np.uint64]
    small: NDArray[np.uint8]
    dark_bits: NDArray[np.int64]
    drawn: NDArray[np.int64] | None = None
    several: NDArray[np.bool_] | None = None

    def compared(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the positions of the pictures to compare, rising, and these in small."""
        drawn = self.drawn
        if drawn is None:
            drawn = np.arange(len(self.content))
            if len(drawn) > DRAWN:
                drawn = np.random.default_rng(_SEED).permutation(drawn[self.readable])
        rows = np.flatnonzero(self.readable[drawn])[:DRAWN]
        rows = rows[np.argsort(drawn[rows])]
        return drawn[rows], self.small[drawn[rows] if self.drawn is None else rows]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """``(n,)`` which pictures can be read."""
        return np.asarray(self.content != 0)

    @property
    def depth_line(self) -> str | None:
        """What becomes of pictures that leave their upper bits empty; None where there are none."""
        dark = self.dark_bits[self.dark_bits > 0]
        if not len(dark):
            return None
        return f"{len(dark)} of {len(self.content)} images have {Depth(16, int(dark.max())).text}"

    @property
    def lines(self) -> tuple[str, ...]:
        """What models do not see of the files, a line for each reason."""
        found = [] if self.depth_line is None else [self.depth_line]
        if self.several is not None and (several := int(self.several.sum())):
            found.append(f"{several} of {len(self.content)} files are {MORE_FRAMES}")
        return tuple(found)


def read_looks(
    data: DataSource,
    *,
    folder: Path | None = None,
    fingerprint: str = "",
    progress: Progress = SILENT,
    do: Looking | None = None,
) -> Looks:
    """Look at every picture once, or take what was kept of it.

    Args:
        data: the pictures.
        folder: where what was seen is kept for the next time; None keeps nothing.
        fingerprint: of the data.
        progress: hears of each picture.
        do: does the looking; here, where nothing is said.
    """
    kept = None if folder is None else _kept(folder / _KEPT, fingerprint)
    if kept is not None and len(kept.content) == len(data):
        return kept
    looks = _look(data, progress, do or look_here)
    if folder is not None:
        (folder / _KEPT).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / _KEPT) as file:
            np.savez(
                file,
                content=looks.content,
                small=looks.small,
                dark_bits=looks.dark_bits,
                drawn=np.zeros(0, np.int64) if looks.drawn is None else looks.drawn,
                several=looks.several if looks.several is not None else np.zeros(0, bool),
                fingerprint=np.array(fingerprint),
            )
    return looks


CHUNK = 256
"""Pictures that are looked at by one worker at a time."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Some pictures in small: what `Looks` keeps of them.

    Attributes:
        start: the first one's position; they follow each other.
        content: as of `Looks`.
        small: of those that are drawn.
        dark_bits: as of `Looks`.
        several: likewise.
    """

    start: int
    content: NDArray[np.uint64]
    small: NDArray[np.uint8]
    dark_bits: NDArray[np.int64]
    several: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LookJob:
    """All pictures of a data source, to be looked at some at a time; can be pickled.

    Attributes:
        data: the pictures.
        chunk: how many at a time.
    """

    data: DataSource
    chunk: int = CHUNK
    what: ClassVar[str] = "looking at the images"
    files: ClassVar[tuple[Path, ...]] = ()
    engine: ClassVar[str | None] = None
    device: ClassVar[str | None] = None
    quantised: ClassVar[bool] = False

    def size_of(self, start: int) -> int:
        """Return how many pictures the chunk has that begins there."""
        return min(self.chunk, len(self.data) - start)

    def __call__(self, starts: Sequence[int], progress: Progress) -> Iterator[Looked]:
        """Look at the chunks that begin at some positions, in their order."""
        return self.begun((), os.cpu_count() or 1)(starts, progress)

    def begun(
        self, files: tuple[Path, ...], threads: int
    ) -> Callable[[Sequence[int], Progress], Iterator[Looked]]:
        """Return what does so with so many threads."""
        rows, _ = _rows(len(self.data))

        def looked(starts: Sequence[int], progress: Progress) -> Iterator[Looked]:
            with ThreadPoolExecutor(threads, thread_name_prefix="look") as pool:
                for start in starts:
                    places = range(start, start + self.size_of(start))
                    seen = []
                    for one in pool.map(lambda place: _seen(self.data, place), places):
                        seen.append(one)
                        progress.advance(1)
                    content, small, bits, several = zip(*seen, strict=True)
                    drawn = rows[start : start + len(places)] >= 0
                    yield Looked(
                        start,
                        np.array(content, np.uint64),
                        np.array(small, np.uint8)[drawn],
                        np.array(bits, np.int64),
                        np.array(several, bool),
                    )

        return looked


Looking = Callable[[LookJob, Sequence[int], Progress, Callable[[Looked], None]], None]
"""Does some chunks of the job, in any order, and hands over each once."""


def look_here(
    job: LookJob, starts: Sequence[int], progress: Progress, keep: Callable[[Looked], None]
) -> None:
    """Look in this process."""
    for looked in job(starts, progress):
        keep(looked)


def _rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return where each picture is kept in small, -1 for nowhere, and which are drawn for it."""
    if count <= DRAWN + _SPARE:
        return np.arange(count), None
    drawn = np.random.default_rng(_SEED).permutation(count)[: DRAWN + _SPARE]
    rows = np.full(count, -1)
    rows[drawn] = np.arange(len(drawn))
    return rows, drawn


def _look(data: DataSource, progress: Progress, do: Looking) -> Looks:
    count = len(data)
    rows, drawn = _rows(count)
    several = np.zeros(count, bool)
    looks = Looks(
        np.zeros(count, np.uint64),
        np.zeros((count if drawn is None else len(drawn), SIDE, SIDE, 3), np.uint8),
        np.zeros(count, np.int64),
        drawn,
        several,
    )

    def keep(one: Looked) -> None:
        part = slice(one.start, one.start + len(one.content))
        looks.content[part], looks.dark_bits[part] = one.content, one.dark_bits
        several[part] = one.several
        looks.small[rows[part][rows[part] >= 0]] = one.small

    job = LookJob(data)
    progress.start(job.what, total=count)
    try:
        do(job, range(0, count, job.chunk), progress, keep)
    finally:
        progress.finish()
    return looks


_NONE = np.zeros((SIDE, SIDE, 3), np.uint8)


def _seen(data: DataSource, index: int) -> tuple[int, NDArray[np.uint8], int, bool]:
    """Return a picture's hash, itself in small, its bits in use where it goes dark, if several."""
    content, frame, bits, several = _one(data, index)
    if frame is None:
        return 0, _NONE, 0, several
    cv2 = opencv("Comparing images")
    return content, cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA), bits, several


def _one(data: DataSource, index: int) -> tuple[int, Frame | None, int, bool]:
    """Return a picture's hash, itself, its bits in use where it goes dark, whether it has more."""
    try:
        file = data.read(index)
    except OSError:
        return 0, None, 0, False
    except (DataError, NotImplementedError):  # no file: whatever makes the pictures gives this one
        frame = data.frame(index)
        return (0 if frame is None else content_hash(frame.tobytes())), frame, 0, False
    depth = dark_depth(file)
    used = 0 if depth is None else depth.used
    return content_hash(file), decode_small(file), used, has_more_frames(file)


def content_hash(content: bytes) -> int:
    """Return 64 bits of a hash of a file's content; never 0."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") or 1


def _kept(path: Path, fingerprint: str) -> Looks | None:
    try:
        tables: dict[str, NDArray[Any]] = read_arrays(path)
        if str(tables["fingerprint"]) != fingerprint:
            return None
        drawn = tables["drawn"] if len(tables["drawn"]) else None
        several = tables["several"]
        return Looks(tables["content"], tables["small"], tables["dark_bits"], drawn, several)
    except (OSError, ValueError, KeyError):
        return None
