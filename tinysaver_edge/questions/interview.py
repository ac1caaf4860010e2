"""Which question comes next for whom, and what the answers prove so far."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import IntArray
from tinysaver_edge.questions.book import AnswerBook, AnswerWord, GivenAnswer, check_name
from tinysaver_edge.questions.known import UNKNOWN, Known, Question
from tinysaver_edge.questions.tally import Repeats, Walk, WalkTally

REPEATED = 0.05
"""Share of a person's answers that are asked for a second time, where nobody says otherwise."""

SOONEST, SPREAD = 8, 12
"""A question comes again after so many others at least, and after how many more at most."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question for a person.

    Attributes:
        repeat: whether this person answered it before; the page must not show it.
    """

    question: Question
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class ProofSoFar:
    """What the answers prove so far.

    Attributes:
        asked: different questions that somebody answered, if only by "can't tell".
        answered: those of them that have an answer, the same from all who gave one.
        unsure: those that nobody could tell; they count as the worst.
        disagreed: those that people answered differently; they count as the worst.
        repeats: how often they agreed with themselves.
        max_drop_points: ε, what is to be proven; None where only the bound is wanted.
        threshold: the loosest that is certified so far; None where none is.
        cost: MACs a frame there, where the large model alone takes 1; 1 where none is.
        target_cost: the cost that the plan expects in the end.
        target_questions: questions on the way there.
        bound_points: what is proven so far of the drop at the plan's threshold and all before it.
        frames: frames of a stream that the answered ones stand for; of other samples, how many
            there are of them.
        open: questions not settled yet that bear on the next threshold.
        over: whether no further answer can bring the certificate any further.
    """

    asked: int
    answered: int
    unsure: int
    disagreed: int
    people: int
    repeats: Repeats
    max_drop_points: float | None
    threshold: float | None
    cost: float
    target_cost: float
    target_questions: int
    bound_points: float
    open: int
    over: bool
    frames: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **asdict(self),
            "repeats_interval": self.repeats.interval,
            "errs": self.repeats.errs,
        }


