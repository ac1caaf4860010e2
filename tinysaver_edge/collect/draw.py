"""Which moments: drawn uniformly and independently, by a generator that is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.collection import CollectedUnit, DrawnMoment, Encoding, length_of
from tinysaver_edge.errors import InputError

MOST = 10_000_000
"""Moments; the table of more would not be read any more."""

LONGEST_S = 10 * 366 * 86400.0

FASTEST = 1000.0
"""Frames a second; no camera has more."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What is to be drawn.

    Attributes:
        seed: of the generator. Collections of one seed fall on the same moments of their periods.
        period_s: how long cameras are looked at; None for recordings, whose length is theirs.
        epoch_s: length of an epoch; None draws single frames.
        epoch_fps: frames a second that an epoch keeps at most; None for all that come.
        encoding: ``png``, ``webp`` (both without loss) or ``jpg``.

    Raises:
        InputError: a number makes no sense.
    """

    count: int
    seed: int
    period_s: float | None = None
    epoch_s: float | None = None
    epoch_fps: float | None = None
    encoding: Encoding = "png"

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise InputError(f"{self.count} frames or epochs: from 1 to {MOST}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: must be 0 or above")
        for name, value in (("period", self.period_s), ("epoch", self.epoch_s)):
            if value is not None and not 0 < value <= LONGEST_S:
                raise InputError(f"{name} of {value:g} s: above 0 and at most ten years")
        if self.epoch_fps is not None and not 0 < self.epoch_fps <= FASTEST:
            raise InputError(f"{self.epoch_fps:g} frames a second: above 0 and at most {FASTEST:g}")
        if self.epoch_fps is not None and self.epoch_s is None:
            raise InputError("frames a second are kept of epochs only: single frames are moments")
        if self.period_s is not None and (self.epoch_s or 0) >= self.period_s:
            raise InputError(
                f"epochs of {length_of(self.epoch_s or 0)} do not fit into a period of "
                f"{length_of(self.period_s)}"
            )

    @property
    def kind(self) -> CollectedUnit:
        """What is drawn."""
        return CollectedUnit.FRAMES if self.epoch_s is None else CollectedUnit.EPOCHS

    def moments(self, sources: Sequence[str], lengths_s: Sequence[float]) -> list[DrawnMoment]:
        """Draw.

        A moment falls on a source with a probability that is as its length: cameras have one
        length, recordings each their own. Epochs begin so that they end within it.

        Args:
            sources: their names.
            lengths_s: seconds of each.

        Returns:
            The moments in the order in which they come, sources one after the other where their
            lengths differ.

        Raises:
            InputError: nothing is long enough.
        """
        rng = np.random.default_rng(self.seed)
        lengths = np.maximum(0.0, np.asarray(lengths_s, float) - (self.epoch_s or 0.0))
        ends = np.cumsum(lengths)
        if not len(ends) or not ends[-1] > 0:
            raise InputError(
                "nothing to draw from: "
                + ("no frames" if self.epoch_s is None else f"none as long as {self.epoch_s:g} s")
            )
        drawn = rng.random(self.count) * ends[-1]
        which = np.minimum(np.searchsorted(ends, drawn, side="right"), len(ends) - 1)
        at_s = np.minimum(drawn - (ends - lengths)[which], lengths[which])
        names = _names(rng, self.count)
        order = np.lexsort((at_s, which)) if self.period_s is None else np.argsort(at_s)
        return [
            DrawnMoment(names[place], sources[which[place]], float(at_s[place])) for place in order
        ]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Draw names that all differ: they tell nothing of camera, place and order."""
    names: dict[str, None] = {}
    while len(names) < count:
        names.update(
            (f"{int(one):010x}", None) for one in rng.integers(0, 1 << 40, count - len(names))
        )
    return list(names)


def shown_s(times_s: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how long each frame of a recording is shown, in seconds.

    It is until the next one comes; the last one as long as the others at the median. Where frames
    in between could not be decoded, theirs is left out: what they showed nobody knows. A file
    whose times do not rise (some raw streams have none) gives each frame the same second.

    Args:
        times_s: ``(n,)`` when each comes.
        numbers: ``(n,)`` of each in its file; gaps are frames that cannot be decoded.
    """
    if len(times_s) < 2:
        return np.ones(len(times_s))
    steps = np.diff(times_s)
    if not (steps > 0).all():
        return np.ones(len(times_s))
    steps = steps / np.diff(numbers)
    return np.append(steps, np.median(steps))
