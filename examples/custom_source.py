"""A source of one's own: raw pictures from another program's output.

    python examples/custom_source.py BUNDLE 640 480 PROGRAM ARGUMENT…

for example, on a Raspberry Pi:

    … 640 480 rpicam-vid -n -t 0 --width 640 --height 480 --codec yuv420 -o -

A `Device` says how to connect, a connection how to read; `LiveSource` does the rest: a thread that
keeps the newest frame only, time-outs, opening it again when it is lost, events.
"""

import select
import subprocess
import sys
import time

import cv2
import numpy as np

from tinysaver_edge import Cascade
from tinysaver_edge.stream.sources.live import DeviceError, LiveSource


class Program:
    """A program that writes one picture after the other, YUV 4:2:0 planar."""

    def __init__(self, command, *, width, height):
        self._command, self._width, self._height = command, width, height

    def connect(self, patience, stopping):
        """Start the program."""
        try:
            process = subprocess.Popen(self._command, stdout=subprocess.PIPE, bufsize=0)
        except OSError as error:
            raise DeviceError(f"{self._command[0]}: {error.strerror}") from error
        return _Output(process, self._width, self._height, patience.read_s)


class _Output:
    """What the program writes."""

    live_wait_s = None  # a pipe piles up a picture at most

    def __init__(self, process, width, height, timeout_s):
        self._process, self._timeout_s = process, timeout_s
        self._raw = np.empty((height * 3 // 2, width), np.uint8)

    def read(self, into):
        """Wait for the next picture."""
        view = memoryview(self._raw).cast("B")
        deadline_s = time.monotonic() + self._timeout_s
        while view:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise DeviceError(f"no picture for {self._timeout_s:g} s")
            count = self._process.stdout.readinto(view)
            if not count:
                raise DeviceError("the program has ended")
            view = view[count:]
        return cv2.cvtColor(self._raw, cv2.COLOR_YUV2BGR_I420)

    def close(self):
        """Stop the program."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def main(bundle, width, height, command, *, frames=None):
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
