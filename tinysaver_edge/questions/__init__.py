"""Questions: "which of these two classes is right?", asked where two answers differ.

known      what is known of the true classes, as values; the questions themselves
book       the answers as people gave them: a file that only grows, and tables in and out
tally      the counts of a walk, kept up to date answer by answer
interview  which question comes next for whom, and what the answers prove so far
page/      the questions in a browser, answered by one click each
"""

from tinysaver_edge.questions.book import (
    Answer,
    AnswerBook,
    Reply,
    read_answers,
    write_questions,
)
from tinysaver_edge.questions.interview import Interview, Repeats, Standing, Turn
from tinysaver_edge.questions.known import Known, Question, question_id
from tinysaver_edge.questions.tally import FUSED, KEPT, Pairs, Shares, Tally, Walk

__all__ = [
    "FUSED",
    "KEPT",
    "Answer",
    "AnswerBook",
    "Interview",
    "Known",
    "Pairs",
    "Question",
    "Repeats",
    "Reply",
    "Shares",
    "Standing",
    "Tally",
    "Turn",
    "Walk",
    "question_id",
    "read_answers",
    "write_questions",
]
