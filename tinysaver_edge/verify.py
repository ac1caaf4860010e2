"""Verify: does a bundle behave on this machine as it did where it was calibrated?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.artefact import combined_sha256
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.certificate import Certificate
from tinysaver_edge.data import decode_image
from tinysaver_edge.errors import BundleError, InputError, VerificationError
from tinysaver_edge.files import read_arrays
from tinysaver_edge.manifest import CertificateEntry, GoldenEntry
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.policy import Policy, replay
from tinysaver_edge.preprocess import Frame

SMALLEST_SCORE_DIFFERENCE = 1e-6
"""Scores no further apart are equal: a threshold is the score of a sample, perhaps a golden one."""

LARGEST_PIXEL_DIFFERENCE = 1
"""Grey levels that a resize may differ by: processors round the same mean differently."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: what it was.
        passed: whether it agrees; None where there was nothing to compare with.
        detail: the figures, or why not.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was compared, in order."""

    bundle: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing disagrees."""
        return all(check.passed is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
        }

    def raise_if_failed(self) -> None:
        """Refuse a bundle that disagrees.

        Raises:
            VerificationError: names the first thing that does.
        """
        for check in self.checks:
            if check.passed is False:
                raise VerificationError(f"bundle {self.bundle}: {check.name}: {check.detail}")


def verify(bundle: Bundle) -> Verification:
    """Compare a bundle with itself on this machine: files, preprocessing, answers, decisions.

    Args:
        bundle: an open bundle; opening it has compared the files with their hashes already.

    Raises:
        EngineError: a model cannot be run here.
        BundleError: the golden samples are damaged.
    """
    count = sum(len(stage.model.files) for stage in bundle.manifest.stages)
    checks = [Check("files", True, f"{count} model files are those that were calibrated")]
    if bundle.manifest.certificate is not None:
        checks.append(_check_certificate(bundle, bundle.manifest.certificate))
    golden = bundle.manifest.golden
    if not bundle.has_models:
        checks.append(Check("golden samples", None, "made from records: there are no models"))
    elif golden is None:
        checks.append(Check("golden samples", None, "the bundle was made without any"))
    else:
        frames = _frames(bundle, golden)
        kept = _answers(bundle, golden)
        with Cascade.from_bundle(bundle) as cascade:
            here = golden_answers(cascade, frames)
        checks.extend(_compare(kept, here, bundle, golden))
    return Verification(str(bundle.path), tuple(checks))


def _check_certificate(bundle: Bundle, entry: CertificateEntry) -> Check:
    """Recompute a certificate from its counts and hold it against models and threshold."""
    try:
        certificate = Certificate.from_json(entry.counts)
        certificate.recompute()
    except (InputError, VerificationError) as error:
        return Check("certificate", False, str(error))
    threshold = bundle.manifest.stages[0].threshold
    if threshold is None or not certificate.covers(threshold):
        return Check("certificate", False, f"does not cover the threshold {threshold}")
    for stage in bundle.manifest.stages:
        files = tuple(bundle.file(file) for file in stage.model.files)
        found = combined_sha256(files) if files else None
        if entry.models.get(stage.model.name) != found:
            detail = f"was not made for this {stage.model.name}: its hash differs"
            return Check("certificate", False, detail)
    return Check(
        "certificate", True, f"{certificate.statement} (p = {certificate.p_value:.2g}, recomputed)"
    )


