"""Labels that a model or a cascade has written are refused, honest ones are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.real_data import Records, needs_records, read_records
from tinysaver_edge.calibrate.measured.label_check import check_agreement
from tinysaver_edge.calibrate.measured.own_answers import jump_at_the_edge, own_answers
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, Fusion, LinearFusion, NoFusion
from tinysaver_edge.outputs import Outputs


def sure_of(scale: float, *, classes: int, samples: int, voice: str, seed: int):
    """Labels, and a model that is as often right as it says, or says it louder or softer.

    Args:
        scale: how far apart its classes are; the larger, the more accurate.
        classes: how many.
        samples: how many.
        voice: how it says it.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    logits = scale * rng.gumbel(size=(samples, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from its softmax
    if voice == "smoothed":
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        told = 0.9 * weights / weights.sum(axis=1, keepdims=True) + 0.1 / classes
        return labels, Outputs.from_probabilities(told)
    return labels, Outputs.from_logits({"loud": 3.0, "soft": 0.5, "as it is": 1.0}[voice] * logits)


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("scale", "voice"),
    [
        *((scale, voice) for scale in (2, 10, 300) for voice in ("as it is", "loud", "smoothed")),
        (2, "soft"),
        (6, "soft"),
    ],
)
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_honest_labels_of_an_accurate_model_are_not_taken_for_its_own_answers(
    scale: float, voice: str, classes: int
) -> None:
    for seed in range(20):
        samples = 300 if classes == 1000 else 2000
        labels, outputs = sure_of(scale, classes=classes, samples=samples, voice=voice, seed=seed)
        large = ModelAnswers("large", outputs, 9.0)
        saver = ModelAnswers("s", Outputs.from_logits(np.eye(classes)[labels]), 1.0)
        lines = check_agreement(Problem(large, (saver,), labels), None, trusted=True).lines
        assert not any("in two minds" in line for line in lines), (seed, lines)


@pytest.fixture(scope="module")
def records() -> Records:
    return read_records()


def drawn(records: Records, place: int, *, samples: int, seed: int) -> Problem:
    """One of the thirteen models, the next cheaper one as its saver, on a draw of the images."""
    index = np.random.default_rng(seed).permutation(50_000)[:samples]
    names = sorted(records.outputs, key=lambda name: records.macs[name])
    saver, large = (
        ModelAnswers(one, records.outputs[one].subset(index), records.macs[one])
        for one in names[place - 1 : place + 1]
    )
    return Problem(large, (saver,), records.labels[index])


@pytest.mark.arithmetic
@needs_records
@pytest.mark.parametrize(("samples", "draws"), [(1_000, 40), (10_000, 4)])
def test_honest_labels_are_never_refused(records: Records, samples: int, draws: int) -> None:
    refused = [
        line
        for place in range(1, 13)
        for seed in range(draws)
        for line in own_answers(drawn(records, place, samples=samples, seed=seed))
    ]
    assert refused == []


def corrected(labels: np.ndarray, true: np.ndarray, rows: int) -> np.ndarray:
    """Labels of which so many wrong rows, drawn at random, were put right."""
    mended = labels.copy()
    wrong = np.random.default_rng(5).permutation(np.flatnonzero(labels != true))[:rows]
    mended[wrong] = true[wrong]
    return mended


def by_cascade(problem: Problem, fusion: Fusion) -> np.ndarray:
    """What a cascade answers that keeps 6 of 10 of the saver's answers."""
    saver, large = problem.savers[0].outputs, problem.large.outputs
    best = saver.top(2)[1]
    margin = best[:, 0] - best[:, 1]
    keep = margin >= np.quantile(margin, 0.4)
    return np.where(keep, saver.predictions, fusion.fuse(saver, large)[0])


def half_of_them(labels: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(6).random(len(labels)) < 0.5, labels, true)


WRITTEN: dict[str, Callable[[Problem], np.ndarray]] = {
    "the large model's": lambda one: one.large.outputs.predictions,
    "the saver's": lambda one: one.savers[0].outputs.predictions,
    "one row corrected": lambda one: corrected(one.large.outputs.predictions, one.labels, 1),
    "3 % corrected": lambda one: corrected(
        one.large.outputs.predictions, one.labels, 3 * len(one.labels) // 100
    ),
    "half of them the large model's": lambda one: half_of_them(
        one.large.outputs.predictions, one.labels
    ),
    "a cascade's": lambda one: by_cascade(one, NoFusion()),
    "a fused cascade's": lambda one: by_cascade(one, LinearFusion()),
    "a cascade's by conditional logit": lambda one: by_cascade(one, ConditionalLogit()),
    "a cascade's, 3 % corrected": lambda one: corrected(
        by_cascade(one, ConditionalLogit()), one.labels, 3 * len(one.labels) // 100
    ),
}


@needs_records
@pytest.mark.parametrize("written", WRITTEN)
def test_labels_that_models_wrote_are_refused(records: Records, written: str) -> None:
    for place in range(1, 13):
        problem = drawn(records, place, samples=3_000, seed=1)
        labels = WRITTEN[written](problem)
        with pytest.raises(InputError, match=r"own answers.*--reference large"):
            check_agreement(Problem(problem.large, problem.savers, labels), None)


@needs_records
@pytest.mark.parametrize("kept", [0.6, 0.8])
def test_labels_of_a_cascade_are_refused_on_few_samples(records: Records, kept: float) -> None:
    """Where one model is wrong by its labels, the other never is."""
    for place in range(1, 13):
        problem = drawn(records, place, samples=800, seed=1)
        saver, large = problem.savers[0].outputs, problem.large.outputs
        best = saver.top(2)[1]
        margin = best[:, 0] - best[:, 1]
        sure = margin >= np.quantile(margin, 1 - kept)
        labels = np.where(sure, saver.predictions, large.predictions)
        assert [*own_answers(Problem(problem.large, problem.savers, labels))] != []


@needs_records
def test_frames_of_one_clip_count_once(records: Records) -> None:
    """Two hundred frames of one clip are one label, not two hundred of a model's own answers."""
    problem = drawn(records, 12, samples=1_000, seed=3)
    best = problem.large.outputs.top(2)[1]
    level = np.argsort(best[:, 0] / best[:, 1])
    right = level[problem.large.outputs.predictions[level] == problem.labels[level]][0]
    index = np.concatenate([np.arange(1_000), np.full(200, right)])
    clips = np.array([*map(str, range(1_000)), *["clip"] * 200])
    copied = problem.subset(index)
    assert [*own_answers(copied)] != []
    grouped = Problem(copied.large, copied.savers, copied.labels, groups=clips)
    assert [*own_answers(grouped)] == []


def test_labels_that_run_on_across_the_edge_do_not_jump() -> None:
    rng = np.random.default_rng(0)
    apart = rng.uniform(0, 4, 2_000)
    honest = rng.random(2_000) < 1 / (1 + np.exp(-apart))
    assert jump_at_the_edge(honest, apart) < 1
    assert jump_at_the_edge(honest | (rng.random(2_000) < 0.5), apart) > 4
    assert jump_at_the_edge(np.zeros(0, bool), np.zeros(0)) == 0
