"""How long work tells of its progress, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of progress; the command line shows a bar."""

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        """A piece of work of `total` steps begins, some of them perhaps done already."""

    def advance(self, steps: int) -> None:
        """That many more steps are done."""

    def finish(self) -> None:
        """The piece of work has ended."""

    def note(self, message: str) -> None:
        """Something worth a line happened."""


class NoProgress:
    """Listens to nothing."""

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        """Ignore it."""

    def advance(self, steps: int) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""


SILENT = NoProgress()
