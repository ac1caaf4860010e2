"""Streams: frames from cameras and files, decided as they come.

A frame's way: pipeline (reads each source) → lane (its place in line) → dispatcher (asks the saver)
→ escalations (ask the large model, keep deadlines) → lane → output (whoever iterates).

    sources/     where frames come from: cameras, files, functions, other programs
    sinks/       where decisions go besides the program that asks for them
    drift/       whether the field still looks like the calibration set
    telemetry/   what others learn: events, logs, metrics, health, what is left of the promise
    dashboard/   the page about a running stream
    pipeline     a whole stream: opens and closes the sources, one thread reads each
    submissions  single frames, as futures
    service      all that stands around a stream, made of one value of options
    options      how a stream escalates, and how much it may hold
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinysaver_edge._support.packages import lazy_exports

__all__ = [
    "Action",
    "AllMetrics",
    "AnySource",
    "BundleNews",
    "CalibrationSetSink",
    "CallbackSink",
    "ChangeSink",
    "Changed",
    "Connected",
    "Connection",
    "Context",
    "Corrupt",
    "Counter",
    "DecisionFuture",
    "Denied",
    "Device",
    "DeviceError",
    "DisagreementEntry",
    "Doubtful",
    "Drift",
    "DriftOptions",
    "DriftState",
    "DriftWatch",
    "Dropped",
    "Ended",
    "Event",
    "ForwardOptions",
    "Frame",
    "Frozen",
    "Gauge",
    "HardFramesSink",
    "IterableSource",
    "JsonlSink",
    "Kept",
    "Listener",
    "Listeners",
    "LiveOptions",
    "LiveSource",
    "Lost",
    "Measure",
    "Metrics",
    "MqttAddress",
    "MqttSink",
    "PreviewSink",
    "PrometheusMetrics",
    "Queued",
    "RandomShare",
    "Reading",
    "Reconnected",
    "Retrying",
    "Service",
    "ServiceOptions",
    "Sink",
    "SinkFailed",
    "SinkRecovered",
    "Source",
    "SourceUri",
    "Stream",
    "StreamOptions",
    "Tally",
    "Undecided",
    "VideoSink",
    "Watch",
    "calibrated_disagreement",
    "open_sink",
    "open_source",
]

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import DisagreementEntry
    from tinysaver_edge.stream.drift.drift import (
        Action,
        DriftOptions,
        DriftState,
        DriftWatch,
        calibrated_disagreement,
    )
    from tinysaver_edge.stream.drift.watch import Watch
    from tinysaver_edge.stream.options import StreamOptions
    from tinysaver_edge.stream.pipeline import Stream
    from tinysaver_edge.stream.service import Service, ServiceOptions
    from tinysaver_edge.stream.sinks.base import CallbackSink, ChangeSink, Sink, open_sink
    from tinysaver_edge.stream.sinks.forward import ForwardOptions
    from tinysaver_edge.stream.sinks.jsonl import JsonlSink
    from tinysaver_edge.stream.sinks.mqtt import MqttAddress, MqttSink
    from tinysaver_edge.stream.sinks.queued import Queued
    from tinysaver_edge.stream.sinks.saved_frames import (
        CalibrationSetSink,
        HardFramesSink,
        RandomShare,
    )
    from tinysaver_edge.stream.sinks.video import PreviewSink, VideoSink
    from tinysaver_edge.stream.sources.live import (
        Connection,
        Device,
        DeviceError,
        LiveOptions,
        LiveSource,
    )
    from tinysaver_edge.stream.sources.opening import AnySource, IterableSource, open_source
    from tinysaver_edge.stream.sources.source import Context, Frame, Source
    from tinysaver_edge.stream.sources.uri import SourceUri
    from tinysaver_edge.stream.submissions import DecisionFuture
    from tinysaver_edge.stream.telemetry.events import (
        BundleNews,
        Changed,
        Connected,
        Corrupt,
        Denied,
        Doubtful,
        Drift,
        Dropped,
        Ended,
        Event,
        Frozen,
        Listener,
        Listeners,
        Lost,
        Reconnected,
        Retrying,
        SinkFailed,
        SinkRecovered,
        Undecided,
    )
    from tinysaver_edge.stream.telemetry.metrics import (
        AllMetrics,
        Counter,
        Gauge,
        Measure,
        Metrics,
        Reading,
        Tally,
    )
    from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics
    from tinysaver_edge.stream.telemetry.promise import Kept
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "drift.drift": (
                "Action",
                "DriftOptions",
                "DriftState",
                "DriftWatch",
                "calibrated_disagreement",
            ),
            "tinysaver_edge.bundle.manifest": ("DisagreementEntry",),
            "telemetry.promise": ("Kept",),
            "drift.watch": ("Watch",),
            "options": ("StreamOptions",),
            "pipeline": ("Stream",),
            "service": ("Service", "ServiceOptions"),
            "sinks.base": ("CallbackSink", "ChangeSink", "Sink", "open_sink"),
            "sinks.forward": ("ForwardOptions",),
            "sinks.jsonl": ("JsonlSink",),
            "sinks.mqtt": ("MqttAddress", "MqttSink"),
            "sinks.queued": ("Queued",),
            "sinks.saved_frames": ("CalibrationSetSink", "RandomShare", "HardFramesSink"),
            "sinks.video": ("PreviewSink", "VideoSink"),
            "sources.live": ("Connection", "Device", "DeviceError", "LiveOptions", "LiveSource"),
            "sources.opening": ("AnySource", "IterableSource", "open_source"),
            "sources.source": ("Context", "Frame", "Source"),
            "sources.uri": ("SourceUri",),
            "submissions": ("DecisionFuture",),
            "telemetry.events": (
                "BundleNews",
                "Changed",
                "Connected",
                "Corrupt",
                "Denied",
                "Doubtful",
                "Drift",
                "Dropped",
                "Ended",
                "Event",
                "Frozen",
                "Listener",
                "Listeners",
                "Lost",
                "Reconnected",
                "Retrying",
                "SinkFailed",
                "SinkRecovered",
                "Undecided",
            ),
            "telemetry.metrics": (
                "AllMetrics",
                "Counter",
                "Gauge",
                "Measure",
                "Metrics",
                "Tally",
                "Reading",
            ),
            "telemetry.prometheus": ("PrometheusMetrics",),
        },
    )
