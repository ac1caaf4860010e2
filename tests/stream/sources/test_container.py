"""What video files say of themselves: edit lists, and why none of their frames can be shown."""

import struct

import cv2
import numpy as np
import pytest

from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.container import shown_frames
from tinysaver_edge.stream.sources.files import open_file
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.events import Corrupt

FRAMES, FPS = 75, 25


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an .mp4 of so many frames."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (64, 48))
    for number in range(FRAMES):
        film.write(np.full((48, 64, 3), 3 * number, np.uint8))
    film.release()
    return path.read_bytes()


def boxes(data, start, end):
    while start < end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, start, start + size
        start += size


def find(data, *kinds):
    start, end = 0, len(data)
    for depth, kind in enumerate(kinds):
        start, end = next(
            (a, b) for k, a, b in boxes(data, start + 8 * bool(depth), end) if k == kind
        )
    return start, end


def scale(data, *kinds):
    place = find(data, *kinds)[0]
    return struct.unpack(">I", data[place + 20 : place + 24])[0]


def trimmed(whole, *edits, version=0):
    """Put an edit list of (frames, from which frame; None for an empty edit) into a video."""
    data = bytearray(whole)
    movie, media = scale(data, b"moov", b"mvhd"), scale(data, b"moov", b"trak", b"mdia", b"mdhd")
    form = ">QqI" if version else ">IiI"
    table = b"".join(
        struct.pack(
            form, movie * frames // FPS, -1 if start is None else media * start // FPS, 0x10000
        )
        for frames, start in edits
    )
    elst = struct.pack(">I4sB3xI", 16 + len(table), b"elst", version, len(edits)) + table
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    moov, trak = find(data, b"moov")[0], find(data, b"moov", b"trak")[0]
    try:
        start, end = find(data, b"moov", b"trak", b"edts")
    except StopIteration:
        start = end = find(data, b"moov", b"trak", b"mdia")[0]
    data[start:end] = edts
    for place in (moov, trak):
        size = struct.unpack(">I", data[place : place + 4])[0] + len(edts) - (end - start)
        data[place : place + 4] = struct.pack(">I", size)
    return bytes(data)


def seen(path):
    """Return how many frames were given, and how many were told to be corrupt."""
    told = []
    with open_file(path) as source:
        source.attach(Context(listener=told.append))
        given = sum(1 for _ in source.frames())
    return given, sum(isinstance(one, Corrupt) for one in told)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(60, 15)], 60),
        ([(30, 0)], 30),
        ([(75, 0)], 75),
        ([(10, None), (60, 15)], 60),
    ],
    ids=["start cut", "end cut", "all", "begins later"],
)
def test_frames_that_were_cut_away_are_not_damaged(whole, tmp_path, edits, shown, version):
    path = tmp_path / "v.mp4"
    path.write_bytes(trimmed(whole, *edits, version=version))
    assert shown_frames(path) == shown
    given, corrupt = seen(path)
    assert abs(given - shown) <= 1  # where FFmpeg rounds an edit's end otherwise
    assert corrupt == 0


def test_frames_that_are_damaged_are_still_told(whole, tmp_path):
    path = tmp_path / "v.mp4"
    data = bytearray(trimmed(whole, (60, 15)))
    start, end = find(data, b"mdat")
    middle = (start + end) // 2
    data[middle : middle + (end - start) // 8] = bytes((end - start) // 8)
    path.write_bytes(data)
    given, corrupt = seen(path)
    assert given + corrupt == pytest.approx(60, abs=2)


def test_a_video_without_an_edit_list_says_nothing(whole, tmp_path):
    for name, data in (("noise", b"\0" * 100), ("text", b"hello"), ("none", b"")):
        (tmp_path / name).write_bytes(data)
        assert shown_frames(tmp_path / name) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"", "the file is empty"),
        (lambda data: b"<!DOCTYPE html><html>404", "a web page"),
        (lambda data: b"some words", "no video but text"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (lambda data: data[: len(data) // 2], r"index \(moov\) is missing"),
        (lambda data: data.replace(b"vide", b"soun"), "no video track"),
        (lambda data: data.replace(b"mp4v", b"av01").replace(b"esds", b"free"), "AV1, which"),
        (lambda data: bytes(range(256)) * 8, "not a readable image or video"),
        (lambda data: b"\x1aE\xdf\xa3" + b"\0" * 50 + b"V_AV1" + b"\0" * 900, "AV1, or damaged"),
        (lambda data: b"RIFF\xff\xff\0\0AVI LIST" + bytes(100), "ends early"),
    ],
    ids=["empty", "page", "text", "pointer", "cut", "sound", "codec", "noise", "mkv", "avi"],
)
def test_a_video_that_cannot_be_shown_says_why(whole, tmp_path, change, says):
    path = tmp_path / "v.mp4"
    path.write_bytes(change(whole))
    with pytest.raises(InputError, match=says):
        list(open_file(path).frames())
