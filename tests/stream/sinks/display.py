"""The preview on a virtual display, in a process of its own; a key ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, time
import cv2
import numpy as np
from tests.stream.decisions import decision, frame
from tinysaver_edge.stream import PreviewSink, Queued

quits, failed = [], []
sink = PreviewSink(on_quit=lambda: quits.append(1))
shown = 0
with Queued(sink, clock=time.monotonic, listener=failed.append) as one:
    for number in range(20):
        one.write(decision(number), frame(number, height=240, width=320))
        time.sleep(0.05)
        shown += 1
    picture = open(sys.argv[1], "rb").read()  # the virtual screen itself, in xwd's format
    real = cv2.waitKey
    cv2.waitKey = lambda delay: (real(delay), ord("q"))[1]
    one.write(decision(20), frame(20, height=240, width=320))
    time.sleep(0.5)
    cv2.waitKey = real
    wants = one.wants_frames
header = int.from_bytes(picture[:4], "big")
width, height = (int.from_bytes(picture[at:at + 4], "big") for at in (16, 20))
colours = int.from_bytes(picture[76:80], "big")
line = int.from_bytes(picture[48:52], "big")
start = header + 12 * colours
pixels = np.frombuffer(picture[start:start + line * height], np.uint8).reshape(height, line // 4, 4)
found = (pixels[:, :, :3] == (10, 200, 90)).all(axis=2).any()
print(json.dumps({
    "shown": shown, "quits": len(quits), "wants_frames_after": wants,
    "colour": [10, 200, 90] if found else None, "failed": [str(one) for one in failed],
}))
"""


def run_preview(folder: Path) -> dict:
    """Show twenty frames, look at the screen, press q."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-fbdir", str(folder)],
        pass_fds=(write,),
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(write)
        display = os.read(read, 16).decode().strip()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder / "Xvfb_screen0")],
            env={**os.environ, "DISPLAY": f":{display}", "QT_LOGGING_RULES": "*=false"},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        server.terminate()
        server.wait(10)
        os.close(read)
