"""Questions about runs of frames: the certificate of all answers is the one of labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibrate.methods.test_reuse import CLASSES, world
from tests.questions.small import later
from tinysaver_edge.calibrate.chosen.asking import ask_about
from tinysaver_edge.calibrate.methods.certify import certify
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.problem import MeasuredProblem, ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Reference, Targets
from tinysaver_edge.questions.known import Known


def asked(stages, timeline, *, drop, seed=0):
    """Ask about epochs as `calibrate` does, nobody having answered yet."""
    models = [
        ModelAnswers(name, one, macs)
        for name, one, macs in zip(("tiny", "big"), stages, (1e6, 1e7), strict=True)
    ]
    count = len(timeline.numbers)
    problem = Problem(
        models[1], (models[0],), stages[1].predictions, timeline.positions.astype(str), timeline
    )
    content = np.random.default_rng(seed).integers(1, 1 << 60, count).astype(np.uint64)
    gathered = MeasuredProblem(problem, np.arange(count), content=content)
    targets = Targets(max_drop_points=drop, reference=Reference.QUESTIONS)
    proposals = propose_all(problem, targets, seed=seed, candidates=1)
    made = ask_about(
        gathered, problem, np.arange(count), proposals, targets, data=None, book=None, answers=()
    )
    return made, proposals[0].trial


def still_scenes(seed, *, epochs=80, frames=7):
    """Epochs in each of which one class is to be seen, whatever the models say."""
    stages, _, timeline = world(epochs=epochs, frames=frames, seed=seed)
    rng = np.random.default_rng(seed)
    return stages, np.repeat(rng.integers(CLASSES, size=epochs), frames), timeline


def reply(question, truth):
    right = int(truth[question.sample])
    return {question.a: "a", question.b: "b"}.get(right, "neither")


@pytest.mark.arithmetic
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), drop=st.sampled_from([30.0, 60.0, 90.0]))
def test_all_answers_give_what_labels_give_and_some_never_more(seed, drop):
    stages, truth, timeline = still_scenes(seed)
    common = {"max_drop_points": drop, "timeline": timeline, "seed": 0}
    labelled = certify(stages, truth, fusion="none", **common)
    made, _ = asked(stages, timeline, drop=drop)
    rng, reach = np.random.default_rng(seed), []
    questions = {one.id: one for one in made.interview.questions}
    order = list(rng.permutation(sorted(questions)))
    for part in np.array_split(np.array(order), 3):
        for name in part.tolist():
            made.interview.answer(name, reply(questions[name], truth), at=later(1))
        found = certify(stages, made.known(), **common)
        reach.append(np.inf if found.threshold is None else found.threshold)
    assert reach == sorted(reach, reverse=True)
    assert found.certificate == labelled.certificate
    assert found.threshold == labelled.threshold
    standing = made.interview.standing()
    loosest = standing.threshold
    assert loosest == labelled.threshold
    assert standing.asked == len(questions)
    assert standing.frames == sum(one.frames for one in questions.values())


def test_one_question_stands_for_a_run_and_what_is_open_counts_as_lost():
    stages, truth, timeline = still_scenes(1)
    made, trial = asked(stages, timeline, drop=60.0)
    interview, pairs = made.interview, trial.pairs()
    asked_once = {one.id: one for one in interview.questions}
    assert len(asked_once) < len(np.unique(pairs.sample))
    runs = [one for one in asked_once.values() if one.frames > 2]
    assert runs
    for one in runs:
        places = {
            place
            for number, place in enumerate(interview._places)
            if interview.questions[number].id == one.id
        }
        assert len(places) == one.frames
        assert one.sample == sorted(places)[one.frames // 2]
        assert places == set(range(min(places), max(places) + 1))
        assert len({timeline.numbers[place] for place in places}) == 1
    threshold = float(trial.thresholds[-1])
    nothing = Known.nothing(len(truth))
    answers = trial.answers_at(threshold)
    assert np.array_equal(trial.at(threshold).loss, (answers != trial.large).astype(int))
    before = trial.open_at(threshold, nothing)
    one = max(runs, key=lambda question: question.frames)
    interview.answer(one.id, reply(one, truth), at=later(1))
    after = trial.open_at(threshold, made.known())
    assert after in (before, before - 1)
    assert interview.standing().frames == one.frames
    assert np.count_nonzero(made.known().truth >= 0) in (0, one.frames)  # 0 for "neither"


def test_a_cut_ends_a_run_and_an_epoch_does():
    stages, _, timeline = still_scenes(2)
    trial = asked(stages, timeline, drop=60.0)[1]
    frames, whole = np.arange(14), np.full(14, 5)
    trial.large[:14] = 3
    runs = trial._runs(frames, whole)
    assert runs.tolist() == [0] * 7 + [1] * 7
    trial.timeline.thumbnails[3:7] += 60 * 256
    runs = trial._runs(frames, whole)
    assert runs.tolist() == [0] * 3 + [1] * 4 + [2] * 7


def test_a_plan_says_how_many_runs_it_takes():
    stages, _, timeline = still_scenes(3)
    made, _ = asked(stages, timeline, drop=60.0)
    chosen = made.plan.chosen
    assert chosen.milestones
    most = len({one.id for one in made.interview.questions})
    assert max(one.questions for one in chosen.milestones) <= most
    assert made.plan.open <= most
    free = [one.cost for one in chosen.milestones if not one.questions]
    nothing = certify(stages, Known.nothing(len(timeline.numbers)), max_drop_points=60.0,
                      timeline=timeline)  # fmt: skip
    counts = nothing.trial.counted(np.array([nothing.threshold]))
    spent = (1e6 * counts.asked + 1e7 * counts.reached[0]) / nothing.trial.samples / 1e7
    assert free == [made.interview.standing().cost] == pytest.approx(spent.tolist())
