"""Ray: the nodes of a cluster run the models over the samples; the other kind of `Workers`.

The driver hands out chunks and writes what comes back, so nodes need no common file system: models
travel to them, and they read the images where those lie. A node that dies costs the chunks that it
had, which others do.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge._version import __version__
from tinysaver_edge.calibrate.measured.worker import Job, OutOfTimeError, WorkerLostError, Workers
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.engines.registry import engine_version
from tinysaver_edge.errors import EngineError, InputError, MissingDependencyError, TinySaverError
from tinysaver_edge.hardware.cpu import read_cpu

NAME = "ray"
"""What `--on` calls it."""

RESOURCE = "tinysaver"
"""Custom resource: where some nodes of a cluster have it, only those are asked."""

THREADS = 4
"""Cores of one worker: more of them together gain little on small models."""

SPAN = 4
"""Chunks of one task."""

AHEAD = 2
"""Tasks that a worker has at a time, so that it need not wait for the next."""

MOST_LOSSES = 3
"""So many workers may be lost with the same chunks, and so many on one node."""

CONNECT_S = 10.0
"""How long a cluster may take to take a connection."""

ANSWER_S = 60.0
"""How long a node may take to say what is installed there."""

START_S = 180.0
"""How long a worker may take to start, once no other is at work."""


class RayWorkers(Workers):
    """The nodes of a Ray cluster; `joined` makes one."""

    shared = True

    def __init__(self, address: str, *, leave: Callable[[], None]) -> None:
        self.address = address
        self._leave = leave

    @classmethod
    def joined(cls, on: str) -> RayWorkers:
        """Join a running cluster.

        Args:
            on: ``"ray"`` for the one that RAY_ADDRESS names or that runs on this machine, or its
                address, ``ray://HOST:PORT``.

        Raises:
            MissingDependencyError: Ray is not installed.
            InputError: there is no cluster, or one of another version of Ray or Python.
        """
        check_on(on)
        try:
            import ray
        except ModuleNotFoundError:
            raise MissingDependencyError("ray", extra="ray", purpose=f"--on {on}") from None
        if ray.is_initialized():  # the calibration itself is a job of the cluster
            return cls(on, leave=lambda: None)
        address = (os.environ.get("RAY_ADDRESS") or "auto") if on == NAME else on
        try:
            _check_answers(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            if "ray[client]" in str(error):
                purpose = f"--on {on}"
                raise MissingDependencyError("ray[client]", extra="ray", purpose=purpose) from None
            raise InputError(f"--on {on}: {_why_not_joined(error, address)}") from error
        return cls(on, leave=ray.shutdown)

    def run(
        self,
        job: Job,
        starts: Sequence[int],
        progress: Progress,
        keep: Callable[[Any], None],
        *,
        seconds: float | None = None,
    ) -> None:
        """Do some chunks of a job; see `Workers.run`."""
        if not starts:
            return
        from ray.exceptions import RayError

        end = None if seconds is None else time.monotonic() + seconds
        try:
            with closing(_Crew(job, starts, progress, keep, end, self.address)) as crew:
                crew.work()
        except (RayError, ConnectionError) as error:
            raise WorkerLostError(
                f"--on {self.address}: the cluster was lost ({_brief(error)}): what was measured "
                f"is kept, and the next run goes on from there"
            ) from error

    def close(self) -> None:
        """Leave the cluster."""
        leave, self._leave = self._leave, lambda: None
        leave()


def check_on(on: str) -> None:
    """Refuse a place to measure that there is not.

    Raises:
        InputError: it is neither ``"ray"`` nor its address.
    """
    if on != NAME and not on.startswith("ray://"):
        raise InputError(
            f"--on {on}: name 'ray', for the cluster that RAY_ADDRESS names or that this machine "
            f"is part of, or its address, ray://HOST:10001"
        )


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens at an address: Ray itself tries for minutes."""
    if address == "auto":  # what `ray start` has noted, and a cluster that was killed leaves behind
        noted = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
        address = noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_S).close()


