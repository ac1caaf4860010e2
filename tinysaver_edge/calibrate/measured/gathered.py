"""What gathering brings: a problem, and what a bundle needs of where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.codec_cost import CodecCost
from tinysaver_edge.calibrate.problem import Problem


@dataclass(frozen=True, slots=True)
class Gathered:
    """A problem and its origin.

    Attributes:
        problem: answers and labels.
        sample_index: for each of the problem's samples, its position in the data.
        artefacts: the models by name; empty when only records are there.
        label_names: class names, or None.
        lost: savers that were not measured, and why.
        codec_cost: what its codec costs the large model; None where it has none or it is unknown.
        warnings: what the user should know.
    """

    problem: Problem
    sample_index: NDArray[np.int64]
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    codec_cost: CodecCost | None = None
    warnings: tuple[str, ...] = ()
