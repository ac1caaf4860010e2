"""Are the pictures of a data source independent? Copies and frames of one clip are not.

A certificate counts its samples as so many independent draws. Thirty pictures copied thirty times
are thirty draws, and the frames of a clip hardly more than its scenes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.numbers import percent
from tinysaver_edge.data.looks import SIDE, Looks

FEWEST = 30
"""Pictures below which nothing is said but of copies, byte for byte."""

LEAST_WEIGHT = 0.95
"""Pictures that weigh less than so large a share of their number are no independent ones. CIFAR-10,
which has a few true near-copies, weighs 0.98, parts of it 0.99 and more, 300 ImageNet photos 1.0;
frames of clips 0.01 to 0.6. Copies that are cut out elsewhere are found the less the further they
are moved: photos of which half are there twice, moved by up to a tenth, weigh 0.89."""

ORDERED = 0.7
"""How often a picture may be more like the next one than like another of its class, drawn at
random: 0.5 for pictures in any order; 0.45 to 0.55 on CIFAR-10, ImageNet photos and drawn ones,
0.7 to 0.99 on frames of clips, from every 25th to every one."""

LEAST_LIKENESS = 0.6
ALIKE_FROM = ((0.075, 0.1125, 0.2, 0.28), (LEAST_LIKENESS, 0.9, 0.9, 0.96))
"""By the usual likeness of two pictures: from where on they are alike. Of what mostly looks the
same, written digits or parts on a plain ground, some are 0.9 alike by chance, few are 0.96."""

SAME_GREY = 1.0
"""Or where their small pictures' edges differ by less than so many levels of grey."""

FLAT_GREY = 0.5
"""Pictures whose edges are fainter than this show nothing to compare but their one colour."""

PARTS = tuple(
    (top, left, side)
    for side, steps in ((0.85, 3), (0.7, 4))
    for top in np.linspace(0, 1 - side, steps)
    for left in np.linspace(0, 1 - side, steps)
)
"""Parts of a picture that another may show."""

PART_PAIRS = 4_000_000
"""So many pairs are held against each other part by part: of more than 2,000 pictures some are
drawn, and held against all."""

BEYOND_CHANCE, MOST_LIKENESS_OF_PARTS = 2.1, 0.97
RISING = 0.1
"""A part is alike from so many times what one in a thousand reaches by chance, and this much more
for each factor e of pictures from 300 on: there are the more pairs."""

COMPARED = 16
"""Width and height of what is compared of small pictures: a whole one, or a part."""
PAIRS = 20_000
_BLOCK = 512
_SEED = 0x5EED


@dataclass(frozen=True, slots=True)
class Alike:
    """What was found among a data source's pictures.

    Attributes:
        samples: how many pictures there are.
        copies: pictures whose file is a copy of an earlier one's, byte for byte.
        repeats: units (pictures, or groups of them) that look like an earlier one's; copies too.
        weight: how many independent units they weigh as much as: ``units² / Σ cluster²``.
        order: how often a picture is more like the next than like another, 0..1; None where that
            cannot be told.
        contradicting: copies that are labelled otherwise than the file that they are a copy of.
        example: positions of two pictures that are alike, or follow each other and are.
        grouped: whether the units are groups.
    """

    samples: int
    copies: int
    repeats: int
    units: int
    weight: float
    order: float | None
    contradicting: int
    example: tuple[int, int] | None
    grouped: bool = False

    @property
    def independent(self) -> bool:
        """Whether they may count as independent draws."""
        alone = self.weight >= LEAST_WEIGHT * self.units
        return alone and (self.order is None or self.order < ORDERED)

    @property
    def brief(self) -> str:
        """The chief of what was found, in a few words that name no file."""
        if self.copies:
            return f"{self.copies} of {self.samples} images are copies of others"
        if self.weight < LEAST_WEIGHT * self.units:
            unit = "groups" if self.grouped else "images"
            return f"{self.repeats} of {self.units} {unit} look like an earlier one"
        return "each image is much like the next in the order of their names or times"

    @property
    def found(self) -> str:
        """What was found, for people; names no file."""
        unit = "groups" if self.grouped else "images"
        found = []
        if self.copies:
            found.append(f"{self.copies} of {self.samples} images are copies of others")
        if self.repeats:
            found.append(
                f"{self.repeats} of {self.units} {unit} look like an earlier one "
                f"(together they weigh as much as {self.weight:.0f})"
            )
        if self.order is not None and self.order >= ORDERED:
            found.append(
                f"in the order of their names or times, {percent(self.order, 0)} are more like the "
                "next than like another of their class (50 % where they are independent)"
            )
        return "; ".join(found)

    def text(self, names: Sequence[str]) -> str:
        """The same with an example; empty where there is nothing to say."""
        if self.example is None or not self.found:
            return self.found
        one, other = self.example
        return f"{self.found}, for example {names[one]} and {names[other]}"


