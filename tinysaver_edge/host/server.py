"""Serves a bundle's large model with KServe's Python server, behind our own door."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import signal
import socket
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

from tinysaver_edge._support.doors import (
    Doorkeeper,
    RequestHead,
    Said,
    TokenSeen,
    WrongTokens,
    short_turns,
)
from tinysaver_edge._support.limits import (
    ACCEPTED_AT_ONCE,
    HEADER_BYTES,
    MOST_HALF_SENT,
    MOST_SERVE_CONNECTIONS,
    MOST_SPELT_BYTES,
    QUEUED,
    REQUEST_S,
)
from tinysaver_edge._support.packages import frozen_heap
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import is_own_name
from tinysaver_edge.errors import EngineError
from tinysaver_edge.host.kserve_model import (
    JSON_LENGTH,
    Answerer,
    data_plane,
    import_kserve,
    kserve_model,
    number_in,
)
from tinysaver_edge.host.listening import WHY, Listening, grpc_guard, refusal
from tinysaver_edge.host.served import Served

Scope: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]

BYTES = b"application/octet-stream"

OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What HTTP clients may ask without a token."""

TOO_LONG = f"at most {MOST_SPELT_BYTES} bytes of numbers that are spelt out: send raw bytes"


def serve(
    served: Served,
    listening: Listening,
    *,
    told: Callable[[str], None],
    at_once: int | None = None,
) -> None:
    """Serve a model until SIGTERM or SIGINT; then end what is under way, and return.

    KServe's own start listens on every interface; its parts are put together here instead, so that
    gRPC and HTTP listen where they should, with TLS, a token and limits.

    Args:
        served: the model.
        listening: where, for whom and how much.
        told: takes a line when the host is ready, and one when it stops.
        at_once: frames that are run at once at most; None measures what is quickest.

    Raises:
        MissingDependencyError: kserve is not installed.
        EngineError: the address cannot be listened on.
        InputError: a certificate or the token cannot be read.
    """
    import_kserve()
    listening.expected()
    answerer = Answerer(served, at_once=at_once)
    try:
        with short_turns():
            asyncio.run(_serve(answerer, listening, told))
    finally:
        answerer.close()


async def _serve(answerer: Answerer, listening: Listening, told: Callable[[str], None]) -> None:
    from kserve.model_repository import ModelRepository
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

    _quieten()
    model = kserve_model(answerer)
    repository = ModelRepository()
    repository.update(model)
    plane = data_plane(import_kserve())(model_registry=repository)
    extension = ModelRepositoryExtension(model_registry=repository)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tries = WrongTokens(
        lambda count, address: told(f"{count} wrong tokens, the last from {address}")
    )
    grpc_server = _grpc_server(plane, extension, listening, tries)
    http = _http_server(
        plane, extension, answerer.served.name, listening, tries, ready=lambda: bool(model.ready)
    )
    place = listening.host, listening.http_port
    http_sockets = [] if http is None else doors(*place, what="HTTP")
    await grpc_server.start()
    http_task = None if http is None else asyncio.create_task(http.serve(http_sockets))
    scheme = "grpcs" if listening.certificate is not None else "grpc"
    limit = answerer.at_once
    how = f"in batches of up to {limit}" if limit > 1 else "one frame at a time"
    told(f"serving {scheme}://{listening.authority}/{answerer.served.name}, {how}")
    with frozen_heap():
        await stopping.wait()
    told(f"stopping: requests under way have {listening.drain_s:g} s")
    model.ready = False
    if http is not None:
        http.should_exit = True
    await grpc_server.stop(grace=listening.drain_s)
    if http_task is not None:
        with suppress(asyncio.CancelledError):
            await http_task


def _quieten() -> None:
    """Have what clients do wrong told in a line of the log, not in a traceback each."""

    def in_a_line(record: logging.LogRecord) -> bool:
        if record.exc_info and (error := record.exc_info[1]) is not None:
            what = brief(f"{record.getMessage()} {error}")
            record.msg, record.args, record.exc_info, record.exc_text = what, (), None, None
        return True

    for name in ("kserve", "uvicorn.error", "grpc._cython.cygrpc"):
        logging.getLogger(name).addFilter(in_a_line)
    warnings.filterwarnings("ignore", module="fastapi")


# gRPC


