"""Pictures with their answers drawn on them: as video, one file a source, or in a window."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinysaver_edge._support.files import (
    NOT_OURS,
    check_file_target,
    claim,
    kind_of,
    library_path,
)
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.decision import AnswerSource, Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

COLOURS = {
    AnswerSource.SAVER: (96, 174, 39),
    AnswerSource.LARGE: (219, 152, 52),
    AnswerSource.FUSED: (219, 152, 52),
    AnswerSource.FALLBACK: (15, 150, 241),
    AnswerSource.REUSED: (150, 150, 150),
}
"""BGR colour of the bar, by where the answer comes from."""


def annotated(picture: Picture, decision: Decision) -> Picture:
    """Return a copy with the answer in a bar at its lower edge.

    Args:
        picture: ``(height, width, 3)`` BGR uint8; it is not changed.
        decision: what is said about it.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv("Drawing on pictures")
    drawn = np.array(picture)
    height, width = drawn.shape[:2]
    bar = max(14, height // 16)
    top = height - bar
    drawn[top:] = drawn[top:] // 4
    drawn[top:, : max(4, bar // 3)] = COLOURS[decision.source]
    text = _plain(caption(decision))
    scale = bar / 34
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, (width - bar) / max(1, wide))
    place = (bar // 2 + 4, height - bar // 3)
    thick = max(1, round(bar / 30))
    cv2.putText(
        drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA
    )
    return drawn


def caption(decision: Decision) -> str:
    """Say in one line what was decided, by whom, and what is wrong with it."""
    said = f"{decision.label}  {100 * decision.confidence:.0f} %  {decision.source.value}"
    return f"{said}  degraded: {decision.degraded}" if decision.degraded else said


def _plain(text: str) -> str:
    """OpenCV's font has ASCII only."""
    return text.encode("ascii", "replace").decode()


CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
"""By the file's ending; each of them is in every build of OpenCV with video."""

SPARE_BYTES = 32 << 20
"""OpenCV does not say that a disk is full: below this much room nothing more is written."""


def may_write(video: Path, file: Path, *, by_source: bool) -> bool:
    """Whether a file is one that a `VideoSink` of this path writes.

    Args:
        video: the sink's path.
        file: the other.
        by_source: whether it writes one for each of several sources.
    """
    named = file.name.startswith(f"{video.stem}.") and file.suffix == video.suffix
    try:
        beside = by_source and named and file.parent.samefile(video.parent)
        return beside or video.samefile(file)
    except OSError:  # one of them is not there
        return False


class VideoSink:
    """Writes frames with their answers into a video file.

    With one source its frames go to the file that is named, with several each one's to
    ``NAME.SOURCE.ENDING`` beside it; only their user can read them. Frames of another
    size than the first are resized. A revised decision comes too late for its frame and is left
    out.

    Args:
        path: ends in .mp4, .avi or .mkv; a file that is there is replaced.
        fps: frames a second at which it will be played.
        by_source: whether there are several sources.

    Raises:
        InputError: the ending or the rate is none.
    """

    wants_frames = True

    def __init__(self, path: Path, *, fps: float = 30.0, by_source: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise InputError(f"{path}: a video ends in {', '.join(CODECS)}")
        if not 0 < fps <= 1000:
            raise InputError(f"{path}: {fps} frames a second: must be above 0 and at most 1000")
        self.name = f"video {path.name}"
        self._path = path
        self._fps = fps
        self._by_source = by_source
        self._cv2: Any = None
        self._writers: dict[str, _Open] = {}
        self._held: dict[Path, int] = {}

    def write(self, decision: Decision, frame: Frame | None) -> bool:
        """Append one frame; return whether there was one to append.

        Raises:
            InputError: the file cannot be written.
            OSError: the disk is full, or the file was removed.
        """
        if frame is None or decision.revision:
            return False
        if shutil.disk_usage(self._path.parent).free < SPARE_BYTES:
            raise OSError(28, "No space left on device", str(self._path))
        height, width = frame.image.shape[:2]
        source_id = frame.folder or decision.frame_id.source_id
        if source_id not in self._writers:
            self._writers[source_id] = self._open(source_id, (width, height))
        open_ = self._writers[source_id]
        if not open_.path.exists():
            raise FileNotFoundError(2, "removed while it was being written", str(open_.path))
        picture: Picture = frame.image
        if (width, height) != open_.size:
            picture = self._cv2.resize(picture, open_.size, interpolation=self._cv2.INTER_LINEAR)
        open_.writer.write(annotated(picture, decision))
        open_.frames += 1
        return True

    def _place(self, source_id: str) -> Path:
        """Return the file for a source's frames; no two sources share one."""
        if not self._by_source and not self._writers:
            return self._path
        plain = re.sub(r"[^\w.-]+", "_", source_id)
        taken = {one.path for one in self._writers.values()}
        names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
        paths = [
            self._path.with_name(f"{self._path.stem}.{one}{self._path.suffix}") for one in names
        ]
        return next(path for path in paths if path not in taken)

    def _open(self, source_id: str, size: tuple[int, int]) -> _Open:
        path = self._place(source_id)
        try:
            if path in self._held and not path.exists():  # removed before its first frame came
                os.close(self._held.pop(path))
            if path not in self._held:
                self._held[path] = _make_empty(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        codec = self._cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        writer = self._cv2.VideoWriter(str(path), codec, self._fps, size)
        if not writer.isOpened():
            raise InputError(f"{path}: OpenCV cannot write this video here; try .avi")
        return _Open(writer, size, path)

    def __enter__(self) -> Self:
        """Check that the file can be made.

        Raises:
            InputError: it cannot be.
            MissingDependencyError: OpenCV is not installed.
        """
        self._cv2 = opencv("Writing video")
        library_path(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._by_source:
                check_file_target(self._path, flag="video")
            else:
                self._held[self._path] = _make_empty(self._path)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the files; without this an .mp4 cannot be played.

        Raises:
            OSError: one of them lacks frames: OpenCV does not say so while it writes.
        """
        finished = list(self._writers.values())
        self._writers.clear()
        for one in finished:
            one.writer.release()
        while self._held:
            os.close(self._held.popitem()[1])
        for one in finished:
            self._check(one)
            with suppress(OSError):
                _mark(one.path)

    def _check(self, one: _Open) -> None:
        if not one.path.exists():  # `write` has told that it was removed
            return
        film = self._cv2.VideoCapture(str(one.path))
        try:
            held = film.get(self._cv2.CAP_PROP_FRAME_COUNT) if film.isOpened() else 0
        finally:
            film.release()
        if held + 1 < one.frames or (one.frames and not held):
            raise OSError(
                errno.EIO,
                f"holds {held:.0f} of {one.frames} frames; is the disk full",
                str(one.path),
            )


@dataclass(slots=True)
class _Open:
    """A video that is being written: OpenCV's writer, width and height, the file, its frames."""

    writer: Any
    size: tuple[int, int]
    path: Path
    frames: int = 0


_MARK = b"tinysaver-edge"
_ATTRIBUTE = "user.tinysaver_edge"
"""Tells whose a video is from its first frame on, where the file system keeps such a thing."""


def _mark(path: Path) -> None:
    """End a finished video with a part that players skip, which says who wrote it."""
    with path.open("r+b") as file:
        begins = file.read(12)
        file.seek(0, os.SEEK_END)
        if begins[4:8] == b"ftyp":
            file.write(struct.pack(">I4s", 8 + len(_MARK), b"free") + _MARK)
        elif begins.startswith(b"RIFF"):
            file.write(struct.pack("<4sI", b"JUNK", len(_MARK)) + _MARK)
        elif begins.startswith(b"\x1a\x45\xdf\xa3"):  # Matroska: an element called Void
            file.write(bytes([0xEC, 0x80 | len(_MARK)]) + _MARK)


def _is_ours(path: Path) -> bool:
    """Tell whether this package wrote a video, or one that a kill has left where nobody says so."""
    with suppress(OSError, AttributeError):  # a file system, or a system, that knows none
        os.getxattr(path, _ATTRIBUTE)
        return True
    with path.open("rb") as file:
        begins = file.read(8)
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_MARK)))
        ends = file.read()
    film = opencv("Writing video").VideoCapture(library_path(path))
    plays = film.isOpened()
    film.release()
    return ends == _MARK or (begins[4:] == b"ftyp" and not plays)


def _make_empty(path: Path) -> int:
    """Make the file, for its user alone; one of this package that is there is emptied.

    Returns:
        A descriptor; until it is closed no other run writes there.

    Raises:
        InputError: something else of this name is there, or another run writes there.
        OSError: it cannot be made.
    """
    if (kind := kind_of(path)) is not None:
        raise InputError(f"{path}: is {kind}: a video needs a file")
    if path.is_file() and path.stat().st_size and not _is_ours(path):
        raise InputError(f"{path}: {NOT_OURS}; move it, or name a new one")
    held = claim(path, flags=os.O_WRONLY | os.O_CREAT)
    with suppress(OSError, AttributeError):
        os.setxattr(path, _ATTRIBUTE, b"1")
    os.ftruncate(held, 0)
    return held


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
