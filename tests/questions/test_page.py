import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest

from tests.questions.asking import NAMES, address, answered, ask, asking, picture, say
from tests.questions.small import small
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.book import AnswerBook
from tinysaver_edge.questions.page import QuestionPage
from tinysaver_edge.questions.page.site import MOST_BODY, MOST_POINTS, for_browsers

TOKEN = "correct horse"


@pytest.fixture
def served():
    with asking() as (page, _):
        yield page


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/base.css", "text/css"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/curves.js", "text/javascript"),
        ("/drawing.js", "text/javascript"),
        ("/zoom.js", "text/javascript"),
        ("/icon.svg", "image/svg"),
    ],
)
def test_everything_is_served_from_here_and_nothing_else_may_be_loaded(served, path, kind):
    status, headers, body = ask(served, path)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in body


def test_questions_come_in_the_order_of_the_walk_and_every_answer_is_kept_with_who_and_when(
    tmp_path,
):
    task, book = small(), tmp_path / "answers.jsonl"
    with asking(task, book=book) as (page, interview):
        turn = say(page, "/turn")["turn"]
        shown = []
        for _ in range(20):
            shown.append(turn["question"])
            reply = task.right(interview.question(turn["question"])).value
            turn = answered(page, turn, reply)["turn"]
        first = list(dict.fromkeys(shown))
        assert first == [one.id for one in task.questions[: len(first)]]
    lines = [json.loads(one) for one in book.read_text().splitlines()]
    assert [one["id"] for one in lines] == shown
    assert {one["by"] for one in lines} == {"Anna"}
    assert all(one["at"].endswith("+00:00") for one in lines)


def test_what_is_told_is_what_the_interview_says(served):
    with asking() as (page, interview):
        told = say(page, "/turn")
        for _ in range(8):
            told = answered(page, told["turn"], "a")
        seen = told["seen"]
        standing = interview.standing()
        assert seen["asked"] == 8
        assert seen["cost"] == standing.cost
        assert seen["bound_points"] == standing.bound_points
        assert [one["asked"] for one in seen["curve"]] == list(range(9))
        assert seen["people"] == [{"name": "Anna", "answers": 8}]
        turn = told["turn"]
        question = interview.question(turn["question"])
        assert {turn["first"], turn["second"]} == {NAMES[question.a], NAMES[question.b]}
        assert dict(zip(turn["replies"], (turn["first"], turn["second"]), strict=True)) == {
            "a": NAMES[question.a],
            "b": NAMES[question.b],
        }


def test_undo_takes_back_step_by_step_and_asks_again():
    with asking() as (page, interview):
        told = say(page, "/turn")
        order = []
        for _ in range(3):
            order.append(told["turn"]["question"])
            told = answered(page, told["turn"], "neither")
        for before in reversed(order):
            told = say(page, "/undo")
            assert told["turn"]["question"] == before
        assert told["seen"]["asked"] == 0
        assert told["seen"]["undoable"] is False
        assert [one["asked"] for one in told["seen"]["curve"]] == [0]
        assert say(page, "/undo")["seen"]["asked"] == 0
        assert interview.book.answers == []


def test_a_question_that_comes_again_is_turned_round_and_not_told_as_such():
    task = small()
    with asking(task) as (page, interview):
        told, first = say(page, "/turn"), {}
        again = 0
        for _ in range(200):
            turn = told["turn"]
            if turn is None:
                break
            names = (turn["first"], turn["second"])
            if turn["repeat"]:
                again += 1
                assert names == first[turn["question"]][::-1]
                assert turn["replies"] == ["b", "a"]
            first[turn["question"]] = names
            question = interview.question(turn["question"])
            told = answered(page, turn, task.right(question).value)
        assert again >= 3
        assert told["seen"]["repeats"] == {"agreed": again, "of": again}


