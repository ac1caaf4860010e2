"""A bundle on trial: what it decides, and whether it has failed by that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinysaver_edge.decision import AnswerSource, Decision, Reason
from tinysaver_edge.stream.telemetry.events import Event, Undecided
from tinysaver_edge.verify.run import SLACK

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import Manifest

FEWEST = 64
"""Frames that times are judged by, at least."""

CHANCE = 1e-3
"""A quantile is broken where chance would put so many frames above it this rarely."""

FAILED_FRAMES = 3
"""Frames of a trial that a model may fail on, where that is more than one in a hundred."""


class OnTrial:
    """Watches what a bundle on trial decides; for any thread.

    Args:
        manifest: of the bundle, with the limits of time that it was calibrated for.
        sha256: of its manifest, by which decisions are known to be its own.
        here: whether its large model runs here, so that its failures are the bundle's.
        clock: seconds.
    """

    def __init__(
        self, manifest: Manifest, sha256: str, *, here: bool, clock: Callable[[], float]
    ) -> None:
        self._limits = {} if manifest.latency is None else manifest.latency.limits
        self._sha256, self._here, self._clock = sha256, here, clock
        self._lock = threading.Lock()
        from scipy.stats import binom  # which takes a second to load: before it is needed

        self._above: Callable[[int, int, float], float] = binom.sf
        self._over = dict.fromkeys(self._limits, 0)
        self._timed, self._spent_ms = 0, 0.0
        self._failed, self._why = 0, ""
        self.frames = 0
        self.began_s: float | None = None

    def saw(self, decision: Decision) -> None:
        """Take in a decision; those of another bundle are passed over."""
        by = decision.bundle
        if by is None or by.sha256 != self._sha256 or decision.reason is Reason.PROVISIONAL:
            return
        with self._lock:
            self.began_s, self.frames = self.began_s or self._clock(), self.frames + 1
            if decision.reason is Reason.FAILED and self._here:
                self._failed, self._why = self._failed + 1, decision.degraded or ""
            if decision.source is AnswerSource.REUSED:
                return
            spent = decision.timings_ms.items()
            spent_ms = sum(ms for step, ms in spent if step not in ("waiting", "total"))
            self._timed, self._spent_ms = self._timed + 1, self._spent_ms + spent_ms
            for name, limit in self._limits.items():
                self._over[name] += spent_ms > limit * (1 + SLACK)

    def heard(self, event: Event, /) -> None:
        """Take in an event: a frame that no model could answer."""
        if isinstance(event, Undecided):
            with self._lock:
                self.began_s, self.frames = self.began_s or self._clock(), self.frames + 1
                self._failed, self._why = self._failed + 1, event.reason

    def over(self, trial_s: float) -> bool:
        """Whether it has been watched for so long, and has decided enough to be judged by."""
        began_s, enough = self.began_s, not self._limits or self._timed >= FEWEST
        return enough and began_s is not None and self._clock() - began_s >= trial_s

    def failure(self) -> str | None:
        """Return why it has failed by now; None while it has not."""
        with self._lock:
            if self._failed >= FAILED_FRAMES and self._failed > 0.01 * self.frames:
                return f"a model failed on {self._failed} of {self.frames} frames: {self._why}"
            if self._timed < FEWEST:
                return None
            return next((why for name in self._limits if (why := self._too_slow(name))), None)

    def _too_slow(self, name: str) -> str | None:
        limit, frames, over = self._limits[name], self._timed, self._over[name]
        if name == "mean_latency_ms":
            mean_ms = self._spent_ms / frames
            slow = mean_ms > limit * (1 + SLACK)
            return f"{name} {mean_ms:.2f} of {limit:g} over {frames} frames" if slow else None
        share = 0.05 if name == "p95_latency_ms" else 0.01
        if self._above(over - 1, frames, share) >= CHANCE:
            return None
        return f"{name}: {over} of {frames} frames took more than {limit:g} ms"
