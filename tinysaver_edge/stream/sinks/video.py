"""Annotated video: every frame with its answer drawn on it, one file a source."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.opencv import opencv
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

    The first source's frames go to the file that is named, those of any other source to
    ``NAME.SOURCE.ENDING`` beside it. Frames of another size than the first are resized. A revised
    decision comes too late for its frame and is left out.

    Args:
        path: ends in .mp4, .avi or .mkv; a file that is there is replaced.
        fps: frames a second at which it will be played.

    Raises:
        InputError: the ending or the rate is none.
    """

    wants_frames = True

    def __init__(self, path: Path, *, fps: float = 30.0) -> None:
        if path.suffix.lower() not in CODECS:
            raise InputError(f"{path}: a video ends in {', '.join(CODECS)}")
        if not 0 < fps <= 1000:
            raise InputError(f"{path}: {fps} frames a second: must be above 0 and at most 1000")
        self.name = f"video {path.name}"
        self._path = path
        self._fps = fps
        self._cv2: Any = None
        self._writers: dict[str, tuple[Any, tuple[int, int], Path]] = {}

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
        source_id = decision.frame_id.source_id
        if source_id not in self._writers:
            self._writers[source_id] = self._open(source_id, (width, height))
        writer, size, path = self._writers[source_id]
        if not path.exists():
            raise FileNotFoundError(2, "removed while it was being written", str(path))
        picture: Picture = frame.image
        if (width, height) != size:
            picture = self._cv2.resize(picture, size, interpolation=self._cv2.INTER_LINEAR)
        writer.write(annotated(picture, decision))
        return True

    def _open(self, source_id: str, size: tuple[int, int]) -> tuple[Any, tuple[int, int], Path]:
        path = self._path
        if self._writers:
            plain = re.sub(r"[^\w.-]+", "_", source_id)
            path = path.with_name(f"{path.stem}.{plain}{path.suffix}")
        codec = self._cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        writer = self._cv2.VideoWriter(str(path), codec, self._fps, size)
        if not writer.isOpened():
            raise InputError(f"{path}: OpenCV cannot write this video here; try .avi")
        return writer, size, path

    def __enter__(self) -> Self:
        """Check that the file can be made.

        Raises:
            InputError: it cannot be.
            MissingDependencyError: OpenCV is not installed.
        """
        self._cv2 = opencv("Writing video")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("wb").close()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the files; without this an .mp4 cannot be played."""
        for writer, _, _ in self._writers.values():
            writer.release()
        self._writers.clear()
