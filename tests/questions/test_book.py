"""The book of answers: nothing is lost, nothing is executed, and what is wrong is told by kind."""

from __future__ import annotations

import csv
import json

import pytest

from tests.questions.small import NOW, later
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.book import (
    AnswerBook,
    AnswerWord,
    GivenAnswer,
    check_questions_target,
    read_answers,
    write_questions,
)
from tinysaver_edge.questions.known import Question, question_id

ASKED = [Question.of(f"frame {n}", n, f"cam/{n}.png", n, n + 1) for n in range(20)]


def answer(number, word=AnswerWord.A, by="Ada", **more):
    return GivenAnswer(ASKED[number], word, by, later(number), **more)


def test_a_question_is_the_same_whichever_class_comes_first() -> None:
    one, other = (Question.of("x", 3, "", *pair) for pair in ((1, 2), (2, 1)))
    assert one == other
    assert {one.a, one.b} == {1, 2}
    assert one.id == question_id("x", 2, 1) != question_id("y", 2, 1)
    first = [Question.of(str(n), n, "", 1, 2).a for n in range(400)]
    assert 150 < first.count(1) < 250  # whose answer is whose cannot be told by the order


def test_what_is_added_is_on_disk_and_read_again(tmp_path) -> None:
    path = tmp_path / "new" / "book.jsonl"
    words = list(AnswerWord)
    with AnswerBook(path) as book:
        for number in range(8):
            book.add(answer(number, words[number % 4], by="Ada" if number % 2 else "Bob é"))
            assert len(path.read_bytes().splitlines()) == number + 1
        given = list(book.answers)
    with AnswerBook(path) as again:
        assert again.answers == given
        assert again.warnings == ()


