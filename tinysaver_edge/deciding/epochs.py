"""Epochs replayed: what a gate would have reused on recorded frames, all epochs side by side.

On the same thumbnails, times and answers it decides as `reuse.Gate` does frame by frame, which a
property test holds it to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.deciding.policy import Replay
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray, Outputs
from tinysaver_edge.reuse import SIDE, STEPS, ReuseRule


@dataclass(frozen=True)
class EpochTimeline:
    """When frames were taken and what they look like, in small.

    Attributes:
        numbers: int64 ``(n,)``, each frame's epoch, rising; all frames of one stand together.
        times_s: float64 ``(n,)``, seconds from the epoch's start, rising within it.
        thumbnails: int32 ``(n, 256)``, as `reuse.Thumbnailer` makes them.
    """

    numbers: IntArray
    times_s: FloatArray
    thumbnails: NDArray[np.int32]
    epoch_s: float
    names: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """How many there are."""
        return len(self.sizes)

    @cached_property
    def starts(self) -> IntArray:
        """The first frame of each epoch."""
        return np.flatnonzero(np.diff(self.numbers, prepend=-1)).astype(np.int64)

    @cached_property
    def sizes(self) -> IntArray:
        """How many frames each epoch has."""
        return np.diff(np.append(self.starts, len(self.numbers)))

    @cached_property
    def frames_per_s(self) -> float | None:
        """How many frames an epoch has in a second, in the middle of them all, to 3 digits."""
        lasts = self.starts + self.sizes - 1
        spans = self.times_s[lasts] - self.times_s[self.starts]
        rates = (self.sizes - 1)[spans > 0] / spans[spans > 0]
        return float(f"{np.median(rates):.3g}") if len(rates) else None

    @cached_property
    def positions(self) -> IntArray:
        """``(n,)``, each frame's epoch from 0 without a gap."""
        return np.repeat(np.arange(self.epochs), self.sizes)

    def subset(self, index: IntArray) -> EpochTimeline:
        """Return some of the frames, their order kept."""
        return EpochTimeline(
            self.numbers[index],
            self.times_s[index],
            self.thumbnails[index],
            self.epoch_s,
            self.names,
        )

    def spans(self, rule: ReuseRule) -> IntArray:
        """Return ``(n,)`` numbers: within an epoch, frames of one number remember each other."""
        elapsed = self.times_s - np.repeat(self.times_s[self.starts], self.sizes)
        if not len(elapsed) or elapsed.max() < rule.age_s - 1e-6:
            return np.zeros(len(elapsed), np.int64)
        found = (rule.span(at) for at in elapsed.tolist())
        numbered = (number for number, same in enumerate(groupby(found)) for _ in same[1])
        return np.fromiter(numbered, np.int64, len(elapsed))

    def by_epoch(self, values: NDArray[Any]) -> FloatArray:
        """Return the mean of a value of each frame over each epoch."""
        summed = np.bincount(self.positions, weights=values, minlength=self.epochs)
        means: FloatArray = summed / self.sizes
        return means


@dataclass(frozen=True, slots=True)
class ReusedFrames:
    """What becomes of each frame under a rule.

    Attributes:
        still: bool ``(n,)``, no model is asked.
        same: bool ``(n,)``, only the saver is, and an earlier escalation's answer is kept.
        of: int64 ``(n,)``, the frame whose answer is given: its own place where it is reused from
            none.
    """

    still: BoolArray
    same: BoolArray
    of: IntArray

    def applied(self, replayed: Replay) -> Replay:
        """Return what is answered in the end, of what each frame would be answered by itself.

        A stage of -1 stands where no model is asked, and 0 where only the first is.
        """
        stage = np.where(self.still, -1, np.where(self.same, 0, replayed.stage))
        return Replay(replayed.predictions[self.of], stage, replayed.score)

    @property
    def asked(self) -> BoolArray:
        """Where the first stage is asked."""
        return ~self.still

    @property
    def fresh(self) -> BoolArray:
        """Where the answer is the frame's own."""
        return ~(self.still | self.same)


def reused(
    rule: ReuseRule, timeline: EpochTimeline, saver: Outputs, accepted: BoolArray
) -> ReusedFrames:
    """Say what a gate that is empty at each epoch's start reuses.

    Args:
        rule: how alike is alike enough.
        timeline: the frames.
        saver: the first stage's logits on all of them.
        accepted: ``(n,)``, where that stage's answer would be accepted.

    Raises:
        InputError: the saver's answers are not logits of all classes.
    """
    if saver.logits is None:
        raise InputError(
            "reuse compares all of the saver's probabilities: it needs records with logits"
        )
    count, epochs, spans = len(timeline.numbers), timeline.epochs, timeline.spans(rule)
    still, same = np.zeros(count, bool), np.zeros(count, bool)
    of = np.arange(count)
    below = rule.still * STEPS * SIDE * SIDE
    anchor, escalated = np.full(epochs, -1), np.full(epochs, -1)
    weights = np.zeros((epochs, saver.logits.shape[1]), np.float32)
    for step in range(int(timeline.sizes.max(initial=0))):
        whose = np.flatnonzero(timeline.sizes > step)
        here = timeline.starts[whose] + step
        known = anchor[whose]
        held = np.flatnonzero((known >= 0) & (spans[known] == spans[here]))
        apart = np.abs(timeline.thumbnails[here[held]] - timeline.thumbnails[known[held]])
        quiet = held[apart.sum(axis=1) < below]
        still[here[quiet]] = True
        of[here[quiet]] = of[known[quiet]]
        loud = np.ones(len(whose), bool)
        loud[quiet] = False
        whose, here = whose[loud], here[loud]
        anchor[whose] = here
        unsure = ~accepted[here]
        whose, here = whose[unsure], here[unsure]
        now = probabilities(saver.logits[here])
        last = escalated[whose]
        held = np.flatnonzero((last >= 0) & (spans[last] == spans[here]) & (rule.same > 0))
        close = held[_variations(now[held], weights[whose[held]]) < rule.same]
        same[here[close]] = True
        of[here[close]] = last[close]
        asking = np.ones(len(whose), bool)
        asking[close] = False
        escalated[whose[asking]] = here[asking]
        weights[whose[asking]] = now[asking]
    return ReusedFrames(still, same, of)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each row's softmax, to the bit as `reuse` has it of one row."""
    weights: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _variations(one: NDArray[np.float32], other: NDArray[np.float32]) -> FloatArray:
    found: FloatArray = 0.5 * np.abs(one - other).sum(axis=1).astype(np.float64)
    return found
