"""A stream and a host under attack: idle clients, floods, liars and bombs, all from this machine.

    python benchmarks/bench_attack.py [--seconds 300] [--host-seconds 300] [--bundle demo-bundle]

`tinysaver-edge run` decides the simulated camera, its page and metrics open and its large model
behind a host of our own; where KServe is at hand (.venv-kserve), `tinysaver-edge serve` answers a
device. Each attack takes so many seconds. Meanwhile a supervisor asks for health and, with the
token, for the figures. What has to hold: the stream goes on, the 99th percentile of its answers
within twice that of a quiet time, memory and descriptors bounded, nobody with a token turned
away. Attackers come from 127.0.0.2, reach 127.0.0.1 only, and are few and slowed down.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "correct-horse-battery"
MEMORY_MB = 250
"""What an attack may add to the memory of the stream, or of `serve`."""

DESCRIPTORS = 300
"""What it may add to their descriptors: four times the connections that stay, for a moment."""

HOST_MS = 250.0
"""A device's 99th percentile at a host whose one model another device keeps at work: a quarter of
its deadline."""

ATTACKER = "127.0.0.2"
PROGRAM = "from tinysaver_edge.cli import main; main()"


@dataclass(slots=True)
class Phase:
    """What happened while an attack lasted.

    Attributes:
        attack: its name.
        answers: decisions of the stream, or answers of the host to the device.
        seconds: it took.
        p99_ms: of them.
        grown_mb: memory at its most, beyond the beginning.
        descriptors: at their most, beyond the beginning.
        asked: questions with a right to an answer.
        refused: those that had none.
    """

    attack: str
    answers: int = 0
    seconds: float = 0.0
    p99_ms: float = 0.0
    grown_mb: float = 0.0
    descriptors: int = 0
    asked: int = 0
    refused: list[str] = field(default_factory=list)


Attack = Callable[[threading.Event], None]


# Attackers


def sit(ports: list[int], says: bytes, *, most: int = 150) -> Attack:
    """Hold connections, send a byte now and then, and come back when they are cut off."""

    def attack(over: threading.Event) -> None:
        held: list[socket.socket] = []
        while not over.wait(0.02):
            if len(held) >= most:
                held.pop(0).close()
            with suppress(OSError):
                port = ports[len(held) % len(ports)]
                held.append(socket.create_connection(("127.0.0.1", port), 1, (ATTACKER, 0)))
                held[-1].sendall(says)
            for one in held[:: max(1, len(held) // 10)]:
                with suppress(OSError):
                    one.sendall(says[-1:])
        for one in held:
            one.close()

    return attack


def guess(places: list[tuple[int, str]], *, threads: int = 4) -> Attack:
    """Ask with wrong tokens, as fast as they are answered."""

    def attempt(over: threading.Event, number: int) -> None:
        while not over.wait(0.005):
            for port, path in places:
                with suppress(OSError, http.client.HTTPException):
                    ask(port, path, f"guess-{number}", source=ATTACKER)

    return together(attempt, threads)


def drown(ports: list[int], *, threads: int = 2) -> Attack:
    """Send requests whose headers have no end."""

    def attempt(over: threading.Event, number: int) -> None:
        while not over.wait(0.05):
            with suppress(OSError):
                place = ("127.0.0.1", ports[number % len(ports)])
                with socket.create_connection(place, 1, (ATTACKER, 0)) as one:
                    one.sendall(b"GET / HTTP/1.1\r\n")
                    for _ in range(200):
                        one.sendall(b"X-A: " + b"a" * 4000 + b"\r\n")

    return together(attempt, threads)


def together(attempt: Callable[[threading.Event, int], None], threads: int) -> Attack:
    def attack(over: threading.Event) -> None:
        working = [threading.Thread(target=attempt, args=(over, one)) for one in range(threads)]
        for one in working:
            one.start()
        for one in working:
            one.join()

    return attack


def ask(port: int, path: str, token: str | None = None, *, source: str = "127.0.0.1") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, 3, source_address=(source, 0))
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


# The large model's host, which may lie


class Liar:
    """Serves a bundle's large model over HTTP; `lie` says how its answers are."""

    LIES = ("nan", "odd", "headers", "body", "drip", "hang up")

    def __init__(self, bundle: Path) -> None:
        from tinysaver_edge.artefact import bundled_artefacts
        from tinysaver_edge.bundle.bundle import Bundle
        from tinysaver_edge.engines.remote.facts import DATATYPES
        from tinysaver_edge.output_format import OutputFormat

        self._opened = Bundle.load(bundle)
        made = bundled_artefacts(self._opened)[-1]
        self._engine = replace(made, output=OutputFormat()).open()
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
        self._over = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def attack(self, over: threading.Event) -> None:
        """Lie in turns."""
        number = 0
        while not over.wait(0.5):
            self.lie = self.LIES[number % len(self.LIES)]
            number += 1
        self.lie = ""

    def close(self) -> None:
        """Listen no more."""
        self._over.set()
        self._door.close()
        self._engine.close()
        self._opened.close()

    def _accept(self) -> None:
        while not self._over.is_set():
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
        batch = np.frombuffer(raw, self._dtype).reshape(asked["inputs"][0]["shape"])
        with self._turn:
            values = np.ascontiguousarray(self._engine.infer(batch), np.float32)
        lie = self.lie
        if lie == "hang up":
            raise OSError
        if lie in ("headers", "body", "drip"):
            self._drown(connection, lie)
        if lie == "nan":
            values[:] = np.nan
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


