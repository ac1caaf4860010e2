"""Decider: asks the stages of a cascade in turn, until one's answer settles the matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinysaver_edge.deciding.policy import Case, Judge, as_it_is
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch, Frame, Preprocess

if TYPE_CHECKING:
    from tinysaver_edge.deciding.stage import Stage

Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


def nothing_kept(case: Case) -> Decision | None:
    """Return None: no earlier answer is known."""
    return None


class Decider:
    """The stages of a cascade, and the judge of their answers.

    `decide` and `decide_batch` answer while the caller waits, for one thread at a time. A stream
    asks the same stages one by one with `ask`, from several threads.

    Args:
        stages: cheapest first.
        judge: says which of them to ask, and what their answers amount to.
        clock: for the timings.
    """

    def __init__(self, stages: Sequence[Stage], judge: Judge, *, clock: Clock) -> None:
        self.stages = tuple(stages)
        self.judge = judge
        self.clock = clock

    @property
    def first(self) -> Stage:
        """The first stage that is worth asking."""
        return self.stages[self.judge.asked[0]]

    def decide(
        self,
        frame: Frame,
        case: Case,
        *,
        started_s: float,
        kept: Callable[[Case], Decision | None] = nothing_kept,
    ) -> Decision:
        """Answer one frame.

        Args:
            frame: as for `Cascade.decide`.
            case: what will be known of it.
            started_s: where its total time begins.
            kept: asked when the first stage has answered and is unsure: an earlier answer that
                stands for this frame, too, or None.

        Raises:
            InputError: the frame is of another shape or type.
            EngineError: no stage could answer.
        """
        batch: Batch | None = None
        made_for: Preprocess | None = None
        known: Decision | None = None
        now_s = started_s
        for position in self.judge.asked:
            stage = self.stages[position]
            if batch is None or stage.preprocess != made_for:
                batch, made_for = stage.prepare(frame), stage.preprocess
                now_s = self._spent((case,), "preprocess", since_s=now_s)
            now_s = self.ask(position, batch, (case,), since_s=now_s)
            known = kept(case) if position == self.judge.asked[0] and not case.accepted else None
            if case.accepted or known is not None:
                break
        case.timings_ms["total"] = (now_s - started_s) * 1e3
        return known or self.judge.decision(case)

    def decide_batch(self, frames: Sequence[Frame], cases: Sequence[Case]) -> list[Decision]:
        """Answer several frames, each stage taking the undecided ones at once.

        Raises:
            InputError: a frame is of another shape or type.
            EngineError: no stage could answer one of them.
        """
        open_ = list(range(len(frames)))
        for position in self.judge.asked:
            if not open_:
                break
            asking, among = [cases[index] for index in open_], len(open_)
            started_s = self.clock()
            batch = self.stages[position].prepare_many([frames[index] for index in open_])
            started_s = self._spent(asking, "preprocess", since_s=started_s, among=among)
            self.ask(position, batch, asking, since_s=started_s, among=among)
            open_ = [index for index in open_ if not cases[index].accepted]
        for case in cases:
            case.timings_ms["total"] = sum(case.timings_ms.values())
        return [self.judge.decision(case) for case in cases]

    def ask(
        self,
        position: int,
        batch: Batch,
        cases: Sequence[Case],
        *,
        since_s: float,
        among: int = 1,
        timeout_s: float | None = None,
        in_force: Callable[[float], float] = as_it_is,
    ) -> float:
        """Ask one stage about prepared frames: each case hears its answer, or that there is none.

        Args:
            position: which stage.
            batch: the frames, as many as cases.
            cases: what is known of each of them.
            since_s: when the time began that the stage has spent.
            among: how many frames share that time; 1 where each of them waited for all of it.
            timeout_s: after so long nobody waits for the answer any more.
            in_force: the threshold to hold a score against, by the bundle's.

        Returns:
            The time now.
        """
        stage = self.stages[position]
        for case, answer in zip(cases, _answers(stage, batch, timeout_s), strict=True):
            if isinstance(answer, Outputs):
                self.judge.hear(case, position, answer, in_force=in_force)
            else:
                self.judge.fail(case, position, answer)
        return self._spent(cases, stage.policy.model, since_s=since_s, among=among)

    def _spent(self, cases: Sequence[Case], step: str, *, since_s: float, among: int = 1) -> float:
        """Add the time since then to what each frame has spent; return the time now."""
        now_s = self.clock()
        spent_ms = (now_s - since_s) * 1e3 / among
        for case in cases:
            case.spent(step, spent_ms)
        return now_s


def _answers(
    stage: Stage, batch: Batch, timeout_s: float | None
) -> Sequence[Outputs | EngineError]:
    """Return what a stage answers to each frame of a batch, or why it does not."""
    try:
        answered = stage.ask(batch, timeout_s=timeout_s)
    except EngineError as error:
        return (error,) if len(batch) == 1 else _one_by_one(stage, batch, timeout_s)
    if len(batch) == 1:
        return (answered,)
    return [answered.subset(slice(row, row + 1)) for row in range(len(batch))]


def _one_by_one(stage: Stage, batch: Batch, timeout_s: float | None) -> list[Outputs | EngineError]:
    """Ask about each frame of a batch that failed: one that a model cannot take harms no other.

    An engine that fails on two frames running is taken to fail on the rest: each of them might
    take its whole timeout.
    """
    answers: list[Outputs | EngineError] = []
    failures = 0
    for row in range(len(batch)):
        if failures == 2:
            answers.append(answers[-1])
            continue
        answers.extend(_answers(stage, batch[row : row + 1], timeout_s))
        well = isinstance(answers[-1], Outputs | ModelError)  # a model error is the frame's
        failures = 0 if well else failures + 1
    return answers
