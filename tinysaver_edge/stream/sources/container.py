"""What a video file says of itself: how many frames are to be shown, and why none can be.

OpenCV says of an empty file, a web page, a recording that was cut off and a codec it lacks only
that it cannot open them, and counts the frames that an edit list cuts away.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import open_regular

_HEAD_BYTES = 1 << 16
_MOST_BOXES = 4096
_MOST_TABLE_BYTES = 64 << 20
_MOST_SAMPLES = 1 << 24
"""Of a video's table of frames: a week of them at 25 a second."""

_CODECS = {
    b"av01": "AV1",
    b"vp09": "VP9",
    b"vp08": "VP8",
    b"hvc1": "H.265",
    b"hev1": "H.265",
    b"avc1": "H.264",
    b"avc3": "H.264",
    b"vvc1": "H.266",
    b"apch": "ProRes",
}
_MATROSKA = {
    b"V_AV1": "AV1",
    b"V_VP9": "VP9",
    b"V_VP8": "VP8",
    b"V_MPEGH/ISO/HEVC": "H.265",
    b"V_MPEG4/ISO/AVC": "H.264",
}


class _Box(NamedTuple):
    """A part of an MP4: its kind, and where its content lies."""

    kind: bytes
    start: int
    end: int


class _Damaged(Exception):  # noqa: N818 - no error of anybody's
    """The file is not what its boxes say."""


def shown_frames(path: Path) -> int | None:
    """Return how many frames of an MP4's video its edit list shows; None where it has none.

    Phones and ``ffmpeg -ss … -c copy`` trim a video by its edit list: the frames before and after
    are in the file, are counted by it, and are not to be shown.
    """
    try:
        with open_regular(path) as file:
            movie = _child(file, _whole(file), b"moov")
            track = None if movie is None else _video_track(file, movie)
            return None if movie is None or track is None else _shown(file, movie, track)
    except (OSError, struct.error, _Damaged):
        return None


