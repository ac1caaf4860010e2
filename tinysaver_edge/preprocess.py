"""Frame → model input: the only preprocessing there is, on the device and in calibration alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.errors import InputError

Frame = NDArray[np.uint8]
"""A picture as OpenCV gives it: ``(height, width, 3)`` BGR uint8."""

Batch = NDArray[Any]
"""Model input: ``(n, height, width, channels)`` or ``(n, channels, height, width)``."""


class Layout(str, Enum):
    """Order of a batch's axes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class ColorOrder(str, Enum):
    """Order of a picture's channels."""

    RGB = "RGB"
    BGR = "BGR"
    GRAY = "GRAY"

    @property
    def channels(self) -> int:
        """How many channels a picture of this order has."""
        return 1 if self is ColorOrder.GRAY else 3


class ResizePolicy(str, Enum):
    """How a frame of any shape becomes a picture of the model's size.

    Attributes:
        SQUASH: the whole frame, its proportions given up.
        CENTER_CROP: the largest centred part of the model's proportions, times the crop ratio.
        LETTERBOX: the whole frame in its proportions, the rest filled.
    """

    SQUASH = "squash"
    CENTER_CROP = "center_crop"
    LETTERBOX = "letterbox"


@dataclass(frozen=True, slots=True)
class Resize:
    """Size of the model's picture and how a frame is brought to it.

    Attributes:
        height: rows of the picture, in pixels.
        width: columns of the picture, in pixels.
        policy: squash, center_crop or letterbox.
        crop_ratio: for ``center_crop``, side of the crop as a fraction of the largest possible.
        antialias: shrink by exact halvings (each pixel the mean of four) and one bilinear step;
            else by one bilinear step, quicker and coarser.
        fill: grey value 0..255 around a letterboxed picture.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    height: int
    width: int
    policy: ResizePolicy = ResizePolicy.SQUASH
    crop_ratio: float = 1.0
    antialias: bool = True
    fill: int = 114

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"resize to {self.height}x{self.width}: both sides must be at least 1")
        if not 0 < self.crop_ratio <= 1:
            raise InputError(f"crop_ratio {self.crop_ratio} is outside 0..1")
        if not 0 <= self.fill <= 255:
            raise InputError(f"fill {self.fill} is outside 0..255")


def _is_number_type(name: str) -> bool:
    try:
        return np.dtype(name).kind in "fiu"
    except TypeError:
        return False


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What the model's input tensor looks like, once the picture has its size.

    Values become ``round(x * multiply + add)`` for integer types, without the rounding for
    floats, where x is 0..255; both hold one number or one a channel, in the model's colour order.

    Attributes:
        layout: NCHW or NHWC.
        dtype: numpy name of the type, for example ``"uint8"`` or ``"float32"``.
        color: order of the channels that the model expects.
        multiply: factor, of one value or one a channel.
        add: offset, of one value or one a channel.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    layout: Layout = Layout.NHWC
    dtype: str = "uint8"
    color: ColorOrder = ColorOrder.BGR
    multiply: tuple[float, ...] = (1.0,)
    add: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not _is_number_type(self.dtype):
            raise InputError(f"dtype {self.dtype!r} is no numeric type such as uint8 or float32")
        for name, values in (("multiply", self.multiply), ("add", self.add)):
            if len(values) not in (1, self.color.channels):
                raise InputError(
                    f"{name} has {len(values)} values; {self.color.value} takes 1 or "
                    f"{self.color.channels}"
                )

    @property
    def is_raw(self) -> bool:
        """Whether values go in as they are."""
        return set(self.multiply) == {1.0} and set(self.add) == {0.0}

    @property
    def is_device_format(self) -> bool:
        """Whether a resized frame is the input already: uint8, NHWC, BGR, unscaled."""
        return (
            self.is_raw
            and self.dtype == "uint8"
            and self.layout is Layout.NHWC
            and self.color is ColorOrder.BGR
        )


DEVICE_FORMAT = InputFormat()
"""What a device sends where the rest is folded into the model's graph: uint8 NHWC BGR."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """All that happens to a frame before a model sees it, as a value.

    Attributes:
        resize: size and policy.
        format: colour order, scale, layout and type.
    """

    resize: Resize
    format: InputFormat = field(default_factory=InputFormat)

    def shape(self, samples: int) -> tuple[int, int, int, int]:
        """Return the shape of a batch of `samples` frames."""
        height, width, channels = self.resize.height, self.resize.width, self.format.color.channels
        if self.format.layout is Layout.NHWC:
            return (samples, height, width, channels)
        return (samples, channels, height, width)

    def in_graph(self) -> Preprocess:
        """Return what is left to do when the model's graph does all but the resize."""
        return replace(self, format=DEVICE_FORMAT)


