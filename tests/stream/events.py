"""What tests hear of a stream."""

from __future__ import annotations

import threading
import time

from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.metrics import Tally


class Heard:
    """Keeps events, in their order, and lets a test wait for one."""

    def __init__(self):
        self.events = []
        self._changed = threading.Condition()

    def __call__(self, event):
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    @property
    def kinds(self):
        return [event.kind for event in self.events]

    def of(self, kind):
        return [event for event in self.events if event.kind == kind]

    def wait_for(self, kind, *, count=1, timeout_s=10.0):
        with self._changed:
            good = self._changed.wait_for(lambda: len(self.of(kind)) >= count, timeout_s)
        assert good, f"no {kind} within {timeout_s} s: {self.kinds}"
        return self.of(kind)[count - 1]


def listening(source, clock=time.monotonic):
    """Attach a listener and a tally to a source."""
    heard, tally = Heard(), Tally()
    source.attach(Context(heard, tally, clock))
    return heard, tally
