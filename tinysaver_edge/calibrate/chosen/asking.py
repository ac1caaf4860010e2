"""Asking people: which cascade's questions, what they buy, and what the answers tell.

Nothing here looks at a label. What the certify samples show of where answers differ is data too, so
every cascade that is shown pays its share of the risk (`candidates`); see docs/questions.md.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge.bundle.manifest import AskedEntry
from tinysaver_edge.calibrate.calibration import QuestionPlan
from tinysaver_edge.calibrate.chosen.choose import Choice
from tinysaver_edge.calibrate.methods.outlook import Outlook
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.problem import MeasuredProblem, Problem
from tinysaver_edge.calibrate.targets import Targets
from tinysaver_edge.data.epochs import VIDEO_PICTURE
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import InfeasibleError, InputError
from tinysaver_edge.outputs import IntArray
from tinysaver_edge.questions.book import AnswerBook, GivenAnswer, read_answers, write_questions
from tinysaver_edge.questions.interview import REPEATED, Interview, ProofSoFar
from tinysaver_edge.questions.known import Known, Question
from tinysaver_edge.questions.tally import Pairs

WRITTEN_BEYOND = 1.5
"""A table of questions has so many times those that the plan expects to need."""

FEWEST_WRITTEN = 40

WRITTEN_AGAIN = 0.25
"""And at least so many times those that were asked already: who goes on beyond the plan is not to
do so in small change."""


@dataclass(frozen=True, slots=True)
class Asking:
    """People being asked about one cascade.

    Attributes:
        place: int64, positions of the walk's samples among the problem's.
    """

    plan: QuestionPlan
    interview: Interview
    place: IntArray
    samples: int

    def known(self) -> Known:
        """Return what the answers tell of the problem's samples."""
        everything, told = Known.nothing(self.samples), self.interview.known()
        everything.truth[self.place] = told.truth
        everything.large_wrong[self.place] = told.large_wrong
        return everything

    def now(self) -> QuestionPlan:
        """Return the plan with what the answers prove by now."""
        interview = self.interview
        still = len(interview.still_open(up_to=interview.target))
        return replace(self.plan, standing=interview.standing(), open=still)

    def write(self, path: Path, data: DataSource | None) -> QuestionPlan:
        """Write the open questions that the plan expects to need, and some more.

        Args:
            path: the table; pictures go into a folder beside it.
            data: the pictures, open, or None.

        Raises:
            InputError: something cannot be written.
        """
        questions = self._worth_writing()
        write_questions(path, questions)
        folder = None if data is None else _write_pictures(path, questions, data)
        return replace(self.plan, file=path, pictures=folder)

    def _worth_writing(self) -> list[Question]:
        interview = self.interview
        if interview.standing().over:  # no answer helps any more: ask for none
            return []
        asked = interview.still_open(up_to=len(interview.walk.thresholds) - 1)
        wanted = len(interview.still_open(up_to=interview.target + 1))
        more = round(WRITTEN_BEYOND * wanted), round(WRITTEN_AGAIN * interview.standing().asked)
        return asked[: max(FEWEST_WRITTEN, *more)]


def ask_about(
    gathered: MeasuredProblem,
    problem: Problem,
    index: IntArray,
    proposals: Sequence[Proposal],
    targets: Targets,
    *,
    data: DataSource | None,
    book: AnswerBook | None,
    answers: Sequence[Path],
    repeated: float = REPEATED,
) -> Asking:
    """Choose the cascade that people are asked about, and take in what they have answered.

    It is the one that is expected to be the best by its costs and by where its answers differ,
    whatever was answered: so the questions stay the same from call to call.

    Args:
        gathered: where the samples come from.
        problem: the samples to calibrate on.
        index: their positions among the gathered ones.
        proposals: of all cascades, made without an answer.
        targets: limits and objective.
        data: the pictures, open, or None where there are records only.
        book: where answers are kept, or None.
        answers: files of answers besides.
        repeated: share of the questions that come twice on a page.

    Raises:
        InfeasibleError: no number of answers would certify anything.
        InputError: a file of answers cannot be read.
    """
    looked = [Outlook.at(one, targets) for one in proposals if one.trial is not None]
    hopeful = [one for one in looked if one.target is not None]
    if not hopeful:
        why = next((one.proposal.why for one in looked if one.proposal.why), "too few samples")
        raise InfeasibleError(
            f"no answers to questions would certify a cascade: {why}; more frames, "
            "or a larger --max-drop, may help"
        )
    best = min(hopeful, key=lambda one: one.rank)
    assert best.target is not None
    place = best.proposal.evidence
    questions, places, firsts = _questions(best.walk.pairs, gathered, problem, index[place], data)
    names, picture = gathered.label_names, None if data is None else _reading(data)
    warnings: list[str] = [] if book is None else [*book.warnings, *book.forged(questions)]
    given: list[GivenAnswer] = []
    for path in answers:
        known = [*([] if book is None else book.answers), *given]
        taken, said = read_answers(path, questions, given=known)
        given += taken
        warnings += said
    interview = Interview(
        best.walk,
        questions,
        places,
        firsts=firsts,
        target=best.target,
        book=book,
        given=given,
        names=names,
        picture=picture,
        repeated=repeated,
    )
    plan = QuestionPlan(
        samples=best.walk.samples,
        max_drop_points=best.walk.max_drop_points,
        confidence=targets.confidence,
        candidates=best.proposal.trial.candidates if best.proposal.trial else 1,
        prospects=tuple(replace(one.prospect(), chosen=one is best) for one in looked),
        standing=interview.standing(),
        open=len(interview.still_open(up_to=best.target)),
        warnings=tuple(warnings),
    )
    return Asking(plan, interview, place, len(problem.labels))


