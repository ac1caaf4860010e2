"""Provisional decisions: those that a revision follows."""

from __future__ import annotations

from tinysaver_edge.decision import Decision


def is_provisional(decision: Decision) -> bool:
    """Whether a second decision on the same frame follows, with ``revision`` 1."""
    said = decision.degraded or ""
    return decision.revision == 0 and said.startswith("provisional")