def _why_not_joined(error: Exception, address: str) -> str:
    said = " ".join(str(error).split())
    if "ersion mismatch" in said or "versions differ" in said or "version" in said.lower():
        import ray

        return (
            f"the cluster has another version of Ray or Python than this environment "
            f"(Ray {ray.__version__}, Python {platform.python_version()}): {said[:300]}"
        )
    where = "on this machine" if address == "auto" else f"at {address}"
    return (
        f"no Ray cluster answers {where} ({said[:200] or type(error).__name__}): start one with "
        f"`ray start --head`, or name it with --on ray://HOST:10001 or RAY_ADDRESS"
    )


@dataclass(slots=True)
class _Span:
    """Chunks that are done together, and how many workers were lost with them."""

    starts: tuple[int, ...]
    losses: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """A process on a node, and what it was told to do, the oldest first."""

    node: str
    name: str
    actor: Any
    tasks: deque[Any] = field(default_factory=deque)


class _Told(NamedTuple):
    """What answers may depend on besides the model, and differs from node to node."""

    engine: str
    processor: str


class _Crew:
    """The workers that do one job; everything happens in the thread that calls `work`."""

    def __init__(
        self,
        job: Job,
        starts: Sequence[int],
        progress: Progress,
        keep: Callable[[Any], None],
        end: float | None,
        address: str,
    ) -> None:
        import ray

        self._ray = ray
        self._job, self._progress, self._keep = job, progress, keep
        self._end, self._address = end, address
        self._waiting = deque(
            _Span(tuple(starts[place : place + SPAN])) for place in range(0, len(starts), SPAN)
        )
        self._starting: dict[Any, _Worker] = {}
        self._hands: list[_Worker] = []
        self._doing: dict[Any, tuple[_Worker, _Span]] = {}
        self._losses: dict[str, int] = {}
        self._barred: set[str] = set()
        self._refused: dict[str, str] = {}
        self._alike: _Told | None = None
        self._sent = ray.put(job)
        self._files = ray.put({file.name: file.read_bytes() for file in job.files})

    def work(self) -> None:
        """Hand out all chunks, and again those of workers that are lost."""
        self._hire()
        idle_since = time.monotonic()
        while self._waiting or self._doing:
            if not self._hands and not self._starting:
                self._hire()
            self._hand_out()
            busy = [*self._doing, *self._starting]
            ready, _ = self._ray.wait(busy, num_returns=1, timeout=self._patience())
            for one in ready:
                if one in self._starting:
                    self._started(one)
                else:
                    self._done(one)
            if self._end is not None and time.monotonic() >= self._end:
                raise OutOfTimeError(f"{self._job.what}: its time was up")
            idle_since = time.monotonic() if self._hands else idle_since
            if time.monotonic() - idle_since > START_S:
                raise WorkerLostError(
                    f"--on {self._address}: no worker started within {START_S:g} s: other work may "
                    f"hold all cores of the cluster"
                )

    def close(self) -> None:
        """End all workers."""
        for worker in (*self._hands, *self._starting.values()):
            self._end_of(worker)

    def _end_of(self, worker: _Worker) -> None:
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # it may be out of reach
            self._ray.kill(worker.actor)

    def _patience(self) -> float:
        return 1.0 if self._end is None else min(1.0, max(0.0, self._end - time.monotonic()))

    def _hire(self) -> None:
        """Ask for workers on every node that may do the job; raise where there is none."""
        nodes = [
            one
            for one in self._nodes()
            if one["NodeID"] not in self._barred
            and self._losses.get(one["NodeID"], 0) < MOST_LOSSES
        ]
        for node, slots in self._fitting(nodes):
            for threads, gpus in slots:
                worker = self._start(node, threads, gpus)
                self._starting[worker.tasks.popleft()] = worker
        if not self._starting:
            raise self._nobody()

    def _nobody(self) -> EngineError:
        why = "; ".join(f"{name}: {said}" for name, said in self._refused.items())
        lost = sum(self._losses.values())
        if lost:
            why = "; ".join(filter(None, (f"{lost} workers were lost", why)))
        needs = ""
        if self._job.engine is not None:
            needs = f" (engine {self._job.engine}, device {self._job.device or 'CPU'})"
        text = (
            f"--on {self._address}: {self._job.what}: no node does it{needs}: "
            f"{why or 'there is none with a core to spare'}"
        )
        return WorkerLostError(text) if lost else EngineError(text)

    def _nodes(self) -> list[dict[str, Any]]:
        alive = [one for one in self._ray.nodes() if one["Alive"]]
        named = [one for one in alive if one["Resources"].get(RESOURCE)]
        return named or alive

    def _fitting(
        self, nodes: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], list[tuple[int, int]]]]:
        """Yield the nodes that have this very package, and the workers that each has room for."""
        asked = {self._ask(one): one for one in nodes}
        if not asked:
            return
        ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for one in late:
            self._refuse(_name_of(asked[one]), f"did not answer within {ANSWER_S:g} s")
        for one in ready:
            try:
                said = self._ray.get(one)
            except self._ray.exceptions.RayError as error:
                said = f"does not answer ({_brief(error)})"
            if said != __version__:
                told = said if " " in said else f"has tinysaver-edge {said}, not {__version__}"
                self._refuse(_name_of(asked[one]), told)
            elif slots := _slots(asked[one]["Resources"], self._job.device):
                yield asked[one], slots
            else:
                self._refuse(_name_of(asked[one]), "has no such device, by what Ray knows of it")

    def _ask(self, node: dict[str, Any]) -> Any:  # noqa: ANN401
        """Ask a node for the version of this package, in a way that works without it as well."""

        def version() -> str:
            try:
                from tinysaver_edge._version import __version__ as found
            except ImportError as error:
                return f"tinysaver-edge is not installed there ({error})"
            return str(found)

        task = self._ray.remote(version)
        return task.options(num_cpus=0, max_retries=0, **self._placed(node)).remote()

    def _placed(self, node: dict[str, Any]) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        return {"scheduling_strategy": strategy}

    def _start(self, node: dict[str, Any], threads: int, gpus: int) -> _Worker:
        kind = self._ray.remote(Runner).options(
            num_cpus=threads, num_gpus=gpus, max_restarts=0, **self._placed(node)
        )
        actor = kind.remote(self._sent, self._files, threads)
        return _Worker(node["NodeID"], _name_of(node), actor, deque([actor.ready.remote()]))

    def _refuse(self, name: str, why: str) -> None:
        if self._refused.get(name) != why:
            self._refused[name] = why
            self._progress.note(f"{name} is left out: it {why}")

    def _started(self, ref: Any) -> None:  # noqa: ANN401
        """Take a worker in that has opened the model, or do without it."""
        worker = self._starting.pop(ref)
        try:
            said = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._lost(worker, error)
            return
        if isinstance(said, _Told):
            differs = self._differs(said)
            if differs is None:
                self._hands.append(worker)
                return
            said = InputError(differs)
        self._barred.add(worker.node)
        self._refuse(worker.name, f"cannot help {self._job.what}: {said}")
        self._end_of(worker)

    def _differs(self, told: _Told) -> str | None:
        """Say why a node's answers would not be those of the others; None where they would."""
        if self._job.engine is None:
            return None
        here = engine_version(self._job.engine) or ""
        if told.engine != here:
            return f"{told.engine or 'no engine'} there, {here} here"
        if self._alike is None:
            self._alike = told
        if told.processor == self._alike.processor:
            return None
        differ = f"processors differ ({told.processor}, {self._alike.processor})"
        if self._job.quantised:
            return f"{differ}, and with them the answers of a quantised model"
        self._progress.note(f"{differ}: the last digits of answers may, too")
        return None

    def _hand_out(self) -> None:
        for worker in self._hands:
            while self._waiting and len(worker.tasks) < AHEAD:
                span = self._waiting.popleft()
                ref = worker.actor.do.remote(span.starts)
                worker.tasks.append(ref)
                self._doing[ref] = (worker, span)

    def _done(self, ref: Any) -> None:  # noqa: ANN401
        if ref not in self._doing:  # its worker was lost meanwhile
            return
        worker, _ = self._doing[ref]
        try:
            said = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._lost(worker, error)
            return
        del self._doing[ref]
        worker.tasks.remove(ref)
        if isinstance(said, TinySaverError):
            raise said
        for answered in said:
            self._keep(answered)
            self._progress.advance(self._job.size_of(answered.start))

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """Give a lost worker's chunks to others; too many lost with the same end it."""
        if worker in self._hands:
            self._hands.remove(worker)
        self._losses[worker.node] = self._losses.get(worker.node, 0) + 1
        spans = [self._doing.pop(ref)[1] for ref in worker.tasks if ref in self._doing]
        if spans:
            spans[0].losses += 1  # the others were only waiting
            if spans[0].losses >= MOST_LOSSES:
                raise WorkerLostError(
                    f"{self._job.what}: {MOST_LOSSES} workers in turn were lost "
                    f"over the samples from {spans[0].starts[0]} on ({_brief(error)})"
                )
        self._waiting.extendleft(reversed(spans))
        chunks = sum(len(one.starts) for one in spans)
        self._progress.note(
            f"{worker.name}: a worker was lost, and with it {chunks} chunk{'s' * (chunks != 1)}, "
            f"which others do ({_brief(error)})"
        )
        self._end_of(worker)
        if not self._hands and not self._starting:
            time.sleep(1.0)  # until Ray knows whether the node is gone as well


