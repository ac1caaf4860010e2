"""Serves a bundle's large model with KServe's Python server, behind our own door."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

from tinysaver_edge.engines.remote.security import TRITON_PREFIX
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.host.kserve_model import Answerer, import_kserve, kserve_model
from tinysaver_edge.host.limits import Listening, same_token
from tinysaver_edge.host.raw_requests import raw_data_plane
from tinysaver_edge.host.served import Served

Scope: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"})
"""What HTTP clients may ask without a token."""


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
    plane = raw_data_plane(import_kserve())(model_registry=repository)
    extension = ModelRepositoryExtension(model_registry=repository)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    grpc_server = _grpc_server(plane, extension, listening)
    http = _http_server(plane, extension, answerer.served.name, listening)
    http_sockets = [] if http is None else http_doors(listening)
    await grpc_server.start()
    http_task = None if http is None else asyncio.create_task(http.serve(http_sockets))
    scheme = "grpcs" if listening.certificate is not None else "grpc"
    limit = answerer.at_once
    how = f"in batches of up to {limit}" if limit > 1 else "one frame at a time"
    told(f"serving {scheme}://{listening.authority}/{answerer.served.name}, {how}")
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
            what = " ".join(f"{record.getMessage()} {error}".split())
            record.msg, record.args, record.exc_info, record.exc_text = what, (), None, None
        return True

    logging.getLogger("kserve").addFilter(in_a_line)
    warnings.filterwarnings("ignore", module="fastapi")


# gRPC


def _grpc_server(plane: Any, extension: Any, listening: Listening) -> Any:  # noqa: ANN401
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol
    from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
    from kserve.protocol.grpc.servicer import InferenceServicer

    class Servicer(InferenceServicer):  # type: ignore[misc]
        """The protocol without its extension: nobody loads or unloads models from afar."""

        async def RepositoryModelLoad(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not loaded from afar")

        async def RepositoryModelUnload(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not unloaded from afar")

    server = grpc.aio.server(
        ThreadPoolExecutor(1),
        interceptors=(*_grpc_guard(listening), ExceptionToStatusInterceptor()),
        maximum_concurrent_rpcs=listening.max_requests,
        options=[
            ("grpc.max_receive_message_length", listening.max_request_bytes),
            ("grpc.so_reuseport", 0),
            # Devices ping while they wait, to find out about frozen hosts.
            ("grpc.http2.min_ping_interval_without_data_ms", 500),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    protocol.add_GRPCInferenceServiceServicer_to_server(Servicer(plane, extension), server)
    try:
        if listening.certificate is None:
            server.add_insecure_port(listening.authority)
        else:
            server.add_secure_port(listening.authority, _grpc_credentials(listening))
    except RuntimeError as error:
        raise EngineError(f"cannot listen on {listening.authority}: {error}") from None
    return server


def _grpc_guard(listening: Listening) -> list[Any]:
    """Return the interceptor that asks for the token, where there is one."""
    if listening.token is None:
        return []
    import grpc

    name = listening.token.header.lower()

    class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(
            self,
            continuation: Callable[[Any], Awaitable[Any]],
            details: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            sent = dict(details.invocation_metadata)
            if _allowed(sent.get(name) or sent.get(TRITON_PREFIX + name), listening):
                return await continuation(details)
            handler = await continuation(details)
            if handler is None:  # no such method
                return None

            async def refuse(request: Any, context: Any) -> None:  # noqa: ANN401
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not accepted")

            return grpc.unary_unary_rpc_method_handler(
                refuse,
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )

    return [Guard()]


def _allowed(given: str | None, listening: Listening) -> bool:
    try:
        return same_token(given, listening.expected())
    except InputError:  # the token's file is being renewed
        return False


def _grpc_credentials(listening: Listening) -> Any:  # noqa: ANN401
    import grpc

    from tinysaver_edge.engines.remote.security import Tls

    ca, key, certificate = Tls(listening.client_ca, listening.certificate, listening.key).read()
    return grpc.ssl_server_credentials([(key, certificate)], ca, ca is not None)


# HTTP


def _http_server(plane: Any, extension: Any, name: str, listening: Listening) -> Any:  # noqa: ANN401
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

        def capture_signals(self) -> Any:  # noqa: ANN401
            from contextlib import nullcontext

            return nullcontext()

    return Server(
        uvicorn.Config(
            guarded(app, name, listening),
            host=listening.host,
            port=listening.http_port,
            log_config=None,
            limit_concurrency=listening.max_requests + 1,
            timeout_graceful_shutdown=max(1, round(listening.drain_s)),
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
            ssl_ca_certs=None if listening.client_ca is None else str(listening.client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if listening.client_ca is None else ssl.CERT_REQUIRED,
        )
    )


def http_doors(listening: Listening) -> list[socket.socket]:
    """Listen for HTTP on every address of the host's name.

    The server itself would end the process where it cannot.

    Raises:
        EngineError: one is taken, or none can be had.
    """
    where = f"{listening.host}, port {listening.http_port}"
    doors: list[socket.socket] = []
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(listening.host, listening.http_port, type=socket.SOCK_STREAM)
        for family, place in dict.fromkeys((family, place) for family, *_, place in found):
            try:
                door = socket.create_server(place, family=family)
                # Answers go out as they are written; whoever connects inherits it.
                door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                doors.append(door)
            except OSError as error:  # a name may have addresses of a kind that is not there
                failure = error
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        if not doors:
            raise failure or OSError("it has no address")
    except OSError as error:
        for door in doors:
            door.close()
        reason = error.strerror or error
        raise EngineError(f"cannot listen for HTTP on {where}: {reason}") from None
    return doors


def guarded(app: App, name: str, listening: Listening) -> App:
    """Let through only what the protocol's core needs, with the token and of bearable length."""
    model = {f"/v2/models/{name}{version}" for version in ("", "/versions/1")}
    paths = OPEN_PATHS | {f"{path}{end}" for path in model for end in ("", "/ready", "/infer")}
    header = b"" if listening.token is None else listening.token.header.lower().encode()

    async def door(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if scope["path"] not in paths:
            await _refuse(send, 404, "no such path")
        elif scope["path"] not in OPEN_PATHS and not _allowed(
            headers.get(header, b"").decode("latin-1"), listening
        ):
            await _refuse(send, 401, "the token is not accepted")
        elif b"transfer-encoding" in headers or not length.isdigit():
            await _refuse(send, 411, "send the length of the request")
        elif int(length) > listening.max_request_bytes:
            await _refuse(send, 413, f"at most {listening.max_request_bytes} bytes")
        else:
            await app(scope, receive, send)

    return door


async def _refuse(send: Any, status: int, why: str) -> None:  # noqa: ANN401
    body = f'{{"error": "{why}"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
