"""Calibration: what was chosen, why, and what it does; the result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate.chosen.choose import Candidate
from tinysaver_edge.calibrate.chosen.comparison import MethodRow
from tinysaver_edge.calibrate.measured.codec_cost import CodecCost
from tinysaver_edge.calibrate.targets import Method
from tinysaver_edge.certificate import Certificate
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.latency import PooledLatency
from tinysaver_edge.records.evaluation import Figures


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
    """

    escalation_rate: float
    cascade: PooledLatency
    highest_rate: float
    cascade_at_most: PooledLatency
    large: PooledLatency

    def to_dict(self) -> dict[str, Any]:
        """Return mean and quantiles as plain values for JSON."""
        return {
            "escalation_rate": self.escalation_rate,
            "cascade": self.cascade.summary(),
            "highest_rate": self.highest_rate,
            "cascade_at_most": self.cascade_at_most.summary(),
            "large": self.large.summary(),
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
        interval: thresholds from the loosest that the drop allows to the strictest that budgets
            allow; None at an end that nothing limits.
        candidates: one row a saver.
        methods: what every method would have chosen, where that was asked for.
        warnings: what the user should know.
        latency: how long a frame will take, None where no latency is known.
        disagreement: how often an escalation would change an accepted answer, for the drift watch;
            None where nothing is accepted.
        large_codec: what frames passed on their way to the large model; None where it saw pixels.
        codec_cost: what that costs the large model by itself; None where it is not known.
        bundle: where the bundle lies, None where none was asked for.
        report: where the report lies, None where none was asked for.
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
    large_codec: Jpeg | None = None
    codec_cost: CodecCost | None = None
    bundle: Path | None = None
    report: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        stages = [
            {
                "model": stage.model,
                "score": None if stage.score is None else stage.score.name,
                "threshold": stage.threshold,
            }
            for stage in self.policy.stages
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
            "fusion": None if self.policy.fusion is None else self.policy.fusion.name,
            "interval": {"t_certified": self.interval[0], "t_budget": self.interval[1]},
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "methods": [row.to_dict() for row in self.methods],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "disagreement": (
                None if self.disagreement is None else self.disagreement.model_dump(mode="json")
            ),
            "large_jpeg": None if self.large_codec is None else self.large_codec.quality,
            "jpeg_cost": None if self.codec_cost is None else self.codec_cost.to_dict(),
            "warnings": list(self.warnings),
            "bundle": None if self.bundle is None else str(self.bundle),
            "report": None if self.report is None else str(self.report),
        }
