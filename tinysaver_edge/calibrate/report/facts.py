"""All that a report shows, as plain values that know nothing of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tinysaver_edge.calibrate.calibration import Calibration, Candidate, Within
from tinysaver_edge.calibrate.report.confidence import ClassRow, Reliability, ScoreHistogram
from tinysaver_edge.calibrate.report.curves import Bounds, Point
from tinysaver_edge.calibrate.report.latency import LatencyFacts
from tinysaver_edge.calibrate.report.origin import Origin
from tinysaver_edge.calibrate.report.pictures import Picture
from tinysaver_edge.calibrate.report.proof import ProofFacts


class MarkKind(str, Enum):
    """What a marked threshold is.

    Attributes:
        CHOSEN: the one in force.
        CERTIFIED: the loosest that the certificate covers.
        LIMIT: the loosest that the limit on the drop allows, where nothing is certified.
        BUDGET: the strictest that the budgets allow.
    """

    CHOSEN = "chosen"
    CERTIFIED = "certified"
    LIMIT = "limit"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Mark:
    """A threshold worth marking on the sweep.

    Attributes:
        point: what it does on the samples that the decision rests on.
        within: what it may do on others like them.
    """

    kind: MarkKind
    point: Point
    within: Within


@dataclass(frozen=True, slots=True)
class SingleModel:
    """One model used alone, on every frame.

    Attributes:
        name: the model's name.
        accuracy: share it gets right, 0..1.
        cost: its MACs relative to the large model's.
        is_large: whether it is the large model.
    """

    name: str
    accuracy: float
    cost: float
    is_large: bool


@dataclass(frozen=True, slots=True)
class CandidateFacts:
    """One candidate, its row and its trade-off curve.

    Attributes:
        point: what its threshold does, by its row; None where the method found it no threshold.
        curve: what its other thresholds would do; empty where it is not drawn.
    """

    row: Candidate
    point: Point | None
    curve: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """What another limit on the drop would bring, on the same samples.

    Attributes:
        max_drop_points: the limit.
        point: the loosest threshold that keeps it.
        within: what that may do on other samples like these.
    """

    max_drop_points: float
    point: Point
    within: Within


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """Every threshold of the chosen cascade.

    Attributes:
        calibration: on the samples that the decision rests on.
        holdout: on those held out; empty without any.
        alternatives: what other limits would bring, the tightest first.
        max_drop_points: the bound in force, or None.
    """

    score: str
    calibration: tuple[Point, ...]
    holdout: tuple[Point, ...]
    marks: tuple[Mark, ...]
    alternatives: tuple[Alternative, ...]
    max_drop_points: float | None


@dataclass(frozen=True, slots=True)
class FlowStage:
    """What one stage of a cascade does with the frames.

    Attributes:
        reached: share of the frames that it is asked about, 0..1.
        settled: share whose answer it gives.
        threshold: of its score; None for the last.
        macs: of its model, relative to the large model's.
        cost: what it adds to a frame's MACs on average, likewise.
        mean_ms: what a frame takes it; None where that is not known.
    """

    model: str
    reached: float
    settled: float
    threshold: float | None
    macs: float
    cost: float
    mean_ms: float | None


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """Where the frames of a cascade of more than two stages end.

    Attributes:
        beside: what the best two stages would cost, and what the longer cascade saves for which
            memory; empty where two stages keep no limit.
        place: which stages run where, and why none before the last on another host.
    """

    stages: tuple[FlowStage, ...]
    score: str
    beside: str
    place: str


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """All that a report shows.

    Attributes:
        agreement: whether the large model's own answers stand for the truth.
        better_alone: that a single model serves better, or None where none does.
        score_words: the chosen score and what it is, None where there is no saver or no words.
        holdout_margin_points: half the width of the hold-out drop's 95 % interval, or None.
        bounds: oracle and random line of the chosen saver.
        flow: where its frames end, None where it has no more than two stages.
        reliability: of the first and of the large model.
        classes: what each class loses, the worst first.
        lost: samples that only the large model has right.
        needless: samples escalated although the first model was right.
        drift: what the drift watch is promised, in words, or None.
    """

    decision: str
    agreement: bool
    better_alone: str | None
    score_words: str | None
    result: Calibration
    holdout_margin_points: float | None
    singles: tuple[SingleModel, ...]
    candidates: tuple[CandidateFacts, ...]
    unmeasured: tuple[Candidate, ...]
    bounds: Bounds
    sweep: SweepFacts | None
    flow: FlowFacts | None
    histogram: ScoreHistogram | None
    reliability: tuple[Reliability, ...]
    classes: tuple[ClassRow, ...]
    latency: LatencyFacts | None
    pictures: tuple[Picture, ...]
    lost: int
    needless: int
    proof: ProofFacts | None
    drift: str | None
    origin: Origin

    @property
    def chosen(self) -> tuple[CandidateFacts, Point]:
        """The candidate that was chosen, and its point."""
        return next((c, c.point) for c in self.candidates if c.row.chosen and c.point is not None)

    @property
    def max_drop_points(self) -> float | None:
        """The limit on the drop, None where there is none."""
        return None if self.sweep is None else self.sweep.max_drop_points