def find_alike(
    looks: Looks,
    names: Sequence[str],
    labels: Sequence[str],
    groups: NDArray[np.str_] | None = None,
) -> Alike | None:
    """Compare every picture with every other.

    Args:
        looks: the pictures.
        names: of their files.
        labels: their classes; empty names where there are none.
        groups: ``(n,)`` clip or scene of each, whose pictures are not held against each other.

    Returns:
        None where there are too few.
    """
    kept, small = looks.compared()
    content, whole = looks.content[kept], looks.content[looks.readable]
    copies = len(whole) - len(np.unique(whole))
    few = len(kept) < FEWEST
    if few and not copies:
        return None
    group = _numbers(np.arange(len(names)) if groups is None else groups)[kept]
    label = _numbers(np.asarray(labels))[kept]
    if few:
        first, order, likely = _first_equal(content, group), None, None
        cut, part_of = 0.0, None
    else:
        edges = _Edges.of(small)
        usual = edges.likeness(*random_pairs(label, group))
        first = _first_alike(edges, content, group, _least_likeness(usual))
        cut, part_of = _parts_alike(small, first) if groups is None else (0.0, None)
        order, likely = _order(edges, looks.orders(kept, names), label, group, usual)
    leaders = leading_group(first, group)
    sizes = np.bincount(leaders).astype(float)
    weight = float(sizes.sum() ** 2 / ((sizes**2).sum() + 2 * cut))
    if groups is None:  # of very many pictures, few copies are drawn together with what they copy
        counts = np.unique(whole, return_counts=True)[1].astype(float)
        weight = min(weight, len(kept) * len(whole) / float((counts**2).sum()))
    found = np.flatnonzero(first != np.arange(len(kept)))
    example: tuple[int, int] | None = None
    if len(found):
        example = int(kept[first[found[0]]]), int(kept[found[0]])
    elif part_of is not None:
        example = int(kept[part_of[0]]), int(kept[part_of[1]])
    elif order is not None and order >= ORDERED and likely is not None:
        example = int(kept[likely[0]]), int(kept[likely[1]])
    elif copies:
        equal = _first_equal(looks.content, np.arange(len(looks.content)))
        copied = np.flatnonzero((equal != np.arange(len(equal))) & looks.readable)
        example = int(equal[copied[0]]), int(copied[0])
    return Alike(
        samples=len(whole),
        copies=copies,
        repeats=int((leaders != np.arange(len(leaders))).sum()) + round(cut),
        units=len(leaders),
        weight=weight,
        order=order,
        contradicting=_contradicting(content, label),
        example=example,
        grouped=groups is not None,
    )


