"""Fakes for tests: real implementations of the contracts that answer what a test tells them to.

A whole cascade, exact and without a model:

    frames = FakeSource(3)
    saver = FakeEngine([[9.0, 0.0], [0.1, 0.0], [0.0, 9.0]])
    large = FakeEngine([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    cascade = Cascade(
        [
            Stage(
                saver,
                preprocess=saver.preprocess,
                policy=StagePolicy("saver", score=get_score("margin"), threshold=0.5),
            ),
            Stage(large, preprocess=large.preprocess, policy=StagePolicy("large")),
        ],
        clock=FakeClock(),
    )
    decisions = [cascade.decide(frame.image, frame_id=frame.frame_id) for frame in frames]
    assert [decision.index for decision in decisions] == [0, 1, 1]
    assert large.samples == 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysaver_edge.engines.base import DEFAULT_OPTIONS, Engine, EngineOptions, ModelSignature
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Frame, Preprocess, Resize
from tinysaver_edge.stream.sources.source import Frame as StreamFrame

__all__ = [
    "FAKE_PREPROCESS",
    "MOST_FRAMES",
    "FakeClock",
    "FakeEngine",
    "FakeSource",
    "frame_numbers",
    "numbered_frame",
]

FAKE_PREPROCESS = Preprocess(Resize(8, 8))
"""What a `FakeEngine` takes unless it is told otherwise: uint8 NHWC BGR of 8 x 8 pixels."""

MOST_FRAMES = 1 << 24
"""As many frames can be told apart by their colour."""


def numbered_frame(number: int, *, height: int = 48, width: int = 64) -> Frame:
    """Return a frame of one colour that tells its number; any resize keeps it.

    Args:
        number: 0 up to but not including `MOST_FRAMES`.
        height: rows, in pixels.
        width: columns, in pixels.

    Returns:
        ``(height, width, 3)`` BGR uint8.

    Raises:
        InputError: the number is out of range.
    """
    if not 0 <= number < MOST_FRAMES:
        raise InputError(f"frame number {number}: must be from 0 to {MOST_FRAMES - 1}")
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = (number & 255, number >> 8 & 255, number >> 16)
    return frame


def frame_numbers(batch: Batch) -> NDArray[np.int64]:
    """Return the numbers of the frames in a batch of uint8 NHWC BGR, ``(n,)``.

    Raises:
        InputError: the batch is of another type or layout, or holds no numbered frames.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise InputError(
            f"numbered frames are uint8 (n, height, width, 3), not {batch.dtype} {batch.shape}: "
            f"give the engine a function of the batch instead of a table"
        )
    if (batch != batch[:, :1, :1]).any():
        raise InputError("a frame is not of one colour: make frames with numbered_frame")
    colours = batch[:, 0, 0].astype(np.int64)
    numbers: NDArray[np.int64] = colours @ np.array([1, 1 << 8, 1 << 16])
    return numbers


