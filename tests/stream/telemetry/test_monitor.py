import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.telemetry.events import Connected, Ended, Lost, Reconnected
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.metrics import AllMetrics, Counter, Gauge, Measure, Tally
from tinysaver_edge.stream.telemetry.monitor import MOST_CONNECTIONS, Monitor
from tinysaver_edge.stream.telemetry.prometheus import MOST_SOURCES, PrometheusMetrics
from tinysaver_edge.testing import FakeClock


def samples(metrics):
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in families
        for one in family.samples
    }


def test_every_figure_is_published_under_a_name_of_its_own():
    metrics = PrometheusMetrics()
    for counter in Counter:
        metrics.count(counter, "door", detail="why", amount=3)
    for gauge in Gauge:
        metrics.gauge(gauge, "door", 0.5)
    for measure in Measure:
        metrics.measure(measure, "door", 30.0, detail="saver")
    found = samples(metrics)
    source = ("source", "door")
    assert found["tinysaver_frames_total", source] == 3
    assert found["tinysaver_decisions_total", ("answered_by", "why"), source] == 3
    assert found["tinysaver_sink_failed_total", ("sink", "why"), source] == 3
    assert found["tinysaver_drift_evidence", source] == 0.5
    age = "tinysaver_age_seconds"
    by = ("answered_by", "saver")
    assert found[f"{age}_sum", by, source] == pytest.approx(0.03)
    assert found[f"{age}_bucket", by, ("le", "0.033"), source] == 1
    assert found[f"{age}_bucket", by, ("le", "0.02"), source] == 0
    names = {name for name, *_ in found if name.startswith("tinysaver_")}
    assert len([one for one in names if one.endswith("_total")]) == len(Counter)


def test_a_folder_of_many_pictures_does_not_fill_the_memory():
    metrics = PrometheusMetrics()
    for number in range(1000):
        metrics.count(Counter.FRAMES, f"{number}.png")
    found = {key: value for key, value in samples(metrics).items() if "frames_total" in key[0]}
    assert len(found) == MOST_SOURCES + 1
    assert found["tinysaver_frames_total", ("source", "other")] == 1000 - MOST_SOURCES


def test_several_takers_hear_the_same():
    one, other = Tally(), Tally()
    both = AllMetrics(one, other)
    both.count(Counter.LATE, "a", amount=2)
    both.gauge(Gauge.IN_FLIGHT, "", 4)
    both.measure(Measure.AGE_MS, "a", 1.0, detail="saver")
    for tally in (one, other):
        assert tally.total(Counter.LATE) == 2
        assert tally.level(Gauge.IN_FLIGHT) == 4


def health(clock):
    one = Health(clock=clock, stall_s=10)
    one.started()
    one(Connected("door", 0.0))
    one.count(Counter.FRAMES, "door")
    one.count(Counter.DECISIONS, "door")
    return one


def test_it_becomes_ready_step_by_step():
    one = Health(clock=FakeClock())
    assert one.alive.good
    seen = [one.ready.why]
    one.started()
    seen.append(one.ready.why)
    one(Connected("door", 0.0))
    seen.append(one.ready.why)
    one.count(Counter.FRAMES, "door")
    one.count(Counter.DECISIONS, "door")
    assert one.ready.good
    words = ["not loaded", "no source gives frames", "no answer yet"]
    assert all(word in why for word, why in zip(words, seen, strict=True))
    one.stopped()
    assert not one.ready.good
    assert one.alive.good


def test_frames_without_answers_are_a_stall_and_silence_is_none():
    clock = FakeClock()
    one = health(clock)
    clock.advance(1000)
    assert one.alive.good
    one.count(Counter.FRAMES, "door")
    clock.advance(9)
    one.count(Counter.FRAMES, "door")
    assert one.alive.good
    clock.advance(2)
    assert one.alive.why == "no answer for 11 s, although there are frames"
    assert not one.ready.good
    one.count(Counter.DECISIONS, "door")
    assert one.ready.good


