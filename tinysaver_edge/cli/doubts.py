"""What `tinysaver-edge run` says of the certificate: whether it covers decisions, from when on."""

from __future__ import annotations

from tinysaver_edge.cascade import Cascade
from tinysaver_edge.cli import terminal


class Doubts:
    """Tells at the start why decisions are not certified, and later whenever that changes.

    Args:
        cascade: makes the decisions.
    """

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade
        self._told: str | None = None

    def tell(self) -> None:
        """Write what has changed to stderr, if anything has."""
        doubt = self._cascade.doubt
        if doubt == self._told:
            return
        if doubt is None:
            terminal.say(
                "decisions are certified from here on: its hosts tell the calibrated model"
            )
        else:
            terminal.warn([f"decisions are not certified: {doubt}"])
        self._told = doubt
