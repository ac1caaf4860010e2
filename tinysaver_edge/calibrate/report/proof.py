"""The certificate in words: what is promised, by which counts, what is not, what drift costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinysaver_edge.bundle.manifest import AskedEntry, DisagreementEntry, given_words
from tinysaver_edge.calibrate.report import numbers

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.calibration import CodecCost
    from tinysaver_edge.certificate.certificate import Certificate
    from tinysaver_edge.codec import Jpeg

USUAL_LEVEL = 0.05
"""The level of a drift watch that is not told another."""


def drift_sentence(promised: DisagreementEntry, *, repeated: bool = False) -> str:
    """Say how often an escalation would have changed an accepted answer, and what drift is.

    Args:
        promised: what was counted.
        repeated: whether on one frame of each epoch, whose answer was accepted or repeated.
    """
    what = "accepted or repeated" if repeated else "accepted"
    where = "hold-out" if promised.held_out else "calibration"
    return (
        f"of {numbers.count(promised.accepted)} {what} {where} samples an escalation would have "
        f"answered {numbers.count(promised.disagreed)} otherwise "
        f"({numbers.percent(promised.disagreed / promised.accepted)}); in the field, more than "
        f"{numbers.percent(promised.tested(USUAL_LEVEL))} is drift"
    )


@dataclass(frozen=True, slots=True)
class ProofFacts:
    """A certificate as a report states it.

    Attributes:
        statement: the promise in one line.
        max_drop_points: the bound.
        confidence: with which it holds, 0..1.
        threshold: the loosest certified one.
        sentences: how it was proved, in words.
        counts: (what, how many) of all that enters the proof.
    """

    statement: str
    max_drop_points: float
    confidence: float
    threshold: float
    sentences: tuple[str, ...]
    counts: tuple[tuple[str, str], ...]


def proof_facts(
    certificate: Certificate,
    codec: Jpeg | None = None,
    cost: CodecCost | None = None,
    *,
    stated: Sequence[str] = (),
    questions: AskedEntry | None = None,
) -> ProofFacts:
    """Put a certificate into words.

    Args:
        certificate: the certificate.
        codec: what frames passed on their way to the large model, or None.
        cost: what that costs the large model by itself, where it is known.
        stated: what the user vouches for.
        questions: what people were asked, where their answers stand for labels.
    """
    return ProofFacts(
        statement=f"{certificate.statement}{given_words(stated, questions)}",
        max_drop_points=certificate.max_drop_points,
        confidence=certificate.confidence,
        threshold=certificate.threshold,
        sentences=(
            _unit(certificate) if questions is None else _asked(certificate, questions),
            _counted(certificate),
            _walked(certificate),
            _risk(certificate),
            *(() if codec is None else (_sent(codec, cost),)),
        ),
        counts=(*_counts(certificate), *(() if questions is None else _question_counts(questions))),
    )


def _asked(certificate: Certificate, questions: AskedEntry) -> str:
    unit = certificate.evidence.unit
    groups = f" in {numbers.count(certificate.groups)} {unit}" if certificate.groups else ""
    what = "frames" if unit == "epochs" else "samples"
    return (
        f"It rests on {numbers.count(certificate.samples)} {what}{groups} without labels. Where "
        f"the cascade's answer equals the large model's nothing is lost, whatever is right; where "
        f"they differ people were asked which of the two classes is right: {questions.words}. The "
        f"counts are those that labels would give, as far as the answers are right; what nobody "
        f"could tell counts as lost."
    )


def _question_counts(questions: AskedEntry) -> tuple[tuple[str, str], ...]:
    agreed = f"{questions.agreed} of {questions.repeats}" if questions.repeats else "none asked"
    return (
        ("questions asked", numbers.count(questions.asked)),
        ("answered", numbers.count(questions.answered)),
        ("unsure, disputed", f"{questions.unsure}, {questions.disagreed}"),
        ("open, counted as lost", numbers.count(questions.open)),
        ("people", numbers.count(questions.people)),
        ("repeats that agreed", agreed),
    )


def _unit(certificate: Certificate) -> str:
    samples = numbers.count(certificate.samples)
    if certificate.evidence.from_consistency:
        unit = certificate.evidence.unit
        groups = f" in {numbers.count(certificate.groups)} {unit}" if certificate.groups else ""
        return (
            f"It rests on {samples} samples{groups} without labels, the large model being the "
            f"reference: an answer that loses accuracy must differ from the large model's, so a "
            f"bound on differing answers bounds the drop as well, with room to spare."
        )
    if certificate.groups:
        unit = certificate.evidence.unit
        return (
            f"It rests on {samples} labelled samples in {numbers.count(certificate.groups)} "
            f"{unit}; samples of one are not independent, so each of these {unit} counts once, by "
            f"its mean loss."
        )
    if certificate.candidates > 1:
        return (
            f"It rests on {samples} labelled samples, on which {certificate.candidates} candidates "
            f"were held against the bound, each at its share of the risk."
        )
    return f"It rests on {samples} labelled samples that served for no other choice."


def _counted(certificate: Certificate) -> str:
    at = f"At the certified threshold {numbers.score(certificate.threshold)}"
    if certificate.evidence.from_consistency:
        return f"{at} {numbers.count(certificate.lost)} answers differ from the large model's."
    return (
        f"{at} only the large model was right on {numbers.count(certificate.lost)} samples, only "
        f"the cascade on {numbers.count(certificate.gained)}, both or neither on "
        f"{numbers.count(certificate.same)}: a net loss of "
        f"{numbers.count(certificate.lost - certificate.gained)}."
    )


def _walked(certificate: Certificate) -> str:
    if certificate.grid_size == 1:
        return "The threshold was fixed before the answers of these samples were looked at."
    walked = (
        f"{numbers.count(certificate.grid_size)} thresholds were fixed before these samples were "
        f"looked at and tested from strict to loose; "
    )
    passed = numbers.count(len(certificate.steps))
    if certificate.failed is None:
        return f"{walked}{passed} passed down to the one in use."
    return (
        f"{walked}{passed} passed, and the walk stopped at the first that did not "
        f"({numbers.score(certificate.failed.threshold)})."
    )


def _risk(certificate: Certificate) -> str:
    risk = f"The risk of {certificate.risk:g} that the statement is wrong"
    shared = certificate.candidates
    shares = f" is shared by {shared} candidates" if shared > 1 else " is all this one candidate's"
    return (
        f"{risk}{shares}; the test at the certified threshold gives p = "
        f"{certificate.p_value:.3g}, at most the {certificate.risk_share:.3g} allowed."
    )


def _sent(codec: Jpeg, cost: CodecCost | None) -> str:
    said = (
        f"The large model saw every sample as {codec}, as a device sends it to another machine: "
        f"the bound is on the drop from its accuracy on those files, not on the pixels."
    )
    return said if cost is None else f"{said} Against pixels the codec costs it {cost}."


def _counts(certificate: Certificate) -> tuple[tuple[str, str], ...]:
    consistency = certificate.evidence.from_consistency
    last = certificate.steps[-1]
    rows = [
        ("evidence", certificate.evidence.value),
        ("bound on the drop ε", numbers.points(certificate.max_drop_points)),
        ("confidence 1 − δ", numbers.percent(certificate.confidence, 1)),
        ("samples n", numbers.count(certificate.samples)),
        ("accepted", numbers.count(last.accepted)),
        ("differing answers" if consistency else "lost, D = 1", numbers.count(certificate.lost)),
    ]
    if not consistency:
        rows.append(("gained, D = −1", numbers.count(certificate.gained)))
        rows.append(("the same, D = 0", numbers.count(certificate.same)))
    if certificate.groups:
        rows.append((certificate.evidence.unit, numbers.count(certificate.groups)))
    rows += [
        ("candidates J", numbers.count(certificate.candidates)),
        ("p-value", f"{certificate.p_value:.3g}"),
        ("allowed, δ ÷ J", f"{certificate.risk_share:.3g}"),
        ("thresholds passed", f"{len(certificate.steps)} of {certificate.grid_size}"),
        ("certified threshold", numbers.score(certificate.threshold)),
    ]
    if certificate.failed is not None:
        failed = certificate.failed
        what = str(failed.lost) if consistency else f"{failed.lost}, {failed.gained}"
        rows.append(("first to fail, threshold", numbers.score(failed.threshold)))
        rows.append(
            ("first to fail, differing" if consistency else "first to fail, lost, gained", what)
        )
    return tuple(rows)
