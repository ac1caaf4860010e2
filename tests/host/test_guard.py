"""A real `serve` under clients that send half, too much, nothing, or the wrong token."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.remote.device_bundle import device_bundle
from tests.remote.hosts import remote
from tests.remote.kserve import Served, needs_kserve
from tests.small_bundle import small_bundle
from tinysaver_edge._support.limits import MOST_HALF_SENT, MOST_ROWS, MOST_SPELT_BYTES
from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.remote import Token
from tinysaver_edge.host.listening import address_of

pytestmark = needs_kserve

TOKEN = "s3cretToken99"
FRAME = np.zeros((1, 3, 16, 16), np.float32)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A host with a token, and its bundle."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN)
    bundle = small_bundle(folder / "bundle")
    host = Served(folder, bundle, "--token-file", str(folder / "token")).start()
    host.token = Token(file=folder / "token")
    yield host
    host.stop()


@contextmanager
def served(folder: Path, bundle: Path, *options: str):
    host = Served(folder, bundle, *options).start()
    try:
        yield host
    finally:
        host.stop()


def half_open(stack: ExitStack, port: int, token: str | None) -> socket.socket:
    """Begin a gRPC call and never end its message."""

    def frame(kind, flags, stream, body):
        length = struct.pack(">I", len(body))[1:]
        return length + bytes([kind, flags]) + struct.pack(">I", stream) + body

    def literal(name, value):
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"),
            (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
            (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
    if token is not None:
        head.append((b"authorization", f"Bearer {token}".encode()))
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    one.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, b"".join(literal(*pair) for pair in head))
        + frame(0, 0, 1, b"\0" + struct.pack(">I", 1000) + b"x")
    )
    return one


def health(host: Served) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", host.http_port, timeout=5)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("token", [None, TOKEN], ids=["strangers", "devices gone wrong"])
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_half_sent_requests_hold_no_place(guarded, scheme, token) -> None:
    large = remote(guarded.url(scheme=scheme), token=guarded.token, timeout_s=2.0)
    with Cascade.load(guarded.bundle, large=large) as cascade, ExitStack() as stack:
        for _ in range(MOST_HALF_SENT + 16):
            half_open(stack, guarded.grpc_port, token)
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", guarded.http_port)))
        engine = cascade.stages[-1].engine
        for _ in range(5):
            assert len(engine.infer(FRAME)) == 1
        assert health(guarded) == 200
    time.sleep(0.3)
    assert health(guarded) == 200
    assert "Traceback" not in (guarded.folder / "serve.log").read_text()  # they have hung up


def test_calls_that_are_refused_take_their_time_and_a_device_does_not_wait(guarded) -> None:
    grpc = pytest.importorskip("grpc")
    method = "/inference.GRPCInferenceService/ModelInfer"
    refused, over = [], threading.Event()
    large = remote(guarded.url(), token=guarded.token, timeout_s=2.0)
    with (
        grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel,
        Cascade.load(guarded.bundle, large=large) as cascade,
    ):
        call = channel.unary_unary(method)

        def flood():
            while not over.is_set():
                with pytest.raises(grpc.RpcError) as error:
                    call(b"", timeout=5)
                refused.append(error.value.code().name)

        flooding = [threading.Thread(target=flood) for _ in range(8)]
        for one in flooding:
            one.start()
        began_s = time.monotonic()
        for _ in range(5):
            assert len(cascade.stages[-1].engine.infer(FRAME)) == 1
        time.sleep(max(0.0, began_s + 1.5 - time.monotonic()))
        took_s = time.monotonic() - began_s
        over.set()
        for one in flooding:
            one.join()
    assert set(refused) == {"UNAUTHENTICATED"}
    assert len(refused) <= 8 * (took_s / 0.5 + 1)


@pytest.mark.parametrize(
    ("peer", "address"),
    [("ipv4:10.0.0.7:5000", "10.0.0.7"), ("ipv6:%5B::1%5D:5000", "::1"),
     ("ipv6:[2001:db8::7]:5000", "2001:db8::7"), ("unix:", "unix:")],
)  # fmt: skip
def test_where_a_call_comes_from_is_told_as_over_http(peer, address) -> None:
    assert address_of(peer) == address


def test_tokens_are_not_to_be_found_by_trying(guarded) -> None:
    grpc = pytest.importorskip("grpc")
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    codes = []
    end_s = time.monotonic() + 2.0

    def guess(number):
        channel = grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}")
        with channel:
            ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
            while time.monotonic() < end_s:
                header = (("authorization", f"Bearer guess{number}"),)
                with pytest.raises(grpc.RpcError) as refused:
                    ask(service_pb2.ServerLiveRequest(), metadata=header, timeout=5)
                codes.append(refused.value.code().name)

    guessing = [threading.Thread(target=guess, args=(one,)) for one in range(4)]
    for one in guessing:
        one.start()
    large = remote(guarded.url(), token=guarded.token, timeout_s=2.0)
    with Cascade.load(guarded.bundle, large=large) as cascade:
        assert len(cascade.stages[-1].engine.infer(FRAME)) == 1
    for one in guessing:
        one.join()
    assert set(codes) == {"UNAUTHENTICATED"}
    assert len(codes) / 2 < 20
    # The whole of it: gRPC's own lines may follow.
    assert "wrong token" in (guarded.folder / "serve.log").read_text()


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/metrics", "/v2/models/large", "/v2/models/large/ready"]
)
def test_nothing_but_health_is_told_without_the_token(guarded, path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", guarded.http_port, timeout=5)
    connection.request("GET", path)
    assert connection.getresponse().status == 401
    connection.close()


def test_pages_of_other_sites_ask_nothing(tmp_path) -> None:
    with served(tmp_path, small_bundle(tmp_path / "bundle")) as host:
        for name, status in (("attacker.example", 421), ("localhost", 200), ("edge-7", 200)):
            connection = http.client.HTTPConnection("127.0.0.1", host.http_port, timeout=5)
            connection.request("GET", "/v2/models/large", headers={"Host": name})
            assert connection.getresponse().status == status
            connection.close()


def test_a_token_file_that_grows_is_not_read_whole(guarded) -> None:
    """It is read anew with each request, where the host answers everybody."""
    before_mb = memory_mb(guarded)
    try:
        with guarded.token.file.open("r+b") as file:
            file.truncate(500 << 20)
        connection = http.client.HTTPConnection("127.0.0.1", guarded.http_port, timeout=5)
        connection.request("GET", "/v2/models/large", headers={"authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 401
        connection.close()
    finally:
        guarded.token.file.write_text(TOKEN)
    assert memory_mb(guarded) - before_mb < 50
    with Cascade.load(guarded.bundle, large=remote(guarded.url(), token=guarded.token)):
        pass


def post(host: Served, length: int) -> int:
    """Announce so many bytes of JSON; what is refused at once is never sent."""
    connection = http.client.HTTPConnection("127.0.0.1", host.http_port, timeout=5)
    connection.putrequest("POST", "/v2/models/large/infer")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def memory_mb(host: Served) -> float:
    assert host.process is not None
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_one_request_takes_no_more_than_its_share(tmp_path) -> None:
    """Bombs are not decoded, and a request of many frames is answered piece by piece."""
    grpc = pytest.importorskip("grpc")
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    bundle = device_bundle(tmp_path / "bundle")
    with served(tmp_path, bundle, "--jpeg") as host:
        channel = grpc.insecure_channel(f"127.0.0.1:{host.grpc_port}")
        ask = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        inputs = ask.ModelMetadata(service_pb2.ModelMetadataRequest(name="large")).inputs
        with Bundle.load(bundle) as opened:
            form = bundled_artefacts(opened)[-1].preprocess.shape(1)

        def infer(*files):
            request = service_pb2.ModelInferRequest(model_name="large")
            request.inputs.add(name=inputs[0].name, datatype="BYTES", shape=[len(files)])
            raw = b"".join(struct.pack("<I", len(one)) + one for one in files)
            request.raw_input_contents.append(raw)
            try:
                return list(ask.ModelInfer(request, timeout=20).outputs[0].shape)
            except grpc.RpcError as error:
                return error.code().name

        good = cv2.imencode(".jpg", np.zeros(form[1:], np.uint8))[1].tobytes()
        bomb = bytearray(good)
        place = bomb.find(b"\xff\xc0") + 5
        bomb[place : place + 4] = b"\xff\xdc\xff\xdc"
        assert infer(good)[0] == 1
        before_mb = memory_mb(host)
        assert infer(bytes(bomb)) == "INVALID_ARGUMENT"
        assert infer(good, bytes(bomb), good) == "INVALID_ARGUMENT"
        assert infer(*[good] * 100)[0] == 100
        assert infer(*[good] * (MOST_ROWS + 1)) == "INVALID_ARGUMENT"
        assert infer(*[b""] * (1 << 22)) == "INVALID_ARGUMENT"
        spelt = service_pb2.ModelInferRequest(model_name="large")
        given = spelt.inputs.add(name=inputs[0].name, datatype="BYTES", shape=[1])
        given.contents.bytes_contents.append(bytes(MOST_SPELT_BYTES + 1))
        with pytest.raises(grpc.RpcError, match="send raw bytes"):
            ask.ModelInfer(spelt, timeout=20)
        assert post(host, MOST_SPELT_BYTES + 1) == 413
        assert memory_mb(host) - before_mb < 200
        channel.close()
