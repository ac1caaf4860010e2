"""The remote engine: one model on one or several hosts, asked as if it were here."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.codec import Jpeg
from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.base import (
    DEFAULT_OPTIONS,
    Engine,
    EngineOptions,
    ModelSignature,
    signature_for,
)
from tinysaver_edge.engines.remote.endpoint import Endpoint, Transport, open_transport
from tinysaver_edge.engines.remote.facts import Golden, Kind, RequestError, Samples, Wanted
from tinysaver_edge.engines.remote.model import Address, RemoteModel
from tinysaver_edge.engines.remote.traffic import HostState, Meter, RetryBudget, State, Traffic
from tinysaver_edge.errors import EngineError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Preprocess


def to_tensor(batch: Batch, codec: Jpeg | None) -> NDArray[Any]:
    """Return what is sent of a batch.

    Args:
        batch: model input ``(n, …)``.
        codec: what it is encoded with, or None for the batch as it is.

    Returns:
        The batch, contiguous, or ``(n,)`` objects that hold files.

    Raises:
        EngineError: the codec does not carry such batches.
    """
    return np.ascontiguousarray(batch) if codec is None else codec.encode(batch)


Opener = Callable[[Address, RemoteModel], Transport]

SHORTEST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.2
"""Pauses before a retry at the same host double from the one to the other, each cut at random."""


class RemoteEngine(Engine):
    """Asks other hosts over the Open Inference Protocol. `concurrency` threads at a time may.

    Each host is proven before it answers a frame: it is live, its model is ready, takes and gives
    what the bundle wants, has its hash where it tells one, and answers the golden samples as the
    calibrated model did. A host that fails is left alone and proven again before it is used.

    Args:
        remote: the hosts and how they are asked.
        preprocess: what its batches look like.
        output: how the model states its answer.
        classes: how many classes it answers with; None where that is not known.
        sha256: hash of the calibrated model; None where that is not known.
        codec: what the model was calibrated through, and is sent unless ``remote`` says otherwise;
            None where it was calibrated on pixels.
        golden: samples that every host must answer as the calibrated model did, or None.
        options: as for every engine; the hosts choose device and threads.
        clock: seconds.
        chance: draws the pauses between retries.
        opener: makes connections.

    Attributes:
        remote: the hosts and how they are asked.
        codec: what is sent of a frame; None for its pixels.

    Raises:
        MissingDependencyError: the client library is not installed.
        InputError: a certificate cannot be read.
        EngineError: no host serves the model as wanted, or, unless ``remote.optional``, none can
            be reached.
    """

    name: ClassVar[str] = "remote"
    suffixes: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        remote: RemoteModel,
        *,
        preprocess: Preprocess,
        output: OutputFormat,
        classes: int | None = None,
        sha256: str | None = None,
        codec: Jpeg | None = None,
        golden: Golden | None = None,
        options: EngineOptions = DEFAULT_OPTIONS,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
        opener: Opener = open_transport,
    ) -> None:
        self.remote = remote
        self.concurrency = remote.max_in_flight
        self._calibrated = codec
        self.codec = codec if remote.jpeg_quality is None else Jpeg(remote.jpeg_quality)
        self._wanted = Wanted(preprocess, output, classes, sha256, self.codec is not None)
        self._samples = self._as_sent(golden)
        self._clock, self._opener = clock, opener
        self._chance = chance or random.Random(0)
        self._meter = Meter()
        self._budget = RetryBudget(remote.retry_share)
        self._closing = threading.Event()
        self._endpoints: list[Endpoint] = []
        self._last: Endpoint | None = None
        self._own = threading.local()
        self._threads: list[threading.Thread] = []
        super().__init__(Path(remote.name), preprocess=preprocess, output=output, options=options)

    # What is known of the hosts

    @property
    def traffic(self) -> Traffic:
        """What went to the hosts and came back."""
        return self._meter.read()

    @property
    def hosts(self) -> tuple[HostState, ...]:
        """How each host is, in the order in which they were named."""
        last = self._last
        return tuple(one.told(in_use=one is last) for one in self._endpoints)

    @property
    def states(self) -> dict[str, State]:
        """Whether each host is asked, by its URL."""
        return {one.name: one.state for one in self.hosts}

    @property
    def identity(self) -> str | None:
        """Version and hash of the model as the hosts tell them; None before one was reached."""
        told = [str(one.identity) for one in self.hosts if one.identity is not None]
        return "; ".join(dict.fromkeys(told)) or None

    @property
    def unproven(self) -> tuple[str, ...]:
        """Why each host that has not shown what it serves did not, in a line."""
        return tuple(one.why for one in self._endpoints if one.proof is None)

    @property
    def answered_by(self) -> ModelIdentity | None:
        """Which model a host says it gave this thread's last answer with."""
        return getattr(self._own, "identity", None)

    def doubt_about(self, answered_by: ModelIdentity | None) -> str | None:
        """Return why the calibrated model's certificate does not cover an answer, if it does not.

        It goes by what the hosts have proven by now: one that comes late counts from then on.
        """
        if self.codec != self._calibrated:
            was = self._calibrated or "pixels"
            return f"the large model is sent {self.codec}, and was calibrated on {was}"
        if self.remote.vouched:
            return None
        if answered_by is not None:
            shown = [answered_by.sha256]
        else:
            shown = [one.sha256 for each in self._endpoints if (one := each.proof) is not None]
        if not shown:
            return "no host could be reached that would have told what it serves"
        if self._wanted.sha256 is None or None in shown:
            return "a host does not tell the hash of the model it serves"
        return None

    # Starting

    def _check_model(self) -> None:
        """Nothing: there is no file."""

    def _load(self) -> tuple[str, ModelSignature]:
        try:
            self._connect()
        except BaseException:
            self._release()
            raise
        return str(self.remote), signature_for(self._wanted.preprocess)

    def _connect(self) -> None:
        """Prove every host, all at once, and have each watched from then on."""
        for address in self.remote.addresses:
            self._endpoints.append(
                Endpoint(
                    str(address),
                    self._opener(address, self.remote),
                    wanted=self._wanted,
                    samples=self._samples,
                    model=self.remote,
                    meter=self._meter,
                    clock=self._clock,
                )
            )
        with ThreadPoolExecutor(len(self._endpoints)) as pool:
            list(pool.map(self._prove_first, self._endpoints))
        reached = [one for one in self._endpoints if one.proof is not None]
        wrong = [one.why for one in self._endpoints if one.lasting]
        if wrong or not (reached or self.remote.optional):
            raise EngineError(
                f"remote model: {'; '.join(wrong or [one.why for one in self._endpoints])}"
            )
        shown = [one.proof.sha256 for one in reached if one.proof is not None]
        must_tell = bool(shown) and self._wanted.sha256 is not None and None not in shown
        for endpoint in self._endpoints:
            endpoint.must_tell = must_tell
            thread = threading.Thread(
                target=endpoint.watch, args=(self._closing,), name="remote-watch", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _prove_first(self, endpoint: Endpoint) -> None:
        if endpoint.breaker.begin_probe():
            endpoint.prove(timeout_s=self.remote.connect_s)

    def _as_sent(self, golden: Golden | None) -> Samples:
        preprocess = self._wanted.preprocess
        empty = np.zeros(preprocess.shape(1), np.dtype(preprocess.format.dtype))
        if golden is None or self.codec != self._calibrated:  # other pixels have other answers
            return Samples(to_tensor(empty, self.codec), None, None, self._wanted.output)
        batch = to_tensor(golden.batch, self.codec)
        return Samples(batch[:1], batch, golden, self._wanted.output)

    # Answers

    def infer(self, batch: Batch, *, timeout_s: float | None = None) -> NDArray[np.float32]:
        """Answer a batch, within ``remote.timeout_s`` and, if that is less, ``timeout_s``."""
        longest_s = self.remote.timeout_s
        self._own.due_s = self._clock() + min(
            longest_s, longest_s if timeout_s is None else timeout_s
        )
        return super().infer(batch)

    def _run(self, batch: Batch) -> NDArray[Any]:
        due_s = self._own.due_s
        self._meter.count("requests")
        self._budget.earn()
        tensor = to_tensor(batch, self.codec)
        pause_s = SHORTEST_PAUSE_S
        tried: list[Endpoint] = []
        again = False
        while True:
            endpoint, others = self._choose(tried)
            left_s = due_s - self._clock()
            if endpoint is None or left_s <= 0:
                raise self._failed(left_s)
            self._meter.count("retries", again)
            try:
                # Where another host could still answer, this one gets no more than half the time.
                patience_s = left_s / 2 if others else left_s
                values, self._own.identity = endpoint.ask(tensor, timeout_s=patience_s)
            except RequestError as failure:
                again = failure.kind.transient or (others and failure.kind is not Kind.CLOSED)
                if not (again and self._budget.spend() and (others or self._rest(pause_s, due_s))):
                    raise EngineError(f"{endpoint.name} {failure}") from None
                tried = [*tried, endpoint] if others else []
                pause_s = pause_s if others else min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._meter.count("answered")
                self._last = endpoint
                return values

    def _rest(self, pause_s: float, due_s: float) -> bool:
        """Rest before the same host is asked again; False where there is no time left for it."""
        rest_s = self._chance.uniform(pause_s / 2, pause_s)
        return self._clock() + rest_s < due_s and not self._closing.wait(rest_s)

    def _choose(self, tried: list[Endpoint]) -> tuple[Endpoint | None, bool]:
        """Return the least loaded host that answers, and whether there are others besides it."""
        good = [one for one in self._endpoints if one.breaker.state is State.CLOSED]
        fresh = [one for one in good if one not in tried]
        if not fresh:
            return (good[0] if good else None), False
        return min(fresh, key=lambda one: one.load_s), len(fresh) > 1

    def _failed(self, left_s: float) -> EngineError:
        if left_s <= 0:
            return EngineError(f"{self.remote.name}: no host has answered in time")
        return EngineError("; ".join(one.why for one in self._endpoints))

    def _release(self) -> None:
        self._closing.set()
        for endpoint in self._endpoints:
            endpoint.close()
        for thread in self._threads:
            thread.join(1.0)
