"""The plan of a fleet against reality: eight edge processes on one host, at three loads.

    make servers SERVERS=kserve
    python benchmarks/bench_plan.py [--seconds 40] [--only reality size]

"reality": `tinysaver-edge serve` runs batches of up to four; its model takes 40, 55 and 90 ms for
1, 2 and 4 frames and nothing of the processor, as an accelerator would. Eight processes each have
a live camera whose frames come in bursts that the saver is unsure about. First a run at an easy
rate is recorded: its JSON lines and what batches take the host are all the plan is told. Then the
cameras run at rates for which the host is half at work, nearly all the time, and far too slow, and
what they saw is set beside the plan: escalations a second and p95 of final decisions within 15 %,
the share degraded within 5 points. Both sides are samples: their 95 % intervals stand beside them.
Of eight cameras that keep their step some always escalate together, or none: that moves p95 at half
load, however long one looks. So each falls into another step every 5 s; these are also the blocks
of the intervals. Near saturation queues come and go with the bursts: that load is looked at longer.

At the load "narrow" all requests share a slow link, a proxy that lets so many bits a second through
and is in use for three quarters of the time. What a frame takes on it is counted beforehand.

"size": what it takes to simulate 50 cameras of 10 frames a second for 24 hours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from math import inf, isinf
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from typing import Any

import numpy as np
from cameras import PacedCamera
from imagenet import RESULTS, save, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tests.colours import NAMES, colour_picture  # noqa: E402
from tests.remote.hosts import remote  # noqa: E402
from tests.remote.kserve import Served, why_not  # noqa: E402
from tests.small_bundle import THRESHOLD, small_bundle  # noqa: E402
from tinysaver_edge.bench.report import report_path  # noqa: E402
from tinysaver_edge.bench.run import BenchRequest, bench_bundle_file  # noqa: E402
from tinysaver_edge.bench.timing import Effort  # noqa: E402
from tinysaver_edge.bundle.bundle import Bundle  # noqa: E402
from tinysaver_edge.cascade import Cascade  # noqa: E402
from tinysaver_edge.plan.escalating import Bursts, read_traces  # noqa: E402
from tinysaver_edge.plan.fleet import Fleet, read_times  # noqa: E402
from tinysaver_edge.plan.forecast import Forecast, Planner  # noqa: E402
from tinysaver_edge.preprocess import Frame  # noqa: E402
from tinysaver_edge.stream.sources.live import LiveSource  # noqa: E402

EDGES = 8
DEADLINE_MS = 400.0
SHARE, BURST_S = 0.4, 0.5
DRAWS = 40
"""Of so many drawings of bursts that one is shown whose share is nearest to `SHARE`: half a minute
by itself has 10 % more or less, which is chance and none of the plan's."""

TAKES_S = {1: 0.040, 2: 0.055, 4: 0.090}
LOADS = {
    "calm": (5.0, 1, inf),
    "half": (4.0, 1, inf),
    "near": (12.0, 2, inf),
    "past": (19.0, 1, inf),
    "narrow": (6.0, 1, 750e3),
}
"""Frames a second, how much longer than others it is looked at, bits a second of the link."""

WARM_S, BLOCK_S = 3.0, 5.0
AT_HAND_S = 0.0003
"""A packet that is read within this had come before."""

SLEEPING = """
import json, time
from tinysaver_edge.host.kserve_model import Answerer
run = Answerer.run
def as_an_accelerator(self, batch):
    begun = time.perf_counter()
    answer = run(self, batch)
    time.sleep(max(0.0, {takes}.get(len(batch), 0.0) - (time.perf_counter() - begun)))
    with open({log!r}, "a") as file:
        file.write(json.dumps([len(batch), 1e3 * (time.perf_counter() - begun)]) + "\\n")
    return answer
Answerer.run = as_an_accelerator
"""