def test_two_people_share_the_questions_and_differing_answers_count_as_the_worst():
    with asking() as (page, _):
        one, other = (say(page, "/turn", by=who)["turn"] for who in ("Anna", "Ben"))
        assert one["question"] != other["question"]
        # Ben's window was left open at a question that Anna answers meanwhile.
        told = answered(page, one, "a")
        bound = told["seen"]["bound_points"]
        seen = answered(page, {**one}, "b", by="Ben")["seen"]
        assert seen["disagreed"] == 1
        said = [(word["name"], word["answer"]) for word in seen["differing"][0]["said"]]
        assert said == [("Anna", one["first"]), ("Ben", one["second"])]
        assert seen["bound_points"] >= bound
        assert {p["name"]: p["answers"] for p in seen["people"]} == {"Anna": 1, "Ben": 1}
        stale = {"question": one["question"], "repeat": False}
        assert say(page, "/seen", **stale)["stale"] is True
        assert say(page, "/seen", by="Cleo", **stale)["stale"] is False


def test_an_answer_that_arrives_twice_counts_once_and_another_one_is_refused(tmp_path):
    book = tmp_path / "answers.jsonl"
    with asking(book=book) as (page, _):
        turn = say(page, "/turn")["turn"]
        once = answered(page, turn, "a")
        assert answered(page, turn, "a")["turn"] == once["turn"]
        asked = {"by": "Anna", "question": turn["question"], "repeat": False, "reply": "b"}
        status, _, body = ask(page, "/answer", asked)
        assert (status, b"first answer counts" in body) == (409, True)
    assert len(book.read_text().splitlines()) == 1


def forged(page):
    """Wrong requests by kind."""
    question = say(page, "/turn")["turn"]["question"]
    good = {"by": "Anna", "question": question, "repeat": False, "reply": "a"}
    json_type = {"content_type": "application/json"}
    return {
        "another id": ("/answer", {"said": {**good, "question": "0123456789abcdef"}}),
        "an id of another kind": ("/answer", {"said": {**good, "question": "../../etc/passwd"}}),
        "a number as an id": ("/answer", {"said": {**good, "question": 7}}),
        "no id": ("/answer", {"said": {"by": "Anna", "reply": "a"}}),
        "another reply": ("/answer", {"said": {**good, "reply": "c"}}),
        "a class as a reply": ("/answer", {"said": {**good, "reply": 3}}),
        "a repeat of nothing": ("/answer", {"said": {**good, "repeat": True}}),
        "a name that steers": ("/answer", {"said": {**good, "by": "\x1b[2J"}}),
        "a name too long": ("/answer", {"said": {**good, "by": "x" * 100}}),
        "no name": ("/answer", {"said": {"question": question, "reply": "a"}}),
        "no JSON": ("/answer", {"body": b"reply=a", **json_type}),
        "a list": ("/answer", {"said": [good]}),
        "a deep list": ("/answer", {"body": b"[" * 4000, **json_type}),
        "a huge body": ("/answer", {"body": b" " * 300_000, **json_type}),
        "a form": ("/answer", {"body": json.dumps(good), "content_type": "text/plain"}),
        "another site": ("/answer", {"said": good, "Origin": "http://evil.example"}),
        "a sandboxed site": ("/answer", {"said": good, "Origin": "null"}),
        "another site's image": ("/answer", {"said": good, "Sec_Fetch_Site": "cross-site"}),
        "another name for here": ("/answer", {"said": good, "Host": "evil.example"}),
        "another site finishes": ("/finish", {"said": good, "Origin": "http://evil.example"}),
    }


