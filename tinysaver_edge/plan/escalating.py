"""Which frames are escalated: as a trace or recorded epochs have them, or in assumed bursts."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from array import array
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinysaver_edge._support.files import read_arrays, read_file
from tinysaver_edge._support.numbers import percent
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.certificate.p_values import rate_interval
from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.deciding.policy import Policy, replay
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import BoolArray, FloatArray
from tinysaver_edge.records.measure import record_name
from tinysaver_edge.records.records import load_record
from tinysaver_edge.records.timeline import KEPT

DEFAULT_BURST_S = 1.0
"""How long a burst of escalations is taken to last where nobody knows; it is always said."""

LEAST_BURSTS = 10
"""So many bursts a trace must have to tell how they come."""

BLOCK_S = 60.0
"""Stretches of a trace that are put together at random to make a camera's hours."""

ALIKE = 1.25
"""Cameras of a trace whose rates differ by less are taken for equally fast."""

_APART = "cameras escalate independently of each other"

QUICK = 0.2
"""The quantile that tells what an answer takes when nobody is in its way."""


class Escalating(ABC):
    """Which of a camera's frames are escalated.

    Attributes:
        rate: share of the frames, 0..1, in the long run.
        asked: share of the frames that the saver is asked about; the others are still.
        said: where that is known from, a line each.
        assumed: what nobody has measured, a line each.
    """

    rate: float
    asked: float
    said: tuple[str, ...]
    assumed: tuple[str, ...]

    @abstractmethod
    def draw(
        self, chance: np.random.Generator, *, cameras: int, frames: int, fps: float
    ) -> BoolArray:
        """Return ``(cameras, frames)``: whether each is escalated, cameras apart."""

    @abstractmethod
    def dispersion(self, fps: float) -> float:
        """Return the variance of one camera's escalations in a long time over their mean.

        Independent frames have ``1 - rate``; the longer the bursts, the more.
        """


@dataclass(frozen=True, slots=True)
class Bursts(Escalating):
    """A chain of two states, escalating and not, that a frame passes with fixed probabilities.

    Both last for geometric numbers of frames (Gilbert, 1960); what is given are the share of the
    frames and the mean length of a burst.

    Attributes:
        burst_s: mean length of a burst; at least as long as those of frames that are independent
            of each other. The others as for `Escalating`.

    Raises:
        InputError: a figure is out of range.
    """

    rate: float
    burst_s: float = DEFAULT_BURST_S
    asked: float = 1.0
    said: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InputError(f"--escalation-rate {self.rate:g}: a share of the frames, 0 to 1")
        if not 0 <= self.burst_s <= 3600:
            raise InputError(f"--burst-s {self.burst_s:g}: from 0 to 3600")

    def lengths(self, fps: float) -> tuple[float, float]:
        """Return the mean numbers of frames in a burst and between two."""
        burst = max(1 / max(1 - self.rate, 1e-12), self.burst_s * fps)
        return burst, burst * (1 - self.rate) / max(self.rate, 1e-12)

    def draw(
        self, chance: np.random.Generator, *, cameras: int, frames: int, fps: float
    ) -> BoolArray:
        """Draw runs of frames that are escalated and that are not, in turn."""
        count = cameras * frames
        if self.rate in (0.0, 1.0):
            return np.full((cameras, frames), bool(self.rate))
        burst, calm = self.lengths(fps)
        cycles = int(1.2 * count / (burst + calm)) + 20
        first = bool(chance.random() < self.rate)  # a geometric length forgets when it began
        runs = np.empty(2 * cycles, np.int64)
        runs[(not first) :: 2] = chance.geometric(1 / burst, cycles)
        runs[first::2] = chance.geometric(1 / calm, cycles)
        while runs.sum() < count:
            runs = np.concatenate([runs, runs])
        runs = runs[: int(np.searchsorted(np.cumsum(runs), count)) + 1]
        states = np.zeros(len(runs), bool)
        states[(not first) :: 2] = True
        return np.repeat(states, runs)[:count].reshape(cameras, frames)

    def dispersion(self, fps: float) -> float:
        """Return it of the chain, exactly."""
        if self.rate in (0.0, 1.0):
            return 0.0
        burst, calm = self.lengths(fps)
        follows = 1 - 1 / burst - 1 / calm
        return (1 - self.rate) * (1 + follows) / (1 - follows)


