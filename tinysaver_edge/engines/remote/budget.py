"""A budget of retries: a share of the requests, so that retries cannot double a host's load."""

from __future__ import annotations

import threading

SAVED = 10.0
"""So many retries may be saved up."""


class RetryBudget:
    """Earns a share of a retry with every request, and spends one on each. Thread-safe.

    Args:
        share: of a retry, earned with a request.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = SAVED if share else 0.0
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Take note of a request."""
        with self._lock:
            self._left = min(SAVED, self._left + self._share)

    def spend(self) -> bool:
        """Return whether a retry may be made, and take it off."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
