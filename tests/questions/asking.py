"""A page of questions with real pictures behind it, and a client that speaks as the page does."""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager

import cv2
import numpy as np

from tests.questions.small import CLASSES, small
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge.questions.book import AnswerBook
from tinysaver_edge.questions.page import QuestionPage

NAMES = [
    "lamp", "kettle", "vase", "clock", "mouse", "cup", "chair", "shoe", "ball", "fork",
]  # fmt: skip
assert len(NAMES) == CLASSES


def picture(sample: int, *, width: int = 320, height: int = 240) -> bytes:
    """A frame of its own for each sample, as PNG."""
    rng = np.random.default_rng(sample)
    frame = np.full((height, width, 3), rng.integers(60, 190, 3), np.uint8)
    for _ in range(6):
        at = (int(rng.integers(width)), int(rng.integers(height)))
        colour = tuple(int(one) for one in rng.integers(0, 255, 3))
        cv2.circle(frame, at, int(rng.integers(10, 60)), colour, -1, cv2.LINE_AA)
    good, data = cv2.imencode(".png", frame)
    assert good
    return data.tobytes()


def address(text: str = "127.0.0.1:0") -> ListenAddress:
    return ListenAddress.parse(text, option="--ask-at")


@contextmanager
def asking(task=None, *, book=None, listen="127.0.0.1:0", names=NAMES, picture=picture, **options):
    """A page about a small walk; yields it and its interview."""
    task = small() if task is None else task
    interview = task.interview(
        book=AnswerBook(book) if book is None or not isinstance(book, AnswerBook) else book,
        names=names,
        picture=picture,
    )
    try:
        with QuestionPage(interview, address(listen), **options) as page:
            yield page, interview
    finally:
        interview.book.close()


def ask(page, path, said=None, *, method=None, body=None, **headers):
    """Return status, headers and body of one request; `said` goes as JSON."""
    connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=10)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if said is not None:
            body = json.dumps(said)
            fields = {"content-type": "application/json", **fields}
        connection.request(method or ("GET" if body is None else "POST"), path, body, fields)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def say(page, path, **said):
    """Return what a page is told when it says something that is taken."""
    status, _, body = ask(page, path, {"by": "Anna", **said})
    assert status == 200, body
    return json.loads(body)


def answered(page, turn, reply, *, by="Anna"):
    """Answer a turn as the page does; return what it is told."""
    asked = {"question": turn["question"], "repeat": turn["repeat"]}
    return say(page, "/answer", by=by, reply=reply, **asked)


def truthful(page, truth, count, *, by="Anna"):
    """Answer some questions as somebody who is right; return the last that was told."""
    told = say(page, "/turn", by=by)
    for _ in range(count):
        turn = told["turn"]
        if turn is None:
            break
        names = {turn["first"]: turn["replies"][0], turn["second"]: turn["replies"][1]}
        told = answered(page, turn, names.get(truth[turn["file"]], "neither"), by=by)
    return told["seen"]


class AskingCommand:
    """A `calibrate --ask` that is under way, from the moment that its page is there.

    Attributes:
        url: where it listens.
        said: what the command wrote before.
    """

    def __init__(self, process):
        self.process, self.said = process, ""
        for line in process.stderr:
            self.said += line
            if line.startswith("Questions: "):
                self.url = line.split()[1]
                break
        else:
            raise AssertionError(self.said)

    def end(self):
        """Wait for the command; return what it wrote since, and its answer."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        assert "Traceback" not in err
        return err, json.loads(out)
