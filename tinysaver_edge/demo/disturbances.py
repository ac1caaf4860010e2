"""What makes a frame hard: dirt on the belt, things in the way, bad light, blur and noise."""

from __future__ import annotations

import math
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


Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A thick bent line over the frame: a cable, a gripper's finger, a chip of metal, a scratch.

    Attributes:
        points: its course, ``((x, y), ...)`` in pixels.
        colour: (B, G, R), 0 to 255.
    """

    points: tuple[tuple[float, float], ...]
    width_px: int
    colour: Colour

    def paint(self, frame: NDArray[np.uint8], *, shift_px: float = 0.0) -> None:
        """Paint the line into a frame, in place, moved to the right by ``shift_px``."""
        cv2 = opencv("Drawing the demo")

        course = [np.rint((np.array(self.points) + np.array((shift_px, 0))) * 16).astype(np.int32)]
        cv2.polylines(frame, course, False, self.colour, self.width_px, cv2.LINE_AA, 4)
        if self.width_px > 6:
            bright = tuple(min(255.0, 1.3 * c + 18) for c in self.colour)
            cv2.polylines(frame, course, False, bright, self.width_px // 4, cv2.LINE_AA, 4)


@dataclass(frozen=True, slots=True)
class Spot:
    """A drop, a stain or a ball on the belt: an ellipse.

    Attributes:
        x: centre, in pixels.
        y: centre, in pixels.
        axes_px: its half axes.
        angle_deg: how it is turned.
        colour: (B, G, R), 0 to 255.
    """

    x: float
    y: float
    axes_px: tuple[float, float]
    angle_deg: float
    colour: Colour

    def paint(self, frame: NDArray[np.uint8], *, shift_px: float = 0.0) -> None:
        """Paint the spot into a frame, in place, moved to the right by ``shift_px``."""
        cv2 = opencv("Drawing the demo")

        box = ((self.x + shift_px, self.y), self.axes_px, self.angle_deg)
        cv2.ellipse(frame, box, self.colour, -1, cv2.LINE_AA)


@dataclass(frozen=True, slots=True)
class View:
    """How the camera sees the belt for a while.

    Attributes:
        light: index of the lamp among the textures.
        light_angle: where the light comes from, radians.
        gain: (B, G, R) brightness, 1 is normal.
        haze: what stray light adds, 0 to 255.
        defocus_px: standard deviation of the blur.
        motion_px: length of the motion blur along the belt, 1 for none.
        noise: standard deviation of the sensor's noise, in grey levels.
    """

    light: int
    light_angle: float
    gain: Colour
    haze: float
    defocus_px: float
    motion_px: int
    noise: float


def random_view(rng: np.random.Generator, difficulty: float, *, lights: int) -> View:
    """Draw the light, blur and noise of a frame; the harder, the further from a clean picture."""
    brightness = math.exp(difficulty * rng.uniform(-1.1, 0.5) + rng.normal(0, 0.06))
    warmth = rng.normal(0, 0.03 + 0.09 * difficulty)
    return View(
        light=int(rng.integers(lights)),
        light_angle=rng.uniform(0, 2 * math.pi),
        gain=(brightness * (1 - warmth), brightness, brightness * (1 + warmth)),
        haze=difficulty * rng.uniform(0, 60),
        defocus_px=0.5 + difficulty * rng.uniform(0, 3.0),
        motion_px=1 + 2 * round(difficulty * rng.uniform(0, 6)),
        noise=2 + difficulty * rng.uniform(0, 20),
    )


def random_clutter(rng: np.random.Generator, difficulty: float) -> tuple[Line | Spot, ...]:
    """Draw what lies about on the belt around x = 0: stains, chips, scratches and balls."""
    return tuple(
        (_stain, _chip, _scratch, _ball)[int(rng.integers(4))](rng)
        for _ in range(int(rng.poisson(2 + 12 * difficulty)))
    )


def random_occluder(rng: np.random.Generator, difficulty: float, radius_px: float) -> Line | None:
    """Draw something between the camera and a part at the frame's centre, or nothing."""
    if rng.random() > 0.9 * difficulty:
        return None
    angle, away = rng.uniform(0, math.pi), rng.uniform(-0.7, 0.7) * radius_px
    normal = np.array((-math.sin(angle), math.cos(angle)))
    along = np.array((math.cos(angle), math.sin(angle)))
    middle = np.array((FRAME_WIDTH / 2, FRAME_HEIGHT / 2)) + away * normal
    bend = rng.uniform(-40, 40)
    finger = rng.random() < 0.4
    reach = np.linspace(-1 if not finger else -0.2, 1, 9)[:, None]
    course = middle + 260 * reach * along + (bend * reach**2) * normal
    width = round((0.12 + 0.4 * difficulty * rng.random()) * radius_px)
    colour = _shade_of((35, 35, 38), (60, 60, 200), (150, 152, 155), (40, 170, 215), rng=rng)
    return Line(tuple((float(x), float(y)) for x, y in course), max(2, width), colour)


def _anywhere(rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(-0.75, 0.75) * FRAME_WIDTH, rng.uniform(0.08, 0.92) * FRAME_HEIGHT


def _shade_of(*colours: tuple[int, int, int], rng: np.random.Generator) -> Colour:
    """Return one of the colours, a little brighter or darker."""
    factor = rng.uniform(0.8, 1.2)
    blue, green, red = colours[int(rng.integers(len(colours)))]
    return (blue * factor, green * factor, red * factor)


def _stain(rng: np.random.Generator) -> Spot:
    x, y = _anywhere(rng)
    axes = (rng.uniform(8, 50), rng.uniform(6, 26))
    return Spot(x, y, axes, rng.uniform(0, 180), _shade_of((40, 46, 48), (70, 84, 96), rng=rng))


def _ball(rng: np.random.Generator) -> Spot:
    x, y = _anywhere(rng)
    size = rng.uniform(4, 13)
    return Spot(x, y, (size, size), 0.0, _shade_of((170, 172, 175), (60, 130, 170), rng=rng))


def _chip(rng: np.random.Generator) -> Line:
    x, y = _anywhere(rng)
    course = np.cumsum(rng.normal(0, 9, (5, 2)), axis=0) + np.array((x, y))
    width, colour = int(rng.integers(1, 4)), _shade_of((200, 200, 205), (90, 140, 170), rng=rng)
    return Line(tuple((float(a), float(b)) for a, b in course), width, colour)


def _scratch(rng: np.random.Generator) -> Line:
    x, y = _anywhere(rng)
    far = (x + rng.uniform(-120, 120), y + rng.uniform(-30, 30))
    return Line(((x, y), far), 1, _shade_of((120, 122, 125), (30, 32, 34), rng=rng))
