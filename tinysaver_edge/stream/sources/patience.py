"""How long a live source may keep silent, and when a lost one is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinysaver_edge.errors import InputError

Random = Callable[[], float]
"""Numbers from 0 up to but not including 1."""


LONGEST_S = 1e6
"""Longer time-outs are none; OpenCV takes them as 32 bits of milliseconds."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time-outs and retries of a live source.

    After the n-th failure in a row the pause is ``shortest_s * factor ** (n - 1)``, at most
    ``longest_s``, shortened at random by up to the share ``jitter``, so that many devices do not
    come back to one camera at the same moment.

    Attributes:
        open_s: limit on opening it.
        read_s: limit on waiting for one frame; a source that is silent for longer is lost.
        shortest_s: pause after the first failure.
        longest_s: longest pause.
        factor: growth of the pause.
        jitter: 0 for none, up to 1.
        attempts: failures in a row after which a lost source is given up; None for never.
        first_attempts: the same for a source that has not given a frame yet: a wrong address or a
            camera that is not there is told at once; None for never.

    Raises:
        InputError: a figure is out of range.
    """

    open_s: float = 5.0
    read_s: float = 5.0
    shortest_s: float = 0.5
    longest_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None
    first_attempts: int | None = 1

    def __post_init__(self) -> None:
        for name in ("open_s", "read_s", "shortest_s", "longest_s"):
            if not 0 < getattr(self, name) < LONGEST_S:
                raise InputError(
                    f"{name} {getattr(self, name)}: must be above 0 and below {LONGEST_S:g}"
                )
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise InputError(f"factor {self.factor} must be at least 1, jitter in 0..1")
        for name in ("attempts", "first_attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: at least 1, or None for no limit")

    def pause_s(self, failures: int, random: Random) -> float:
        """Return the pause after so many failures in a row, in seconds.

        Args:
            failures: from 1.
            random: draws the jitter.
        """
        doublings = min(failures - 1, 64)  # beyond that, a float may overflow
        pause_s = min(self.longest_s, self.shortest_s * self.factor**doublings)
        return pause_s * (1 - self.jitter * random())
