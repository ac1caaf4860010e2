"""What there is to choose from: every model's answers on the same labelled samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import CascadeLatency, LatencySamples
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.evaluation import check_labels


@dataclass(frozen=True, slots=True)
class PairTiming:
    """What a saver and the large model take in one process.

    Attributes:
        latency: of their cascade, at any escalation rate.
        memory_mb: what both add to the process; None where the system does not tell, or other
            models share it.
    """

    latency: CascadeLatency
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Answers:
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
        labels: ``(n,)`` true classes.
        groups: ``(n,)`` clip or scene of each sample, or None.
    """

    large: Answers
    savers: tuple[Answers, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None

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

    def subset(self, index: NDArray[np.int64]) -> Problem:
        """Return the same problem on some of the samples."""
        return replace(
            self,
            large=replace(self.large, outputs=self.large.outputs.subset(index)),
            savers=tuple(
                replace(saver, outputs=saver.outputs.subset(index)) for saver in self.savers
            ),
            labels=self.labels[index],
            groups=None if self.groups is None else self.groups[index],
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
        raise InputError(f"--holdout {fraction}: a share from 0 up to but not including 1")
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
