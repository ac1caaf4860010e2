"""Who is let in to a host, and how many at once: before a request's message is even read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from types import MappingProxyType
from typing import Any

from tinysaver_edge._support.limits import MOST_HALF_SENT, REQUEST_S, WRONG_TOKEN_S
from tinysaver_edge._support.wrong_tokens import TokenSeen, WrongTokens
from tinysaver_edge.engines.remote.security import TRITON_PREFIX
from tinysaver_edge.errors import InputError
from tinysaver_edge.host.limits import Listening, same_token

WHY = MappingProxyType(
    {
        TokenSeen.WRONG: "the token is not accepted",
        TokenSeen.UNSEEN: "too many wrong tokens: try again later",
    }
)
"""What is said to who is not let in."""


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
            self._half_sent: dict[asyncio.Task[Any], None] = {}

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
                shown = await refusal(given, peer.rpartition(":")[0], peer, listening, tries)
                if shown is not None:
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

        async def _message(self, messages: AsyncIterator[Any], context: Any) -> Any:  # noqa: ANN401
            """Wait for a call's one message; where too many wait, the oldest is given up."""
            if len(self._half_sent) >= MOST_HALF_SENT:
                next(iter(self._half_sent)).cancel()
            waiting = asyncio.ensure_future(anext(messages))
            self._half_sent[waiting] = None
            try:
                done, _ = await asyncio.wait({waiting}, timeout=REQUEST_S)
            finally:
                self._half_sent.pop(waiting, None)
            if not done or waiting.cancelled():
                waiting.cancel()
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "the request has not come in time"
                )
            try:
                return waiting.result()
            except StopAsyncIteration:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is empty")

    return Guard()


def _given(metadata: Any, listening: Listening) -> str | None:  # noqa: ANN401 - grpc's
    if listening.token is None:
        return None
    name = listening.token.header.lower()
    sent = dict(metadata)
    found = sent.get(name) or sent.get(TRITON_PREFIX + name)
    return found if isinstance(found, str) else None