class FakeEngine(Engine):
    """An engine that needs no model: it looks answers up, or asks a function for them.

    All else is the engines' own code: batches are checked and split, raw outputs become logits, a
    closed engine refuses.

    Args:
        answers: raw outputs ``(frames, outputs)``, of which row k answers ``numbered_frame(k)``;
            or a function from a batch to raw outputs ``(n, outputs)``.
        preprocess: what its batches look like; a table needs frames as they come, uint8 NHWC BGR.
        output: how raw outputs become logits.
        options: as for every engine.
        batch_size: takes exactly so many samples a run; None for any number.
        fell_back: pretend that another device than the one asked for is in use.

    Attributes:
        preprocess: what its batches look like, for the `Stage` around it.
        runs: how many times the model was run, failed runs included.
        samples: how many samples were given to it in all.
        failing: while set, every run raises it.
        closings: how many times it let go of its model; at most 1.

    Raises:
        InputError: the table is not two-dimensional.
    """

    name: ClassVar[str] = "fake"
    suffixes: ClassVar[frozenset[str]] = frozenset({".py"})

    def __init__(
        self,
        answers: ArrayLike | Callable[[Batch], ArrayLike],
        *,
        preprocess: Preprocess = FAKE_PREPROCESS,
        output: OutputFormat | None = None,
        options: EngineOptions = DEFAULT_OPTIONS,
        batch_size: int | None = None,
        fell_back: bool = False,
    ) -> None:
        self._function = answers if callable(answers) else _looking_up(np.asarray(answers))
        self._batch_size = batch_size
        self.preprocess = preprocess
        self.runs = 0
        self.samples = 0
        self.failing: EngineError | None = None
        self.closings = 0
        # Every engine has a file; this one's answers came with its own source code.
        super().__init__(
            Path(__file__), preprocess=preprocess, output=output or OutputFormat(), options=options
        )
        self.fell_back = fell_back

    def fail(self, reason: str = "the fake was told to fail") -> None:
        """Raise an `EngineError` in every run from now on; see `recover`."""
        self.failing = EngineError(reason)

    def recover(self) -> None:
        """Answer again."""
        self.failing = None

    def _load(self) -> tuple[str, ModelSignature]:
        form = self.preprocess.format
        return self.options.device or "fake", ModelSignature(
            input_name="frames",
            input_shape=(self._batch_size, *self.preprocess.shape(1)[1:]),
            input_dtype=np.dtype(form.dtype).name,
            output_name="answers",
            output_shape=(self._batch_size, None),
            output_dtype="float32",
        )

    def _run(self, batch: Batch) -> NDArray[Any]:
        self.runs += 1
        self.samples += len(batch)
        if self.failing is not None:
            raise self.failing
        return np.asarray(self._function(batch))

    def _release(self) -> None:
        self.closings += 1


def _looking_up(table: NDArray[Any]) -> Callable[[Batch], NDArray[Any]]:
    """Return a function that answers a numbered frame with its row of a table."""
    if table.ndim != 2:
        raise InputError(f"answers have shape {table.shape}: give them as (frames, outputs)")
    if np.issubdtype(table.dtype, np.floating):
        table = table.astype(np.float32)

    def look_up(batch: Batch) -> NDArray[Any]:
        numbers = frame_numbers(batch)
        if numbers.max() >= len(table):
            raise EngineError(f"no answer to frame {numbers.max()}: there are {len(table)}")
        found: NDArray[Any] = table[numbers]
        return found

    return look_up


class FakeClock:
    """A clock that stands still until it is told to go on; call it for the time in seconds.

    Args:
        now_s: the time it shows first.
        step_s: how far it goes on after each look.

    Attributes:
        now_s: the time it shows.
    """

    def __init__(self, now_s: float = 0.0, *, step_s: float = 0.0) -> None:
        self.now_s = now_s
        self._step_s = step_s

    def __call__(self) -> float:
        """Return the time in seconds."""
        now = self.now_s
        self.now_s += self._step_s
        return now

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds.

        Raises:
            InputError: that would be backwards.
        """
        if seconds < 0:
            raise InputError(f"a clock cannot go {seconds} s: it never goes back")
        self.now_s += seconds


class FakeSource:
    """Numbered frames at a steady rate, as a camera would give them; iterate as often as needed.

    Args:
        count: how many frames the camera takes.
        height: rows of each, in pixels.
        width: columns of each, in pixels.
        source_id: the camera's name.
        rate_hz: frames a second.
        lost: frames that never arrive; they leave gaps in the sequence.

    Raises:
        InputError: there would be more frames than can be told apart.
    """

    def __init__(
        self,
        count: int,
        *,
        height: int = 48,
        width: int = 64,
        source_id: str = "fake",
        rate_hz: float = 30.0,
        lost: Iterable[int] = (),
    ) -> None:
        if not 0 <= count <= MOST_FRAMES:
            raise InputError(f"{count} frames: at most {MOST_FRAMES} can be told apart")
        self._count = count
        self._size = (height, width)
        self._source_id = source_id
        self._rate_hz = rate_hz
        self._lost = frozenset(lost)

    def __iter__(self) -> Iterator[StreamFrame]:
        height, width = self._size
        for number in range(self._count):
            if number not in self._lost:
                yield StreamFrame(
                    numbered_frame(number, height=height, width=width),
                    number / self._rate_hz,
                    number,
                    self._source_id,
                )

    def __len__(self) -> int:
        return self._count - len(self._lost & frozenset(range(self._count)))
