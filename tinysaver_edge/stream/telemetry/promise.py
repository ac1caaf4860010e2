"""What a bundle promises, and what is left of it when answers are not what its policy asks for.

The certificate bounds the *drop*, the accuracy of the large model alone minus the cascade's, by ε.
It speaks of the policy: the saver's answer where its score is high enough, else the one after an
escalation. When the large model cannot be had, the saver's answer goes out all the same. Let D be
1 where only the large model is right, -1 where only the answer is, else 0, so that the drop is the
mean of D. An answer that is not the policy's changes D by (is the policy's right) - (is this one
right), which is at most 1. Hence, over n answers of which u are not covered by the certificate,

    effective drop  ≤  ε + u/n,           in points: ε + 100 · (1 - certified share).

Nothing is assumed of when answers are missing: an outage may fall on the hardest frames of all. ε
rests on what the certificate rests on, no more: that the field looks as the calibration did. For
the same reason an answer after an alarm of the drift watch counts as if it were wrong for sure.

What is to be expected is less. Of the samples that calibration escalated, g is by how much more the
cascade got right than the saver would have: (accuracy of the cascade - of the saver) / (1 - accept
rate), since on accepted samples the two are one. Of more than two stages "the saver" is all but the
last: that is what answers for want of the large model. With a share f of fallbacks that fell on
escalated frames as chance would have it,

    expected drop  =  drop that calibration measured + f · g.

With every escalation a fallback that is the drop of the saver alone, and it stays that where more
fall back than calibration escalated. Calibration knows both drops
from its samples only, each within an interval; that of the expected drop is what lies between the
two in the same share. Where it is not known, as in older bundles, nobody is told an expectation;
nor where answers are repeated by other limits than those that were calibrated, for nobody measured
what that costs, nor of fallbacks where answers are repeated: in how many of them the large model's
answer would have been, calibration does not count. Where that had no labels, "right" means here
what the large model answers.

Final answers are counted, not provisional ones. Frames without an answer (dropped by a camera
before anyone asked, or undecided) are not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tinysaver_edge.bundle.covered import why_not_covered
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.stream.telemetry.metrics import Reading, reading

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import Manifest
    from tinysaver_edge.reuse import ReuseRule


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a promise over some answers.

    Attributes:
        answers: final answers.
        certified_share: of them that the certificate covers, 0..1.
        fallback_share: of them that were the saver's because the large model could not be had, or
            repeat such an answer.
        effective_drop_points: what the drop is at most; None where there is no certificate.
        expected_drop_points: what it is when fallbacks fall on escalated frames at random.
        expected_low_points: lower end of its 95 % interval; None where that is not known.
        expected_high_points: upper end.
    """

    answers: int
    certified_share: float
    fallback_share: float
    effective_drop_points: float | None
    expected_drop_points: float | None
    expected_low_points: float | None = None
    expected_high_points: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return it as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a bundle promises.

    Attributes:
        certified_points: the certificate's bound on the drop, ε; None where there is no
            certificate, or it is not about the bundle's policy.
        measured_points: drop that calibration measured, on samples set aside where there were any;
            None where answers are of several bundles, or repeated otherwise than there.
        gain_points: of the samples escalated there, by how much more the cascade got right than
            the saver alone; None where accuracies are not known, or answers are repeated.
        escalated_share: of the samples, that calibration escalated.
        intervals_points: 95 % intervals of the drop of the cascade and of the saver alone; None
            where the bundle does not have them.
    """

    certified_points: float | None
    measured_points: float | None
    gain_points: float | None
    escalated_share: float = 0.0
    intervals_points: tuple[tuple[float, float], tuple[float, float]] | None = None

    @classmethod
    def of(cls, manifest: Manifest, *, reuse: ReuseRule | None = None) -> Promise:
        """Read it off a bundle's manifest.

        Args:
            manifest: of the bundle.
            reuse: when the stream repeats earlier answers; None where it repeats none.
        """
        certified: float | None = None
        if manifest.certificate is not None and why_not_covered(manifest) is None:
            certified = Certificate.from_json(manifest.certificate.counts).max_drop_points
        calibrated = None if manifest.reuse is None else manifest.reuse.rule
        repeats = calibrated is not None and calibrated.reuses
        if reuse != (calibrated if repeats else None):
            return cls(certified, None, None)
        figures = manifest.holdout or manifest.calibration
        escalated = 1 - figures.accept_rate
        local = figures.accuracy_saver if figures.accuracy_local is None else figures.accuracy_local
        gain: float | None = 0.0
        if figures.accuracy_cascade is None or local is None or repeats:
            gain = None
        elif escalated > 0:
            gain = 100 * (figures.accuracy_cascade - local) / escalated
        cascade, saver = figures.drop_interval_points, figures.saver_drop_interval_points
        return cls(
            certified_points=certified,
            measured_points=figures.drop_points,
            gain_points=gain,
            escalated_share=escalated,
            intervals_points=None if cascade is None or saver is None else (cascade, saver),
        )

    def joined(self, other: Promise) -> Promise:
        """Return what is promised of answers that two bundles gave: the worse of the two bounds.

        The drop over all of them is a mean of the two drops, so at most the larger bound. What is
        to be expected of them depends on how many each gave, and nobody is told.
        """
        bounds = (self.certified_points, other.certified_points)
        known = [one for one in bounds if one is not None]
        return Promise(max(known) if len(known) == len(bounds) else None, None, None)

    def kept(self, *, answers: int, certified: int, fallbacks: int) -> Kept | None:
        """Return what is left of it; None where there are no answers yet.

        Args:
            answers: final answers.
            certified: of them that the certificate covers.
            fallbacks: of them for which `decision.stands_in` holds.
        """
        if not answers:
            return None
        covered, share = min(1.0, certified / answers), fallbacks / answers
        bound = None
        if self.certified_points is not None:
            bound = min(100.0, self.certified_points + 100 * (1 - covered))
        expected: float | None = self.measured_points
        if share > 0 and expected is not None:
            gain = self.gain_points
            most = self.escalated_share or share
            expected = None if gain is None else expected + min(share, most) * gain
        return Kept(answers, covered, share, bound, expected, *self._expected_within(share))

    def _expected_within(self, share: float) -> tuple[float, float] | tuple[None, None]:
        """Return the interval of the expected drop at a share of fallbacks."""
        if self.intervals_points is None or (share and self.gain_points is None):
            return None, None
        given = min(1.0, share / self.escalated_share) if self.escalated_share > 0 else 0.0
        low, high = (
            (1 - given) * cascade + given * saver
            for cascade, saver in zip(*self.intervals_points, strict=True)
        )
        return low, high


def promise_readings(promise: Promise, kept: Kept | None) -> list[Reading]:
    """Return what is promised and what is left of it, for the metrics."""

    def left(name: str, text: str) -> Reading:
        return reading(name, text, None if kept is None else getattr(kept, name))

    return [
        reading("certified_drop_points", "The certificate's bound", promise.certified_points),
        left("certified_share", "Share of the final answers that the certificate covers"),
        left("fallback_share", "Share of them that are the saver's for want of the large model"),
        left("effective_drop_points", "Bound on the drop, over all final answers"),
        left("expected_drop_points", "Drop if fallbacks fell on escalated frames at random"),
    ]
