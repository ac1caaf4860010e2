"""The page that asks: one question after the other, in a browser, answered by one click each."""

from tinysaver_edge.questions.page.site import QuestionPage

__all__ = ["QuestionPage"]
