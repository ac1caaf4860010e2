"""Deferral scores over a saver's outputs, shared by calibration and the device."""

from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score.base import Score
from tinysaver_edge.score.head import Head
from tinysaver_edge.score.registry import ENTRY_POINT_GROUP, get_score, score_names
from tinysaver_edge.score.simple import (
    Doctor,
    Entropy,
    Margin,
    MaxLogitPNorm,
    MaxSoftmax,
    TemperatureScaled,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "Doctor",
    "Entropy",
    "Head",
    "Margin",
    "MaxLogitPNorm",
    "MaxSoftmax",
    "Outputs",
    "Score",
    "TemperatureScaled",
    "get_score",
    "score_names",
]
