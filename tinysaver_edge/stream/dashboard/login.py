"""The page that asks for the token, and says so when it was another."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.responses import Response

PAGE = Path(__file__).with_suffix(".html")
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