class Interview:
    """One walk's questions, the answers so far, and who is asked what next.

    Not thread-safe: whoever serves several people takes turns, as an event loop does.

    Attributes:
        questions: all that the walk may need, in its order.
        book: where answers are kept.
        names: class names, or None.
        target: number of the threshold that the plan expects to reach.
    """

    def __init__(
        self,
        walk: Walk,
        questions: Sequence[Question],
        places: IntArray,
        *,
        firsts: IntArray,
        target: int,
        book: AnswerBook | None = None,
        given: Sequence[GivenAnswer] = (),
        names: Sequence[str] | None = None,
        picture: Callable[[int], bytes | None] | None = None,
        repeated: float = REPEATED,
    ) -> None:
        """Take the answers of the book in, as far as they are about these questions.

        Args:
            walk: what is to be certified.
            questions: in the order of the walk.
            places: int64 (q,), each question's sample among the walk's samples.
            firsts: int64 (q,), number of the threshold from which it counts, never falling.
            target: number of the threshold that the plan expects to reach.
            book: where answers are kept; None keeps them in memory.
            given: answers kept elsewhere, that count beside those of the book.
            names: class names.
            picture: the encoded picture at a position of the data; None where there is none.
            repeated: share of a person's answers that are asked for a second time, 0..1.
        """
        self.questions = tuple(questions)
        self.book = AnswerBook() if book is None else book
        self.names = names
        self.target = target
        self._picture, self._repeated = picture, repeated
        self._tally = WalkTally(walk)
        # Frames of a resting camera are alike to the pixel: one answer tells of all of them.
        self._number: dict[str, int] = {}
        self._lead: list[int] = []
        self._alike: defaultdict[int, list[int]] = defaultdict(list)
        for number, question in enumerate(self.questions):
            self._lead.append(self._number.setdefault(question.id, number))
            self._alike[self._lead[number]].append(number)
        self._asked = np.array(self._lead, np.int64) == np.arange(len(self._lead))
        self._places = places.tolist()
        self._firsts = firsts
        self._on_sample: defaultdict[int, list[int]] = defaultdict(list)
        for number, place in enumerate(self._places):
            self._on_sample[place].append(number)
        # What was said of each question, by person; the counts that `standing` tells.
        self._said: dict[int, list[GivenAnswer]] = {}
        self._truth: dict[int, tuple[int, bool]] = {}
        self._settled = np.zeros(len(self.questions), bool)
        self._given: dict[int, str] = {}
        self._counted = {"answered": 0, "unsure": 0, "disagreed": 0}
        self._people: defaultdict[str, int] = defaultdict(int)
        self._agreed = self._compared = 0
        self._due: defaultdict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self._out: dict[str, int] = {}
        self._head = 0
        self._elsewhere = tuple(given)
        for answer in (*self.book.answers, *given):
            self._take(answer)

    def name_of(self, index: int) -> str:
        """Return the name of the class `index`, from 0; its number where names are not known."""
        known = self.names is not None and index < len(self.names)
        return self.names[index] if known and self.names is not None else f"class {index}"

    @property
    def has_pictures(self) -> bool:
        """Whether there is anything to show: records have no pictures."""
        return self._picture is not None

    @property
    def people(self) -> dict[str, int]:
        """How many answers there are of each who gave any."""
        return {name: count for name, count in self._people.items() if count}

    def picture_of(self, question: Question) -> bytes | None:
        """Return the encoded picture of a question, None where there is none to show."""
        return None if self._picture is None else self._picture(question.sample)

    def question(self, name: str) -> Question:
        """Return a question by its id.

        Raises:
            InputError: there is none of this id.
        """
        if name not in self._number:
            raise InputError(f"question {name[:40]!r}: none of this id is asked here")
        return self.questions[self._number[name]]

    def answers_of(self, name: str, by: str) -> tuple[GivenAnswer, ...]:
        """Return what a person has said to a question of some id, the first answer first.

        Raises:
            InputError: there is no question of this id.
        """
        self.question(name)
        return tuple(one for one in self._said.get(self._number[name], ()) if one.by == by)

    def differing(self, most: int) -> list[tuple[GivenAnswer, ...]]:
        """Return what was said of the `most` newest questions that people answered differently."""
        found = [number for number in self._said if self._state(number) == "disagreed"]
        return [tuple(self._said[number]) for number in found[-most:]]

    def next_for(self, by: str) -> Turn | None:
        """Return what a person is asked next; None where no answer of theirs is needed any more.

        Two people are not asked the same question at the same time while there are others.
        Asked again without an answer in between, the same question comes.
        """
        due = self._due[by]
        if due and due[0][0] <= self._people[by]:
            return Turn(self.questions[due[0][1]], repeat=True)
        number = next(self._open_for(by), None)
        if number is not None:
            self._out[by] = number
            return Turn(self.questions[number])
        self._out.pop(by, None)
        return Turn(self.questions[due[0][1]], repeat=True) if due else None

    def ahead_of(self, by: str, most: int) -> list[Question]:
        """Return the `most` questions that a person may be asked soon, as can be told now."""
        return [self.questions[number] for number in islice(self._open_for(by), most + 1)][1:]

    def _open_for(self, by: str) -> Iterator[int]:
        """Yield what a person can be asked, in order; what another is asked just now comes last."""
        upcoming = self._upcoming()
        while self._head < len(self.questions) and self._settled[self._head]:
            self._head += 1
        others = {number for who, number in self._out.items() if who != by}
        second = []
        still = self._asked & ~self._settled
        for number in range(self._head, upcoming):
            if not still[number] or any(one.by == by for one in self._said.get(number, ())):
                continue
            if number in others:
                second.append(number)
            else:
                yield number
        yield from second

    def answer(
        self, name: str, reply: AnswerWord | str, *, by: str = "", at: datetime
    ) -> ProofSoFar:
        """Keep an answer; it is on disk when this returns.

        Args:
            name: the question's id.
            reply: what was said.
            by: who said it.
            at: when, with a time zone.

        Raises:
            InputError: there is no such question or reply, or it cannot be kept.
        """
        question, who = self.question(name), check_name(by)
        try:
            said = AnswerWord(reply)
        except ValueError:
            raise InputError(
                f"answer {str(reply)[:20]!r}: say {', '.join(one.value for one in AnswerWord)}"
            ) from None
        number = self._number[name]
        repeat = any(one.by == who for one in self._said.get(number, ()))
        given = GivenAnswer(question, said, who, at, repeat)
        self.book.add(given)
        self._take(given)
        return self.standing()

    def undo(self, by: str = "") -> GivenAnswer | None:
        """Take back the last answer of a person; None where there is none.

        Raises:
            InputError: it cannot be kept that it is taken back.
        """
        taken = self.book.undo(check_name(by), among=self._number)
        if taken is not None and (number := self._number.get(taken.question.id)) is not None:
            said = self._said[number]
            before = self._state(number)
            del said[len(said) - 1 - said[::-1].index(taken)]
            self._people[taken.by] -= 1
            self._compare(number, taken, -1)
            due = self._due[taken.by]
            if taken.repeat:
                due.appendleft((0, number))
            else:
                self._due[taken.by] = deque(one for one in due if one[1] != number)
                self._out[taken.by] = number
            self._moved(number, before)
        return taken

    def _upcoming(self) -> int:
        """How many questions bear on the next threshold, or one before; 0 where none can help."""
        if self._tally.over():
            return 0
        if self._tally.walk.max_drop_points is None:
            return len(self.questions)
        reached = self._tally.reached()
        following = 0 if reached is None else reached + 1
        return int(np.searchsorted(self._firsts, following, side="right"))

    def _take(self, answer: GivenAnswer) -> None:
        """Count an answer that is in the book."""
        number = self._number.get(answer.question.id)
        if number is None or {answer.question.a, answer.question.b} != {
            self.questions[number].a,
            self.questions[number].b,
        }:
            return
        before = self._state(number)
        self._said.setdefault(number, []).append(answer)
        self._people[answer.by] += 1
        self._compare(number, answer, 1)
        due = self._due[answer.by]
        if answer.repeat:
            self._due[answer.by] = deque(one for one in due if one[1] != number)
        elif (wait := _comes_again(answer, self._repeated)) is not None:
            due.append((self._people[answer.by] + wait, number))
        if self._out.get(answer.by) == number:
            del self._out[answer.by]
        self._moved(number, before)

    def _compare(self, number: int, answer: GivenAnswer, sign: int) -> None:
        """Count whether a second answer agrees with the first of the same person."""
        if not answer.repeat:
            return
        first = next((one for one in self._said[number] if one.by == answer.by), None)
        if first is None or first.repeat or AnswerWord.UNSURE in (first.reply, answer.reply):
            return
        self._compared += sign
        self._agreed += sign * (_meant(first) == _meant(answer))

    def _state(self, number: int) -> str | None:
        """Return what people say of a question: nothing, answered, unsure or disagreed."""
        said = self._said.get(self._lead[number])
        if not said:
            return None
        meant = {_meant(one) for one in said if one.reply is not AnswerWord.UNSURE}
        if not meant:
            return "unsure"
        return "answered" if len(meant) == 1 else "disagreed"

    def _moved(self, number: int, before: str | None) -> None:
        """Bring counts and tally up to date after what is said of a question changed."""
        after = self._state(number)
        for state, change in ((before, -1), (after, 1)):
            if state is not None:
                self._counted[state] += change
        for place in dict.fromkeys(self._places[one] for one in self._alike[number]):
            self._tell(place)

    def _tell(self, place: int) -> None:
        """Bring up to date what is known of a sample."""
        truth, neither = self._known_of(place)
        self._tally.tell(place, truth=truth, neither=neither)
        for one in self._on_sample[place]:
            pair = {self.questions[one].a, self.questions[one].b}
            self._settled[one] = (
                truth != UNKNOWN or frozenset(pair) in neither or self._state(one) == "disagreed"
            )
            if not self._settled[one]:
                self._head = min(self._head, one)

    def _known_of(self, place: int) -> tuple[int, list[frozenset[int]]]:
        """Return the true class of a sample and the pairs that are both wrong.

        Answers to several questions about one sample that cannot all be true tell nothing.
        """
        truths: set[int] = set()
        neither: list[frozenset[int]] = []
        for number in self._on_sample[place]:
            if self._state(number) != "answered":
                continue
            said = self._said[self._lead[number]]
            told = next(_meant(one) for one in said if one.reply is not AnswerWord.UNSURE)
            if told is None:
                neither.append(frozenset((self.questions[number].a, self.questions[number].b)))
            else:
                truths.add(told)
        wrong = frozenset[int]().union(*neither)
        if len(truths) > 1 or truths & wrong:
            return UNKNOWN, []
        return (truths.pop() if truths else UNKNOWN), neither

    def known(self) -> Known:
        """Return what the answers tell of the walk's samples."""
        walk = self._tally.walk
        truth = np.full(walk.samples, UNKNOWN, np.int64)
        wrong: dict[int, frozenset[int]] = {}
        for place in {self._places[one] for number in self._said for one in self._alike[number]}:
            truth[place], neither = self._known_of(place)
            wrong[place] = frozenset().union(*neither)
        large = np.zeros(walk.samples, bool)
        pairs = walk.pairs
        for sample, theirs in zip(pairs.sample.tolist(), pairs.large.tolist(), strict=True):
            large[sample] |= theirs in wrong.get(sample, ())
        return Known(truth, large)

    @property
    def walk(self) -> Walk:
        """What the answers are asked for."""
        return self._tally.walk

    def still_open(self, *, up_to: int) -> list[Question]:
        """Return the questions not settled that bear on thresholds to `up_to`, in order."""
        end = int(np.searchsorted(self._firsts, up_to, side="right"))
        still = np.flatnonzero(self._asked[:end] & ~self._settled[:end])
        return [self.questions[number] for number in still.tolist()]

    def standing(self) -> ProofSoFar:
        """Return what the answers prove so far."""
        tally, walk = self._tally, self._tally.walk
        reached = tally.reached()
        end = self._upcoming()
        still = int(np.count_nonzero(self._asked[:end] & ~self._settled[:end]))
        target = int(np.searchsorted(self._firsts, self.target, side="right"))
        return ProofSoFar(
            asked=sum(self._counted.values()),
            answered=self._counted["answered"],
            unsure=self._counted["unsure"],
            disagreed=self._counted["disagreed"],
            people=sum(count > 0 for count in self._people.values()),
            repeats=Repeats(self._agreed, self._compared),
            max_drop_points=walk.max_drop_points,
            threshold=None if reached is None else float(walk.thresholds[reached]),
            cost=1.0 if reached is None else float(walk.costs[reached]),
            target_cost=float(walk.costs[self.target]),
            target_questions=int(np.count_nonzero(self._asked[:target])),
            bound_points=tally.bound_points(self.target),
            open=still,
            over=not still,
            frames=sum(
                self.questions[number].frames
                for number in self._said
                if self._state(number) == "answered"
            ),
        )

    def history(self, most: int) -> list[ProofSoFar]:
        """Return what the answers proved as they came, from nothing on.

        Args:
            most: standings to return; of more answers than that, so many are picked evenly.
        """
        again = Interview(
            self._tally.walk,
            self.questions,
            np.array(self._places, np.int64),
            firsts=self._firsts,
            target=self.target,
        )
        given = (*self._elsewhere, *self.book.answers)
        picked = set(np.linspace(0, len(given), min(most, len(given) + 1)).round().tolist())
        found = [again.standing()]
        for number, answer in enumerate(given, 1):
            again._take(answer)
            if number in picked:
                found.append(again.standing())
        return found


def _meant(answer: GivenAnswer) -> int | None:
    """Return the class called right, None for neither; where that was said."""
    return answer.chosen


def _comes_again(answer: GivenAnswer, share: float) -> int | None:
    """Return after how many other answers a person is asked this again; None for never.

    Drawn by question and person, so that it is the same after a restart.
    """
    text = f"repeat\0{answer.question.id}\0{answer.by}".encode()
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    if drawn % 10_000 >= share * 10_000:
        return None
    return SOONEST + drawn // 10_000 % SPREAD