def asked_entry(standing: ProofSoFar, evidence: Problem, choice: Choice) -> AskedEntry | None:
    """Return what people were asked for a certificate; None where nobody's answers count."""
    trial, threshold = choice.proposal.trial, choice.threshold
    if evidence.known is None or trial is None or threshold is None:
        return None
    return AskedEntry(
        asked=standing.asked,
        answered=standing.answered,
        unsure=standing.unsure,
        disagreed=standing.disagreed,
        open=trial.open_at(threshold, evidence.known),
        people=standing.people,
        repeats=standing.repeats.of,
        agreed=standing.repeats.agreed,
        frames=None if evidence.timeline is None else standing.frames,
    )


def _questions(
    pairs: Pairs,
    gathered: MeasuredProblem,
    problem: Problem,
    index: IntArray,
    data: DataSource | None,
) -> tuple[list[Question], IntArray, IntArray]:
    """Return a walk's questions in its order, each one's sample, and from which threshold on."""
    both = np.sort(np.stack([pairs.answer, pairs.large]), axis=0)
    rows = np.stack([pairs.sample, *both], axis=1)
    order = np.lexsort((pairs.first, rows[:, 2], rows[:, 1], rows[:, 0]))
    rows, first = rows[order], pairs.first[order]
    begins = np.ones(len(rows), bool)
    begins[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    rows, first = rows[begins], first[begins]
    position = gathered.sample_index[index]
    if pairs.run is None:
        key = _keys(gathered, data, position, index)
        asked = [(key(sample), sample) for sample in rows[:, 0].tolist()]
    else:
        asked = _by_run(rows[:, 0], pairs.run[order][begins], gathered, position)
    pairs_of = [(low, high) for _, low, high in rows.tolist()]
    stands = Counter((key, pair) for (key, _), pair in zip(asked, pairs_of, strict=True))
    found = [
        Question.of(
            key,
            int(position[shown]),
            "" if data is None else data.samples[position[shown]].file,
            *pair,
            frames=1 if pairs.run is None else stands[key, pair],
        )
        for (key, shown), pair in zip(asked, pairs_of, strict=True)
    ]
    # Within one step of the walk the ids, which say nothing of time or place, make the order.
    walked = sorted(range(len(found)), key=lambda row: (first[row], found[row].id))
    chosen = np.array(walked, np.int64)
    return [found[row] for row in walked], rows[chosen, 0], first[chosen]


def _by_run(
    sample: IntArray, run: IntArray, gathered: MeasuredProblem, position: IntArray
) -> list[tuple[str, int]]:
    """Return what tells each row's run from all others, all of its frames, and the one to show."""
    assert gathered.content is not None
    order = np.lexsort((sample, run))
    ends = np.flatnonzero(np.diff(run[order], append=-1)) + 1
    found: list[tuple[str, int]] = [("", 0)] * len(sample)
    for rows in np.split(order, ends[:-1]) if len(sample) else ():
        frames = sample[rows]
        content = gathered.content[position[frames]].tobytes()
        told = hashlib.blake2b(content, digest_size=16).hexdigest()
        for row in rows.tolist():
            found[row] = (told, int(frames[len(frames) // 2]))
    return found


def _keys(
    gathered: MeasuredProblem, data: DataSource | None, position: IntArray, index: IntArray
) -> Callable[[int], str]:
    """Return what tells a sample's picture from all others: a hash of its file, or its answers."""
    if data is None:
        outputs = gathered.problem.large.outputs

        def of_answers(sample: int) -> str:
            row = index[sample : sample + 1]
            told = outputs.subset(row)
            parts = (told.logits, told.top_class, told.top_prob)
            text = b"".join(one.tobytes() for one in parts if one is not None)
            return f"{position[sample]} {hashlib.blake2b(text, digest_size=8).hexdigest()}"

        return of_answers

    def of_file(sample: int) -> str:
        place = int(position[sample])
        if gathered.content is not None:
            return f"{int(gathered.content[place]):016x}"
        try:
            return hashlib.blake2b(data.read(place), digest_size=16).hexdigest()
        except OSError as error:
            raise InputError(f"data {data.path}: {data.samples[place].file}: {error}") from error

    return of_file


def _reading(data: DataSource) -> Callable[[int], bytes | None]:
    def read(place: int) -> bytes | None:
        try:
            return data.read(place)
        except OSError:
            return None

    return read


def _write_pictures(path: Path, questions: Sequence[Question], data: DataSource) -> Path:
    """Write the questions' pictures, each by its question's id, beside the table."""
    folder = path.with_name(f"{path.stem}.pictures")
    for one in questions:
        suffix = PurePosixPath(one.file).suffix.lower() or VIDEO_PICTURE
        try:
            picture = data.read(one.sample)
            with atomic_write(folder / f"{one.id}{suffix}") as file:
                file.write(picture)
        except OSError as error:
            raise InputError(f"pictures {folder}: {one.file}: {error.strerror or error}") from error
    return folder