def _grpc_server(
    plane: Any,  # noqa: ANN401
    extension: Any,  # noqa: ANN401
    listening: Listening,
    tries: WrongTokens,
) -> Any:  # noqa: ANN401
    import grpc
    from grpc_interceptor.exceptions import InvalidArgument, NotFound, Unimplemented
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol
    from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
    from kserve.protocol.grpc.servicer import InferenceServicer

    def check_version(version: str) -> None:
        if version not in ("", "1"):
            raise NotFound("there is version 1 alone")

    class Servicer(InferenceServicer):  # type: ignore[misc]
        """The protocol without its extension: nobody loads or unloads models from afar."""

        async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
            check_version(request.model_version)
            spelt = request.ByteSize() - sum(map(len, request.raw_input_contents))
            if spelt > MOST_SPELT_BYTES:
                raise InvalidArgument(TOO_LONG)
            return await super().ModelInfer(request, context)

        async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
            check_version(request.version)
            return await super().ModelReady(request, context)

        async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
            check_version(request.version)
            return await super().ModelMetadata(request, context)

        async def RepositoryModelLoad(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
            raise Unimplemented("models are not loaded from afar")

        async def RepositoryModelUnload(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
            raise Unimplemented("models are not unloaded from afar")

    server = grpc.aio.server(
        ThreadPoolExecutor(1),
        interceptors=(grpc_guard(listening, tries), ExceptionToStatusInterceptor()),
        options=[
            ("grpc.max_receive_message_length", listening.max_request_bytes),
            ("grpc.so_reuseport", 0),
            # Who connects and says nothing is let go, and who has asked nothing for minutes.
            ("grpc.server_handshake_timeout_ms", round(1e3 * REQUEST_S)),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.max_concurrent_streams", MOST_HALF_SENT),
            ("grpc.max_metadata_size", HEADER_BYTES),
            # Devices ping while they wait, to find out about frozen hosts.
            ("grpc.http2.min_ping_interval_without_data_ms", 500),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    protocol.add_GRPCInferenceServiceServicer_to_server(Servicer(plane, extension), server)
    for door in doors(listening.host, listening.grpc_port, what="gRPC"):  # its own line is two
        door.close()
    try:
        if listening.certificate is None:
            server.add_insecure_port(listening.authority)
        else:
            server.add_secure_port(listening.authority, _grpc_credentials(listening))
    except RuntimeError as error:
        raise EngineError(f"cannot listen on {listening.authority}: {error}") from None
    return server


def _grpc_credentials(listening: Listening) -> Any:  # noqa: ANN401
    import grpc

    from tinysaver_edge.engines.remote.model import Tls

    ca, key, certificate = Tls(listening.client_ca, listening.certificate, listening.key).read()
    return grpc.ssl_server_credentials([(key, certificate)], ca, ca is not None)


# HTTP


def _http_server(
    plane: Any,  # noqa: ANN401
    extension: Any,  # noqa: ANN401
    name: str,
    listening: Listening,
    tries: WrongTokens,
    *,
    ready: Callable[[], bool],
) -> Any:  # noqa: ANN401
    """Return KServe's HTTP server, its address and its door our own; None where none is wanted."""
    if listening.http_port is None:
        return None
    import ssl

    import uvicorn
    from kserve.protocol.rest.server import RESTServer

    rest = RESTServer("kserve.model_server:app", plane, extension, listening.http_port)
    rest.create_application()
    from kserve.model_server import app

    class Server(uvicorn.Server):  # type: ignore[misc]
        def install_signal_handlers(self) -> None:
            """Nothing: signals are ours."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            for one in sockets or ():  # more than are taken in one go
                one.listen(QUEUED)

        def capture_signals(self) -> Any:  # noqa: ANN401
            from contextlib import nullcontext

            return nullcontext()

    return Server(
        uvicorn.Config(
            guarded(app, name, listening, tries),
            host=listening.host,
            port=listening.http_port,
            log_config=None,
            proxy_headers=False,  # anybody may write down another address there
            server_header=False,
            backlog=ACCEPTED_AT_ONCE // 4,  # between them the loop answers devices
            http=Doorkeeper(
                MOST_SERVE_CONNECTIONS,
                at_once=at_once(listening, tries, ready),
                trusts=None if listening.token is None else tries.trusts,
            ).protocol(_http_protocol()),
            timeout_graceful_shutdown=max(1, round(listening.drain_s)),
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
            ssl_ca_certs=None if listening.client_ca is None else str(listening.client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if listening.client_ca is None else ssl.CERT_REQUIRED,
        )
    )


def doors(host: str, port: int | None, *, what: str) -> list[socket.socket]:
    """Listen on every address of the host's name.

    The servers themselves would end the process where they cannot, or tell of it at length.

    Raises:
        EngineError: one is taken, or none can be had.
    """
    taken: list[socket.socket] = []
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, place in dict.fromkeys((family, place) for family, *_, place in found):
            try:
                door = socket.create_server(place, family=family)
                # Answers go out as they are written; whoever connects inherits it.
                door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                taken.append(door)
            except OSError as error:  # a name may have addresses of a kind that is not there
                failure = error
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        if not taken:
            raise failure or OSError("it has no address")
    except OSError as error:
        for door in taken:
            door.close()
        reason = str(error.strerror or error).partition(" (while")[0]
        raise EngineError(f"cannot listen for {what} on {host}, port {port}: {reason}") from None
    return taken


def guarded(app: App, name: str, listening: Listening, tries: WrongTokens | None = None) -> App:
    """Let through only what the protocol's core needs, with the token and of bearable length."""
    model = {f"/v2/models/{name}{version}" for version in ("", "/versions/1")}
    paths = OPEN_PATHS | {f"{path}{end}" for path in model for end in ("", "/ready", "/infer")}
    paths |= {"/", "/v2", "/metrics"}
    header = b"" if listening.token is None else listening.token.header.lower().encode()
    tries = tries or WrongTokens()
    busy = 0

    async def door(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401
        nonlocal busy
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = number_in(headers.get(b"content-length", b"0").decode("latin-1"))
        client = scope.get("client") or ("", 0)
        infers = scope["path"].endswith("/infer")
        if scope["path"] not in paths:
            await _refuse(send, 404, "no such path")
        elif listening.token is None and not _named_rightly(headers, listening):
            await _refuse(send, 421, "this name is not this machine's: give serve a token")
        elif scope["path"] not in OPEN_PATHS and (
            refused := await refusal(
                headers.get(header, b"").decode("latin-1"),
                client[0],
                tuple(client),
                listening,
                tries,
            )
        ):
            await _refuse(send, 401 if refused is TokenSeen.WRONG else 429, WHY[refused])
        elif b"transfer-encoding" in headers or length is None:
            await _refuse(send, 411, "send the length of the request")
        elif length > listening.max_request_bytes:
            await _refuse(send, 413, f"at most {listening.max_request_bytes} bytes")
        elif infers and _spelt_bytes(headers, length) > MOST_SPELT_BYTES:
            await _refuse(send, 413, TOO_LONG)
        elif infers and busy >= listening.max_requests:
            await _refuse(send, 503, f"at most {listening.max_requests} requests at once")
        elif infers:
            busy += 1
            try:
                await app(_as_bytes(scope, headers), receive, send)
            finally:
                busy -= 1
        else:
            await app(scope, receive, send)

    return door


def _as_bytes(scope: Scope, headers: dict[bytes, bytes]) -> Scope:
    """Return a request as one of bytes, whatever its client calls it, and of no other headers."""
    kept = [(name.encode(), headers.get(name.encode())) for name in ("content-length", JSON_LENGTH)]
    given = [(name, value) for name, value in kept if value is not None]
    path = scope["path"].replace("/versions/1/", "/")
    return {**scope, "path": path, "headers": [(b"content-type", BYTES), *given]}


def at_once(
    listening: Listening, tries: WrongTokens, ready: Callable[[], bool]
) -> Callable[[RequestHead], Said | None]:
    """Return what answers health, and who is not let in, before a request gets any further."""
    header = None if listening.token is None else listening.token.header.lower()

    def said(status: int, what: dict[str, object]) -> Said:
        return Said(status, "application/json", json.dumps(what).encode())

    def answer(head: RequestHead) -> Said | None:
        if header is None and not is_own_name(head.headers.get("host", ""), listening.host):
            return None
        if head.path == "/v2/health/live" and head.method == "GET":
            return said(200, {"live": True})
        if head.path == "/v2/health/ready" and head.method == "GET":
            return said(200 if ready() else 503, {"ready": ready()})
        if header is None or head.path in OPEN_PATHS:
            return None
        if not head.headers.get(header):
            return said(401, {"error": WHY[TokenSeen.WRONG]})
        if tries.passed_over(head.client[0], head.client):
            return said(429, {"error": WHY[TokenSeen.UNSEEN]})
        return None

    return answer


def _spelt_bytes(headers: dict[bytes, bytes], length: int) -> int:
    """Return how much of a request is JSON."""
    told = number_in(headers.get(JSON_LENGTH.encode(), b"").decode("latin-1"))
    return length if told is None else min(told, length)


def _named_rightly(headers: dict[bytes, bytes], listening: Listening) -> bool:
    return is_own_name(headers.get(b"host", b"").decode("latin-1"), listening.host)


def _http_protocol() -> type:
    """Return uvicorn's quickest class of HTTP/1.1 that is here."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
    found: type = Protocol
    return found


async def _refuse(send: Any, status: int, why: str) -> None:  # noqa: ANN401
    body = f'{{"error": "{why}"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