def _first_equal(content: NDArray[np.uint64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each picture the first with the same file, of another group; else itself."""
    _, where, which = np.unique(content, return_index=True, return_inverse=True)
    return np.where(group[where[which]] != group, where[which], np.arange(len(content)))


@dataclass(frozen=True, slots=True)
class _Edges:
    """The differences of neighbouring pixels, less what all pictures share (a fixed background).

    Attributes:
        values: ``(n, d)`` float32.
        held: the same of the pictures held up so that all that are the same but for mirrors and
            turns by quarters are so held alike: these are copies, too.
        length: ``(n,)`` of each, at least that of a picture that shows nothing.
        flat: ``(n,)`` which pictures show nothing to begin with.
        colour: ``(n, 3)`` of each, on average.
    """

    values: NDArray[np.float32]
    held: NDArray[np.float32]
    length: NDArray[np.float32]
    flat: NDArray[np.bool_]
    colour: NDArray[np.float32]

    @classmethod
    def of(cls, pictures: NDArray[np.uint8]) -> _Edges:
        small = _part(pictures)
        values = _differences(small)
        held = _differences(_held_up(small - small.mean(axis=0)))
        least = FLAT_GREY * values.shape[1] ** 0.5
        flat = np.linalg.norm(values, axis=1) < least
        values -= values.mean(axis=0)
        length = np.maximum(np.linalg.norm(values, axis=1), least).astype(np.float32)
        return cls(values, held, length, flat, small.mean(axis=(1, 2)))

    def likeness(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the correlation of pairs, -1..1."""
        parts = [
            np.einsum("nd,nd->n", self.values[a], self.values[b]) / self.length[a] / self.length[b]
            for a, b in zip(_blocks(one), _blocks(other), strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def alike(self, start: int, stop: int, least: float) -> NDArray[np.bool_]:
        """Return which of some pictures are like which before them, ``(stop - start, stop)``."""
        length, square = self.length, np.einsum("nd,nd->n", self.values, self.values)
        products = self.values[start:stop] @ self.values[:stop].T
        apart = square[start:stop, None] + square[None, :stop] - 2 * products
        found = apart < SAME_GREY**2 * self.values.shape[1]
        np.abs(products, out=products)  # light and dark may have changed places
        np.maximum(products, self.held[start:stop] @ self.held[:stop].T, out=products)
        found |= products > least * length[start:stop, None] * length[None, :stop]
        found &= ~self.flat[start:stop, None] & ~self.flat[None, :stop]
        for place in start + np.flatnonzero(self.flat[start:stop]):
            same = np.abs(self.colour[:stop] - self.colour[place]).max(axis=1) < SAME_GREY
            found[place - start] = self.flat[:stop] & same
        return np.asarray(found)


def _held_up(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mirror and turn each square picture until it is brightest above, and next on the left.

    What all pictures share is taken away before: a background, turned with what lies on it, would
    make strangers alike.
    """
    side = small.shape[1]
    down = np.arange(side)[:, None] + 0.5 * np.arange(side)
    weights = np.float32(down.max() - down)
    ways = [np.rot90(small, quarters, axes=(1, 2)) for quarters in range(4)]
    ways += [one[:, :, ::-1] for one in ways]
    brightest = np.argmax([np.einsum("nyxc,yx->n", one, weights) for one in ways], axis=0)
    held = np.empty_like(small)
    for place, one in enumerate(ways):
        held[brightest == place] = one[brightest == place]
    return held


def _differences(small: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    pixels = small.astype(np.float32, copy=False)
    across = np.diff(pixels, axis=2).reshape(len(pixels), -1)
    down = np.diff(pixels, axis=1).reshape(len(pixels), -1)
    return np.concatenate([across, down], axis=1)


def _blocks(index: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [index[start : start + _BLOCK] for start in range(0, len(index), _BLOCK)]


def _part(
    pictures: NDArray[Any], *, top: float = 0.0, left: float = 0.0, side: float = 1.0
) -> NDArray[np.float32]:
    """Return a square part of small pictures, each of its pixels the mean of what it covers.

    Args:
        pictures: ``(n, 32, 32, …)``.
        top: where it begins, 0..1 of the height.
        left: likewise, of the width.
        side: of the part, 0..1.

    Returns:
        ``(n, 16, 16, …)``.
    """
    rows, columns = _covering(top, side), _covering(left, side)
    found = np.empty((len(pictures), COMPARED, COMPARED, *pictures.shape[3:]), np.float32)
    for start in range(0, len(pictures), _BLOCK):
        block = pictures[start : start + _BLOCK].astype(np.float32, copy=False)
        down = np.tensordot(rows, block, (1, 1))
        found[start : start + _BLOCK] = np.tensordot(columns, down, (1, 2)).swapaxes(0, 2)
    return found


def _covering(start: float, side: float) -> NDArray[np.float32]:
    """Return how much of each new pixel each old one covers, ``(16, 32)``."""
    ends = SIDE * (start + side * np.arange(COMPARED + 1) / COMPARED)
    low = np.maximum(ends[:-1, None], np.arange(SIDE))
    high = np.minimum(ends[1:, None], np.arange(SIDE) + 1)
    covered = np.clip(high - low, 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True), np.float32)


def _numbers(values: NDArray[np.generic]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return numbers


def random_pairs(
    label: NDArray[np.int64], group: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of one class and of two groups, which samples are by themselves where None."""
    group = np.arange(len(label)) if group is None else group
    rng = np.random.default_rng(_SEED)
    order = np.argsort(label, kind="stable")
    counts = np.bincount(label)
    starts = np.cumsum(counts) - counts
    one = rng.integers(0, len(label), PAIRS)
    drawn = (rng.random(PAIRS) * counts[label[one]]).astype(np.int64)
    other = order[starts[label[one]] + drawn]
    apart = group[one] != group[other]
    return one[apart], other[apart]


def _least_likeness(usual: NDArray[np.float32]) -> float:
    """Return from where on two pictures are alike, given the likeness of pairs at random."""
    spread = 1.4826 * float(np.median(np.abs(usual))) if len(usual) else 1.0
    return float(np.interp(spread, *ALIKE_FROM))


def _first_alike(
    edges: _Edges, content: NDArray[np.uint64], group: NDArray[np.int64], least: float
) -> NDArray[np.int64]:
    """Return for each picture the first one, of another group, that it is like; else itself.

    Only pictures that are like none before them are compared with, so that a chain of neighbours
    does not count as one scene.
    """
    count = len(content)
    first = np.arange(count)
    leads = np.zeros(count, bool)
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        alike = edges.alike(start, stop, least)
        alike |= content[start:stop, None] == content[None, :stop]
        for place in range(start, stop):
            before = alike[place - start, :place] & leads[:place]
            found = np.flatnonzero(before)
            found = found[group[found] != group[place]]
            if len(found):
                first[place] = found[0]
            else:
                leads[place] = True
    return first


def _parts_alike(
    small: NDArray[np.uint8], first: NDArray[np.int64]
) -> tuple[float, tuple[int, int] | None]:
    """Return how many pictures show what a part of another shows, and two that do.

    So are copies that were cropped, zoomed, moved or framed. Those that are alike as a whole are
    not counted again.
    """
    count = len(small)
    gray = small.mean(axis=3, dtype=np.float32)
    drawn = np.sort(np.random.default_rng(_SEED).permutation(count)[: PART_PAIRS // count])
    known = first[drawn][:, None] == first
    whole, usual = _directions(_part(gray)), []
    best, which = np.zeros(len(drawn)), np.zeros(len(drawn), np.int64)
    for top, left, side in PARTS:
        likeness = _directions(_part(gray[drawn], top=top, left=left, side=side)) @ whole.T
        likeness[known] = 0
        usual.append(likeness.ravel()[:: 1 + likeness.size // PAIRS].copy())  # not the whole of it
        better = likeness.max(axis=1) > best
        which[better] = likeness.argmax(axis=1)[better]
        best = np.maximum(best, likeness.max(axis=1))
    beyond = BEYOND_CHANCE * (1 + RISING * max(0.0, np.log(count / 300)))
    least = max(beyond * float(np.quantile(np.concatenate(usual), 0.999)), LEAST_LIKENESS)
    found = np.flatnonzero(best > least)
    if least > MOST_LIKENESS_OF_PARTS or len(found) < 2:  # or they show too little to tell
        return 0.0, None
    return len(found) * count / len(drawn), (int(drawn[found[0]]), int(which[found[0]]))


def _directions(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return gray pictures' edges, less what all share, ``(n, d)`` of length 1, or nearly 0."""
    values = _differences(pictures)
    least = FLAT_GREY * values.shape[1] ** 0.5
    flat = np.linalg.norm(values, axis=1) < least
    values -= values.mean(axis=0)
    values /= np.maximum(np.linalg.norm(values, axis=1), least)[:, None]
    values[flat] = 0
    return values


def leading_group(first: NDArray[np.int64], group: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return for each group the group that most of its samples are like; else itself.

    Args:
        first: ``(n,)`` for each sample the first of another group that it is like; else itself.
        group: ``(n,)`` group of each.
    """
    numbers = _numbers(group)
    leading = np.arange(int(numbers.max()) + 1)
    sizes = np.bincount(numbers)
    like = first != np.arange(len(first))
    for one in np.unique(numbers[like]):
        mine = numbers[first[like & (numbers == one)]]
        if 2 * len(mine) > sizes[one]:
            leading[one] = np.bincount(mine).argmax()
    return leading


def _order(
    edges: _Edges,
    orders: Iterable[NDArray[np.int64]],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    usual: NDArray[np.float32],
) -> tuple[float | None, tuple[int, int] | None]:
    """Return how often a picture is more like the next of its class than like another of it."""
    best: float | None = None
    example: tuple[int, int] | None = None
    for ranked in orders:
        ranked = ranked[np.argsort(label[ranked], kind="stable")]
        one, other = ranked[:-1], ranked[1:]
        kept = (label[one] == label[other]) & (group[one] != group[other])
        one, other = one[kept], other[kept]
        if len(one) < FEWEST or len(usual) < FEWEST:
            continue
        likeness = edges.likeness(one, other)
        rising = np.sort(usual)
        below = np.searchsorted(rising, likeness, "left") + np.searchsorted(
            rising, likeness, "right"
        )
        share = float(below.mean()) / (2 * len(rising))
        if best is None or share > best:
            best, most = share, int(likeness.argmax())
            example = int(one[most]), int(other[most])
    return best, example


def _contradicting(content: NDArray[np.uint64], label: NDArray[np.int64]) -> int:
    _, first, which = np.unique(content, return_index=True, return_inverse=True)
    return int((label != label[first[which]]).sum())
