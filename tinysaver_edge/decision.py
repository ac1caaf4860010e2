"""What a cascade says about one frame, and which model a host said it answered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from tinysaver_edge._support.numbers import time_of_day


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a host says it answered with.

    Attributes:
        host: the host's URL.
        version: the model's version there; None where the host does not tell.
        sha256: hash of the model's files; None where the host does not tell.
    """

    host: str
    version: str | None
    sha256: str | None

    def __str__(self) -> str:
        return f"version {self.version or '?'}, hash {(self.sha256 or 'not told')[:12]}"


class AnswerSource(str, Enum):
    """Where an answer comes from.

    Attributes:
        SAVER: an early stage answered and its score reached its threshold.
        LARGE: the last stage answered.
        FUSED: the answers of an early and the last stage were combined.
        FALLBACK: the saver's answer stands in, because the large model could not be had.
    """

    SAVER = "saver"
    LARGE = "large"
    FUSED = "fused"
    FALLBACK = "fallback"


class Reason(str, Enum):
    """Why an answer is not the one that the policy asks for.

    Attributes:
        PROVISIONAL: the large model has been asked; a revision follows.
        DEADLINE: the large model had not answered in time.
        IN_FLIGHT: as many frames as allowed were waiting for the large model.
        FAILED: a model failed.
        LOCAL: the stream never escalates.
        STOPPED: the stream was closed before the large model answered.
        FALLBACK_DEVICE: a model runs on another device than asked for.
    """

    PROVISIONAL = "provisional"
    DEADLINE = "deadline"
    IN_FLIGHT = "in_flight"
    FAILED = "failed"
    LOCAL = "local"
    STOPPED = "stopped"
    FALLBACK_DEVICE = "fallback_device"


@dataclass(frozen=True, slots=True)
class FrameId:
    """Which frame a decision is about.

    Attributes:
        source_id: name of the camera, file or caller.
        sequence: position in that source, from 0; a gap is a dropped frame.
    """

    source_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class StageRef:
    """Which stage answered: its position in the cascade, from 0, and its model's name."""

    index: int
    model: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one frame, and how it came about.

    Attributes:
        label: name of the class, or its index as text where the bundle has no labels.
        index: the class, counted from 0 without any background class.
        confidence: probability of that class as the answering model (or the fusion) gives it, 0..1.
        score: the first stage's deferral score; higher is safer. NaN where no stage has a score.
        stage: the stage whose answer it is, the later one of a fused answer.
        source: saver, large, fused or fallback.
        escalated: whether no stage before the last one, the large model, had its answer accepted.
        degraded: why this is not the answer the policy asks for, in a sentence for people, or None.
        reason: the same for programs; None exactly where `degraded` is.
        certified: whether the bundle's certificate covers this answer.
        revision: 0 for the first answer to a frame, 1 for its revision.
        frame_id: source and sequence of the frame.
        timestamp_s: when the frame was taken, on the caller's clock, in seconds.
        taken_at_s: when it was taken, in seconds since 1970; None where nobody knows. `taken_at`
            is the same in words.
        timings_ms: milliseconds spent, by step, as measured on the cascade's clock.
        identity: which model another host says it answered with; None where the model whose answer
            it is ran here.
    """

    label: str
    index: int
    confidence: float
    score: float
    stage: StageRef
    source: AnswerSource
    escalated: bool
    degraded: str | None
    certified: bool
    revision: int
    frame_id: FrameId
    timestamp_s: float
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    identity: ModelIdentity | None = None
    reason: Reason | None = None
    taken_at_s: float | None = None

    @property
    def taken_at(self) -> str | None:
        """The time of day at which it was taken, UTC (2026-01-31T12:00:00.250Z); or None."""
        return None if self.taken_at_s is None else time_of_day(self.taken_at_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as plain values for JSON; a NaN score becomes None."""
        return {
            "label": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "score": self.score if self.score == self.score else None,
            "stage": {"index": self.stage.index, "model": self.stage.model},
            "source": self.source.value,
            "escalated": self.escalated,
            "degraded": self.degraded,
            "reason": None if self.reason is None else self.reason.value,
            "certified": self.certified,
            "revision": self.revision,
            "frame_id": {
                "source_id": self.frame_id.source_id,
                "sequence": self.frame_id.sequence,
            },
            "timestamp_s": self.timestamp_s,
            "taken_at": self.taken_at,
            "timings_ms": dict(self.timings_ms),
            "identity": None if self.identity is None else asdict(self.identity),
        }
