"""Image files: how one is decoded, which count as images, and what is left out of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from tinysaver_edge._support.limits import MOST_PIXELS
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.codec import jpeg_size
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame

IMAGE_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".webp"),
        *(".gif", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
    }
)
"""Endings of the files that count as images: what OpenCV reads; builds without one say unreadable.
"""

_SYSTEMS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information")
HOUSEKEEPING = frozenset((*_SYSTEMS, "lost+found", "__pycache__", "thumbs.db", "desktop.ini"))
"""Files and folders that systems put beside images of their own accord, in lower case."""

NOTES = frozenset(
    {
        *(".txt", ".md", ".rst", ".pdf", ".html", ".csv", ".tsv", ".json", ".jsonl", ".xml"),
        *(".yaml", ".yml", ".toml", ".ini", ".log", ".db", ".npy", ".npz", ".py", ".ipynb"),
        *(".md5", ".sha256", ".onnx", ".tflite", ".url", ".license", ".names", ".labels"),
    }
)
"""Endings of files that lie beside images and are none."""

NAMED = 3
"""So many files of a kind are named."""


def decode_image(data: bytes) -> Frame | None:
    """Decode an image file as OpenCV does, turned upright; None when it is damaged.

    A JPEG or PNG whose end is missing counts as damaged, although decoders fill in the rest; and so
    does one of too many pixels. `why_unreadable` says which.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    return _decoded(data, opencv("Decoding images").IMREAD_COLOR)


def decode_small(data: bytes) -> Frame | None:
    """Decode an image file to look at it in small: of large files every few pixels are enough.

    Returns:
        As `decode_image`, of an eighth of the width and height or more.
    """
    cv2 = opencv("Decoding images")
    if not data.startswith(b"\xff\xd8") or len(data) <= 200_000:  # what others gain is little
        return _decoded(data, cv2.IMREAD_COLOR)
    small = len(data) < 2_000_000
    return _decoded(data, cv2.IMREAD_REDUCED_COLOR_4 if small else cv2.IMREAD_REDUCED_COLOR_8)


def _decoded(data: bytes, how: int) -> Frame | None:
    cv2 = opencv("Decoding images")
    if _is_truncated(data) or _is_too_large(data):
        return None
    try:
        frame: Frame | None = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None
    return frame


def why_unreadable(data: bytes) -> str:
    """Say why `decode_image` gives nothing, to follow a file's name."""
    if not data:
        return "is empty"
    if _is_too_large(data):
        height, width = told_size(data) or (0, 0)
        most = MOST_PIXELS // 1_000_000
        return f"has {width} x {height} pixels; at most {most} million are decoded: make it smaller"
    if _is_truncated(data):
        return "not a readable image (its end is missing)"
    return "not a readable image"


def told_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as a file's header tells them; None where it is of no kind known here.

    Nothing is decoded: a few bytes may stand for gigabytes of pixels.
    """
    if data.startswith(b"\xff\xd8"):
        return jpeg_size(data)
    if data.startswith(b"BM") and data[14:18] == b"\x0c\0\0\0":  # OS/2's: two bytes each
        return int.from_bytes(data[20:22], "little"), int.from_bytes(data[18:20], "little")
    for start, place, width, order in _PLACES:
        if data.startswith(start) and len(data) >= place + 2 * width:
            across, down = (
                # Of a bitmap that begins at its top the height is negative.
                abs(int.from_bytes(data[at : at + width], order, signed=width == 4))
                for at in (place, place + width)
            )
            return down, across
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    if (bitmap := _NETPBM.match(data[:_HEAD])) is not None:
        across, down = (int(one) for one in bitmap.groups() if one is not None)
        return down, across
    if (place := data.find(b"\xff\x4f\xff\x51", 0, _HEAD)) >= 0:  # JPEG 2000, in a box or not
        across, down = _pair(data, place + 8, 4)
        return down, across
    if (place := data.find(b"ihdr", 0, _HEAD)) >= 0:
        return _pair(data, place + 4, 4)
    if sizes := [_pair(data, found.end() + 4, 4) for found in re.finditer(b"ispe", data[:_HEAD])]:
        across, down = max(sizes)  # AVIF has one for each of its pictures; across comes first
        return down, across
    return _tiff_size(data)


_HEAD = 4096
_NETPBM = re.compile(
    rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s"
    rb"|P7\s(?:[^\n]*\n)*?WIDTH (\d{1,9})\n(?:[^\n]*\n)*?HEIGHT (\d{1,9})\n"
)
_PLACES: tuple[tuple[bytes, int, int, Literal["little", "big"]], ...] = (
    (b"\x89PNG", 16, 4, "big"),
    (b"GIF8", 6, 2, "little"),
    (b"BM", 18, 4, "little"),
)
"""How a file begins, where its width and height stand, of how many bytes, in which order."""


def _pair(data: bytes, place: int, width: int) -> tuple[int, int]:
    one, other = (data[at : at + width] for at in (place, place + width))
    return int.from_bytes(one, "big"), int.from_bytes(other, "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        across, down = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        across, down = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        across, down = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return None
    return down, across


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Read the first picture's tags; numbers of a BigTIFF's are twice as long."""
    order = _TIFF.get(data[:2])
    big = data[2:4] in (b"+\0", b"\0+")
    if order is None or (not big and data[2:4] not in (b"*\0", b"\0*")):
        return None

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], order)

    place, counted, entry, value = (number(8, 8), 8, 20, 12) if big else (number(4, 4), 2, 12, 8)
    found = {}
    for one in range(min(number(place, counted), 64)):
        at = place + counted + entry * one
        width = {3: 2, 16: 8}.get(number(at + 2, 2), 4)
        found[number(at, 2)] = number(at + value, width)
    return (found[257], found[256]) if {256, 257} <= found.keys() else None


