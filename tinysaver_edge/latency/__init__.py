"""Latency as it was sampled: of one model, and of a cascade from the samples of its models.

samples  of one model
pooled   of a cascade, at any share of escalated frames
"""

from tinysaver_edge.latency.pooled import (
    CascadeLatency,
    PooledLatency,
    cascade_latency,
    pooled,
    settled_shares,
)
from tinysaver_edge.latency.samples import LatencySamples, LatencySource

__all__ = [
    "CascadeLatency",
    "LatencySamples",
    "LatencySource",
    "PooledLatency",
    "cascade_latency",
    "pooled",
    "settled_shares",
]
