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


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which bundle decided.

    Attributes:
        sha256: hash of its `bundle.json`, hexadecimal, which has the hash of every other file.
        name: what it was signed as; None where its signature was not looked at.
        version: which of that name; None as well.
    """

    sha256: str
    name: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        known = "" if self.name is None else f"{self.name} version {self.version}, "
        return f"{known}{self.sha256[:12]}"


class AnswerSource(str, Enum):
    """Where an answer comes from.

    Attributes:
        SAVER: an early stage answered and its score reached its threshold.
        LARGE: the last stage answered.
        FUSED: the answers of an early and the last stage were combined.
        FALLBACK: the saver's answer stands in, because the large model could not be had.
        REUSED: what was found for an earlier frame that looks the same; see `Reused`.
    """

    SAVER = "saver"
    LARGE = "large"
    FUSED = "fused"
    FALLBACK = "fallback"
    REUSED = "reused"


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
        RATE: the source has used up what it may ask of the large model for now.
    """

    PROVISIONAL = "provisional"
    DEADLINE = "deadline"
    IN_FLIGHT = "in_flight"
    FAILED = "failed"
    LOCAL = "local"
    STOPPED = "stopped"
    FALLBACK_DEVICE = "fallback_device"
    RATE = "rate"


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


class Likeness(str, Enum):
    """In what a frame was found to be like an earlier one.

    Attributes:
        STILL: the picture, before any model was asked.
        SAME: the saver's answer, which was unsure of both.
    """

    STILL = "still"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Reused:
    """Where an answer was found that is repeated.

    Attributes:
        frame_id: the frame that a model answered.
        age_s: seconds since that one was taken.
        alike: in what they are alike.
    """

    frame_id: FrameId
    age_s: float
    alike: Likeness

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "frame_id": asdict(self.frame_id),
            "age_s": self.age_s,
            "alike": self.alike.value,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one frame, and how it came about.

    Attributes:
        label: name of the class, or its index as text where the bundle has no labels.
        index: the class, counted from 0 without any background class.
        confidence: probability of that class as the answering model (or the fusion) gives it, 0..1.
        score: the first stage's deferral score; higher is safer. NaN where no stage has a score.
        stage: the stage whose answer it is, the later one of a fused answer.
        source: saver, large, fused, fallback or reused.
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
        reused: where it was found, if it was found for an earlier frame; `stage`, `confidence` and
            `identity` are then of that answer.
        bundle: which bundle decided; None where the cascade came from none.
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
    reused: Reused | None = None
    bundle: BundleIdentity | None = None

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
            "frame_id": asdict(self.frame_id),
            "timestamp_s": self.timestamp_s,
            "taken_at": self.taken_at,
            "timings_ms": dict(self.timings_ms),
            "identity": None if self.identity is None else asdict(self.identity),
            "reused": None if self.reused is None else self.reused.to_dict(),
            "bundle": None if self.bundle is None else asdict(self.bundle),
        }


def stands_in(decision: Decision) -> bool:
    """Return whether an answer is the saver's for want of the large model, or repeats one."""
    if decision.reused is None:
        return decision.source is AnswerSource.FALLBACK
    return decision.reason not in (None, Reason.FALLBACK_DEVICE)
