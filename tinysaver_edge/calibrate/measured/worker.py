"""Workers: who runs a calibration's models over its samples; here, in processes of their own.

A step in a process of its own loses only itself when it crashes. The parent writes a pickled task
to the worker's standard input and reads pickled messages from its standard output: progress,
chunks, then the result or the error. Both ends are this package, on one machine.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Protocol, TypeVar

from tinysaver_edge._support.progress import Progress
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate.measured.prepare import find_prepared, prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import EngineError, TinySaverError

Result = TypeVar("Result", covariant=True)


class Task(Protocol[Result]):
    """Something to do that can be pickled."""

    def __call__(self, progress: Progress) -> Result:
        """Do it."""


class WorkerLostError(EngineError):
    """A worker died or was stopped before its step was done; what it had measured is kept."""


class OutOfTimeError(WorkerLostError):
    """A worker was stopped because its time was up."""


def run_isolated(
    task: Task[Result], *, progress: Progress, what: str, seconds: float | None = None
) -> Result:
    """Do a task in a process of its own.

    Args:
        task: what to do; it and its result can be pickled.
        progress: hears of the work.
        what: names the step, for messages.
        seconds: stop it after so long; None for no limit.

    Raises:
        WorkerLostError: the process died.
        OutOfTimeError: its time was up.
        TinySaverError: whatever the task raised of that kind.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        messages: Queue[Any] = Queue(_AHEAD)
        reader = threading.Thread(target=_receive, args=(process.stdout, messages), daemon=True)
        try:
            _hand_over(task, process.stdin)
            reader.start()
            return _follow(messages, progress, seconds=seconds)  # type: ignore[no-any-return]
        except Empty:
            raise OutOfTimeError(f"{what}: its time was up") from None
        except _SilenceError:
            raise WorkerLostError(f"{what}: {_last_words(process, complaints)}") from None
        finally:
            process.kill()
            process.wait()
            while reader.is_alive():  # it may wait for room
                with suppress(Empty):
                    messages.get(timeout=0.01)
            process.stdout.close()


_AHEAD = 64
"""Messages of a worker that wait for the parent, which has chunks to write; beyond it, the worker.
"""


class _SilenceError(Exception):
    """No more messages will come."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A call of `Progress`, on its way to the parent."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


def _hand_over(task: object, stream: IO[bytes]) -> None:
    try:
        pickle.dump(task, stream)
        stream.close()
    except BrokenPipeError:
        raise _SilenceError from None


def _receive(stream: IO[bytes], messages: Queue[Any]) -> None:
    """Put every message into a queue, then None."""
    try:
        while True:
            messages.put(pickle.load(stream))  # from our own worker
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        messages.put(None)


def _follow(messages: Queue[Any], progress: Progress, *, seconds: float | None) -> Any:  # noqa: ANN401
    """Pass progress on until the result comes.

    Raises:
        Empty: the time is up.
        _SilenceError: the worker is gone.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        message = messages.get(timeout=left)
        if message is None:
            raise _SilenceError
        if isinstance(message, _Heard):
            getattr(progress, message.method)(*message.arguments, **message.options)
        elif isinstance(message, BaseException):
            raise message
        else:
            return message[0]


