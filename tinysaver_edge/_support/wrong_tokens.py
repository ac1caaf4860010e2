"""Wrong tokens: waited for, few at once, and told of. A token must not be found by trying."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum

from tinysaver_edge._support.limits import WRONG_TOKENS_AT_ONCE, WRONG_TOKENS_OF_ALL

TELL_EVERY_S = 60.0
"""How often wrong tokens are told of."""

_TRUSTED = 1024
"""Connections that have shown the token, as far as they are remembered."""


class TokenSeen(Enum):
    """What became of a token.

    Attributes:
        RIGHT: it is the one.
        WRONG: it is not; whoever sent it waits `limits.WRONG_TOKEN_S`, and `WrongTokens.waited` is
            called then.
        UNSEEN: it was not looked at, as too many wrong ones wait.
    """

    RIGHT = "right"
    WRONG = "wrong"
    UNSEEN = "unseen"


class WrongTokens:
    """Judges tokens, and has wrong ones wait. Thread-safe.

    From one address, and from all together, only so many wrong tokens wait at once; until then no
    further one is looked at, right or wrong, or else the difference would tell. Connections that
    have shown the right one are not held up by their neighbours.

    Args:
        tell: takes how many wrong ones came since it was called last, and from where the last.
        clock: seconds.

    Attributes:
        count: wrong and unseen tokens so far.
    """

    def __init__(
        self,
        tell: Callable[[int, str], object] = lambda count, address: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.count = 0
        self._tell, self._clock = tell, clock
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._trusted: OrderedDict[Hashable, None] = OrderedDict()
        self._untold = 0
        self._told_s = float("-inf")

    def show(
        self, address: str, connection: Hashable, *, is_right: Callable[[], bool]
    ) -> TokenSeen:
        """Judge a token.

        Args:
            address: where it comes from.
            connection: over what, which outlives the request.
            is_right: compares it; called only where it may be.
        """
        with self._lock:
            crowded = (
                self._waiting[address] >= WRONG_TOKENS_AT_ONCE
                or self._waiting.total() >= WRONG_TOKENS_OF_ALL
            )
            if crowded and connection not in self._trusted:
                shown = TokenSeen.UNSEEN
            elif is_right():
                self._trusted[connection] = None
                self._trusted.move_to_end(connection)
                if len(self._trusted) > _TRUSTED:
                    self._trusted.popitem(last=False)
                return TokenSeen.RIGHT
            else:
                shown = TokenSeen.WRONG
                self._trusted.pop(connection, None)
                self._waiting[address] += 1
            self.count += 1
            self._untold += 1
            told = self._due()
        if told:
            self._tell(told, address)
        return shown

    def waited(self, address: str) -> None:
        """A wrong token has waited, or its sender has gone."""
        with self._lock:
            self._waiting[address] -= 1
            if self._waiting[address] <= 0:
                del self._waiting[address]

    def _due(self) -> int:
        now = self._clock()
        if now - self._told_s < TELL_EVERY_S:
            return 0
        untold, self._untold, self._told_s = self._untold, 0, now
        return untold
