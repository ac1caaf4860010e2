"""The steps of a certificate: one threshold, what was counted there, and its p-value."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tinysaver_edge.certificate.bounds import consistency_p_value, group_p_value
from tinysaver_edge.certificate.trinomial import p_value
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import FloatArray


def walk(p_values: FloatArray | Sequence[float], *, risk: float) -> int | None:
    """The last threshold that passed before the first that failed.

    Every test runs at the full risk: a false certificate needs a false pass at the first threshold
    whose hypothesis is true, and there is only one such (Learn then Test, arXiv 2110.01052). No
    monotone drop is assumed, and no exception may be made after a failure.

    Args:
        p_values: (k,), in the order fixed before the samples were seen.
        risk: δ of this one certificate.

    Returns:
        Its index, or None when the first threshold failed already.
    """
    for index, p in enumerate(p_values):
        if not p <= risk:
            return index - 1 if index else None
    return len(p_values) - 1 if len(p_values) else None


class Evidence(str, Enum):
    """What the samples of a certificate are."""

    LABELS = "labels"
    """Labelled samples, independent of each other: Berger-Boos on the trinomial."""

    CONSISTENCY = "consistency"
    """Samples without labels, the large model as the reference: exact binomial."""

    GROUPS = "groups"
    """Labelled samples in independent groups, such as the frames of one clip: betting."""

    CONSISTENCY_GROUPS = "consistency-groups"
    """Such groups without labels, the large model as the reference: betting."""

    @property
    def grouped(self) -> bool:
        """Whether the unit is a group of samples."""
        return self in (Evidence.GROUPS, Evidence.CONSISTENCY_GROUPS)

    @property
    def from_consistency(self) -> bool:
        """Whether the large model, not a label, says what is right."""
        return self in (Evidence.CONSISTENCY, Evidence.CONSISTENCY_GROUPS)


@dataclass(frozen=True, slots=True)
class Step:
    """One threshold of the walk and what was counted there.

    Attributes:
        threshold: accept where score >= threshold.
        accepted: samples accepted.
        lost: samples where only the large model is right (D = 1); with evidence from consistency,
            samples whose answer is not the large model's.
        gained: samples where only the cascade is right (D = -1); 0 with consistency.
        group_losses: with evidence from groups, each distinct mean loss of a group and how many
            groups had it; empty otherwise.
    """

    threshold: float
    accepted: int
    lost: int
    gained: int
    group_losses: tuple[tuple[float, int], ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Step:
        """Read a step from JSON values.

        Raises:
            TypeError, ValueError: a field is unknown, missing or no number.
        """
        losses = tuple((float(x), operator.index(c)) for x, c in values.get("group_losses", ()))
        counts = {key: operator.index(values[key]) for key in ("accepted", "lost", "gained")}
        threshold = float(values["threshold"])
        return cls(**{**values, **counts, "threshold": threshold, "group_losses": losses})

    def check(self, *, evidence: Evidence, samples: int) -> None:
        """Refuse counts that cannot be.

        Raises:
            InputError: naming what is wrong.
        """
        n = samples
        parts = (self.lost, self.gained, self.accepted, n - self.lost - self.gained)
        if min(*parts, n - self.accepted) < 0:
            raise InputError(
                f"a certificate over {n} samples cannot have lost {self.lost}, gained "
                f"{self.gained} and accepted {self.accepted} of them"
            )
        if evidence.grouped != bool(self.group_losses):
            raise InputError("group losses belong to a certificate over groups, and to no other")
        if any(not -1 <= loss <= 1 or count < 1 for loss, count in self.group_losses):
            raise InputError("a group's mean loss lies within -1..1, and its count is at least 1")


def step_p_values(
    steps: Sequence[Step],
    *,
    evidence: Evidence,
    samples: int,
    max_drop_points: float,
    risk: float,
) -> list[float]:
    """The p-value of each step's counts.

    Args:
        steps: counts at some thresholds.
        evidence: what the samples are.
        samples: how many there are.
        max_drop_points: ε, in points.
        risk: δ of this one certificate.
    """
    epsilon = max_drop_points / 100
    lost = [step.lost for step in steps]
    if evidence is Evidence.CONSISTENCY:
        return [float(p) for p in consistency_p_value(lost, samples, epsilon=epsilon)]
    if evidence.grouped:
        histograms = [tuple(zip(*step.group_losses, strict=True)) for step in steps]
        return [group_p_value(x, c, epsilon=epsilon, risk=risk) for x, c in histograms]
    gained = [step.gained for step in steps]
    same = [samples - step.lost - step.gained for step in steps]
    return [float(p) for p in p_value(lost, gained, same, epsilon=epsilon, risk=risk)]
