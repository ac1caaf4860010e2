"""A small finished calibration, made by the same steps as a real one, for the report's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.chosen.choose import (
    Choice,
    choose,
    compare_methods,
    policy_of,
    with_intervals,
)
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.plan import Plan, RecordInput
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.report import ReportFacts, build_facts
from tinysaver_edge.calibrate.targets import Method, Targets
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.outputs import Outputs

MACS = {"large": 1000e6, "tiny": 50e6, "small": 200e6, "poor": 300e6}
EMPIRICAL = Targets(method=Method.EMPIRICAL, max_drop_points=1.0)
NOISE = {"large": 0.8, "tiny": 1.9, "small": 1.3, "poor": 9.0}


def answers(name: str, labels: np.ndarray, *, classes: int, seed: int) -> ModelAnswers:
    """A model that sees the classes through noise; the same frames are hard for all."""
    rng = np.random.default_rng([seed, len(name), ord(name[0])])
    hard = np.random.default_rng(seed).exponential(size=(len(labels), 1))
    logits = 3.0 * np.eye(classes)[labels] + NOISE[name] * hard * rng.normal(
        size=(len(labels), classes)
    )
    return ModelAnswers(name, Outputs.from_logits(logits), MACS[name])


def problem(samples: int = 600, *, classes: int = 5, seed: int = 0) -> Problem:
    labels = np.random.default_rng(seed + 1).integers(0, classes, samples)
    large, *savers = (answers(name, labels, classes=classes, seed=seed) for name in MACS)
    return Problem(large, tuple(savers), labels)


@dataclass(frozen=True)
class Finished:
    """All that a report is made of."""

    problem: Problem
    holdout: Problem | None
    result: Calibration
    proposals: Sequence[Proposal]
    choice: Choice
    plan: Plan

    def facts(self, **more: object) -> ReportFacts:
        return build_facts(
            problem=self.problem,
            holdout=self.holdout,
            result=self.result,
            proposals=self.proposals,
            choice=self.choice,
            plan=self.plan,
            **more,
        )


def finished(
    given: Problem | None = None,
    *,
    targets: Targets | None = None,
    holdout: Problem | None = None,
    warnings: tuple[str, ...] = (),
    methods: bool = False,
) -> Finished:
    """Choose on a problem as a calibration does."""
    given = problem() if given is None else given
    targets = EMPIRICAL if targets is None else targets
    proposals = propose_all(given, targets, seed=7, candidates=len(given.savers))
    choice = choose(given, proposals, targets)
    rows = with_intervals(given, proposals, choice.candidates)
    choice = replace(choice, candidates=rows)
    policy = policy_of(choice)
    evidence = given.subset(choice.proposal.evidence)
    result = Calibration(
        policy=policy,
        method=targets.method,
        calibration=measured(policy, evidence),
        holdout=None if holdout is None else measured(policy, holdout),
        certificate=choice.certify(),
        interval=choice.interval,
        candidates=choice.candidates,
        methods=(
            compare_methods(given, holdout, targets, seed=7, candidates=len(given.savers))
            if methods
            else ()
        ),
        warnings=warnings,
    )
    plan = Plan(
        RecordInput(Path("records"), Path("labels.npy"), Path("macs.csv"), "large", ("all",)),
        targets,
        holdout=0.0 if holdout is None else 0.5,
        seed=7,
    )
    return Finished(evidence, holdout, result, proposals, choice, plan)


def measured(policy: Policy, given: Problem):
    known = {one.name: one.outputs for one in (given.large, *given.savers)}
    return figures(policy, [known[stage.model] for stage in policy.stages], given.labels)


def margins(outputs: Outputs) -> np.ndarray:
    """The margin score, by its definition."""
    logits = outputs.logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    ordered = np.sort(weights / weights.sum(axis=1, keepdims=True), axis=1)
    return ordered[:, -1] - ordered[:, -2]
