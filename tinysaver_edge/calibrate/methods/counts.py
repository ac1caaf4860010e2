"""Counts: which samples each threshold accepts and loses, and the test of a bound on them.

A cascade of any length is named by one threshold, the first stage's: a path has the others'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.certificate.certificate import (
    Certificate,
    WalkStep,
    least_certifiable_points,
    runs_of,
    samples_needed,
    step_p_values,
)
from tinysaver_edge.certificate.p_values import EvidenceKind, count_p_values, walk
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray, IntArray
from tinysaver_edge.questions.known import Known
from tinysaver_edge.questions.tally import Pairs

AT_A_TIME = 16
"""Steps over groups that are tested together."""

SATURATED = 0.05
"""Share of scores at the end of their range from which that is what is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class SortedScores:
    """One saver's scores, sorted once and swept against any number of large models.

    Attributes:
        order: int64 (n,), sample indices by falling score.
        thresholds: float64 (m,), the distinct scores, falling.
        accepted: int64 (m,), samples whose score is at least the threshold.
    """

    order: IntArray
    thresholds: FloatArray
    accepted: IntArray

    @classmethod
    def of(cls, score: NDArray[Any]) -> SortedScores:
        """Sort a saver's scores.

        Args:
            score: (n,), n >= 1, no NaN.

        Raises:
            InputError: there is no sample, or a score is NaN.
        """
        values = np.asarray(score, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"scores have shape {values.shape}: give one number a sample")
        _refuse_nan(values)
        # Which of two equal scores comes first changes nothing, so the quicker unstable sort does.
        order = np.argsort(values)[::-1].copy()
        falling = values[order]
        # The last sample of each run of equal scores: they are accepted together.
        ends = np.flatnonzero(falling[1:] != falling[:-1])
        ends = np.append(ends, len(values) - 1)
        return cls(order=order, thresholds=falling[ends], accepted=ends + 1)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.order)

    def accepted_at(self, thresholds: FloatArray) -> IntArray:
        """How many samples each of any thresholds accepts, (k,) -> (k,)."""
        index = np.searchsorted(-self.thresholds, -np.asarray(thresholds), side="right")
        return np.concatenate(([0], self.accepted))[index]


