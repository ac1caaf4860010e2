"""The hosts of the large model in the metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.stream.dashboard.world import Hosts
from tinysaver_edge.stream.telemetry.hosts import host_readings
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics


def test_every_figure_of_the_traffic_and_of_each_host_is_published() -> None:
    metrics = PrometheusMetrics()
    metrics.add(lambda: host_readings(Hosts()))
    families = text_string_to_metric_families(metrics.exposition().decode())
    found = {
        (one.name.removeprefix("tinysaver_large_"), *one.labels.values()): one.value
        for family in families
        for one in family.samples
        if one.name.startswith("tinysaver_")
    }
    first, second = (one.name for one in Hosts.hosts)
    assert found == {
        ("requests_total",): 1204,
        ("answered_total",): 1187,
        ("retries_total",): 9,
        ("probes_total",): 31,
        ("sent_bytes_total",): 181_000_000,
        ("received_bytes_total",): 4_900_000,
        ("failures_total", "unreachable"): 26,
        ("host_answered_total", first): 901,
        ("host_answered_total", second): 286,
        ("host_reconnects_total", first): 0,
        ("host_reconnects_total", second): 2,
        ("host_in_use", first): 1,
        ("host_in_use", second): 0,
        ("host_breaker", first, "closed"): 1,
        ("host_breaker", first, "open"): 0,
        ("host_breaker", first, "half_open"): 0,
        ("host_breaker", second, "closed"): 0,
        ("host_breaker", second, "open"): 1,
        ("host_breaker", second, "half_open"): 0,
        ("host_model", first, "5f" * 32, "3"): 1,
    }
