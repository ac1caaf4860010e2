"""Golden samples: what is decoded, seen, answered, decided here, against what was kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import read_arrays
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.manifest import GoldenEntry, Manifest, ModelEntry
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.images import decode_image
from tinysaver_edge.deciding.policy import Case, Judge, Policy, replay
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.decision import Decision, FrameId
from tinysaver_edge.errors import BundleError
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify.check import Check

DECODER = "image decoder"
"""What the check of it is called."""

LARGEST_DECODER_DIFFERENCE = 2
"""Grey levels that two builds of one decoder may differ by."""

_SIZE, _PATCHES, _QUALITY = 64, 8, 90


def write_decoder_sample(path: Path) -> None:
    """Write a JPEG of many colours side by side: where decoders differ most. The same each time."""
    cv2 = opencv("Writing the decoder's sample")

    patches = np.random.default_rng(0).integers(0, 256, (_PATCHES, _PATCHES, 3), dtype=np.uint8)
    picture = cv2.resize(patches, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    path.write_bytes(data.tobytes())


def decoder_answers(sample: bytes, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Return what tells one decoder from another.

    Returns:
        ``decoded`` ``(height, width, 3)`` uint8, the sample's pixels, and ``frame_sha256``
        ``(n,)``, a hash of each golden frame's.
    """
    pixels = decode_image(sample)
    return {
        "decoded": np.zeros((0, 0, 3), np.uint8) if pixels is None else pixels,
        "frame_sha256": np.array([_hash(frame) for frame in frames]),
    }


def _hash(frame: Frame) -> str:
    return hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).hexdigest()


def check_decoder(
    bundle: Bundle, golden: GoldenEntry, kept: dict[str, NDArray[Any]], frames: Sequence[Frame]
) -> Check:
    """Compare the pixels that come out of this machine's decoder with those that were kept."""
    if golden.decoder is None or not {"decoded", "frame_sha256"} <= kept.keys():
        return Check(DECODER, None, "the bundle was made without a sample for it")
    here = decoder_answers(bundle.file(golden.decoder).read_bytes(), frames)
    if kept["decoded"].shape != here["decoded"].shape:
        return Check(DECODER, False, "the sample JPEG is of another size here: another decoder")
    apart = np.abs(kept["decoded"].astype(np.int16) - here["decoded"].astype(np.int16))
    worst = int(apart.max(initial=0))
    same = worst <= LARGEST_DECODER_DIFFERENCE
    detail = (
        f"pixels of a JPEG differ by up to {worst} of 255 (allowed: {LARGEST_DECODER_DIFFERENCE}): "
        f"{'same' if same else 'another'} decoder"
    )
    if same and not np.array_equal(kept["frame_sha256"], here["frame_sha256"]):
        return Check(DECODER, False, "golden frames have other pixels here: another decoder of PNG")
    return Check(DECODER, same, detail)