def _refuse_nan(score: FloatArray) -> None:
    if np.isnan(score).any():
        bad = int(np.isnan(score).argmax())
        raise InputError(f"score of sample {bad} is NaN: check the saver's outputs")


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What the answer of each stage loses on n samples, where it is the one given.

    Attributes:
        losses: int8 (stages, n) of D: 1 where only the large model is right, -1 where only this
            answer is, 0 otherwise; the saver's first, at the end those of the answer given after an
            escalation. Where what is right is not known, the greatest that D may be.
    """

    losses: NDArray[np.int8]

    @classmethod
    def of(cls, right: Sequence[BoolArray], large: BoolArray) -> Verdicts:
        """Judge answers where all is known.

        Args:
            right: for each stage bool (n,), its answer is right.
            large: bool (n,), the large model's own is.
        """
        return cls(np.stack([np.subtract(large, one, dtype=np.int8) for one in right]))

    def subset(self, index: IntArray) -> Verdicts:
        """The losses on some of the samples."""
        return Verdicts(self.losses[:, index])


@dataclass(frozen=True, slots=True, eq=False)
class Reign:
    """Over which of k thresholds, strict to loose, one stage's answer is the one given.

    Attributes:
        first: int64 (n,), number of the first threshold at which it is given.
        end: int64 (n,), number of the first at which it no longer is; none at all up to `first`.
        losses: int8 (n,), D of the answer.
    """

    first: IntArray
    end: IntArray
    losses: NDArray[np.int8]

    @classmethod
    def all_of(cls, scores: FloatArray, answers: Verdicts, thresholds: FloatArray) -> list[Reign]:
        """Return those of every stage, the last one's at the end.

        Args:
            scores: float64 (stages - 1, n).
            answers: what each loses.
            thresholds: float64 (stages - 1, k), none of a stage's above the one before it.
        """
        # An earlier stage's answer goes before a later one's, wherever both would accept.
        end = np.full(scores.shape[1], thresholds.shape[1])
        reigns = []
        for score, row, losses in zip(scores, thresholds, answers.losses[:-1], strict=True):
            _refuse_nan(score)
            first = np.searchsorted(-row, -score, side="left")
            reigns.append(cls(first, end, losses))
            end = np.minimum(end, first)
        return [*reigns, cls(np.zeros_like(end), end, answers.losses[-1])]

    def over(self, event: BoolArray, thresholds: int) -> IntArray:
        """Count the samples with an event that it answers, at each threshold, (k,)."""
        given = event & (self.first < self.end)
        begun = np.bincount(self.first[given], minlength=thresholds + 1)
        over = np.bincount(self.end[given], minlength=thresholds + 1)
        counted: IntArray = np.cumsum(begun - over)[:thresholds]
        return counted


@dataclass(frozen=True, slots=True, eq=False)
class WalkCounts:
    """Counts at each of k thresholds.

    Attributes:
        thresholds: float64 (k,), strict to loose.
        accepted: int64 (k,), samples accepted.
        lost: int64 (k,), samples where only the large model is right (D = 1).
        gained: int64 (k,), samples where only the cascade is right (D = -1).
        reached: int64 (stages - 1, k), samples that go on to the second stage, the third, the last.
        asked: int64 (k,), samples that the first stage is asked about; None for all of them.
    """

    thresholds: FloatArray
    accepted: IntArray
    lost: IntArray
    gained: IntArray
    samples: int
    reached: IntArray
    asked: IntArray | None = None

    @classmethod
    def of(cls, scores: SortedScores, answers: Verdicts, thresholds: FloatArray) -> WalkCounts:
        """Count at any thresholds, two passes over the samples for all of them together."""
        accepted = scores.accepted_at(thresholds)
        saver, final = answers.losses
        return cls(
            thresholds=thresholds,
            accepted=accepted,
            lost=_count(scores, saver == 1, final == 1, accepted),
            gained=_count(scores, saver == -1, final == -1, accepted),
            samples=scores.samples,
            reached=(scores.samples - accepted)[None],
        )

    @classmethod
    def along(
        cls, path: Path, scores: FloatArray, answers: Verdicts, thresholds: FloatArray
    ) -> WalkCounts:
        """Count along the path of a cascade of any length.

        Args:
            path: gives the other stages' thresholds.
            scores: float64 (stages - 1, n), n >= 1, no NaN.
            answers: what each stage's loses on the n samples.
            thresholds: float64 (k,), the first stage's, strict to loose.
        """
        count = len(thresholds)
        reigns = Reign.all_of(scores, answers, path.thresholds(thresholds))
        lost = sum(one.over(one.losses == 1, count) for one in reigns)
        gained = sum(one.over(one.losses == -1, count) for one in reigns)
        # Whom a stage is asked about is whom no stage before it accepts.
        asked = [np.cumsum(np.bincount(one.end, minlength=count + 1)) for one in reigns[1:]]
        samples = scores.shape[1]
        reached = samples - np.array(asked)[:, :count]
        return cls(
            thresholds=thresholds,
            accepted=samples - reached[-1],
            lost=np.asarray(lost),
            gained=np.asarray(gained),
            samples=samples,
            reached=reached,
        )

    def step(self, index: int, *, group_losses: tuple[tuple[float, int], ...] = ()) -> WalkStep:
        """The counts at one threshold, with the groups' losses where there are groups."""
        return WalkStep(
            threshold=float(self.thresholds[index]),
            accepted=int(self.accepted[index]),
            lost=int(self.lost[index]),
            gained=int(self.gained[index]),
            group_losses=group_losses,
        )


def group_losses(
    scores: FloatArray, answers: Verdicts, groups: IntArray, thresholds: FloatArray
) -> Iterator[tuple[tuple[float, int], ...]]:
    """Each threshold's mean losses of the groups, in the order of their numbers, as runs.

    Args:
        scores: float64 (stages - 1, n).
        answers: what each stage's loses on the n samples.
        groups: int64 (n,), each sample's group, numbered from 0 without a gap.
        thresholds: float64 (stages - 1, k), strict to loose.
    """
    sizes = np.bincount(groups)
    at, whose, change = _changes(Reign.all_of(scores, answers, thresholds), groups)
    order = np.argsort(at, kind="stable")
    count = thresholds.shape[1]
    bounds = np.searchsorted(at[order], np.arange(count + 1))
    total = np.zeros(len(sizes))
    for index in range(count):
        new = order[bounds[index] : bounds[index + 1]]
        total += np.bincount(whose[new], weights=change[new], minlength=len(sizes))
        yield runs_of(total / sizes)


