"""Frames from files: an image, a folder of images or a video, every frame in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinysaver_edge.data import IMAGE_SUFFIXES, decode_image
from tinysaver_edge.errors import InputError, MissingDependencyError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.frame import Frame


def open_frames(source: Path) -> Iterator[Frame]:
    """Yield the frames of an image, of every image below a folder, or of a video.

    Args:
        source: a file or folder.

    Raises:
        InputError: there is nothing there, or nothing in it can be read.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"source {source}: no images in this folder")
        return _images(source, files)
    if not source.is_file():
        raise InputError(f"source {source}: no such file or folder")
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return _images(source.parent, [source])
    return _video(source)


def _images(root: Path, files: list[Path]) -> Iterator[Frame]:
    readable = 0
    for number, path in enumerate(files):
        image = _read(path)
        if image is None:
            continue
        readable += 1
        yield Frame(image, 0.0, number, path.relative_to(root).as_posix())
    if not readable:
        raise InputError(f"source {files[0]}: not a readable image")


def _read(path: Path) -> Picture | None:
    try:
        return decode_image(path.read_bytes())
    except OSError:
        return None


def _video(source: Path) -> Iterator[Frame]:
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(source))
    try:
        number = 0
        while True:
            good, image = capture.read()
            if not good:
                break
            time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)  # of the frame that was just read
            yield Frame(image, float(time_ms) / 1e3, number, source.name)
            number += 1
    finally:
        capture.release()
    if not number:
        raise InputError(f"source {source}: not a readable image or video")


def _opencv() -> Any:  # noqa: ANN401 - a module
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv-python", extra="cpu", purpose="Reading video"
        ) from error
    return cv2
