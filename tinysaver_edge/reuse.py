"""Reuse over time: a frame that looks like an earlier one is answered with what was found for it.

A rule says how alike is alike enough, a thumbnail is what a frame looks like, and a gate holds one
camera's memory. The gate asks no model and knows no clock: on the same thumbnails, times and
saver's answers it decides the same, on a device and when recorded frames are replayed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs

SIDE = 16
"""Cells along each side of a thumbnail."""

STEPS = 256
"""Steps of a thumbnail's value in one grey level."""

WHITE = 255

_DOWN, _ACROSS = 4, 16
"""Pixels that are read in a cell at most, down and across: whole rows are what memory is quick at,
so that few of them are read, and densely."""

ENOUGH = 0.94
"""Share of a region's width that suffices, where more pixels a cell cost the rest."""

AS_FAST = 1.5
"""By what factor a camera may be slower or faster than those that a certificate was counted on."""

Thumbnail = NDArray[np.integer]
"""What a frame looks like: ``(16, 16)``, in 1/256 of a grey level, 0..65280."""


@dataclass(frozen=True, slots=True)
class ReuseRegion:
    """The part of a frame that is looked at, in fractions of its width and height.

    Raises:
        InputError: it is empty, or leaves the frame.
    """

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        sides = ((self.left, self.width), (self.top, self.height))
        if not all(start >= 0 and size > 0 and start + size <= 1 + 1e-9 for start, size in sides):
            raise InputError(
                f"region {self.left},{self.top},{self.width},{self.height}: left, top, width and "
                "height are fractions of the frame, and must lie within it"
            )


