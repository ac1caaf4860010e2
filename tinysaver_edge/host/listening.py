"""Where a host listens, who may ask it, and how much."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from tinysaver_edge._support.doors import TokenSeen, WrongTokens
from tinysaver_edge._support.limits import (
    MOST_HALF_SENT,
    MOST_TURNED_AWAY,
    REQUEST_S,
    WRONG_TOKEN_S,
)
from tinysaver_edge._support.urls import redacted
from tinysaver_edge.engines.remote.model import TRITON_PREFIX, Address, Scheme, Token
from tinysaver_edge.errors import InputError

MOST_REQUEST_MB = 2047
"""gRPC knows no higher limit."""

_GOLDEN = 0.618034
"""Its multiples, taken modulo one, are nowhere near each other."""

LONGEST_DRAIN_S = 3600.0
"""An hour: whoever stops a host wants it to stop."""

WHY = MappingProxyType(
    {
        TokenSeen.WRONG: "the token is not accepted",
        TokenSeen.UNSEEN: "too many wrong tokens: try again later",
    }
)
"""What is said to who is not let in."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a host listens, who may ask it, and how much.

    Attributes:
        host: name or address to listen on.
        grpc_port: port for gRPC.
        http_port: port for HTTP, health and metrics; None for none.
        certificate: PEM file with the host's certificate (chain); None for plain text.
        key: PEM file with its private key.
        client_ca: PEM file of authorities; only clients with a certificate of theirs are let in.
        token: clients must send it; None lets in whoever can connect.
        insecure: allow plain text on an address that others can reach.
        max_requests: requests taken in at once; beyond it they are refused.
        max_request_bytes: longer requests are refused.
        drain_s: how long requests under way may take once the host is told to stop.

    Raises:
        InputError: options that belong together are not, or plain text would leave this machine.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token: Token | None = None
    insecure: bool = False
    max_requests: int = 16
    max_request_bytes: int = 32 << 20
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both")
        if self.client_ca is not None and self.certificate is None:
            raise InputError("--client-ca needs TLS: give --tls-cert and --tls-key as well")
        if self.certificate is None and not (self.is_loopback or self.insecure):
            raise InputError(
                f"--bind {self.host}: others can reach it, and nothing is encrypted; give "
                "--tls-cert and --tls-key, listen on 127.0.0.1, or allow it with --insecure"
            )
        if self.http_port == self.grpc_port:
            raise InputError(f"gRPC and HTTP cannot both listen on port {self.grpc_port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return Address(Scheme.GRPC, self.host, self.grpc_port, "model").is_loopback

    @property
    def authority(self) -> str:
        """``host:port`` for gRPC."""
        return Address(Scheme.GRPC, self.host, self.grpc_port, "model").authority

    def expected(self) -> str | None:
        """Return the header's value that clients must send, or None.

        Raises:
            InputError: the token cannot be read.
        """
        if self.token is None:
            return None
        return self.token.headers(grpc=False)[self.token.header.lower()]


def parse_bind(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, an IPv6 address in brackets.

    Raises:
        InputError: it is something else.
    """
    try:
        address = Address.parse(f"grpc://{text}/model")
    except InputError:
        raise InputError(
            f"--bind {redacted(text)!r}: expected HOST:PORT, as 127.0.0.1:8001"
        ) from None
    return address.host, address.port


def same_token(given: str | None, expected: str | None) -> bool:
    """Compare in constant time; without an expected token anything will do."""
    if expected is None:
        return True
    return given is not None and hmac.compare_digest(given.encode(), expected.encode())


async def refusal(
    given: str | None,
    address: str,
    connection: Hashable,
    listening: Listening,
    tries: WrongTokens,
) -> TokenSeen | None:
    """Return why a token is refused, after a while where it is wrong; None where it is right."""
    if listening.token is None:
        return None
    if not given:  # nobody guesses so
        return TokenSeen.WRONG
    shown = tries.show(address, connection, is_right=lambda: _allowed(given, listening))
    if shown is TokenSeen.WRONG:
        try:
            await asyncio.sleep(WRONG_TOKEN_S)
        finally:
            tries.waited(address)
    return None if shown is TokenSeen.RIGHT else shown


def _allowed(given: str, listening: Listening) -> bool:
    try:
        return same_token(given, listening.expected())
    except InputError:  # the token's file is being renewed
        return False


def grpc_guard(listening: Listening, tries: WrongTokens) -> Any:  # noqa: ANN401 - grpc's
    """Return the interceptor that stands before all others.

    To gRPC a request is a call from its first byte on, and who never sends the rest would hold a
    place for ever. So calls are taken as streams of one message: the token is looked at before
    the message is waited for, the message has `limits.REQUEST_S` to come, and only what has come
    counts as a request.
    """
    import grpc

    class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        def __init__(self) -> None:
            self._busy = 0
            self._half_sent: dict[asyncio.Future[Any], None] = {}
            self._turned_away = 0
            self._numbers = count()

        async def intercept_service(
            self,
            continuation: Callable[[Any], Awaitable[Any]],
            details: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            handler = await continuation(details)
            if handler is None or handler.unary_unary is None:  # no such method
                return handler
            given = _given(details.invocation_metadata, listening)
            infers = str(details.method).endswith("/ModelInfer")

            async def answer(messages: AsyncIterator[Any], context: Any) -> Any:  # noqa: ANN401
                peer = str(context.peer())
                shown = await refusal(given, address_of(peer), peer, listening, tries)
                if shown is not None:
                    await self._turn_away(shown, waited=bool(given))
                    code = grpc.StatusCode.UNAUTHENTICATED
                    if shown is TokenSeen.UNSEEN:
                        code = grpc.StatusCode.RESOURCE_EXHAUSTED
                    await context.abort(code, WHY[shown])
                message = await self._message(messages, context)
                if infers and self._busy >= listening.max_requests:
                    await context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        f"at most {listening.max_requests} requests at once",
                    )
                self._busy += infers
                try:
                    return await handler.unary_unary(message, context)
                finally:
                    self._busy -= infers

            return grpc.stream_unary_rpc_method_handler(
                answer,
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )

        async def _turn_away(self, shown: TokenSeen, *, waited: bool) -> None:
            """Have a refusal take as long as a wrong token: calls are cheap to make, not to take.

            Each connection has so many calls at once, and so comes no faster. They wait for times
            that differ, or all would be answered at once, and what a device asks after them.
            """
            if (shown is TokenSeen.WRONG and waited) or self._turned_away >= MOST_TURNED_AWAY:
                return
            self._turned_away += 1
            try:
                await asyncio.sleep(WRONG_TOKEN_S * (1 + next(self._numbers) * _GOLDEN % 1))
            finally:
                self._turned_away -= 1

        async def _message(self, messages: AsyncIterator[Any], context: Any) -> Any:  # noqa: ANN401
            """Wait for a call's one message; where too many wait, the oldest is given up."""
            if len(self._half_sent) >= MOST_HALF_SENT:
                next(iter(self._half_sent)).cancel()
            waiting = asyncio.ensure_future(anext(messages))
            # Where the call itself ends, nobody waits for it any more.
            waiting.add_done_callback(lambda one: one.cancelled() or one.exception())
            self._half_sent[waiting] = None
            try:
                done, _ = await asyncio.wait({waiting}, timeout=REQUEST_S)
            finally:
                self._half_sent.pop(waiting, None)
                waiting.cancel()
            if not done or waiting.cancelled():
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "the request has not come in time"
                )
            try:
                return waiting.result()
            except StopAsyncIteration:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is empty")

    return Guard()


def address_of(peer: str) -> str:
    """Return the address of what gRPC calls a peer, as ``ipv4:10.0.0.7:5000``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]") or peer


def _given(metadata: Any, listening: Listening) -> str | None:  # noqa: ANN401 - grpc's
    if listening.token is None:
        return None
    name = listening.token.header.lower()
    sent = dict(metadata)
    found = sent.get(name) or sent.get(TRITON_PREFIX + name)
    return found if isinstance(found, str) else None
