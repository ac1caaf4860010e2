"""A robot's control loop: an answer every 33 ms, whatever the large model does.

    python examples/robot_loop.py BUNDLE [TURNS]

Each turn submits the newest picture. When the large model has answered within 25 ms, that is the
decision; when it has not (it is slow, hangs, or its host is away), the saver's answer comes back in
its place, `degraded` saying so. The other 8 ms are for the saver, and for acting.
"""

import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge import Cascade, Decision
from tinysaver_edge.stream import open_source

PERIOD_S = 0.033
DEADLINE_MS = 25


def control(
    cascade: Cascade, pictures: Iterable[NDArray[np.uint8]], act: Callable[[Decision], object]
) -> int:
    """Act on each picture once a period; return how many turns took longer than one."""
    late = 0
    due_s = time.monotonic()
    for picture in pictures:
        decision = cascade.submit(picture, deadline_ms=DEADLINE_MS).result()
        act(decision)
        due_s += PERIOD_S
        left_s = due_s - time.monotonic()
        if left_s < 0:
            late += 1
            due_s = time.monotonic()  # do not hurry to catch up: pictures from then are old
        else:
            time.sleep(left_s)
    return late


def show(decision: Decision) -> None:
    """Stand in for a motor."""
    cautious = " (carefully)" if decision.degraded else ""
    print(f"{decision.label} {decision.confidence:.2f}{cautious}")


def main(bundle: str | Path, turns: int) -> None:
    """Run the loop on the simulated camera, which gives its newest picture."""
    with Cascade.load(bundle) as cascade, open_source("demo://?fps=60&seed=1") as camera:
        pictures = (frame.image for frame in camera)
        late = control(cascade, islice(pictures, turns), show)
    print(f"{late} of {turns} turns took longer than {1e3 * PERIOD_S:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300)
