"""OpenCV, loaded when it is first needed: JetPack and ROS bring their own, some uses need none."""

from __future__ import annotations

from typing import Any

from tinysaver_edge.errors import MissingDependencyError


def opencv(purpose: str) -> Any:  # noqa: ANN401 - a module
    """Return the module `cv2`.

    Args:
        purpose: what it is needed for, in a few words, for the error.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("opencv-python", extra="cpu", purpose=purpose) from error
    return cv2
