"""What there is to choose from: every model's answers on the same labelled samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.manifest import RanEntry
from tinysaver_edge.calibrate.calibration import CodecCost
from tinysaver_edge.calibrate.targets import Budgets, limits_of
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.latency import (
    CascadeLatency,
    LatencySamples,
    PooledLatency,
    pooled,
    settled_shares,
)
from tinysaver_edge.outputs import Outputs, check_labels
from tinysaver_edge.questions import Known
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
        name: the model's name.
        outputs: its answers on the problem's samples.
        macs: multiply-accumulates of one frame.
        latency: how long a frame takes it alone, resize included, or None.
        memory_mb: what it adds to the process, or None.
        with_large: of a saver that was timed together with the large model: what came of it.
    """

    name: str
    outputs: Outputs
    macs: float
    latency: LatencySamples | None = None
    memory_mb: float | None = None
    with_large: PairTiming | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A large model, the savers that might stand in for it, and labelled samples.

    Attributes:
        large: the model whose work is to be saved.
        savers: the candidates, in the order they were named.
        labels: ``(n,)`` true classes; the large model's answers where nobody knows them.
        groups: ``(n,)`` clip or scene of each sample, or None.
        timeline: of frames of epochs, within which answers may be reused; None for other samples.
        known: what people's answers to questions tell of the true classes; None where nobody was
            asked.
    """

    large: ModelAnswers
    savers: tuple[ModelAnswers, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None
    timeline: EpochTimeline | None = None
    known: Known | None = None

    def check(self) -> None:
        """Refuse what cannot be a cascade.

        Raises:
            InputError: numbers of samples or classes differ, no saver is named, one is named twice
                or is no cheaper than the large model, or a label is no class of the models.
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
        raise InputError(
            f"--holdout {fraction}: a share from 0 up to but not including 1, as 0.3 for 30 %"
        )
    generator = np.random.default_rng(seed)
    if groups is None:
        order = generator.permutation(samples)
        held = order[: round(fraction * samples)]
    else:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        order = generator.permutation(len(names))
        held = np.flatnonzero(np.isin(member, order[: round(fraction * len(names))]))
    kept = np.setdiff1d(np.arange(samples), held)
    if not len(kept) or (fraction > 0 and not len(held)):
        raise InputError(f"--holdout {fraction} of {samples} samples leaves one side empty")
    return kept, np.sort(held)


_QUANTILES = {"p95_latency_ms": 0.95, "p99_latency_ms": 0.99}


@dataclass(frozen=True, slots=True)
class CascadeCosts:
    """The costs of one saver, or of several in turn, with the large model.

    Rates are the shares of the frames that reach the second stage, the third, and so on: of two
    stages one number, the escalation rate.

    Attributes:
        saver: the model that is asked on every frame.
        large: the model that is asked on those that no other settles.
        latency: of both, None where a model's is not known or others stand between them.
        memory_mb: what all add to the process, None where that is not known.
        rounds: as for `PairTiming`.
        between: the models asked after the saver and before the large one, in order.
        ways: how long a frame takes that each of the stages settles, where some stand between.
    """

    saver: ModelAnswers
    large: ModelAnswers
    latency: CascadeLatency | None
    memory_mb: float | None = None
    rounds: tuple[CascadeLatency, ...] = ()
    between: tuple[ModelAnswers, ...] = ()
    ways: tuple[LatencySamples, ...] | None = None

    @classmethod
    def of(
        cls, saver: ModelAnswers, large: ModelAnswers, between: tuple[ModelAnswers, ...] = ()
    ) -> CascadeCosts:
        """Combine models' costs: of two as timed together, else from what is known of each."""
        if between:
            early = (saver, *between)
            return cls(
                saver,
                large,
                latency=None,
                memory_mb=_memory_of(early, large),
                between=between,
                ways=_ways_of(early, large),
            )
        if (together := saver.with_large) is not None:
            return cls(saver, large, together.latency, together.memory_mb, together.rounds)
        latency = memory_mb = None
        if saver.latency is not None and large.latency is not None:
            latency = CascadeLatency.of(saver.latency, large.latency)
        if saver.memory_mb is not None and large.memory_mb is not None:
            memory_mb = saver.memory_mb + large.memory_mb
        return cls(saver, large, latency, memory_mb)

    @property
    def later(self) -> tuple[ModelAnswers, ...]:
        """All models but the first, in order."""
        return (*self.between, self.large)

    @property
    def timed(self) -> bool:
        """Whether it is known how long a frame takes."""
        return self.latency is not None or self.ways is not None

    def at(self, name: str, *rates: float) -> float:
        """Return one of the quantities that `Budgets` limits, at an escalation rate for each model.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        if name == "escalation_rate":
            return rates[-1]
        if name == "mean_macs":
            asked = zip(self.later, rates, strict=True)
            return self.saver.macs + sum(rate * model.macs for model, rate in asked)
        if name == "memory_mb":
            return self._known_memory_mb()
        pooled = self.latency_at(*rates, name=name)
        return pooled.mean_ms if name == "mean_latency_ms" else pooled.quantile_ms(_QUANTILES[name])

    def latency_at(self, *rates: float, name: str = "latency") -> PooledLatency:
        """Return how long frames take, from samples of each way that they may go.

        Raises:
            InputError: it was not measured.
        """
        if self.ways is None:
            return self._known_latency(name).at(rates[-1])
        return pooled(tuple(zip(self.ways, settled_shares(rates), strict=True)))

    def alone(self, name: str) -> float:
        """Return the quantity for the large model alone on every frame.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        if name == "escalation_rate":
            return 1.0
        if name == "mean_macs":
            return self.large.macs
        if name == "memory_mb":
            return self._known_memory_mb()
        latency = self.large.latency
        if latency is None:
            raise self._unknown(name)
        return (
            latency.mean_ms if name == "mean_latency_ms" else latency.quantile_ms(_QUANTILES[name])
        )

    def largest_rate(self, name: str, limit: float) -> float | None:
        """Return the largest escalation rate that keeps a limit; None where none does.

        A limit of time is kept where one round of timing keeps it: what lies within the spread of
        the rounds is not ruled out.

        Raises:
            InputError: the quantity was not measured, or is none that is budgeted.
        """
        Budgets.check_name(name)
        rate: float | None
        if name == "escalation_rate":
            rate = limit
        elif name == "mean_macs":
            rate = (limit - self.saver.macs) / self.large.macs
        elif name == "memory_mb":
            rate = 1.0 if self._known_memory_mb() <= limit else None
        else:
            looks = (self._known_latency(name), *self.rounds)
            rates = [_largest_rate_in(one, name, limit) for one in looks]
            rate = max((one for one in rates if one is not None), default=None)
        return None if rate is None or rate < 0 else min(rate, 1.0)

    def rate_within(self, budgets: Budgets) -> float | None:
        """Return the largest escalation rate that keeps every limit; None where none does."""
        rate = 1.0
        for name, limit in limits_of(budgets).items():
            allowed = self.largest_rate(name, limit)
            if allowed is None:
                return None
            rate = min(rate, allowed)
        return rate

    def mean_spread_ms(self, rate: float) -> tuple[float, float] | None:
        """Return the least and the greatest mean of the rounds at a rate; None without rounds."""
        means = [one.at(rate).mean_ms for one in self.rounds]
        return (min(means), max(means)) if means else None

    def _known_latency(self, name: str) -> CascadeLatency:
        if self.latency is None:
            raise self._unknown(name)
        return self.latency

    def _known_memory_mb(self) -> float:
        if self.memory_mb is None:
            raise InputError(
                f"budget memory_mb: the memory of {self.saver.name} and {self.large.name} was not "
                f"measured; calibrate with the model files, timed on a system that tells"
            )
        return self.memory_mb

    def _unknown(self, name: str) -> InputError:
        return InputError(
            f"{name}: there is no latency of {self.saver.name} with {self.large.name}; calibrate "
            f"with the model files, timed, or name a --device whose profile has them"
        )


