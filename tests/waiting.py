"""Waiting for what another thread, process or program is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], what: str = "", *, seconds: float = 60.0) -> None:
    """Wait until something is true; a test fails where it does not become so."""
    due_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < due_s, what or "it did not happen"
        time.sleep(0.01)
