"""What the gate does with what cameras see, at still = 2 and epochs of 10 s: see docs/reuse.md.

`pytest -s tests/test_reuse_scenes.py` prints it anew. Frames are drawn: a scene of soft shapes and
fine texture, 320 x 180, at 30 frames a second, with the noise of a sensor unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tinysaver_edge.reuse import Gate, ReuseRule, Thumbnailer

FPS = 30
SECONDS = 20
FRAMES = FPS * SECONDS
HEIGHT, WIDTH = 180, 320
NOISE = 4.0
"""Standard deviation of a pixel, in grey levels: a small sensor indoors."""

Picture = NDArray[np.float32]
Show = Callable[[int, Picture], Picture]
"""From a frame's number and the scene to what reaches the sensor."""


def scene(seed: int) -> Picture:
    """Draw a scene of brightness 30 to 200."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.zeros((HEIGHT, WIDTH), np.float32)
    for _ in range(6):
        y, x, size = draw.uniform(0, HEIGHT), draw.uniform(0, WIDTH), draw.uniform(20, 80)
        picture += draw.uniform(-70, 70) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / size**2)
    picture += draw.normal(0, 6, picture.shape)
    return np.clip(115 + picture, 30, 200).astype(np.float32)


def flicker(frame: int, row: NDArray[np.float64], *, mains_hz: float, depth: float) -> NDArray:
    """Brightness of rows read one after the other over 1/30 s under lamps on the mains."""
    time_s = frame / FPS + row / HEIGHT / FPS
    return 1 + depth * np.sin(2 * math.pi * 2 * mains_hz * time_s)


def under_lamps(mains_hz: float, depth: float) -> Show:
    rows = np.arange(HEIGHT)[:, None]
    return lambda n, picture: picture * flicker(n, rows, mains_hz=mains_hz, depth=depth)


def fading(over_s: float, to: float) -> Show:
    return lambda n, picture: picture * (1 + (to - 1) * min(1, n / (over_s * FPS)))


def switched_to_infrared(n: int, picture: Picture) -> Picture:
    """At 7 s the filter swings away: brighter, flatter, without colour."""
    return picture if n < 7 * FPS else 90 + 0.6 * picture


def an_object_enters(size: float) -> Show:
    """At 7 s something bright stands there, as wide as this share of the picture."""

    def show(n: int, picture: Picture) -> Picture:
        shown = picture.copy()
        if n >= 7 * FPS:
            high, wide = round(size * HEIGHT), round(size * WIDTH)
            shown[40 : 40 + high, 100 : 100 + wide] = 230
        return shown

    return show


def panning(pixels: float) -> Show:
    return lambda n, picture: np.roll(picture, round(n * pixels), axis=1)


def at_rest(n: int, picture: Picture) -> Picture:
    return picture


SHOWS: dict[str, tuple[Show, tuple[int, int]]] = {
    # what: how, and how many of the 600 frames ask a model: at least, at most
    "at rest, with noise only": (at_rest, (2, 2)),
    "lamps at 50 Hz, 1 % deep": (under_lamps(50, 0.01), (2, 2)),
    "lamps at 50 Hz, 10 % deep": (under_lamps(50, 0.10), (600, 600)),
    "lamps at 60 Hz, 10 % deep": (under_lamps(60, 0.10), (2, 2)),
    "a slow fade to half over 20 s": (fading(20, 0.5), (20, 32)),
    "day to night within 5 s": (fading(5, 0.2), (33, 45)),
    "switch to infrared at 7 s": (switched_to_infrared, (3, 3)),
    "an object of a tenth of each side at 7 s": (an_object_enters(0.1), (2, 2)),
    "an object of a third of each side at 7 s": (an_object_enters(0.33), (3, 3)),
    "panning by a pixel in 320 every 10 frames": (panning(0.1), (10, 20)),
    "panning by a pixel in 320 a frame": (panning(1), (100, 140)),
}


def asked_of(show: Show, *, still: float = 2.0, noise: float = NOISE) -> list[int]:
    """Return the frames that a model is asked about."""
    gate: Gate[int] = Gate(ReuseRule(still, 0.0, epoch_s=10.0))
    make, draw, seen = Thumbnailer(), np.random.default_rng(1), scene(0)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    asked = []
    for n in range(FRAMES):
        picture = show(n, seen) + noise * draw.standard_normal(seen.shape, np.float32)
        frame[:] = np.clip(picture, 0, 255).astype(np.uint8)[:, :, None]
        if gate.look(n, make(frame), n / FPS).repeats is None:
            asked.append(n)
    return asked


@pytest.mark.parametrize("what", SHOWS)
def test_the_gate_asks_as_often_as_is_written_down(what: str) -> None:
    show, (least, most) = SHOWS[what]
    asked = asked_of(show)
    print(f"\n| {what} | {len(asked)} of {FRAMES} |")
    assert least <= len(asked) <= most
    assert {0, 10 * FPS} <= set(asked)  # each epoch begins with an empty memory


@pytest.mark.parametrize("show", [switched_to_infrared, an_object_enters(0.33)])
def test_what_happens_at_once_is_asked_about_at_once(show: Show) -> None:
    assert 7 * FPS in asked_of(show)


def test_a_scene_cut_at_every_frame_is_asked_about_every_time() -> None:
    gate: Gate[int] = Gate(ReuseRule(2.0, 0.0))
    make = Thumbnailer()
    for n in range(40):
        frame = np.repeat(scene(n).astype(np.uint8)[:, :, None], 3, axis=2)
        assert gate.look(n, make(frame), n / FPS).repeats is None


def test_a_frozen_camera_is_asked_about_once_an_epoch() -> None:
    assert asked_of(at_rest, noise=0.0) == [0, 10 * FPS]


def test_a_fade_is_never_missed_by_more_than_the_limit() -> None:
    gate: Gate[int] = Gate(ReuseRule(2.0, 0.0, epoch_s=1e4))
    make, seen = Thumbnailer(), scene(0)
    brightness: dict[int, float] = {}
    for n in range(FRAMES):
        frame = np.repeat((seen * (1 - 0.5 * n / FRAMES)).astype(np.uint8)[:, :, None], 3, axis=2)
        brightness[n] = float(make(frame).mean()) / 256
        look = gate.look(n, make(frame), n / FPS)
        if look.repeats is not None:
            assert abs(brightness[n] - brightness[look.repeats]) < 2.0