@dataclass(frozen=True, slots=True)
class ReuseRule:
    """When an earlier answer is repeated.

    Attributes:
        still: mean absolute difference of two thumbnails, in grey levels (0..255), below which a
            frame is answered as the last one that a model was asked about. 0 repeats nothing.
        same: total-variation distance, 0..1, between the saver's probabilities and those at the
            last escalation, below which a frame that the saver is unsure about keeps the answer
            of that escalation. 0 keeps nothing.
        epoch_s: after so many seconds, counted from a camera's first frame, all is forgotten:
            what a certificate counts as one.
        max_age_s: an answer that is repeated is younger than this. Within each epoch all is
            forgotten as often as it passes; None for `epoch_s`.
        region: the part of the frame that is looked at; None for all of it.
        frames_per_s: what a certificate was counted at; it covers cameras about as fast. None
            where there is none. What is repeated does not depend on it.

    Raises:
        InputError: a figure is out of range.
    """

    still: float
    same: float
    epoch_s: float = 10.0
    max_age_s: float | None = None
    region: ReuseRegion | None = None
    frames_per_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.still <= WHITE:
            raise InputError(f"still {self.still}: must be within 0..{WHITE} grey levels")
        if not 0 <= self.same <= 1:
            raise InputError(f"same {self.same}: must be within 0..1")
        for name in ("epoch_s", "max_age_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 1e-3 <= seconds < math.inf:
                raise InputError(f"{name} {seconds}: must be at least 0.001 s, and finite")
        if self.frames_per_s is not None and not 0 < self.frames_per_s < math.inf:
            raise InputError(f"frames_per_s {self.frames_per_s}: must be above 0, and finite")

    @classmethod
    def parse(cls, text: str) -> ReuseRule:
        """Read a rule as it is written on a command line.

        Args:
            text: ``still=2,same=0.1,max_age_s=5,epoch_s=10,region=0:0:0.5:1``; what is left out of
                still and same is 0, all else as for the constructor. A region is left, top, width
                and height.

        Raises:
            InputError: it cannot be understood, or a figure is out of range.
        """
        known = ("still", "same", "max_age_s", "epoch_s", "frames_per_s", "region")
        given: dict[str, str] = {}
        for part in text.split(","):
            name, equals, value = (one.strip() for one in part.partition("="))
            if name not in known or not equals or name in given:
                raise InputError(f"reuse {text!r}: expected NAME=VALUE of {', '.join(known)}")
            given[name] = value
        try:
            sides = [float(one) for one in given.pop("region", "").split(":") if one]
            numbers = {name: float(value) for name, value in given.items()}
        except ValueError as error:
            raise InputError(f"reuse {text!r}: {error}") from error
        if len(sides) not in (0, 4):
            raise InputError(f"reuse {text!r}: a region is LEFT:TOP:WIDTH:HEIGHT")
        region = ReuseRegion(*sides) if sides else None
        return cls(**{"still": 0.0, "same": 0.0, **numbers}, region=region)

    def __str__(self) -> str:
        told = f"still={self.still:g},same={self.same:g},epoch_s={self.epoch_s:g}"
        told += "" if self.max_age_s is None else f",max_age_s={self.max_age_s:g}"
        told += "" if self.frames_per_s is None else f",frames_per_s={self.frames_per_s:g}"
        if self.region is None:
            return told
        sides = (self.region.left, self.region.top, self.region.width, self.region.height)
        return f"{told},region={':'.join(f'{side:g}' for side in sides)}"

    @property
    def age_s(self) -> float:
        """What an answer that is repeated stays below."""
        return self.epoch_s if self.max_age_s is None else min(self.max_age_s, self.epoch_s)

    @property
    def reuses(self) -> bool:
        """Whether it ever repeats anything."""
        return self.still > 0 or self.same > 0

    def speaks_of(self, frames_per_s: float) -> bool:
        """Whether a camera is about as fast as those that a certificate was counted on.

        How much is repeated, and how wrong it is by then, depends on how far frames are apart.
        """
        known = self.frames_per_s
        return known is None or known <= AS_FAST * frames_per_s <= AS_FAST**2 * known

    def span(self, elapsed_s: float) -> tuple[int, int]:
        """Return which epoch of a camera a moment lies in, and which stretch of `age_s` of it.

        Counted in whole microseconds, so that the same frames fall into the same epochs whether
        their times begin at 0 or at a device's uptime.

        Args:
            elapsed_s: seconds since the camera's first frame.
        """
        epoch, within = divmod(round(elapsed_s * 1e6), round(self.epoch_s * 1e6))
        return epoch, within // round(self.age_s * 1e6)


class Thumbnailer:
    """Makes thumbnails: the mean of (B + 2 G + R) / 4 over pixels in a grid, cell by cell.

    Integers throughout, so that every machine makes the same of the same pixels. It keeps its
    buffers: one thread at a time, and what it returned is good until the next call.
    """

    def __init__(self, region: ReuseRegion | None = None) -> None:
        self._region = region
        self._shape: tuple[int, ...] = ()
        self._thumbnail = np.empty((SIDE, SIDE), np.int32)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the thumbnail of ``(height, width, 3)`` BGR or ``(height, width)`` grey uint8.

        Raises:
            InputError: the frame is of another shape or type, or empty.
        """
        if getattr(frame, "shape", None) != self._shape:
            self._lay_out(frame)
        np.take(frame, self._rows, axis=0, out=self._lines, mode="clip")
        pixels = self._lines[:, self._columns]
        planes = [pixels] * 3 if pixels.ndim == 2 else [pixels[:, :, one] for one in range(3)]
        np.copyto(self._plane, planes[1])
        np.left_shift(self._plane, 1, out=self._grey, dtype=np.uint16)
        for plane in (planes[0], planes[2]):
            np.copyto(self._plane, plane)
            np.add(self._grey, self._plane, out=self._grey)
        down, across = self._in_cell
        np.add.reduce(self._by_row, axis=1, out=self._sums)
        np.add.reduce(self._by_column, axis=2, out=self._thumbnail, dtype=np.int32)
        np.multiply(self._thumbnail, STEPS // 4, out=self._thumbnail)
        np.floor_divide(self._thumbnail, down * across, out=self._thumbnail)
        return self._thumbnail

    def _lay_out(self, frame: NDArray[np.uint8]) -> None:
        """Choose the pixels to read of frames of this shape, and make room for them."""
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            raise InputError("frame is no uint8 array (height, width, 3), BGR")
        if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3) or not frame.size:
            raise InputError(f"frame has shape {frame.shape}; expected (height, width, 3) BGR")
        region = self._region or ReuseRegion(0, 0, 1, 1)
        top, length = _span(region.top, region.height, frame.shape[0])
        down = max(1, min(_DOWN, length // SIDE))
        height = SIDE * down
        self._rows = top + (2 * np.arange(height) + 1) * length // (2 * height)
        self._columns, across = _columns(*_span(region.left, region.width, frame.shape[1]))
        width = SIDE * across
        self._in_cell = (down, across)
        self._lines = np.empty((height, *frame.shape[1:]), np.uint8)
        self._plane = np.empty((height, width), np.uint8)
        self._grey = np.empty((height, width), np.uint16)
        self._by_row = self._grey.reshape(SIDE, down, width)
        self._sums = np.empty((SIDE, width), np.uint16)
        self._by_column = self._sums.reshape(SIDE, SIDE, across)
        self._shape = frame.shape


def _span(start: float, size: float, pixels: int) -> tuple[int, int]:
    """Return where a region's side begins, and how long it is, in pixels."""
    first = min(round(start * pixels), pixels - 1)
    return first, max(1, min(round(size * pixels), pixels - first))


def _columns(first: int, length: int) -> tuple[slice | NDArray[np.intp], int]:
    """Return which columns to read, and how many of them a cell has.

    Evenly spaced, since memory is quick at that, and as many as leave out little of a length that
    is no multiple of them.
    """
    if length < SIDE:
        return first + np.arange(SIDE) * length // SIDE, 1
    counts = [count for count in range(1, _ACROSS + 1) if SIDE * count <= length]
    covered = {count: length // (SIDE * count) * count * SIDE for count in counts}
    count = max(counts, key=lambda one: (min(covered[one], ENOUGH * length), one))
    step = length // (SIDE * count)
    begin = first + (length - covered[count]) // 2 + step // 2
    return slice(begin, begin + covered[count] - step + 1, step), count


def difference(one: Thumbnail, other: Thumbnail) -> float:
    """Return the mean absolute difference of two thumbnails, in grey levels."""
    steps = np.abs(one.astype(np.int64) - other)
    return float(steps.sum()) / (STEPS * SIDE * SIDE)


class _Answer:
    """An answer that is held against others: its probabilities are worked out once."""

    __slots__ = ("_outputs", "_weights")

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._weights: NDArray[np.float32] | None = None

    def variation(self, other: _Answer) -> float:
        """As `total_variation` has it."""
        if self._outputs.logits is None or other._outputs.logits is None:
            return total_variation(self._outputs, other._outputs)
        return _variation(self.weights, other.weights)

    @property
    def weights(self) -> NDArray[np.float32]:
        """Its probabilities."""
        if self._weights is None:
            self._weights = _probabilities(self._outputs)
        return self._weights


def total_variation(one: Outputs, other: Outputs) -> float:
    """Return the total-variation distance of two answers of one model, 0..1.

    Of answers of which only the best K classes are known, what is not known counts as one more
    class; classes that one of them lacks have probability 0 there.
    """
    if one.logits is not None and other.logits is not None:
        return _variation(_probabilities(one), _probabilities(other))
    known = [
        dict(zip(*(row[0].tolist() for row in each.top(each.width)), strict=True))
        for each in (one, other)
    ]
    classes = known[0].keys() | known[1].keys()
    apart = sum(abs(known[0].get(name, 0.0) - known[1].get(name, 0.0)) for name in classes)
    rest = abs(sum(known[0].values()) - sum(known[1].values()))
    return float(min(1.0, 0.5 * (apart + rest)))


def _probabilities(outputs: Outputs) -> NDArray[np.float32]:
    assert outputs.logits is not None
    row = outputs.logits[0]
    weights: NDArray[np.float32] = np.exp(row - row.max())
    weights /= np.add.reduce(weights)
    return weights


def _variation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return 0.5 * float(np.abs(one - other).sum())


Key = TypeVar("Key")
"""Whatever the caller knows a frame by."""


@dataclass(frozen=True, slots=True)
class Look(Generic[Key]):
    """What the gate says of a frame before any model is asked.

    Attributes:
        key: the frame.
        span: what it is remembered with; other spans know nothing of it.
        repeats: the frame whose answer is its own; None where the saver is to be asked.
        difference: to the last frame that a model was asked about, be it forgotten or not, in grey
            levels; infinity for the first.
    """

    key: Key
    span: tuple[int, int, int]
    repeats: Key | None
    difference: float


class Gate(Generic[Key]):
    """One camera's memory. Empty at first, at each epoch's start, and as `max_age_s` passes.

        look = gate.look(key, thumbnail, time_s)
        if look.repeats is not None:       # still: answered as that frame was
        elif accepted(saver's answer):     # the saver's own
        elif (kept := gate.keeps(look, saver's answer)) is not None:    # same: as that frame was
        else:                              # ask the large model

    `look` is for one thread, `keeps` for one that may be another, both in the order of the
    frames. Neither asks how a frame was answered, so that frames may be looked at while those
    before them are still being decided.
    """

    def __init__(self, rule: ReuseRule) -> None:
        self.rule = rule
        self._generation = 0
        self._began_s: float | None = None
        self._last_s = -math.inf
        self._anchor: tuple[Key, tuple[int, int, int]] | None = None
        self._knows = False
        self._seen = np.zeros((SIDE, SIDE), np.int32)
        self._apart = np.zeros((SIDE, SIDE), np.int32)
        self._below = rule.still * STEPS * SIDE * SIDE
        self._escalated: tuple[Key, tuple[int, int, int], _Answer] | None = None

    def forget(self) -> None:
        """Empty the memory, and begin a new epoch with the next frame: a camera has come back."""
        self._generation += 1
        self._began_s = None
        self._last_s = -math.inf

    def drop(self, key: Key) -> None:
        """Repeat this frame's answer no more: there was none, or not the one that was asked for."""
        anchor, escalated = self._anchor, self._escalated
        if anchor is not None and anchor[0] == key:
            self._anchor = None
        if escalated is not None and escalated[0] == key:
            self._escalated = None

    def look(self, key: Key, thumbnail: Thumbnail, time_s: float) -> Look[Key]:
        """Look at a camera's next frame; one that is not still is what others are held against.

        Args:
            key: what the caller knows it by.
            thumbnail: ``(16, 16)``; it is copied where it is kept.
            time_s: when it was taken. Where that is not after the last one, nobody knows how old
                an answer is, and the memory is emptied.
        """
        time_s = time_s if math.isfinite(time_s) else 0.0
        if time_s <= self._last_s:
            self.forget()
        if self._began_s is None:
            self._began_s = time_s
        self._last_s = time_s
        span = (self._generation, *self.rule.span(time_s - self._began_s))
        anchor, apart = self._anchor, math.inf
        if self._knows:
            np.subtract(thumbnail, self._seen, out=self._apart, casting="unsafe")
            np.abs(self._apart, out=self._apart)
            steps = int(self._apart.sum())
            apart = steps / (STEPS * SIDE * SIDE)
            if anchor is not None and anchor[1] == span and steps < self._below:
                return Look(key, span, anchor[0], apart)
        np.copyto(self._seen, thumbnail, casting="unsafe")
        self._anchor, self._knows = (key, span), True
        return Look(key, span, None, apart)

    def keeps(self, look: Look[Key], outputs: Outputs) -> Key | None:
        """Hold the answer of a saver that is unsure against that at the last escalation.

        Returns:
            The frame whose escalation answers this one; None where this one is to be escalated,
            and is remembered as the last.
        """
        last, same, answer = self._escalated, self.rule.same, _Answer(outputs)
        known = last is not None and last[1] == look.span
        if last is not None and known and same > 0 and answer.variation(last[2]) < same:
            return last[0]
        self._escalated = (look.key, look.span, answer)
        return None
