"""Memory: what one camera showed and what was answered, so that what looks alike is not asked."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from tinysaver_edge.deciding.decider import Decider
from tinysaver_edge.deciding.policy import Case
from tinysaver_edge.decision import AnswerSource, Decision, Likeness, Reason, Reused
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.reuse import Gate, Look, ReuseRule, Thumbnailer

REPEATABLE = (None, Reason.FALLBACK_DEVICE, Reason.LOCAL)
"""What an answer may be degraded by and still be repeated: asked again, it would be the same."""


@dataclass(slots=True, eq=False)
class Remembered:
    """What becomes of a frame that a model was asked about, for those that look like it.

    Attributes:
        decision: its final decision; None while it is under way, and where there is none.
        stand_in: the saver's, for as long as the large model has not answered.
        ended: whether there will be no other: then it is repeated, or nothing is.
    """

    decision: Decision | None = None
    stand_in: Decision | None = None
    ended: bool = False

    def end(self, decision: Decision | None) -> bool:
        """Take the final decision; tell whether it may be repeated."""
        self.ended = True
        if decision is None or decision.reason not in REPEATABLE:
            self.stand_in = decision or self.stand_in
            return False
        self.decision, self.stand_in = decision, None
        return True


GAPS = 16
"""Gaps between frames that tell how fast a camera is."""


class CameraMemory:
    """One camera's memory: a gate, and the answers that it says are to be repeated.

    `look` is for one thread, `keeps` for one that may be another.

    Args:
        rule: when an earlier answer is repeated.
        certified: whether a certificate covers answers that are repeated by this rule.
    """

    def __init__(self, rule: ReuseRule, *, certified: bool) -> None:
        self._gate: Gate[Remembered] = Gate(rule)
        self._thumbnail = Thumbnailer(rule.region)
        self._certified = certified
        self._times_s: deque[float] = deque(maxlen=GAPS + 1)

    def look(self, frame: Frame, time_s: float) -> Look[Remembered]:
        """Look at the camera's next frame.

        Args:
            frame: ``(height, width, 3)`` BGR or ``(height, width)`` grey uint8.
            time_s: when it was taken.

        Returns:
            What to repeat, or, as its key, the answer to fill in when a model has been asked.

        Raises:
            InputError: the frame is of another shape or type.
        """
        return self._gate.look(Remembered(), self._thumbnail(frame), time_s)

    def covers(self, time_s: float) -> bool:
        """Take the time of the camera's next frame; tell whether it is as fast as was certified.

        Pictures without times that rise are no camera's.
        """
        if not self._certified:
            return True
        rises = not self._times_s or time_s > self._times_s[-1]
        if not rises:
            self._times_s.clear()
        self._times_s.append(time_s)
        if not rises:
            return False
        gaps = len(self._times_s) - 1
        return not gaps or self._gate.rule.speaks_of(gaps / (time_s - self._times_s[0]))

    def keeps(self, look: Look[Remembered], outputs: Outputs) -> Remembered | None:
        """Return the escalation's answer that an unsure saver's frame keeps; None to escalate."""
        return self._gate.keeps(look, outputs)

    def end(self, answer: Remembered, decision: Decision | None) -> None:
        """Take a frame's final decision, None where it has none, and forget it if it is no good."""
        if not answer.end(decision):
            self._gate.drop(answer)

    def forget(self) -> None:
        """Begin anew: the camera was away, and may look elsewhere now."""
        self._gate.forget()
        self._times_s.clear()

    def repeated(self, decision: Decision, case: Case, alike: Likeness) -> Decision:
        """Return what was found for an earlier frame as the decision on this one.

        Args:
            decision: of the earlier frame, itself perhaps repeated.
            case: what is known of this one.
            alike: in what they are alike.
        """
        first = decision.frame_id if decision.reused is None else decision.reused.frame_id
        since_s = case.timestamp_s - decision.timestamp_s
        age_s = since_s if decision.reused is None else since_s + decision.reused.age_s
        return replace(
            decision,
            source=AnswerSource.REUSED,
            score=decision.score if alike is Likeness.STILL else case.score,
            escalated=False,
            certified=decision.certified and self._certified and case.covered,
            revision=0,
            frame_id=case.frame_id,
            timestamp_s=case.timestamp_s,
            taken_at_s=case.taken_at_s,
            timings_ms=case.timings_ms,
            reused=Reused(first, age_s, alike),
        )


def decide_remembering(
    decider: Decider, memory: CameraMemory, frame: Frame, case: Case, *, started_s: float
) -> Decision:
    """Answer a camera's next frame, from memory if it can be.

    Args:
        decider: asks the stages where it cannot.
        memory: the camera's.
        frame: as for `CameraMemory.look`.
        case: what will be known of the frame; its time is the camera's.
        started_s: where its total time begins, on the decider's clock.

    Raises:
        InputError: the frame is of another shape or type.
        EngineError: no stage could answer.
    """
    look = memory.look(frame, case.timestamp_s)
    case.covered = memory.covers(case.timestamp_s)
    case.spent("look", (decider.clock() - started_s) * 1e3)
    if look.repeats is not None and look.repeats.decision is not None:
        case.timings_ms["total"] = case.timings_ms["look"]
        return memory.repeated(look.repeats.decision, case, Likeness.STILL)
    found: Decision | None = None

    def kept(case: Case) -> Decision | None:
        earlier = None if case.outputs is None else memory.keeps(look, case.outputs)
        if earlier is None or earlier.decision is None:
            return None
        return memory.repeated(earlier.decision, case, Likeness.SAME)

    try:
        found = decider.decide(frame, case, started_s=started_s, kept=kept)
    finally:
        memory.end(look.key, found)
    return found
