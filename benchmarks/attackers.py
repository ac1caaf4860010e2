"""Attackers, and a server that does nothing: programs of their own, for `bench_attack.py`.

    python benchmarks/attackers.py NAME [BUNDLE]

NAME is a stranger of `STRANGERS`, a device of `DEVICES` that has the token, `liar` (a host of
BUNDLE's large model), or `nothing`. Each prints a line once it is ready: `liar` and `nothing` the
port that they listen on. Then it takes a line of standard input for each thing to do: a JSON list
of ports to attack on 127.0.0.1, or `[]` to hold on, which it answers with how often it knocked. It
ends with its standard input, so that none is left behind. Strangers come from 127.0.0.2.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

HERE, ATTACKER = "127.0.0.1", "127.0.0.2"
TOKEN = "correct-horse-battery"
HELD = 150
"""Connections that one attacker holds."""

Attack = Callable[[list[int], threading.Event], int]
"""Attacks ports until the event is set; returns how often it knocked."""


def connect(port: int) -> socket.socket:
    return socket.create_connection((HERE, port), 1, (ATTACKER, 0))


def sit(says: bytes, *, pause_s: float = 0.02, most: int = HELD) -> Attack:
    """Hold connections, send each another byte in turn, come back when they are cut off."""

    def attack(ports: list[int], over: threading.Event) -> int:
        held: list[socket.socket] = []
        knocks = 0
        for number in count():
            if over.wait(pause_s):
                break
            if len(held) < most:
                with suppress(OSError):
                    held.append(connect(ports[number % len(ports)]))
                    held[-1].sendall(says)
                    knocks += 1
            for one in held[number % 10 :: 10]:
                try:
                    if says:
                        one.setblocking(False)
                        one.send(says[-1:])
                    one.setblocking(False)
                    if one.recv(4096) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    pass
                except OSError:
                    one.close()
                    held.remove(one)
        for one in held:
            one.close()
        return knocks

    return attack


def alike(attempt: Callable[[int, int], None], *, threads: int, pause_s: float = 0.0) -> Attack:
    """Have threads attempt something on one port after the other, as fast as they can."""

    def attack(ports: list[int], over: threading.Event) -> int:
        knocks = [0] * threads

        def work(number: int) -> None:
            while not over.wait(pause_s):
                port = ports[knocks[number] % len(ports)]
                with suppress(OSError):
                    attempt(port, knocks[number])
                knocks[number] += 1

        working = [threading.Thread(target=work, args=(one,)) for one in range(threads)]
        for one in working:
            one.start()
        for one in working:
            one.join()
        return sum(knocks)

    return attack


def guess(port: int, number: int) -> None:
    """Ask for what is guarded with another wrong token."""
    with connect(port) as one:
        one.settimeout(3)
        one.sendall(
            b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer guess-%d\r\n"
            b"Connection: close\r\n\r\n"
            % ((b"metrics", b"state.json", b"v2/models/large")[number % 3], number)
        )
        while one.recv(4096):
            pass


def drown(port: int, number: int) -> None:
    """Send a request whose headers have no end."""
    with connect(port) as one:
        one.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(200):
            one.sendall(b"X-A: " + b"a" * 4000 + b"\r\n")


def hang_up(port: int, number: int) -> None:
    """Connect, and go: half of the time with a reset."""
    with connect(port) as one:
        if number % 2:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def flood(port: int, number: int) -> None:
    """Ask for what needs no token, fifty times in a breath over one connection."""
    asked = (b"/healthz", b"/login", b"/base.css", b"/v2/health/live", b"/")[number % 5]
    with connect(port) as one:
        one.settimeout(1)
        for _ in range(20):
            one.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % asked * 50)
            answers = 0
            while answers < 50 and (got := one.recv(1 << 16)):
                answers += got.count(b"HTTP/1.1 ")
            if answers < 50:
                break


def half_open(ports: list[int], over: threading.Event) -> int:
    """Begin gRPC calls without a token, and never end them."""

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        length = struct.pack(">I", len(body))[1:]
        return length + bytes([kind, flags]) + struct.pack(">I", stream) + body

    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"),
             (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
             (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
    head = b"".join(b"\0" + bytes([len(a)]) + a + bytes([len(b)]) + b for a, b in pairs)
    begun = frame(4, 0, 0, b"") + frame(1, 4, 1, head) + frame(0, 0, 1, b"\0\0\0\x03\xe8x")
    return sit(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + begun, most=100)(ports, over)


def guess_grpc(ports: list[int], over: threading.Event) -> int:
    """Call with wrong tokens over four connections, as many calls at once as each lets through."""
    import grpc

    places = threading.Semaphore(128)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(f"{HERE}:{ports[0]}", options) for _ in range(4)]
    calls = [
        one.unary_unary("/inference.GRPCInferenceService/ModelInfer", _registered_method=False)
        for one in channels
    ]
    for knocks in count():
        if over.is_set():
            break
        if places.acquire(timeout=0.1):
            metadata = (("authorization", f"Bearer guess-{knocks}"),)
            made = calls[knocks % 4].future(b"", metadata=metadata, timeout=5)
            made.add_done_callback(lambda _: places.release())
    for one in channels:
        one.close()
    return knocks


STRANGERS: dict[str, Attack] = {
    "silent clients": sit(b""),
    "dripping clients": sit(b"GET /healthz HTTP/1.1\r\nX: a", pause_s=0.0),
    "wrong tokens": alike(guess, threads=8),
    "headers without end": alike(drown, threads=2),
    "connections that hang up": alike(hang_up, threads=2),
    "floods of what is free": alike(flood, threads=4),
    "half-open gRPC": half_open,
    "wrong tokens over gRPC": guess_grpc,
}


# Devices, which have the token


def device(bundle: Path, what: str) -> Attack:
    """Ask a host of `serve` by gRPC, one request after the other, for what `DEVICES` says."""
    files = DEVICES[what](*pictures(bundle))

    def attack(ports: list[int], over: threading.Event) -> int:
        knocks = 0
        with suppress(Exception), closing(Asker(ports[0])) as asker:
            while not over.wait(0.02):
                with suppress(Exception):
                    asker.infer(files, timeout_s=10.0)
                knocks += 1
        return knocks

    return attack


class Asker:
    """A device that sends pictures to a host of `serve`, with the token."""

    def __init__(self, port: int) -> None:
        import numpy as np

        from tinysaver_edge.engines.remote import RemoteModel, Token
        from tinysaver_edge.engines.remote.endpoint import open_transport
        from tinysaver_edge.engines.remote.facts import Contract
        from tinysaver_edge.engines.remote.model import Address

        os.environ["TINYSAVER_TOKEN"] = TOKEN
        address = Address.parse(f"grpc://{HERE}:{port}/large")
        token = Token(env="TINYSAVER_TOKEN")
        self._transport = open_transport(address, RemoteModel((address,), token=token))
        facts = self._transport.describe(timeout_s=10)
        self._given, self._one_each = facts.inputs[0], (1,) * (len(facts.inputs[0].shape) - 1)
        self._contract = Contract(
            self._given.name, self._one_each, facts.outputs[0].name, None, None
        )
        self._empty = np.empty

    def infer(self, files: list[bytes], *, timeout_s: float) -> None:
        """Have pictures answered."""
        made = self._empty(len(files), object)
        made[:] = files
        self._transport.infer(
            made.reshape(len(files), *self._one_each), self._contract,
            datatype=self._given.datatype, timeout_s=timeout_s,
        )  # fmt: skip

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def pictures(bundle: Path) -> tuple[bytes, bytes]:
    """A picture as the host takes them, and one that says to have four thousand million pixels."""
    import cv2
    import numpy as np

    from tinysaver_edge.artefact import bundled_artefacts
    from tinysaver_edge.bundle.bundle import Bundle

    with Bundle.load(bundle) as opened:
        form = bundled_artefacts(opened)[-1].preprocess.shape(1)[1:]
    good = cv2.imencode(".jpg", np.zeros(form, np.uint8))[1].tobytes()
    place = good.find(b"\xff\xc0") + 5
    return good, good[:place] + b"\xff\xdc\xff\xdc" + good[place + 4 :]


DEVICES: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
    "pairs of pictures": lambda good, bomb: [good, good],
    "a device that sends bombs": lambda good, bomb: [good, bomb],
    "eight pictures at once": lambda good, bomb: [good] * 8,
    "a device that sends 400 frames at once": lambda good, bomb: [good] * 400,
}
"""The files of one request; those without a device are the honest kind, for the controls."""


# A large model's host, which may lie


class Liar:
    """Serves a bundle's large model over HTTP; `lie` says how its answers are."""

    LIES = ("nan", "odd", "headers", "body", "drip", "hang up")

    def __init__(self, bundle: Path) -> None:
        import numpy as np

        from tinysaver_edge.artefact import bundled_artefacts
        from tinysaver_edge.bundle.bundle import Bundle
        from tinysaver_edge.engines.remote.facts import DATATYPES
        from tinysaver_edge.output_format import OutputFormat

        self._np = np
        self._opened = Bundle.load(bundle)
        made = bundled_artefacts(self._opened)[-1]
        options = replace(made.options, threads=1)
        self._engine = replace(made, output=OutputFormat(), options=options).open()
        self._sha256 = made.sha256
        signature = self._engine.signature
        self._dtype = np.dtype(signature.input_dtype)
        datatype = DATATYPES[signature.input_dtype]
        shape = [-1, *made.preprocess.shape(1)[1:]]
        self._told = {
            "name": "large",
            "inputs": [{"name": signature.input_name, "datatype": datatype, "shape": shape}],
            "outputs": [{"name": signature.output_name, "datatype": "FP32", "shape": [-1, -1]}],
        }
        self._turn = threading.Lock()
        self.lie = ""
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def attack(self, ports: list[int], over: threading.Event) -> int:
        """Lie in turns; to whoever asks, wherever that comes from."""
        for number in count():
            if over.wait(0.5):
                break
            self.lie = self.LIES[number % len(self.LIES)]
        self.lie = ""
        return number

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                connection, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                headers = {}
                while (header := reader.readline().strip()) != b"":
                    name, _, value = header.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                body = reader.read(int(headers.get("content-length", 0)))
                path = line.split()[1].decode()
                if not path.endswith("/infer"):
                    self._send(connection, json.dumps(self._says(path)).encode())
                else:
                    head = int(headers["inference-header-content-length"])
                    self._answer(connection, json.loads(body[:head]), body[head:])

    def _says(self, path: str) -> object:
        if path.endswith("/config"):
            return {"parameters": {"model_sha256": {"string_value": self._sha256}}}
        return self._told

    def _answer(self, connection: socket.socket, asked: dict, raw: bytes) -> None:
        batch = self._np.frombuffer(raw, self._dtype).reshape(asked["inputs"][0]["shape"])
        with self._turn:
            values = self._np.ascontiguousarray(self._engine.infer(batch), "float32")
        lie = self.lie
        if lie == "hang up":
            raise OSError
        if lie in ("headers", "body", "drip"):
            self._drown(connection, lie)
        if lie == "nan":
            values[:] = float("nan")
        output = {
            "name": self._told["outputs"][0]["name"],
            "datatype": "FP32" if lie != "odd" else "BYTES",
            "shape": list(values.shape),
            "parameters": {"binary_data_size": values.nbytes},
        }
        said = {"outputs": [output], "parameters": {"model_sha256": self._sha256}}
        head = json.dumps(said).encode()
        length = f"Inference-Header-Content-Length: {len(head)}\r\n"
        self._send(connection, head + values.tobytes(), length)

    def _drown(self, connection: socket.socket, lie: str) -> None:
        start = b"HTTP/1.1 200 OK\r\n"
        end_s = time.monotonic() + 2
        connection.sendall(
            start if lie != "body" else start + b"Content-Length: 999999999999\r\n\r\n"
        )
        while time.monotonic() < end_s:
            connection.sendall(b"X: " + b"a" * (1 if lie == "drip" else 60_000) + b"\r\n")
            if lie == "drip":
                time.sleep(0.1)
        raise OSError

    def _send(self, connection: socket.socket, body: bytes, more: str = "") -> None:
        head = f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)


