"""Hosts that prove themselves and then answer nonsense: another answers, and no run ends."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.engines.test_remote_doubt import EASY, HARD, SHA256, Host, cascade_of
from tinysaver_edge._support.limits import MOST_NAME, MOST_TEXT
from tinysaver_edge._support.text import brief, for_people, printable
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.engines.remote.facts import Kind, Reply, RequestError

ESCAPES = "\x1b]0;owned\x07\x1b[2K\x1b[1A\u202e"


def scores(value):
    return lambda: Reply(np.full((1, 2), value, np.float32), "1", SHA256)


def raising(error):
    def answer():
        raise error

    return answer


class Liar(Host):
    """Answers once as it should, and from then on as it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, 0

    def infer(self, tensor, contract, *, datatype, timeout_s):
        self.asked += 1
        if self.asked == 1:
            return super().infer(tensor, contract, datatype=datatype, timeout_s=timeout_s)
        return self.answer()


LIES = {
    "NaN": scores(np.nan),
    "infinity": scores(np.inf),
    "another shape": lambda: Reply(np.zeros((1, 3), np.float32), "1", SHA256),
    "words": lambda: Reply(np.array([["a", "b"]]), "1", SHA256),
    "objects": lambda: Reply(np.array([[None, None]]), "1", SHA256),
    "nothing": lambda: None,
    "an error of the library's": raising(AttributeError("list has no get")),
    "a struct error": raising(ValueError("unpack requires a buffer of 4 bytes")),
    "recursion": raising(RecursionError("too deep")),
    "memory": raising(MemoryError()),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_another_host_answers_and_the_liar_is_left_alone(lie) -> None:
    liar, good = Liar(lie), Host()
    with cascade_of(liar, good) as cascade:
        decisions = [cascade.decide(HARD) for _ in range(30)]
        assert {one.source for one in decisions} == {AnswerSource.LARGE}
        engine = cascade.stages[-1].engine
        assert engine.traffic.failures["wrong"] >= 1
        assert liar.asked < 20


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_alone_it_costs_degraded_answers(lie) -> None:
    with cascade_of(Liar(lie)) as cascade:
        decisions = [cascade.decide(HARD) for _ in range(5)]
        assert {one.source for one in decisions} == {AnswerSource.FALLBACK}
        assert all(len(one.degraded) < 2 * MOST_TEXT for one in decisions)
        assert cascade.decide(EASY).source is AnswerSource.SAVER


def test_what_a_host_calls_its_version_is_printable_and_short() -> None:
    class Talkative(Host):
        def infer(self, tensor, contract, *, datatype, timeout_s):
            reply = super().infer(tensor, contract, datatype=datatype, timeout_s=timeout_s)
            return Reply(reply.values, ESCAPES + 500_000 * "v", reply.sha256)

    with cascade_of(Talkative()) as cascade:
        decision = cascade.decide(HARD)
    assert decision.source is AnswerSource.LARGE
    assert len(json.dumps(decision.to_dict())) < 1500
    assert decision.identity.version.isprintable()
    assert len(decision.identity.version) == MOST_NAME


@pytest.mark.parametrize(
    "text", [ESCAPES + "boom", 500_000 * "x", "a\nb\r\nc\td", "\x00\x7f\x9b31m"]
)
def test_what_a_host_says_is_one_short_printable_line(text) -> None:
    said = str(RequestError(Kind.REJECTED, text))
    assert said.isprintable()
    assert len(said) <= MOST_TEXT


@pytest.mark.parametrize(
    ("text", "shown"),
    [("größe 5 µm ✓ 漢字", "größe 5 µm ✓ 漢字"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\tb\nc", "a b c"),
     ("\u202egnp.exe", "\\u202egnp.exe"), ("नमस्\u200dते", "नमस्\u200dते"), ("\ud800", "\\ud800"),
     ("\U000e0041", "\\U000e0041"), ("\u2028", "\\u2028")],
)  # fmt: skip
def test_letters_stay_and_controls_are_written_out(text, shown) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_brief_looks_at_the_beginning_only() -> None:
    assert brief("a  b\nc") == "a b c"
    assert brief("x" * 301).endswith("x…")
    assert len(brief("\x1b" * 10_000)) == MOST_TEXT
    assert for_people("one\ntwo\x07") == "one\ntwo\\x07"