class Preprocessor:
    """Applies a `Preprocess` to frames, reusing its buffers.

    One thread at a time may use it: buffers of intermediate sizes are kept between frames, since
    allocating them anew costs as much as filling them.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        cv2 = opencv("Resizing frames")
        self.preprocess = preprocess
        self._cv2 = cv2
        self._buffers: dict[tuple[int, ...], Frame] = {}
        self._source_shape: tuple[int, ...] = ()
        resize, form = preprocess.resize, preprocess.format
        self._picture = np.empty((resize.height, resize.width, 3), np.uint8)
        self._multiply = _per_channel(form.multiply, form)
        self._add = _per_channel(form.add, form)

    def __call__(self, frame: Frame) -> Batch:
        """Return the model input for one frame, as a batch of one in a new array.

        Args:
            frame: ``(height, width, 3)`` BGR uint8, or ``(height, width)`` grey uint8.

        Raises:
            InputError: the frame is of another shape or type, or empty.
        """
        return self.batch((frame,))

    def batch(self, frames: Sequence[Frame]) -> Batch:
        """Return the model input for several frames in one new array."""
        batch = np.empty(
            self.preprocess.shape(len(frames)), dtype=np.dtype(self.preprocess.format.dtype)
        )
        for place, frame in zip(batch, frames, strict=True):
            self.into(frame, place)
        return batch

    def into(self, frame: Frame, place: Batch) -> None:
        """Write the model input for one frame into its place of a batch.

        Args:
            frame: ``(height, width, 3)`` BGR uint8, or ``(height, width)`` grey uint8.
            place: one sample of a batch, of `Preprocess.shape` without the first axis.

        Raises:
            InputError: the frame is of another shape or type, or empty.
        """
        frame = self._checked(frame)
        if self.preprocess.format.is_device_format:
            self._resize(frame, place)
            return
        self._resize(frame, self._picture)
        self._convert(self._picture, place)

    def resized(self, frame: Frame) -> Frame:
        """Return the frame at the model's size, still BGR uint8: what the user would see of it."""
        picture = np.empty_like(self._picture)
        self._resize(self._checked(frame), picture)
        return picture

    def _checked(self, frame: Frame) -> Frame:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(f"frame is {kind}; expected a uint8 array (height, width, 3), BGR")
        if frame.ndim == 2 and frame.size:
            return self._cv2.cvtColor(frame, self._cv2.COLOR_GRAY2BGR)  # type: ignore[no-any-return]
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise InputError(
                f"frame has shape {frame.shape}; expected (height, width, 3) BGR or "
                "(height, width) grey, not empty"
            )
        return frame

    def _resize(self, frame: Frame, picture: Frame) -> None:
        resize = self.preprocess.resize
        if frame.shape != self._source_shape:
            self._buffers.clear()
            self._source_shape = frame.shape
        if resize.policy is ResizePolicy.LETTERBOX:
            top, left, height, width = _letterbox(frame.shape, resize)
            picture[...] = resize.fill
            picture = picture[top : top + height, left : left + width]
        elif resize.policy is ResizePolicy.CENTER_CROP:
            top, left, height, width = _center_crop(frame.shape, resize)
            frame = frame[top : top + height, left : left + width]
        self._scale(frame, picture)

    def _scale(self, frame: Frame, picture: Frame) -> None:
        """Shrink or enlarge a whole frame to fill a picture."""
        cv2 = self._cv2
        height, width = picture.shape[:2]
        if self.preprocess.resize.antialias:
            frame = self._halve(frame, height, width)
        if frame.shape == picture.shape:
            np.copyto(picture, frame)
        elif picture.flags.c_contiguous:
            cv2.resize(frame, (width, height), dst=picture, interpolation=cv2.INTER_LINEAR)
        else:
            picture[...] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)

    def _halve(self, frame: Frame, height: int, width: int) -> Frame:
        """Halve both sides while both stay at least as long as the target's.

        An odd last row or column is left out: at twice the target's length or more it is less than
        half an output pixel, and only exact halvings have a quick path in OpenCV. Halving one side
        alone costs as much again and blurs: answers then move further from INTER_AREA's.
        """
        while frame.shape[0] // 2 >= height and frame.shape[1] // 2 >= width:
            half = (frame.shape[0] // 2, frame.shape[1] // 2)
            buffer = self._buffers.get(half)
            if buffer is None:
                buffer = self._buffers[half] = np.empty((*half, 3), np.uint8)
            even = frame[: half[0] * 2, : half[1] * 2]
            self._cv2.resize(even, half[::-1], dst=buffer, interpolation=self._cv2.INTER_AREA)
            frame = buffer
        return frame

    def _convert(self, picture: Frame, place: Batch) -> None:
        """Bring a resized picture into the model's colour order, layout, scale and type."""
        form, cv2 = self.preprocess.format, self._cv2
        if form.color is ColorOrder.RGB:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        elif form.color is ColorOrder.GRAY:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[:, :, None]
        values = picture.transpose(2, 0, 1) if form.layout is Layout.NCHW else picture
        if form.is_raw and np.can_cast(np.uint8, place.dtype):
            np.copyto(place, values)
            return
        scaled = values * self._multiply + self._add
        if np.issubdtype(place.dtype, np.integer):
            limits = np.iinfo(place.dtype)
            scaled = np.clip(np.rint(scaled), limits.min, limits.max)
        np.copyto(place, scaled, casting="unsafe")


def _per_channel(values: tuple[float, ...], form: InputFormat) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    return array[:, None, None] if form.layout is Layout.NCHW else array


def _center_crop(shape: tuple[int, ...], resize: Resize) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part of the frame that is kept."""
    rows, columns = shape[:2]
    step = min(rows / resize.height, columns / resize.width) * resize.crop_ratio
    height = max(1, min(rows, round(resize.height * step)))
    width = max(1, min(columns, round(resize.width * step)))
    return (rows - height) // 2, (columns - width) // 2, height, width


def _letterbox(shape: tuple[int, ...], resize: Resize) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the frame's place in the picture."""
    rows, columns = shape[:2]
    step = max(rows / resize.height, columns / resize.width)
    height = max(1, min(resize.height, math.floor(rows / step + 0.5)))
    width = max(1, min(resize.width, math.floor(columns / step + 0.5)))
    return (resize.height - height) // 2, (resize.width - width) // 2, height, width
