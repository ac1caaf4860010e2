"""A source of one's own: raw pictures from another program's output.

    python examples/custom_source.py BUNDLE 640 480 PROGRAM ARGUMENT…

for example, on a Raspberry Pi:

    … 640 480 rpicam-vid -n -t 0 --width 640 --height 480 --codec yuv420 -o -

A `Device` says how to connect, a connection how to read; `LiveSource` does the rest: a thread that
keeps the newest frame only, time-outs, opening it again when it is lost, events.
"""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysaver_edge import Cascade
from tinysaver_edge.stream import Connection, DeviceError, LiveOptions, LiveSource


class Program:
    """A program that writes one picture after the other, YUV 4:2:0 planar."""

    def __init__(self, command: Sequence[str], *, width: int, height: int) -> None:
        self._command, self._width, self._height = command, width, height

    def connect(self, options: LiveOptions, stopping: threading.Event, /) -> Connection:
        """Start the program."""
        try:
            process = subprocess.Popen(self._command, stdout=subprocess.PIPE, bufsize=0)
        except OSError as error:
            raise DeviceError(f"{self._command[0]}: {error.strerror}") from error
        assert process.stdout is not None
        return _Output(process, process.stdout, self._width, self._height, options.read_s)


class _Output:
    """What the program writes."""

    live_wait_s: float | None = None  # a pipe piles up a picture at most

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: IO[bytes],
        width: int,
        height: int,
        timeout_s: float,
    ) -> None:
        self._process, self._output, self._timeout_s = process, output, timeout_s
        self._raw = np.empty((height * 3 // 2, width), np.uint8)

    def read(self, into: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
        """Wait for the next picture."""
        view = self._raw.data.cast("B")
        deadline_s = time.monotonic() + self._timeout_s
        while view:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._output], [], [], left_s)[0]:
                raise DeviceError(f"no picture for {self._timeout_s:g} s")
            data = os.read(self._output.fileno(), len(view))
            if not data:
                raise DeviceError("the program has ended")
            view[: len(data)] = data
            view = view[len(data) :]
        picture: NDArray[np.uint8] = cv2.cvtColor(self._raw, cv2.COLOR_YUV2BGR_I420)
        return picture

    def close(self) -> None:
        """Stop the program."""
        self._process.kill()
        self._process.wait()
        self._output.close()


def main(
    bundle: str | Path,
    width: int,
    height: int,
    command: Sequence[str],
    *,
    frames: int | None = None,
) -> None:
    """Decide what the program shows."""
    device = Program(command, width=width, height=height)
    with Cascade.load(bundle) as cascade:
        stream = cascade.stream(LiveSource(device, source_id=command[0]))
        for count, decision in enumerate(stream, start=1):
            print(f"{decision.frame_id.sequence}: {decision.label}")
            if count == frames:
                break


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