def test_undo_is_a_line_and_takes_back_the_persons_last(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    ids = {one.id for one in ASKED}
    with AnswerBook(path) as book:
        for number, by in enumerate(("Ada", "Bob", "Ada")):
            book.add(answer(number, by=by))
        assert book.undo("Bob", among=ids).question == ASKED[1]
        assert book.undo("Bob", among=ids) is None
        assert book.undo("Ada", among={ASKED[0].id}).question == ASKED[0]
        left = list(book.answers)
    assert len(path.read_text().splitlines()) == 5
    assert [one.question for one in left] == [ASKED[2]]
    with AnswerBook(path) as again:
        assert again.answers == left


def test_killed_at_any_byte_no_finished_line_is_lost(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    with AnswerBook(path) as book:
        for number in range(3):
            book.add(answer(number))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        finished = whole[:size].count(b"\n")
        with AnswerBook(path) as book:
            # The last line may be there in full but for its end.
            assert finished <= len(book.answers) <= finished + 1
            book.add(answer(9))
            kept = len(book.answers)
        with AnswerBook(path) as again:
            assert len(again.answers) == kept
            assert again.answers[-1] == answer(9)


def test_two_programs_do_not_write_one_book(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    with AnswerBook(path) as book:
        with pytest.raises(InputError, match="another program is asking there"):
            AnswerBook(path)
        book.add(answer(0))
    with AnswerBook(path) as again:
        assert len(again.answers) == 1


@pytest.mark.parametrize("path", [".", "no/\0/name"])
def test_what_cannot_be_a_book_is_one_line(path, tmp_path) -> None:
    with pytest.raises((InputError, ValueError)):
        AnswerBook(tmp_path / path)


def test_damaged_lines_are_told_by_kind_and_stay(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    with AnswerBook(path) as book:
        book.add(answer(0))
    good = json.loads(path.read_text())
    damaged = [
        {**good, "answer": "__import__('os').system('touch owned')"},
        {**good, "a": -1},
        {**good, "a": True},
        {**good, "b": good["a"]},
        {**good, "by": 7},
        {**good, "at": "yesterday"},
        {"id": good["id"]},
        [1, 2],
        "text",
        1e999,
    ]
    text = path.read_text() + "".join(f"{json.dumps(one)}\n" for one in damaged) + "{{{\n" + "[" * 9
    path.write_text(text)
    with AnswerBook(path) as book:
        assert [one.question for one in book.answers] == [ASKED[0]]
        assert len(book.warnings) == 2, book.warnings
        book.add(answer(1))
    assert path.read_text().startswith(text)
    assert not (tmp_path / "owned").exists()
    with AnswerBook(path) as again:
        assert [one.question for one in again.answers] == ASKED[:2]


def table(path, rows, columns=("id", "answer")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def test_copied_and_forged_lines_of_a_book_are_told_and_count_once_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    with AnswerBook(path) as book:
        book.add(answer(0))
        book.add(answer(0, repeat=True))
        book.add(answer(1))
    first, again, other = path.read_text().splitlines()
    forged = json.dumps({**json.loads(other), "a": 7, "b": 9, "by": "Eve"})
    path.write_text("\n".join([first, again, other, *[again] * 500, forged]) + "\n")
    with AnswerBook(path) as book:
        assert len(book.answers) == 4  # not 500 repeats that agree
        assert [line for line in book.warnings if "500 say again" in line] == list(book.warnings)
        (line,) = book.forged(ASKED)
        assert "1 name another frame or other classes" in line
        assert book.forged([one for one in ASKED if one.id != ASKED[1].id]) == ()


def test_answers_come_back_in_any_order_and_part_by_part(tmp_path) -> None:
    write_questions(tmp_path / "q.csv", ASKED)
    with (tmp_path / "q.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "sample", "file", "a", "b"]
    words = [word.value for word in AnswerWord] * 5
    filled = [[*row.values(), word] for row, word in zip(rows, words, strict=True)]
    header = (*rows[0], "answer")
    first = table(tmp_path / "1.csv", filled[:4:-1], header)
    second = table(tmp_path / "2.csv", [[*row[:-1], ""] for row in filled[5:]] + filled[:5], header)
    one, said = read_answers(first, ASKED)
    assert said == ()
    other, said = read_answers(second, ASKED, given=one)
    assert said == ()  # what is not answered is no mistake
    found = {each.question.id: each.reply.value for each in (*one, *other)}
    assert found == {row["id"]: word for row, word in zip(rows, words, strict=True)}


def test_a_thousand_wrong_answers_are_one_line_each_kind(tmp_path) -> None:
    good = ASKED[0]
    rows = [["f" * 16, "", "", "", "a"] for _ in range(400)]  # of other frames
    rows += [[good.id, 5, "other.png", good.a, good.b, "a"] for _ in range(200)]  # forged sample
    rows += [[good.id, 0, "", 7, 8, "a"] for _ in range(100)]  # other classes
    rows += [[good.id, "x", "", "", "", "a"] for _ in range(100)]
    rows += [[good.id, 0, "", "", "", "=cmd|' /C calc'!A0"] for _ in range(100)]
    rows += [[good.id, 0, "", "", "", "neither"] for _ in range(100)]  # doubled
    rows += [[ASKED[1].id, "", "", "", "", word] for word in "ab"]  # at odds with itself
    for row in rows[:400]:
        row.insert(1, "")
    path = table(tmp_path / "a.csv", rows, ("id", "sample", "file", "a", "b", "answer"))
    before = path.read_bytes()
    found, said = read_answers(path, ASKED)
    assert [one.reply.value for one in found] == ["neither", "a", "b"]
    assert len(said) == 5, said
    numbers = sorted(int(line.split(": ", 1)[1].split()[0]) for line in said)
    assert numbers == [1, 99, 100, 400, 400]
    assert path.read_bytes() == before


def test_a_picture_that_moved_within_its_data_is_still_the_one_that_was_asked(tmp_path) -> None:
    question = ASKED[3]
    header = ("id", "sample", "file", "a", "b", "answer")
    row = [question.id, 17, question.file, question.b, question.a, "a"]
    found, said = read_answers(table(tmp_path / "a.csv", [row], header), ASKED)
    assert said == ()
    # Its a was the other class: what counts is the class that was called right.
    assert (found[0].question, found[0].chosen) == (question, question.b)


def test_a_book_can_be_read_as_a_file_of_answers(tmp_path) -> None:
    path = tmp_path / "book.jsonl"
    with AnswerBook(path) as book:
        book.add(answer(2, AnswerWord.NEITHER))
        book.add(answer(3, by="Bob"))
    found, said = read_answers(path, ASKED[:3])
    assert [(one.question.id, one.by) for one in found] == [(ASKED[2].id, "Ada")]
    assert len(said) == 1
    assert "no question" in said[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "no CSV"),
        (b"name,value\n1,2\n", "needs the columns id and answer"),
        (b"", "needs the columns id and answer"),
        (None, "not readable"),
    ],
)
def test_what_is_no_table_of_answers_is_one_line(tmp_path, content, message) -> None:
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_answers(path, ASKED)


def test_a_name_that_a_spreadsheet_would_run_is_written_as_a_path(tmp_path) -> None:
    write_questions(tmp_path / "q.csv", [Question.of("x", 0, "=cmd.png", 1, 2)])
    assert ",./=cmd.png," in (tmp_path / "q.csv").read_text()
    assert NOW.tzinfo is not None


def test_a_table_that_somebody_answered_is_not_written_over(tmp_path):
    path = tmp_path / "q.csv"
    check_questions_target(path)
    write_questions(path, ASKED)
    check_questions_target(path)  # nobody has answered
    header, *rows = path.read_text().splitlines()
    for content in ("\n".join([f"{header},answer", *(f"{row},a" for row in rows)]), "file,label\n"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"or one with answers, which --answers takes"):
            check_questions_target(path)
