"""Are the pictures of a data source independent? Copies and frames of one clip are not.

A certificate counts its samples as so many independent draws. Thirty pictures copied thirty times
are thirty draws, and the frames of a clip hardly more than its scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.data.looks import Looks
from tinysaver_edge.data.source import by_number
from tinysaver_edge.outputs import Outputs

FEWEST = 30
"""Pictures below which nothing is said."""

LEAST_WEIGHT = 0.95
"""Pictures that weigh less than so large a share of their number are no independent ones. CIFAR-10,
which has a few true near-copies, weighs 0.98, parts of it 0.99 and more, 300 ImageNet photos 1.0;
frames of clips 0.01 to 0.6. Copies that are cut out elsewhere are found the less the further they
are moved: photos of which half are there twice, moved by up to a tenth, weigh 0.89."""

ORDERED = 0.7
"""How often a picture may be more like the next one than like another of its class, drawn at
random: 0.5 for pictures in any order; 0.45 to 0.55 on CIFAR-10, ImageNet photos and drawn ones,
0.7 to 0.99 on frames of clips, from every 25th to every one."""

LEAST_LIKENESS, MOST_LIKENESS = 0.6, 0.9
SPREADS = 8.0
"""Two pictures are alike from so many times the usual likeness of two pictures on, within those."""

SAME_GREY = 1.0
"""Or where their small pictures' edges differ by less than so many levels of grey."""

FLAT_GREY = 0.5
"""Pictures whose edges are fainter than this show nothing to compare."""

PAIRS = 20_000
_BLOCK = 512
_SEED = 0x5EED


@dataclass(frozen=True, slots=True)
class Alike:
    """What was found among a data source's pictures.

    Attributes:
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
        return "each image is much like the next in the order of their names"

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
                f"in the order of their names, {self.order:.0%} are more like the next than like "
                f"another of their class (50 % where they are independent)"
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
    if len(kept) < FEWEST:
        return None
    group = _numbers(np.arange(len(names)) if groups is None else groups)[kept]
    label = _numbers(np.asarray(labels))[kept]
    edges = _Edges.of(small)
    usual = edges.likeness(*_random_pairs(label, group))
    least = _least_likeness(usual)
    first = _first_alike(edges, looks.content[kept], group, least)
    order, following = _order(edges, [names[int(one)] for one in kept], label, group, usual)
    _, where = np.unique(looks.content[kept], return_index=True)
    copied = np.setdiff1d(np.arange(len(kept)), where)
    leaders = leading_group(first, group)
    sizes = np.bincount(leaders)
    weight = float(sizes.sum() ** 2 / (sizes.astype(float) ** 2).sum())
    found = np.flatnonzero(first != np.arange(len(kept)))
    example: tuple[int, int] | None = None
    if len(found):
        example = int(kept[first[found[0]]]), int(kept[found[0]])
    elif order is not None and order >= ORDERED and following is not None:
        example = int(kept[following[0]]), int(kept[following[1]])
    return Alike(
        samples=len(kept),
        copies=len(copied),
        repeats=int((leaders != np.arange(len(leaders))).sum()),
        units=len(leaders),
        weight=weight,
        order=order,
        contradicting=_contradicting(looks.content[kept], label),
        example=example,
        grouped=groups is not None,
    )


@dataclass(frozen=True, slots=True)
class _Edges:
    """The differences of neighbouring pixels, less what all pictures share (a fixed background).

    Attributes:
        values: ``(n, d)`` float32.
        held: the same of the pictures held up so that all that are the same but for mirrors and
            turns by quarters are so held alike: these are copies, too.
        length: ``(n,)`` of each, at least that of a picture that shows nothing.
        flat: ``(n,)`` which pictures show nothing to begin with.
    """

    values: NDArray[np.float32]
    held: NDArray[np.float32]
    length: NDArray[np.float32]
    flat: NDArray[np.bool_]

    @classmethod
    def of(cls, small: NDArray[np.uint8]) -> _Edges:
        values = _differences(small)
        held = _differences(_held_up(small - small.mean(axis=0, dtype=np.float32)))
        least = FLAT_GREY * values.shape[1] ** 0.5
        flat = np.linalg.norm(values, axis=1) < least
        values -= values.mean(axis=0)
        length = np.maximum(np.linalg.norm(values, axis=1), least).astype(np.float32)
        return cls(values, held, length, flat)

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
        np.maximum(products, self.held[start:stop] @ self.held[:stop].T, out=products)
        found |= products > least * length[start:stop, None] * length[None, :stop]
        found &= ~self.flat[start:stop, None] & ~self.flat[None, :stop]
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


def _numbers(values: NDArray[np.generic]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return numbers


def _random_pairs(
    label: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of one class and of two groups."""
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
    return float(np.clip(SPREADS * spread, LEAST_LIKENESS, MOST_LIKENESS))


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
    names: Sequence[str],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    usual: NDArray[np.float32],
) -> tuple[float | None, tuple[int, int] | None]:
    """Return how often a picture is more like the next of its class than like another of it.

    The next is the next by name, numbers in names counting as numbers, or by place in the source.
    """
    best: float | None = None
    example: tuple[int, int] | None = None
    by_name = sorted(range(len(names)), key=lambda place: by_number(names[place]))
    for order in (by_name, range(len(names))):
        ranked = np.array(order, np.int64)
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


