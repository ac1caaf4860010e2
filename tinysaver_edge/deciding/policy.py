"""The policy: which stage answers. Replayed here over records; a Cascade applies it to frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import Manifest, Named, StageEntry
    from tinysaver_edge.fusion import Fusion
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

    Attributes:
        stages: at least one; all but the last have a score and a threshold.
        fusion: combines the last early stage's answer with the large model's; None takes the
            large model's alone.
    """

    stages: tuple[StagePolicy, ...]
    fusion: Fusion | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a cascade needs at least one stage")

    @property
    def asked(self) -> tuple[int, ...]:
        """The stages worth asking, in order: those that may accept, and the last."""
        last = len(self.stages) - 1
        return (*(i for i in range(last) if not self.stages[i].never_accepts), last)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Policy:
        """Read the policy off a bundle's manifest.

        Raises:
            InputError: a score or fusion is unknown here, or a parameter is wrong.
        """
        return cls(
            tuple(_stage_policy(stage) for stage in manifest.stages), _fusion(manifest.fusion)
        )


def is_certified(manifest: Manifest) -> bool:
    """Whether a bundle's certificate speaks of the policy beside it.

    A threshold that was edited by hand is none of those that passed, and another codec shows the
    large model other pixels. The counts are not checked here: `verify` recomputes them.
    """
    from tinysaver_edge.certificate import Certificate

    entry, threshold = manifest.certificate, manifest.stages[0].threshold
    if entry is None or threshold is None:
        return False
    if {stage.model.name for stage in manifest.stages} != set(entry.models):
        return False
    if manifest.stages[-1].model.codec != entry.codec:
        return False
    try:
        return Certificate.from_json(entry.counts).covers(threshold)
    except InputError:
        return False


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

    Args:
        policy: the stages.
        outputs: each stage's answers on the same n samples, in the same order.

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
        assert stage.score is not None
        assert stage.threshold is not None
        here = outputs[position].subset(pending)
        score = stage.score(here)
        if previous is None:
            first_score[:] = score
        accepted = score >= stage.threshold
        predictions[pending[accepted]] = here.predictions[accepted]
        stage_of[pending[accepted]] = position
        pending, previous = pending[~accepted], outputs[position]
    last = policy.asked[-1]
    large = outputs[last].subset(pending)
    stage_of[pending] = last
    if policy.fusion is not None and previous is not None:
        predictions[pending] = policy.fusion.fuse(previous.subset(pending), large)[0]
    else:
        predictions[pending] = large.predictions
    return Replay(predictions, stage_of, first_score)
