"""HTTP against hosts that answer oddly, without end, or hardly: one clear failure, and in time."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from tinysaver_edge._support import limits
from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.engines.remote.facts import Contract, Kind, RequestError
from tinysaver_edge.engines.remote.http import HttpTransport
from tinysaver_edge.engines.remote.model import Address

CONTRACT = Contract("frames", (2,), "logits", None, None)
TENSOR = np.arange(6, dtype=np.uint8).reshape(3, 2)
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
RAW = VALUES.tobytes()
PATIENCE_S = 0.5


@contextmanager
def host(how):
    """Listen; `how(connection, head, body)` answers each request. Yields the transport to it."""
    over = threading.Event()
    asked = []

    def serve(connection):
        with suppress(OSError), connection, connection.makefile("rb") as reader:
            while not over.is_set() and (head := _head(reader)) is not None:
                asked.append(head)
                how(connection, head, reader.read(int(head.get("content-length", 0))))

    def accept():
        while not over.is_set():
            with suppress(OSError):
                connection, _ = door.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0.1)
        listening = threading.Thread(target=accept)
        listening.start()
        address = Address.parse(f"http://127.0.0.1:{door.getsockname()[1]}/m")
        transport = HttpTransport(address, RemoteModel((address,)))
        transport.asked = asked
        try:
            yield transport
        finally:
            over.set()
            transport.close()
            listening.join()


def _head(reader):
    first = reader.readline().decode()
    if not first:
        return None
    found = {"": first.strip()}
    while (line := reader.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        found[name.lower()] = value.strip()
    return found


def send(connection, body=b"", *, status=200, more=""):
    head = f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def answer(connection, change=lambda said: said, raw=RAW):
    """Answer as the protocol has it, but for what is changed in the JSON."""
    output = {
        "name": "logits",
        "datatype": "FP32",
        "shape": [3, 4],
        "parameters": {"binary_data_size": VALUES.nbytes},
    }
    head = json.dumps(change({"model_name": "m", "model_version": "7", "outputs": [output]}))
    more = f"Inference-Header-Content-Length: {len(head)}\r\n"
    send(connection, head.encode() + raw, more=more)


def infer(transport, *, timeout_s=10.0):
    return transport.infer(TENSOR, CONTRACT, datatype="UINT8", timeout_s=timeout_s)


def test_a_batch_goes_out_and_its_answer_comes_back() -> None:
    bodies = []

    def how(connection, head, body):
        bodies.append((int(head["inference-header-content-length"]), body))
        answer(connection)

    with host(how) as transport:
        for _ in range(3):
            reply = infer(transport)
    np.testing.assert_array_equal(reply.values, VALUES)
    assert (reply.version, reply.sha256) == ("7", None)
    length, body = bodies[-1]
    assert json.loads(body[:length])["inputs"][0]["shape"] == [3, 2]
    assert body[length:] == TENSOR.tobytes()


def test_jpeg_files_go_out_with_their_lengths() -> None:
    bodies = []
    files = np.empty(2, object)
    files[:] = [b"one", b"three"]

    def how(connection, head, body):
        bodies.append(body)
        answer(connection)

    with host(how) as transport:
        transport.infer(files, CONTRACT, datatype="BYTES", timeout_s=PATIENCE_S)
    assert bodies[0].endswith(b"\x03\0\0\0one\x05\0\0\0three")


def changed(**values):
    return lambda said: {**said, **values}


def changed_output(**values):
    return lambda said: {**said, "outputs": [{**said["outputs"][0], **values}]}


ODD = {
    "no object": lambda said: [said],
    "no outputs": lambda said: {"model_name": "m"},
    "outputs are text": changed(outputs="logits"),
    "outputs are numbers": changed(outputs=[1, 2]),
    "outputs are nothing": changed(outputs=None),
    "another output": changed_output(name="other"),
    "name is a list": changed_output(name=["logits"]),
    "type BYTES": changed_output(datatype="BYTES"),
    "type is nothing": changed_output(datatype=None),
    "type is a list": changed_output(datatype=[]),
    "shape is text": changed_output(shape="3,4"),
    "shape is negative": changed_output(shape=[-3, -4]),
    "shape is huge": changed_output(shape=[1 << 62, 1 << 62]),
    "shape is infinite": changed_output(shape=[float("inf"), 4]),
    "shape is nothing": changed_output(shape=None),
    "size is too large": changed_output(parameters={"binary_data_size": 1 << 40}),
    "size is negative": changed_output(parameters={"binary_data_size": -48}),
    "size is text": changed_output(parameters={"binary_data_size": "48"}),
    "parameters are text": changed_output(parameters="48"),
    "data is words": changed_output(parameters={}, data=["a"] * 12),
    "data is too short": changed_output(parameters={}, data=[1.0]),
    "data is missing": changed_output(parameters=None),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_is_one_failure(change) -> None:
    with host(lambda connection, head, body: answer(connection, change)) as transport:
        with pytest.raises(RequestError) as caught:
            infer(transport)
        assert caught.value.kind is Kind.WRONG
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("parameters", [[1], "x", 7, None, {}, {"model_sha256": ["ab"]}])
def test_parameters_that_tell_no_hash_are_none(parameters) -> None:
    with host(lambda c, head, body: answer(c, changed(parameters=parameters))) as transport:
        reply = infer(transport)
    assert reply.sha256 in (None, "['ab']")
    np.testing.assert_array_equal(reply.values, VALUES)


def test_values_within_the_json_are_read_too() -> None:
    change = changed_output(parameters=None, data=VALUES.ravel().tolist())
    with host(lambda c, head, body: answer(c, change, raw=b"")) as transport:
        np.testing.assert_array_equal(infer(transport).values, VALUES)


def endlessly(piece, start=b""):
    def how(connection, head, body):
        connection.sendall(start)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            connection.sendall(piece)

    return how


def slowly(text):
    def how(connection, head, body):
        for sign in text:
            connection.sendall(bytes([sign]))
            time.sleep(0.05)

    return how


OK = b"HTTP/1.1 200 OK\r\n"
LONG = b"Content-Length: 1099511627776\r\n\r\n"
DROWNING = {
    "headers without end": endlessly(b"X-A: " + b"a" * 60_000 + b"\r\n", OK),
    "one header without end": endlessly(b"a" * 60_000, OK + b"X-A: "),
    "a status without end": endlessly(b"a" * 60_000, b"HTTP/1.1 200 "),
    "100 Continue for ever": endlessly(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body that is too long": endlessly(bytes(1 << 20), OK + LONG),
    "a body without a length": endlessly(bytes(1 << 20), OK + b"\r\n"),
    "pieces without end": endlessly(
        b"100000\r\n" + bytes(1 << 20) + b"\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"
    ),
    "trailers without end": endlessly(b"X: y\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"),
    "a byte now and then": slowly(OK + b"X-A: " + b"a" * 1000),
    "a body, hardly": slowly(OK + b"Content-Length: 100\r\n\r\n" + b"a" * 100),
    "nothing": lambda connection, head, body: time.sleep(2),
    "packed": lambda connection, head, body: send(
        connection, gzip.compress(bytes(1 << 26)), more="Content-Encoding: gzip\r\n"
    ),
    "many headers": lambda connection, head, body: send(connection, more="X: y\r\n" * 5000),
    "another protocol": lambda connection, head, body: connection.sendall(b"\0\0\x12\x04" * 64),
    "JSON within JSON": lambda connection, head, body: send(connection, b"[" * 1_000_000),
    "a negative length": lambda connection, head, body: connection.sendall(
        OK + b"Content-Length: -5\r\n\r\n"
    ),
    "a cut body": lambda connection, head, body: (
        connection.sendall(OK + b"Content-Length: 500\r\n\r\n{}"),
        connection.shutdown(socket.SHUT_RDWR),
    ),
    "a length of the JSON that is none": lambda connection, head, body: send(
        connection, b"{}", more="Inference-Header-Content-Length: 99\r\n"
    ),
}


@pytest.mark.parametrize("how", DROWNING.values(), ids=DROWNING.keys())
def test_the_deadline_and_the_memory_are_kept_whatever_it_sends(how) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with host(how) as transport:
        started_s = time.monotonic()
        with pytest.raises(RequestError):
            infer(transport, timeout_s=PATIENCE_S)
        assert time.monotonic() - started_s < 1.7  # left alone, they take 2 s and more
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < 3 * limits.MOST_ANSWER_BYTES / (1 << 20)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Kind.DENIED), (404, Kind.DRAINING), (429, Kind.BUSY), (500, Kind.REJECTED),
     (503, Kind.UNREACHABLE), (504, Kind.TIMEOUT), (302, Kind.REJECTED)],
)  # fmt: skip
@pytest.mark.parametrize("body", [b'{"error": "why \\u001b[2J it is"}', b"why \x1b[2J it is", b""])
def test_what_it_refuses_with_is_told(status, kind, body) -> None:
    more = "Location: http://192.0.2.1/\r\n"
    with host(lambda c, head, _: send(c, body, status=status, more=more)) as transport:
        with pytest.raises(RequestError, match=f"^{status}: ") as caught:
            infer(transport)
        assert len(transport.asked) == 1
    assert caught.value.kind is kind
    assert str(caught.value).isprintable()


def test_a_kept_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    def how(connection, head, body):
        answer(connection)
        connection.shutdown(socket.SHUT_RDWR)  # without a word: a device could not know

    with host(how) as transport:
        for _ in range(4):
            np.testing.assert_array_equal(infer(transport).values, VALUES)
            time.sleep(0.02)


def test_an_answer_that_nobody_asked_for_is_no_answer_to_the_next() -> None:
    stale = VALUES + 100
    turn = []

    def how(connection, head, body):
        turn.append(1)
        answer(connection)
        if len(turn) == 1:
            answer(connection, raw=stale.tobytes())

    with host(how) as transport:
        infer(transport)
        time.sleep(0.1)
        np.testing.assert_array_equal(infer(transport).values, VALUES)


@pytest.mark.parametrize(
    ("status", "more", "kind", "why"),
    [
        (400, "", Kind.UNREACHABLE, "says that it is not live (400)"),
        (503, "", Kind.UNREACHABLE, "says that it is not live (503)"),
        (401, "", Kind.DENIED, "wants a token (401)"),
        (403, "", Kind.DENIED, "forbids this (403)"),
        (404, "", Kind.UNREACHABLE, "knows no /v2/health/live (404)"),
        (500, "", Kind.UNREACHABLE, "fails itself (500 Internal Server Error)"),
        (502, "", Kind.UNREACHABLE, "fails itself (502 Bad Gateway)"),
        (
            307,
            "Location: https://ann:secret-word@other.example/login?token=secret-word\r\n",
            Kind.WRONG,
            "redirects to https://other.example/login (307)",
        ),
        (418, "", Kind.REJECTED, "answers 418"),
    ],
)
def test_whoever_does_not_say_that_it_is_live_is_told_with_its_cause(
    status, more, kind, why
) -> None:
    def how(connection, head, body):
        send(connection, b"<html>Sign in</html>", status=status, more=more)

    with host(how) as transport, pytest.raises(RequestError) as caught:
        transport.describe(timeout_s=2)
    assert caught.value.kind is kind
    assert why in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_a_redirect_of_a_request_is_one_too() -> None:
    def how(connection, head, body):
        send(connection, b"", status=301, more="Location: /elsewhere\r\n")

    with host(how) as transport, pytest.raises(RequestError, match=r"redirects to /elsewhere"):
        infer(transport)