def _memory_of(early: Sequence[ModelAnswers], large: ModelAnswers) -> float | None:
    """Return what models add to a process together, None where one's part is not known."""
    if large.memory_mb is None:
        return None
    parts = [
        one.memory_mb
        if one.with_large is None or one.with_large.memory_mb is None
        else one.with_large.memory_mb - large.memory_mb
        for one in early
    ]
    return None if None in parts else large.memory_mb + sum(max(0.0, one or 0.0) for one in parts)


def _ways_of(
    early: Sequence[ModelAnswers], large: ModelAnswers
) -> tuple[LatencySamples, ...] | None:
    """Return how long a frame takes that each stage settles: every stage asked adds its own."""
    alone = [
        one.latency if one.with_large is None else one.with_large.latency.saver for one in early
    ]
    ways: list[LatencySamples] = []
    for one in (*alone, large.latency):
        if one is None:
            return None
        ways.append(ways[-1].plus(one) if ways else one)
    return tuple(ways)


def _largest_rate_in(latency: CascadeLatency, name: str, limit: float) -> float | None:
    if name == "mean_latency_ms":
        return latency.largest_rate_for_mean(limit)
    return latency.largest_rate_for_quantile(_QUANTILES[name], limit)


@dataclass(frozen=True, slots=True)
class GoldenModel:
    """One model where golden samples were made ahead.

    Attributes:
        ran: what it ran with.
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
        models: those that answered, by name.
    """

    folder: Path
    samples: tuple[int, ...]
    models: Mapping[str, GoldenModel]


@dataclass(frozen=True, slots=True)
class MeasuredProblem:
    """A problem and its origin.

    Attributes:
        problem: answers and labels.
        sample_index: for each of the problem's samples, its position in the data.
        artefacts: the models by name; empty when only records are there.
        label_names: class names, or None.
        lost: savers that were not measured, and why.
        codec_cost: what its codec costs the large model; None where it has none or it is unknown.
        warnings: what the user should know.
        stated: what the user vouches for, see `manifest.CertificateEntry`.
        content: ``(n,)`` uint64, hashes of the data's files; None where nobody looked at them.
        processor: the kind that the models were measured on; None where it is not known.
        machine: likewise, for people; None for this one.
        golden: samples that were kept there; None where they are yet to be made, here.
    """

    problem: Problem
    sample_index: NDArray[np.int64]
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    codec_cost: CodecCost | None = None
    warnings: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    content: NDArray[np.uint64] | None = None
    processor: str | None = None
    machine: str | None = None
    golden: GoldenSamples | None = None


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
    kept = np.setdiff1d(np.arange(len(labels)), np.array(skipped, np.int64))
    if not len(kept):
        raise DataError("no readable images are left to calibrate on")
    return (problem.subset(kept) if skipped else problem), kept
