"""The verdict: what was decided in one sentence, and whether a single model would do better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.report import numbers
from tinysaver_edge.manifest import given_words


def decision_sentence(result: Calibration) -> str:
    """Say in one sentence what the device will do and what it brings."""
    saver, *middle, large = result.policy.stages
    found = result.calibration
    if saver.threshold is None or saver.score is None:
        return (
            f"Every frame goes to {large.model}: within the limits no saver may answer in its "
            f"place."
        )
    then = "".join(f", else {one.model}" for one in middle) + f", else {large.model}"
    fusion = result.policy.fusion
    fused = ""
    if fusion is not None and fusion.changes_answers:
        fused = " (whose answer is then combined with the saver's)"
    promise = ""
    if result.certificate is not None:
        promise = f"; certified: {result.certificate.statement}{given_words(result.stated)}"
    return (
        f"Let {saver.model} answer where its {saver.score.name} is at least "
        f"{numbers.score(saver.threshold)}{then}{fused}: of {numbers.count(found.samples)} samples "
        f"it answered {numbers.percent(found.accept_rate, 1)}, "
        f"{_cost_words(found.cost_macs_ratio)}, and {_drop_words(found.drop_points)}{promise}."
    )


def _cost_words(cost: float | None) -> str:
    if cost is None:
        return "the cost is not known"
    if cost > 1:
        return f"a frame took {numbers.ratio(cost)} × the MACs of the large model alone"
    return f"a frame took {numbers.percent(cost, 1)} of the large model's MACs"


def _drop_words(drop_points: float) -> str:
    if drop_points == 0:
        return "no accuracy was lost or gained"
    what = "lost" if drop_points > 0 else "gained"
    return f"{numbers.points(abs(drop_points))} of accuracy were {what}"


def single_model_better(problem: Problem, result: Calibration) -> str | None:
    """Say so where one of the savers alone would serve better than the chosen cascade.

    That is: it is at least as accurate on the same samples, and no dearer. Of several the cheapest
    is named. The large model alone is left to the run's own warnings.

    Args:
        problem: the samples that the decision rests on, those of ``result.calibration``.
        result: the finished calibration.

    Returns:
        One sentence for people, or None where the cascade is the better choice.
    """
    cascade, cost = result.calibration.accuracy_cascade, result.calibration.cost_macs_ratio
    if cost is None:
        return None
    right = {one.name: _accuracy(one.outputs.predictions, problem) for one in problem.savers}
    better = [
        one
        for one in problem.savers
        if right[one.name] >= cascade and one.macs <= cost * problem.large.macs * (1 + 1e-9)
    ]
    if not better:
        return None
    best = min(better, key=lambda one: one.macs)
    alone = numbers.ratio(best.macs / problem.large.macs)
    return (
        f"{best.name} alone serves as well as the cascade or better: on these samples it is "
        f"right on {numbers.percent(right[best.name])} at {alone} × the large model's MACs, the "
        f"cascade on {numbers.percent(cascade)} at {numbers.ratio(cost)} ×"
    ).replace("\u00a0", " ")


def _accuracy(predictions: NDArray[np.int64], problem: Problem) -> float:
    return float(np.count_nonzero(predictions == problem.labels)) / len(problem.labels)
