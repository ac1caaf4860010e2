"""The images worth a look: those the cascade lost, and those escalated for nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.calibrate.report.confidence import class_name
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.preprocess import Frame

EACH = 12
"""Pictures of each kind at most."""

SIDE = 96
"""Longest side of a thumbnail in pixels; smaller images stay as they are."""

_QUALITIES = (82, 60, 35)
_LARGEST_BYTES = 12_000


class PictureKind(str, Enum):
    """Why a picture is shown."""

    LOST = "lost"
    NEEDLESS = "needless"


@dataclass(frozen=True, slots=True)
class Picture:
    """One image with what was said of it.

    Attributes:
        kind: why it is shown.
        file: its name within the data.
        truth: its class.
        saver: the first model's answer.
        large: the large model's answer.
        cascade: the cascade's answer.
        score: the first model's score.
        width: of the thumbnail, in pixels.
        height: of the thumbnail, in pixels.
        source: the thumbnail as a ``data:`` URI of a JPEG.
    """

    kind: PictureKind
    file: str
    truth: str
    saver: str
    large: str
    cascade: str
    score: float
    width: int
    height: int
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredSamples:
    """What was answered on the problem's samples, each ``(n,)``.

    Attributes:
        escalated: whether the first model's answer was not taken.
    """

    labels: NDArray[np.int64]
    saver: NDArray[np.int64]
    large: NDArray[np.int64]
    cascade: NDArray[np.int64]
    score: NDArray[np.float64]
    escalated: NDArray[np.bool_]

    def lost(self) -> NDArray[np.int64]:
        """Samples that only the large model has right, the surest of the wrong answers first."""
        return self._falling((self.large == self.labels) & (self.cascade != self.labels))

    def needless(self) -> NDArray[np.int64]:
        """Samples escalated although the first model was right, the highest score first."""
        return self._falling(self.escalated & (self.saver == self.labels))

    def _falling(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        places = np.flatnonzero(chosen)
        return places[np.argsort(-self.score[places], kind="stable")]


def pictures(
    answered: AnsweredSamples,
    data: DataSource,
    sample_index: NDArray[np.int64],
    *,
    names: Sequence[str] | None,
) -> tuple[Picture, ...]:
    """Make thumbnails of the worst of each kind; images that cannot be read are passed over.

    Args:
        answered: answers on n samples.
        data: the images, open.
        sample_index: ``(n,)`` each sample's position in the data.
        names: class names, or None.
    """
    found: list[Picture] = []
    for kind, places in (
        (PictureKind.LOST, answered.lost()),
        (PictureKind.NEEDLESS, answered.needless()),
    ):
        for place in places[:EACH].tolist():
            position = int(sample_index[place])
            frame = data.frame(position)
            if frame is None:
                continue
            source, height, width = _thumbnail(frame)
            found.append(
                Picture(
                    kind=kind,
                    file=data.samples[position].file,
                    truth=class_name(int(answered.labels[place]), names),
                    saver=class_name(int(answered.saver[place]), names),
                    large=class_name(int(answered.large[place]), names),
                    cascade=class_name(int(answered.cascade[place]), names),
                    score=float(answered.score[place]),
                    width=width,
                    height=height,
                    source=source,
                )
            )
    return tuple(found)


def _thumbnail(frame: Frame) -> tuple[str, int, int]:
    cv2 = opencv("Drawing thumbnails")

    height, width = frame.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    encoded = b""
    for quality in _QUALITIES:
        _, buffer = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        encoded = buffer.tobytes()
        if len(encoded) <= _LARGEST_BYTES:
            break
    text = base64.b64encode(encoded).decode()
    return f"data:image/jpeg;base64,{text}", frame.shape[0], frame.shape[1]
