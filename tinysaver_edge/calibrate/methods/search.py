"""Search: the best score and fusion for each saver, found on samples set aside for it.

`--score all` and `--fusion all` try every one there is. Choosing the best of thirty on the samples
that prove the bound would void the proof, and sharing δ among all of them would cost more than it
brings. So a tenth of the samples is set aside: on it everything that learns is fitted and every
combination is estimated. Each saver takes its best, and savers that are clearly dearer than the
best one drop out. What is left shares δ on the other nine tenths.

A saver leaves the default, the margin fused by constant weights, only for what is better by more
than luck, and drops out only where it is dearer by more than luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinysaver_edge.calibrate.methods.tryout import DEFAULT_RULE, Searched, SearchRule, Tryout
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.targets import Method, Targets
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import IntArray

SEARCHED = (Method.CERTIFIED, Method.EMPIRICAL)
"""Methods whose score and fusion can be searched for."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What the search found.

    Attributes:
        tune: samples that it looked at; None where it may look at all, since nothing is proved.
        savers: one a saver of the problem, in its order.
    """

    tune: IntArray | None
    savers: tuple[Searched, ...]

    @property
    def best(self) -> Searched:
        """The saver that is expected to be the best."""
        return min(self.savers, key=lambda one: one.estimate)

    @property
    def kept(self) -> int:
        """How many savers share the risk."""
        return sum(not one.left_out for one in self.savers)


def search(
    problem: Problem, targets: Targets, *, seed: int, rule: SearchRule = DEFAULT_RULE
) -> Search:
    """Find every saver's best score and fusion, and which savers may be the best.

    Args:
        problem: answers and labels.
        targets: limits, method, and which of score and fusion to search.
        seed: of the split and whatever else is drawn.
        rule: how it decides.

    Raises:
        InputError: the method is none that can be searched for, or a name is unknown.
    """
    if targets.method not in SEARCHED:
        raise InputError(
            f"--method {targets.method.value} goes with one score: '--score all' and "
            f"'--fusion all' are for certified and empirical"
        )
    table = Tryout.of(problem, targets, rule=rule, seed=seed)
    found = [table.best_of(saver) for saver in table.problem.savers]
    if targets.method is Method.CERTIFIED:
        found = _without_dearer(found, rule.drop_out)
    return Search(table.tune, tuple(found))


def _without_dearer(found: Sequence[Searched], deviations: float) -> list[Searched]:
    """Mark the savers that are dearer than the best by more than luck."""
    best = min(found, key=lambda one: one.estimate)
    marked = []
    for one in found:
        more = one.estimates - best.estimates
        why = ""
        if more.mean() > deviations * more.std():
            why = (
                f"not certified: estimated at {one.estimate:.3f} on the tune samples, "
                f"{best.saver} at {best.estimate:.3f}"
            )
        marked.append(replace(one, left_out=why))
    return marked
