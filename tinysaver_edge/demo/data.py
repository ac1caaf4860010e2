"""The simulated camera as labelled images to calibrate on, drawn when they are asked for."""

from __future__ import annotations

from pathlib import Path

from tinysaver_edge.data import DataSource, Sample
from tinysaver_edge.demo.camera import CLASS_NAMES, SimulatedCamera
from tinysaver_edge.errors import DataError
from tinysaver_edge.preprocess import Frame


class CameraData(DataSource):
    """Independent frames of the simulated camera.

    They are drawn anew at every reading, which takes little more than decoding a file would, so
    that no memory or disk holds them.

    Args:
        count: how many frames.
        seed: which camera.
    """

    independent = True

    def __init__(self, count: int, *, seed: int) -> None:
        self._camera = SimulatedCamera(seed=seed)
        self._seed = seed
        labels = [self._camera.scene(index)[0].label for index in range(count)]
        samples = [
            Sample(file=f"frame {index}", label=CLASS_NAMES[label])
            for index, label in enumerate(labels)
        ]
        super().__init__(Path("simulated camera"), samples)

    def frame(self, index: int) -> Frame:
        """Draw one frame."""
        return next(iter(self._camera.frames(1, start=index)))[0]

    def read(self, index: int) -> bytes:
        """Refuse: frames are drawn, not read.

        Raises:
            DataError: always.
        """
        raise DataError(f"frame {index} of the simulated camera is drawn, there is no file")

    def _state(self, index: int) -> str:
        return str(self._seed)