# What is attacked


class Watched:
    """A process whose memory and descriptors are looked at ten times a second."""

    def __init__(self, command: list[str], python: Path, folder: Path, **more: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYSAVER_TOKEN": TOKEN, **more}
        self._log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [str(python), "-c", PROGRAM, *command],
            stdout=self._log, stderr=self._log, env=environment,
        )  # fmt: skip
        self.log = folder / "log"

    def memory_mb(self) -> float:
        """What it holds of the machine's memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self) -> int:
        """How many files and connections it holds."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def stop(self) -> None:
        """Have it stop."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._log.close()


def until(ready: Callable[[], bool], watched: Watched) -> None:
    due_s = time.monotonic() + 60
    while time.monotonic() < due_s and watched.process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            if ready():
                return
        time.sleep(0.1)
    raise SystemExit(f"it does not start:\n{watched.log.read_text()[-2000:]}")


def phase(
    name: str, attack: Attack, watched: Watched, questions: Callable[[Phase], None], seconds: float
) -> Phase:
    """Let an attack run, and ask questions meanwhile."""
    found = Phase(name)
    over = threading.Event()
    memory_mb, descriptors = watched.memory_mb(), watched.descriptors()
    attacking = threading.Thread(target=attack, args=(over,))
    attacking.start()
    began_s = time.monotonic()
    while time.monotonic() - began_s < seconds:
        questions(found)
        found.grown_mb = max(found.grown_mb, watched.memory_mb() - memory_mb)
        found.descriptors = max(found.descriptors, watched.descriptors() - descriptors)
        time.sleep(0.05)
    found.seconds = time.monotonic() - began_s
    over.set()
    attacking.join(30)
    return found


def quiet(over: threading.Event) -> None:
    over.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def lines_of(path: Path) -> Iterator[Callable[[], list[dict]]]:
    """Give the lines that have been added to a file since it was asked last."""
    with path.open() as file:

        def fresh() -> list[dict]:
            return [json.loads(line) for line in file if line.endswith("\n")]

        yield fresh


def attack_stream(bundle: Path, seconds: float) -> list[Phase]:
    """Attack a stream, its doors and its large model's host."""
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        liar = Liar(bundle)
        stack.callback(liar.close)
        page, metrics = free_port(), free_port()
        command = ["run", str(bundle), "--source", "demo://?fps=20", "--quiet",
                   "--jsonl", str(folder / "out"), "--dashboard", f"127.0.0.1:{page}",
                   "--metrics", f"127.0.0.1:{metrics}",
                   "--large", f"http://127.0.0.1:{liar.port}/large"]  # fmt: skip
        watched = Watched(command, Path(sys.executable), folder)
        stack.callback(watched.stop)
        until(lambda: ask(page, "/readyz") == ask(metrics, "/readyz") == 200, watched)
        guarded = [(page, "/state.json"), (metrics, "/metrics")]

        def questions(one: Phase) -> None:
            for port, path, token in (
                (page, "/healthz", None),
                (metrics, "/healthz", None),
                *((port, path, TOKEN) for port, path in guarded),
            ):
                one.asked += 1
                try:
                    status = ask(port, path, token)
                except (OSError, http.client.HTTPException) as error:
                    status = type(error).__name__
                if status != 200:
                    one.refused.append(f"{path} {status}")

        fresh = stack.enter_context(lines_of(folder / "out"))
        doors = [page, metrics]
        attacks = {
            "none": quiet,
            "silent clients": sit(doors, b""),
            "dripping clients": sit(doors, b"GET /healthz HTTP/1.1\r\nX: a"),
            "wrong tokens": guess(guarded),
            "headers without end": drown(doors),
            "a large model's host that lies": liar.attack,
        }
        time.sleep(min(3.0, seconds))  # what is loaded once is loaded
        for name, attack in attacks.items():
            fresh()
            one = phase(name, attack, watched, questions, seconds)
            times = [line["timings_ms"]["total"] for line in fresh() if not line["revision"]]
            one.answers, one.p99_ms = len(times), float(np.percentile(times or [1e9], 99))
            found.append(one)
    return found


