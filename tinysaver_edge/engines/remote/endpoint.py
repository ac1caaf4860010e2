"""One host of a remote model: how it is reached, what it serves, and a thread that watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.text import name_of
from tinysaver_edge.decision import ModelIdentity
from tinysaver_edge.engines.remote.facts import (
    Contract,
    Kind,
    ModelFacts,
    Reply,
    RequestError,
    Samples,
    Wanted,
    agree,
    check_sha256,
    check_values,
)
from tinysaver_edge.engines.remote.model import Address, RemoteModel
from tinysaver_edge.engines.remote.traffic import Breaker, HostState, Meter, State

SMOOTHING = 0.2
"""Weight of the newest answer in an endpoint's mean latency."""


class Transport(Protocol):
    """Talks to one host. Any number of threads may use it; every call ends within its time."""

    def describe(self, *, timeout_s: float) -> ModelFacts:
        """Ask whether the host is live and its model ready, and what it takes and gives.

        Raises:
            RequestError: it is not, or does not say in time.
        """

    def infer(
        self, tensor: NDArray[Any], contract: Contract, *, datatype: str, timeout_s: float
    ) -> Reply:
        """Have one batch answered.

        Raises:
            RequestError: there is no answer in time, or it cannot be read.
        """

    def close(self) -> None:
        """Let go of the connection. Legal in every state."""