def golden_answers(cascade: Cascade, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Return what every stage of a cascade sees and answers, and what the cascade decides.

    Returns:
        For stage i what `stage_answers` tells, and what `told_of` does.
    """
    answers: dict[str, NDArray[Any]] = {}
    for position, stage in enumerate(cascade.stages):
        told = stage_answers(stage, frames)
        answers |= {f"{name}_{position}": one for name, one in told.items()}
    return answers | told_of([cascade.decide(frame) for frame in frames])


def stage_answers(stage: Stage, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Return what one stage sees and answers.

    Returns:
        ``input`` ``(n, height, width, 3)`` uint8, the resized frames, ``probe``
        ``(height, width, 3)``, the resized `probe_picture`, and ``logits`` ``(n, classes)``.
    """
    logits = [stage.ask(stage.prepare(frame)).logits for frame in frames]
    return {
        "probe": stage.resized(probe_picture()),
        "input": np.stack([stage.resized(frame) for frame in frames]),
        "logits": np.concatenate([row.copy() for row in logits if row is not None]),
    }


def decided(policy: Policy, logits: Sequence[NDArray[np.float32]]) -> list[Decision]:
    """Return what a cascade decides where its stages answer so.

    Args:
        policy: the stages.
        logits: each stage's answers to the same frames, ``(n, classes)``.
    """
    judge, decisions = Judge(policy, labels=None, certified=False), []
    for number in range(len(logits[0])):
        case = Case(FrameId("golden", number), timestamp_s=0.0)
        for position in judge.asked:
            row = logits[position][number : number + 1]
            judge.hear(case, position, Outputs(logits=row))
            if case.accepted:
                break
        decisions.append(judge.decision(case))
    return decisions


def told_of(decisions: Sequence[Decision]) -> dict[str, NDArray[Any]]:
    """Return ``index``, ``source`` and ``score`` of decisions, each ``(n,)``."""
    return {
        "index": np.array([decision.index for decision in decisions], np.int64),
        "source": np.array([decision.source.value for decision in decisions]),
        "score": np.array([decision.score for decision in decisions], np.float64),
    }


def probe_picture() -> Frame:
    """Return a picture that every resize makes another thing of, ``(1080, 1920, 3)`` BGR uint8.

    Golden frames may have the model's own size, which no resize changes. This one is large, wide
    and full of detail down to the pixel, of whole numbers only: the same on every machine.
    """
    y, x = np.arange(1080)[:, None], np.arange(1920)[None]
    byte, both = np.uint8, (x * y >> 6).astype(np.uint8)  # a byte wraps around: all is modulo 256
    planes = [both + (x * x // k).astype(byte) + (y * (k + 3)).astype(byte) for k in (37, 53, 71)]
    return np.stack(planes, axis=2)


def kept_frames(bundle: Bundle, golden: GoldenEntry) -> list[Frame]:
    """Decode a bundle's golden frames.

    Raises:
        BundleError: one cannot be decoded.
    """
    frames = [decode_image(bundle.file(entry).read_bytes()) for entry in golden.frames]
    readable = [frame for frame in frames if frame is not None]
    if len(readable) < len(frames):
        raise BundleError(f"bundle {bundle.path}: a golden frame cannot be decoded here")
    return readable


def kept_answers(bundle: Bundle, golden: GoldenEntry) -> dict[str, NDArray[Any]]:
    """Read what was kept of them.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        return read_arrays(bundle.file(golden.answers))
    except (OSError, ValueError) as error:
        raise BundleError(f"bundle {bundle.path}: golden answers are damaged ({error})") from error


LARGEST_PIXEL_DIFFERENCE = 1
"""Grey levels that a resize may differ by: processors round the same mean differently."""

SMALLEST_SCORE_DIFFERENCE = 1e-6
"""Scores no further apart are equal: a threshold is the score of a sample, perhaps a golden one."""


def compare_golden(
    kept: dict[str, NDArray[Any]],
    here: dict[str, NDArray[Any]],
    bundle: Bundle,
    golden: GoldenEntry,
) -> list[Check]:
    """Compare what was kept with what came out here: preprocessing, answers, decisions."""
    # Bundles of older releases have no probes.
    here = {name: one for name, one in here.items() if name in kept or not _is_probe(name)}
    odd = [name for name in here if not _alike(kept.get(name), here[name])]
    if odd:
        return [
            Check("golden samples", False, f"{_form(kept, odd[0])}, here {_form(here, odd[0])}")
        ]
    names = [stage.model.name for stage in bundle.manifest.stages]
    checks = [
        _compare_pixels(
            [
                (kept[key], here[key])
                for key in (f"input_{position}", f"probe_{position}")
                if key in here
            ],
            name,
        )
        for position, name in enumerate(names)
    ]
    for position, stage in enumerate(bundle.manifest.stages):
        key, tolerance = f"logits_{position}", golden.tolerances[position]
        check = _compare_answers(kept[key], here[key], stage.model.name, tolerance=tolerance)
        if check.passed is False and (why := other_processor(bundle.manifest, stage.model)):
            check = replace(check, detail=f"{check.detail}: {why}")
        if stage.model.codec is not None:
            check = replace(check, detail=f"{check.detail}, through {stage.model.codec}")
        checks.append(check)
    decisions = _compare_decisions(kept, here, Policy.from_manifest(bundle.manifest))
    if decisions.passed and not all(check.passed for check in checks):
        detail = f"{decisions.detail}; not to be judged, as the answers before them differ"
        decisions = Check(decisions.name, None, detail)
    checks.append(decisions)
    return checks


def other_processor(manifest: Manifest, model: ModelEntry) -> str | None:
    """Say why a quantised model answers otherwise here, and what to do; None where it should not.

    Args:
        manifest: of the bundle; names the kind of processor that its models were measured on.
        model: one of them.
    """
    cpu = read_cpu()
    if not model.quantised or model.elsewhere or manifest.processor is None or cpu is None:
        return None
    if cpu.family == manifest.processor:
        return None
    return (
        f"{model.name} is INT8 and was measured on {manifest.processor}, this is {cpu.family}, "
        f"and INT8 answers may differ between the two: calibrate for this device (`tinysaver-edge "
        f"measure` here, `calibrate --records` on what it wrote), or give {model.name} in float32"
    )


def _is_probe(name: str) -> bool:
    return name.startswith("probe_")


def _alike(kept: NDArray[Any] | None, here: NDArray[Any]) -> bool:
    """Whether two arrays can be compared."""
    return kept is not None and (kept.shape, kept.dtype.kind) == (here.shape, here.dtype.kind)


def _form(arrays: dict[str, NDArray[Any]], name: str) -> str:
    if name not in arrays:
        return f"lack {name}"
    return f"{name} is {arrays[name].dtype} {arrays[name].shape}"


def _compare_pixels(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], name: str) -> Check:
    worst = max(
        int(np.abs(kept.astype(np.int16) - here.astype(np.int16)).max(initial=0))
        for kept, here in pairs
    )
    return Check(
        f"preprocessing of {name}",
        worst <= LARGEST_PIXEL_DIFFERENCE,
        f"pixels differ by up to {worst} of 255 (allowed: {LARGEST_PIXEL_DIFFERENCE}): "
        f"{'same' if worst <= LARGEST_PIXEL_DIFFERENCE else 'another'} resize",
    )


def _compare_answers(
    kept: NDArray[Any], here: NDArray[Any], name: str, *, tolerance: float
) -> Check:
    before, now = _softmax(kept), _softmax(here)
    worst = float(np.abs(before - now).max(initial=0))
    detail = f"probabilities differ by up to {worst:.2g} (allowed: {tolerance:g})"
    if worst > tolerance and np.abs(np.sort(before) - np.sort(now)).max() <= tolerance:
        detail += ", but only in their order: its classes come in another one"
    return Check(f"answers of {name}", worst <= tolerance, detail)


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(
        logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


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
    answer: Outputs | None = None
    for position in policy.asked:
        stage, answer = policy.stages[position], policy.after(position, answer, before[position])
        if stage.score is not None and stage.threshold is not None:
            tipped |= np.abs(stage.score(answer) - stage.threshold) <= SMALLEST_SCORE_DIFFERENCE
    tipped &= ~same
    detail = f"{int(same.sum())} of {len(same)} are the same"
    if tipped.any():
        detail += f", {int(tipped.sum())} tipped over by as little as the answers differ"
    return Check("decisions", bool((same | tipped).all()), detail)
