"""The remote engine against a real Triton on this machine: overhead, fairness, accounting.

    make servers
    python benchmarks/bench_remote.py [--requests 1000] [--escalations 10000] [--only NAME ...]

"overhead": one uint8 frame of 224 x 224 to a model that computes nothing and back, through
`RemoteEngine.infer` and through tritonclient alone, in turns. "edges": eight processes ask one host
whose model takes 10 ms and nothing of the processor, as an accelerator would; against the most that
eight processes of bare tritonclient, or one client with sixteen requests open, get out of it in the
same round. "restarts": a stream whose every frame escalates, while
the host is killed and started at random; every frame must come out once, answered or degraded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tests.colours import NAMES, colour_picture  # noqa: E402
from tests.remote.hosts import remote, repository  # noqa: E402
from tests.remote.triton import Triton, why_not  # noqa: E402
from tinysaver_edge.cascade import Cascade  # noqa: E402
from tinysaver_edge.engines.remote.engine import RemoteEngine  # noqa: E402
from tinysaver_edge.output_format import OutputFormat  # noqa: E402
from tinysaver_edge.preprocess import Preprocess, Resize  # noqa: E402

CLASSES = 1000
FRAME = Preprocess(Resize(224, 224))
EDGES = 8
SECONDS = 5.0
ROUNDS = 3
TARGET_MS = 1.5

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {axes} 224, 224, 3 ] }} ]
output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ {axes} 1000 ] }} ]
"""

MODEL = """
import time
import numpy as np
import triton_python_backend_utils as triton

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            frames = triton.get_input_tensor_by_name(request, "image").as_numpy()
            if {sleep_s}:
                time.sleep({sleep_s})
            scores = triton.Tensor("scores", np.zeros((len(frames), 1000), np.float32))
            answers.append(triton.InferenceResponse([scores]))
        return answers
"""


def write_model(folder: Path, name: str, sleep_s: float) -> None:
    version = folder / name / "1"
    version.mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(CONFIG.format(name=name, batch=8, axes=""))
    (version / "model.py").write_text(MODEL.format(sleep_s=sleep_s))


def engine(url: str) -> RemoteEngine:
    return RemoteEngine(
        remote(url, timeout_s=5.0), preprocess=FRAME, output=OutputFormat(), classes=CLASSES
    )