MOST_LEVELS = 1024
"""Answers that take no more values than this are quantised: two INT8 logits differ in 511 ways, and
each way gives two probabilities."""

LEAST_DOUBT = 1e-3
"""What a model must leave open of a sample for its answer to tell it from others: probabilities
nearer to 1 are coarse."""

_COUNTED = 1 << 18  # values, of all that there are
_SEED = 0xC0B1


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Samples whose answers are an earlier one's.

    Attributes:
        independent: whether few enough are to count them all.
        example: positions of two that are equal; None without copies.
    """

    copies: int
    samples: int
    independent: bool
    example: tuple[int, int] | None

    @property
    def brief(self) -> str:
        """What was found, in a few words."""
        return f"{self.copies} of {self.samples} samples are copies of others"


def find_repeated(
    answers: Sequence[Outputs], groups: NDArray[np.str_] | None = None
) -> RepeatedRows | None:
    """Count the samples that every model answers as it answers an earlier one.

    Samples of one group are not held against each other: groups are what is counted then, and one
    is a copy where most of its samples are of another's.

    Args:
        answers: each model's on the same n samples.
        groups: ``(n,)`` clip or scene of each sample, or None.

    Returns:
        None where there are too few samples, or no model's answers are fine enough to tell.
    """
    samples = answers[0].samples
    fine = [one for one in answers if _is_fine(one)]
    if samples < FEWEST or not fine:
        return None
    telling = np.logical_or.reduce([_tells_apart(one) for one in fine])
    places = np.flatnonzero(telling)
    rows = np.zeros(samples, np.uint64)
    for number, one in enumerate(answers):
        rows += _row_hashes(one, seed=_SEED + number)
    first = np.arange(samples)
    _, begins, which = np.unique(rows[places], return_index=True, return_inverse=True)
    first[places] = places[begins[which]]
    if groups is not None:
        first = np.where(groups[first] == groups, np.arange(samples), first)
    copied = np.flatnonzero(first != np.arange(samples))
    leaders = first if groups is None else leading_group(first, groups)
    sizes = np.bincount(leaders).astype(float)
    weight = sizes.sum() ** 2 / (sizes**2).sum()
    return RepeatedRows(
        copies=len(copied),
        samples=samples,
        independent=bool(weight >= LEAST_WEIGHT * len(leaders)),
        example=(int(first[copied[0]]), int(copied[0])) if len(copied) else None,
    )


def _table(outputs: Outputs) -> NDArray[np.float32]:
    table = outputs.logits if outputs.top_prob is None else outputs.top_prob
    assert table is not None
    return table


def _is_fine(outputs: Outputs) -> bool:
    """Whether a model's answers take so many values that equal ones are no chance."""
    table = _table(outputs)
    rows = max(1, _COUNTED // table.shape[1])
    values = table[:: max(1, len(table) // rows)][:rows]
    return len(np.unique(values)) > MOST_LEVELS


def _tells_apart(outputs: Outputs) -> NDArray[np.bool_]:
    """Return for which samples one model's answer is fine: enough values, and not saturated."""
    return np.asarray(outputs.confidences < 1 - LEAST_DOUBT)


def _row_hashes(outputs: Outputs, *, seed: int) -> NDArray[np.uint64]:
    table = np.ascontiguousarray(_table(outputs))
    parts = [table.view(np.uint32)]
    if outputs.top_class is not None:
        parts.append(outputs.top_class.astype(np.uint32))
    rng = np.random.default_rng(seed)
    hashes = np.zeros(len(table), np.uint64)
    for part in parts:
        for column in part.T:
            odd = rng.integers(1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            hashes += column.astype(np.uint64) * odd
    return hashes
