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

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinysaver_edge.calibrate.calibration import TriedCombination
from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.certify import default_rule, split
from tinysaver_edge.calibrate.methods.estimate import (
    FOLDS,
    Aim,
    Bench,
    FusionOption,
    Ranking,
    ScoreOption,
    Weights,
    all_fusions,
    all_scores,
    folds,
    resample,
)
from tinysaver_edge.calibrate.methods.fitting import FITTED_SCORES
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import ALL, Method, Reference, Targets
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import Fusion, NoFusion, fusion_names
from tinysaver_edge.outputs import FloatArray, IntArray
from tinysaver_edge.score import Margin, Score, get_score, score_names


@dataclass(frozen=True, slots=True)
class SearchRule:
    """How a search decides; fixed before any sample is looked at.

    Measured against other rules in docs/certificate.md.

    Attributes:
        share: of the samples, to search on, where the bound is to be proved on the others.
        take: standard deviations by which a combination must beat the default to be taken.
        drop_out: standard deviations by which a saver must be dearer than the best to drop out.
    """

    share: float = 0.1
    take: float = 1.0
    drop_out: float = 1.0
    resamples: int = 32


DEFAULT_RULE = SearchRule()


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What the search found for one saver.

    Attributes:
        score: the best score, fitted where it learns.
        estimates: (times,), what it is expected to cost on each resample.
        tried: every combination, the best first.
        left_out: why the saver dropped out; empty where it did not.
    """

    saver: str
    score: Score
    fusion: Fusion
    estimates: FloatArray
    tried: tuple[TriedCombination, ...]
    left_out: str = ""

    @property
    def estimate(self) -> float:
        """What it is expected to cost."""
        return float(self.estimates.mean())


@dataclass(frozen=True, slots=True, eq=False)
class Tryout:
    """The samples that the search looks at, and what it tries on them.

    Attributes:
        tune: which samples they are; None for all.
        units: samples or groups that the decision will rest on.
        fold: (n,), for what learns.
        weights: (times, n), the resamples.
    """

    problem: Problem
    targets: Targets
    rule: SearchRule
    tune: IntArray | None
    units: int
    fold: IntArray
    weights: Weights

    @classmethod
    def of(cls, problem: Problem, targets: Targets, *, rule: SearchRule, seed: int) -> Tryout:
        """Set samples aside, by a rule that looks at their number and groups only.

        Raises:
            InputError: there are too few.
        """
        tune, certify, times = None, np.arange(len(problem.labels)), 0
        if targets.method is Method.CERTIFIED:
            tune, certify = split(_units(problem, certify), share=rule.share, seed=seed)
            times = rule.resamples
        here = problem if tune is None else problem.subset(tune)
        units = _units(problem, certify if tune is None else tune)
        if _count(units) < FOLDS:
            raise InputError(
                f"{_count(units)} samples (or groups) are too few to search on: add samples, or "
                "name one score and one fusion"
            )
        return cls(
            problem=here,
            targets=targets,
            rule=rule,
            tune=tune,
            units=_count(_units(problem, certify)),
            fold=folds(units, seed=seed),
            weights=resample(units, times=times, seed=seed),
        )

    @property
    def labelled(self) -> bool:
        """Whether the true classes are known."""
        return self.targets.reference is Reference.LABELS

    @property
    def scores(self) -> tuple[ScoreOption, ...]:
        """The scores to try; the first is the one to stay with."""
        name = self.targets.score
        if name != ALL:
            return (ScoreOption(name or Margin.name),)
        first = ScoreOption(Margin.name)
        return (first, *(one for one in all_scores() if one != first))

    @property
    def fusions(self) -> tuple[FusionOption, ...]:
        """The fusions to try; the first is the one to stay with."""
        name = self.targets.fusion
        if name is not None and name != ALL:
            if name not in fusion_names():
                raise InputError(
                    f"no fusion is called {name!r}: there are {', '.join(fusion_names())}"
                )
            return (FusionOption(name, NoFusion() if name == NoFusion.name else None),)
        first = self._default_fusion()
        if name is None or not self.labelled:  # without labels, fused answers only count against
            return (first,)
        return (first, *(one for one in all_fusions() if one != first))

    def _default_fusion(self) -> FusionOption:
        if self.targets.method is Method.EMPIRICAL:
            return FusionOption(NoFusion.name, NoFusion())
        drop = self.targets.allowed_drop_points
        rule = default_rule(
            units=self.units,
            max_drop_points=100.0 if drop is None else drop,
            labelled=self.labelled,
        )
        assert not isinstance(rule.fusion, str)
        return FusionOption(rule.fusion.name, rule.fusion)

    def best_of(self, saver: ModelAnswers) -> Searched:
        """Try everything on one saver.

        Raises:
            InputError: not even the score to stay with can be had from its outputs.
        """
        bench = Bench(saver.outputs, self.problem.large.outputs, self.problem.labels, self.fold)
        aim = Aim.of(
            CascadeCosts.of(saver, self.problem.large),
            self.targets,
            units=self.units,
            certified=self.targets.method is Method.CERTIFIED,
        )
        finals = [(option, bench.fused_correct(option)) for option in self.fusions]
        estimates: dict[tuple[ScoreOption, FusionOption], FloatArray] = {}
        missing: list[TriedCombination] = []
        for place, option in enumerate(self.scores):
            try:
                ranking = Ranking.of(bench.scored(option), self.weights)
            except InputError as error:
                if place == 0:
                    raise
                missing.append(_missing(option, str(error)))
                continue
            for fusion, final in finals:
                estimates[option, fusion] = aim.estimate(ranking, bench.answers(final))
        score, fusion = _better_than_luck(estimates, self.rule.take)
        scale = 100 if aim.accuracy else 1
        return Searched(
            saver=saver.name,
            score=bench.fit_score(score),
            fusion=bench.fit_fusion(fusion),
            estimates=scale * estimates[score, fusion],
            tried=(*_tried(estimates, first=(score, fusion), scale=scale), *missing),
        )


def _better_than_luck(
    estimates: dict[tuple[ScoreOption, FusionOption], FloatArray], deviations: float
) -> tuple[ScoreOption, FusionOption]:
    """Return the combination that beats the first one by most, luck taken off."""
    first = next(iter(estimates))

    def surplus(key: tuple[ScoreOption, FusionOption]) -> float:
        more = estimates[key] - estimates[first]
        return float(more.mean() + deviations * more.std())

    return min(estimates, key=surplus)


def _tried(
    estimates: dict[tuple[ScoreOption, FusionOption], FloatArray],
    *,
    first: tuple[ScoreOption, FusionOption],
    scale: float,
) -> list[TriedCombination]:
    order = sorted(estimates, key=lambda key: (key != first, float(estimates[key].mean())))
    return [
        TriedCombination(
            score=score.name,
            fusion=fusion.name,
            fitted=tuple(
                what for what, part in (("score", score), ("fusion", fusion)) if part.learns
            ),
            estimate=scale * float(estimates[score, fusion].mean()),
            interval=_interval(scale * estimates[score, fusion]),
        )
        for score, fusion in order
    ]


def _interval(estimates: FloatArray) -> tuple[float, float] | None:
    """Return within what 90 % of the resamples lie; one look tells nothing of that."""
    if len(estimates) < 2:
        return None
    low, high = np.quantile(estimates, (0.05, 0.95))
    return float(low), float(high)


def _missing(score: ScoreOption, why: str) -> TriedCombination:
    return TriedCombination(score.name, ALL, ("score",) if score.learns else (), None, why)


def _units(problem: Problem, index: IntArray) -> int | IntArray:
    """Return how many samples these are; with groups, each one's, numbered from 0 without a gap."""
    if problem.groups is None:
        return len(index)
    numbers: IntArray = np.unique(problem.groups[index], return_inverse=True)[1].astype(np.int64)
    return numbers


