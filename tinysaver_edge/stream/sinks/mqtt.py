"""MQTT: every decision published to a broker as JSON."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from tinysaver_edge._support.packages import needs
from tinysaver_edge._support.urls import Url, is_loopback
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

PORTS = {"mqtt": 1883, "mqtts": 8883}
FORM = "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC[?qos=0|1], or mqtts:// for TLS"


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """Where to publish; its text never holds the credentials.

    Attributes:
        host: name or address of the broker.
        port: TCP port.
        topic: what every topic begins with.
        tls: whether the connection is encrypted, against the system's certificates.
        qos: 0, sent once, or 1, acknowledged.
        user: name to log in with, or None.
        password: password, or None.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    qos: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, address: str) -> MqttAddress:
        """Read an address such as ``mqtt://broker/factory/line-3``.

        Raises:
            InputError: it is of another form.
        """
        found = Url.parse(address, what="--mqtt", form=f"give {FORM}")
        topic = unquote(found.path).strip("/")
        query = parse_qs(found.query)
        qos = query.pop("qos", ["0"])[-1]
        fits = found.scheme in PORTS and topic and topic.isprintable() and not query
        if not fits or qos not in ("0", "1") or set("#+\0") & set(topic) or found.fragment:
            raise InputError(
                f"--mqtt {found.scheme}://{found.host}: give {FORM}, the topic without # and +"
            )
        return cls(
            host=found.host,
            port=found.port or PORTS[found.scheme],
            topic=topic,
            tls=found.scheme == "mqtts",
            qos=int(qos),
            user=found.user,
            password=found.password,
        )

    @property
    def exposed(self) -> bool:
        """Whether decisions, and the password, cross a network in plain text."""
        return not (self.tls or is_loopback(self.host))


class MqttSink:
    """Publishes every decision to ``TOPIC/decisions/SOURCE``.

    ``TOPIC/status`` is retained and says "online", "offline" after leaving, and "lost" when the
    broker misses it. While there is no connection decisions are not kept: each is a failure, and
    the connection is made anew in the background.

    Args:
        address: see `MqttAddress.parse`.
        timeout_s: how long one decision may take to be sent (qos 0) or acknowledged (qos 1).
        keepalive_s: seconds of silence after which broker and sink ask for each other.
        most_wait_s: longest pause between attempts to connect; the first is 1 s.
    """

    wants_frames = False

    def __init__(
        self,
        address: MqttAddress,
        *,
        timeout_s: float = 2.0,
        keepalive_s: int = 15,
        most_wait_s: int = 30,
    ) -> None:
        self.name = f"mqtt {address.host}:{address.port}/{address.topic}"
        self._address = address
        self._timeout_s = timeout_s
        self._keepalive_s = keepalive_s
        self._most_wait_s = most_wait_s
        self._client: Any = None
        self._why = "not connected yet"
        self._answered = threading.Event()

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Publish one decision.

        Raises:
            ConnectionError: there is no connection, or the broker does not take it in time.
        """
        if not self._client.is_connected():
            raise ConnectionError(self._why)
        source = re.sub(r"[#+/\0]", "_", decision.frame_id.source_id)
        payload = json.dumps(decision.to_dict(), separators=(",", ":"))
        self._publish(f"decisions/{source}", payload, retain=False)

    def _publish(self, topic: str, payload: str, *, retain: bool) -> None:
        address = self._address
        sent = self._client.publish(
            f"{address.topic}/{topic}", payload, qos=address.qos, retain=retain
        )
        try:
            sent.wait_for_publish(self._timeout_s)
            done = sent.is_published()
        except (RuntimeError, ValueError) as error:
            raise ConnectionError(f"the broker does not take it ({error})") from error
        if not done:
            raise ConnectionError(f"the broker did not take it within {self._timeout_s:g} s")

    def __enter__(self) -> Self:
        """Begin to connect, and wait a second at most.

        A broker that is not there yet does not keep the stream from starting.

        Raises:
            MissingDependencyError: paho-mqtt is not installed.
        """
        with needs("paho-mqtt", extra="mqtt", purpose="Publishing decisions"):
            from paho.mqtt import client as mqtt
        address = self._address
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.will_set(f"{address.topic}/status", "lost", qos=1, retain=True)
        client.max_queued_messages_set(16)
        client.reconnect_delay_set(1, self._most_wait_s)
        client.connect_timeout = 3.0
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            client.tls_set()
        client.connect_async(address.host, address.port, keepalive=self._keepalive_s)
        client.loop_start()
        self._client = client
        self._answered.wait(1.0)
        return self

    def _on_connect(self, client: Any, data: Any, flags: Any, code: Any, more: Any) -> None:  # noqa: ANN401
        if code.is_failure:
            self._why = f"the broker refuses: {code}"
            self._answered.set()
        else:
            self._why = "connected"
            self._answered.set()
            client.publish(f"{self._address.topic}/status", "online", qos=1, retain=True)

    def _on_connect_fail(self, client: Any, data: Any) -> None:  # noqa: ANN401
        self._why = "no broker answers there"
        self._answered.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: Any, more: Any) -> None:  # noqa: ANN401
        # After a refusal the reason is known; the hanging up that follows tells nothing.
        if not self._why.startswith("the broker refuses"):
            self._why = f"connection lost: {code}"

    def __exit__(self, *exception: object) -> None:
        """Say goodbye and hang up."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected():
            sent = client.publish(f"{self._address.topic}/status", "offline", qos=1, retain=True)
            sent.wait_for_publish(self._timeout_s)
        client.disconnect()
        client.loop_stop()
