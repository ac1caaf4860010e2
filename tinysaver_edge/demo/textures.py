"""What the camera would see anyway: belt surfaces, uneven light and sensor noise, made once.

Drawing a frame must take about a millisecond, so everything that needs many random numbers is
prepared here and frames only cut pieces out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv

FRAME_WIDTH: Final = 320
FRAME_HEIGHT: Final = 240

#: Colour (B, G, R), spacing of the ribs in pixels (0: none) and their depth, for each belt.
_BELTS: Final = (
    ((62, 78, 52), 0, 0),
    ((48, 46, 45), 16, 10),
    ((112, 110, 106), 6, 8),
    ((104, 74, 48), 0, 0),
    ((58, 66, 84), 32, 9),
)
_RAIL_HEIGHT: Final = 14
_LIGHTS: Final = 8
_SPARE: Final = 64


@dataclass(frozen=True, slots=True)
class Textures:
    """Ready-made surfaces of one camera.

    Attributes:
        belts: one closed loop of each belt with its opening repeated at the end,
            uint8 ``(belts, 240, loop + 320, 3)``.
        lights: relative brightness over the frame, float32 ``(lights, 240, 320, 3)``, mean near 1.
        noise: standard normal noise, larger than a frame by ``spare`` either way, float32.
        loop: length of the belts in pixels.
        spare: how far a cut out of ``noise`` may be moved, in pixels.
    """

    belts: NDArray[np.uint8]
    lights: NDArray[np.float32]
    noise: NDArray[np.float32]
    loop: int
    spare: int

    @classmethod
    def make(cls, seed: int) -> Textures:
        """Return the textures that belong to a seed; takes about 0.1 s."""
        rng = np.random.default_rng([seed, 7])
        loop = 2 * FRAME_WIDTH
        belts = np.stack([_belt(rng, loop, *belt) for belt in _BELTS])
        lights = np.stack([_light(rng) for _ in range(_LIGHTS)])
        shape = (FRAME_HEIGHT + _SPARE, FRAME_WIDTH + _SPARE, 3)
        grey = rng.standard_normal((*shape[:2], 1), dtype=np.float32)
        colour = rng.standard_normal(shape, dtype=np.float32)
        noise = np.ascontiguousarray(0.85 * grey + 0.5 * colour)
        return cls(belts=belts, lights=lights, noise=noise, loop=loop, spare=_SPARE)


def _belt(
    rng: np.random.Generator, loop: int, colour: tuple[int, int, int], rib: int, depth: int
) -> NDArray[np.uint8]:
    """Return one belt: its weave, wear along its run, ribs across it, and the rails beside it."""
    cv2 = opencv("Drawing the demo")

    surface = np.zeros((FRAME_HEIGHT, loop), dtype=np.float32)
    for sigma_x, sigma_y, strength in ((0.7, 0.7, 5.0), (6.0, 6.0, 4.0), (60.0, 2.0, 4.0)):
        grain = cv2.GaussianBlur(
            rng.standard_normal(surface.shape), (0, 0), sigmaX=sigma_x, sigmaY=sigma_y
        )
        surface += (strength / grain.std() * grain).astype(np.float32)
    if rib:
        surface += depth * np.cos(2 * np.pi * np.arange(loop) / rib).astype(np.float32)
    picture: Any = np.array(colour, dtype=np.float32) + surface[..., None]
    rail = 150 + 40 * np.sin(np.pi * np.arange(_RAIL_HEIGHT) / _RAIL_HEIGHT)[:, None, None]
    picture[:_RAIL_HEIGHT] = rail
    picture[-_RAIL_HEIGHT:] = 0.8 * rail
    picture[_RAIL_HEIGHT : _RAIL_HEIGHT + 4] *= 0.5
    closed = np.concatenate((picture, picture[:, :FRAME_WIDTH]), axis=1)
    whole: NDArray[np.uint8] = np.clip(closed, 0, 255).astype(np.uint8)
    return whole


def _light(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return one lamp's light over the frame: a slope and a bright middle somewhere."""
    y, x = np.mgrid[0:FRAME_HEIGHT, 0:FRAME_WIDTH].astype(np.float32)
    x, y = x / FRAME_WIDTH - 0.5, y / FRAME_HEIGHT - 0.5
    slope_x, slope_y = rng.uniform(-0.5, 0.5, 2)
    middle_x, middle_y = rng.uniform(-0.3, 0.3, 2)
    spot = np.exp(-((x - middle_x) ** 2 + (y - middle_y) ** 2) / rng.uniform(0.15, 0.6))
    field = (1 + slope_x * x + slope_y * y) * (0.6 + 0.6 * spot)
    field /= field.mean()
    return np.repeat(field[..., None], 3, axis=2).astype(np.float32)
