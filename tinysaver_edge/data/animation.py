"""Files of more than one picture: animations and pages. The first of them is what models see."""

from __future__ import annotations

from typing import Literal

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
