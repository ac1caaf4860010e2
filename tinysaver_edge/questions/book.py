"""Answers as people gave them: a file that only grows, and tables that come and go."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import (
    atomic_write,
    check_file_target,
    lock,
    open_regular,
    parse_json,
    read_file,
)
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.known import Question

if TYPE_CHECKING:
    from typing_extensions import Self

COLUMNS = ("id", "sample", "file", "a", "b")
"""Of a table of questions; where these stand for several frames each, `FRAMES` comes after them."""

FRAMES = "frames"

MOST_BYTES = 1 << 28
"""An answers file that is larger is none."""

LONGEST_NAME = 64


class AnswerWord(str, Enum):
    """What a person may say to a question."""

    A = "a"
    B = "b"
    NEITHER = "neither"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """One answer to one question.

    Attributes:
        by: who said it; "" where nobody gave a name.
        repeat: whether the same person had been asked before, without being told.
    """

    question: Question
    reply: AnswerWord
    by: str = ""
    at: datetime | None = None
    repeat: bool = False

    @property
    def chosen(self) -> int | None:
        """The class that was called right, None where none was."""
        if self.reply is AnswerWord.A:
            return self.question.a
        return self.question.b if self.reply is AnswerWord.B else None


def _line(answer: GivenAnswer, *, undo: bool) -> bytes:
    """Write an answer, or that it is taken back, as a line of a book."""
    at = answer.at or datetime.now(timezone.utc)
    said: dict[str, Any] = {
        **{name: value for name, value in asdict(answer.question).items() if name != "frames"},
        "answer": answer.reply.value,
        "by": answer.by,
        "at": at.astimezone(timezone.utc).isoformat(timespec="milliseconds"),
    }
    marks = {"repeat": answer.repeat, "undo": undo}
    said |= {name: True for name, is_so in marks.items() if is_so}
    return (json.dumps(said, ensure_ascii=True) + "\n").encode()


@dataclass(slots=True)
class Trouble:
    """What could not be taken of a file of answers, by kind, for one line each."""

    path: Path
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note one of a kind, such as "name no question that is asked"."""
        self.found.setdefault(kind, []).append(where)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line each kind: how many, and where the first stands."""
        return tuple(
            f"answers {self.path}: {len(where)} {kind}, the first in {where[0]}"
            for kind, where in self.found.items()
        )


UNASKED = "answer no question of these frames and models (kept, not counted)"
FORGED = "name another frame or other classes than their question has (not counted)"
UNREADABLE = "cannot be read: an answer is a, b, neither or unsure (not counted)"
TORN = "broke off before their end, as a killed program leaves them (not counted)"
DOUBLED = "say again what stands there already (counted once)"
CONTRADICTING = "contradict an earlier answer to the same question (it counts as the worst)"


class AnswerBook:
    """Every answer and every undo, a JSON line each, on disk before `add` returns.

    Only one program writes a book at a time. Nothing in it is ever executed, nothing is ever
    removed from it; what is not understood is told in `warnings` and stays. Not thread-safe.

    Attributes:
        path: the file; None keeps the book in memory.
        answers: that stand, in the order they were given.
        warnings: what could not be taken, a line each kind.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or begin a book.

        Raises:
            InputError: it cannot be written, is no book, or another program writes it.
        """
        self.path = path
        self.answers: list[GivenAnswer] = []
        self.warnings: tuple[str, ...] = ()
        self._handle: int | None = None
        if path is None:
            return
        check_file_target(path, flag="answers")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._begin(path)
        except OSError as error:
            self.close()
            raise InputError(f"answers {path}: cannot be written ({error.strerror})") from error
        except InputError:
            self.close()
            raise

    def _begin(self, path: Path) -> None:
        """Lock the file, read it, and part what a killed program left from what comes next."""
        assert self._handle is not None
        taken = f"answers {path}: another program is asking there: open its page, or end it"
        lock(self._handle, taken)
        data = _read(path)
        trouble = Trouble(path)
        self.answers = list(_once(_standing(_lines(data, trouble), trouble), trouble))
        self.warnings = trouble.lines
        if data and not data.endswith(b"\n"):
            os.write(self._handle, b"\n")

    def forged(self, asked: Iterable[Question]) -> tuple[str, ...]:
        """Say, in a line or none, how many answers name other classes than their question has."""
        pairs = {one.id: {one.a, one.b} for one in asked}
        trouble = Trouble(self.path or Path())
        for one in self.answers:
            said = {one.question.a, one.question.b}
            if pairs.get(one.question.id, said) != said:
                trouble.add(FORGED, f"that on {one.question.id}")
        return trouble.lines

    def add(self, answer: GivenAnswer) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; it then does not count either.
        """
        self._write(_line(answer, undo=False))
        self.answers.append(answer)

    def undo(self, by: str, *, among: Container[str]) -> GivenAnswer | None:
        """Take a person's last answer back and return it; None where there is none.

        Raises:
            InputError: it cannot be written; the answer then stands.
        """
        theirs = (one for one in reversed(self.answers) if one.by == by)
        last = next((one for one in theirs if one.question.id in among), None)
        if last is not None:
            self._write(_line(last, undo=True))
            del self.answers[len(self.answers) - 1 - self.answers[::-1].index(last)]
        return last

    def _write(self, line: bytes) -> None:
        if self._handle is None:
            if self.path is not None:
                raise InputError(f"answers {self.path}: the book is closed")
            return
        try:
            # A line that a full disk cut off would run into the next one.
            before = os.fstat(self._handle).st_size
            if os.write(self._handle, line) != len(line):
                os.ftruncate(self._handle, before)
                raise OSError(28, "no room is left")
            os.fsync(self._handle)
        except OSError as error:
            raise InputError(
                f"answers {self.path}: the last answer is not kept ({error.strerror}): make room, "
                f"then answer again"
            ) from error

    def close(self) -> None:
        """Let the file go. Legal in every state."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read(path: Path) -> bytes:
    data = read_file(path)
    if len(data) > MOST_BYTES:
        raise InputError(
            f"answers {path}: larger than {MOST_BYTES >> 20} MiB, which no answers are"
        )
    return data


def _lines(data: bytes, trouble: Trouble) -> Iterator[tuple[GivenAnswer, bool]]:
    """Yield each line's answer, and whether it takes it back."""
    rows = data.split(b"\n")
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            yield _answer(parse_json(row))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            torn = number == len(rows) or not row.rstrip().endswith(b"}")
            trouble.add(TORN if torn else UNREADABLE, f"line {number}")


