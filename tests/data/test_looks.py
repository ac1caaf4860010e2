"""Pictures are looked at once; what was seen is kept; what goes dark is told; hashes come again."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import class_folders, encoded
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.images import (
    dark_depth,
    decode_image,
    decode_small,
    told_size,
    why_unreadable,
)
from tinysaver_edge.data.looks import MORE_FRAMES, Seen, has_more_frames, read_looks, seen_from_text


def deep(suffix: str, brightest: int, shape: tuple[int, ...] = (32, 32)) -> bytes:
    ramp = np.linspace(0, brightest, int(np.prod(shape))).reshape(shape).astype(np.uint16)
    good, data = cv2.imencode(suffix, ramp)
    assert good
    return bytes(data.tobytes())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
@pytest.mark.parametrize(("brightest", "used"), [(1000, 10), (4095, 12), (16383, 14)])
def test_pictures_that_leave_their_upper_bits_empty(suffix: str, brightest: int, used: int) -> None:
    depth = dark_depth(deep(suffix, brightest))
    assert depth is not None
    assert (depth.bits, depth.used) == (16, used)
    assert f"of which {used} are used" in depth.text
    frame = decode_image(deep(suffix, brightest))
    assert frame is not None
    assert frame.max() <= int(depth.text.split("at most ")[1].split(" ")[0])


def more_pictures(folder: Path) -> list[bytes]:
    """Return a TIFF of two pages and an APNG, a GIF and a WebP that move."""
    frames = [np.full((16, 20, 3), value, np.uint8) for value in (10, 200)]
    assert cv2.imwritemulti(str(folder / "two.tif"), frames)
    still, tail = encoded(1, ".png"), b"\x00\x00\x00\x02\x00\x00\x00\x00"  # two, without end
    chunk = b"acTL" + tail
    moving = b"\x00\x00\x00\x08" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    picture = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(6)
    gif += b"\x21\xf9\x04\x00\x00\x00\x00\x00" + picture + picture + b";"
    webp = b"RIFF\x20\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02" + bytes(9)
    return [(folder / "two.tif").read_bytes(), still[:33] + moving + still[33:], gif, webp]


def test_files_of_more_than_one_picture_are_known(tmp_path: Path) -> None:
    assert [has_more_frames(one) for one in more_pictures(tmp_path)] == [True] * 4
    alone = [encoded(1, suffix) for suffix in (".png", ".jpg", ".webp", ".tif", ".gif", ".bmp")]
    assert [has_more_frames(one) for one in alone] == [False] * len(alone)
    for whole in more_pictures(tmp_path):
        for end in range(len(whole)):
            has_more_frames(whole[:end])


def test_what_is_not_seen_of_such_files_is_told_and_kept(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", classes=["a", "b"], each=2)
    (tmp_path / "images" / "a" / "two.tif").write_bytes(more_pictures(tmp_path)[0])
    with open_data(tmp_path / "images") as data:
        for _ in range(2):
            lines = read_looks(data, folder=tmp_path / "kept", fingerprint="x").lines
            assert lines == (f"1 of 5 files are {MORE_FRAMES}",)


def test_all_other_pictures_say_nothing() -> None:
    assert dark_depth(deep(".png", 65535)) is None
    assert dark_depth(deep(".png", 65535, (32, 32, 3))) is None
    for suffix in (".png", ".jpg", ".tif", ".ppm", ".bmp"):
        assert dark_depth(encoded(1, suffix)) is None
    assert dark_depth(b"P5 nothing") is None
    assert dark_depth(deep(".tif", 100)[:40]) is None


def test_large_files_are_read_in_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    frame = decode_small(data)
    assert frame is not None
    assert frame.shape == (250, 300, 3)
    assert decode_small(data[:-5000]) is None
    assert decode_small(encoded(1)) is not None


@pytest.mark.parametrize("ending", [b"\0" * 600, b"trailing notes", encoded(5)])
def test_a_png_with_more_behind_its_end_is_whole(ending: bytes) -> None:
    frame = decode_image(encoded(3) + ending)
    assert frame is not None
    assert (frame == decode_image(encoded(3))).all()
    assert decode_image(encoded(3)[:-40] + ending) is None


def test_what_was_seen_is_kept_until_the_images_change(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", classes=["a", "b"], each=5)
    (images / "a" / "0001.png").write_bytes(b"damaged")
    kept = tmp_path / "records"
    with open_data(images) as data:
        first = read_looks(data, folder=kept, fingerprint=data.fingerprint())
        assert first.readable.tolist() == [True, False, *[True] * 8]
        assert len(np.unique(first.content)) == 10
        (images / "a" / "0002.png").unlink()  # nobody looks again
        again = read_looks(data, folder=kept, fingerprint="another")
        assert again.readable.tolist() == [True, False, False, *[True] * 7]
        third = read_looks(data, folder=kept, fingerprint="another")
        assert (third.content == again.content).all()
        assert (third.small == again.small).all()


def test_dark_pictures_are_counted(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", classes=["a"], each=4)
    (images / "a" / "dark.png").write_bytes(deep(".png", 4095))
    with open_data(images) as data:
        line = read_looks(data).depth_line
    assert line is not None
    assert line.startswith("1 of 5 images have 16 bits a channel, of which 12 are used")


def test_hashes_tell_what_comes_again() -> None:
    content = np.arange(1, 101, dtype=np.uint64) * np.uint64(7919)
    seen = Seen.of(content)
    assert seen.whole
    assert seen.count(content[90:]) == 10
    assert seen.count(content + np.uint64(1)) == 0
    assert seen.places(content).tolist() == list(range(100))
    assert seen_from_text(seen.to_text()).hashes.tolist() == seen.hashes.tolist()
    few = Seen.of(content, most=50)
    assert not few.whole
    assert few.count(content) == 100
    assert Seen.of(np.zeros(3, np.uint64)).count(np.zeros(3, np.uint64)) == 0


def bomb_of(kind: str) -> bytes:
    """A few bytes whose header speaks of a thousand million pixels."""
    side = 32_000
    if kind == "png":

        def chunk(name: bytes, data: bytes) -> bytes:
            return (
                struct.pack(">I", len(data))
                + name
                + data
                + struct.pack(">I", zlib.crc32(name + data))
            )

        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        rows = zlib.compress(bytes(200 * (side + 1)))
        return (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        )
    if kind == "jpg":
        data = encoded(1, ".jpg")
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", side, side) + data[place + 4 :]
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HH", side, side) + bytes(20)
    if kind == "bmp":
        data = encoded(1, ".bmp")
        return data[:18] + struct.pack("<ii", side, -side) + data[26:]
    if kind == "webp":
        body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (side - 1).to_bytes(3, "little")
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if kind == "tif":
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, side) for tag in (256, 257))
        return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + bytes(4)
    if kind in ("P1", "P4", "P6"):
        return f"{kind}\n# a comment\n{side} {side}\n255\n".encode() + bytes(100)
    if kind == "P7":
        return f"P7\nDEPTH 3\nWIDTH {side}\nHEIGHT {side}\nMAXVAL 255\nENDHDR\n".encode()
    if kind == "jp2":
        return b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x16ihdr" + struct.pack(">II", side, side)
    return b"\0\0\0\x1cftypavif" + b"\0\0\0\x14ispe" + struct.pack(">III", 0, side, side)


BOMBS = ("png", "jpg", "gif", "bmp", "webp", "tif", "jp2", "avif", "P1", "P4", "P6", "P7")


@pytest.mark.parametrize("kind", BOMBS)
def test_a_picture_of_too_many_pixels_is_not_decoded(kind: str) -> None:
    data = bomb_of(kind)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (decode_image, decode_small, dark_depth):
        assert read(data) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000
    assert why_unreadable(data).startswith("has 32000 x 32000 pixels; at most 100 million")


@pytest.mark.parametrize(
    "suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".webp 50", ".pbm", ".pgm", ".ppm", ".pam"]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (37, 53)])
def test_the_size_that_is_told_is_the_one_that_is_decoded(
    suffix: str, shape: tuple[int, int]
) -> None:
    suffix, _, quality = suffix.partition(" ")
    grey = suffix in (".pbm", ".pgm")
    good, data = cv2.imencode(
        suffix,
        np.full(shape if grey else (*shape, 3), 90, np.uint8),
        [cv2.IMWRITE_WEBP_QUALITY, int(quality)] if quality else [],
    )
    assert good
    frame = decode_image(data.tobytes())
    assert frame is not None
    assert frame.shape == (*shape, 3)
    assert told_size(data.tobytes()) == shape


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"<html></html>", "not a readable image"),
        (encoded(1, ".jpg")[:200], "not a readable image (its end is missing)"),
        (encoded(1, ".png")[:200], "not a readable image (its end is missing)"),
    ],
)
def test_why_nothing_can_be_read_reads_differently(data: bytes, why: str) -> None:
    assert decode_image(data) is None
    assert why_unreadable(data) == why
