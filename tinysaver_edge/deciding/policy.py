"""The policy and its judge: which stage answers. Replayed over records, or frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.decision import (
    AnswerSource,
    BundleIdentity,
    Decision,
    FrameId,
    ModelIdentity,
    Reason,
    StageRef,
)
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.outputs import Outputs

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import Manifest, Named, StageEntry
    from tinysaver_edge.fusion import Fusion, LinearFusion
    from tinysaver_edge.score import Score


@dataclass(frozen=True, slots=True)
class StagePolicy:
    """When one stage's answer is accepted.

    Attributes:
        model: name of the stage's model.
        macs: what one frame costs it, or None where it is not known.
        score: how far its answer is trusted; None for the last stage.
        threshold: accepted when ``score >= threshold``; None accepts nothing.
    """

    model: str
    macs: float | None = None
    score: Score | None = None
    threshold: float | None = None

    @property
    def never_accepts(self) -> bool:
        """Whether asking this stage would be in vain, unless it is the last."""
        return self.score is None or self.threshold is None


@dataclass(frozen=True, slots=True)
class Policy:
    """The stages, cheapest first, and how answers are combined after an escalation.

    With a pool the answer after stage k is a mixture, Q_k = (1 - w_k) P_k + w_k Q_(k-1), and stage
    k's score is that of Q_k.

    Attributes:
        stages: at least one; all but the last have a score and a threshold.
        fusion: combines the last early stage's answer with the large model's; None takes the
            large model's alone.
        pool: w of every stage but the first, each within 0..1; None pools nothing. Excludes a
            fusion: of two stages a pool is the linear one.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    stages: tuple[StagePolicy, ...]
    fusion: Fusion | None = None
    pool: tuple[float, ...] | None = None
    _mixtures: tuple[LinearFusion | None, ...] = field(
        default=(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a cascade needs at least one stage")
        if self.pool is not None:
            object.__setattr__(self, "_mixtures", _mixtures(self, self.pool))

    @property
    def asked(self) -> tuple[int, ...]:
        """The stages worth asking, in order: those that may accept, those pooled, and the last."""
        asked = [len(self.stages) - 1]
        for position in range(len(self.stages) - 2, -1, -1):
            pooled = self.pools(position + 1) and asked[-1] == position + 1
            if pooled or not self.stages[position].never_accepts:
                asked.append(position)
        return tuple(reversed(asked))

    def pools(self, position: int) -> bool:
        """Whether the answer of stage `position`, from 0, is mixed with the one before it."""
        return bool(self._mixtures) and self._mixtures[position] is not None

    def after(self, position: int, earlier: Outputs | None, outputs: Outputs) -> Outputs:
        """Return the answer after a stage, before any fusion: the pool, or what it answered.

        Args:
            position: which stage.
            earlier: the answer after the stage asked before it; None where it is the first.
            outputs: what it answered on the same samples.
        """
        mixture = self._mixtures[position] if self._mixtures else None
        return outputs if mixture is None or earlier is None else mixture.pooled(earlier, outputs)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Policy:
        """Read the policy off a bundle's manifest.

        Raises:
            InputError: a score or fusion is unknown here, or a parameter is wrong.
        """
        return cls(
            tuple(_stage_policy(stage) for stage in manifest.stages),
            _fusion(manifest.fusion),
            None if manifest.pool is None else tuple(manifest.pool),
        )


def _mixtures(policy: Policy, pool: Sequence[float]) -> tuple[LinearFusion | None, ...]:
    """Return what mixes each stage's answer with the one before; None where nothing does."""
    from tinysaver_edge.fusion import LinearFusion

    if policy.fusion is not None:
        raise InputError("a cascade has a fusion or a pool, not both")
    if len(pool) != len(policy.stages) - 1:
        raise InputError(
            f"a pool of {len(policy.stages)} stages has {len(policy.stages) - 1} weights, one for "
            f"each but the first: there are {len(pool)}"
        )
    mixtures = (None, *(LinearFusion(weight) if weight else None for weight in pool))
    for stage, mixture in zip(policy.stages[:-1], mixtures, strict=False):
        if mixture is not None and stage.score is not None:
            _check_scores_pools(stage)
    return mixtures


def _check_scores_pools(stage: StagePolicy) -> None:
    """Refuse a score that takes the logits of one model: a pool has probabilities."""
    assert stage.score is not None
    try:
        stage.score(_A_POOL)
    except InputError:
        raise InputError(
            f"stage {stage.model}: score {stage.score.name!r} needs the logits of one model, and a "
            f"pool has none: use margin, msp, entropy or doctor"
        ) from None


_A_POOL = Outputs(
    top_class=np.arange(5)[None], top_prob=np.array([[0.5, 0.2, 0.1, 0.1, 0.1]], np.float32)
)


def _stage_policy(stage: StageEntry) -> StagePolicy:
    from tinysaver_edge.score import get_score

    score = stage.score
    return StagePolicy(
        model=stage.model.name,
        macs=stage.model.macs,
        score=None if score is None else get_score(score.name, score.parameters),
        threshold=stage.threshold,
    )


def _fusion(named: Named | None) -> Fusion | None:
    if named is None:
        return None
    from tinysaver_edge.fusion import get_fusion

    return get_fusion(named.name, named.parameters)


@overload
def reaches(score: float, threshold: float) -> bool: ...
@overload
def reaches(score: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]: ...
def reaches(score: float | NDArray[np.float64], threshold: float) -> bool | NDArray[np.bool_]:
    """The policy's rule, of one score or of many: accept when ``score >= threshold``."""
    return score >= threshold


def as_it_is(threshold: float) -> float:
    """Return a bundle's threshold: nothing asks for a stricter one."""
    return threshold


@dataclass(frozen=True, slots=True)
class Replay:
    """What a policy does with recorded answers.

    Attributes:
        predictions: the final class of each sample, ``(n,)``.
        stage: position of the stage whose answer ended each sample, ``(n,)``.
        score: the first asked stage's score, ``(n,)``; NaN where no stage has one.
    """

    predictions: NDArray[np.int64]
    stage: NDArray[np.int64]
    score: NDArray[np.float64]


def replay(policy: Policy, outputs: Sequence[Outputs]) -> Replay:
    """Apply a policy to recorded answers.

    Raises:
        InputError: there are more or fewer outputs than stages, or of different lengths.
    """
    if len(outputs) != len(policy.stages) or len({one.samples for one in outputs}) != 1:
        sizes = ", ".join(str(one.samples) for one in outputs)
        raise InputError(f"{len(policy.stages)} stages need as many records of one length: {sizes}")
    samples = outputs[0].samples
    predictions = np.empty(samples, np.int64)
    stage_of = np.empty(samples, np.int64)
    first_score = np.full(samples, np.nan)
    pending = np.arange(samples)
    previous: Outputs | None = None
    for position in policy.asked[:-1]:
        stage = policy.stages[position]
        here = policy.after(position, previous, outputs[position].subset(pending))
        accepted = np.zeros(len(pending), bool)
        if stage.score is not None:
            score = stage.score(here)
            if position == policy.asked[0]:
                first_score[:] = score
            if stage.threshold is not None:
                accepted = reaches(score, stage.threshold)
        predictions[pending[accepted]] = here.predictions[accepted]
        stage_of[pending[accepted]] = position
        pending, previous = pending[~accepted], here.subset(~accepted)
    last = policy.asked[-1]
    large = policy.after(last, previous, outputs[last].subset(pending))
    stage_of[pending] = last
    if policy.fusion is not None and previous is not None:
        predictions[pending] = policy.fusion.fuse(previous, large)[0]
    else:
        predictions[pending] = large.predictions
    return Replay(predictions, stage_of, first_score)


@dataclass(slots=True)
class Case:
    """What is known of one frame while it is being decided.

    Attributes:
        taken_at_s: when it was taken, in seconds since 1970; None where nobody knows.
        score: of the first stage asked.
        position: the last stage that answered, or -1.
        outputs: the answer after it; see `Policy.after`.
        early: the answer after the stage before it, where both are known.
        accepted: whether the answer settles the matter.
        failure: the last one, or None.
        covered: whether its camera is one that a certificate speaks of.
    """

    frame_id: FrameId
    timestamp_s: float
    taken_at_s: float | None = None
    score: float = math.nan
    position: int = -1
    outputs: Outputs | None = None
    early: Outputs | None = None
    accepted: bool = False
    degraded: str | None = None
    failure: EngineError | None = None
    covered: bool = True
    timings_ms: dict[str, float] = field(default_factory=dict)

    def spent(self, step: str, milliseconds: float) -> None:
        """Add to the time spent on a step."""
        self.timings_ms[step] = self.timings_ms.get(step, 0.0) + milliseconds


def no_doubt(answered_by: ModelIdentity | None) -> str | None:
    """Return None: the certificate covers every answer."""
    return None


class Judge:
    """Applies a policy to single frames. Keeps nothing of them: any number of threads may use it.

    Args:
        policy: the stages and the fusion.
        labels: class names, or None to name classes by their index.
        certified: whether a certificate covers what the policy decides.
        fell_back: models that run on another device than asked for.
        doubt_about: says why the certificate does not cover what a model answered, by who the
            answer's host is; None where it does. Asked with None about an answer that no host gave.
        bundle: what the policy is from, for decisions; None where from no bundle.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        labels: Sequence[str] | None,
        certified: bool,
        fell_back: Sequence[str] = (),
        doubt_about: Callable[[ModelIdentity | None], str | None] = no_doubt,
        bundle: BundleIdentity | None = None,
    ) -> None:
        self.bundle = bundle
        self.policy = policy
        self.asked = policy.asked
        self._pooled = policy.pool is not None
        self._labels = labels
        self._certified = certified and not fell_back
        self._doubt_about = doubt_about
        self._elsewhere = (
            f"{', '.join(fell_back)} runs on another device than asked for" if fell_back else None
        )

    def hear(
        self,
        case: Case,
        position: int,
        outputs: Outputs,
        *,
        in_force: Callable[[float], float] = as_it_is,
    ) -> None:
        """Take in a stage's answer.

        Args:
            case: the frame.
            position: which stage.
            outputs: its answer to this frame alone.
            in_force: returns the threshold to hold its score against, by the bundle's.
        """
        case.early, case.outputs, case.position = case.outputs, outputs, position
        policy = self.policy.stages[position]
        if self._pooled:
            case.outputs = outputs = self.policy.after(position, case.early, outputs)
        if position == self.asked[-1]:
            case.accepted = True
            return
        if policy.score is None:
            return
        score = float(policy.score(outputs)[0])
        if position == self.asked[0]:
            case.score = score
        if policy.threshold is not None:
            case.accepted = reaches(score, in_force(policy.threshold))

    def fail(self, case: Case, position: int, error: EngineError) -> None:
        """Go on without a stage's answer."""
        case.failure = error
        case.degraded = f"{self.policy.stages[position].model} failed: {error}"

    def decision(self, case: Case, *, revision: int = 0) -> Decision:
        """Return the decision on what is known.

        Raises:
            EngineError: no stage has answered; how the last one failed.
        """
        if case.outputs is None:
            assert case.failure is not None
            raise case.failure
        index, confidence, source = self._answer(case)
        position = case.position
        degraded = case.degraded or self._elsewhere
        reason = Reason.FAILED if case.degraded else Reason.FALLBACK_DEVICE if degraded else None
        identity = case.outputs.identity
        certified = self._certified and case.covered and degraded is None
        certified = certified and self._doubt_about(identity) is None
        return Decision(
            label=str(index) if self._labels is None else self._labels[index],
            index=index,
            confidence=confidence,
            score=case.score,
            stage=StageRef(position, self.policy.stages[position].model),
            source=source,
            escalated=self._escalated(case) or source is AnswerSource.FALLBACK,
            degraded=degraded,
            certified=certified,
            revision=revision,
            frame_id=case.frame_id,
            timestamp_s=case.timestamp_s,
            taken_at_s=case.taken_at_s,
            timings_ms=case.timings_ms,
            identity=identity,
            reason=reason,
            bundle=self.bundle,
        )

    def _escalated(self, case: Case) -> bool:
        """Whether the large model was asked in place of a saver."""
        return case.position > 0 and case.position == self.asked[-1]

    def _answer(self, case: Case) -> tuple[int, float, AnswerSource]:
        """Return the class, its probability and where it comes from."""
        outputs, fusion = case.outputs, self.policy.fusion
        assert outputs is not None
        last = case.position == self.asked[-1]
        if last and fusion is not None and case.early is not None:
            classes, confidences = fusion.fuse(case.early, outputs)
            return int(classes[0]), float(confidences[0]), AnswerSource.FUSED
        source = (
            self._last_source(case)
            if last
            else AnswerSource.SAVER
            if case.accepted
            else AnswerSource.FALLBACK
        )
        top_classes, probabilities = outputs.top(1)
        return int(top_classes[0, 0]), float(probabilities[0, 0]), source

    def _last_source(self, case: Case) -> AnswerSource:
        pooled = case.early is not None and self.policy.pools(case.position)
        return AnswerSource.FUSED if pooled else AnswerSource.LARGE
