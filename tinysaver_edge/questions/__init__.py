"""Questions: "which of these two classes is right?", asked where two answers differ.

known      what is known of the true classes, as values; the questions themselves
book       the answers as people gave them: a file that only grows, and tables in and out
tally      the counts of a walk, kept up to date answer by answer
interview  which question comes next for whom, and what the answers prove so far
page/      the questions in a browser, answered by one click each
"""

from tinysaver_edge.questions.book import (
    AnswerBook,
    AnswerWord,
    GivenAnswer,
    read_answers,
    write_questions,
)
from tinysaver_edge.questions.interview import REPEATED, Interview, ProofSoFar, Turn
from tinysaver_edge.questions.known import Known, Question, question_id
from tinysaver_edge.questions.tally import FUSED, KEPT, Pairs, Repeats, Shares, Walk, WalkTally

__all__ = [
    "FUSED",
    "KEPT",
    "REPEATED",
    "AnswerBook",
    "AnswerWord",
    "GivenAnswer",
    "Interview",
    "Known",
    "Pairs",
    "ProofSoFar",
    "Question",
    "Repeats",
    "Shares",
    "Turn",
    "Walk",
    "WalkTally",
    "question_id",
    "read_answers",
    "write_questions",
]