def open_transport(address: Address, model: RemoteModel) -> Transport:
    """Return what talks to an address; nothing is sent yet.

    Raises:
        MissingDependencyError: the client library is not installed.
        InputError: a certificate cannot be read.
    """
    if address.scheme.is_grpc:
        from tinysaver_edge.engines.remote.grpc import GrpcTransport

        return GrpcTransport(address, model)
    from tinysaver_edge.engines.remote.http import HttpTransport

    return HttpTransport(address, model)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a host has shown of its model.

    Attributes:
        contract: what it takes and gives.
        sha256: the hash it tells, or None.
    """

    contract: Contract
    sha256: str | None
    version: str

    def identity(self, host: str) -> ModelIdentity:
        """The model as the host tells it."""
        return ModelIdentity(host, self.version or None, self.sha256)


class Endpoint:
    """One host. Any number of threads may use it.

    Args:
        name: its URL, for messages.
        transport: talks to it.
        wanted: what its model must be like.
        samples: what it is proven with.
        model: limits.
        meter: counts.
        clock: seconds.

    Attributes:
        breaker: whether it is asked.
        in_flight: requests under way.
        latency_s: mean of the last answers, in seconds; 0 before the first.
        reconnects: how often it was taken back into use after it had been left alone.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        wanted: Wanted,
        samples: Samples,
        model: RemoteModel,
        meter: Meter,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.breaker = Breaker(
            clock, failures=model.failures_to_open, pause_s=model.probe_s, is_open=True
        )
        self.in_flight = 0
        self.latency_s = 0.0
        self.answered = self.reconnects = 0
        self.must_tell = False
        self._transport = transport
        self._wanted, self._samples, self._model = wanted, samples, model
        self._meter, self._clock = meter, clock
        self._lock = threading.Lock()
        self._proof: Proof | None = None
        self._failure: RequestError | None = None

    @property
    def proof(self) -> Proof | None:
        """What it has shown; None before it was reached."""
        with self._lock:
            return self._proof

    @property
    def why(self) -> str:
        """Its last failure, in a line."""
        with self._lock:
            failure = self._failure
        return f"{self.name} {failure}" if failure is not None else f"{self.name} was not asked yet"

    @property
    def lasting(self) -> bool:
        """Whether its last failure will last."""
        with self._lock:
            return self._failure is not None and self._failure.kind.lasting

    @property
    def load_s(self) -> float:
        """How long one more request may take there: the fewer, the better."""
        with self._lock:
            return (self.in_flight + 1) * self.latency_s

    def told(self, *, in_use: bool) -> HostState:
        """How it is at this moment."""
        state = self.breaker.state
        with self._lock:
            return HostState(
                name=self.name,
                state=state,
                in_use=in_use,
                answered=self.answered,
                reconnects=self.reconnects,
                latency_ms=self.latency_s * 1e3,
                identity=None if self._proof is None else self._proof.identity(self.name),
            )

    # Answers

    def ask(
        self, tensor: NDArray[Any], *, timeout_s: float
    ) -> tuple[NDArray[np.generic], ModelIdentity]:
        """Have a batch answered, in parts where the host takes no more.

        Returns:
            The answers, and which model the host says gave them.

        Raises:
            RequestError: there is no answer in time, or it is none.
        """
        proof = self.proof
        assert proof is not None
        started_s = self._clock()
        with self._lock:
            self.in_flight += 1
        try:
            values, shown = self._ask(tensor, proof.contract, timeout_s=timeout_s, proof=proof)
        except RequestError as failure:
            self._note(failure, hurried=timeout_s < self.latency_s)
            raise
        finally:
            with self._lock:
                self.in_flight -= 1
        self._answered(self._clock() - started_s)
        return values, shown.identity(self.name)

    def _ask(
        self,
        tensor: NDArray[Any],
        contract: Contract,
        *,
        timeout_s: float,
        proof: Proof | None = None,
    ) -> tuple[NDArray[np.generic], Proof]:
        due_s = self._clock() + timeout_s
        step = contract.max_batch or len(tensor)
        parts = []
        for start in range(0, len(tensor), step):
            part = tensor[start : start + step]
            part = part.reshape(len(part), *contract.input_shape)
            left_s = due_s - self._clock()
            if left_s <= 0:
                raise RequestError(Kind.TIMEOUT, f"had not answered within {timeout_s:.3g} s")
            self._meter.count("sent_bytes", _size(part))
            reply = self._reply(part, contract, left_s)
            check_sha256(reply.sha256, self._wanted)
            sha256 = reply.sha256 or contract.sha256
            shown = Proof(
                contract, None if sha256 is None else name_of(sha256), name_of(reply.version)
            )
            if proof is not None and (shown.sha256, shown.version) != (proof.sha256, proof.version):
                raise RequestError(
                    Kind.DRAINING, f"has another version ({shown.version}) now: it is checked anew"
                )
            parts.append(reply.values)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)), shown

    def _reply(self, part: NDArray[Any], contract: Contract, timeout_s: float) -> Reply:
        """Ask the host; whatever it has sent, there is an answer or a `RequestError`."""
        try:
            reply = self._transport.infer(
                part, contract, datatype=self._wanted.datatype, timeout_s=timeout_s
            )
            self._meter.count("received_bytes", reply.values.nbytes)
            check_values(reply.values, len(part), self._wanted)
            return reply
        except RequestError:
            raise
        except Exception as error:
            text = f"answered what cannot be read ({type(error).__name__}: {error})"
            raise RequestError(Kind.WRONG, text) from error

    def _answered(self, spent_s: float) -> None:
        self.breaker.succeeded()
        with self._lock:
            before = self.latency_s or spent_s
            self.latency_s = before + SMOOTHING * (spent_s - before)
            self.answered += 1

    def _note(self, failure: RequestError, *, hurried: bool = False) -> None:
        """Take note of a failure; a host that had less time than usual is not to blame for that."""
        if failure.kind is Kind.CLOSED:
            return
        self._meter.failed(failure.kind)
        with self._lock:
            self._failure = failure
        # What was another model a moment ago is asked nothing before it is proven again.
        changed = failure.kind is Kind.DRAINING
        if not (hurried and failure.kind is Kind.TIMEOUT):
            self.breaker.failed(lasting=failure.kind.lasting or changed)

    # Proof

    def prove(self, *, timeout_s: float) -> bool:
        """Ask what the host serves, and have it answer samples; return whether it is as wanted.

        Call it between `Breaker.begin_probe` and nothing else: it ends the probe.
        """
        self._meter.count("probes")
        try:
            proof = self._prove(timeout_s)
        except RequestError as error:
            failure = error
        except Exception as error:  # a host that nobody probes any more would be lost for good
            failure = RequestError(Kind.REJECTED, f"{type(error).__name__}: {error}")
        else:
            with self._lock:
                self.reconnects += self._proof is not None
                self._proof, self._failure = proof, None
            self.breaker.end_probe(good=True)
            return True
        self._note(failure)
        self.breaker.end_probe(good=False)
        return False

    def _prove(self, timeout_s: float) -> Proof:
        due_s = self._clock() + timeout_s
        before = self.proof
        contract = agree(self._transport.describe(timeout_s=timeout_s), self._wanted)
        values, proof = self._ask(
            self._samples.one, contract, timeout_s=min(due_s - self._clock(), self._patience_s)
        )
        told_before = before is not None and before.sha256 is not None
        if (self.must_tell or told_before) and proof.sha256 is None:
            raise RequestError(
                Kind.WRONG, "does not tell the hash of its model, as it or another host did before"
            )
        if proof != before and self._samples.golden is not None:
            values, _ = self._ask(
                self._samples.golden, contract, timeout_s=max(due_s - self._clock(), 0)
            )
            self._samples.check(values)
        return proof

    @property
    def _patience_s(self) -> float:
        """How long a probe's one sample may take: as a frame may, but for the first."""
        return self._model.connect_s if self.proof is None else self._model.timeout_s

    def watch(self, closing: threading.Event) -> None:
        """Probe the host whenever it is left alone, until closing. For a thread of its own."""
        while not closing.wait(self._rest_s()):
            if self.breaker.state is State.OPEN and self.breaker.begin_probe():
                self.prove(timeout_s=self._model.connect_s)

    def _rest_s(self) -> float:
        wait_s = self.breaker.wait_s()
        return self._model.probe_s / 2 if wait_s is None else max(wait_s, 0.01)

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()


def _size(tensor: NDArray[Any]) -> int:
    return sum(map(len, tensor.flat)) if tensor.dtype == object else tensor.nbytes
