"""What pictures look like, in small, and which were seen: enough to find copies and neighbours.

Of a file of more than one picture (an animation, pages) models see the first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write, read_arrays
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.data.images import Depth, dark_depth, decode_small, unframed
from tinysaver_edge.data.source import DataSource, by_number
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

MORE_FRAMES = "of more than one picture (animations, pages): the first is taken, the others are not"
"""What becomes of them, to follow how many there are."""


def has_more_frames(data: bytes) -> bool:
    """Tell whether an image file holds more than one picture, by its headers alone.

    Known are GIF, PNG (APNG), WebP, AVIF and HEIF sequences, and TIFF; sources: the formats'
    specifications. A file that is cut short is taken at what can still be read of it.
    """
    if data.startswith(b"GIF8"):
        return _gif_pictures(data) > 1
    if data.startswith(b"\x89PNG"):
        return _png_frames(data) > 1
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return bool(data[20] & 0x02) if len(data) > 20 else False
    if data[4:8] == b"ftyp":
        return data[8:12] in (b"avis", b"hevc", b"msf1")
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_goes_on(data)
    return False


def _gif_pictures(data: bytes) -> int:
    """Count up to two pictures: blocks of a first byte, the last part of each of no length."""
    place, found = 13 + _colours(data[10] if len(data) > 10 else 0), 0
    while place < len(data) and found < 2:
        kind = data[place]
        if kind == 0x2C and place + 9 < len(data):
            found += 1
            place += 10 + _colours(data[place + 9]) + 1
        elif kind == 0x21:
            place += 2
        else:
            break
        while place < len(data) and data[place]:
            place += data[place] + 1
        place += 1
    return found


def _colours(flags: int) -> int:
    """Return how many bytes a table of colours takes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png_frames(data: bytes) -> int:
    """Return what the chunk acTL says, which comes before the first picture."""
    place = 8
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"acTL":
            return int.from_bytes(data[place + 8 : place + 12], "big")
        if kind == b"IDAT":
            break
        place += 12 + length
    return 1


def _tiff_goes_on(data: bytes) -> bool:
    """Tell whether another page of the full size follows the first: small ones are previews."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    place = int.from_bytes(data[4:8], order)
    after = place + 2 + 12 * int.from_bytes(data[place : place + 2], order)
    following = int.from_bytes(data[after : after + 4], order)
    return 8 <= following < len(data) and not _is_preview(data, following, order)


def _is_preview(data: bytes, place: int, order: Literal["little", "big"]) -> bool:
    """Tell whether a page is a smaller version of another, by bit 0 of the tag NewSubfileType."""
    for entry in range(min(int.from_bytes(data[place : place + 2], order), 64)):
        at = place + 2 + 12 * entry
        if int.from_bytes(data[at : at + 2], order) == 254:
            return bool(int.from_bytes(data[at + 8 : at + 12], order) & 1)
    return False


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


SIDE = 32
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
        small: ``(n, 32, 32, 3)`` uint8, the pictures in small; of very many those that are drawn.
        dark_bits: ``(n,)`` int64, bits in use of a 16-bit picture that leaves its upper ones empty;
            0 for all others.
        drawn: positions of those kept in small, in the order of the draw; None for all.
        several: ``(n,)`` bool, files that hold more than one picture; None where nobody looked.
        taken: ``(n,)`` int64, rises with when they were taken, as their files say; 0 where they do
            not; None where nobody looked.
    """

    content: NDArray[np.uint64]
    small: NDArray[np.uint8]
    dark_bits: NDArray[np.int64]
    drawn: NDArray[np.int64] | None = None
    several: NDArray[np.bool_] | None = None
    taken: NDArray[np.int64] | None = None

    def orders(self, kept: NDArray[np.int64], names: Sequence[str]) -> Iterator[NDArray[np.int64]]:
        """Yield pictures in the orders that they may have been taken in.

        That of their names, numbers in these counting as numbers; of the last number in each, where
        the names begin with something drawn; of the source; and of the times in the files.

        Args:
            kept: positions of the pictures.
            names: of all files.

        Yields:
            Places among the kept ones.
        """
        named = [by_number(names[int(place)]) for place in kept]
        last = [next((one for one in reversed(key) if one[0]), (False, 0, "")) for key in named]
        for keys in (named, last):
            yield np.array(sorted(range(len(kept)), key=keys.__getitem__), np.int64)
        yield np.arange(len(kept))
        if self.taken is not None:
            timed = np.flatnonzero(self.taken[kept])
            yield timed[np.argsort(self.taken[kept][timed], kind="stable")]

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
    kept = None if folder is None else kept_looks(folder, fingerprint)
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
                taken=looks.taken if looks.taken is not None else np.zeros(0, np.int64),
                fingerprint=np.array(fingerprint),
            )
    return looks


