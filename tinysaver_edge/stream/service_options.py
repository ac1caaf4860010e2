"""What there shall be around a stream: a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tinysaver_edge.stream.drift.drift_options import DEFAULT_DRIFT, DriftOptions


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What there shall be around a stream.

    Attributes:
        jsonl: file for one line a decision.
        jsonl_max_bytes: size at which it is rotated.
        video: file for the annotated video.
        video_fps: frames a second at which it will be played.
        preview: whether to open a window.
        mqtt: broker to publish to; see `MqttAddress.parse`.
        hard_frames: folder for escalated frames.
        field_frames: folder for the next calibration set: audited frames, and as large a share of
            the escalated ones.
        metrics: ``HOST:PORT`` of /metrics, /healthz and /readyz.
        dashboard: ``HOST:PORT`` of the page.
        token: what the page must be asked with, and /metrics.
        drift: how to watch for drift; None watches not.
        must_watch: whether a bundle that cannot be watched is an error.
        seed: decides which escalated frames are saved.
    """

    jsonl: Path | None = None
    jsonl_max_bytes: int = 64 << 20
    video: Path | None = None
    video_fps: float = 30.0
    preview: bool = False
    mqtt: str | None = field(default=None, repr=False)
    hard_frames: Path | None = None
    field_frames: Path | None = None
    metrics: str | None = None
    dashboard: str | None = None
    token: str | None = field(default=None, repr=False)
    drift: DriftOptions | None = DEFAULT_DRIFT
    must_watch: bool = False
    seed: int = 0
