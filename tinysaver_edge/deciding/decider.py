"""Decider: asks the stages of a cascade in turn, until one's answer settles the matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinysaver_edge.deciding.policy import Case, Judge
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch, Frame, Preprocess

if TYPE_CHECKING:
    from tinysaver_edge.deciding.stage import Stage

Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


class Decider:
    """Decides frames while the caller waits. For one thread at a time.

    Args:
        stages: cheapest first.
        judge: says which of them to ask, and what their answers amount to.
        clock: for the timings.
    """

    def __init__(self, stages: Sequence[Stage], judge: Judge, *, clock: Clock) -> None:
        self._stages = stages
        self._judge = judge
        self._clock = clock

    def decide(self, frame: Frame, case: Case, *, started_s: float) -> Decision:
        """Answer one frame, at whose total time `started_s` is where it begins.

        Raises:
            InputError: the frame is of another shape or type.
            EngineError: no stage could answer.
        """
        batch: Batch | None = None
        made_for: Preprocess | None = None
        now_s = started_s
        for position in self._judge.asked:
            stage = self._stages[position]
            if batch is None or stage.preprocess != made_for:
                batch, made_for = stage.prepare(frame), stage.preprocess
                now_s = self._shared([case], "preprocess", since_s=now_s)
            try:
                self._judge.hear(case, position, stage.ask(batch))
            except EngineError as error:
                self._judge.fail(case, position, error)
            now_s = self._shared([case], stage.policy.model, since_s=now_s)
            if case.accepted:
                break
        case.timings_ms["total"] = (now_s - started_s) * 1e3
        return self._judge.decision(case)

    def decide_batch(self, frames: Sequence[Frame], cases: Sequence[Case]) -> list[Decision]:
        """Answer several frames, each stage taking the undecided ones at once.

        Raises:
            InputError: a frame is of another shape or type.
            EngineError: no stage could answer one of them.
        """
        open_ = list(range(len(frames)))
        for position in self._judge.asked:
            if not open_:
                break
            stage = self._stages[position]
            asking = [cases[index] for index in open_]
            started_s = self._clock()
            batch = stage.prepare_many([frames[index] for index in open_])
            started_s = self._shared(asking, "preprocess", since_s=started_s)
            answers = _ask_each(stage, batch)
            for case, answer in zip(asking, answers, strict=True):
                if isinstance(answer, Outputs):
                    self._judge.hear(case, position, answer)
                else:
                    self._judge.fail(case, position, answer)
            self._shared(asking, stage.policy.model, since_s=started_s)
            open_ = [index for index in open_ if not cases[index].accepted]
        for case in cases:
            case.timings_ms["total"] = sum(case.timings_ms.values())
        return [self._judge.decision(case) for case in cases]

    def _shared(self, cases: Sequence[Case], step: str, *, since_s: float) -> float:
        """Add to each frame its equal share of the time since then; return the time now."""
        now_s = self._clock()
        share_ms = (now_s - since_s) * 1e3 / len(cases)
        for case in cases:
            case.spent(step, share_ms)
        return now_s


def _ask_each(stage: Stage, batch: Batch) -> list[Outputs | EngineError]:
    """Return what a stage answers to each frame of a batch, or why it does not.

    A model that fails on a frame, by answering NaN, is asked again frame by frame: the others are
    none the worse. An engine that fails is not: that may take its whole timeout each time.
    """
    try:
        answered = stage.ask(batch)
    except ModelError as error:
        if len(batch) == 1:
            return [error]
        return [_ask_each(stage, batch[row : row + 1])[0] for row in range(len(batch))]
    except EngineError as error:
        return [error] * len(batch)
    return [answered.subset(slice(row, row + 1)) for row in range(len(batch))]