# Programs


def nothing() -> None:
    """Take connections, answer what looks like a request with a line, hold the others."""
    door = socket.create_server((HERE, 0), backlog=512)
    say(door.getsockname()[1])
    chosen = selectors.DefaultSelector()
    for one in (door, sys.stdin):
        chosen.register(one, selectors.EVENT_READ)
    held: dict[socket.socket, None] = {}

    def end(one: socket.socket) -> None:
        held.pop(one, None)
        chosen.unregister(one)
        one.close()

    while True:
        for key, _ in chosen.select():
            one = key.fileobj
            if one is sys.stdin:
                return
            if one is door:
                came, _ = door.accept()
                came.setblocking(False)
                chosen.register(came, selectors.EVENT_READ)
                held[came] = None
                if len(held) > 256:
                    end(next(iter(held)))
            elif isinstance(one, socket.socket) and one in held:
                try:
                    got = one.recv(1 << 16)
                    if b"\r\n\r\n" in got and not got.startswith(b"PRI"):
                        one.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
                        got = b""
                except OSError:
                    got = b""
                if not got:
                    end(one)


def say(what: object) -> None:
    print(what, flush=True)


def obey(attack: Attack, ready: object = "ready") -> None:
    """Attack as standard input says."""
    over, working, knocks = threading.Event(), None, [0]
    say(ready)
    for line in sys.stdin:
        ports = json.loads(line)
        if working is not None:
            over.set()
            working.join()
            say(knocks[0])
        over, working = threading.Event(), None
        if ports:

            def work(ports: list[int] = ports, over: threading.Event = over) -> None:
                knocks[0] = attack(ports, over)

            working = threading.Thread(target=work)
            working.start()
    over.set()


def main() -> None:
    name, bundle = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
    if name == "nothing":
        nothing()
    elif name == "liar":
        liar = Liar(bundle)
        obey(liar.attack, liar.port)
    else:
        obey(STRANGERS[name] if name in STRANGERS else device(bundle, name))


if __name__ == "__main__":
    main()
