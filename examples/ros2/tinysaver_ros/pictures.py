"""The picture in a ROS image message, as BGR. Knows the messages' fields, and nothing of ROS."""

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]


class PictureError(ValueError):
    """A message holds no picture that can be read; says what is wrong with it."""


class Image(Protocol):
    """The fields of sensor_msgs/Image that are read."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are read."""

    format: str
    data: Any


CHANNELS = {
    "mono8": 1,
    "8UC1": 1,
    "mono16": 1,
    "bgr8": 3,
    "8UC3": 3,
    "rgb8": 3,
    "bgr16": 3,
    "rgb16": 3,
    "bgra8": 4,
    "8UC4": 4,
    "rgba8": 4,
    "bgra16": 4,
    "rgba16": 4,
}
"""Channels that stand in a row of a picture."""

YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}
"""How OpenCV calls YUV 4:2:2, by where the brightness stands."""

BAYER = ("rggb", "bggr", "gbrg", "grbg")
"""Colours of the first two pixels of the first two rows: names of ROS, which OpenCV takes."""

ENCODINGS = (*CHANNELS, *YUV, *(f"bayer_{one}{bits}" for one in BAYER for bits in (8, 16)))


def picture_of(message: Image) -> Picture:
    """Return the picture of a sensor_msgs/Image, ``(height, width, 3)`` BGR uint8.

    16 bits are brought to 8 by their upper ones. Where it can, it shares the message's memory.

    Raises:
        PictureError: the encoding is none of `ENCODINGS`, or the fields contradict each other.
    """
    encoding = message.encoding
    if encoding in CHANNELS:
        return _bgr(_pixels(message, CHANNELS[encoding]), encoding)
    if encoding in YUV:
        return _yuv(message)
    if encoding in ENCODINGS:
        return _bayer(message)
    raise PictureError(f"encoding {encoding!r}: expected one of {', '.join(ENCODINGS)}")


def compressed_picture_of(message: CompressedImage) -> Picture:
    """Return the picture of a sensor_msgs/CompressedImage, ``(height, width, 3)`` BGR uint8.

    Raises:
        PictureError: it is a depth image, or no file that OpenCV can decode.
    """
    import cv2

    if "compressedDepth" in message.format:
        raise PictureError(f"format {message.format!r}: is a depth image")
    data = np.frombuffer(message.data, np.uint8)
    picture = None
    if data.size:
        try:
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except cv2.error:
            picture = None
    if picture is None:
        raise PictureError(f"format {message.format!r}, {data.size} bytes: cannot be decoded")
    return np.asarray(picture, np.uint8)


def _pixels(message: Image, channels: int) -> Picture:
    """Return the rows without what pads them, ``(height, width, channels)``, 8 bits each."""
    height, width, step = message.height, message.width, message.step
    wide = message.encoding.endswith("16")
    row = width * channels * (2 if wide else 1)
    data = np.frombuffer(message.data, np.uint8)
    if not (height and width) or step < row or data.size < height * step:
        raise PictureError(
            f"{width}x{height} {message.encoding} with rows of {step} bytes and {data.size} bytes "
            f"of data: expected rows of at least {row} and {height * max(step, row)} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, :row]
    if wide:  # of two bytes the upper one is the second, unless the message says otherwise
        rows = rows[:, (0 if message.is_bigendian else 1) :: 2]
    return rows.reshape(height, width, channels)


def _bgr(pixels: Picture, encoding: str) -> Picture:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    pixels = pixels[:, :, :3]
    if encoding.startswith("rgb"):
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)


def _yuv(message: Image) -> Picture:
    import cv2

    if message.width % 2:
        raise PictureError(f"{message.width} pixels wide, and {message.encoding} goes by pairs")
    pixels = np.ascontiguousarray(_pixels(message, 2))
    code = getattr(cv2, f"COLOR_YUV2BGR_{YUV[message.encoding]}")
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _bayer(message: Image) -> Picture:
    import cv2

    if message.width < 2 or message.height < 2:
        raise PictureError(f"{message.width}x{message.height} {message.encoding}: too small")
    pixels = np.ascontiguousarray(_pixels(message, 1)[:, :, 0])
    pattern = message.encoding[len("bayer_") :][:4].upper()
    code = getattr(cv2, f"COLOR_Bayer{pattern}2BGR")
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
