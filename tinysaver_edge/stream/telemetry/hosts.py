"""The hosts of a stream's large model, told to metrics and dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tinysaver_edge.engines.remote.traffic import State
from tinysaver_edge.stream.telemetry.metrics import Reading, reading

if TYPE_CHECKING:
    from tinysaver_edge.deciding.stage import Stage
    from tinysaver_edge.engines.remote.engine import RemoteEngine
    from tinysaver_edge.engines.remote.traffic import HostState, Traffic


def hosts_of(stages: Sequence[Stage]) -> RemoteEngine | None:
    """Return what asks the hosts of the large model, the last stage; None where it runs here."""
    from tinysaver_edge.engines.remote.engine import RemoteEngine

    engine = stages[-1].engine
    return engine if isinstance(engine, RemoteEngine) else None


def host_readings(engine: RemoteEngine) -> list[Reading]:
    """Return what went to the hosts, what came back, and how each is, for the metrics."""
    return [*_of_traffic(engine.traffic), *_of_hosts(engine.hosts)]


def _of_traffic(traffic: Traffic) -> list[Reading]:
    failures = tuple(((kind,), float(count)) for kind, count in traffic.failures.items())
    totals = {
        "requests": "Batches that hosts were to answer",
        "answered": "Batches that hosts answered",
        "retries": "Attempts beyond the first",
        "probes": "Questions how a host is",
        "sent_bytes": "Tensors sent, probes included",
        "received_bytes": "Tensors received, probes included",
    }
    return [
        *(
            reading(f"large_{name}", text, getattr(traffic, name), counts=True)
            for name, text in totals.items()
        ),
        Reading("large_failures", "Attempts that failed", failures, ("kind",), counts=True),
    ]


def _of_hosts(hosts: tuple[HostState, ...]) -> list[Reading]:
    def each(name: str, text: str, *, counts: bool = False) -> Reading:
        samples = tuple(((one.name,), float(getattr(one, name))) for one in hosts)
        return Reading(f"large_host_{name}", text, samples, ("host",), counts)

    states = tuple(
        ((one.name, state.value), float(one.state is state)) for one in hosts for state in State
    )
    models = tuple(
        ((one.name, one.identity.version or "", one.identity.sha256 or ""), 1.0)
        for one in hosts
        if one.identity is not None
    )
    return [
        each("answered", "Batches that the host answered", counts=True),
        each("reconnects", "Times it was taken back after it was left alone", counts=True),
        each("in_use", "1 for the host that gave the last answer"),
        Reading("large_host_breaker", "1 for the state it is in", states, ("host", "state")),
        Reading("large_host_model", "What it serves", models, ("host", "version", "sha256")),
    ]


def hosts_told(engine: RemoteEngine) -> dict[str, Any]:
    """Return the same as plain values for JSON."""
    return {
        "traffic": asdict(engine.traffic),
        "hosts": [asdict(one) | {"state": one.state.value} for one in engine.hosts],
    }
