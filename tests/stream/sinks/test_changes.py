"""Changes: which frames announce another class, and which do not."""

import pytest

from tests.stream.decisions import Events, decision
from tinysaver_edge.decision import Reason
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.base import ChangeSink


def announced(hold, *shown, **settings):
    """Write decisions of (label, confidence, changes); return what was announced, and when."""
    events = Events()
    sink = ChangeSink(hold, listener=events, clock=lambda: 0.0, **settings)
    for number, (label, confidence, *changes) in enumerate(shown):
        changed = changes[0] if changes else {}
        sink.write(decision(number, label=label, confidence=confidence, **changed), None)
    return [(event.sequence, event.before, event.after) for event in events.of("changed")]


def test_a_new_class_needs_as_many_frames_running_as_it_says():
    shown = [("cat", 0.5)] * 3 + [("dog", 0.5)] * 2 + [("cat", 0.5)] + [("dog", 0.5)] * 3
    assert announced(3, *shown) == [(2, None, "cat"), (8, "cat", "dog")]


def test_one_frame_that_is_sure_suffices():
    assert announced(3, ("cat", 0.95), ("dog", 0.5), ("dog", 0.91)) == [
        (0, None, "cat"), (2, "cat", "dog"),
    ]  # fmt: skip
    assert announced(3, ("cat", 0.95), ("cat", 0.95), sure=1.1) == []


def test_a_degraded_answer_is_not_sure_but_counts():
    stands_in = {"degraded": "no answer in time", "reason": Reason.DEADLINE}
    assert announced(2, ("cat", 0.99, stands_in)) == []
    assert announced(2, *[("cat", 0.99, stands_in)] * 2) == [(1, None, "cat")]


def test_a_provisional_answer_says_nothing_and_its_revision_does():
    provisional = {"degraded": "asked", "reason": Reason.PROVISIONAL}
    assert announced(1, ("cat", 0.99, provisional)) == []
    assert announced(1, ("cat", 0.5, provisional), ("dog", 0.5, {"revision": 1})) == [
        (1, None, "dog")
    ]


def test_each_source_has_its_own():
    events = Events()
    sink = ChangeSink(2, listener=events, clock=lambda: 0.0)
    for number in range(2):
        for name, label in (("door", "cat"), ("yard", "dog")):
            sink.write(decision(number, source_id=name, label=label, confidence=0.5), None)
    sink.write(decision(2, source_id="door", label="dog, wet", confidence=0.99), None)
    assert [(event.source_id, event.text) for event in events.all] == [
        ("door", "now cat"), ("yard", "now dog"), ("door", "now dog, wet (before: cat)"),
    ]  # fmt: skip


def test_none_is_no_number_of_frames():
    with pytest.raises(InputError, match="at least 1"):
        ChangeSink(0, listener=Events(), clock=lambda: 0.0)
