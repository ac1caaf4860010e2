"""The one JSON object that a program reading along gets, whether a command succeeds or fails."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import click


@dataclass(slots=True)
class Answer:
    """What a call has written to stdout for programs so far.

    Attributes:
        given: whether its object is out already, as that of a bundle that `verify` finds changed.
    """

    given: bool = False

    @classmethod
    def note_given(cls) -> None:
        """Remember that the command at work writes its object."""
        context = click.get_current_context(silent=True)
        answer = None if context is None else context.find_object(cls)
        if answer is not None:
            answer.given = True


def give_failure(answer: Answer, message: str, exit_code: int, error: BaseException) -> None:
    """Write why there is no other object, where one was asked for and none is out.

    Those who calibrate find what each saver would do in it.
    """
    words = sys.argv[1:]
    words = words[: words.index("--")] if "--" in words else words
    if "--json" not in words or answer.given:
        return
    said: dict[str, Any] = {"error": message, "exit_code": exit_code}
    if hasattr(error, "candidates") or "calibrate" in words[:1]:
        said["candidates"] = [one.to_dict() for one in getattr(error, "candidates", ())]
    lines = "run" in words[:1]  # whose decisions before this are a line each
    try:
        click.echo(json.dumps(said, indent=None if lines else 2, allow_nan=False))
    except OSError:  # stdout is what failed: the line on stderr has to do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