def _slots(resources: dict[str, float], device: str | None) -> list[tuple[int, int]]:
    """Return cores and GPUs of each worker that a node has room for."""
    cores = int(resources.get("CPU", 0))
    if cores < 1:
        return []
    if device is None or not any(word in device.lower() for word in ("cuda", "tensorrt")):
        whole = [(THREADS, 0)] * (cores // THREADS)
        rest = cores % THREADS
        return [*whole, (rest, 0)] if rest else whole
    gpus = int(resources.get("GPU", 0))
    return [(max(1, min(THREADS, cores // gpus)), 1)] * gpus if gpus else []


def _name_of(node: dict[str, Any]) -> str:
    return f"node {node.get('NodeName') or node['NodeManagerAddress']}"


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:100]


class Runner:
    """A worker on a node: a job, its files made of their bytes, on so many cores."""

    def __init__(self, job: Job, files: dict[str, bytes], threads: int) -> None:
        self._job, self._files, self._threads = job, files, threads
        self._folder = tempfile.TemporaryDirectory(prefix="tinysaver-")

    def ready(self) -> _Told | TinySaverError:
        """Open the model and see whether the images can be read."""
        job = self._job
        places = tuple(Path(self._folder.name) / one.name for one in job.files)
        try:
            for place in places:
                place.write_bytes(self._files[place.name])
            self._does = job.begun(places, self._threads)
            opencv("Decoding images").setNumThreads(self._threads)
            _check_read(job.data)
        except TinySaverError as error:
            return error
        except OSError as error:
            return InputError(f"the images or the model's files cannot be had there: {error}")
        found = read_cpu()
        processor = platform.machine() if found is None else found.model
        return _Told((job.engine and engine_version(job.engine)) or "", processor)

    def do(self, starts: tuple[int, ...]) -> list[Any] | TinySaverError:
        """Do some chunks."""
        try:
            return list(self._does(starts, SILENT))
        except TinySaverError as error:
            return error


def _check_read(data: DataSource) -> None:
    """Raise OSError where none of the first images can be read: they do not lie there."""
    for index in range(min(16, len(data))):
        try:
            data.read(index)
        except NotImplementedError:
            return
        except OSError as error:
            last = error
        else:
            return
    raise last