_TIFF: Mapping[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}


def _is_too_large(data: bytes) -> bool:
    size = told_size(data)
    return size is not None and size[0] * size[1] > MOST_PIXELS


@dataclass(frozen=True, slots=True)
class Depth:
    """What a picture of more than 8 bits a channel holds. `decode_image` keeps the upper 8."""

    bits: int
    used: int

    @property
    def text(self) -> str:
        """What becomes of such a picture, for people."""
        brightest = 255 >> (self.bits - self.used)
        return (
            f"{self.bits} bits a channel, of which {self.used} are used: models see the upper 8, "
            f"at most {brightest} of 255; spread such pictures over 8 bits before they come here"
        )


def dark_depth(data: bytes) -> Depth | None:
    """Say what a picture of 16 bits holds, where the upper 8 are not what it is about.

    Sensors of 10, 12 or 14 bits (X-ray, thermal) write files of 16 and leave the upper ones empty.

    Returns:
        None for all other pictures.
    """
    if not _may_be_deep(data) or _is_too_large(data):
        return None
    cv2 = opencv("Decoding images")
    try:
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if whole is None or whole.dtype != np.uint16:
        return None
    pixels = whole[..., :3] if whole.ndim == 3 else whole  # a fourth channel is opacity
    used = int(pixels.max()).bit_length()
    return Depth(16, used) if used <= 14 else None


