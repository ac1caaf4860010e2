"""Calibration: what was chosen, why, and what it does; the result of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.bundle.manifest import AskedEntry, DisagreementEntry, ReuseEntry
from tinysaver_edge.calibrate.targets import (
    Method,
)
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.deciding.figures import Figures
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.latency import PooledLatency
from tinysaver_edge.questions.interview import ProofSoFar


@dataclass(frozen=True, slots=True)
class CodecCost:
    """The large model on the same samples, with and without its codec.

    A cascade's drop counts from the large model as it is asked, so this comes on top of it.

    Attributes:
        codec: what frames pass on their way to it.
        accuracy_pixels: share it gets right on pixels, 0..1.
        accuracy_sent: share it gets right on what is sent.
        at_most_points: upper bound on the drop between the two, in points, by the certificate's
            own test; None for samples in groups.
        confidence: of the bound.
    """

    codec: Jpeg
    accuracy_pixels: float
    accuracy_sent: float
    at_most_points: float | None
    confidence: float

    @property
    def drop_points(self) -> float:
        """How much accuracy it costs, in points."""
        return 100 * (self.accuracy_pixels - self.accuracy_sent)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "accuracy_pixels": self.accuracy_pixels,
            "accuracy_jpeg": self.accuracy_sent,
            "drop_points": self.drop_points,
            "at_most_points": self.at_most_points,
        }

    def __str__(self) -> str:
        bound = f", at most {self.at_most_points:.2f}" if self.at_most_points is not None else ""
        return f"{self.drop_points:.2f} points{bound}"


@dataclass(frozen=True, slots=True)
class MethodRow:
    """What one method chose.

    Attributes:
        method: its name.
        promise: what it promises about other samples.
        saver: the model it chose, None where it chose nothing.
        threshold: the threshold it chose.
        calibration: figures on the samples it rests on.
        holdout: figures on the samples set aside.
        why: why it chose nothing.
    """

    method: Method
    promise: str
    saver: str | None = None
    threshold: float | None = None
    calibration: Figures | None = None
    holdout: Figures | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return {**asdict(self), "method": self.method.value}


@dataclass(frozen=True, slots=True)
class TriedCombination:
    """One combination and what was expected of it.

    Attributes:
        score: name of the score.
        fusion: name of the fusion.
        fitted: which of the two were fitted: score, fusion, both or neither.
        estimate: cost relative to the large model alone, or points lost where accuracy is what
            counts; None where the score could not be had.
        why: why it could not.
        interval: within which 90 % of the resamples put it; None where there was one look only.
    """

    score: str
    fusion: str
    fitted: tuple[str, ...]
    estimate: float | None
    why: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Within:
    """95 % intervals of a cascade's figures on other samples like these, each None where unknown.

    Attributes:
        drop_points: of the points lost.
        accept_rate: of the share that does not reach the large model.
        cost: of the cost relative to the large model alone.
    """

    drop_points: tuple[float, float] | None = None
    accept_rate: tuple[float, float] | None = None
    cost: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One cascade at its best, as a row of the table.

    Attributes:
        saver: the saver's name; several that are asked in turn with arrows between. Of
            one that was not measured, only κ and the reason are known.
        kappa: the first one's MACs relative to the large model's; None where it could not even be
            prepared.
        accuracy_saver: share that one gets right alone.
        score: name of its score.
        fusion: name of the fusion, or None.
        threshold: the threshold it would use, None where it would accept nothing.
        accept_rate: share that would not reach the large model.
        drop_points: points it would lose, on the samples the decision rests on.
        cost_macs_ratio: what it would cost, relative to the large model alone.
        mean_latency_ms: how long a frame would take on average, None where it was not measured.
        latency_spread_ms: the least and the greatest of the means of the rounds it was timed in;
            None where it was not timed here.
        energy_mj: millijoules a frame, on these samples and at the rate that budgets are held
            against; None where nobody knows.
        uplink_kbit: kilobits that are sent of a frame, likewise.
        drop_interval_points: 95 % interval of the drop on other samples like these; this and those
            that follow are None where samples depend on each other, or nothing is accepted.
        accept_interval: the same of the accept rate.
        cost_interval: the same of the cost.
        accuracy_interval: the same of the saver's accuracy alone.
        feasible: whether it keeps every limit.
        chosen: whether it is the one.
        why: in a few words, why it was chosen or not.
        estimate: what a search expected of it, on the samples set aside for that: its cost
            relative to the large model alone, or points lost where accuracy is the objective.
        estimate_interval: within which 90 % of the search's resamples put it, or None.
        tried: every score and fusion that the search tried, the chosen one first.
    """

    saver: str
    kappa: float | None
    accuracy_saver: float | None = None
    score: str | None = None
    fusion: str | None = None
    threshold: float | None = None
    accept_rate: float | None = None
    drop_points: float | None = None
    cost_macs_ratio: float | None = None
    mean_latency_ms: float | None = None
    latency_spread_ms: tuple[float, float] | None = None
    energy_mj: tuple[float, float] | None = None
    uplink_kbit: tuple[float, float] | None = None
    drop_interval_points: tuple[float, float] | None = None
    accept_interval: tuple[float, float] | None = None
    cost_interval: tuple[float, float] | None = None
    accuracy_interval: tuple[float, float] | None = None
    feasible: bool = False
    chosen: bool = False
    why: str = ""
    estimate: float | None = None
    estimate_interval: tuple[float, float] | None = None
    tried: tuple[TriedCombination, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PredictedLatency:
    """How long a frame will take, from samples of each way that it may go.

    Attributes:
        escalation_rate: share of the calibration samples that go on to the large model, 0..1.
        cascade: of the cascade at that rate, frames coming in random order.
        highest_rate: the rate that budgets are held against: its upper bound at the confidence
            asked for, where the method promises with one.
        cascade_at_most: of the cascade at that one. A quantile of a cascade jumps from the saver's
            to the large model's where the rate passes it: this one is on the safe side.
        large: of the large model alone.
        reached: the highest rates of every stage but the first, where there are more than two.
        asked: the highest rate of the first stage, where answers are reused from frame to frame.
    """

    escalation_rate: float
    cascade: PooledLatency
    highest_rate: float
    cascade_at_most: PooledLatency
    large: PooledLatency
    reached: tuple[float, ...] | None = None
    asked: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return mean and quantiles as plain values for JSON."""
        return {
            "escalation_rate": self.escalation_rate,
            "cascade": self.cascade.summary(),
            "highest_rate": self.highest_rate,
            "cascade_at_most": self.cascade_at_most.summary(),
            "reached": None if self.reached is None else list(self.reached),
            "asked": self.asked,
            "large": self.large.summary(),
        }


@dataclass(frozen=True, slots=True)
class Milestone:
    """What can be had after so many answers, if they turn out as the plan expects.

    Attributes:
        cost: MACs a frame, where the large model alone takes 1.
        questions: answers that it takes; 0 for what is certified without any.
    """

    cost: float
    questions: int


@dataclass(frozen=True, slots=True)
class Prospect:
    """What questions would buy of one cascade.

    Attributes:
        cascade: the models asked before the large one.
        fusion: how answers are combined after an escalation, or None.
        agreements: (agreement, cost) certified now, without any answer: shares of 0..1, rising
            in neither.
        milestones: from what is certified without an answer to what all of them are expected to
            bring, by falling cost; none where nothing is expected to be certified.
        chosen: whether the questions are about this one.
    """

    cascade: str
    fusion: str | None
    agreements: tuple[tuple[float, float], ...]
    milestones: tuple[Milestone, ...]
    chosen: bool = False

    @property
    def name(self) -> str:
        """Cascade and fusion, for people."""
        return self.cascade if self.fusion is None else f"{self.cascade}, fused"


@dataclass(frozen=True, slots=True)
class QuestionPlan:
    """What can be certified without labels, and how many questions more would take.

    Attributes:
        samples: how many the certificate will rest on.
        max_drop_points: ε, in points; None where a budget alone decides.
        confidence: 1 - δ.
        candidates: how many cascades share the risk, since each is shown.
        prospects: one a cascade.
        standing: what the answers so far prove.
        open: how many questions are open that the plan expects to need.
        file: the table they were written to, or None.
        pictures: folder of their pictures, or None.
        warnings: what the user should know.
    """

    samples: int
    max_drop_points: float | None
    confidence: float
    candidates: int
    prospects: tuple[Prospect, ...]
    standing: ProofSoFar
    open: int
    file: Path | None = None
    pictures: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chosen(self) -> Prospect:
        """What the questions are about."""
        return next(one for one in self.prospects if one.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        paths = {"file": self.file, "pictures": self.pictures}
        return {
            **asdict(self),
            "prospects": [asdict(one) for one in self.prospects],
            "standing": self.standing.to_dict(),
            **{name: None if path is None else str(path) for name, path in paths.items()},
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """The cascade that was chosen and its figures.

    Attributes:
        policy: the stages with their scores and thresholds.
        method: how the threshold was found.
        calibration: figures on the samples that the decision rests on.
        holdout: figures on the samples set aside, None where there are none.
        certificate: what is proved, None for methods that prove nothing.
        stated: what the user vouches for, and the certificate takes as given.
        interval: thresholds from the loosest that the drop allows to the strictest that budgets
            allow; None at an end that nothing limits.
        candidates: one row a saver.
        methods: what every method would have chosen, where that was asked for.
        warnings: what the user should know.
        latency: how long a frame will take, None where no latency is known.
        disagreement: how often an escalation would change an accepted answer, for the drift watch;
            None where nothing is accepted.
        reuse: what is reused within each epoch, and how often what is answered without the large
            model differs from its answer; None where nothing is.
        large_codec: what frames passed on their way to the large model; None where it saw pixels.
        codec_cost: what that costs the large model by itself; None where it is not known.
        bundle: where the bundle lies, None where none was asked for.
        report: where the report lies, None where none was asked for.
        questions: what people were asked, where their answers stand for labels.
        plan: what questions would buy, or what more of them would; None where there are labels.
    """

    policy: Policy
    method: Method
    calibration: Figures
    holdout: Figures | None
    certificate: Certificate | None
    interval: tuple[float | None, float | None]
    candidates: tuple[Candidate, ...]
    methods: tuple[MethodRow, ...]
    warnings: tuple[str, ...]
    latency: PredictedLatency | None = None
    disagreement: DisagreementEntry | None = None
    reuse: ReuseEntry | None = None
    large_codec: Jpeg | None = None
    codec_cost: CodecCost | None = None
    bundle: Path | None = None
    report: Path | None = None
    stated: tuple[str, ...] = ()
    questions: AskedEntry | None = None
    plan: QuestionPlan | None = None

    @property
    def promised(self) -> DisagreementEntry | None:
        """What the drift watch goes by: repeated answers count as well, where there are any."""
        counted = None if self.reuse is None else self.reuse.disagreement
        return self.disagreement if counted is None else counted

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        settled = self.calibration.settled
        stages = [
            {
                "model": stage.model,
                "score": None if stage.score is None else stage.score.name,
                "threshold": stage.threshold,
                "macs": stage.macs,
                "settled": None if settled is None else settled[place],
            }
            for place, stage in enumerate(self.policy.stages)
        ]
        return {
            "stages": stages,
            "saver": stages[0]["model"],
            "score": stages[0]["score"],
            "threshold": stages[0]["threshold"],
            "method": self.method.value,
            "calibration": self.calibration.to_dict(),
            "holdout": None if self.holdout is None else self.holdout.to_dict(),
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "statement": None if self.certificate is None else self.certificate.statement,
            "stated": list(self.stated),
            "questions": None if self.questions is None else self.questions.model_dump(),
            "plan": None if self.plan is None else self.plan.to_dict(),
            "fusion": None if self.policy.fusion is None else self.policy.fusion.name,
            "pool": None if self.policy.pool is None else list(self.policy.pool),
            "interval": {"t_certified": self.interval[0], "t_budget": self.interval[1]},
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "methods": [row.to_dict() for row in self.methods],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "disagreement": (
                None if self.disagreement is None else self.disagreement.model_dump(mode="json")
            ),
            "reuse": None if self.reuse is None else self.reuse.model_dump(mode="json"),
            "large_jpeg": None if self.large_codec is None else self.large_codec.quality,
            "jpeg_cost": None if self.codec_cost is None else self.codec_cost.to_dict(),
            "warnings": list(self.warnings),
            "bundle": None if self.bundle is None else str(self.bundle),
            "report": None if self.report is None else str(self.report),
        }
