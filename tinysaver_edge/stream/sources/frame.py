"""One frame of a stream: the picture, when it was taken, and which one it is."""

from __future__ import annotations

from dataclasses import dataclass

from tinysaver_edge.decision import FrameId
from tinysaver_edge.preprocess import Frame as Picture


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture and where it comes from.

    Attributes:
        image: ``(height, width, 3)`` BGR uint8.
        timestamp_s: when it was taken, in seconds: on the stream's clock for live sources, from
            the start of a video file, 0 for images.
        sequence: position in its source, from 0. It only grows; a gap is a frame that was dropped
            or could not be read.
        source_id: name of the camera or file, without any credentials.
    """

    image: Picture
    timestamp_s: float
    sequence: int
    source_id: str

    @property
    def frame_id(self) -> FrameId:
        """Source and sequence, as decisions name the frame."""
        return FrameId(self.source_id, self.sequence)
