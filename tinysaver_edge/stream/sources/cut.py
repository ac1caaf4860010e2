"""What of a frame is looked at: one region of it, with parts of it blanked.

Both are applied before anybody sees the picture: what is cut away is in no file, and no model was
asked about it. A bundle that was calibrated on cut frames runs on frames cut alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import read_file
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.data.images import decode_image, is_image
from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import Frame as Picture
from tinysaver_edge.stream.sources.source import Around, Frame, Source

if TYPE_CHECKING:
    from collections.abc import Generator

_NAMED = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)
_POINT = re.compile(r"(\d+),(\d+)")
_RECTANGLE = re.compile(r"(\d+),(\d+),(\d+),(\d+)")
_MOST_PIXELS = 100_000


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle, in pixels of the whole frame.

    Attributes:
        left: first column.
        top: first row.
        width: columns, at least 1.
        height: rows, at least 1.
    """

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    @classmethod
    def parse(cls, text: str, *, option: str) -> Region:
        """Read ``x,y,w,h``.

        Raises:
            InputError: it is none.
        """
        found = _RECTANGLE.fullmatch(text.replace(" ", ""))
        values = [] if found is None else [int(one) for one in found.groups()]
        if not values or not (values[2] and values[3]) or max(values) > _MOST_PIXELS:
            raise InputError(f"{option} {text}: expected x,y,w,h in whole pixels, as 0,120,640,360")
        return cls(*values)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What is left of a frame.

    Attributes:
        region: what is looked at; None for the whole.
        blanked: polygons, each ``(k, 2)`` int32 of x and y, that become black.
        mask: ``(height, width)`` uint8, 0 where a pixel becomes black; None for no picture.
    """

    region: Region | None = None
    blanked: tuple[NDArray[np.int32], ...] = ()
    mask: NDArray[np.uint8] | None = None

    def keep(self, height: int, width: int) -> NDArray[np.uint8] | None:
        """Return which pixels of the region stay, 255 or 0; None where all do.

        Raises:
            InputError: region or mask does not fit a frame of this size.
        """
        size = f"the frames are {width} × {height}"
        one = self.region
        if one is not None and (one.left + one.width > width or one.top + one.height > height):
            raise InputError(f"--region {one} reaches beyond the picture: {size}")
        if self.mask is not None and self.mask.shape != (height, width):
            shape = f"{self.mask.shape[1]} × {self.mask.shape[0]}"
            raise InputError(f"--mask: the picture is {shape}, {size}: they must be of one size")
        if self.mask is None and not self.blanked:
            return None
        kept = np.full((height, width), 255, np.uint8) if self.mask is None else self.mask.copy()
        for points in self.blanked:
            if (points.max(axis=0) > (width, height)).any():
                raise InputError(f"--mask: a corner lies beyond the picture: {size}")
            opencv("Masking frames").fillPoly(kept, [points], 0)
        return self._within(kept)

    def _within(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        one = self.region
        if one is None:
            return picture
        return picture[one.top : one.top + one.height, one.left : one.left + one.width]

    def apply(self, image: Picture, kept: NDArray[np.uint8] | None) -> Picture:
        """Return what is left of a picture, in memory of its own."""
        left: Picture = self._within(image).copy()
        if kept is not None:
            left[kept == 0] = 0
        return left


class CutSource(Around):
    """Gives the frames of another source, cut."""

    def __init__(self, source: Source, cut: Cut) -> None:
        super().__init__(source)
        self._cut = cut

    def _frames(self, reuse: bool) -> Iterator[Frame]:
        frames = self._source.frames(reuse=reuse)
        size, kept = (0, 0), None
        with closing(cast("Generator[Frame, None, None]", frames)):
            for frame in frames:
                height, width = frame.image.shape[:2]
                if (height, width) != size:
                    size = (height, width)
                    try:
                        kept = self._cut.keep(height, width)
                    except InputError as error:
                        raise InputError(f"source {self.source_id}: {error}") from None
                yield replace(frame, image=self._cut.apply(frame.image, kept))


def cut_sources(
    sources: Sequence[Source], *, regions: Sequence[str], masks: Sequence[str]
) -> tuple[list[Source], str]:
    """Have sources give parts of their frames only.

    Args:
        sources: all of them, by the names that options may call them.
        regions: ``[NAME=]x,y,w,h`` in pixels; without a name it holds for every source.
        masks: ``[NAME=]FILE``, a picture of the frames' size whose black pixels become black;
            ``[NAME=]x,y,w,h``, a rectangle that becomes black; or ``[NAME=]x,y x,y x,y …``, a
            polygon that does. Several add up.

    Returns:
        Sources to be used in place of those given, and what was cut, in words; "" for nothing.

    Raises:
        InputError: an option cannot be read, or names no source.
    """
    given = [("--region", *_named(text, sources)) for text in regions]
    given += [("--mask", *_named(text, sources)) for text in masks]
    cuts: dict[int, Cut] = {}
    for option, name, text in given:
        for place, source in enumerate(sources):
            if name in (None, source.source_id):
                cuts[place] = _added(cuts.get(place, Cut()), option, text)
    # Of a mask's file not even the name is told: it may name a place.
    said = [
        f"{option} {'' if name is None else f'{name}='}{_told(text)}"
        for option, name, text in given
    ]
    cut = [
        CutSource(one, cuts[place]) if place in cuts else one for place, one in enumerate(sources)
    ]
    return cut, " ".join(said)


def _told(text: str) -> str:
    return text if _points(text) is not None else "PICTURE"


def _named(text: str, sources: Sequence[Source]) -> tuple[str | None, str]:
    found = _NAMED.fullmatch(text)
    if found is None or Path(text).exists():
        return None, text
    name, rest = found.groups()
    names = [one.source_id for one in sources]
    if name not in names:
        raise InputError(f"{text}: no source is called {name}; there are {', '.join(names)}")
    return name, rest


def _added(cut: Cut, option: str, text: str) -> Cut:
    if option == "--region":
        if cut.region is not None:
            raise InputError(f"--region {text}: there is one for this source already")
        return replace(cut, region=Region.parse(text, option=option))
    points = _points(text)
    if points is not None:
        return replace(cut, blanked=(*cut.blanked, points))
    mask = _picture(Path(text))
    if cut.mask is not None:
        if cut.mask.shape != mask.shape:
            raise InputError(f"--mask {text}: is of another size than the one before it")
        mask = np.minimum(mask, cut.mask)
    return replace(cut, mask=mask)


def _points(text: str) -> NDArray[np.int32] | None:
    """Read a rectangle or a polygon; None where it is neither."""
    rectangle = _RECTANGLE.fullmatch(text.replace(" ", ""))
    if rectangle is not None and len(text.split()) == 1:
        one = Region.parse(text, option="--mask")
        # The corners of a filled polygon are part of it.
        right, bottom = one.left + one.width - 1, one.top + one.height - 1
        corners = [(one.left, one.top), (right, one.top), (right, bottom), (one.left, bottom)]
        return np.array(corners, np.int32)
    found = [_POINT.fullmatch(word) for word in text.split()]
    if len(found) < 3 or not all(found):
        return None
    points = np.array([[int(one[1]), int(one[2])] for one in found if one], np.int64)
    if points.max() > _MOST_PIXELS:
        raise InputError(f"--mask {text}: a corner lies beyond any picture")
    return points.astype(np.int32)


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        data = read_file(path) if is_image(path.name) else b""
        image = decode_image(data) if data else None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no name that a file can have"
        raise InputError(f"--mask {path}: cannot be read ({why.lower()})") from error
    if image is None:
        raise InputError(
            f"--mask {path}: expected a picture (black is blanked), x,y,w,h, or at least three "
            f"corners x,y of a polygon, in whole pixels"
        )
    kept: NDArray[np.uint8] = np.where(image.max(axis=2) >= 128, 255, 0).astype(np.uint8)
    return kept