@dataclass(frozen=True, slots=True)
class Traced(Escalating):
    """Frames as they were recorded, in stretches put together at random.

    Attributes:
        frames_per_s: of the recording.
        flags: whether each frame was escalated, an array for each camera or epoch.
        scores: the saver's, likewise, NaN where it was not asked; none where they are not known.
        threshold: that they were held against.
        device_ms: what a device took each frame that it settled; none where that is not told.
        large_ms: what asking the large model took, likewise. The others as for `Escalating`.
    """

    frames_per_s: float
    flags: tuple[BoolArray, ...]
    scores: tuple[FloatArray, ...] = ()
    threshold: float | None = None
    device_ms: FloatArray = field(default_factory=lambda: np.zeros(0))
    large_ms: FloatArray = field(default_factory=lambda: np.zeros(0))
    asked: float = 1.0
    said: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def rate(self) -> float:  # type: ignore[override]
        """Share of the recorded frames that were escalated."""
        return float(sum(one.sum() for one in self.flags) / sum(map(len, self.flags)))

    def beside_ms(self, batch_ms: FloatArray) -> float:
        """Return what the large model's answers took beyond the model itself.

        Where few wait: at the fifth of the answers that was quickest, and of the model's runs.

        Args:
            batch_ms: what the model takes one frame.
        """
        return max(0.0, float(np.quantile(self.large_ms, QUICK) - np.quantile(batch_ms, QUICK)))

    def at_threshold(self, threshold: float) -> Traced:
        """Return what would have been escalated at another threshold."""
        flags = tuple(~(one >= threshold) & ~np.isnan(one) for one in self.scores)
        return Traced(self.frames_per_s, flags, self.scores, threshold, asked=self.asked)

    def draw(
        self, chance: np.random.Generator, *, cameras: int, frames: int, fps: float
    ) -> BoolArray:
        """Put stretches of the recording together; past its end it goes on at its start."""
        lengths = np.array([len(one) for one in self.flags])
        ends = np.cumsum(lengths)
        whole = np.concatenate(self.flags)
        span = frames / fps
        block_s = min(BLOCK_S, lengths.min() / self.frames_per_s)
        blocks = math.ceil(span / block_s)
        starts = chance.integers(0, ends[-1], (cameras, blocks))
        whose = np.searchsorted(ends, starts, side="right")
        times = np.arange(frames) / fps
        block = np.minimum((times / block_s).astype(int), blocks - 1)
        offset = ((times - block * block_s) * self.frames_per_s).astype(int)
        first, length = (ends - lengths)[whose], lengths[whose]
        within = (starts - first)[:, block] + offset
        found: BoolArray = whole[first[:, block] + within % length[:, block]]
        return found

    def dispersion(self, fps: float) -> float:
        """Return it of stretches of 10 s."""
        found, _ = self.by_10_s()
        if len(found) < 2 or not found.any():
            return 1 - self.rate
        # Frames that come more often are escalated as much longer in a row.
        return float(found.var(ddof=1) / found.mean()) * fps / self.frames_per_s

    def by_10_s(self) -> tuple[FloatArray, int]:
        """Return how many frames each stretch of 10 s has escalated, and how many it has."""
        window = max(1, round(10 * self.frames_per_s))
        whole = [one[: len(one) // window * window] for one in self.flags]
        return np.concatenate(whole).reshape(-1, window).sum(axis=1, dtype=np.float64), window


def of_bundle(bundle: Bundle, *, rate: float | None, burst_s: float | None) -> Bursts:
    """Return what is known of a bundle's escalations without a trace: their share, of its samples.

    Args:
        bundle: an open bundle.
        rate: share of the frames; None goes by the bundle's figures.
        burst_s: how long bursts last; None takes `DEFAULT_BURST_S`, and says so.

    Raises:
        InputError: a figure is out of range.
    """
    found = bundle.manifest.holdout or bundle.manifest.calibration
    reuse = found.reuse
    if rate is not None:
        share, said = rate, f"{percent(rate)} of the frames are escalated: as given"
    elif reuse is not None:
        share = reuse.large
        said = f"{percent(share)} of the frames are escalated: of {reuse.epochs} epochs, with reuse"
    else:
        share = 1 - found.accept_rate
        low, high = rate_interval(round(share * found.samples), found.samples)
        said = (
            f"{percent(share)} of the frames are escalated ({percent(low)} to {percent(high)} by "
            f"95 %): of the bundle's {found.samples:,} samples"
        )
    lasting = DEFAULT_BURST_S if burst_s is None else burst_s
    how = f"escalations come in bursts of {lasting:g} s on average"
    assumed = [_APART]
    if burst_s is None:
        assumed.insert(0, f"{how}: nobody has measured it; --trace or --burst-s tells")
    elif not burst_s:
        assumed.insert(0, "each frame is escalated by chance, independently of those before it")
    return Bursts(
        share,
        lasting,
        asked=1.0 if reuse is None else 1 - reuse.still,
        said=(said,) if burst_s is None else (said, f"{how}: as given"),
        assumed=tuple(assumed),
    )


def read_traces(paths: Sequence[Path], bundle: Bundle) -> Traced:
    """Read JSON lines of `run`.

    Args:
        paths: files.
        bundle: whose stages made the decisions.

    Raises:
        InputError: one cannot be read, is of another bundle, or there is too little of it.
    """
    names = [stage.model.name for stage in bundle.manifest.stages]
    by_source: dict[tuple[int, str], array[float]] = defaultdict(lambda: array("d"))
    answered, others = list[float](), set[str]()
    for number, path in enumerate(paths):
        for line in _lines(path, bundle):
            if line.stage.index == len(names) - 1 and not line.degraded:
                answered.append(line.timings_ms.of(names[-1]))
            if not line.revision:
                by_source[number, line.frame_id.source_id].extend(line.kept)
            if line.bundle is not None and line.bundle.sha256 != bundle.identity.sha256:
                others.add(line.bundle.sha256[:12])
    what = f"trace {', '.join(path.name for path in paths)}"
    tables = [np.array(one).reshape(-1, _KEPT) for one in by_source.values()]
    cameras = [one[np.argsort(one[:, _AT], kind="stable")] for one in tables]
    rate, places = _together([one[:, _AT] for one in cameras])
    if not rate:
        raise InputError(f"{what}: its frames have no times that rise: record a camera")
    frames = np.concatenate(cameras)
    reused, still = frames[:, _ALIKE] > 0, frames[:, _ALIKE] > 1
    settled = frames[(frames[:, _ESCALATED] == 0) & ~reused]
    shared = len(cameras) > len(paths)  # they waited for each other's, which is simulated anew
    played = [one[place] for one, place in zip(cameras, places, strict=True)]
    scored = len(names) == 2 and not reused.any()
    found = Traced(
        frames_per_s=rate,
        flags=tuple(one[:, _ESCALATED] > 0 for one in played),
        scores=tuple(one[:, _SCORE] for one in played) if scored else (),
        threshold=bundle.manifest.stages[0].threshold,
        device_ms=settled[:, _SPENT if shared else _TOTAL],
        large_ms=np.array([one for one in answered if one == one]),
        asked=1 - float(still.mean()),
        assumed=(_APART, *(f"bundle {one} of the trace escalates as this one" for one in others)),
    )
    return _enough(found, what, "camera", len(frames))


def _together(times_s: Sequence[FloatArray]) -> tuple[float, list[NDArray[np.int64]]]:
    """Return one rate for cameras of several, and which frame of each stands at its moments.

    Where rates hardly differ each frame is taken once; else the slower cameras' stand for longer.
    The rate is 0 where no camera's times rise.
    """
    gaps = [np.diff(one) for one in times_s]
    apart = [float(np.median(one)) if len(one) else 0.0 for one in gaps]
    rates = [1 / one for one in apart if 0 < one < math.inf]
    if not rates:
        return 0.0, []
    if max(rates) < ALIKE * min(rates):
        return float(np.median(rates)), [np.arange(len(one)) for one in times_s]
    longer = [max(1.0, one * max(rates)) if one < math.inf else 1.0 for one in apart]
    return max(rates), [
        (np.arange(int(len(one) * times)) / times).astype(np.int64)
        for one, times in zip(times_s, longer, strict=True)
    ]


class _Part(BaseModel):
    """Of a line: what else it holds is passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _StagePart(_Part):
    index: int
    model: str


class _FramePart(_Part):
    source_id: str


class _ReusedPart(_Part):
    alike: str


class _TimingsPart(_Part):
    model_config = ConfigDict(extra="allow")

    total: float = Field(ge=0)

    def of(self, model: str) -> float:
        """Return what a model took, NaN where it is not told."""
        told = (self.model_extra or {}).get(model)
        return float(told) if isinstance(told, int | float) else math.nan

    @property
    def spent(self) -> float:
        """What the steps took, without waiting between them; all of it where none is told."""
        steps = [self.of(step) for step in self.model_extra or {} if step != "waiting"]
        return sum(ms for ms in steps if 0 <= ms < math.inf) if steps else self.total


class _BundlePart(_Part):
    sha256: str


class _Line(_Part):
    """What is wanted of one line of `run --json`; see `decision.Decision`."""

    stage: _StagePart
    frame_id: _FramePart
    timings_ms: _TimingsPart
    timestamp_s: float
    escalated: bool
    revision: int
    degraded: str | None
    score: float | None
    reused: _ReusedPart | None
    bundle: _BundlePart | None = None

    @property
    def kept(self) -> tuple[float, ...]:
        """What is kept of it, in the order of `_AT` and so on: there may be millions of lines."""
        alike = 0 if self.reused is None else 1 + (self.reused.alike == "still")
        score = math.nan if self.score is None else self.score
        took = self.timings_ms
        return (self.timestamp_s, self.escalated, score, alike, took.total, took.spent)


_AT, _ESCALATED, _SCORE, _ALIKE, _TOTAL, _SPENT, _KEPT = range(7)


def _lines(path: Path, bundle: Bundle) -> Iterator[_Line]:
    """Read one file's decisions; what a kill has left of the last line is none.

    Raises:
        InputError: the file cannot be read, or another line is no decision of this bundle.
    """
    names = [stage.model.name for stage in bundle.manifest.stages]
    least = bundle.manifest.stages[0].threshold if len(names) == 2 else None
    try:
        with path.open("rb") if path.is_file() else io.BytesIO(read_file(path)) as file:
            for number, row in enumerate(file, 1):
                if b'"frame_id": null' in row:  # says why the run failed; no decision
                    continue
                try:
                    line = _parsed(row, f"trace {path}: line {number}", names, least)
                except InputError:
                    if number > 1 and not row.endswith(b"\n"):
                        return
                    raise
                yield line
    except OSError as error:
        raise InputError(f"trace {path}: {error.strerror or error}") from error


def _parsed(row: bytes, where: str, names: Sequence[str], least: float | None) -> _Line:
    try:
        line = _Line.model_validate_json(row.removeprefix(BOM_UTF8))
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise InputError(f"{where} is no decision of run --json ({why})") from None
    if line.stage.model not in names:
        raise InputError(
            f"{where} was answered by {line.stage.model}, which is no model of this bundle "
            f"({', '.join(names)}): it is another bundle's"
        )
    score, asked = line.score, line.escalated or line.reused
    if least is not None and score is not None and score < least and not asked:
        raise InputError(
            f"{where} was accepted at a score of {score:.4g}, and this bundle accepts from "
            f"{least:.4g} on: it is another bundle's; record this one"
        )
    return line


def _enough(found: Traced, what: str, whose: str, recorded: int) -> Traced:
    """Refuse a recording of too few bursts; say what there is of it."""
    bursts = [int((np.diff(one.astype(np.int8), prepend=0) == 1).sum()) for one in found.flags]
    if sum(bursts) < LEAST_BURSTS:
        raise InputError(
            f"{what}: {sum(bursts)} bursts of escalations in {recorded} frames; at least "
            f"{LEAST_BURSTS} are needed to tell how they come: record longer, or say "
            "--escalation-rate and --burst-s"
        )
    length_s = sum(map(np.sum, found.flags)) / sum(bursts) / found.frames_per_s
    many, window = found.by_10_s()
    sure = "too short to tell how surely"
    if len(many) >= LEAST_BURSTS:
        off = 2.3 * many.std(ddof=1) / window / math.sqrt(len(many))  # Student's, of ten
        ends = (max(0.0, found.rate - off), min(1.0, found.rate + off))
        sure = f"{percent(ends[0])} to {percent(ends[1])} by 95 %"
    said = (
        f"{percent(found.rate)} of the frames are escalated ({sure}), in bursts of {length_s:.2g} "
        f"s: {what}, {recorded:,} frames of {len(bursts)} {whose}{'s' * (len(bursts) > 1)} at "
        f"{found.frames_per_s:.3g} frames/s"
    )
    return replace(found, said=(said,))


def read_epochs(folder: Path, bundle: Bundle) -> Traced:
    """Replay a bundle on the records that `calibrate --epochs` has kept.

    Args:
        folder: of records.
        bundle: whose policy decides.

    Raises:
        InputError: they are not there, or not of this bundle's models.
    """
    stages = [stage.model for stage in bundle.manifest.stages]
    rule = None if bundle.manifest.reuse is None else bundle.manifest.reuse.rule
    try:
        kept = read_arrays(folder / KEPT)
        length_s = 10.0 if rule is None else rule.epoch_s
        timeline = EpochTimeline(kept["numbers"], kept["times_s"], kept["thumbnails"], length_s)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--epochs {folder}: no records that calibrate --epochs has kept ({error})"
        ) from error
    outputs = [load_record(folder, record_name(one.name, one.codec)).outputs for one in stages]
    if len({len(timeline.numbers), *(one.samples for one in outputs)}) > 1:
        raise InputError(f"--epochs {folder}: its records are not all of the same frames")
    policy = Policy.from_manifest(bundle.manifest)
    replayed = replay(policy, outputs)
    still = np.zeros(len(timeline.numbers), bool)
    escalated = replayed.stage == len(stages) - 1
    if rule is not None and rule.reuses:
        again = reused(rule, timeline, outputs[0], replayed.stage == 0)
        still, escalated = again.still, escalated & again.fresh
    rate = timeline.frames_per_s
    if rate is None:
        raise InputError(f"--epochs {folder}: epochs of one frame tell no bursts")
    flags = tuple(np.split(escalated, timeline.starts[1:]))
    found = Traced(
        rate,
        flags,
        asked=1 - float(still.mean()),
        assumed=(_APART, "what one epoch holds goes on as another that is drawn at random"),
    )
    return _enough(found, f"records {folder.name}", "epoch", len(escalated))
