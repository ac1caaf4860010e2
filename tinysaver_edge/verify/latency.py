"""Latency: does the cascade keep, on this machine, the time that it was calibrated for?"""

from __future__ import annotations

from collections.abc import Sequence

from tinysaver_edge.bench import Effort, measure_alone, measure_pair
from tinysaver_edge.bundle.manifest import LatencyEntry
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.latency import PooledLatency, pooled
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify.check import LATENCY, Check

EFFORT = Effort(warm_up=20, min_runs=200, min_seconds=2.0, max_seconds=20.0)

SLACK = 0.1
"""How far over a limit may be chance: two runs on one machine differ by about as much."""


def check_latency(
    promised: LatencyEntry | None,
    cascade: Cascade,
    frames: Sequence[Frame],
    *,
    effort: Effort = EFFORT,
) -> Check:
    """Time both ways that a frame can take and hold mean and quantiles against the limits.

    The ways are weighted as they were for the budget: by the highest share of escalated frames
    that the calibration expects, not by that of the few golden frames.

    Args:
        promised: the limits, None where there were none.
        cascade: open, of this bundle.
        frames: ``(height, width, 3)`` BGR uint8, at least one, that take turns.
        effort: how long to time.
    """
    if promised is None or not promised.limits:
        return Check(LATENCY, None, "the bundle was calibrated without a limit of time")
    stages = cascade.stages
    if len(stages) > 2:
        return Check(LATENCY, None, f"{len(stages)} stages: only two are timed against a limit")
    if len(stages) == 1:
        found = pooled(((measure_alone(stages[0], frames, effort=effort), 1.0),))
    else:
        saver, large = stages
        pair = measure_pair(saver, large, frames, fusion=cascade.policy.fusion, effort=effort)
        found = pair.at(promised.escalation_rate)
    return judge(promised, found)


def judge(promised: LatencyEntry, found: PooledLatency) -> Check:
    """Hold what was measured against the limits: kept, perhaps over by chance, or broken."""
    measured = {
        "mean_latency_ms": found.mean_ms,
        "p95_latency_ms": found.quantile_ms(0.95),
        "p99_latency_ms": found.quantile_ms(0.99),
    }
    told, worst = [], 0.0
    for name, limit in promised.limits.items():
        over = measured[name] / limit - 1
        worst = max(worst, over)
        how = f"over by {100 * over:.0f} %" if over > 0 else "kept"
        told.append(f"{name} {measured[name]:.2f} of {limit:g}, {how}")
    detail = f"{'; '.join(told)} ({100 * promised.escalation_rate:.1f} % of frames escalated)"
    if worst > SLACK:
        return Check(LATENCY, False, detail)
    if worst > 0:
        return Check(LATENCY, None, f"{detail}: no more than runs differ by", warning=True)
    return Check(LATENCY, True, detail)