class Link:
    """What lies between devices and host: a proxy that all share, slow on the way there.

    Args:
        host: URL of what it leads to.
    """

    def __init__(self, host: str) -> None:
        scheme, _, rest = host.partition("://")
        address, _, model = rest.partition("/")
        name, _, port = address.rpartition(":")
        self._host = (name, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}/{model}"
        self.bps, self.bytes, self._free_s = inf, 0, 0.0
        self._sending = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._host)
                for ends in ((near, far, True), (far, near, False)):
                    ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, there: bool) -> None:
        through_s = time.monotonic()
        with suppress(OSError), source, target:
            while True:
                asked_s = time.monotonic()
                if not (piece := source.recv(1400)):
                    break
                now_s = time.monotonic()
                if there:
                    # What lay there already came when the last was through, not when we woke up.
                    came_s = through_s if now_s - asked_s < AT_HAND_S else now_s
                    through_s = self._wait(came_s, len(piece))
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def _wait(self, came_s: float, size: int) -> float:
        """Wait until a packet is through, after those before it; return when that was."""
        with self._sending:
            self._free_s = max(came_s, self._free_s) + 8 * size / self.bps
            self.bytes += size
            time.sleep(max(0.0, self._free_s - time.monotonic()))
            return self._free_s

    def frame_bytes(self, bundle: Path) -> float:
        """Count what one frame takes."""
        with Cascade.load(bundle, large=remote(self.url, timeout_s=5.0), threads=1) as cascade:
            stage = cascade.stages[-1]
            stage.engine.infer(stage.blank)
            before = self.bytes
            for _ in range(20):
                stage.engine.infer(stage.blank)
            return (self.bytes - before) / 20

    def close(self) -> None:
        """Take nobody any more."""
        self._listening.close()


