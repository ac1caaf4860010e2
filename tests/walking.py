"""Which files of the package run for something, in the order in which it enters them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

import tinysaver_edge

PACKAGE = Path(tinysaver_edge.__file__).parent


class Walk:
    """Notes the files that are entered, in this thread and those that are started meanwhile.

    A context manager. What runs at import time is not noted.

    Attributes:
        steps: names of threads, and the files that they enter.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def __enter__(self) -> Walk:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def begin(self) -> None:
        """Forget what was noted so far."""
        self.steps = []

    def _note(self, frame, event, _arg):
        if event != "call" or frame.f_code.co_name == "<module>":
            return
        file = Path(frame.f_code.co_filename)
        if PACKAGE in file.parents:
            step = (threading.current_thread().name, file.relative_to(PACKAGE).as_posix())
            if not self.steps or self.steps[-1] != step:
                self.steps.append(step)
            self.entered(step[1], frame)

    def entered(self, file: str, frame: FrameType) -> None:
        """Look at a call, for walks that ask more than its file."""

    def told(self) -> list[str]:
        """Return the files once each, in the order in which they are entered, and print them."""
        files = list(dict.fromkeys(file for _, file in self.steps))
        print(f"{len(files)} files: " + " → ".join(files))
        return files
