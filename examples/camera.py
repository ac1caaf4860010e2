"""Decide what a camera sees, for as long as it takes.

    python examples/camera.py BUNDLE [SOURCE]

SOURCE is a camera's number, an address (rtsp://, http://), a video file or demo://; see
`tinysaver-edge run --help`. A camera that is lost comes back by itself; the events tell.
"""

import sys
from pathlib import Path

from tinysaver_edge import Cascade
from tinysaver_edge.stream import AnySource, Event


def watch(bundle: str | Path, source: AnySource, *, frames: int | None = None) -> None:
    """Print a line for each frame; stop after so many, or never."""
    with Cascade.load(bundle) as cascade:
        stream = cascade.stream(source, deadline_ms=500, listener=tell)
        for count, decision in enumerate(stream, start=1):
            print(f"{decision.frame_id.sequence:6} {decision.label} {decision.confidence:.2f}")
            if decision.degraded:
                print(f"       not the large model's answer: {decision.degraded}")
            if count == frames:
                break


def tell(event: Event, /) -> None:
    """Say what happens to the camera: connected, lost, reconnected, frames dropped."""
    print(f"{event.source_id}: {event.text}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    watch(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else 0)
