"""Annotated video: every frame with its answer drawn on it, one file a source."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import check_file_target, claim, kind_of, library_path
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sinks.annotate import annotated
from tinysaver_edge.stream.sources.source import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
"""By the file's ending; each of them is in every build of OpenCV with video."""

SPARE_BYTES = 32 << 20
"""OpenCV does not say that a disk is full: below this much room nothing more is written."""


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


def _make_empty(path: Path) -> int:
    """Make the file, for its user alone; one that is there is emptied.

    Returns:
        A descriptor; until it is closed no other run writes there.

    Raises:
        InputError: something else of this name is there, or another run writes there.
        OSError: it cannot be made.
    """
    if (kind := kind_of(path)) is not None:
        raise InputError(f"{path}: is {kind}: a video needs a file")
    held = claim(path, flags=os.O_WRONLY | os.O_CREAT)
    os.ftruncate(held, 0)
    return held
