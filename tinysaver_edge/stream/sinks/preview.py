"""A window with the live picture and its answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.annotate import annotated
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

NO_DISPLAY = (
    "--preview: there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set); "
    "use --dashboard to look from a browser, or --video to look later"
)
NO_WINDOWS = (
    "--preview: this OpenCV was built without windows (opencv-python-headless); "
    "pip install opencv-python instead, or use --dashboard"
)
QUIT_KEYS = frozenset({ord("q"), 27})


class PreviewSink:
    """Shows every source in a window; `q`, Escape or closing the window ends it.

    Args:
        on_quit: called once, when the user closes a window.
        environment: where DISPLAY is looked up; by default the process's own.
    """

    name = "preview"

    def __init__(
        self,
        *,
        on_quit: Callable[[], object] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._on_quit = on_quit
        self._environment = environment
        self._cv2: Any = None
        self._windows: set[str] = set()
        self._done = False

    @property
    def wants_frames(self) -> bool:
        """True until the user has closed it."""
        return not self._done

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Show one frame, and hear of keys and of a closed window; return whether it was shown."""
        if frame is None or self._done:
            return False
        cv2, window = self._cv2, f"tinysaver-edge: {decision.frame_id.source_id}"
        if window in self._windows and cv2.getWindowProperty(window, cv2.WND_PROP_VISIBLE) < 1:
            self._quit()
            return False
        if window not in self._windows:
            cv2.namedWindow(window, cv2.WINDOW_NORMAL)
            self._windows.add(window)
        cv2.imshow(window, annotated(frame.image, decision))
        if cv2.waitKey(1) & 0xFF in QUIT_KEYS:
            self._quit()
        return True

    def _quit(self) -> None:
        self._done = True
        self._cv2.destroyAllWindows()
        self._windows.clear()
        self._on_quit()

    def __enter__(self) -> Self:
        """Check that windows can be opened here.

        Raises:
            InputError: there is no display, or OpenCV has no windows.
            MissingDependencyError: OpenCV is not installed.
        """
        self._cv2 = opencv("A preview window")
        told = os.environ if self._environment is None else self._environment
        if sys.platform == "linux" and not (told.get("DISPLAY") or told.get("WAYLAND_DISPLAY")):
            raise InputError(NO_DISPLAY)
        try:
            self._cv2.destroyAllWindows()
        except self._cv2.error as error:
            raise InputError(NO_WINDOWS) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._windows:
            self._cv2.destroyAllWindows()
            self._windows.clear()
