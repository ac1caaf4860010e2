"""What there is to choose from: every model's answers on the same labelled samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.numbers import percent, ratio
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.manifest import RanEntry
from tinysaver_edge.calibrate.calibration import Calibration, CodecCost
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.latency import (
    CascadeLatency,
    LatencySamples,
)
from tinysaver_edge.outputs import Outputs, all_but, check_labels, sample_hashes
from tinysaver_edge.questions.known import Known
from tinysaver_edge.records.records import Record


@dataclass(frozen=True, slots=True)
class PairTiming:
    """What a saver and the large model take in one process.

    Attributes:
        latency: of their cascade, at any escalation rate.
        memory_mb: what both add to the process; None where the system does not tell, or other
            models share it.
        rounds: the rounds that `latency` was timed in, others being timed between them; none where
            it was not timed here. How far they lie apart is what timing cannot tell.
    """

    latency: CascadeLatency
    memory_mb: float | None
    rounds: tuple[CascadeLatency, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """One model's answers and what they cost.

    Attributes:
        latency: how long a frame takes it alone, resize included, or None.
        memory_mb: what it adds to the process, or None.
        with_large: of a saver that was timed together with the large model: what came of it.
        energy_mj: energy of a frame in millijoules, idling meanwhile included, or None.
        sent_bytes: of the large model: mean size of what is sent of a frame, or None.
    """

    name: str
    outputs: Outputs
    macs: float
    latency: LatencySamples | None = None
    memory_mb: float | None = None
    with_large: PairTiming | None = None
    energy_mj: float | None = None
    sent_bytes: float | None = None

    @property
    def alone(self) -> LatencySamples | None:
        """How long its own part of a frame takes, None where that is not known."""
        return self.latency if self.with_large is None else self.with_large.latency.saver


@dataclass(frozen=True, slots=True)
class Problem:
    """A large model, the savers that might stand in for it, and labelled samples.

    Attributes:
        large: the model whose work is to be saved.
        savers: the candidates, in the order they were named.
        labels: ``(n,)`` true classes; the large model's answers where nobody knows them.
        groups: ``(n,)`` clip or scene of each sample, or None.
        timeline: of frames of epochs, within which answers may be reused; None for other samples.
        known: what people's answers tell of the true classes; None where nobody was asked.
        look: how long a frame takes here that is found still; None where that was not timed.
    """

    large: ModelAnswers
    savers: tuple[ModelAnswers, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None
    timeline: EpochTimeline | None = None
    known: Known | None = None
    look: LatencySamples | None = None

    def check(self) -> None:
        """Refuse what cannot be a cascade.

        Raises:
            InputError: numbers of samples or classes differ, no saver is named, one is named twice,
                is no cheaper than the large model or is that model, or a label is no class of the
                models.
        """
        for model in (self.large, *self.savers):
            if model.outputs.samples != len(self.labels):
                raise InputError(
                    f"record {model.name} holds {model.outputs.samples} samples, "
                    f"the labels {len(self.labels)}: both must be of the same images"
                )
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise InputError(
                f"{len(self.groups)} groups for {len(self.labels)} samples: one a sample is needed"
            )
        check_models(
            (self.large.name, self.large.macs, _classes(self.large.outputs)),
            [(saver.name, saver.macs, _classes(saver.outputs)) for saver in self.savers],
        )
        for model in (self.large, *self.savers):
            check_labels(self.labels, model.outputs, model=model.name)
        some = np.arange(min(len(self.labels), 1000))
        told = sample_hashes([self.large.outputs.subset(some)])
        for saver in self.savers if told.any() else ():
            if np.array_equal(told, sample_hashes([saver.outputs.subset(some)])):
                raise InputError(
                    f"saver {saver.name} answers {len(some)} samples as the large model "
                    f"{self.large.name} does, to the last digit: it is that one by another name; "
                    "leave it out"
                )

    def outputs_of(self, policy: Policy) -> list[Outputs]:
        """Return the answers of a policy's stages.

        Raises:
            InputError: a stage's model is none of the problem's.
        """
        known = {model.name: model.outputs for model in (self.large, *self.savers)}
        missing = [stage.model for stage in policy.stages if stage.model not in known]
        if missing:
            raise InputError(f"model {missing[0]} has no answers here: only {', '.join(known)}")
        return [known[stage.model] for stage in policy.stages]

    def subset(self, index: NDArray[np.int64]) -> Problem:
        """Return the same problem on some of the samples."""
        if np.array_equal(index, np.arange(len(self.labels))):
            return self  # ten million samples are not copied for nothing
        return replace(
            self,
            large=replace(self.large, outputs=self.large.outputs.subset(index)),
            savers=tuple(replace(one, outputs=one.outputs.subset(index)) for one in self.savers),
            labels=self.labels[index],
            groups=None if self.groups is None else self.groups[index],
            timeline=None if self.timeline is None else self.timeline.subset(index),
            known=None if self.known is None else self.known.subset(index),
        )


ModelFacts = tuple[str, float, int | None]
"""Name, MACs and number of classes, None where that is not known."""


def check_models(large: ModelFacts, savers: Sequence[ModelFacts]) -> None:
    """Refuse models that cannot make a cascade.

    Raises:
        InputError: no saver is named, one is named twice or is no cheaper than the large model,
            MACs are not above 0, or numbers of classes differ.
    """
    if not savers:
        raise InputError("no saver to choose from: name at least one with --saver")
    names = [name for name, _, _ in (large, *savers)]
    for name, macs, classes in (large, *savers):
        if names.count(name) > 1:
            raise InputError(f"model {name} is named twice: give each model once")
        if not (macs > 0 and math.isfinite(macs)):
            raise InputError(f"model {name}: its MACs are {macs}, must be a number above 0")
        if classes is not None and large[2] is not None and classes != large[2]:
            raise InputError(
                f"model {name} has {classes} classes, the large model {large[0]} {large[2]}: "
                f"both must name the same classes in the same order (class_offset in a "
                f"description drops a background class)"
            )
    for name, macs, _ in savers:
        if macs >= large[1]:
            raise InputError(
                f"saver {name} takes {macs:.4g} MACs, the large model {large[0]} "
                f"{large[1]:.4g}: a saver must be the cheaper one"
            )


def _classes(outputs: Outputs) -> int | None:
    return None if outputs.truncated else outputs.width


def split_holdout(
    samples: int,
    *,
    fraction: float,
    seed: int,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the hold-out samples; a group goes to one side as a whole.

    Args:
        samples: how many there are.
        fraction: share to hold out, 0 up to but not including 1.
        seed: decides the draw.
        groups: ``(n,)``, or None where samples are independent.

    Returns:
        Indices to calibrate on and indices held out, each rising.

    Raises:
        InputError: the fraction or the seed is out of range, or one side is left empty.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or above")
    if not 0 <= fraction < 1:
        raise InputError(f"--holdout {fraction}: a share from 0 up to but not 1, as 0.3 for 30 %")
    generator = np.random.default_rng(seed)
    if groups is None:
        order = generator.permutation(samples)
        held = order[: round(fraction * samples)]
    else:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        order = generator.permutation(len(names))
        held = np.flatnonzero(np.isin(member, order[: round(fraction * len(names))]))
    kept = all_but(held, samples)
    if not len(kept) or (fraction > 0 and not len(held)):
        raise InputError(f"--holdout {fraction} of {samples} samples leaves one side empty")
    return kept, np.sort(held)


@dataclass(frozen=True, slots=True)
class GoldenModel:
    """One model where golden samples were made ahead.

    Attributes:
        tolerance: difference of probabilities that counts as agreement.
    """

    ran: RanEntry
    tolerance: float


@dataclass(frozen=True, slots=True)
class GoldenSamples:
    """Frames and every model's answers to them, kept before anything is chosen.

    Attributes:
        folder: holds them: pictures, ``answers.npz`` and the decoder's sample.
        samples: positions of the frames in the data, in the order they were drawn.
    """

    folder: Path
    samples: tuple[int, ...]
    models: Mapping[str, GoldenModel]


@dataclass(frozen=True, slots=True)
class MeasuredProblem:
    """A problem and its origin.

    Attributes:
        sample_index: for each of the problem's samples, its position in the data.
        artefacts: the models by name; empty when only records are there.
        codec_cost: what its codec costs the large model; None where it has none or it is unknown.
        stated: what the user vouches for, see `manifest.CertificateEntry`.
        cut: what was left out of each collected frame, in words; None where nobody says.
        content: ``(n,)`` uint64, hashes of the data's files; None where nobody looked at them.
        processor: the kind that the models were measured on; None where it is not known.
        machine: likewise, for people; None for this one.
        golden: samples that were kept there; None where they are yet to be made, here.
        others: candidates of earlier runs on the same samples, that share the risk; None where
            nobody remembers what was tested on them.
    """

    problem: Problem
    sample_index: NDArray[np.int64]
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    codec_cost: CodecCost | None = None
    warnings: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    cut: str | None = None
    content: NDArray[np.uint64] | None = None
    processor: str | None = None
    machine: str | None = None
    golden: GoldenSamples | None = None
    others: int | None = None


def join_records(
    records: Sequence[Record],
    costs: dict[str, float],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_] | None,
    timeline: EpochTimeline | None = None,
) -> tuple[Problem, NDArray[np.int64]]:
    """Put the records together, without the samples that any of them skipped."""
    answers = [ModelAnswers(record.name, record.outputs, costs[record.name]) for record in records]
    problem = Problem(answers[0], tuple(answers[1:]), labels, groups, timeline)
    problem.check()
    skipped = sorted({index for record in records for index in record.skipped})
    kept = all_but(skipped, len(labels))
    if not len(kept):
        raise DataError("no readable images are left to calibrate on")
    return (problem.subset(kept) if len(skipped) else problem), kept


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
    if cost is None or cascade is None:
        return None
    right = {
        one.name: float((one.outputs.predictions == problem.labels).mean())
        for one in problem.savers
    }
    better = [
        one
        for one in problem.savers
        if right[one.name] >= cascade and one.macs <= cost * problem.large.macs * (1 + 1e-9)
    ]
    if not better:
        return None
    best = min(better, key=lambda one: one.macs)
    alone = ratio(best.macs / problem.large.macs)
    return (
        f"{best.name} alone serves as well as the cascade or better: on these samples it is "
        f"right on {percent(right[best.name])} at {alone} × the large model's MACs, the "
        f"cascade on {percent(cascade)} at {ratio(cost)} ×"
    )
