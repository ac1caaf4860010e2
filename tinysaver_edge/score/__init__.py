"""Deferral scores over a saver's outputs, shared by calibration and the device.

base      the contract: how far may an answer be trusted?
simple    scores that need no fitting; head, the learned one
registry  scores by name, those of other packages too
"""

from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score.base import Score
from tinysaver_edge.score.head import Head
from tinysaver_edge.score.registry import get_score, score_names
from tinysaver_edge.score.simple import (
    Doctor,
    Entropy,
    Margin,
    MaxLogitPNorm,
    MaxSoftmax,
    TemperatureScaled,
)

__all__ = [
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
