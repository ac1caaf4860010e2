"""Decisions and frames for the tests of what hears of them."""

import numpy as np

from tinysaver_edge.decision import AnswerSource, Decision, FrameId, StageRef
from tinysaver_edge.stream.sources.source import Frame


def decision(number=0, **changes):
    """A decision of the saver about frame `number` of camera "cam"."""
    values = {
        "label": "cat",
        "index": 3,
        "confidence": 0.75,
        "score": 0.5,
        "stage": StageRef(0, "tiny"),
        "source": AnswerSource.SAVER,
        "escalated": False,
        "degraded": None,
        "certified": True,
        "revision": 0,
        "frame_id": FrameId(changes.pop("source_id", "cam"), number),
        "timestamp_s": number / 30,
        "timings_ms": {"total": 4.0},
    }
    return Decision(**{**values, **changes})


def escalated(number=0, **changes):
    """A decision of the large model."""
    values = {"source": AnswerSource.LARGE, "escalated": True, "stage": StageRef(1, "big")}
    return decision(number, **{**values, **changes})


def frame(number=0, *, source_id="cam", height=48, width=64):
    """A frame whose picture tells its number."""
    image = np.full((height, width, 3), number % 256, np.uint8)
    image[: height // 2] = (10, 200, 90)
    return Frame(image, number / 30, number, source_id)


class Events:
    """Listens and remembers."""

    def __init__(self):
        self.all = []

    def __call__(self, event):
        self.all.append(event)

    def kinds(self):
        return [event.kind for event in self.all]

    def of(self, kind):
        return [event for event in self.all if event.kind == kind]
