"""The certificate: a statement about the drop, every count that proves it, and what one needs."""

from __future__ import annotations

import base64
import math
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinysaver_edge.certificate.p_values import (
    Bets,
    EvidenceKind,
    count_p_values,
    group_p_value,
    group_p_values,
    p_value,
    walk,
)
from tinysaver_edge.errors import InputError, VerificationError
from tinysaver_edge.outputs import FloatArray

GroupLosses = tuple[tuple[float, int], ...]
"""Groups' mean losses in order, as runs: a loss, and how many groups in a row had it."""

MOST_GROUPS = 1 << 24


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One threshold of the walk and what was counted there.

    Attributes:
        threshold: accept where score >= threshold.
        accepted: samples accepted.
        lost: samples where only the large model is right (D = 1); with evidence from consistency,
            samples whose answer is not the large model's.
        gained: samples where only the cascade is right (D = -1); 0 with consistency.
        group_losses: with evidence from groups or epochs, each one's mean loss, in the order that
            was drawn for them; empty otherwise.
        still: with evidence from epochs, what stands with this threshold; see `reuse.ReuseRule`.
        same: likewise.
    """

    threshold: float
    accepted: int
    lost: int
    gained: int
    group_losses: GroupLosses = ()
    still: float = 0.0
    same: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` reads back.

        Of losses in order it has each distinct one with how many groups had it, and as ``order``
        which of these each group has: int32 numbers, little-endian, zlib, base64.
        """
        values = asdict(self)
        if not (self.still or self.same):
            del values["still"], values["same"]
        if not self.group_losses:
            return values
        losses, which, counts = np.unique(
            losses_in_order(self), return_inverse=True, return_counts=True
        )
        values["group_losses"] = list(zip(losses.tolist(), counts.tolist(), strict=True))
        packed = zlib.compress(which.astype("<i4").tobytes(), 9)
        return values | {"order": base64.b64encode(packed).decode("ascii")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WalkStep:
        """Read a step from JSON values.

        Raises:
            TypeError, ValueError: a field is unknown, missing or no number.
        """
        fields = dict(values)
        losses = tuple((float(x), operator.index(c)) for x, c in fields.get("group_losses", ()))
        order = fields.pop("order", None)
        fields["group_losses"] = losses if order is None else _in_order(losses, order)
        for key in ("accepted", "lost", "gained"):
            fields[key] = operator.index(fields[key])
        for key in ("threshold", "still", "same"):
            fields[key] = float(fields.get(key, 0.0) if key != "threshold" else fields[key])
        return cls(**fields)

    def check(self, *, evidence: EvidenceKind, samples: int) -> None:
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
        if not (math.isfinite(self.still) and math.isfinite(self.same)):
            raise InputError("a step of a certificate names a still or a same that is no number")


def runs_of(losses: ArrayLike) -> GroupLosses:
    """Return losses in order as runs of equal ones."""
    x = np.asarray(losses, dtype=np.float64)
    starts = np.flatnonzero(np.concatenate(([True], x[1:] != x[:-1])))[: len(x)]
    counts = np.diff(np.append(starts, len(x)))
    return tuple(zip(x[starts].tolist(), counts.tolist(), strict=True))


def losses_in_order(step: WalkStep) -> FloatArray:
    """Return each group's mean loss at a step, ``(groups,)``."""
    if not step.group_losses:
        return np.empty(0)
    losses, counts = zip(*step.group_losses, strict=True)
    if sum(counts) > MOST_GROUPS:
        raise InputError(f"a certificate over more than {MOST_GROUPS} groups cannot be read")
    return np.repeat(np.array(losses, dtype=np.float64), counts)


def _in_order(losses: GroupLosses, order: str) -> GroupLosses:
    """Return losses in the order that `WalkStep.to_json` packed."""
    total = sum(count for _, count in losses)
    if not 0 < total <= MOST_GROUPS:
        raise ValueError(f"group losses of {total} groups")
    try:
        packed = base64.b64decode(order, validate=True)
        which = np.frombuffer(zlib.decompressobj().decompress(packed, 4 * total + 1), "<i4")
    except zlib.error as error:
        raise ValueError(f"the order of its groups is damaged: {error}") from error
    counted = np.bincount(which, minlength=len(losses)) if (which >= 0).all() else which
    if counted.tolist() != [count for _, count in losses]:
        raise ValueError("the order of its groups is not of its group losses")
    return runs_of(np.array([loss for loss, _ in losses])[which])


def step_p_values(
    steps: Sequence[WalkStep],
    *,
    evidence: EvidenceKind,
    samples: int,
    max_drop_points: float,
    risk: float,
    bets: Bets = Bets.TARGET,
) -> list[float]:
    """The p-value of each step's counts.

    Args:
        steps: counts at some thresholds.
        evidence: what the samples are.
        samples: how many there are.
        max_drop_points: ε, in points.
        risk: δ of this one certificate.
        bets: with evidence from groups or epochs, how they are bet on.
    """
    if evidence.grouped:
        epsilon = max_drop_points / 100
        if bets is Bets.TARGET:
            table = [losses_in_order(step) for step in steps]
            if len({len(row) for row in table}) > 1:
                raise InputError("a certificate's steps count different numbers of groups")
            return group_p_values(table, epsilon=epsilon, risk=risk).tolist() if table else []
        histograms = [tuple(zip(*step.group_losses, strict=True)) for step in steps]
        return [group_p_value(x, c, epsilon=epsilon, risk=risk) for x, c in histograms]
    lost, gained = [step.lost for step in steps], [step.gained for step in steps]
    p_values: list[float] = count_p_values(
        lost,
        gained,
        evidence=evidence,
        samples=samples,
        max_drop_points=max_drop_points,
        risk=risk,
    ).tolist()
    return p_values


MOST_SAMPLES = 1 << 40


def samples_needed(
    max_drop_points: float, *, risk: float, lost_rate: float = 0.0, gained_rate: float = 0.0
) -> int | None:
    """The fewest samples with which a drop of at most `max_drop_points` can be certified.

    Args:
        max_drop_points: ε, in points.
        risk: δ of this one certificate (the asked one divided by the number of candidates).
        lost_rate: share of samples on which only the large model is right, as far as is known.
        gained_rate: share on which only the cascade is right.

    Returns:
        321, 644, 3223 for 1, 0.5 and 0.1 points at δ = 0.1 with no differing sample at all; None
        where no number is enough, because the rates themselves lose as much as is allowed.
    """
    epsilon = max_drop_points / 100
    if lost_rate - gained_rate >= epsilon:
        return None

    def enough(n: int) -> bool:
        lost, gained = math.ceil(lost_rate * n), math.floor(gained_rate * n)
        return bool(p_value(lost, gained, n - lost - gained, epsilon=epsilon, risk=risk)[0] <= risk)

    return fewest(enough, most=MOST_SAMPLES)


def fewest(enough: Callable[[int], bool], *, most: int) -> int | None:
    """Return the least number that is enough, as all above it are; None beyond `most`."""
    high = 1
    while not enough(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def least_certifiable_points(
    step: WalkStep, *, evidence: EvidenceKind, samples: int, risk: float
) -> float:
    """The least drop, in points, that the counts at one threshold sign.

    For a threshold that came from a budget: fixed in advance, no walk, one test, and the bound
    that it passes. Negative where the cascade is provably the more accurate one.

    Args:
        step: the counts at the threshold.
        evidence: what the samples are.
        samples: how many there are.
        risk: δ of this one certificate.

    Returns:
        Rounded up to a thousandth of a point, over groups to a fiftieth; 100 where the counts sign
        nothing less.
    """
    if evidence.grouped:
        return _least_over_groups(losses_in_order(step), risk=risk)

    def signed(thousandths: int) -> bool:
        p = step_p_values(
            [step],
            evidence=evidence,
            samples=samples,
            max_drop_points=thousandths / 1000,
            risk=risk,
        )
        return p[0] <= risk

    low, high = -100_000, 100_000
    if not signed(high - 1):
        return 100.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if signed(middle) else (middle, high)
    return high / 1000


def _least_over_groups(losses: FloatArray, *, risk: float) -> float:
    """Return the bound from which on each higher one is signed as well.

    The bets depend on the bound, so one may be signed where a higher one is not: what counts is the
    last that is not. A true mean between two bounds is at least the lower one, whose test it meets.
    """
    points = np.arange(-99.98, 99.99, 0.02)
    p = group_p_values(losses[None], epsilon=points / 100, risk=risk)
    unsigned = np.flatnonzero(p > risk)
    first = int(unsigned[-1]) + 1 if len(unsigned) else 0
    return round(float(points[first]), 2) if first < len(points) else 100.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """Proof that a cascade's drop stays within a bound.

    It says: over the draw of the samples, with probability at least 1 - risk, the cascade with
    this threshold loses at most `max_drop_points` against the large model alone, on whatever the
    samples were drawn from. A field that looks different is not covered.

    Attributes:
        evidence: what the samples are.
        max_drop_points: ε, in accuracy points (0.5 means 0.5 % of frames).
        risk: δ, the probability that the statement is wrong, over all candidates together.
        candidates: J, how many candidates share the risk; this one is tested at risk / J.
        samples: how many samples it rests on.
        grid_size: how many thresholds were fixed before the samples were seen.
        steps: the thresholds walked, strict to loose; all passed and the last is certified.
        failed: the first threshold that did not pass, or None where all did.
        bets: with evidence from groups or epochs, how they are bet on.
    """

    evidence: EvidenceKind
    max_drop_points: float
    risk: float
    candidates: int
    samples: int
    grid_size: int
    steps: tuple[WalkStep, ...]
    failed: WalkStep | None = None
    bets: Bets = Bets.TARGET

    def __post_init__(self) -> None:
        _check(self)

    @property
    def confidence(self) -> float:
        """1 - δ, 0..1."""
        return 1.0 - self.risk

    @property
    def risk_share(self) -> float:
        """δ / J, what each test was made at."""
        return self.risk / self.candidates

    @property
    def threshold(self) -> float:
        """The loosest certified threshold."""
        return self.steps[-1].threshold

    @property
    def groups(self) -> int:
        """Number of independent groups or epochs; 0 where the samples are independent."""
        return sum(count for _, count in self.steps[-1].group_losses)

    @property
    def lost(self) -> int:
        """Samples where only the large model is right (D = 1), at the certified threshold."""
        return self.steps[-1].lost

    @property
    def gained(self) -> int:
        """Samples where only the cascade is right (D = -1), at the certified threshold."""
        return self.steps[-1].gained

    @property
    def same(self) -> int:
        """Samples where both or neither are right (D = 0), at the certified threshold."""
        return self.samples - self.lost - self.gained

    @property
    def p_value(self) -> float:
        """p-value at the certified threshold, computed from the counts."""
        return step_p_values(
            self.steps[-1:],
            evidence=self.evidence,
            samples=self.samples,
            max_drop_points=self.max_drop_points,
            risk=self.risk_share,
            bets=self.bets,
        )[0]

    @property
    def statement(self) -> str:
        """The certificate in one line, for people."""
        because = ", from consistency" if self.evidence.from_consistency else ""
        if self.evidence.unit == "epochs":
            because += f", on average over epochs of a stream ({self.groups} counted)"
        return (
            f"drop ≤ {self.max_drop_points:g} points with probability "
            f"≥ {100 * self.confidence:g} %{because}"
        )

    def covers(self, threshold: float) -> bool:
        """Whether a threshold is certified: one of those that passed, and no other."""
        return any(step.threshold == threshold for step in self.steps)

    def stopping_at(self, threshold: float) -> Certificate:
        """The certificate of a stricter threshold that passed, for a choice made among them.

        Raises:
            InputError: the threshold did not pass.
        """
        for index, step in enumerate(self.steps):
            if step.threshold == threshold:
                loosest = index == len(self.steps) - 1
                failed = self.failed if loosest else None
                return replace(self, steps=self.steps[: index + 1], failed=failed)
        raise InputError(
            f"threshold {threshold:g} is not among the {len(self.steps)} that were certified"
        )

    def recompute(self) -> None:
        """Walk again from the counts, as `verify` does on any machine.

        Raises:
            VerificationError: a threshold of the walk does not pass.
        """
        p = step_p_values(
            self.steps,
            evidence=self.evidence,
            samples=self.samples,
            max_drop_points=self.max_drop_points,
            risk=self.risk_share,
            bets=self.bets,
        )
        reached = walk(p, risk=self.risk_share)
        if reached != len(p) - 1:
            first = 0 if reached is None else reached + 1
            raise VerificationError(
                f"the certificate's own counts do not prove it: threshold "
                f"{self.steps[first].threshold:g} has p = {p[first]:.3g}, above "
                f"{self.risk_share:g}; calibrate again"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` reads back, for the bundle."""
        fields = {
            "evidence": self.evidence.value,
            "steps": [step.to_json() for step in self.steps],
            "failed": None if self.failed is None else self.failed.to_json(),
            "bets": self.bets.value,
        }
        return {name: fields.get(name, getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Certificate:
        """Read what `to_json` wrote.

        Raises:
            InputError: a field is unknown, missing or makes no sense.
        """
        try:
            fields = dict(values)
            fields["evidence"] = EvidenceKind(fields["evidence"])
            # Certificates that do not say were made when there were no others.
            fields["bets"] = Bets(fields.get("bets", Bets.FIXED.value))
            fields["steps"] = tuple(WalkStep.from_json(step) for step in fields["steps"])
            if fields.get("failed") is not None:
                fields["failed"] = WalkStep.from_json(fields["failed"])
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"the certificate cannot be read: {error!r}") from error


def _check(certificate: Certificate) -> None:
    c = certificate
    if not (0 < c.risk < 1 and c.candidates >= 1 and c.samples >= 1):
        raise InputError(
            f"a certificate needs a risk within 0..1, at least one candidate and one sample, "
            f"not {c.risk}, {c.candidates} and {c.samples}"
        )
    if not c.steps or len(c.steps) > c.grid_size or not math.isfinite(c.max_drop_points):
        raise InputError(
            f"a certificate of {len(c.steps)} steps over {c.grid_size} thresholds for a drop of "
            f"{c.max_drop_points} points states nothing"
        )
    for before, step in zip((None, *c.steps[:-1]), c.steps, strict=True):
        if before is not None and not step.threshold < before.threshold:
            raise InputError("a certificate's thresholds must go from strict to loose")
        step.check(evidence=c.evidence, samples=c.samples)
