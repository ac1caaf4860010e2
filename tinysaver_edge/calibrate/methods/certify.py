"""`--method certified`: the loosest threshold whose drop stays within ε with confidence 1 - δ.

Score, fusion and split come from rules that look at no label of the certify samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.methods.counts import CertifiedTest, Verdicts
from tinysaver_edge.calibrate.methods.fitting import FITTED_SCORES, fit_fusion, fit_score
from tinysaver_edge.calibrate.methods.path import Path
from tinysaver_edge.calibrate.methods.reuse import EpochTest, ReusePath
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, Fusion, NoFusion, fusion_names
from tinysaver_edge.outputs import FloatArray, IntArray, Outputs, all_but
from tinysaver_edge.questions.known import Known
from tinysaver_edge.score import Head, Margin, Score, get_score

FUSE_FROM_LOST = 15
"""Fuse where the bound allows this many samples to be lost; below, the answers that a fusion
changes add more noise to the test than they win (docs/certificate.md)."""

TUNE_SHARE = 0.05
HEAD_TUNE_SHARE = 0.2
LEAST_TUNE = 200
TUNED_THRESHOLDS = 250


@dataclass(frozen=True, slots=True)
class CertifyRule:
    """What to certify for one pair, before any sample is looked at.

    A name means "fit it on the tune split where it learns anything"; a value is taken as it is.
    """

    score: Score | str
    fusion: Fusion | str

    @property
    def tune_share(self) -> float:
        """The share of the samples to tune on; 0 where there is nothing to fit or to choose."""
        if self.score == Head.name:
            return HEAD_TUNE_SHARE
        if self._learns_score or self._learns_fusion or self.plain_score.fixed_thresholds() is None:
            return TUNE_SHARE
        return 0.0

    def fitted(self, saver: Outputs, large: Outputs, truth: IntArray) -> tuple[Score, Fusion]:
        """Fit on the tune samples what learns."""
        score = (
            fit_score(
                str(self.score),
                saver,
                saver_correct=saver.predictions == truth,
                large_correct=large.predictions == truth,
            )
            if self._learns_score
            else self.plain_score
        )
        if self._learns_fusion:
            return score, fit_fusion(str(self.fusion), saver, large, truth)
        return score, self.plain_fusion

    @property
    def _learns_score(self) -> bool:
        return isinstance(self.score, str) and self.score in FITTED_SCORES

    @property
    def _learns_fusion(self) -> bool:
        return isinstance(self.fusion, str) and self.fusion != NoFusion.name

    @property
    def needs_labels(self) -> bool:
        """Whether something is fitted to the true classes."""
        return self._learns_score or self._learns_fusion

    @property
    def fuses(self) -> bool:
        """Whether the answer after an escalation may be another than the large model's."""
        return self._learns_fusion or self.plain_fusion.changes_answers

    @property
    def plain_score(self) -> Score:
        """The score, where it learns nothing."""
        return get_score(self.score) if isinstance(self.score, str) else self.score

    @property
    def plain_fusion(self) -> Fusion:
        """The fusion, where it learns nothing."""
        return NoFusion() if isinstance(self.fusion, str) else self.fusion


def default_rule(
    *,
    units: int,
    max_drop_points: float,
    labelled: bool,
    score: Score | str | None = None,
    fusion: Fusion | str | None = None,
) -> CertifyRule:
    """The rule: the margin, fused by constant weights where there are enough labelled samples.

    Nothing is fitted, so no sample is spent on tuning, which wins less than it costs
    (docs/certificate.md). Without labels a fused answer that differs from the large model's only
    counts against the cascade, so there is no fusion.

    Args:
        units: how many independent samples (or groups) there are, a tune split included.
        max_drop_points: ε, in points.
        labelled: whether the true classes are known.
        score: what the user asked for instead, or None.
        fusion: likewise.

    Raises:
        InputError: a fusion is asked for by a name that there is not.
    """
    if isinstance(fusion, str) and fusion not in fusion_names():
        raise InputError(f"no fusion is called {fusion!r}: there are {', '.join(fusion_names())}")
    if fusion is None:
        fusion = default_fusion(units=units, max_drop_points=max_drop_points, labelled=labelled)
    return CertifyRule(score=Margin() if score is None else score, fusion=fusion)


def default_fusion(*, units: int, max_drop_points: float, labelled: bool) -> Fusion:
    """The fusion of `default_rule` where none is asked for; see there."""
    enough = labelled and units * max_drop_points / 100 >= FUSE_FROM_LOST
    return ConditionalLogit() if enough else NoFusion()


