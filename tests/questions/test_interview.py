"""The interview: counts kept up to date, bounds that only fall, and who is asked what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.questions.small import CLASSES, later, small
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.book import AnswerBook, AnswerWord
from tinysaver_edge.questions.known import UNKNOWN, Known
from tinysaver_edge.questions.tally import Repeats

WORDS = [word.value for word in AnswerWord]


def counted(made, known: Known):
    """Lost and gained at each threshold, recounted from what is known."""
    pairs, count = made.walk.pairs, len(made.walk.thresholds)
    answers, large = (np.zeros(known.samples, np.int64) for _ in range(2))
    lost, gained = np.zeros(count, int), np.zeros(count, int)
    answers[pairs.sample], large[pairs.sample] = pairs.answer, pairs.large
    losses = known.losses(answers, large)[pairs.sample]
    for first, end, loss in zip(pairs.first, pairs.end, losses, strict=True):
        lost[first:end] += loss == 1
        gained[first:end] += loss == -1
    return lost.tolist(), gained.tolist()


def kept(interview):
    steps = [interview._tally.step(place) for place in range(len(interview.walk.thresholds))]
    return [one.lost for one in steps], [one.gained for one in steps]


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000), st.booleans())
def test_counts_kept_up_to_date_are_those_counted_anew(seed, grouped) -> None:
    made = small(300, seed=seed, differing=0.3)
    if grouped:
        groups = np.unique(np.random.default_rng(seed).integers(0, 30, 300), return_inverse=True)[1]
        walk = replace(made.walk, groups=groups, evidence=EvidenceKind.GROUPS)
        made = replace(made, walk=walk)
    interview = made.interview()
    rng = np.random.default_rng(seed)
    for step in range(40):
        by = "Ada" if rng.random() < 0.7 else "Bob"
        if rng.random() < 0.15:
            interview.undo(by)
        else:
            question = made.questions[rng.integers(len(made.questions))]
            interview.answer(question.id, WORDS[rng.integers(4)], by=by, at=later(step))
        assert kept(interview) == counted(made, interview.known())
    again = made.interview(given=interview.book.answers)
    assert again.standing() == interview.standing()
    if grouped:
        place = len(made.walk.thresholds) - 1
        differing = np.zeros(300)
        pairs, known = made.walk.pairs, interview.known()
        answers, large = (np.zeros(300, np.int64) for _ in range(2))
        answers[pairs.sample], large[pairs.sample] = pairs.answer, pairs.large
        differing[pairs.sample] = known.losses(answers, large)[pairs.sample]
        drawn = made.walk.groups  # numbered in the order in which they are bet on
        means = [differing[drawn == one].mean() for one in range(drawn.max() + 1)]
        told = interview._tally.step(place).group_losses
        assert [x for x, count in told for _ in range(count)] == pytest.approx(means)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10_000))
def test_in_any_order_the_bound_is_never_below_the_final_one(seed) -> None:
    made = small(1500, seed=seed)
    interview = made.interview(target=12)
    final = made.interview(target=12)
    for question in made.questions:
        final.answer(question.id, made.right(question), at=later(0))
    end = final.standing()
    bounds, costs = [], []
    for number in np.random.default_rng(seed).permutation(len(made.questions)).tolist():
        question = made.questions[number]
        found = interview.answer(question.id, made.right(question), at=later(number))
        bounds.append(found.bound_points)
        costs.append(found.cost)
    assert min(bounds) == bounds[-1] == end.bound_points
    assert min(costs) == costs[-1] == end.cost
    assert sorted(bounds, reverse=True) == bounds
    assert sorted(costs, reverse=True) == costs


def test_the_walk_is_over_when_no_answer_can_help_and_says_what_full_labels_say() -> None:
    made = small(4000, seed=3)
    interview, asked = made.interview(), 0
    while (turn := interview.next_for("Ada")) is not None:
        interview.answer(turn.question.id, made.right(turn.question), by="Ada", at=later(asked))
        asked += 1
    found = interview.standing()
    assert found.over
    assert found.asked < len(made.questions)
    everything = made.interview()
    for question in made.questions:
        everything.answer(question.id, made.right(question), at=later(0))
    assert everything.standing().threshold == found.threshold is not None
    lost, gained = kept(interview)
    reached = made.walk.thresholds.tolist().index(found.threshold)
    whole = kept(everything)
    assert (lost[: reached + 1], gained[: reached + 1]) == tuple(
        row[: reached + 1] for row in whole
    )


def test_an_answer_tells_the_other_questions_about_the_same_sample() -> None:
    made = small(400, seed=1, differing=0.3)
    pairs, sample = made.walk.pairs, int(made.walk.pairs.sample[0])
    other = next(c for c in range(CLASSES) if c not in (pairs.answer[0], pairs.large[0]))
    more = replace(
        pairs,
        **{
            name: np.append(getattr(pairs, name), value)
            for name, value in {
                "sample": sample,
                "first": 15,
                "end": 20,
                "answer": other,
                "large": pairs.large[0],
                "escalated": False,
            }.items()
        },
    )
    first = made.questions[0]
    second = type(first).of(f"frame {sample}", sample, "", other, int(pairs.large[0]))
    made = replace(
        made,
        walk=replace(made.walk, pairs=more),
        questions=[*made.questions, second],
        places=np.append(made.places, sample),
        firsts=np.append(made.firsts, 19),
    )
    interview = made.interview()
    word = "a" if first.a == pairs.large[0] else "b"
    interview.answer(first.id, word, by="Ada", at=later(0))
    assert interview.known().truth[sample] == pairs.large[0]
    assert second not in interview.still_open(up_to=19)
    # Answers that cannot all be true tell nothing.
    interview.answer(second.id, "neither", by="Ada", at=later(1))
    assert interview.known().truth[sample] == UNKNOWN
    assert not interview.known().large_wrong[sample]


def test_people_who_disagree_count_as_the_worst() -> None:
    made = small(2000, seed=2)
    interview = made.interview()
    question = made.questions[0]
    interview.answer(question.id, "a", by="Ada", at=later(0))
    assert interview.known().truth[question.sample] == question.a
    found = interview.answer(question.id, "b", by="Bob", at=later(1))
    assert (found.answered, found.disagreed, found.people) == (0, 1, 2)
    assert interview.known().truth[question.sample] == UNKNOWN
    assert interview.undo("Bob").reply is AnswerWord.B
    found = interview.answer(question.id, "unsure", by="Bob", at=later(2))
    assert (found.answered, found.disagreed, found.unsure) == (1, 0, 0)


def test_people_are_not_asked_the_same_at_once_and_what_one_cannot_tell_goes_to_another() -> None:
    interview = small(2000, seed=5).interview()
    first, second = interview.next_for("Ada"), interview.next_for("Bob")
    assert first.question != second.question
    assert interview.next_for("Ada") == first  # until it is answered
    interview.answer(first.question.id, "unsure", by="Ada", at=later(0))
    assert interview.next_for("Ada").question not in (first.question, second.question)
    interview.answer(second.question.id, "a", by="Bob", at=later(1))
    assert interview.next_for("Bob").question == first.question


def test_one_in_twenty_comes_again_later_and_tells_how_often_a_person_agrees() -> None:
    made = small(20_000, seed=4, differing=0.08)
    interview, rng = made.interview(), np.random.default_rng(0)
    seen: dict[str, int] = {}
    repeats, gaps = 0, []
    for number in range(500):
        turn = interview.next_for("Ada")
        word = made.right(turn.question) if rng.random() > 0.1 else AnswerWord.NEITHER
        interview.answer(turn.question.id, word, by="Ada", at=later(number))
        repeats += turn.repeat
        if turn.repeat:
            gaps.append(number - seen[turn.question.id])
        assert turn.repeat == (turn.question.id in seen)
        seen.setdefault(turn.question.id, number)
    assert 12 < repeats < 40
    assert min(gaps) >= 8
    told = interview.standing().repeats
    assert told.of == repeats
    low, high = told.interval
    assert low < 0.8 < high
    assert interview.standing().asked == 500 - repeats


def test_repeats_have_an_interval_that_is_never_empty() -> None:
    assert Repeats().interval is None
    assert str(Repeats()) == "no question was asked twice"
    low, high = Repeats(20, 20).interval
    assert (round(low, 3), high) == (0.861, 1.0)
    low, high = Repeats(0, 3).interval
    assert (low, round(high, 3)) == (0.0, 0.632)


@pytest.mark.arithmetic
def test_a_larger_share_of_repeats_is_as_hidden_and_finds_who_errs() -> None:
    """60 of 300 answers are second ones; a rate of 5 % is within what they tell, mostly."""
    made = small(20_000, seed=9)
    within = counted = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        interview = replace(made, walk=replace(made.walk, max_drop_points=None)).interview(
            repeated=0.2
        )
        for number in range(300):
            turn = interview.next_for("")
            assert turn is not None
            words = [word for word in AnswerWord if word is not AnswerWord.UNSURE]
            right = made.right(turn.question)
            wrong = words[(words.index(right) + int(rng.integers(1, 3))) % 3]
            said = wrong if rng.random() < 0.05 else right
            interview.answer(turn.question.id, said, at=later(number))
        repeats = interview.standing().repeats
        assert 30 < repeats.of < 75
        low, high = repeats.errs
        within += low <= 0.05 <= high
        counted += 1
    assert within >= counted - 3


@pytest.mark.parametrize(("agreed", "low", "high"), [(20, 0.0, 0.075), (0, 0.627, 1.0)])
def test_how_often_people_err_is_told_as_an_interval(agreed, low, high) -> None:
    assert Repeats(agreed, 20).errs == pytest.approx((low, high), abs=1e-3)
    assert "where people err at random" in str(Repeats(agreed, 20))


def test_what_is_asked_for_by_a_budget_ends_with_the_last_question() -> None:
    made = small(500, seed=6)
    walk = replace(made.walk, max_drop_points=None)
    interview = replace(made, walk=walk).interview(target=len(walk.thresholds) - 1)
    before = interview.standing()
    assert (before.threshold, before.over) == (None, False)
    count = 0
    while (turn := interview.next_for("")) is not None:
        interview.answer(turn.question.id, made.right(turn.question), at=later(count))
        count += 1
    assert interview.standing().over
    assert interview.standing().bound_points < before.bound_points


def test_a_page_that_says_nonsense_changes_nothing(tmp_path) -> None:
    made = small(500, seed=7)
    with AnswerBook(tmp_path / "book.jsonl") as book:
        interview = made.interview(book=book)
        before = interview.standing()
        for name, word, by in (
            ("0" * 16, "a", "Ada"),
            (made.questions[0].id, "c", "Ada"),
            (made.questions[0].id, "a", "A" * 65),
            (made.questions[0].id, "a", "A\nB"),
        ):
            with pytest.raises(InputError):
                interview.answer(name, word, by=by, at=later(0))
        assert interview.standing() == before
        assert interview.undo("nobody") is None
    assert (tmp_path / "book.jsonl").read_bytes() == b""