def test_ready_needs_a_source_that_gives_frames():
    one = health(FakeClock())
    one(Connected("yard", 0.0))
    one(Lost("door", 1.0, "gone"))
    assert one.ready.why == "1 source gives frames, 1 lost"
    one(Ended("yard", 2.0, 10))
    assert one.ready.why == "no source gives frames (1 lost)"
    one(Reconnected("door", 3.0, 2.0, 1))
    assert one.ready.good


def ask(url, *, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def monitor():
    clock = FakeClock()
    address = ListenAddress.parse("127.0.0.1:0", option="--metrics")
    with Monitor(address, health(clock), PrometheusMetrics(), token=None) as one:
        one.clock = clock
        yield one


def test_it_answers_over_http(monitor):
    status, text = ask(f"{monitor.url}/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in text
    assert ask(f"{monitor.url}/healthz") == (200, '{"good": true, "why": "running"}\n')
    assert ask(f"{monitor.url}/readyz?verbose")[0] == 200
    assert ask(f"{monitor.url}/else")[0] == 404
    monitor._health.count(Counter.FRAMES, "door")
    monitor.clock.advance(60)
    for path in ("healthz", "readyz"):
        status, text = ask(f"{monitor.url}/{path}")
        assert status == 503
        assert json.loads(text)["good"] is False


def test_a_token_keeps_strangers_from_the_metrics():
    address = ListenAddress.parse("127.0.0.1:0", option="--metrics")
    with Monitor(address, health(FakeClock()), PrometheusMetrics(), token="s3cret") as one:
        assert ask(f"{one.url}/metrics")[0] == 401
        assert ask(f"{one.url}/metrics", token="wrong")[0] == 401
        assert ask(f"{one.url}/metrics", token="s3cret")[0] == 200
        assert ask(f"{one.url}/healthz")[0] == 200


def test_clients_that_say_nothing_are_bounded_and_others_are_served_after_them(monitor):
    port = int(monitor.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MOST_CONNECTIONS)]
    serving = [one for one in threading.enumerate() if "process_request" in one.name]
    assert len(serving) <= MOST_CONNECTIONS
    for one in idle:
        one.close()
    for _ in range(50):
        try:
            assert ask(f"{monitor.url}/healthz")[0] == 200
            break
        except OSError:
            threading.Event().wait(0.1)
    else:
        raise AssertionError("never served again")


def test_a_port_that_is_taken_is_one_line(monitor):
    port = monitor.url.rpartition(":")[2]
    address = ListenAddress.parse(f"127.0.0.1:{port}", option="--metrics")
    with pytest.raises(InputError, match=f"--metrics 127.0.0.1:{port}: the port is taken"):
        address.bind()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8080", "give HOST:PORT"),
        (":8080", "give HOST:PORT"),
        ("host:", "give HOST:PORT"),
        ("host:99999", "give HOST:PORT"),
        ("::1:80", "give HOST:PORT"),
        ("no-such-host.invalid:80", "cannot be found"),
        ("203.0.113.7:80", "no such address"),
    ],
)
def test_addresses_that_cannot_be_had(text, words):
    with pytest.raises(InputError, match=f"--dashboard.*{words}"):
        ListenAddress.parse(text, option="--dashboard").bind()


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:80", True),
        ("127.9.9.9:80", True),
        ("localhost:80", True),
        ("[::1]:80", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("192.168.1.4:80", False),
        ("edge.local:80", False),
    ],
)
def test_loopback_is_known(text, loopback):
    address = ListenAddress.parse(text, option="--x")
    assert address.is_loopback is loopback
    assert str(address) == f"--x {text}"


def test_leaving_is_legal_in_every_state():
    address = ListenAddress.parse("127.0.0.1:0", option="--metrics")
    one = Monitor(address, health(FakeClock()), PrometheusMetrics(), token=None)
    one.__exit__(None, None, None)
    with one:
        one.__exit__(None, None, None)