def attack_host(bundle: Path, seconds: float, python: Path) -> list[Phase]:
    """Attack a host that a device asks."""
    from tinysaver_edge.engines.remote import RemoteModel, Token
    from tinysaver_edge.engines.remote.endpoint import open_transport
    from tinysaver_edge.engines.remote.facts import Contract
    from tinysaver_edge.engines.remote.model import Address

    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "token").write_text(TOKEN)
        grpc, web = free_port(), free_port()
        command = ["serve", str(bundle), "--bind", f"127.0.0.1:{grpc}", "--http-port", str(web),
                   "--name", "large", "--jpeg", "--token-file", str(folder / "token")]  # fmt: skip
        watched = Watched(command, python, folder)
        stack.callback(watched.stop)
        until(lambda: ask(web, "/v2/health/live") == 200, watched)
        address = Address.parse(f"grpc://127.0.0.1:{grpc}/large")
        model = RemoteModel((address,), token=Token(file=folder / "token"))
        transport = open_transport(address, model)
        stack.callback(transport.close)
        facts = transport.describe(timeout_s=10)
        given = facts.inputs[0]
        one_each = (1,) * (len(given.shape) - 1)
        contract = Contract(given.name, one_each, facts.outputs[0].name, None, None)
        picture, bomb = pictures(bundle)

        def tensor(files: list[bytes]) -> np.ndarray:
            made = np.empty(len(files), object)
            made[:] = files
            return made.reshape(len(files), *one_each)

        def infer(files: list[bytes], timeout_s: float) -> None:
            transport.infer(tensor(files), contract, datatype=given.datatype, timeout_s=timeout_s)

        times: list[float] = []

        def questions(one: Phase) -> None:
            one.asked += 2
            began_s = time.monotonic()
            try:
                infer([picture], 2.0)
                times.append(1e3 * (time.monotonic() - began_s))
            except Exception as error:
                one.refused.append(str(error)[:80])
            with suppress(OSError, http.client.HTTPException):
                if ask(web, "/v2/health/live") == 200:
                    return
            one.refused.append("health")

        def wide(over: threading.Event, number: int) -> None:
            while not over.wait(0.1):
                with suppress(Exception):
                    infer([picture] * 400, 10.0)

        def bombs(over: threading.Event, number: int) -> None:
            while not over.wait(0.02):
                with suppress(Exception):
                    infer([picture, bomb], 10.0)

        attacks = {
            "none": quiet,
            "silent HTTP clients": sit([web], b""),
            "silent and half-open gRPC": half_open(grpc),
            "wrong tokens": guess([(web, "/v2/models/large")]),
            "headers without end": drown([web]),
            "a device that sends bombs": together(bombs, 2),
            "a device that sends 400 frames at once": together(wide, 1),
        }
        for name, attack in attacks.items():
            times.clear()
            one = phase(f"serve: {name}", attack, watched, questions, seconds)
            one.answers, one.p99_ms = len(times), float(np.percentile(times or [1e9], 99))
            found.append(one)
    return found


