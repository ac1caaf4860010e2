"""Sinks: where decisions go besides the program that asks for them."""

from tinysaver_edge.stream.sinks.callback import CallbackSink
from tinysaver_edge.stream.sinks.field import CalibrationSetSink, EscalationSample
from tinysaver_edge.stream.sinks.hard import HardFramesSink
from tinysaver_edge.stream.sinks.jsonl import JsonlSink
from tinysaver_edge.stream.sinks.mqtt import MqttSink
from tinysaver_edge.stream.sinks.preview import PreviewSink
from tinysaver_edge.stream.sinks.queued import Queued
from tinysaver_edge.stream.sinks.video import VideoSink

__all__ = [
    "CalibrationSetSink",
    "CallbackSink",
    "EscalationSample",
    "HardFramesSink",
    "JsonlSink",
    "MqttSink",
    "PreviewSink",
    "Queued",
    "VideoSink",
]