def split(units: int | IntArray, *, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Tune and certify samples by a seeded permutation; groups stay whole.

    Args:
        units: number of samples, or each sample's group (n,), numbered from 0.
        share: share of the samples (or groups) to tune on, 0..1.
        seed: of the permutation.

    Returns:
        Indices of the tune samples and of the certify samples, each rising.
    """
    groups = np.arange(units) if isinstance(units, int) else units
    count = int(groups.max()) + 1 if len(groups) else 0
    wanted = 0 if share == 0 else min(count // 2, max(math.ceil(share * count), LEAST_TUNE))
    tuned = np.zeros(count, dtype=bool)
    tuned[np.random.default_rng(seed).permutation(count)[:wanted]] = True
    return np.flatnonzero(tuned[groups]), np.flatnonzero(~tuned[groups])


def tuned_thresholds(scores: FloatArray) -> FloatArray:
    """Thresholds from strict to loose at even accept rates of the tune samples.

    Args:
        scores: float64 (n,) of the tune samples.
    """
    rates = np.linspace(1 / TUNED_THRESHOLDS, 1.0, TUNED_THRESHOLDS)
    values = np.quantile(scores, 1.0 - rates, method="lower")
    return np.unique(values)[::-1].copy()


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedChoice:
    """What was certified for one cascade, or why nothing was.

    Attributes:
        score: the score, fitted where it learns.
        fusion: the fusion, fitted where it learns.
        threshold: the loosest certified one; None where nothing may be accepted.
        certificate: with all counts; None where there is no threshold.
        tune_index: int64, samples that score, fusion or thresholds were chosen on; often none.
        certify_index: int64, samples that the certificate rests on.
        why: in one line, what is promised, or what is missing.
        trial: what the certificate was computed from, for a certificate at another threshold.
    """

    score: Score
    fusion: Fusion
    threshold: float | None
    certificate: Certificate | None
    tune_index: IntArray
    certify_index: IntArray
    why: str
    trial: CertifiedTest


def certify_pair(
    saver: Outputs,
    large: Outputs,
    labels: IntArray | Known | None,
    **asked: Any,  # noqa: ANN401 - as `certify` takes them
) -> CertifiedChoice:
    """Certify the loosest threshold for one saver and one large model; see `certify`."""
    return certify((saver, large), labels, **asked)


def certify(
    stages: Sequence[Outputs],
    labels: IntArray | Known | None,
    *,
    max_drop_points: float,
    confidence: float = 0.9,
    candidates: int = 1,
    seed: int = 0,
    score: Score | str | None = None,
    fusion: Fusion | str | None = None,
    tune: IntArray | None = None,
    groups: NDArray[np.generic] | None = None,
    timeline: EpochTimeline | None = None,
) -> CertifiedChoice:
    """Certify the loosest threshold for a cascade, cheapest stage first.

    Two stages are combined by a fusion, more of them by a pool, with a path of constants.

    Args:
        stages: each model's outputs on the same n samples, at least two; the last is the large one.
        labels: int64 (n,), the true classes, or what is known of them, the rest at its worst; None
            to take the large model's answers for them, which promises consistency and with it the
            drop.
        max_drop_points: ε, in points.
        confidence: 1 - δ, within 0..1.
        candidates: J, how many cascades are certified on these samples; each gets δ / J.
        seed: of the tune split, where there is one.
        score: a value is used as it is; a name is fitted on the tune split where it learns;
            None for the margin.
        fusion: likewise; None for the rule in `certify_rule.default_rule`. With more than two
            stages it only says whether the large model's answer is pooled with those before it.
        tune: int64 indices to tune on, instead of a split of the rule's size.
        groups: (n,) group of each sample, of any type, where samples of a group are not
            independent (frames of one clip).
        timeline: of the samples, where they are frames of epochs and answers are reused within
            each: the path then has `still` and `same` as well, and the groups are the epochs.

    Raises:
        InputError: lengths differ, or a number, score or fusion makes no sense.
    """
    saver, large = stages[0], stages[-1]
    known = _checked_truth(stages, labels)
    if not (0 < confidence < 1 and candidates >= 1 and np.isfinite(max_drop_points)):
        raise InputError(
            f"cannot certify a drop of {max_drop_points} points at confidence {confidence} for "
            f"{candidates} candidates: confidence lies within 0..1, candidates are 1 or more"
        )
    if timeline is not None:
        groups = timeline.positions
        _check_epochs(score, fusion)
    group_of = None if groups is None else _numbered(groups, samples=known.samples)
    rule = default_rule(
        units=known.samples if group_of is None else int(group_of.max()) + 1,
        max_drop_points=max_drop_points,
        labelled=labels is not None and not isinstance(labels, Known),
        score=score,
        fusion=fusion,
    )
    path = Path.of(len(stages) - 1, final=rule.fuses)
    if rule.needs_labels and isinstance(labels, Known):
        raise InputError(
            "this score or fusion learns from labels, and answers to questions are none: use "
            "margin, msp or entropy, and a fusion of constant weights"
        )
    tune_index, certify_index = _split(rule, known.samples, group_of, tune=tune, seed=seed)
    chosen_score, chosen_fusion = rule.fitted(
        saver.subset(tune_index), large.subset(tune_index), known.truth[tune_index]
    )
    chosen_score = chosen_score.suited_to(saver)
    trial = trial_of(
        chosen_score,
        chosen_fusion,
        path,
        tune_saver=saver.subset(tune_index),
        stages=[one.subset(certify_index) for one in stages] if len(tune_index) else stages,
        known=known.subset(certify_index) if len(tune_index) else known,
        groups=None if group_of is None else _drawn(group_of[certify_index], seed=seed),
        evidence=EvidenceKind.of(
            labelled=labels is not None,
            unit="samples" if groups is None else "groups" if timeline is None else "epochs",
        ),
        risk=round(1 - confidence, 12),
        candidates=candidates,
        timeline=(
            timeline.subset(certify_index) if timeline is not None and len(tune_index) else timeline
        ),
    )
    certificate, why = trial.certify(max_drop_points)
    return CertifiedChoice(
        score=chosen_score,
        fusion=NoFusion() if path.pool is not None else chosen_fusion,
        threshold=None if certificate is None else certificate.threshold,
        certificate=certificate,
        tune_index=tune_index,
        certify_index=certify_index,
        why=why,
        trial=trial,
    )


def trial_of(
    score: Score,
    fusion: Fusion,
    path: Path,
    *,
    tune_saver: Outputs,
    stages: Sequence[Outputs],
    known: Known,
    groups: IntArray | None,
    evidence: EvidenceKind,
    risk: float,
    candidates: int,
    timeline: EpochTimeline | None = None,
) -> CertifiedTest:
    """Score and answer the certify samples, and judge the answers by what is known."""
    thresholds = score.fixed_thresholds()
    if thresholds is None and path.stages > 1:
        raise InputError(
            f"score {score.name!r} has no scale of its own, which the thresholds of several stages "
            f"follow from: use margin or msp"
        )
    if thresholds is None:
        thresholds = tuned_thresholds(score(tune_saver))
    answers = path.pooled(stages)
    given = [one.predictions for one in answers]
    if path.pool is None and fusion.changes_answers:
        given[-1] = fusion.fuse(answers[-2], answers[-1])[0]
    large = stages[-1].predictions
    common: dict[str, Any] = {
        "path": path,
        "scores": np.stack([score(one) for one in answers[:-1]]),
        "answers": Verdicts(np.stack([known.losses(one, large) for one in given])),
        "given": np.stack(given),
        "large": large,
        "evidence": evidence,
        "groups": groups,
        "risk": risk,
        "candidates": candidates,
    }
    if timeline is None:
        return CertifiedTest(thresholds=thresholds, **common)
    reuse = ReusePath.fixed()
    return EpochTest(
        thresholds=reuse.thresholds,
        timeline=timeline,
        saver=stages[0],
        known=known,
        reuse=reuse,
        **common,
    )


def _check_epochs(score: Score | str | None, fusion: Fusion | str | None) -> None:
    """Refuse what would take epochs to learn from, or has no scale that a path is made for."""
    known = score is None or getattr(score, "name", score) == Margin.name
    plain = fusion is None or not isinstance(fusion, str) or fusion == NoFusion.name
    if not known or not plain:
        raise InputError(
            f"over epochs the score is {Margin.name} and nothing is fitted: leave --score out, and "
            f"--fusion but for {NoFusion.name}"
        )


def _split(
    rule: CertifyRule,
    n: int,
    groups: IntArray | None,
    *,
    tune: IntArray | None,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Indices to tune and to certify on: the given ones, or a seeded split of the rule's size."""
    if tune is None:
        units = n if groups is None else groups
        chosen = split(units, share=rule.tune_share, seed=seed)
    else:
        if len(tune) and not (tune.min() >= 0 and tune.max() < n):
            raise InputError(f"tune indices go beyond the {n} samples")
        chosen = np.unique(tune), all_but(tune, n)
    if rule.tune_share > 0 and not len(chosen[0]):
        raise InputError(
            "this score or fusion learns from tune samples, and there are none: "
            "add samples, or use margin"
        )
    if not len(chosen[1]):
        raise InputError(f"none of the {n} samples are left to certify on: tune on fewer")
    return chosen


def _checked_truth(stages: Sequence[Outputs], labels: IntArray | Known | None) -> Known:
    if not isinstance(labels, Known):
        labels = Known.of_labels(stages[-1].predictions if labels is None else labels)
    known = labels
    sizes = [one.samples for one in stages]
    if len(stages) < 2 or {*sizes} != {known.samples} or not known.samples:
        counted = f"{sizes[0]} saver outputs, {sizes[-1]} large outputs"
        raise InputError(
            f"{counted if len(sizes) == 2 else f'outputs of {sizes} samples'} and {known.samples} "
            "labels: give as many of each, of the same samples, at least one"
        )
    return known


def _numbered(groups: NDArray[np.generic], *, samples: int | None = None) -> IntArray:
    """Groups numbered from 0 without a gap."""
    if samples is not None and groups.shape != (samples,):
        raise InputError(f"{len(groups)} groups for {samples} samples: name one for each sample")
    numbers: IntArray = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return numbers


def _drawn(groups: IntArray, *, seed: int) -> IntArray:
    """Groups numbered from 0 in an order that is drawn, neither by name nor by time.

    The test bets on one group after the other, and none may tell of the next.
    """
    numbers = _numbered(groups)
    order = np.random.default_rng(seed).permutation(int(numbers.max()) + 1)
    return order[numbers]
