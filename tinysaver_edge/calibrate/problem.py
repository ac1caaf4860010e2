"""What there is to choose from: every model's answers on the same labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers and what they cost.

    Attributes:
        name: the model's name.
        outputs: its answers on the problem's samples.
        macs: multiply-accumulates of one frame.
    """

    name: str
    outputs: Outputs
    macs: float


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
                or is no cheaper than the large model.
        """
        if not self.savers:
            raise InputError("no saver to choose from: name at least one with --saver")
        names = [model.name for model in (self.large, *self.savers)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"model {name} is named twice: give each model once")
        for model in (self.large, *self.savers):
            self._check_model(model)
        for saver in self.savers:
            if saver.macs >= self.large.macs:
                raise InputError(
                    f"saver {saver.name} takes {saver.macs:.4g} MACs, the large model "
                    f"{self.large.name} {self.large.macs:.4g}: a saver must be the cheaper one"
                )

    def _check_model(self, model: Answers) -> None:
        if model.outputs.samples != len(self.labels):
            raise InputError(
                f"record {model.name} holds {model.outputs.samples} samples, "
                f"the labels {len(self.labels)}: both must be of the same images"
            )
        if not model.macs > 0:
            raise InputError(f"model {model.name}: its MACs are {model.macs}, must be above 0")
        classes, large = _classes(model.outputs), _classes(self.large.outputs)
        if classes is not None and large is not None and classes != large:
            raise InputError(
                f"model {model.name} has {classes} classes, the large model {self.large.name} "
                f"{large}: both must name the same classes in the same order "
                f"(class_offset in a description drops a background class)"
            )

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
        InputError: the fraction is out of range or leaves one side empty.
    """
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
