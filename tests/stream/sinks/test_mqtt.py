import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from tests.stream.decisions import Events, decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream import MqttSink, Queued
from tinysaver_edge.stream.sinks.mqtt import MqttAddress
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

needs_broker = pytest.mark.skipif(BROKER is None, reason="no mosquitto: apt-get install mosquitto")


def until(true, *, seconds=10.0):
    """Wait until something is true; whether it became so."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


class Broker:
    """A real mosquitto on a port of its own."""

    def __init__(self, folder, *, password=None):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(not password).lower()}"]
        if password is not None:
            file = folder / "passwords"
            file.touch()
            subprocess.run(
                ["mosquitto_passwd", "-b", str(file), "ann", password],
                check=True,
                capture_output=True,
            )
            lines.append(f"password_file {file}")
        if os.geteuid() == 0:
            lines.append("user root")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BROKER, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert until(self._answers)

    def _answers(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait(10)


class Subscriber:
    """Hears everything that is published."""

    def __init__(self, port, *, user=None, password=None):
        from paho.mqtt import client as mqtt

        self.heard = []
        self._ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *more: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *more: self._ready.set()
        self._client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def said(self, topic):
        return [payload for heard, payload in self.heard if heard == topic]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    one = Broker(tmp_path)
    yield one
    one.kill()


def queued(address, **options):
    events, tally = Events(), Tally()
    sink = MqttSink(MqttAddress.parse(address), most_wait_s=1, **options)
    return Queued(sink, clock=time.monotonic, listener=events, metrics=tally), events, tally


def publish_until_taken(sink, tally, number=0):
    """Try one decision until the broker has taken it."""

    def taken():
        before = tally.total(Counter.SINK_FAILED)
        sink.write(decision(number), None)
        time.sleep(0.1)
        return tally.total(Counter.SINK_FAILED) == before

    assert until(taken, seconds=15)


@needs_broker
@pytest.mark.parametrize("qos", [0, 1])
def test_decisions_arrive_in_order_and_the_status_says_who_is_there(broker, qos):
    sink, events, tally = queued(f"mqtt://127.0.0.1:{broker.port}/plant/line%203?qos={qos}")
    with Subscriber(broker.port) as subscriber, sink:
        assert until(lambda: subscriber.said("plant/line 3/status") == ["online"])
        for number in range(1, 201):
            sink.write(decision(number, source_id="a/b#c"), None)
        topic = "plant/line 3/decisions/a_b_c"
        assert until(lambda: len(subscriber.said(topic)) == 200)
        sent = [json.loads(payload) for payload in subscriber.said(topic)]
        assert sent == [decision(number, source_id="a/b#c").to_dict() for number in range(1, 201)]
        sink.__exit__(None, None, None)
        assert until(lambda: subscriber.said("plant/line 3/status") == ["online", "offline"])
    assert events.all == []
    assert tally.total(Counter.SINK_FAILED) == 0


@needs_broker
def test_a_broker_that_dies_and_comes_back_costs_decisions_and_nothing_else(broker):
    sink, events, tally = queued(f"mqtt://127.0.0.1:{broker.port}/t")
    with sink:
        sink.write(decision(), None)
        broker.kill()
        for number in range(20):
            sink.write(decision(number), None)
            time.sleep(0.02)
        assert until(lambda: "sink_failed" in events.kinds())
        broker.start()
        with Subscriber(broker.port) as subscriber:
            publish_until_taken(sink, tally, 99)
            assert until(lambda: subscriber.said("t/decisions/cam") != [])
    assert events.kinds() == ["sink_failed", "sink_recovered"]
    assert tally.total(Counter.SINK_FAILED) == events.of("sink_recovered")[0].lost


@needs_broker
def test_a_broker_that_freezes_costs_one_time_out_a_decision(broker):
    sink, events, tally = queued(f"mqtt://127.0.0.1:{broker.port}/t?qos=1", timeout_s=0.1)
    with sink:
        broker.process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            for number in range(5):
                sink.write(decision(number), None)
            assert until(lambda: tally.total(Counter.SINK_FAILED) >= 5)
            assert time.monotonic() - started < 3
        finally:
            broker.process.send_signal(signal.SIGCONT)
    assert "did not take it within 0.1 s" in events.of("sink_failed")[0].reason


@needs_broker
def test_a_broker_that_is_not_there_yet_does_not_keep_the_stream_from_starting(tmp_path):
    broker = Broker(tmp_path)
    broker.kill()
    sink, events, tally = queued(f"mqtt://127.0.0.1:{broker.port}/t")
    with sink:
        sink.write(decision(), None)
        assert until(lambda: tally.total(Counter.SINK_FAILED) == 1)
        broker.start()
        publish_until_taken(sink, tally)
    assert events.kinds() == ["sink_failed", "sink_recovered"]
    broker.kill()


@needs_broker
@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="no mosquitto_passwd")
def test_a_wrong_password_is_told_without_the_password(tmp_path):
    broker = Broker(tmp_path, password="right")
    with Subscriber(broker.port, user="ann", password="right") as subscriber:
        sink, events, tally = queued(f"mqtt://ann:wr%40ng@127.0.0.1:{broker.port}/t")
        with sink:

            def refused():
                sink.write(decision(), None)
                time.sleep(0.05)
                return "refuses" in sink._sink._why

            assert until(refused)
        sink, good, tally = queued(f"mqtt://ann:right@127.0.0.1:{broker.port}/t")
        with sink:
            publish_until_taken(sink, tally)
            assert until(lambda: subscriber.said("t/decisions/cam") != [])
    broker.kill()
    told = str([*events.all, *good.all, sink.name])
    assert "wr@ng" not in told
    assert "right" not in told
    assert "ann" not in told


@needs_broker
def test_no_thread_and_no_descriptor_stays(broker):
    def held():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = held()
    for _ in range(5):
        sink, _, tally = queued(f"mqtt://127.0.0.1:{broker.port}/t")
        with sink:
            publish_until_taken(sink, tally)
    assert held() == before


@pytest.mark.parametrize(
    ("address", "host", "port", "topic", "tls", "qos", "user"),
    [
        ("mqtt://broker/t", "broker", 1883, "t", False, 0, None),
        ("mqtts://ann:p%40ss@broker/a/b/", "broker", 8883, "a/b", True, 0, "ann"),
        ("mqtt://[::1]:99/t?qos=1", "::1", 99, "t", False, 1, None),
    ],
)
def test_addresses(address, host, port, topic, tls, qos, user):
    one = MqttAddress.parse(address)
    assert (one.host, one.port, one.topic, one.tls) == (host, port, topic, tls)
    assert (one.qos, one.user) == (qos, user)
    assert one.password in (None, "p@ss")
    assert "p@ss" not in repr(one)
    assert "ann" not in MqttSink(one).name


@pytest.mark.parametrize(
    "address",
    [
        "broker/t",
        "mqtt://broker",
        "mqtt://ann:secret@broker/a/%23",
        "mqtt://broker/a%1b%5B2J",
        "mqtt://broker/t?qos=2",
        "mqtt://broker:x/t",
        "http://ann:secret@broker/t",
        "mqtt:///t",
        "mqtt://broker/t?other=1",
        "mqtt://[broker/t",
    ],
)
def test_what_is_no_address_is_refused_without_its_credentials(address):
    with pytest.raises(InputError, match=r"--mqtt.*give mqtt://\[USER") as refusal:
        MqttAddress.parse(address)
    assert "secret" not in str(refusal.value)
