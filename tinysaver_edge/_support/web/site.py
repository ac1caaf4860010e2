"""A small web site about a program's own work: who may see it, and a thread that serves it."""

from __future__ import annotations

import asyncio
import hmac
import importlib.util
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tinysaver_edge._support.doors import Doorkeeper, RequestHead, Said, TokenSeen, WrongTokens
from tinysaver_edge._support.limits import (
    ACCEPTED_AT_ONCE,
    DOOR_SHARE,
    MOST_CONNECTIONS,
    PAGE_THREADS,
    QUEUED,
    WRONG_TOKEN_S,
)
from tinysaver_edge._support.urls import ListenAddress, url_of
from tinysaver_edge.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from typing_extensions import Self

COOKIE = "tinysaver_edge"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


START_S = 10.0
STOP_S = 3.0

HERE = Path(__file__).parent

KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

SHARED = {f"/{name}": HERE / name for name in ("base.css", "drawing.js", "icon.svg")}
"""What every site serves."""

OPEN = frozenset({"/login", "/base.css", "/icon.svg"})
"""What needs no token on any site."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",  # pictures are for pages of this site alone
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # without any, browsers would not tell a form's origin
    "cache-control": "no-store",
}

LARGEST_FORM = 4096

NOT_ITS_NAME = "this name is not the {}'s\n"
NO_TOKEN = "give the token as Authorization: Bearer TOKEN\n"
CROWDED = "Too many wrong tokens: try again later.\n"
WRONG = "That is not the token."
CHALLENGE = {"www-authenticate": "Bearer"}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Access:
    """The rule for one site.

    Attributes:
        address: where it listens.
        what: what it is, for messages: "dashboard".
        token: what must be known; None where only this machine can reach it.
        secret: of this process; what a browser keeps is of no use to find out the token.

    Raises:
        InputError: others can reach it and there is no token, or it is too short.
    """

    address: ListenAddress
    what: str
    token: str | None = field(default=None, repr=False)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not self.address.is_loopback:
            raise InputError(
                f"{self.address}: others can reach this address, so the {self.what} needs a token: "
                f"set TINYSAVER_TOKEN, or listen on 127.0.0.1:{self.address.port}"
            )
        self.address.check_token(self.token)

    @property
    def cookie(self) -> str:
        """What a browser keeps once it has shown the token, which it does not reveal."""
        return hmac.new(self.secret, f"{self.token}".encode(), "sha256").hexdigest()

    def knows(self, given: str) -> bool:
        """Whether this is the token."""
        return self.token is None or _same(given, self.token)

    def admits(self, cookies: Mapping[str, str]) -> bool:
        """Whether a request may be answered without a token."""
        return self.token is None or _same(cookies.get(COOKIE, ""), self.cookie)

    def addressed_rightly(self, host: str) -> bool:
        """Whether the Host header names this machine.

        A page of another site can have its own name point here and read what is answered; without
        a token, only loopback's own names are answered.
        """
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return self.token is not None or name in (*LOOPBACK_NAMES, self.address.host)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _cookies(head: RequestHead) -> dict[str, str]:
    pairs = (one.partition("=") for one in head.headers.get("cookie", "").split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def from_itself(headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something was sent by the site's own pages, or by no browser.

    A page of another site can have a browser send forms here, with whatever the browser keeps for
    this site; it cannot hide that it did.

    Args:
        headers: of the request, names in lower case.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


class Site(ABC):
    """A site; a context manager. A subclass says what it is and what is on it.

    Args:
        address: where to listen.
        token: what a browser must know; needed where others can reach the address.
        tries: judges tokens; one for all doors of a program.

    Attributes:
        what: what it is, in a word for messages.
        token_from: where whoever is asked for the token finds it, a sentence.
        files: what is served as it is, by its path; "/" is the page itself.
        unguarded: what needs no token besides the looks.
        url: where it listens, once it has been entered.

    Raises:
        InputError: others can reach the address and there is no token, or it is too short.
        MissingDependencyError: Starlette or uvicorn is not installed.
    """

    what: ClassVar[str]
    token_from: ClassVar[str]
    files: ClassVar[Mapping[str, Path]]
    unguarded: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self, address: ListenAddress, *, token: str | None = None, tries: WrongTokens | None = None
    ) -> None:
        self._access = self.check(address, token)
        self._tries = tries or WrongTokens()
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self.url = ""

    @classmethod
    def check(cls, address: ListenAddress, token: str | None) -> Access:
        """Return the rule for who may see such a site, before there is anything to see.

        Raises:
            InputError: others can reach the address and there is no token, or it is too short.
            MissingDependencyError: Starlette or uvicorn is not installed.
        """
        for package in ("starlette", "uvicorn"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependencyError(package, extra="dashboard", purpose=f"The {cls.what}")
        return Access(address, cls.what, token)

    @abstractmethod
    def _routes(self) -> Sequence[Route]:
        """Return what is on the site besides its files."""

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            InputError: the port cannot be had.
        """
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        listening = self._access.address.bind()
        self.url = url_of(listening)
        settings = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            log_level="critical",
            lifespan="off",
            ws="none",
            loop="asyncio",
            http=Doorkeeper(MOST_CONNECTIONS, at_once=self._at_once, share=DOOR_SHARE).protocol(
                H11Protocol
            ),
            server_header=False,
            proxy_headers=False,  # anybody may write down another address there
            backlog=ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name=self.what, daemon=True
        )
        self._thread.start()
        deadline_s = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive():
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.01)
        if not self._server.started:
            listening.close()
            raise InputError(f"{self._access.address}: the {self.what}'s server does not start")
        listening.listen(
            QUEUED
        )  # more than are taken in one go, or clients would wait for a second
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening. Legal in every state."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.should_exit = True
            self._thread.join(STOP_S)

    def _app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        files = {**SHARED, **self.files}
        routes = [Route(path, partial(_file, place)) for path, place in files.items()]
        routes += [
            Route("/login", self._ask, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            *self._routes(),
        ]
        app = Starlette(routes=routes)
        app.add_middleware(_Guard, site=self)
        return app

    def _quick(self, path: str) -> Said | None:
        """Return the answer to what everybody may ask, often; None where there is none."""
        return None

    def _at_once(self, head: RequestHead) -> Said | None:
        """Answer what needs no page: before Starlette is asked, which takes ten times as long."""
        if not self._access.addressed_rightly(head.headers.get("host", "")):
            return self._said(421, NOT_ITS_NAME.format(self.what))
        if head.method not in ("GET", "HEAD"):
            return None
        if (said := self._quick(head.path)) is not None:
            return said
        if head.path in OPEN | self.unguarded or self._access.admits(_cookies(head)):
            return None
        scheme, _, given = head.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            if self._tries.passed_over(head.client[0], head.client):
                return self._said(429, CROWDED)
            return None
        return None if head.path == "/" else self._said(401, NO_TOKEN, CHALLENGE)

    @staticmethod
    def _said(status: int, text: str, headers: Mapping[str, str] = NO_HEADERS) -> Said:
        return Said(status, "text/plain; charset=utf-8", text.encode(), {**HEADERS, **headers})

    async def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let in; None where it is."""
        from starlette.responses import PlainTextResponse

        if not self._access.addressed_rightly(request.headers.get("host", "")):
            return PlainTextResponse(NOT_ITS_NAME.format(self.what), 421)
        if request.method not in ("GET", "HEAD") and not from_itself(request.headers):
            return PlainTextResponse("this was sent by a page of another site\n", 403)
        free = request.url.path in OPEN | self.unguarded
        if free or self._access.admits(request.cookies):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown = await self._shown_token(request, given)
            if shown is TokenSeen.RIGHT:
                return None
            if shown is TokenSeen.UNSEEN:
                return PlainTextResponse(CROWDED, 429)
        if request.url.path == "/":
            return self._login_page(status=401)
        return PlainTextResponse(NO_TOKEN, 401, CHALLENGE)

    async def _shown_token(self, request: Request, given: str) -> TokenSeen:
        """Judge a token; for a wrong one that takes a while."""
        client = request.client or ("", 0)
        shown = self._tries.show(
            client[0], tuple(client), is_right=lambda: self._access.knows(given)
        )
        if shown is TokenSeen.WRONG:
            try:
                await asyncio.sleep(WRONG_TOKEN_S)
            finally:
                self._tries.waited(client[0])
        return shown

    def _login_page(self, *, status: int = 200, wrong: str = "") -> Response:
        """Return the page that asks for the token.

        Args:
            status: of the answer; 401 where it stands for what was refused.
            wrong: what was wrong with the token that was given.
        """
        from starlette.responses import HTMLResponse

        note = f'<p class="bad" role="alert">{escape(wrong)}</p>' if wrong else ""
        note = note or f'<p class="soft">{escape(self.token_from)}</p>'
        template = Template((HERE / "login.html").read_text(encoding="utf-8"))
        page = template.substitute(what=escape(self.what), note=note)
        return HTMLResponse(page, status, CHALLENGE if status == 401 else None)

    async def _ask(self, request: Request) -> Response:
        return self._login_page()

    async def _login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse

        body = await body_of(request, at_most=LARGEST_FORM) or b""
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        shown = await self._shown_token(request, given)
        if shown is TokenSeen.UNSEEN:
            return self._login_page(status=429, wrong=CROWDED)
        if shown is TokenSeen.WRONG:
            return self._login_page(status=401, wrong=WRONG)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self._access.cookie, httponly=True, samesite="strict")
        return answer


class _Guard:
    """Turns away who may not see a site, and adds the headers that every answer has."""

    def __init__(self, app: Any, site: Site) -> None:  # noqa: ANN401 - an ASGI application
        self._app, self._site = app, site
        self._has_few_threads = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] != "http":
            return
        if not self._has_few_threads:  # of this event loop; there are forty otherwise
            from anyio.to_thread import current_default_thread_limiter

            current_default_thread_limiter().total_tokens = PAGE_THREADS
            self._has_few_threads = True
        from starlette.requests import Request

        async def with_headers(message: Any) -> None:  # noqa: ANN401
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.encode() not in there
                ]
            await send(message)

        refusal = await self._site.refusal(Request(scope))
        await (self._app if refusal is None else refusal)(scope, receive, with_headers)


async def _file(place: Path, request: Request) -> Response:
    from starlette.responses import FileResponse

    return FileResponse(place, media_type=KINDS[place.suffix])


async def body_of(request: Request, *, at_most: int) -> bytes | None:
    """Return what a request carries; None where that is longer, of which no more is read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > at_most:
            return None
    return body