def why_no_video(path: Path) -> str:
    """Say why nothing in a file could be shown, as far as the file tells."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
            if not head:
                return "the file is empty"
            if head.startswith(b"version https://git-lfs"):
                return "a Git LFS pointer, not the video: run 'git lfs pull'"
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _why_no_mp4(file)
    except (OSError, struct.error, _Damaged) as error:
        return f"not a readable image or video ({error or 'damaged'})"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _why_no_matroska(head)
    if head.startswith(b"RIFF") and _ends_early(head, path):
        return "the file ends early: copy it again, or repair it (ffmpeg -i … -c copy …)"
    if _is_text(head):
        web = b"<html" in head.lower() or b"<!doctype" in head.lower()
        return f"no video but {'a web page' if web else 'text'}: fetch the file itself"
    return "not a readable image or video"


def _why_no_mp4(file: BinaryIO) -> str:
    whole = _whole(file)
    movie = _child(file, whole, b"moov")
    if movie is None:
        return (
            "the file ends early, its index (moov) is missing: was the recording cut off? Copy it "
            "again, or repair it with a tool such as untrunc"
        )
    track = _video_track(file, movie)
    if track is None:
        return "holds no video track, only sound or other data"
    kind = _codec(file, track)
    data = [box for box in _boxes(file, whole) if box.kind == b"mdat"]
    if data and data[-1].end > whole.end:
        return "the file ends early: copy it again"
    name = _CODECS.get(kind, kind.decode("ascii", "replace").strip())
    return f"{name}, which this OpenCV cannot decode: {_RECODE}"


_RECODE = "re-encode it (ffmpeg -i … -c:v libx264 …), or use an OpenCV that can"


def _why_no_matroska(head: bytes) -> str:
    for word, name in _MATROSKA.items():
        if word in head:
            return f"{name}, or damaged, which this OpenCV cannot decode: {_RECODE}"
    if b"A_" in head and b"V_" not in head:
        return "holds no video track, only sound or other data"
    return "the file ends early or is damaged: copy it again"


def _ends_early(head: bytes, path: Path) -> bool:
    told = int(struct.unpack_from("<I", head, 4)[0]) if len(head) >= 8 else 0
    return path.stat().st_size < told


def _is_text(head: bytes) -> bool:
    try:
        text = head[:4096].decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(head[:4096]) - 4:
            return False
        text = head[: error.start].decode("utf-8", "replace")
    return all(sign.isprintable() or sign in "\r\n\t\ufeff" for sign in text)


# Boxes of an MP4


def _whole(file: BinaryIO) -> _Box:
    return _Box(b"", 0, file.seek(0, 2))


def _boxes(file: BinaryIO, within: _Box) -> Iterator[_Box]:
    """Yield the boxes within another; the last may claim to reach beyond it."""
    place = within.start
    for _ in range(_MOST_BOXES):
        if place + 8 > within.end:
            return
        file.seek(place)
        size, kind = struct.unpack(">I4s", _read(file, 8))
        start = place + 8
        if size == 1:
            (size,) = struct.unpack(">Q", _read(file, 8))
            start += 8
        end = within.end if size == 0 else place + size
        if end < start:
            raise _Damaged
        yield _Box(kind, start, end)
        place = end


def _child(file: BinaryIO, within: _Box, *kinds: bytes) -> _Box | None:
    """Return the first box of a path of kinds; None where it is missing or cut off."""
    found: _Box | None = within
    for kind in kinds:
        if found is None:
            return None
        inner = _boxes(file, found)
        limit = found.end
        found = next((box for box in inner if box.kind == kind and box.end <= limit), None)
    return found


def _video_track(file: BinaryIO, movie: _Box) -> _Box | None:
    for track in _boxes(file, movie):
        handler = _child(file, track, b"mdia", b"hdlr") if track.kind == b"trak" else None
        if handler is not None and _content(file, handler)[8:12] == b"vide":
            return track
    return None


def _codec(file: BinaryIO, track: _Box) -> bytes:
    kinds = _child(file, track, b"mdia", b"minf", b"stbl", b"stsd")
    return b"" if kinds is None else _content(file, kinds)[12:16]


def _content(file: BinaryIO, box: _Box) -> bytes:
    if box.end - box.start > _MOST_TABLE_BYTES:
        raise _Damaged
    file.seek(box.start)
    return _read(file, box.end - box.start)


def _read(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise _Damaged
    return content


# Which frames an edit list shows


def _shown(file: BinaryIO, movie: _Box, track: _Box) -> int | None:
    edits = _child(file, track, b"edts", b"elst")
    head, media = _child(file, movie, b"mvhd"), _child(file, track, b"mdia", b"mdhd")
    times = _child(file, track, b"mdia", b"minf", b"stbl", b"stts")
    if edits is None or head is None or media is None or times is None:
        return None
    movie_scale, media_scale = (_time_scale(_content(file, box)) for box in (head, media))
    offsets = _child(file, track, b"mdia", b"minf", b"stbl", b"ctts")
    taken = _taken(_content(file, times), None if offsets is None else _content(file, offsets))
    shown = np.zeros(len(taken), bool)
    for duration, start in _edits(_content(file, edits)):
        if start < 0:  # an empty edit: the film begins later
            continue
        length = duration * media_scale / movie_scale if duration else np.inf
        shown |= (taken >= start) & (taken < start + length - 0.5)
    return int(shown.sum()) or None


def _time_scale(content: bytes) -> int:
    (scale,) = struct.unpack_from(">I", content, 20 if content[:1] == b"\1" else 12)
    if not scale:
        raise _Damaged
    return int(scale)


def _taken(times: bytes, offsets: bytes | None) -> NDArray[np.int64]:
    """Return when each frame is to be shown, in the media's units."""
    lengths = _expanded(times, signed=False)
    shown = np.cumsum(lengths) - lengths
    if offsets is not None:
        later = _expanded(offsets, signed=True)[: len(shown)]
        shown[: len(later)] += later
    return shown


def _expanded(content: bytes, *, signed: bool) -> NDArray[np.int64]:
    """Return a table of (how many frames, value) written out."""
    (count,) = struct.unpack_from(">I", content, 4)
    if 8 + 8 * count > len(content):
        raise _Damaged
    table = np.frombuffer(content, ">u4", 2 * count, offset=8).reshape(-1, 2)
    if int(table[:, 0].sum(dtype=np.int64)) > _MOST_SAMPLES:
        raise _Damaged
    values = table[:, 1].astype(np.uint32)
    kind = values.astype(np.int32) if signed else values
    return np.repeat(kind.astype(np.int64), table[:, 0].astype(np.int64))


def _edits(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield duration, in the movie's units, and start, in the media's, of each edit."""
    (count,) = struct.unpack_from(">I", content, 4)
    form = ">Qqi" if content[:1] == b"\1" else ">Iii"
    size = struct.calcsize(form)
    for number in range(min(count, _MOST_BOXES)):
        duration, start, _ = struct.unpack_from(form, content, 8 + number * size)
        yield duration, start
