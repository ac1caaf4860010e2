"""The page of questions: what it is told, what it may say, and what becomes of that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.doors import WrongTokens
from tinysaver_edge._support.packages import opencv
from tinysaver_edge._support.text import brief, name_of
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge._support.web import Site, body_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.book import AnswerWord, GivenAnswer, check_name
from tinysaver_edge.questions.interview import Interview, ProofSoFar, Turn
from tinysaver_edge.questions.known import Question

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

HERE = Path(__file__).parent

MOST_BODY = 4096
"""Bytes of what a page may say at once."""

MOST_POINTS = 240
"""Of a curve: a chart is no wider."""

REPLAYED = 40
"""Points of a curve that are found again from a book: each takes some milliseconds.
"""

MOST_DIFFERING = 12
"""Questions that people answered differently, as far as a page lists them."""

AHEAD = 2
"""Pictures that a page may fetch before they are asked about."""

UPRIGHT = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
"""How files begin that browsers show as OpenCV does."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


class QuestionPage(Site):
    """The page on which people answer an interview's questions; a context manager.

    The interview belongs to the page until that is left: it is asked from the page's own thread.

    Args:
        interview: what is asked, and where the answers go.
        address: where to listen.
        token: what a browser must know; needed where others can reach the address.
        by: who answers where the page is not told otherwise; None has it ask for a name.
        confidence: 1 - δ of what the answers are to prove, as far as it is to be shown.
        tries: judges tokens.
        clock: tells when an answer was given, with a time zone.

    Attributes:
        url: where it listens, once it has been entered.

    Raises:
        InputError: others can reach the address and there is no token, or it is too short; the
            name cannot be one.
        MissingDependencyError: Starlette or uvicorn is not installed.
    """

    what = "page of questions"
    token_from = "It is the one that the calibration was started with (TINYSAVER_TOKEN)."
    files = {  # noqa: RUF012
        "/": HERE / "page.html",
        **{f"/{name}": HERE / name for name in ("page.css", "page.js", "curves.js", "zoom.js")},
    }

    def __init__(
        self,
        interview: Interview,
        address: ListenAddress,
        *,
        token: str | None = None,
        by: str | None = None,
        confidence: float | None = None,
        tries: WrongTokens | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        super().__init__(address, token=token, tries=tries)
        self._interview, self._clock = interview, clock
        self._confidence = confidence
        self._by = None if by is None else check_name(by)
        self._curve = _Curve(interview)
        self._finished = threading.Event()

    def finish(self) -> None:
        """Take no more answers. Legal in every state and thread, and in a signal handler."""
        self._finished.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody finishes, here or on the page; whether that has happened."""
        return self._finished.wait(timeout_s)

    def _routes(self) -> Sequence[Route]:
        from starlette.routing import Route

        said = {"/seen": self._seen, "/turn": self._turn, "/answer": self._answer}
        said |= {"/undo": self._undo, "/finish": self._finish}
        return [
            Route("/picture/{question}", self._picture, methods=["GET"]),
            *(
                Route(path, partial(_heard, answer=answer), methods=["POST"])
                for path, answer in said.items()
            ),
        ]

    # What pages say. Each takes what was said, and returns what the page is told.

    def _seen(self, said: dict[str, Any]) -> dict[str, Any]:
        """Tell what there is to be seen, and whether the question on show is answered already."""
        by, asked, stale = _name(said), said.get("question"), False
        if isinstance(asked, str):
            with suppress(InputError):
                stale = len(self._interview.answers_of(asked, by)) > (said.get("repeat") is True)
        return {"seen": self._told(by), "as": self._by, "stale": stale}

    def _turn(self, said: dict[str, Any]) -> dict[str, Any]:
        return self._next(_name(said))

    def _answer(self, said: dict[str, Any]) -> dict[str, Any]:
        by, asked = _name(said), _text(said, "question")
        if self._finished.is_set():
            raise _RefusedError(409, "The asking is finished: calibrate again to go on answering.")
        try:
            reply = AnswerWord(_text(said, "reply"))
        except ValueError:
            raise _RefusedError(400, "An answer is a, b, neither or unsure.") from None
        try:
            earlier = self._interview.answers_of(asked, by)
        except InputError:
            raise _RefusedError(
                404, "This question is not asked here; it was not counted."
            ) from None
        repeat = said.get("repeat") is True
        if len(earlier) > repeat:  # from another window, or sent twice because no answer came
            if earlier[repeat].reply is not reply:
                raise _RefusedError(
                    409,
                    "You have answered this question before, perhaps in another window: the first "
                    "answer counts; to change it, undo there.",
                )
        elif repeat > len(earlier):
            raise _RefusedError(
                409, "This question has not been answered before; it was not counted."
            )
        else:
            at = self._clock()
            self._keep(lambda: self._interview.answer(asked, reply, by=by, at=at))
        return self._next(by)

    def _undo(self, said: dict[str, Any]) -> dict[str, Any]:
        by = _name(said)
        if self._finished.is_set():
            raise _RefusedError(409, "The asking is finished: calibrate again to go on answering.")
        self._keep(lambda: self._interview.undo(by))
        return self._next(by)

    def _finish(self, said: dict[str, Any]) -> dict[str, Any]:
        by = _name(said)
        self._finished.set()
        return {"seen": self._told(by), "turn": None}

    def _keep(self, write: Callable[[], object]) -> None:
        try:
            found = write()
        except InputError as error:  # the disk: the page keeps the answer and tries again
            raise _RefusedError(507, str(error)) from None
        self._curve.follow(found if isinstance(found, ProofSoFar) else self._interview.standing())

    # What pages are told.

    def _next(self, by: str) -> dict[str, Any]:
        turn = None if self._finished.is_set() else self._interview.next_for(by)
        return {"turn": None if turn is None else self._question(turn), "seen": self._told(by)}

    def _question(self, turn: Turn) -> dict[str, Any]:
        """Tell a question; the second time the other way round, so that it is not known again."""
        question = turn.question
        names = [self._class(question.a), self._class(question.b)]
        if names[0] == names[1]:
            names = [f"{names[0]} ({one})" for one in (question.a, question.b)]
        replies = [AnswerWord.A.value, AnswerWord.B.value]
        if turn.repeat:
            names, replies = names[::-1], replies[::-1]
        return {
            "question": question.id,
            "repeat": turn.repeat,
            "first": names[0],
            "second": names[1],
            "replies": replies,
            "file": brief(question.file),
            "sample": question.sample,
            "frames": question.frames,
            "picture": self._picture_at(question),
        }

    def _class(self, index: int) -> str:
        return name_of(self._interview.name_of(index)) or f"class {index}"

    def _told(self, by: str) -> dict[str, Any]:
        interview, standing = self._interview, self._curve.standing
        ahead = interview.ahead_of(by, AHEAD) if interview.has_pictures else ()
        return {
            **standing.to_dict(),
            "interval": standing.repeats.interval,
            "confidence": self._confidence,
            "curve": self._curve.points,
            "people": [{"name": n, "answers": c} for n, c in interview.people.items()],
            "undoable": interview.people.get(by, 0) > 0,
            "differing": [self._differing(said) for said in interview.differing(MOST_DIFFERING)],
            "ahead": [f"/picture/{one.id}" for one in ahead],
            "finished": self._finished.is_set(),
        }

    def _differing(self, said: tuple[GivenAnswer, ...]) -> dict[str, Any]:
        """Tell who said what of a question on which that is not the same."""
        words = [
            {
                "name": one.by,
                "answer": one.reply.value if one.chosen is None else self._class(one.chosen),
            }
            for one in said
        ]
        question = said[0].question
        file = brief(question.file) or f"sample {question.sample}"
        return {"file": file, "picture": self._picture_at(question), "said": words}

    def _picture_at(self, question: Question) -> str | None:
        return f"/picture/{question.id}" if self._interview.has_pictures else None

    def _picture(self, request: Request) -> Response:
        """Send the picture of a question, and of nothing else."""
        from starlette.responses import PlainTextResponse, Response

        try:
            data = self._interview.picture_of(
                self._interview.question(request.path_params["question"])
            )
        except InputError:
            return PlainTextResponse("No question with this picture is asked here.\n", 404)
        made = None if data is None else for_browsers(data)
        if made is None:
            return PlainTextResponse("The picture cannot be read: say that you can’t tell.\n", 404)
        return Response(made[0], media_type=made[1])


class _Curve:
    """How bound and cost fell, answer by answer."""

    def __init__(self, interview: Interview) -> None:
        self.standing = interview.standing()
        self._all = [_point(one) for one in interview.history(REPLAYED)]

    def follow(self, standing: ProofSoFar) -> None:
        """An answer was given or taken back."""
        self.standing = standing
        now = _point(standing)
        self._all = [one for one in self._all if one["asked"] < now["asked"]] + [now]

    @property
    def points(self) -> list[dict[str, Any]]:
        """At most `MOST_POINTS` of them, the last among these."""
        step = -(-len(self._all) // MOST_POINTS)
        return self._all[::-1][:: max(1, step)][::-1]


def _point(standing: ProofSoFar) -> dict[str, Any]:
    return {
        "asked": standing.asked,
        "cost": None if standing.threshold is None else standing.cost,
        "bound": None if standing.bound_points >= 100 else standing.bound_points,
    }


class _RefusedError(Exception):
    """Something that a page said cannot be taken.

    Attributes:
        status: of the answer; from 500 on the page keeps what it said and says it again.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


async def _heard(request: Request, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    """Read what a page says, and answer it."""
    from starlette.responses import JSONResponse, PlainTextResponse

    try:
        return JSONResponse(answer(await _said(request)))
    except _RefusedError as refused:
        return PlainTextResponse(f"{refused}\n", refused.status)


async def _said(request: Request) -> dict[str, Any]:
    # A form of another site can send no JSON; a script there has to ask first, and is refused.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _RefusedError(415, "Pages speak JSON here.")
    body = await body_of(request, at_most=MOST_BODY)
    if body is None:
        raise _RefusedError(413, f"No answer takes more than {MOST_BODY} bytes.")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _RefusedError(400, "This is no JSON object.")
    return said


def _text(said: dict[str, Any], name: str) -> str:
    text = said.get(name)
    if not isinstance(text, str):
        raise _RefusedError(400, f"{name} is missing.")
    return text


def _name(said: dict[str, Any]) -> str:
    try:
        return check_name(_text(said, "by"))
    except InputError as error:
        raise _RefusedError(400, str(error)) from None


def for_browsers(data: bytes) -> tuple[bytes, str] | None:
    """Return an encoded picture as browsers show it, and its kind; None where it is damaged.

    Other formats become PNG, which loses nothing.
    """
    for beginning, kind in UPRIGHT.items():
        if data.startswith(beginning):
            return data, kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data, "image/webp"
    import numpy as np

    cv2 = opencv("The pictures on the page")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            return None
        _, made = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    except cv2.error:
        return None
    return made.tobytes(), "image/png"
