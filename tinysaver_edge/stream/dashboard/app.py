"""The dashboard's pages, as a Starlette application, and who may see them."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from tinysaver_edge._support.doors import ListenAddress, TokenSeen, WrongTokens
from tinysaver_edge._support.limits import WRONG_TOKEN_S
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.dashboard.state import DashboardState
from tinysaver_edge.stream.telemetry.health import Verdict

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

COOKIE = "tinysaver_edge"
SHORTEST_TOKEN = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Access:
    """The rule for one dashboard.

    Attributes:
        address: where it listens.
        token: what must be known; None where only this machine can reach it.
        secret: of this process; what a browser keeps is of no use to find out the token.

    Raises:
        InputError: others can reach it and there is no token, or it is too short.
    """

    address: ListenAddress
    token: str | None = field(default=None, repr=False)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not self.address.is_loopback:
            raise InputError(
                f"{self.address}: others can reach this address, so the dashboard needs a token: "
                f"set TINYSAVER_TOKEN, or listen on 127.0.0.1:{self.address.port}"
            )
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise InputError(
                f"{self.address}: the token is too short: at least {SHORTEST_TOKEN} characters"
            )

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


PAGE = Path(__file__).with_name("login.html")
HINT = '<p class="soft">It is the one that the stream was started with (TINYSAVER_TOKEN).</p>'
WRONG = '<p class="bad" role="alert">That is not the token.</p>'
CHALLENGE = {"www-authenticate": "Bearer"}


def login_page(*, status: int = 200, note: str = HINT) -> Response:
    """Return the page.

    Args:
        status: of the answer; 401 where it stands for what was refused.
        note: what stands below the form, in HTML.
    """
    from starlette.responses import HTMLResponse

    page = Template(PAGE.read_text(encoding="utf-8")).substitute(note=note)
    return HTMLResponse(page, status, CHALLENGE if status == 401 else None)


HERE = Path(__file__).parent

FILES = {"/": ("page.html", "text/html")} | {
    f"/{name}": (name, kind)
    for name, kind in (
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("charts.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    )
}
"""What is served as it is."""

OPEN = frozenset({"/healthz", "/readyz", "/login", "/page.css", "/icon.svg"})
"""What needs no token."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

WIDEST = 960
"""Pictures go out no wider: a camera's own size would only fill the network."""

LARGEST_FORM = 4096

CROWDED = "Too many wrong tokens: try again later.\n"


def make_app(state: DashboardState, access: Access, tries: WrongTokens) -> Starlette:
    """Return the application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    pages = _Pages(state, access, tries)
    routes = [Route(path, partial(pages.file, path)) for path in FILES]
    routes += [
        Route("/login", pages.ask, methods=["GET"]),
        Route("/login", pages.login, methods=["POST"]),
        Route("/state.json", pages.state),
        Route("/frame.jpg", pages.frame),
        Route("/escalated/{number:int}.jpg", pages.escalated),
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(_Guard, access=access, tries=tries)
    return app


class _Guard:
    """Turns away who may not see it, and adds the headers that every answer has."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - an ASGI application
        access: Access,
        tries: WrongTokens,
    ) -> None:
        self._app = app
        self._access, self._tries = access, tries

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] != "http":
            return
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

        refusal = await self._refusal(Request(scope))
        await (self._app if refusal is None else refusal)(scope, receive, with_headers)

    async def _refusal(self, request: Request) -> Response | None:
        from starlette.responses import PlainTextResponse

        if not self._access.addressed_rightly(request.headers.get("host", "")):
            return PlainTextResponse("this name is not the dashboard's\n", 421)
        if request.url.path in OPEN or self._access.admits(request.cookies):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown = await shown_token(request, given, self._access, self._tries)
            if shown is TokenSeen.RIGHT:
                return None
            if shown is TokenSeen.UNSEEN:
                return PlainTextResponse(CROWDED, 429)
        if request.url.path == "/":
            return login_page(status=401)
        return PlainTextResponse("give the token as Authorization: Bearer TOKEN\n", 401, CHALLENGE)


async def shown_token(
    request: Request, given: str, access: Access, tries: WrongTokens
) -> TokenSeen:
    """Judge a token; for a wrong one that takes a while."""
    client = request.client or ("", 0)
    shown = tries.show(client[0], tuple(client), is_right=lambda: access.knows(given))
    if shown is TokenSeen.WRONG:
        try:
            await asyncio.sleep(WRONG_TOKEN_S)
        finally:
            tries.waited(client[0])
    return shown


class _Pages:
    """One method a page."""

    def __init__(self, state: DashboardState, access: Access, tries: WrongTokens) -> None:
        self._state = state
        self._access, self._tries = access, tries

    async def file(self, path: str, request: Request) -> Response:
        from starlette.responses import FileResponse

        name, kind = FILES[path]
        return FileResponse(HERE / name, media_type=kind)

    async def ask(self, request: Request) -> Response:
        return login_page()

    async def login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_FORM:
                break
        given = parse_qs(body[:LARGEST_FORM].decode("utf-8", "replace")).get("token", [""])[0]
        shown = await shown_token(request, given, self._access, self._tries)
        if shown is TokenSeen.UNSEEN:
            return login_page(status=429, note=f'<p class="bad" role="alert">{CROWDED}</p>')
        if shown is TokenSeen.WRONG:
            return login_page(status=401, note=WRONG)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self._access.cookie, httponly=True, samesite="strict")
        return answer

    async def state(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(self._state.snapshot())

    def frame(self, request: Request) -> Response:
        """Send a source's picture, and in a header what was decided about this very picture."""
        from starlette.responses import Response

        source_id = request.query_params.get("source", "")
        after = request.query_params.get("after", "0")
        number = int(after) if after.isdecimal() and len(after) < 18 else 0
        shown = self._state.picture(source_id, after=number)
        if shown is None:
            return Response(status_code=204)
        return Response(
            jpeg(shown.picture, quality=80),
            media_type="image/jpeg",
            headers={
                "x-number": str(shown.number),
                "x-decision": quote(json.dumps(shown.decision.to_dict())),
            },
        )

    def escalated(self, request: Request) -> Response:
        from starlette.responses import Response

        picture = self._state.thumbnail(request.path_params["number"])
        if picture is None:
            return Response(status_code=404)
        return Response(jpeg(picture, quality=75), media_type="image/jpeg")

    async def healthz(self, request: Request) -> Response:
        return _verdict(self._state.health.alive)

    async def readyz(self, request: Request) -> Response:
        return _verdict(self._state.health.ready)


def _verdict(verdict: Verdict) -> Response:
    from starlette.responses import JSONResponse

    told = {"good": verdict.good, "why": verdict.why}
    return JSONResponse(told, 200 if verdict.good else 503)


def jpeg(picture: Picture, *, quality: int) -> bytes:
    """Return a picture as JPEG, no wider than the page needs it.

    Args:
        picture: ``(height, width, 3)`` BGR uint8.
        quality: 0..100.
    """
    cv2 = opencv("The dashboard's pictures")
    height, width = picture.shape[:2]
    if width > WIDEST:
        size = (WIDEST, max(1, round(height * WIDEST / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    encoded: bytes = data.tobytes()
    return encoded