def _answer(said: Any) -> tuple[GivenAnswer, bool]:  # noqa: ANN401 - whatever a line holds
    """Read what `_line` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is no such line.
    """
    whole = {name: said[name] for name in ("sample", "a", "b")}
    texts = {name: said[name] for name in ("id", "file", "by", "at")}
    if not all(type(one) is int and 0 <= one < 1 << 53 for one in whole.values()):
        raise ValueError("no index")
    if not all(isinstance(one, str) for one in texts.values()) or whole["a"] == whole["b"]:
        raise ValueError("no text")
    question = Question(texts["id"], whole["sample"], texts["file"], whole["a"], whole["b"])
    answer = GivenAnswer(
        question,
        AnswerWord(said["answer"]),
        by=texts["by"],
        at=datetime.fromisoformat(texts["at"]),
        repeat=said.get("repeat") is True,
    )
    return answer, said.get("undo") is True


def _standing(lines: Iterable[tuple[GivenAnswer, bool]], trouble: Trouble) -> list[GivenAnswer]:
    """Return the answers that nobody took back."""
    given: list[GivenAnswer] = []
    for answer, undo in lines:
        if not undo:
            given.append(answer)
            continue
        for place in range(len(given) - 1, -1, -1):
            one = given[place]
            if (one.question.id, one.by, one.repeat) == (
                answer.question.id,
                answer.by,
                answer.repeat,
            ):
                del given[place]
                break
        else:
            trouble.add("take back what nobody said (not counted)", f"{answer.question.id}")
    return given


def _once(answers: Iterable[GivenAnswer], trouble: Trouble) -> Iterator[GivenAnswer]:
    """Yield the answers, what is the same line again only once."""
    seen = set()
    for one in answers:
        what = (one.question.id, one.by, one.repeat, one.reply, one.chosen)
        if what in seen:
            trouble.add(DOUBLED, f"that on {one.question.id}")
            continue
        seen.add(what)
        yield one


def check_name(by: str) -> str:
    """Return a person's name as it is kept.

    Raises:
        InputError: it is too long or cannot be printed.
    """
    name = by.strip()
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"name {name[:20]!r}: up to {LONGEST_NAME} printable signs")
    return name


