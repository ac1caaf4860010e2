"""Cascades of engines that take their time, stall or fail when a test says so."""

from __future__ import annotations

import threading
import time

import numpy as np

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Preprocess, Resize
from tinysaver_edge.score import Margin
from tinysaver_edge.testing import FakeEngine, frame_numbers

CLASSES = 10
SURE, UNSURE = 9.0, 0.1


class Answers:
    """Answers a frame numbered n with class n % 10 from the saver, (n + 1) % 10 from the large.

    The saver is unsure about every frame for which ``unsure(n)``. Each may take a while.
    """

    def __init__(self, *, unsure=lambda n: n % 2 == 1, saver_s=0.0, large_s=0.0):
        self.unsure = unsure
        self.saver_s, self.large_s = saver_s, large_s
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.saver_broken = False
        self.asked_large = []

    def saver(self, batch):
        if self.saver_broken:
            raise EngineError("the saver is broken")
        if self.saver_s:
            time.sleep(self.saver_s)
        return self._logits(frame_numbers(batch), 0)

    def large(self, batch):
        numbers = frame_numbers(batch)
        self.asked_large.extend(numbers.tolist())
        self.gate.wait(20)
        if self.large_s:
            time.sleep(self.large_s)
        if self.broken:
            raise EngineError("the large model is broken")
        return self._logits(numbers, 1)

    def _logits(self, numbers, shift):
        logits = np.zeros((len(numbers), CLASSES), np.float32)
        for row, number in enumerate(numbers.tolist()):
            unsure = not shift and self.unsure(number)
            logits[row, (number + shift) % CLASSES] = UNSURE if unsure else SURE
        return logits


def cascade_of(answers, *, large_size=8, **settings):
    """A cascade of a saver and a large model; of another input size, where asked."""
    saver = FakeEngine(answers.saver)
    large = FakeEngine(answers.large, preprocess=Preprocess(Resize(large_size, large_size)))
    return Cascade(
        [
            Stage(
                saver,
                preprocess=saver.preprocess,
                policy=StagePolicy("saver", score=Margin(), threshold=0.5),
            ),
            Stage(large, preprocess=large.preprocess, policy=StagePolicy("large")),
        ],
        **settings,
    )