def golden_answers(cascade: Cascade, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Return what every stage of a cascade sees and answers, and what the cascade decides.

    Returns:
        For stage i ``input_i`` ``(n, height, width, 3)`` uint8, the resized frames, and
        ``logits_i`` ``(n, classes)``; ``index``, ``source`` and ``score``, ``(n,)``.
    """
    answers: dict[str, NDArray[Any]] = {}
    for position, stage in enumerate(cascade.stages):
        answers[f"input_{position}"] = np.stack([stage.resized(frame) for frame in frames])
        logits = [stage.ask(stage.prepare(frame)).logits for frame in frames]
        answers[f"logits_{position}"] = np.concatenate(
            [row.copy() for row in logits if row is not None]
        )
    decisions = [cascade.decide(frame) for frame in frames]
    answers["index"] = np.array([decision.index for decision in decisions], np.int64)
    answers["source"] = np.array([decision.source.value for decision in decisions])
    answers["score"] = np.array([decision.score for decision in decisions], np.float64)
    return answers


def _frames(bundle: Bundle, golden: GoldenEntry) -> list[Frame]:
    frames = [decode_image(bundle.file(entry).read_bytes()) for entry in golden.frames]
    readable = [frame for frame in frames if frame is not None]
    if len(readable) < len(frames):
        raise BundleError(f"bundle {bundle.path}: a golden frame cannot be decoded here")
    return readable


def _answers(bundle: Bundle, golden: GoldenEntry) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(bundle.file(golden.answers))
    except (OSError, ValueError) as error:
        raise BundleError(f"bundle {bundle.path}: golden answers are damaged ({error})") from error


def _compare(
    kept: dict[str, NDArray[Any]],
    here: dict[str, NDArray[Any]],
    bundle: Bundle,
    golden: GoldenEntry,
) -> list[Check]:
    odd = [name for name in here if not _alike(kept.get(name), here[name])]
    if odd:
        return [
            Check("golden samples", False, f"{_form(kept, odd[0])}, here {_form(here, odd[0])}")
        ]
    checks = []
    for position, stage in enumerate(bundle.manifest.stages):
        name = stage.model.name
        key = f"input_{position}"
        checks.append(_compare_pixels(kept[key], here[key], name))
        key = f"logits_{position}"
        checks.append(
            _compare_answers(kept[key], here[key], name, tolerance=golden.tolerances[position])
        )
    checks.append(_compare_decisions(kept, here, Policy.from_manifest(bundle.manifest)))
    return checks


def _alike(kept: NDArray[Any] | None, here: NDArray[Any]) -> bool:
    """Whether two arrays can be compared."""
    return kept is not None and (kept.shape, kept.dtype.kind) == (here.shape, here.dtype.kind)


def _form(arrays: dict[str, NDArray[Any]], name: str) -> str:
    if name not in arrays:
        return f"lack {name}"
    return f"{name} is {arrays[name].dtype} {arrays[name].shape}"


def _compare_pixels(kept: NDArray[Any], here: NDArray[Any], name: str) -> Check:
    worst = int(np.abs(kept.astype(np.int16) - here.astype(np.int16)).max(initial=0))
    return Check(
        f"preprocessing of {name}",
        worst <= LARGEST_PIXEL_DIFFERENCE,
        f"pixels differ by up to {worst} of 255 (allowed: {LARGEST_PIXEL_DIFFERENCE}): "
        f"{'same' if worst <= LARGEST_PIXEL_DIFFERENCE else 'another'} resize",
    )


def _compare_answers(
    kept: NDArray[Any], here: NDArray[Any], name: str, *, tolerance: float
) -> Check:
    worst = float(np.abs(_softmax(kept) - _softmax(here)).max(initial=0))
    return Check(
        f"answers of {name}",
        worst <= tolerance,
        f"probabilities differ by up to {worst:.2g} (allowed: {tolerance:g})",
    )


def _compare_decisions(
    kept: dict[str, NDArray[Any]], here: dict[str, NDArray[Any]], policy: Policy
) -> Check:
    """Compare the final answers.

    One may differ where the models' answers, by as little as they do differ, bring it over a
    threshold or one class before another: where replaying the policy on both differs as well.
    """
    same = (kept["index"] == here["index"]) & (kept["source"] == here["source"])
    before, now = (
        [Outputs(logits=one[f"logits_{i}"]) for i in range(len(policy.stages))]
        for one in (kept, here)
    )
    then, today = replay(policy, before), replay(policy, now)
    tipped = (then.predictions != today.predictions) | (then.stage != today.stage)
    for stage, outputs in zip(policy.stages, before, strict=True):
        if stage.score is not None and stage.threshold is not None:
            tipped |= np.abs(stage.score(outputs) - stage.threshold) <= SMALLEST_SCORE_DIFFERENCE
    tipped &= ~same
    detail = f"{int(same.sum())} of {len(same)} are the same"
    if tipped.any():
        detail += f", {int(tipped.sum())} tipped over by as little as the answers differ"
    return Check("decisions", bool((same | tipped).all()), detail)


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(
        logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