def sorted_pictures(bundle: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return pictures that the saver is sure of, and some that it is not."""
    pictures = [colour_picture(number % len(NAMES), number) for number in range(300)]
    with Cascade.load(bundle) as cascade:
        scores = [cascade.decide(one).score for one in pictures]
    sure = [one for one, score in zip(pictures, scores, strict=True) if score >= THRESHOLD]
    unsure = [one for one, score in zip(pictures, scores, strict=True) if score < THRESHOLD]
    return sure, unsure


class StragglingCamera(PacedCamera):
    """A steady camera that falls into another step with its like every `BLOCK_S`."""

    def read(self, into: Frame | None) -> Frame | None:
        """Wait for the next picture."""
        if self._left % round(BLOCK_S / self._period_s) == 0:
            self._next_s += (np.random.default_rng().random() - 0.5) * self._period_s
        return super().read(into)


def edge(
    bundle: str, url: str, fps: float, frames: list[Any], log: str, ready: Semaphore, begin: Event
) -> None:
    """One device: decide a camera's frames, and keep each decision and how old it was."""
    with (
        Cascade.load(bundle, large=remote(url, timeout_s=DEADLINE_MS / 1e3), threads=1) as cascade,
        Path(log).open("w") as file,
    ):
        paced = StragglingCamera(frames, fps=fps, frames=len(frames))
        camera = LiveSource(paced, source_id="camera")
        ready.release()
        begin.wait()
        time.sleep(np.random.default_rng().random() / fps)
        started_s = time.monotonic()
        for decision in cascade.stream(camera, deadline_ms=DEADLINE_MS):
            now_s = time.monotonic()
            told = decision.to_dict() | {
                "age_ms": 1e3 * (now_s - decision.timestamp_s),
                "since_s": decision.timestamp_s - started_s,
            }
            file.write(json.dumps(told) + "\n")


def run_edges(
    bundle: Path, url: str, fps: float, seconds: float, folder: Path, seed: int
) -> list[Path]:
    """Let eight devices run for a while; return their decisions."""
    folder.mkdir()
    sure, unsure = sorted_pictures(bundle)
    chance = np.random.default_rng(seed)
    count = round(fps * (seconds + WARM_S))
    drawn = [
        Bursts(SHARE, BURST_S).draw(chance, cameras=EDGES, frames=count, fps=fps)
        for _ in range(DRAWS)
    ]
    flags = min(drawn, key=lambda one: abs(one.mean() - SHARE))
    spawn = multiprocessing.get_context("spawn")
    ready, begin = spawn.Semaphore(0), spawn.Event()
    logs, processes = [], []
    for number, row in enumerate(flags):
        shown = [
            (unsure if flag else sure)[chance.integers(len(unsure if flag else sure))]
            for flag in row
        ]
        logs.append(folder / f"{number}.jsonl")
        given = (str(bundle), url, fps, shown, str(logs[-1]), ready, begin)
        processes.append(spawn.Process(target=edge, args=given, daemon=True))
        processes[-1].start()
    for _ in processes:
        if not ready.acquire(timeout=60):
            raise RuntimeError("an edge did not start")
    begin.set()
    for process in processes:
        process.join(seconds + WARM_S + 30)
        if process.is_alive():
            process.kill()
            raise RuntimeError("an edge did not end")
    return logs


def seen(logs: list[Path], seconds: float) -> dict[str, Any]:
    """Return what the devices saw, with intervals from blocks of some seconds."""
    lines = [json.loads(row) for log in logs for row in log.read_text().splitlines()]
    lines = [one for one in lines if WARM_S <= one["since_s"] < WARM_S + seconds]
    block = np.array([int((one["since_s"] - WARM_S) // BLOCK_S) for one in lines])
    ages = np.array([one["age_ms"] for one in lines])
    lost = np.array([one["degraded"] is not None for one in lines])
    asked = np.array([one["escalated"] for one in lines])
    blocks = np.unique(block)
    chance = np.random.default_rng(0)

    def figures(chosen: np.ndarray) -> list[float]:
        picked = np.concatenate([np.flatnonzero(block == one) for one in chosen])
        return [
            float(asked[picked].sum() / BLOCK_S / len(chosen)),
            float(np.quantile(ages[picked], 0.95)),
            float(lost[picked].mean()),
        ]

    value = figures(blocks)
    again = np.array([figures(chance.choice(blocks, len(blocks))) for _ in range(300)])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    return {
        "frames": len(lines),
        "reasons": dict(Counter(one["reason"] or "none" for one in lines)),
        **{
            name: {"value": value[place], "low": float(low[place]), "high": float(high[place])}
            for place, name in enumerate(("escalations_per_s", "p95_latency_ms", "degraded"))
        },
    }


def timed_batches(bundle: Path, host: Served, log: Path) -> dict[int, np.ndarray]:
    """Return what the host's model takes so many frames at once, as `bench` would time it there."""
    with Cascade.load(bundle, large=remote(host.url(), timeout_s=5.0), threads=1) as cascade:
        stage = cascade.stages[-1]
        log.unlink(missing_ok=True)
        for count in [*TAKES_S] * 15:
            stage.engine.infer(np.repeat(stage.blank, count, axis=0))
    rows = [json.loads(row) for row in log.read_text().splitlines()]
    return {size: np.array([ms for count, ms in rows if count == size]) for size in TAKES_S}


def settled(logs: list[Path]) -> list[Path]:
    """Leave the first seconds out of decisions, in which all processes begin at once."""
    for log in logs:
        rows = log.read_text().splitlines(keepends=True)
        log.write_text("".join(row for row in rows if json.loads(row)["since_s"] >= WARM_S))
    return logs


def reality(folder: Path, seconds: float) -> dict[str, Any]:
    bundle = small_bundle(folder / "bundle")
    effort = Effort(min_runs=200, min_seconds=0.3)
    report = bench_bundle_file(bundle, wanted=BenchRequest(effort, throughput_s=0.3))
    report.write(report_path(bundle))
    taken = folder / "taken.jsonl"
    before = SLEEPING.format(takes=TAKES_S, log=str(taken))
    host = Served(folder, bundle, "--batch", "4", http=False, before=before).start()
    link, logs = Link(host.url()), {}
    try:
        batches = timed_batches(bundle, host, taken)
        frame_bytes = link.frame_bytes(bundle)
        for seed, (name, (fps, longer, bps)) in enumerate(LOADS.items()):
            link.bps, url = bps, host.url() if isinf(bps) else link.url
            logs[name] = run_edges(bundle, url, fps, longer * seconds, folder / name, seed)
    finally:
        link.close()
        host.stop()
    with Bundle.load(bundle) as opened:
        times = read_times(opened)
        flow = read_traces(settled(logs["calm"]), opened)
    known = {"batch_ms": batches, "sent_bytes": frame_bytes}
    times = replace(times, accepted_ms=flow.device_ms, escalated_ms=flow.device_ms, **known)
    rtt_ms = flow.beside_ms(batches[1])
    results: dict[str, Any] = {"trace": flow.said[0], "rtt_ms": rtt_ms, "frame_bytes": frame_bytes}
    for name, (fps, longer, bps) in LOADS.items():
        if name == "calm":
            continue
        fleet = Fleet(EDGES, fps, EDGES, uplink_bps=bps, rtt_ms=rtt_ms, deadline_ms=DEADLINE_MS)
        planned = Planner(times, flow).forecast(fleet, seconds=3600)
        results[name] = {
            "fps": fps,
            "seen": seen(logs[name], longer * seconds),
            "plan": told(planned),
        }
    return results


def told(planned: Forecast) -> dict[str, Any]:
    return {name: one.to_dict() for name, one in planned.figures.items()}


def size() -> dict[str, Any]:
    """Time and memory of a day of 50 cameras, at two shares of escalated frames."""
    from tinysaver_edge.plan.fleet import Times

    chance = np.random.default_rng(0)
    saver = chance.gamma(20, 0.2, 500)
    times = Times(saver, saver, {one: s * 1e3 * np.ones(1) for one, s in FAST.items()}, 20_000.0)
    found = {}
    for share in (0.1, 0.3):
        fleet = Fleet(50, 10.0, 50, hosts=1, uplink_bps=100e6, rtt_ms=5.0)
        begun_s, spent_s = time.perf_counter(), time.process_time()
        planned = Planner(times, Bursts(share)).forecast(fleet, seconds=86_400)
        found[str(share)] = {
            "seconds": time.perf_counter() - begun_s,
            "processor_s": time.process_time() - spent_s,
            "simulated_hours": planned.simulated_s / 3600,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    return found


FAST = {1: 0.008, 2: 0.011, 4: 0.018}
"""A host's model for "size", in seconds."""


def apart(seen_: dict[str, Any], plan: dict[str, Any], name: str) -> float:
    """Return how far the plan is off: relative, or in points for a share."""
    one, other = seen_[name]["value"], plan[name]["value"]
    return 100 * (other - one) if name == "degraded" else 100 * (other / one - 1)


WITHIN = {"escalations_per_s": 15.0, "p95_latency_ms": 15.0, "degraded": 5.0}


def shown(name: str, one: dict[str, Any]) -> str:
    scale, digits = (100, 1) if name == "degraded" else (1, 1 if name == "escalations_per_s" else 0)
    value, low, high = (f"{scale * one[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def told_of_size(found: dict[str, Any]) -> tuple[str, bool]:
    rows = [
        (f"{float(share):.0%}", f"{one['seconds']:.1f}", f"{one['processor_s']:.1f}",
         f"{one['simulated_hours']:.1f}", f"{one['peak_mb']:.0f}")
        for share, one in found.items()
    ]  # fmt: skip
    head = ("escalated", "seconds", "processor, s", "hours simulated", "peak, MiB")
    good = all(
        one["processor_s"] <= 60 and one["peak_mb"] <= 500 and one["simulated_hours"] == 24
        for one in found.values()
    )
    return "50 cameras of 10 frames/s, 24 hours:\n\n" + table(head, rows), good


def told_of_reality(found: dict[str, Any]) -> tuple[str, bool]:
    rows, good = [], True
    for load in list(LOADS)[1:]:
        one = found[load]
        for name, most in WITHIN.items():
            off = apart(one["seen"], one["plan"], name)
            good &= abs(off) <= most
            unit = "points" if name == "degraded" else "%"
            seen_, plan = (shown(name, one[side][name]) for side in ("seen", "plan"))
            within = "yes" if abs(off) <= most else "NO"
            rows.append((load, name, seen_, plan, f"{off:+.1f} {unit}", within))
    head = ("load", "figure", "eight edges saw", "plan", "off by", "within")
    text = (
        f"Eight edges, deadline {DEADLINE_MS:g} ms; degraded in %; round trip "
        f"{found['rtt_ms']:.1f} ms; where it is narrow, a link of {LOADS['narrow'][2] / 1e3:.0f} "
        f"kbit/s, on which a frame takes {found['frame_bytes']:.0f} bytes. {found['trace']}.\n\n"
    )
    return text + table(head, rows), good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--only", nargs="*", default=["size", "reality"])
    options = parser.parse_args()
    kept = RESULTS / "bench_plan.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    figures = {name: figures[name] for name in ("size", "reality") if name in figures}
    if "size" in options.only:  # first: peak memory is that of the process so far
        figures["size"] = size()
    if "reality" in options.only:
        if (reason := why_not()) is not None:
            print(reason, file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory() as scratch:
            figures["reality"] = reality(Path(scratch), options.seconds)
    tell = {"size": told_of_size, "reality": told_of_reality}
    parts = {name: tell[name](found) for name, found in figures.items()}
    text = "\n\n".join(part for part, _ in parts.values())
    save("bench_plan", title="The plan of a fleet", text=text, figures=figures)
    return 0 if all(good for _, good in parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
