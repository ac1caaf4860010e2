"""`bench_gpu.py`, part "host": the large model asked by eight devices at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_worker import bundle_for

from tinysaver_edge import Cascade
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.engines.batching import SIZES
from tinysaver_edge.host.kserve_model import Answerer, Batches
from tinysaver_edge.host.served import served_by

if TYPE_CHECKING:
    from bench_gpu import Run

ROOT = Path(__file__).resolve().parent.parent
DEVICES = 8
STARTS_WITHIN_S = 90.0
LIMITS = (1, *SIZES)


def host(run: Run) -> None:
    """Ask the host's own classes, then `serve` itself where it can be started."""
    bundle = bundle_for(run)
    alone(run, bundle)
    missing = [name for name in ("kserve", "tritonclient", "rapidjson") if not find_spec(name)]
    if missing:
        run.keep("host", "serve", {"not run, not installed": ", ".join(missing)})
        return
    for limit in (1, max(SIZES)):
        through_serve(run, bundle, limit)


def alone(run: Run, bundle: Path) -> None:
    """Ask `Batches` over the engine, without a network: what the host's side can give at most."""
    with Bundle.load(bundle) as opened:
        answerer = Answerer(served_by(opened, name="large"))
        chosen = answerer.at_once
        found: dict[str, Any] = {"the host's choice of a batch": chosen}
        size = (1, *answerer.served.artefact.preprocess.shape(1)[1:])
        given = np.random.default_rng(3).integers(0, 256, size, np.uint8)
        for limit in LIMITS:
            rate = asyncio.run(_asked(answerer, given, limit, run.options.seconds))
            found[f"batches of up to {limit}: frames/s"] = rate
        answerer.close()
    run.keep("host", "its classes, without a network", found)


async def _asked(answerer: Answerer, given: np.ndarray, limit: int, seconds: float) -> float:
    batches = Batches(answerer.prepare, answerer.run, threads=answerer.concurrency, limit=limit)
    await batches.answer(given)
    due_s = time.perf_counter() + seconds

    async def device() -> int:
        answered = 0
        while time.perf_counter() < due_s:
            await batches.answer(given)
            answered += 1
        return answered

    return sum(await asyncio.gather(*(device() for _ in range(DEVICES)))) / seconds


def through_serve(run: Run, bundle: Path, limit: int) -> None:
    """Serve the bundle in a process of its own, and have eight other processes ask it."""
    log = run.work / f"serve-{limit}.log"
    with served(bundle, limit, log) as url:
        rate = asked(bundle, url, run.options.seconds * 2)
    figures = {"frames/s": rate, "said": _last_said(log)}
    run.keep("host", f"serve --batch {limit}", figures)


@contextmanager
def served(bundle: Path, limit: int, log: Path) -> Iterator[str]:
    """Run `serve` for a while."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tinysaver_edge", "serve", str(bundle), "--name", "large",
               "--bind", f"127.0.0.1:{port}", "--batch", str(limit)]  # fmt: skip
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": path}
        )
    try:
        _wait_for(process, log)
        yield f"grpc://127.0.0.1:{port}/large"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    due_s = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < due_s and process.poll() is None:
        if _last_said(log):  # who knocks at a port that nobody has yet may be given it
            return
        time.sleep(0.05)
    raise SystemExit(f"serve did not start: {log.read_text()[-2000:]}")


def _last_said(log: Path) -> str:
    said = [line for line in log.read_text().splitlines() if "serving" in line]
    return said[-1].split(", ", 1)[-1] if said else ""


def asked(bundle: Path, url: str, seconds: float) -> float:
    """Return the frames a second of all devices together."""
    spawn = multiprocessing.get_context("spawn")
    ready, begin, out = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    given = (str(bundle), url, seconds, ready, begin, out)
    devices = [spawn.Process(target=device, args=given) for _ in range(DEVICES)]
    for one in devices:
        one.start()
    for _ in devices:
        if not ready.acquire(timeout=STARTS_WITHIN_S):
            raise SystemExit("a device did not find its host")
    begin.set()
    answered = sum(out.get(timeout=STARTS_WITHIN_S) for _ in devices)
    for one in devices:
        one.join()
    return answered


def device(
    bundle: str, url: str, seconds: float, ready: Semaphore, begin: Event, out: Queue[float]
) -> None:
    """One device: escalate as often as the host answers."""
    with Cascade.load(bundle, large=url, threads=1) as cascade:
        stage = cascade.stages[-1]
        batch = np.random.default_rng(0).integers(0, 256, stage.blank.shape, np.uint8)
        stage.ask(batch)
        ready.release()
        begin.wait()
        answered, due_s = 0, time.monotonic() + seconds
        while time.monotonic() < due_s:
            stage.ask(batch)
            answered += 1
    out.put(answered / seconds)