def test_a_thousand_wrong_answers_change_nothing_and_get_one_line_each(tmp_path):
    book = tmp_path / "answers.jsonl"
    with asking(book=book) as (page, _):
        before = say(page, "/seen")
        kinds = forged(page)
        lines = {}
        for number in range(1000):
            kind = list(kinds)[number % len(kinds)]
            path, request = kinds[kind]
            status, _, body = ask(page, path, **request)
            assert 400 <= status < 500, kind
            assert body.count(b"\n") == 1, kind
            assert b"Traceback" not in body
            lines.setdefault(kind, set()).add((status, body))
        assert all(len(one) == 1 for one in lines.values())
        assert say(page, "/seen") == before
        assert not page.wait(0)
    assert book.read_text() == ""
    assert MOST_BODY < 300_000


@pytest.mark.parametrize(
    "path",
    [
        "/picture/0",
        "/picture/7.png",
        "/picture/../page.html",
        "/picture/..%2f..%2f..%2fetc%2fpasswd",
        "/picture/%2e%2e/page.js",
        "/picture/frames/7.png",
        "/picture/",
        "/site.py",
        "/../site.py",
    ],
)
def test_only_pictures_that_are_asked_about_are_shown(served, path):
    status, _, body = ask(served, path)
    assert status == 404
    assert b"root:" not in body


def test_a_picture_is_the_frame_itself():
    with asking() as (page, interview):
        turn = say(page, "/turn")["turn"]
        status, headers, body = ask(page, turn["picture"])
        assert (status, headers["content-type"]) == (200, "image/png")
        assert body == picture(interview.question(turn["question"]).sample)
        assert turn["picture"] not in say(page, "/seen")["seen"]["ahead"]
        assert ask(page, say(page, "/seen")["seen"]["ahead"][0])[0] == 200


def test_pictures_that_browsers_do_not_know_lose_nothing_on_the_way():
    import cv2
    import numpy as np

    frame = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for ending in (".tiff", ".ppm"):
        _, data = cv2.imencode(ending, frame)
        made, kind = for_browsers(data.tobytes())
        assert kind == "image/png"
        assert np.array_equal(cv2.imdecode(np.frombuffer(made, np.uint8), 1), frame)
    assert for_browsers(b"<svg onload=alert(1)>") is None
    assert for_browsers(b"") is None


def test_a_damaged_picture_is_one_line():
    with asking(picture=lambda sample: None) as (page, _):
        turn = say(page, "/turn")["turn"]
        assert ask(page, turn["picture"])[0] == 404
    with asking(picture=lambda sample: b"\x00broken") as (page, _):
        status, headers, body = ask(page, say(page, "/turn")["turn"]["picture"])
        assert (status, headers["content-type"].split(";")[0]) == (404, "text/plain")
        assert b"cannot be read" in body


def test_records_without_pictures_are_asked_about_all_the_same():
    with asking(picture=None, names=None) as (page, interview):
        turn = say(page, "/turn")["turn"]
        question = interview.question(turn["question"])
        assert turn["picture"] is None
        assert turn["sample"] == question.sample
        assert turn["first"] == f"class {question.a}"


def test_classes_of_the_same_name_are_told_apart():
    with asking(names=["crane"] * 10) as (page, interview):
        turn = say(page, "/turn")["turn"]
        question = interview.question(turn["question"])
        names = [turn["first"], turn["second"]]
        assert names == [f"crane ({question.a})", f"crane ({question.b})"]


def test_a_disk_that_is_full_is_told_and_the_answer_comes_again(tmp_path):
    with asking(book=tmp_path / "answers.jsonl") as (page, interview):
        turn = say(page, "/turn")["turn"]
        handle, interview.book._handle = interview.book._handle, os.open("/dev/full", os.O_WRONLY)
        asked = {"by": "Anna", "question": turn["question"], "repeat": False, "reply": "a"}
        status, _, body = ask(page, "/answer", asked)
        assert status == 507
        assert b"No space left on device" in body
        assert say(page, "/seen")["seen"]["asked"] == 0
        os.close(interview.book._handle)
        interview.book._handle = handle
        assert answered(page, turn, "a")["seen"]["asked"] == 1


