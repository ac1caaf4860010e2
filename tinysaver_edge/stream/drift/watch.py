"""The contract of a watch: it sees a stream's scores and has some accepted frames audited."""

from __future__ import annotations

from typing import Protocol

from tinysaver_edge.decision import Decision
from tinysaver_edge.stream.sources.source import Frame


class Watch(Protocol):
    """Has a share of accepted frames answered by the large model too, and may become stricter.

    An audit never delays a decision: the accepted answer has gone out, and the large model is asked
    only while there is room among the escalations in flight. `in_force` and `audits` are called by
    one thread, `audited` by another; every call returns at once.
    """

    @property
    def wants_frames(self) -> bool:
        """Whether `audited` needs pictures; asked before each frame."""

    @property
    def vouches(self) -> bool:
        """Whether decisions may still claim the bundle's certificate; false once drift is seen.

        Asked for every decision: where it is false, `Decision.certified` is false too.
        """

    def in_force(self, threshold: float) -> float:
        """Return what a stage's score must reach: its threshold in the bundle, or more."""

    def audits(self, decision: Decision) -> bool:
        """Whether the large model shall be asked about this accepted frame as well."""

    def audited(self, accepted: Decision, large: Decision, frame: Frame | None) -> None:
        """Compare what was accepted with what would have been answered after an escalation.

        Args:
            accepted: the decision that went out.
            large: what the same frame is answered after all later stages, the last included.
            frame: the frame at its full size, where `wants_frames` was true when it was read.
        """


class NoWatch:
    """Applies the bundle's threshold and audits nothing."""

    wants_frames = False
    vouches = True

    def in_force(self, threshold: float) -> float:
        """Return the bundle's threshold."""
        return threshold

    def audits(self, decision: Decision) -> bool:
        """Ask for no audit."""
        return False

    def audited(self, accepted: Decision, large: Decision, frame: Frame | None) -> None:
        """Ignore it."""


NO_WATCH = NoWatch()
