"""From the answers of a cascade's stages to a decision, whoever asked them and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.decision import Decision, FrameId, Source, StageRef
from tinysaver_edge.errors import EngineError
from tinysaver_edge.identity import ModelIdentity
from tinysaver_edge.outputs import Outputs


@dataclass(slots=True)
class Case:
    """What is known of one frame while it is being decided.

    Attributes:
        score: of the first stage asked.
        position: the last stage that answered, or -1.
        outputs: what it answered.
        early: what the stage before it answered, where both are known.
        accepted: whether the answer settles the matter.
        degraded: which stage failed, and how.
    """

    frame_id: FrameId
    timestamp_s: float
    score: float = math.nan
    position: int = -1
    outputs: Outputs | None = None
    early: Outputs | None = None
    accepted: bool = False
    degraded: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)

    def spent(self, step: str, milliseconds: float) -> None:
        """Add to the time spent on a step."""
        self.timings_ms[step] = self.timings_ms.get(step, 0.0) + milliseconds


def reaches(score: float, threshold: float) -> bool:
    """The policy's rule: accept when ``score >= threshold``."""
    return score >= threshold


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
    """

    def __init__(
        self,
        policy: Policy,
        *,
        labels: Sequence[str] | None,
        certified: bool,
        fell_back: Sequence[str] = (),
        doubt_about: Callable[[ModelIdentity | None], str | None] = no_doubt,
    ) -> None:
        self.policy = policy
        self.asked = policy.asked
        self._labels = labels
        self._certified = certified and not fell_back
        self._doubt_about = doubt_about
        self.elsewhere = (
            f"{', '.join(fell_back)} runs on another device than asked for" if fell_back else None
        )

    def hear(
        self,
        case: Case,
        position: int,
        outputs: Outputs,
        *,
        accepts: Callable[[float, float], bool] = reaches,
    ) -> None:
        """Take in a stage's answer.

        Args:
            case: the frame.
            position: which stage.
            outputs: its answer to this frame alone.
            accepts: whether a score and a threshold settle the matter.
        """
        case.early, case.outputs, case.position = case.outputs, outputs, position
        policy = self.policy.stages[position]
        if position == self.asked[-1]:
            case.accepted = True
            return
        assert policy.score is not None
        assert policy.threshold is not None
        score = float(policy.score(outputs)[0])
        if position == self.asked[0]:
            case.score = score
        case.accepted = accepts(score, policy.threshold)

    def fail(self, case: Case, position: int, error: EngineError) -> None:
        """Go on without a stage's answer.

        Raises:
            EngineError: the one given: it was the last stage, and none has answered.
        """
        if position == self.asked[-1] and case.outputs is None:
            raise error
        case.degraded = f"{self.policy.stages[position].model} failed: {error}"

    def decision(self, case: Case, *, revision: int = 0) -> Decision:
        """Return the decision on what is known."""
        index, confidence, source = self._answer(case)
        position = case.position
        degraded = case.degraded or self.elsewhere
        identity = None if case.outputs is None else case.outputs.identity
        certified = self._certified and degraded is None and self._doubt_about(identity) is None
        return Decision(
            label=str(index) if self._labels is None else self._labels[index],
            index=index,
            confidence=confidence,
            score=case.score,
            stage=StageRef(position, self.policy.stages[position].model),
            source=source,
            escalated=position > 0 or source is Source.FALLBACK,
            degraded=degraded,
            certified=certified,
            revision=revision,
            frame_id=case.frame_id,
            timestamp_s=case.timestamp_s,
            timings_ms=case.timings_ms,
            identity=identity,
        )

    def _answer(self, case: Case) -> tuple[int, float, Source]:
        """Return the class, its probability and where it comes from."""
        outputs, fusion = case.outputs, self.policy.fusion
        assert outputs is not None
        last = case.position == self.asked[-1]
        if last and fusion is not None and case.early is not None:
            classes, confidences = fusion.fuse(case.early, outputs)
            return int(classes[0]), float(confidences[0]), Source.FUSED
        source = Source.LARGE if last else Source.SAVER if case.accepted else Source.FALLBACK
        top_classes, probabilities = outputs.top(1)
        return int(top_classes[0, 0]), float(probabilities[0, 0]), source