def _count(units: int | IntArray) -> int:
    """Return how many independent units there are."""
    if isinstance(units, int):
        return units
    return int(units.max()) + 1 if len(units) else 0


SEARCHED = (Method.CERTIFIED, Method.EMPIRICAL)
"""Methods whose score and fusion can be searched for."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What the search found.

    Attributes:
        tune: samples that it looked at; None where it may look at all, since nothing is proved.
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


def check_asked(targets: Targets) -> None:
    """Refuse scores and fusions that there are not, or that do not go with the method.

    Raises:
        InputError: naming what there is.
    """
    if targets.searches and targets.method not in SEARCHED:
        raise InputError(
            f"--method {targets.method.value} goes with one score: '--score all' and "
            f"'--fusion all' are for certified and empirical"
        )
    if targets.score not in (None, ALL):
        _known("score", targets.score or "", score_names())
        if targets.score not in FITTED_SCORES:
            get_score(targets.score or "")  # a package may bring it
    if targets.fusion not in (None, ALL):
        _known("fusion", targets.fusion or "", fusion_names())


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]}? T" if near else "t"
        raise InputError(f"no {what} is called {name!r}: {meant}here are {', '.join(names)}")


def search(
    problem: Problem, targets: Targets, *, seed: int, rule: SearchRule = DEFAULT_RULE
) -> Search:
    """Find every saver's best score and fusion, and which savers may be the best.

    Raises:
        InputError: the method is none that can be searched for, or a name is unknown.
    """
    check_asked(targets)
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