def bare(port: int, name: str, batch: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that asks as tritonclient's own examples do."""
    import tritonclient.grpc

    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")

    def ask() -> np.ndarray:
        given = tritonclient.grpc.InferInput("image", batch.shape, "UINT8")
        given.set_data_from_numpy(batch)
        answer: np.ndarray = client.infer(name, [given], client_timeout=5.0).as_numpy("scores")
        return answer

    return ask


def overhead(host: Triton, requests: int) -> dict[str, float]:
    batch = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    with engine(host.url("echo")) as ours:
        ways = {
            "engine": lambda: ours.infer(batch),
            "tritonclient": bare(host.grpc_port, "echo", batch),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(requests + 100):
            for name, ask in ways.items():
                started = time.perf_counter()
                ask()
                if turn >= 100:
                    times[name].append((time.perf_counter() - started) * 1e3)
    figures = {}
    for name, values in times.items():
        figures[f"{name}_p50_ms"] = statistics.median(values)
        figures[f"{name}_p99_ms"] = float(np.percentile(values, 99))
    return figures


def _ask_for_a_while(
    way: str, url: str, port: int, ready: Semaphore, begin: Event, counts: Queue
) -> None:
    """One process: ask as often as the host answers, for `SECONDS`."""
    batch = np.zeros((1, 224, 224, 3), np.uint8)
    ours = engine(url) if way == "edges" else None
    ask = (lambda: ours.infer(batch)) if ours else bare(port, "busy", batch)
    ask()
    ready.release()
    begin.wait()
    answered, due = 0, time.monotonic() + SECONDS
    while time.monotonic() < due:
        ask()
        answered += 1
    counts.put(answered)
    if ours:
        ours.close()


def in_processes(host: Triton, way: str) -> list[float]:
    """Return the frames a second of each of eight processes that ask at once."""
    spawn = multiprocessing.get_context("spawn")
    ready, begin, counts = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    given = (way, host.url("busy"), host.grpc_port, ready, begin, counts)
    processes = [spawn.Process(target=_ask_for_a_while, args=given) for _ in range(EDGES)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    begin.set()
    answered = [counts.get() / SECONDS for _ in processes]
    for process in processes:
        process.join()
    return answered


def open_requests(host: Triton) -> float:
    """Return the frames a second with one client that always has sixteen requests open."""
    import tritonclient.grpc

    batch = np.zeros((1, 224, 224, 3), np.uint8)
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{host.grpc_port}")
    given = tritonclient.grpc.InferInput("image", batch.shape, "UINT8")
    given.set_data_from_numpy(batch)
    room, answered = threading.Semaphore(2 * EDGES), itertools.count()

    def done(result: object, error: object) -> None:
        if error is None:
            next(answered)
        room.release()

    due = time.monotonic() + SECONDS
    while time.monotonic() < due:
        room.acquire()
        client.async_infer("busy", [given], done)
    figure = next(answered) / SECONDS
    for _ in range(2 * EDGES):
        room.acquire()
    client.close()
    return figure


def edges(host: Triton) -> dict[str, Any]:
    """Compare eight edges with the most that any bare client gets out of the host, in rounds."""
    rounds = []
    for _ in range(ROUNDS):
        ours = in_processes(host, "edges")
        limits = {
            "eight bare clients": sum(in_processes(host, "bare")),
            "sixteen requests open": open_requests(host),
        }
        rounds.append(
            {
                "edges_fps": sum(ours),
                "limits_fps": limits,
                "share_of_limit": sum(ours) / max(limits.values()),
                "slowest_edge_over_mean": min(ours) / statistics.mean(ours),
            }
        )
    return {
        "share_of_limit": statistics.median(one["share_of_limit"] for one in rounds),
        "slowest_edge_over_mean": min(one["slowest_edge_over_mean"] for one in rounds),
        "rounds": rounds,
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def restarts(folder: Path, escalations: int) -> dict[str, Any]:
    served = repository(folder)
    path = folder / "bundle/bundle.json"
    manifest = json.loads(path.read_text())
    manifest["stages"][0]["threshold"] = 2.0  # no margin is that wide: every frame escalates
    path.write_text(json.dumps(manifest))
    host = Triton(folder, served.path).start()
    over, kills = threading.Event(), 0

    def restart() -> None:
        nonlocal kills
        chance = random.Random(0)
        while not over.wait(chance.uniform(1.0, 5.0)):
            host.kill()
            kills += 1
            over.wait(chance.uniform(0.0, 1.0))
            host.start()

    pictures = [colour_picture(number % len(NAMES), number) for number in range(100)]

    def frames() -> Iterator[Any]:
        for number in range(escalations):
            time.sleep(0.005)
            yield pictures[number % 100]

    seen: Counter[int] = Counter()
    sources: Counter[str] = Counter()
    memory: list[float] = []
    restarter = threading.Thread(target=restart)
    with Cascade.load(folder / "bundle", large=remote(host.url("large"), timeout_s=0.4)) as cascade:
        restarter.start()
        started = time.monotonic()
        for decision in cascade.stream(frames(), deadline_ms=400.0, max_in_flight=4):
            seen[decision.frame_id.sequence] += 1
            sources["degraded" if decision.degraded else "answered"] += 1
            if len(seen) % (escalations // 5) == 0:
                memory.append(resident_mb())
        spent = time.monotonic() - started
        over.set()
        restarter.join()
        traffic = cascade.stages[-1].engine.traffic  # type: ignore[attr-defined]
    host.stop()
    exact = list(seen) == list(range(escalations)) and set(seen.values()) == {1}
    return {
        "asked": escalations,
        "answered": sources["answered"],
        "degraded": sources["degraded"],
        "each_once_in_order": exact,
        "kills": kills,
        "seconds": spent,
        "requests": traffic.requests,
        "requests_answered": traffic.answered,
        "retries": traffic.retries,
        "failures": traffic.failures,
        "memory_mb": [round(value, 1) for value in memory],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--escalations", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=["overhead", "edges", "restarts"])
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 2
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder / "models", "echo", 0.0)
        write_model(folder / "models", "busy", 0.01)
        if {"overhead", "edges"} & set(options.only):
            host = Triton(folder, folder / "models").start()
            try:
                if "overhead" in options.only:
                    results["overhead"] = overhead(host, options.requests)
                if "edges" in options.only:
                    results["edges"] = edges(host)
            finally:
                host.stop()
        if "restarts" in options.only:
            (folder / "restarts").mkdir()
            results["restarts"] = restarts(folder / "restarts", options.escalations)
    print(json.dumps(results, indent=2))
    target = ROOT / "benchmarks/results/bench_remote.json"
    kept = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps(kept | results, indent=2) + "\n")
    good = results.get("overhead", {}).get("engine_p50_ms", 0) <= TARGET_MS
    if "edges" in results:
        good &= results["edges"]["share_of_limit"] >= 0.9
    if "restarts" in results:
        restarted = results["restarts"]
        good &= restarted["each_once_in_order"]
        good &= restarted["answered"] + restarted["degraded"] == restarted["asked"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
