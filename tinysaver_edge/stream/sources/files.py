"""Frames from files: an image, a folder of images or a video, every frame in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tinysaver_edge._support.files import library_path, open_regular
from tinysaver_edge._support.limits import MOST_FILE_BYTES
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.data.collection import EPOCH
from tinysaver_edge.data.epochs import epoch_of
from tinysaver_edge.data.images import (
    IMAGE_SUFFIXES,
    dark_depth,
    decode_image,
    image_files,
    left_out_below,
    printable,
    why_unreadable,
)
from tinysaver_edge.data.looks import MORE_FRAMES, has_more_frames
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.container import shown_frames, why_no_video
from tinysaver_edge.stream.sources.opencv import check_pixels, read_video
from tinysaver_edge.stream.sources.source import Frame, Source
from tinysaver_edge.stream.telemetry.events import Corrupt, Doubtful
from tinysaver_edge.stream.telemetry.metrics import Counter


def open_file(path: Path, *, source_id: str | None = None) -> Source:
    """Open an image, every image below a folder, or a video.

    A folder with an ``epoch.json`` says when its frames were taken, and is one camera's.

    Args:
        path: a file or folder.
        source_id: what decisions call it. By default a video is called by its file name, and each
            image by its path in the folder.

    Raises:
        InputError: there is nothing there, or no image in the folder.
        DataError: the folder's ``epoch.json`` cannot be so.
    """
    if path.is_dir() and (path / EPOCH).is_file():
        epoch = epoch_of(path)
        taken = [path / name for name in epoch.files]
        name = source_id or printable(path.name)
        return ImageSource(taken, root=path, source_id=name, times_s=epoch.seconds)
    if path.is_dir():
        files, doubts = image_files(path), left_out_below(path).lines
        if not files:
            said = "".join(f"; {line}" for line in doubts)
            raise InputError(f"source {path}: no images in this folder{said}")
        return ImageSource(files, root=path, source_id=source_id, doubts=doubts)
    if not path.is_file():
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # from Python 3.14 on, is_file takes every refusal of the system for a no
        raise InputError(f"source {path}: no such file or folder")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], root=path.parent, source_id=source_id)
    return VideoSource(path, source_id=source_id)


class _FileSource(Source):
    """Tells of frames that cannot be read."""

    def _skip(self, sequence: int, reason: str, source_id: str) -> None:
        self.context.metrics.count(Counter.CORRUPT, self.source_id)
        self.tell(Corrupt(source_id, self.context.clock(), sequence, reason))


class ImageSource(_FileSource):
    """Images, one after the other; what cannot be read leaves a gap in the sequence.

    Args:
        files: at least one.
        root: folder that their names are relative to.
        source_id: what all frames are called; None calls each by its own file's name, behind that
            of the source where a stream has several.
        doubts: what was found beside the files, a line each, to be told at the start.
        times_s: when each was taken; None where nobody knows.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        root: Path,
        source_id: str | None = None,
        doubts: Sequence[str] = (),
        times_s: Sequence[float] | None = None,
    ) -> None:
        alone = files[0].name if len(files) == 1 else root.name
        super().__init__(source_id or printable(alone or str(root)))
        self.files, self._root = files, root
        self._name = source_id
        self._doubts = tuple(doubts)
        self._times_s = times_s

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        readable, dim, more, first = 0, False, False, ""
        for doubt in self._doubts:
            self.tell(Doubtful(self.source_id, self.context.clock(), doubt))
        for number, path in enumerate(self.files):
            if self.closed:
                return
            name = self._name or self._name_of(path)
            data, why = _read(path)
            image = decode_image(data) if data else None
            if image is None:
                why = why or why_unreadable(data)
                first = first or why
                self._skip(number, f"{printable(path.name)}: {why}", name)
                continue
            readable += 1
            if not dim and (depth := dark_depth(data)) is not None:
                dim = True
                self.tell(Doubtful(name, self.context.clock(), f"has {depth.text}"))
            if not more and has_more_frames(data):
                more = True
                self.tell(Doubtful(name, self.context.clock(), f"is {MORE_FRAMES}"))
            at_s = 0.0 if self._times_s is None else self._times_s[number]
            yield Frame(image, at_s, number, name, folder=self.source_id)
        if not readable:
            raise InputError(f"source {printable(str(self.files[0]))}: {first}")

    def _name_of(self, path: Path) -> str:
        inside = printable(path.relative_to(self._root).as_posix())
        if self.context.sources == 1:
            return inside
        return self.source_id if len(self.files) == 1 else f"{self.source_id}/{inside}"


def _read(path: Path) -> tuple[bytes, str]:
    """Return an image's bytes, or why there are none, to follow its name."""
    try:
        with open_regular(path) as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    if len(data) > MOST_FILE_BYTES:
        return b"", f"longer than {MOST_FILE_BYTES >> 20} MiB"
    return data, ""


class VideoSource(_FileSource):
    """A video file; frames that cannot be decoded leave a gap in the sequence."""

    def __init__(self, path: Path, *, source_id: str | None = None) -> None:
        super().__init__(source_id or printable(path.name))
        self.files = (path,)
        self._path = path

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        cv2 = opencv("Reading video")
        capture = cv2.VideoCapture(library_path(self._path))
        readable = 0
        try:
            shown = shown_frames(self._path)
            size = self._path.stat().st_size
            check_pixels(capture, self.source_id)
            for number, image in enumerate(
                read_video(capture, reuse=reuse, size_bytes=size, shown=shown)
            ):
                if self.closed:
                    return
                if image is None:
                    self._skip(number, "the frame cannot be decoded", self.source_id)
                    continue
                readable += 1
                time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)  # of the frame that was just read
                yield Frame(image, float(time_ms) / 1e3, number, self.source_id)
        finally:
            capture.release()
        if not readable:
            raise InputError(f"source {self._path}: {why_no_video(self._path)}")