CHUNK = 256
"""Pictures that are looked at by one worker at a time."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Some pictures in small, from ``start`` on: what `Looks` keeps of them.

    Attributes:
        small: of those that are drawn; all else of each.
    """

    start: int
    content: NDArray[np.uint64]
    small: NDArray[np.uint8]
    dark_bits: NDArray[np.int64]
    several: NDArray[np.bool_]
    taken: NDArray[np.int64]


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
                    content, small, bits, several, taken = zip(*seen, strict=True)
                    drawn = rows[start : start + len(places)] >= 0
                    yield Looked(
                        start,
                        np.array(content, np.uint64),
                        np.array(small, np.uint8)[drawn],
                        np.array(bits, np.int64),
                        np.array(several, bool),
                        np.array(taken, np.int64),
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
    several, taken = np.zeros(count, bool), np.zeros(count, np.int64)
    looks = Looks(
        np.zeros(count, np.uint64),
        np.zeros((count if drawn is None else len(drawn), SIDE, SIDE, 3), np.uint8),
        np.zeros(count, np.int64),
        drawn,
        several,
        taken,
    )

    def keep(one: Looked) -> None:
        part = slice(one.start, one.start + len(one.content))
        looks.content[part], looks.dark_bits[part] = one.content, one.dark_bits
        several[part], taken[part] = one.several, one.taken
        looks.small[rows[part][rows[part] >= 0]] = one.small

    job = LookJob(data)
    progress.start(job.what, total=count)
    try:
        do(job, range(0, count, job.chunk), progress, keep)
    finally:
        progress.finish()
    return looks


_NONE = np.zeros((SIDE, SIDE, 3), np.uint8)


def _seen(data: DataSource, index: int) -> tuple[int, NDArray[np.uint8], int, bool, int]:
    """Return the same of a picture as `_one`, itself in small."""
    content, frame, bits, several, taken = _one(data, index)
    if frame is None:
        return 0, _NONE, 0, several, taken
    cv2 = opencv("Comparing images")
    small = cv2.resize(unframed(frame), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return content, small, bits, several, taken


def _one(data: DataSource, index: int) -> tuple[int, Frame | None, int, bool, int]:
    """Return a picture's hash, itself, its bits in use where it goes dark, more of it, its time."""
    try:
        file = data.read(index)
    except OSError:
        return 0, None, 0, False, 0
    except (DataError, NotImplementedError):  # no file: whatever makes the pictures gives this one
        frame = data.frame(index)
        content = 0 if frame is None else content_hash(frame.tobytes())
        return content, frame, 0, False, 0
    depth = dark_depth(file)
    used = 0 if depth is None else depth.used
    return content_hash(file), decode_small(file), used, has_more_frames(file), _taken(file)


_HEAD = 1 << 16  # bytes at a file's beginning that cameras write times into
_TIME = re.compile(
    rb"[12]\d{3}[:-](?:0\d|1[0-2])[:-][0-3]\d[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
)


def _taken(file: bytes) -> int:
    """Return the first of the times in a file's head as a number; 0 where there is none.

    A camera writes when it took the picture (Exif's DateTimeOriginal, XMP); whatever changes it
    later adds a later time.
    """
    times = [
        re.sub(rb"[^0-9]", b"", one).ljust(18, b"0")[:18] for one in _TIME.findall(file[:_HEAD])
    ]
    return min(map(int, times), default=0)


def content_hash(content: bytes) -> int:
    """Return 64 bits of a hash of a file's content; never 0."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") or 1


def kept_looks(folder: Path, fingerprint: str) -> Looks | None:
    """Return what was kept in a folder of some images; None where nothing was, or of others.

    Args:
        folder: as for `read_looks`.
        fingerprint: of the images.
    """
    try:
        tables: dict[str, NDArray[Any]] = read_arrays(folder / _KEPT)
        if str(tables["fingerprint"]) != fingerprint:
            return None
        drawn = tables["drawn"] if len(tables["drawn"]) else None
        several, small = tables["several"], tables["small"]
        if small.shape[1:3] != (SIDE, SIDE):  # of an earlier release
            return None
        taken = tables["taken"] if len(tables["taken"]) else None
        return Looks(tables["content"], small, tables["dark_bits"], drawn, several, taken)
    except (OSError, ValueError, KeyError):
        return None
