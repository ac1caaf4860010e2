"""The dashboard's pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tinysaver_edge._support.doors import Said, WrongTokens
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge._support.web import HEADERS, Site
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.dashboard.state import DashboardState

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

HERE = Path(__file__).parent

WIDEST = 960
"""Pictures go out no wider: a camera's own size would only fill the network."""


class Dashboard(Site):
    """The page about a stream; a context manager.

    Args:
        state: what it shows.
        address: where to listen.
        token: what a browser must know; needed where others can reach the address.
        tries: judges tokens; one for all doors of a stream.

    Attributes:
        url: where it listens, once it has been entered.

    Raises:
        InputError: others can reach the address and there is no token, or it is too short.
        MissingDependencyError: Starlette or uvicorn is not installed.
    """

    what = "dashboard"
    token_from = "It is the one that the stream was started with (TINYSAVER_TOKEN)."
    files = {  # noqa: RUF012
        "/": HERE / "page.html",
        **{f"/{name}": HERE / name for name in ("page.css", "page.js", "charts.js")},
    }
    unguarded = frozenset({"/healthz", "/readyz", "/page.css"})

    def __init__(
        self,
        state: DashboardState,
        address: ListenAddress,
        *,
        token: str | None = None,
        tries: WrongTokens | None = None,
    ) -> None:
        super().__init__(address, token=token, tries=tries)
        self._state = state

    def _routes(self) -> Sequence[Route]:
        from starlette.routing import Route

        return [
            Route("/state.json", self._told),
            Route("/frame.jpg", self._frame),
            Route("/escalated/{number:int}.jpg", self._escalated),
        ]

    async def _told(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(self._state.snapshot())

    def _frame(self, request: Request) -> Response:
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

    def _escalated(self, request: Request) -> Response:
        from starlette.responses import Response

        picture = self._state.thumbnail(request.path_params["number"])
        if picture is None:
            return Response(status_code=404)
        return Response(jpeg(picture, quality=75), media_type="image/jpeg")

    def _quick(self, path: str) -> Said | None:
        said = self._state.health.said(path)
        return None if said is None else replace(said, headers=HEADERS)


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
