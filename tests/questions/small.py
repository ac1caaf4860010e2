"""A walk over made-up answers, its questions, and a person who knows the truth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.outputs import IntArray
from tinysaver_edge.questions.book import AnswerWord
from tinysaver_edge.questions.interview import Interview
from tinysaver_edge.questions.known import Question
from tinysaver_edge.questions.tally import Pairs, Walk

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
CLASSES = 10


@dataclass(frozen=True)
class Small:
    """A walk of two stages without fusion.

    Attributes:
        walk: as an interview takes it.
        questions: in the walk's order.
        places: each one's sample.
        firsts: each one's threshold.
        truth: the true classes.
    """

    walk: Walk
    questions: list[Question]
    places: IntArray
    firsts: IntArray
    truth: IntArray

    def interview(self, **more: Any) -> Interview:
        given = {"target": len(self.walk.thresholds) // 2, **more}
        return Interview(self.walk, self.questions, self.places, firsts=self.firsts, **given)

    def right(self, question: Question) -> AnswerWord:
        """What somebody says who is right."""
        truth = int(self.truth[question.sample])
        return {question.a: AnswerWord.A, question.b: AnswerWord.B}.get(truth, AnswerWord.NEITHER)


def small(samples: int = 2000, *, seed: int = 0, differing: float = 0.05) -> Small:
    """Make one: the saver's answer differs on a share of the samples, rather where it is unsure."""
    rng = np.random.default_rng(seed)
    thresholds = np.linspace(0.95, 0.0, 20)
    score = rng.random(samples)
    truth = rng.integers(0, CLASSES, samples)
    large = np.where(rng.random(samples) < 0.9, truth, (truth + 1) % CLASSES)
    saver = np.where(
        rng.random(samples) < 2 * differing * (1 - score), (large + 3) % CLASSES, large
    )
    saver = np.where((saver != large) & (rng.random(samples) < 0.4), truth, saver)
    first = np.searchsorted(-thresholds, -score)
    differ = np.flatnonzero((saver != large) & (first < len(thresholds)))
    order = differ[np.argsort(first[differ], kind="stable")]
    accepted = (score[:, None] >= thresholds).sum(axis=0)
    pairs = Pairs(
        order,
        first[order],
        np.full(len(order), 20),
        saver[order],
        large[order],
        escalated=np.zeros(len(order), bool),
    )
    walk = Walk(
        thresholds=thresholds,
        accepted=accepted,
        costs=0.1 + 1 - accepted / samples,
        pairs=pairs,
        samples=samples,
        evidence=EvidenceKind.LABELS,
        groups=None,
        max_drop_points=2.0,
        share=0.1,
    )
    questions = [
        Question.of(f"frame {n}", n, f"frames/{n}.png", saver[n], large[n]) for n in order.tolist()
    ]
    return Small(walk, questions, order, first[order], truth)


def later(count: int) -> datetime:
    """Return a time some answers on."""
    return NOW + timedelta(seconds=5 * count)