def _changes(reigns: list[Reign], groups: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return at which threshold whose group's loss changes, and by how much."""
    at, whose, change = [], [], []
    for one in reigns:
        loss = one.losses.astype(np.int64)
        given = (one.first < one.end) & (loss != 0)
        at += [one.first[given], one.end[given]]
        whose += [groups[given]] * 2
        change += [loss[given], -loss[given]]
    return np.concatenate(at), np.concatenate(whose), np.concatenate(change)


def _count(
    scores: SortedScores, if_accepted: BoolArray, if_escalated: BoolArray, accepted: IntArray
) -> IntArray:
    """Samples with the event, when the first `accepted` by score are accepted."""
    change = np.subtract(if_accepted, if_escalated, dtype=np.int8)
    summed = np.concatenate(([0], np.cumsum(change[scores.order], dtype=np.int64)))
    return summed[accepted] + int(np.count_nonzero(if_escalated))


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedTest:
    """What a certificate is computed from.

    Attributes:
        path: how the stages' thresholds follow from the first one's.
        scores: float64 (stages - 1, n), of the answer after each stage, on the certify samples.
        answers: what each stage's answer loses on them.
        given: int64 (stages, n), the class that each stage answers; the fused ones at the end.
        large: int64 (n,), the classes that the large model answers by itself.
        thresholds: float64 (k,), the first stage's, strict to loose, fixed before these samples
            were seen.
        evidence: what the samples are.
        groups: int64 (n,), each sample's group from 0 without a gap, or None.
        risk: δ, over all candidates together.
        candidates: J, how many candidates share the risk.
    """

    path: Path
    scores: FloatArray
    answers: Verdicts
    given: IntArray
    large: IntArray
    thresholds: FloatArray
    evidence: EvidenceKind
    groups: IntArray | None
    risk: float
    candidates: int

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return int(self.scores.shape[1])

    def counted(self, thresholds: FloatArray) -> WalkCounts:
        """Count at any thresholds of the first stage."""
        return WalkCounts.along(self.path, self.scores, self.answers, thresholds)

    @property
    def share(self) -> float:
        """δ / J."""
        return self.risk / self.candidates

    def pairs(self) -> Pairs:
        """Return where along the walk which answers differ from the large model's, and how."""
        reigns = Reign.all_of(self.scores, self.answers, self.path.thresholds(self.thresholds))
        rows = [
            np.flatnonzero((answer != self.large) & (one.first < one.end))
            for one, answer in zip(reigns, self.given, strict=True)
        ]
        sample = np.concatenate(rows)
        return Pairs(
            sample=sample,
            first=np.concatenate([one.first[row] for one, row in zip(reigns, rows, strict=True)]),
            end=np.concatenate([one.end[row] for one, row in zip(reigns, rows, strict=True)]),
            answer=np.concatenate([one[row] for one, row in zip(self.given, rows, strict=True)]),
            large=self.large[sample],
            escalated=np.repeat(np.arange(len(rows)) == len(rows) - 1, [len(row) for row in rows]),
        )

    def open_at(self, threshold: float, known: Known) -> int:
        """Return how many questions that bear on a threshold have no answer."""
        stage = self.path.settles(self.scores, threshold)
        answers = self.given[stage, np.arange(self.samples)]
        return int(known.open(answers, self.large).sum())

    def certify(self, max_drop_points: float) -> tuple[Certificate | None, str]:
        """Walk the thresholds and certify the loosest that passed before the first failure.

        Args:
            max_drop_points: ε, in points.

        Returns:
            The certificate, or None with what is missing in one line.
        """
        steps, p_values = self._walked(self.thresholds, max_drop_points)
        last = walk(p_values, risk=self.share)
        if last is None:
            return None, self._missing(steps[0], max_drop_points)
        failed = steps[last + 1] if last + 1 < len(steps) else None
        certificate = self._certificate(max_drop_points, tuple(steps[: last + 1]), failed)
        return certificate, certificate.statement

    def certify_at(self, threshold: float) -> Certificate:
        """The least drop that can be signed at a threshold that came from elsewhere.

        Valid where the threshold was chosen without a look at who is right on these samples, as
        one is that follows from a budget.
        """
        steps, _ = self._walked(np.array([threshold]), 100.0)
        points = least_certifiable_points(
            steps[0], evidence=self.evidence, samples=self.samples, risk=self.share
        )
        return self._certificate(points, tuple(steps), None, grid_size=1)

    def least_reaching(self, position: int) -> float | None:
        """The least drop in points at which the walk reaches a threshold; None where none does.

        Args:
            position: of the threshold. All stricter ones must pass as well.
        """
        reached = self.thresholds[: position + 1]

        def passes(thousandths: int) -> bool:
            _, p_values = self._walked(reached, thousandths / 1000)
            return walk(p_values, risk=self.share) == position

        low, high = 0, 100_000
        if not passes(high - 1):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return high / 1000

    def _certificate(
        self,
        max_drop_points: float,
        steps: tuple[WalkStep, ...],
        failed: WalkStep | None,
        *,
        grid_size: int | None = None,
    ) -> Certificate:
        return Certificate(
            evidence=self.evidence,
            max_drop_points=max_drop_points,
            risk=self.risk,
            candidates=self.candidates,
            samples=self.samples,
            grid_size=len(self.thresholds) if grid_size is None else grid_size,
            steps=steps,
            failed=failed,
        )

    def _walked(
        self, thresholds: FloatArray, max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        """Steps and p-values up to the first failure, that one included."""
        counts = self.counted(thresholds)
        if self.groups is None:
            p_values: list[float] = count_p_values(
                counts.lost,
                counts.gained,
                evidence=self.evidence,
                samples=counts.samples,
                max_drop_points=max_drop_points,
                risk=self.share,
            ).tolist()
            last = walk(p_values, risk=self.share)
            reached = min(len(thresholds), 1 + (0 if last is None else last + 1))
            return [counts.step(index) for index in range(reached)], p_values[:reached]
        return self._walked_groups(counts, self.groups, max_drop_points)

    def _walked_groups(
        self, counts: WalkCounts, groups: IntArray, max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        losses = group_losses(
            self.scores, self.answers, groups, self.path.thresholds(counts.thresholds)
        )
        steps = (counts.step(place, group_losses=runs) for place, runs in enumerate(losses))
        return self._walked_lazily(steps, max_drop_points)

    def _walked_lazily(
        self, steps: Iterator[WalkStep], max_drop_points: float
    ) -> tuple[list[WalkStep], list[float]]:
        """Test some steps at a time, which costs little more than one, until one fails."""
        walked: list[WalkStep] = []
        p_values: list[float] = []
        while some := list(islice(steps, AT_A_TIME)):
            p_values += step_p_values(
                some,
                evidence=self.evidence,
                samples=self.samples,
                max_drop_points=max_drop_points,
                risk=self.share,
            )
            walked += some
            reached = walk(p_values, risk=self.share)
            if reached != len(walked) - 1:
                end = 1 if reached is None else reached + 2
                return walked[:end], p_values[:end]
        return walked, p_values

    def _missing(self, first: WalkStep, max_drop_points: float) -> str:
        """Why not even the strictest threshold passes, and what would help."""
        n = self.samples
        wish = f"a drop of {max_drop_points:g} points at confidence {1 - self.risk:g}"
        if self.candidates > 1:
            wish += f" shared by {self.candidates} candidates"
        if self.groups is not None:
            units = int(self.groups.max()) + 1
            what = self.evidence.unit if self.evidence.unit == "epochs" else "groups of samples"
            return f"{units} {what} do not prove {wish}: add {self.evidence.unit}, or allow more"
        least = samples_needed(max_drop_points, risk=self.share)
        if least is not None and n < least:
            return f"{n} samples cannot prove {wish}: at least {least} are needed"
        needed = samples_needed(
            max_drop_points,
            risk=self.share,
            lost_rate=first.lost / n,
            gained_rate=first.gained / n,
        )
        if needed is None:
            return (
                f"the cascade loses {100 * (first.lost - first.gained) / n:.2g} points at the "
                f"strictest threshold already, which rules out {wish}: {self._remedy()}"
            )
        return f"{n} samples do not prove {wish}: as these answers differ, about {needed} would"

    def _remedy(self) -> str:
        """Say what helps a cascade that loses too much where it accepts least."""
        saturated = float((self.scores[0] >= 1.0).mean())
        if saturated > SATURATED:
            return (
                f"{100 * saturated:.0f} % of the scores are saturated at 1, since the saver's "
                "logits are very large: try --score maxlogit_pnorm, or allow more"
            )
        return "allow more, or fuse nothing"
