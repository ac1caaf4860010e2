"""When the answers of frames that wait for the large model are due."""

from __future__ import annotations

import heapq
import itertools

from tinysaver_edge.stream.item import Item

FEW = 64
"""So many deadlines are kept without a look at whether anybody still waits for them."""


class Deadlines:
    """Deadlines, the next one first. Guarded by the dispatcher's lock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._ticket = itertools.count()
        self._few = FEW

    def add(self, item: Item) -> None:
        """Watch over a frame, unless it may take as long as it likes."""
        if item.due_s == float("inf"):
            return
        if len(self._heap) >= self._few:  # frames that were answered long before their deadline
            self._heap = [due for due in self._heap if due[2].awaiting]
            heapq.heapify(self._heap)
            self._few = max(FEW, 2 * len(self._heap))
        heapq.heappush(self._heap, (item.due_s, next(self._ticket), item))

    def next_s(self) -> float | None:
        """Return when the next is due; None where nothing waits."""
        while self._heap and not self._heap[0][2].awaiting:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self) -> Item:
        """Take out the next."""
        return heapq.heappop(self._heap)[2]
