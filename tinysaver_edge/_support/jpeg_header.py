"""What a JPEG file says of its size, without decoding it. Imports nothing: `deploy` copies it."""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the first frame header tells them; None where there is none."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height = data[place + 5] << 8 | data[place + 6]
            return height, data[place + 7] << 8 | data[place + 8]
        if kind in (0xD8, 0xD9, 0xDA):
            return None
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None