def check_questions_target(path: Path) -> None:
    """Refuse to write a table of questions over anything but one that nobody has answered.

    Raises:
        InputError: something else is there, perhaps somebody's answers.
    """
    check_file_target(path, flag="--questions")
    if not path.is_file() or not path.stat().st_size:
        return
    unanswered = {",".join(COLUMNS).encode(), ",".join((*COLUMNS, FRAMES)).encode()}
    with open_regular(path) as file:
        first = file.readline(256)
    if first.removesuffix(b"\n") not in unanswered:
        raise InputError(
            f"--questions {path}: a file of another kind is there, or one with answers, which "
            "--answers takes; name a new one"
        )


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write a table of questions with the columns id, sample, file, a and b, in their order.

    Questions about runs of frames have a column more, how many frames each stands for.

    A file's name that a spreadsheet would take for a formula gets a leading ``./``.

    Raises:
        InputError: it cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    runs = any(one.frames > 1 for one in questions)
    table.writerow((*COLUMNS, FRAMES) if runs else COLUMNS)
    for one in questions:
        file = f"./{one.file}" if one.file[:1] in ("=", "+", "-", "@") else one.file
        row = [one.id, one.sample, file, one.a, one.b]
        table.writerow([*row, one.frames] if runs else row)
    try:
        with atomic_write(path) as out:
            out.write(text.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(f"questions {path}: cannot be written ({error.strerror})") from error


def read_answers(
    path: Path, asked: Iterable[Question], *, given: Sequence[GivenAnswer] = ()
) -> tuple[list[GivenAnswer], tuple[str, ...]]:
    """Read answers: a table with the columns id and answer, or a book.

    Further columns may be there: ``by`` names who answered; ``sample`` (or ``file``), ``a`` and
    ``b`` must be those of the question, or the row is about another frame and does not count. Rows
    may come in any order and part by part.

    Args:
        path: the file.
        asked: the questions that there are.
        given: answers that are there already; what says the same again is told.

    Returns:
        The answers that count, and a line for each kind that does not.

    Raises:
        InputError: the file cannot be read, or is no table of answers at all.
    """
    known = {one.id: one for one in asked}
    trouble = Trouble(path)
    try:
        data = _read(path)
    except OSError as error:
        raise InputError(f"answers {path}: not readable ({error.strerror})") from error
    if data.lstrip().startswith(b"{"):
        lines = _standing(_lines(data, trouble), trouble)
        found: Iterator[tuple[str, GivenAnswer, str]] = (
            (one.question.id, one, "line of " + one.question.id) for one in lines
        )
    else:
        found = _rows(path, data, known, trouble)
    return _counted(found, known, given, trouble), trouble.lines


def _counted(
    found: Iterable[tuple[str, GivenAnswer, str]],
    known: dict[str, Question],
    given: Sequence[GivenAnswer],
    trouble: Trouble,
) -> list[GivenAnswer]:
    """Keep the answers to known questions; what several people say about one is kept as it is."""
    said = Counter((one.question.id, one.by, one.repeat) for one in given)
    replies: dict[str, set[AnswerWord]] = {}
    for one in given:
        replies.setdefault(one.question.id, set()).add(one.reply)
    kept = []
    for name, answer, where in found:
        question = known.get(name)
        if question is None:
            trouble.add(UNASKED, where)
            continue
        if {answer.question.a, answer.question.b} != {question.a, question.b}:
            trouble.add(FORGED, where)
            continue
        earlier = replies.setdefault(name, set())
        who = (name, answer.by, answer.repeat)
        if answer.reply in earlier and said[who]:
            trouble.add(DOUBLED, where)
            continue
        if {answer.reply, *earlier} - {AnswerWord.UNSURE, answer.reply}:
            trouble.add(CONTRADICTING, where)
        earlier.add(answer.reply)
        said[who] += 1
        kept.append(
            GivenAnswer(question, _turned(answer, question), answer.by, answer.at, answer.repeat)
        )
    return kept


def _turned(answer: GivenAnswer, question: Question) -> AnswerWord:
    """Return a reply in the order of the question as it is asked now."""
    if answer.question.a == question.a or answer.chosen is None:
        return answer.reply
    return AnswerWord.B if answer.reply is AnswerWord.A else AnswerWord.A


def _rows(
    path: Path, data: bytes, known: dict[str, Question], trouble: Trouble
) -> Iterator[tuple[str, GivenAnswer, str]]:
    """Yield the rows of a table, each with the question that it claims to answer."""
    try:
        rows = list(csv.reader(data.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"answers {path}: no CSV with columns id, answer ({error})") from error
    header = [one.strip().lower() for one in rows[0]] if rows else []
    if not {"id", "answer"} <= set(header):
        raise InputError(
            f"answers {path}: needs the columns id and answer, has {', '.join(header)[:80]}"
        )
    for number, cells in enumerate(rows[1:], 2):
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
        if not row.get("answer"):  # not answered yet
            continue
        where = f"row {number}"
        try:
            reply = AnswerWord(row["answer"].lower())
            by = check_name(row.get("by", ""))
        except (ValueError, InputError):
            trouble.add(UNREADABLE, where)
            continue
        asked = known.get(row["id"])
        claimed = asked and _claimed(row, asked)
        if asked is not None and claimed is None:
            trouble.add(FORGED, where)
            continue
        yield row["id"], GivenAnswer(claimed or Question(row["id"], 0, "", 0, 1), reply, by), where


def _claimed(row: dict[str, str], asked: Question) -> Question | None:
    """Return the question as a row has it; None where that is another frame or other classes."""
    try:
        sample, a, b = (int(row.get(name) or getattr(asked, name)) for name in ("sample", "a", "b"))
    except ValueError:
        return None
    # A picture may have moved within its data since: its name then tells that it is the same.
    moved = asked.file != "" and row.get("file", "").removeprefix("./") == asked.file
    same = (sample == asked.sample or moved) and {a, b} == {asked.a, asked.b}
    return Question(asked.id, sample, asked.file, a, b) if same else None