def test_finishing_ends_the_waiting_and_takes_no_more():
    with asking() as (page, interview):
        turn = say(page, "/turn")["turn"]
        assert not page.wait(0)
        told = say(page, "/finish")
        assert told["seen"]["finished"] is True
        assert page.wait(0)
        asked = {"by": "Anna", "question": turn["question"], "repeat": False, "reply": "a"}
        assert ask(page, "/answer", asked)[0] == 409
        assert ask(page, "/undo", {"by": "Anna"})[0] == 409
        assert say(page, "/turn")["turn"] is None
        assert interview.book.answers == []


def test_what_was_answered_before_is_there_again_with_its_curve(tmp_path):
    task, book = small(10_000, seed=1), tmp_path / "answers.jsonl"
    with asking(task, book=book) as (page, interview):
        told = say(page, "/turn")
        for _ in range(60):
            question = interview.question(told["turn"]["question"])
            told = answered(page, told["turn"], task.right(question).value)
    with asking(task, book=book) as (page, _):
        again = say(page, "/turn")
    same = [name for name in told["seen"] if name not in ("curve", "ahead")]
    assert [again["seen"][one] for one in same] == [told["seen"][one] for one in same]
    assert again["turn"]["question"] == told["turn"]["question"]
    assert all(one in told["seen"]["curve"] for one in again["seen"]["curve"])
    assert 30 <= len(again["seen"]["curve"]) <= MOST_POINTS


SERVER = """
import sys
from pathlib import Path
from tests.questions.asking import asking
with asking(book=Path(sys.argv[1])) as (page, _):
    print(page.url, flush=True)
    page.wait()
"""


class Served:
    def __init__(self, url):
        self.url = url


def test_killed_at_any_moment_no_answer_is_lost(tmp_path):
    book, said = tmp_path / "answers.jsonl", 0
    for kill_after in (1, 4, 9):
        command = [sys.executable, "-c", SERVER, str(book)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            page = Served(process.stdout.readline().strip())
            told = say(page, "/turn")
            assert told["seen"]["asked"] + told["seen"]["repeats"]["of"] == said
            for _ in range(kill_after):
                told = answered(page, told["turn"], "a")
                said += 1
            process.send_signal(signal.SIGKILL)
    with AnswerBook(book) as kept:
        assert len(kept.answers) == said
        assert kept.warnings == ()


def test_a_click_is_answered_at_once_with_fifty_thousand_frames_behind_it(tmp_path):
    task = small(50_000, seed=1)
    with asking(task, book=tmp_path / "answers.jsonl") as (page, interview):
        told, took = say(page, "/turn"), []
        begun_s = time.process_time()
        for _ in range(60):
            question = interview.question(told["turn"]["question"])
            sent = time.perf_counter()
            told = answered(page, told["turn"], task.right(question).value)
            took.append(1000 * (time.perf_counter() - sent))
        work_ms = 1000 * (time.process_time() - begun_s) / len(took)
    print(f"an answer: median {statistics.median(took):.1f} ms, {work_ms:.1f} ms of them work")
    assert work_ms < 50  # others may keep the machine busy


def test_beyond_this_machine_there_is_a_token():
    interview = small().interview()
    with pytest.raises(InputError, match="page of questions needs a token: set TINYSAVER_TOKEN"):
        QuestionPage(interview, address("0.0.0.0:0"))
    with asking(token=TOKEN) as (page, _):
        for path in ("/", "/page.js", "/picture/0"):
            assert ask(page, path)[0] == 401
        assert ask(page, "/turn", {"by": "Anna"})[0] == 401
        status, _, body = ask(page, "/login")
        assert status == 200
        assert b"page of questions needs its token" in body
        assert b"the calibration was started with" in body
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(page, "/turn", {"by": "Anna"}, **bearer)[0] == 200


def test_a_name_that_cannot_be_one_is_refused_at_once():
    with pytest.raises(InputError, match="name"):
        QuestionPage(small().interview(), address(), by="\x07")