def _may_be_deep(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return data[24:25] == b"\x10"
    if data[:2] in (b"P5", b"P6"):
        header = re.match(rb"P[56](?:\s+|#[^\n]*\n)*\d+(?:\s+|#[^\n]*\n)+\d+\s+(\d+)", data[:512])
        return header is not None and int(header[1]) > 255
    return data.startswith((b"II*\0", b"MM\0*", b"P7", b"\0\0\0\x0cjP", b"\xffO\xffQ"))


def _is_truncated(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _jpeg_scan_start(data)) < 0
    if data.startswith(b"\x89PNG"):
        return not _png_is_whole(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return not data


def _png_is_whole(data: bytes) -> bool:
    """Whether a PNG's last chunk is there; tools write what they like behind it."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return end <= len(data)
        place = end
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Return where a JPEG's own picture begins, past any thumbnail in its headers."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files below a data source that are not among its samples.

    Attributes:
        unknown: names of files whose ending is of no image that can be read.
        unreachable: names of links that lead nowhere or in a circle, of pipes and devices, of
            folders that may not be read, and of members that an archive holds twice.
        hidden: how many hidden files and files of the system's own there are.
        empty: class folders without any image, with all that they do hold left out.
    """

    unknown: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    hidden: int = 0
    empty: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many files may have been images."""
        return len(self.unknown) + len(self.unreachable)

    @property
    def lines(self) -> list[str]:
        """What was left out, a line each cause, for people."""
        found = []
        if self.unknown:
            endings = Counter(PurePosixPath(name).suffix.lower() or "none" for name in self.unknown)
            kinds = ", ".join(f"{count} × {suffix}" for suffix, count in endings.most_common(5))
            found.append(
                f"{_files(len(self.unknown))} left out, their ending is of no image that is read "
                f"({kinds}): {_some(self.unknown)}"
            )
        if self.unreachable:
            found.append(
                f"{_files(len(self.unreachable))} left out, a link that leads nowhere or in a "
                f"circle, a pipe or device, a folder that may not be read, or a name that is there "
                f"twice: "
                f"{_some(self.unreachable)}"
            )
        if self.empty:
            found.append(f"no image of class {', '.join(self.empty)}")
        if self.hidden and found:
            found.append(f"{_files(self.hidden)} left out, hidden or the system's own")
        return found


NOTHING = LeftOut()


def check_left_out(left_out: LeftOut, *, kept: int, limit: float, path: Path | str) -> list[str]:
    """Refuse data of which more is left out than the user allows.

    Args:
        left_out: what is left out.
        kept: how many images there are.
        limit: share of the files that may be left out, 0..1.
        path: of the data, for the message.

    Returns:
        Lines for the user, where it is allowed.

    Raises:
        DataError: it is more, or a whole class is left out.
    """
    lines = left_out.lines
    whole = f"data {path}: {'; '.join(lines)}"
    if left_out.empty and limit < 1:
        raise DataError(f"{whole}; convert or remove what is there, or say --skip-limit 1")
    if left_out.count > limit * (kept + left_out.count):
        raise DataError(
            f"{whole}; more than the {100 * limit:g} % that may be left out: convert or remove "
            f"them, or raise --skip-limit"
        )
    return lines


def printable(name: str) -> str:
    """Return a file's name as text that can be written anywhere, terminals included.

    Names that are no UTF-8 come from the system with halves of surrogate pairs in them, and a name
    may hold whatever steers a terminal.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its way, is hidden or the system's own."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.lower() in HOUSEKEEPING for part in parts)


def is_image(name: str) -> bool:
    """Whether a file counts as an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)


def image_files(folder: Path) -> list[Path]:
    """Return every image below a folder, in the order of their names; links are followed.

    Links that lead nowhere are among them, so that whoever reads them tells of it.
    """
    names, lost = walk(folder)
    found = (folder / name for name in (*names, *lost) if is_image(name))
    return sorted(file for file in found if not file.is_dir())


def left_out_below(folder: Path) -> LeftOut:
    """Return which files below a folder are no images."""
    return left_out_of(*walk(folder), shared=0, classes=None)


def walk(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below a folder, and what could not be reached.

    Links are followed, but into no folder that they lie in.

    Returns:
        Names relative to the folder, with forward slashes, in no order.
    """
    names: list[str] = []
    lost: list[str] = []
    for path, reachable in _walk(folder):
        (names if reachable else lost).append(path.relative_to(folder).as_posix())
    return names, lost


def _walk(top: Path) -> Iterator[tuple[Path, bool]]:
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while waiting:  # folders may lie deeper in each other than calls may
        folder, above = waiting.pop()
        try:
            state = folder.stat()
            here = (state.st_dev, state.st_ino)
            if here in above:
                yield folder, False
                continue
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            yield folder, False
            continue
        for entry in found:
            path = folder / entry.name
            try:
                if entry.is_dir():
                    waiting.append((path, above | {here}))
                else:
                    yield path, entry.is_file()
            except OSError:
                yield path, False


def left_out_of(
    names: Iterable[str], unreachable: Iterable[str], *, shared: int, classes: Iterable[str] | None
) -> LeftOut:
    """Sort what is no sample by why.

    Args:
        names: all files.
        unreachable: what could not be reached.
        shared: how many folders all images have in common above their class folders.
        classes: the classes that have images; None where there are no class folders.
    """
    unknown: list[str] = []
    hidden = 0
    for name in sorted(names):
        if is_image(name):
            continue
        if is_hidden(name):
            hidden += 1
        elif PurePosixPath(name).suffix.lower() not in NOTES:
            unknown.append(name)
    lost = tuple(sorted(printable(name) for name in unreachable if not is_hidden(name)))
    empty: tuple[str, ...] = ()
    if classes is not None:
        known = set(classes)
        # A README beside the class folders, whatever its ending, is no image that is missed.
        unknown = [name for name in unknown if len(PurePosixPath(name).parts) > shared + 1]
        others = {printable(PurePosixPath(name).parts[shared]) for name in unknown}
        empty = tuple(sorted(others - known))
    return LeftOut(tuple(printable(name) for name in unknown), lost, hidden, empty)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


FRAME_GREY, FRAME_SIDE = 12, 128
"""A frame's pixels differ by at most so many levels; it is looked for at so many pixels a side."""

FRAMED = 0.75
"""Share of the first line inside a frame that has another colour; a thing on a ground has less."""


def unframed(picture: Frame) -> Frame:
    """Return a picture without borders of one colour, where a straight edge sets them off.

    What would be more than half of a side is none.

    Args:
        picture: ``(height, width, 3)`` or ``(height, width)`` uint8.
    """
    height, width = picture.shape[:2]
    size = min(width, FRAME_SIDE), min(height, FRAME_SIDE)
    small = picture
    if size != (width, height):
        cv2 = opencv("Comparing images")
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    small = small.reshape(size[1], size[0], -1).astype(np.int16)
    edges = [0, size[1], 0, size[0]]
    for corner in (small[0, 0], small[-1, -1]):
        inside = np.abs(small - corner).max(axis=2) > FRAME_GREY
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows) or min(rows[-1] - rows[0], columns[-1] - columns[0]) < 4:
            continue
        top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
        part = inside[top : bottom + 1, left : right + 1]  # its outermost line may be mixed
        lines = part[1], part[-2], part[:, 1], part[:, -2]
        found = (top + 1, bottom, left + 1, right)
        framed = (top > 0, bottom < size[1] - 1, left > 0, right < size[0] - 1)
        for side, (line, place, there) in enumerate(zip(lines, found, framed, strict=True)):
            if there and line.mean() >= FRAMED:
                edges[side] = (min if side % 2 else max)(edges[side], int(place))
    down, across = height / size[1], width / size[0]
    top, bottom = round(edges[0] * down), round(edges[1] * down)
    left, right = round(edges[2] * across), round(edges[3] * across)
    whole = 2 * (bottom - top) >= height and 2 * (right - left) >= width
    return picture[top:bottom, left:right] if whole else picture
