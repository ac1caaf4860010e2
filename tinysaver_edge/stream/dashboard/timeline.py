"""What happened over the last minutes, in steps of a few seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tinysaver_edge.decision import AnswerSource, Decision, Likeness, stands_in

STEP_S = 2.0
STEPS = 150
"""Together the last five minutes."""

KINDS = ("still", "same", "accepted", "escalated", "degraded")
"""What a final answer is, one of them."""

MOST_AGES = 256
"""Ages kept of one step: enough for its p95."""


@dataclass(slots=True)
class Totals:
    """Counts of final answers.

    Attributes:
        still: found for an earlier frame, before any model was asked.
        same: kept of the last escalation, after the saver was unsure.
        accepted: of the saver.
        escalated: of the large model.
        degraded: that are not what the policy asks for.
        certified: of all, those that the certificate covers.
        fallbacks: of the degraded, those of the saver for want of the large model, repeated or not.
    """

    still: int = 0
    same: int = 0
    accepted: int = 0
    escalated: int = 0
    degraded: int = 0
    certified: int = 0
    fallbacks: int = 0

    @property
    def answers(self) -> int:
        """All of them."""
        return self.still + self.same + self.accepted + self.escalated + self.degraded

    def add(self, decision: Decision) -> None:
        """Count one."""
        if decision.degraded is not None:
            self.degraded += 1
        elif decision.reused is not None:
            still = decision.reused.alike is Likeness.STILL
            self.still, self.same = self.still + still, self.same + (not still)
        elif decision.source is AnswerSource.SAVER:
            self.accepted += 1
        else:
            self.escalated += 1
        self.certified += decision.certified
        self.fallbacks += stands_in(decision)


@dataclass(slots=True)
class Moment:
    """Counts and ages of one step.

    Attributes:
        number: how many steps after the clock's zero it lies.
        ages: milliseconds from frame to answer.
    """

    number: int
    totals: Totals = field(default_factory=Totals)
    ages: list[float] = field(default_factory=list)


class Timeline:
    """Steps, of which the oldest go. Not thread-safe."""

    def __init__(self) -> None:
        self._steps: deque[Moment] = deque(maxlen=STEPS)

    def add(self, decision: Decision, now_s: float) -> None:
        """Count a final decision."""
        self._at(now_s).totals.add(decision)

    def add_age(self, age_ms: float, now_s: float) -> None:
        """Add one frame's age."""
        ages = self._at(now_s).ages
        if len(ages) < MOST_AGES:
            ages.append(age_ms)

    def _at(self, now_s: float) -> Moment:
        number = int(now_s // STEP_S)
        if not self._steps or self._steps[-1].number < number:
            self._steps.append(Moment(number))
        return self._steps[-1]

    def totals(self, now_s: float) -> Totals:
        """Return the sums over the last `STEPS` steps."""
        since = int(now_s // STEP_S) - STEPS
        sums = Totals()
        for step in self._steps:
            if step.number > since:
                for one in fields(Totals):
                    grown = getattr(sums, one.name) + getattr(step.totals, one.name)
                    setattr(sums, one.name, grown)
        return sums

    def to_dict(self, now_s: float) -> dict[str, Any]:
        """Return the steps up to now as lists of one length, the newest last.

        Counts are per second; percentiles are None where nothing was measured.
        """
        last = int(now_s // STEP_S)
        by_number = {step.number: step for step in self._steps}
        steps = [by_number.get(last - STEPS + 1 + place) for place in range(STEPS)]
        into_s = max(0.25, now_s - last * STEP_S)  # the last step is not over yet
        seconds = [STEP_S] * (STEPS - 1) + [min(STEP_S, into_s)]
        rates = {
            name: [
                0.0 if step is None else round(getattr(step.totals, name) / long, 2)
                for step, long in zip(steps, seconds, strict=True)
            ]
            for name in KINDS
        }
        return {"step_s": STEP_S, **rates, **_percentiles(steps)}


def _percentiles(steps: list[Moment | None]) -> dict[str, list[float | None]]:
    found = [
        None if step is None or not step.ages else np.percentile(step.ages, (50, 95))
        for step in steps
    ]
    return {
        "p50_ms": [None if one is None else round(float(one[0]), 2) for one in found],
        "p95_ms": [None if one is None else round(float(one[1]), 2) for one in found],
    }
