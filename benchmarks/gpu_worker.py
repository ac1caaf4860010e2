"""`bench_gpu.py`, part "worker": the process of the large model is killed in the middle."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from gpu_pair import bundle_of, frames_of, on, saver_model, saver_stage, thresholds

from tinysaver_edge import Cascade
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.worker import WorkerEngine

if TYPE_CHECKING:
    from bench_gpu import Run

ESCALATED = 0.5
BACK_WITHIN_S = 40.0


def bundle_for(run: Run) -> Any:  # noqa: ANN401 - a Path
    """Write the bundle that workers and hosts run: half of the frames escalate."""
    name = run.options.models[-1]
    target = run.work / f"{name}-bundle"
    if target.is_dir():
        return target
    saver = saver_model(run.work)
    stage = saver_stage(saver)
    threshold = thresholds(stage, frames_of(), [ESCALATED])[ESCALATED]
    stage.close()
    large = on(run.large(name), run.options.device, Precision(run.options.precision))
    return bundle_of(target, saver, large, threshold=threshold)


def worker(run: Run) -> None:
    """Decide frames one by one, kill the worker, go on until some time after it is back."""
    bundle, frames = bundle_for(run), itertools.cycle(frames_of())
    started_s = time.monotonic()
    with Cascade.load(bundle, large_worker=True) as cascade:
        opened_s = time.monotonic() - started_s
        engine = cascade.stages[-1].engine
        assert isinstance(engine, WorkerEngine)
        before = decide_until(cascade, frames, lambda: False, run.options.seconds)
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        killed_s = time.monotonic()
        away = decide_until(cascade, frames, lambda: engine.pid not in (None, first), BACK_WITHIN_S)
        away_s = time.monotonic() - killed_s
        back = decide_until(cascade, frames, lambda: False, run.options.seconds)
    run.keep(
        "worker",
        run.options.models[-1],
        {
            "start of bundle and worker, s": opened_s,
            "from SIGKILL until its successor answers, s": away_s,
            **{f"before: {name}": value for name, value in before.items()},
            **{f"while it is away: {name}": value for name, value in away.items()},
            **{f"after: {name}": value for name, value in back.items()},
        },
    )


def decide_until(cascade: Cascade, frames: Any, done: Any, seconds: float) -> dict[str, Any]:  # noqa: ANN401
    """Decide frames until something is so, at the longest for some seconds; count what came."""
    counts = {"decisions": 0, "escalated": 0, "degraded": 0, "escalated and not degraded": 0}
    longest_s = 0.0
    due_s = time.monotonic() + seconds
    while time.monotonic() < due_s and not done():
        started_s = time.perf_counter()
        decision = cascade.decide(next(frames))
        longest_s = max(longest_s, time.perf_counter() - started_s)
        counts["decisions"] += 1
        counts["escalated"] += decision.escalated
        counts["degraded"] += decision.degraded is not None
        counts["escalated and not degraded"] += decision.escalated and decision.degraded is None
    return {**counts, "longest decision, ms": longest_s * 1e3}
