"""The worker engine: another engine in a process of its own, started again when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tinysaver_edge._support.packages import python_command
from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature
from tinysaver_edge.errors import EngineError, TinySaverError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Preprocess

START_S = 120.0
"""How long an engine may take to open a model; compiling for an accelerator takes its time."""

LOGITS = OutputFormat()
"""What the worker answers with: it has made logits of the model's outputs already."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the worker opens."""

    engine: str
    model: Path
    preprocess: Preprocess
    output: OutputFormat
    options: EngineOptions


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the worker says of the engine that it has opened."""

    device: str
    precision: str
    fell_back: bool
    signature: ModelSignature


class WorkerEngine(Engine):
    """Runs a model with another engine, in a process of its own.

    A driver that hangs or crashes then takes the large model with it, and nothing else: its frames
    fail, and the process is started again.

    Args:
        setup: the engine, the model and how it is run.
        timeout_s: how long a batch may take; a worker that takes longer is killed.
        restarts: it is started again at most so many times within `window_s`.
        window_s: see `restarts`.
        clock: seconds.

    Attributes:
        pid: the process's number, or None while there is none.

    Raises:
        TinySaverError: whatever opening the model raises, as without a worker.
    """

    name: ClassVar[str] = "worker"
    suffixes: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        setup: Setup,
        *,
        timeout_s: float = 10.0,
        restarts: int = 5,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._setup = setup
        self._timeout_s, self._restarts, self._window_s = timeout_s, restarts, window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._restarted: deque[float] = deque(maxlen=restarts)
        self._child: _Child | None = None
        self._why = ""
        super().__init__(
            setup.model, preprocess=setup.preprocess, output=LOGITS, options=setup.options
        )

    @property
    def pid(self) -> int | None:
        """The process's number, or None while there is none."""
        child = self._child
        return None if child is None else child.pid

    def _check_model(self) -> None:
        """Nothing: the engine in the worker does."""

    def _load(self) -> tuple[str, ModelSignature]:
        child = _Child(self._setup)
        try:
            opened = child.opened()
        except BaseException:
            child.kill()
            raise
        self._child = child
        self.precision = type(self.precision)(opened.precision)
        self.fell_back = opened.fell_back
        # It takes any number of samples, and pads where its model's is fixed.
        signature = opened.signature
        return opened.device, replace(
            signature,
            input_shape=(None, *signature.input_shape[1:]),
            output_shape=(None, None),
        )

    def _run(self, batch: Batch) -> NDArray[Any]:
        child = self._child
        if child is None:
            raise EngineError(f"{self.model.name}: {self._why}, and its worker is not back yet")
        try:
            return child.ask(batch, self._timeout_s)
        except _LostError as error:
            self._lose(child, str(error))
            raise EngineError(f"{self.model.name}: {self._why}") from None

    def _lose(self, child: _Child, why: str) -> None:
        """Let go of a worker that is of no use any more, and see to another."""
        child.kill()
        with self._lock:
            if self._child is not child:
                return
            self._child, self._why = None, why
        threading.Thread(target=self._restart, name="worker-restart", daemon=True).start()

    def _restart(self) -> None:
        """Start the worker again, as often and as soon as the budget allows."""
        while not self._closing.wait(self._wait_s()):
            self._restarted.append(self._clock())
            child = _Child(self._setup)
            try:
                child.opened()
            except TinySaverError as error:
                child.kill()
                self._why = str(error)
                continue
            with self._lock:
                if not self._closing.is_set():
                    self._child = child
                    return
            child.kill()
            return

    def _wait_s(self) -> float:
        """Return how long it takes until another restart is within the budget."""
        if len(self._restarted) < self._restarts:
            return 0.0
        return max(0.0, self._restarted[0] + self._window_s - self._clock())

    def _release(self) -> None:
        with self._lock:
            self._closing.set()
            child, self._child = self._child, None
        if child is not None:
            child.kill()


class _LostError(Exception):
    """A worker died, or was too slow; says which."""


class _Child:
    """The process, and the line to it. One thread at a time."""

    def __init__(self, setup: Setup) -> None:
        ours, theirs = socket.socketpair()
        program = f"from {__name__} import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            python_command(program),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        self._line = Connection(ours.detach())
        self._model = setup.model.name
        self._line.send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def opened(self) -> _Opened:
        """Wait until the model is open."""
        try:
            opened: _Opened = self._receive(START_S)
        except _LostError as error:
            raise EngineError(f"{self._model}: {error}") from None
        return opened

    def ask(self, batch: Batch, timeout_s: float) -> NDArray[Any]:
        """Have a batch answered.

        Raises:
            _LostError: the worker died or took too long.
            TinySaverError: whatever the engine raised.
        """
        try:
            self._line.send(batch)
        except OSError:
            raise _LostError(self._death()) from None
        logits: NDArray[Any] = self._receive(timeout_s)
        return logits

    def _receive(self, timeout_s: float) -> Any:  # noqa: ANN401 - whatever was asked for
        try:
            if not self._line.poll(timeout_s):
                raise _LostError(f"its worker did not answer within {timeout_s:g} s")
            answer = self._line.recv()  # from our own process
        except (EOFError, OSError):
            raise _LostError(self._death()) from None
        if isinstance(answer, TinySaverError):
            raise answer
        return answer

    def _death(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "its worker hung up"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its worker died ({how})"

    def kill(self) -> None:
        """End it. Legal in every state."""
        self._process.kill()
        self._process.wait()
        self._line.close()


def serve(descriptor: int) -> None:
    """Be the worker: open a model, answer batches until the parent hangs up."""
    from tinysaver_edge.engines.registry import create_engine

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and hangs up
    line = Connection(descriptor)
    setup: Setup = line.recv()  # from our own parent
    try:
        engine = create_engine(
            setup.engine,
            setup.model,
            preprocess=setup.preprocess,
            output=setup.output,
            options=setup.options,
        )
    except TinySaverError as error:
        line.send(error)
        return
    with engine:
        line.send(
            _Opened(engine.device, engine.precision.value, engine.fell_back, engine.signature)
        )
        while True:
            try:
                batch = line.recv()
            except EOFError:
                return
            try:
                line.send(engine.infer(batch))
            except TinySaverError as error:
                line.send(error)