def _last_words(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> str:
    """Say how a worker died, once it has: its output ended."""
    code = process.wait()
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = f"exit code {code}"
    if code < 0:
        how = signal.Signals(-code).name
        if how == "SIGKILL":
            how += ", perhaps out of memory"
    return f"its process died ({how}){': ' + last if last else ''}"


class _Telling:
    """A `Progress` that tells the parent."""

    def __init__(self, send: Callable[[object], None]) -> None:
        self._send = send

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        self._send(_Heard("start", (what,), {"total": total, "done": done}))

    def advance(self, steps: int) -> None:
        self._send(_Heard("advance", (steps,), {}))

    def finish(self) -> None:
        self._send(_Heard("finish", (), {}))

    def note(self, message: str) -> None:
        self._send(_Heard("note", (message,), {}))

    def keep(self, answered: object) -> None:
        self._send(_Heard("keep", (answered,), {}))


def serve() -> None:
    """Be the worker: read a task, do it, send what comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends this process
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no message

    def send(message: object) -> None:
        pickle.dump(message, channel)
        channel.flush()

    task = pickle.load(sys.stdin.buffer)  # from our own parent
    try:
        send((task(_Telling(send)),))
    except TinySaverError as error:
        send(error)


@dataclass(frozen=True, slots=True)
class PrepareStep:
    """Bring one model into the form it will ship in."""

    model: ModelFile
    folder: Path
    embed: bool

    def known(self) -> Artefact | None:
        """Return what was prepared before, so that no process is needed."""
        return find_prepared(self.model, self.folder, embed=self.embed)

    def __call__(self, progress: Progress) -> Artefact:
        """Do it."""
        return prepare(self.model, self.folder, embed=self.embed)


def run_step(step: Task[Result], *, progress: Progress, what: str, isolate: bool) -> Result:
    """Do a step, in a process of its own where that is asked for."""
    if isolate:
        return run_isolated(step, progress=progress, what=what)
    return step(progress)


class Job(Protocol):
    """Work on all samples of a data source, some chunks at a time; can be pickled."""

    @property
    def data(self) -> DataSource:
        """The samples."""

    @property
    def chunk(self) -> int:
        """Samples in a chunk."""

    @property
    def what(self) -> str:
        """What is done, for messages."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What it takes besides the data."""

    @property
    def engine(self) -> str | None:
        """The engine that it takes; None for none."""

    @property
    def device(self) -> str | None:
        """What that is to run on; None for its own choice."""

    @property
    def quantised(self) -> bool:
        """Whether what comes of it depends on the kind of processor."""

    def size_of(self, start: int) -> int:
        """Return how many samples the chunk has that begins there."""

    def __call__(self, starts: Sequence[int], progress: Progress) -> Iterator[Any]:
        """Do the chunks that begin at some positions, in their order."""

    def begun(
        self, files: tuple[Path, ...], threads: int
    ) -> Callable[[Sequence[int], Progress], Iterator[Any]]:
        """Make ready with copies of its files, on so many cores; return what does some chunks."""


class Workers(ABC):
    """Runs models over samples: the one contract that this machine and a cluster fill in.

    A task is a model and some chunks of samples. What comes of a chunk does not depend on who does
    it, so that a calibration's records are the same to the bit whoever its workers are.

    Attributes:
        shared: whether others work there as well, so that no time is worth measuring.
    """

    shared = False

    @abstractmethod
    def run(
        self,
        job: Job,
        starts: Sequence[int],
        progress: Progress,
        keep: Callable[[Any], None],
        *,
        seconds: float | None = None,
    ) -> None:
        """Do some chunks of a job, in any order.

        Args:
            job: what is done, with which data.
            starts: first samples of the chunks.
            progress: hears of the samples that are done, and of workers that are lost.
            keep: takes each chunk once, in this thread.
            seconds: stop after so long; None for no limit.

        Raises:
            WorkerLostError: no worker is left, or a chunk was lost with several of them.
            OutOfTimeError: the time was up. What was kept is kept.
            TinySaverError: whatever the job, or `keep`, raises of that kind.
        """

    def close(self) -> None:  # noqa: B027 - this machine has nothing open
        """Let go of the workers. Legal in every state."""


@dataclass(frozen=True, slots=True)
class LocalWorkers(Workers):
    """This machine: one model after the other, each in a process of its own.

    Attributes:
        isolate: whether it is a process of its own; else this one.
    """

    isolate: bool = True

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
        if self.isolate:
            step, told = _Chunks(job, tuple(starts)), _Keeping(progress, keep)
            run_isolated(step, progress=told, what=job.what, seconds=seconds)
            return
        for one in job(starts, progress):
            keep(one)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Some chunks of a job; each is sent as soon as it is done."""

    job: Job
    starts: tuple[int, ...]

    def __call__(self, progress: Progress) -> None:
        assert isinstance(progress, _Telling)
        for answered in self.job(self.starts, progress):
            progress.keep(answered)


@dataclass(frozen=True, slots=True)
class _Keeping:
    """A `Progress` that takes the chunks of a worker as well."""

    progress: Progress
    keep: Callable[[Any], None]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.progress, name)
