"""Several cameras share one cascade: each gets its turn, and one that is lost stops no other.

    python examples/several_cameras.py BUNDLE door=rtsp://10.0.0.7/1 yard=rtsp://10.0.0.8/1

The saver's answer is printed at once; where the large model is asked, its answer follows as a
revision of the same frame (``escalation="revise"``).
"""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tinysaver_edge import Cascade
from tinysaver_edge.stream import AnySource, Event


def watch(
    bundle: str | Path, sources: Iterable[AnySource], *, frames: int | None = None
) -> Counter[str]:
    """Print decisions as they come; return how many frames each camera had decided."""
    decided: Counter[str] = Counter()
    with Cascade.load(bundle) as cascade:
        stream = cascade.stream(*sources, escalation="revise", listener=tell)
        for decision in stream:
            camera, sequence = decision.frame_id.source_id, decision.frame_id.sequence
            if decision.revision:
                print(f"{camera} {sequence}: on second thoughts, {decision.label}")
                continue
            decided[camera] += 1
            print(f"{camera} {sequence}: {decision.label}")
            if sum(decided.values()) == frames:
                break
    return decided


def tell(event: Event, /) -> None:
    """Say what happens to the cameras."""
    print(f"{event.source_id}: {event.text}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    watch(sys.argv[1], sys.argv[2:])