def pictures(bundle: Path) -> tuple[bytes, bytes]:
    """A picture as the host takes them, and one that says to have four thousand million pixels."""
    import cv2

    from tinysaver_edge.artefact import bundled_artefacts
    from tinysaver_edge.bundle.bundle import Bundle

    with Bundle.load(bundle) as opened:
        form = bundled_artefacts(opened)[-1].preprocess.shape(1)[1:]
    good = cv2.imencode(".jpg", np.zeros(form, np.uint8))[1].tobytes()
    place = good.find(b"\xff\xc0") + 5
    return good, good[:place] + b"\xff\xdc\xff\xdc" + good[place + 4 :]


def half_open(port: int, *, most: int = 100) -> Attack:
    """Begin gRPC calls without a token, and never end them."""

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        length = struct.pack(">I", len(body))[1:]
        return length + bytes([kind, flags]) + struct.pack(">I", stream) + body

    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"),
             (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
             (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
    head = b"".join(b"\0" + bytes([len(a)]) + a + bytes([len(b)]) + b for a, b in pairs)
    begun = frame(4, 0, 0, b"") + frame(1, 4, 1, head) + frame(0, 0, 1, b"\0\0\0\x03\xe8x")
    return sit([port], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + begun, most=most)


def missed(phases: list[Phase], *, factor: float = 2.0, least_ms: float = 10.0) -> list[str]:
    """What did not hold, against the first phase, in which nobody attacks.

    Args:
        phases: of one process.
        factor: by which the 99th percentile may grow.
        least_ms: below which it counts as this: the attackers' own share of the processor.
    """
    calm = phases[0]
    found = []
    for one in phases[1:]:
        least = 0.5 * calm.answers / calm.seconds
        if one.answers / one.seconds < least:
            found.append(f"{one.attack}: {one.answers} answers in {one.seconds:.0f} s")
        if one.p99_ms > factor * max(calm.p99_ms, least_ms):
            found.append(f"{one.attack}: p99 {one.p99_ms:.1f} ms, calm {calm.p99_ms:.1f} ms")
        if one.grown_mb > MEMORY_MB or one.descriptors > DESCRIPTORS:
            found.append(f"{one.attack}: +{one.grown_mb:.0f} MB, +{one.descriptors} descriptors")
        if len(one.refused) > 0.01 * one.asked:
            found.append(
                f"{one.attack}: {len(one.refused)} of {one.asked} refused {one.refused[:3]}"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--host-seconds", type=float, help="of each attack on a host of serve")
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo-bundle")
    chosen = parser.parse_args()
    from imagenet import save, table

    home = Path(os.environ.get("TINYSAVER_KSERVE_VENV", ROOT / ".venv-kserve")) / "bin/python"
    on_host_s = chosen.host_seconds or chosen.seconds
    groups = [attack_stream(chosen.bundle, chosen.seconds)]
    if home.exists():
        groups.append(attack_host(chosen.bundle, on_host_s, home))
    rows = [
        (one.attack, f"{one.answers / one.seconds:.1f}", f"{one.p99_ms:.1f}",
         f"{one.grown_mb:+.0f}", f"{one.descriptors:+d}", f"{len(one.refused)} of {one.asked}")
        for group in groups for one in group
    ]  # fmt: skip
    wrong = missed(groups[0]) + [
        line for group in groups[1:] for line in missed(group, least_ms=HOST_MS / 2)
    ]
    head = ["attack", "answers a second", "p99 ms", "MB", "descriptors", "turned away"]
    text = table(head, rows) + "\n\n" + ("\n".join(wrong) or "All of it holds.")
    also = "" if on_host_s == chosen.seconds else f", {on_host_s:.0f} s each on a host"
    title = f"Under attack, {chosen.seconds:.0f} s each{also}"
    phases = [asdict(one) for group in groups for one in group]
    save("bench_attack", title=title, text=text, figures={"phases": phases, "missed": wrong})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
