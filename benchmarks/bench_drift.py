"""Drift watch: false alarms on clean fields, and frames until the alarm on damaged ones.

    python benchmarks/bench_drift.py [--quick]

False alarms: the 50,000 ImageNet records are the population. Each run draws a calibration set of
10,000, certifies a threshold, counts the disagreement that the bundle would promise, and then
watches a million accepted frames drawn from all of them, 1 % of which are audited. The level bounds
the share of runs with an alarm at any time.

Frames until the alarm: CIFAR-10, ResNet-8 → ResNet-56, calibrated on one half of the test images;
those of the other half are damaged and given to the same models.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from imagenet import DATA, FOUR_PAIRS, Records, read_records, save, table

from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.chosen.assemble import audit, disagreement
from tinysaver_edge.calibrate.methods.certify import certify_pair
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.problem import ModelAnswers, Problem
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import Policy, StagePolicy, replay
from tinysaver_edge.decision import AnswerSource, Decision, FrameId, StageRef
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.stream.drift.drift import Action, DriftOptions, DriftWatch

LEVELS = (0.05, 0.2)
SHARE = 0.01
CLEAN_FRAMES = 1_000_000
LONGEST = 300_000
"""Accepted frames after which the search for an alarm is given up."""

QUIET = 200_000
"""Clean accepted frames before the change, in the last column."""


def blurred(sigma: float) -> Callable[[Frame, np.random.Generator], Frame]:
    return lambda frame, rng: cv2.GaussianBlur(frame, (0, 0), sigma)


def noisy(deviation: float) -> Callable[[Frame, np.random.Generator], Frame]:
    return lambda frame, rng: np.clip(frame + rng.normal(0, deviation, frame.shape), 0, 255).astype(
        np.uint8
    )


def compressed(quality: int) -> Callable[[Frame, np.random.Generator], Frame]:
    def damage(frame: Frame, rng: np.random.Generator) -> Frame:
        data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

    return damage


def darkened(factor: float) -> Callable[[Frame, np.random.Generator], Frame]:
    return lambda frame, rng: (frame * factor).astype(np.uint8)


DAMAGES = {
    "clean": lambda frame, rng: frame,
    "blur, sigma 0.5": blurred(0.5),
    "blur, sigma 0.8": blurred(0.8),
    "blur, sigma 1.2": blurred(1.2),
    "noise, sd 8": noisy(8),
    "noise, sd 16": noisy(16),
    "noise, sd 32": noisy(32),
    "JPEG, quality 60": compressed(60),
    "JPEG, quality 30": compressed(30),
    "JPEG, quality 10": compressed(10),
    "darkness, 1/2": darkened(0.5),
    "darkness, 1/4": darkened(0.25),
    "darkness, 1/8": darkened(0.125),
}


@dataclass(frozen=True)
class Field:
    """What the cascade does on the images of one field.

    Attributes:
        disagrees: of each accepted image, whether the large model would change the answer.
        accept_rate: share of accepted images.
        drop_points: of the cascade against the large model alone.
    """

    disagrees: np.ndarray
    accept_rate: float
    drop_points: float


def main() -> int:
    """Print both tables; exit 1 when a level is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs, for trying it out")
    quick = parser.parse_args().quick
    runs = 10 if quick else 100
    rows, figures = false_alarms(read_records(), runs=runs, quick=quick)
    worst = max(figure["alarms"] / figure["runs"] / figure["level"] for figure in figures)
    found = until_alarm(runs=5 if quick else 25, images=500 if quick else 2500)
    text = (
        f"False alarms, ImageNet records: {runs} runs a row, each with calibration and field drawn "
        f"anew, {CLEAN_FRAMES:,} accepted frames a run, {SHARE:.0%} audited.\n\n"
        + table(
            ("pair", "level", "runs with an alarm", "true rate", "tested rate, mean"),
            rows,
        )
        + "\n\nCIFAR-10, ResNet-8 → ResNet-56: accepted frames until the alarm at level 0.05, "
        f"median (and the 90th percentile) of {found['runs']} runs; "
        f"tested rate {found['tested']:.4f}. "
        f"The last column has {QUIET:,} clean frames before the change.\n\n"
        + table(
            (
                "field",
                "accepted",
                "disagreement",
                "drop, points",
                "frames until alarm",
                "audits",
                f"after {QUIET:,} clean frames",
            ),
            [row_of(one) for one in found["fields"]],
        )
    )
    summary = {"false_alarms": figures, "until_alarm": found}
    if quick:
        print(text)
    else:
        save(
            "bench_drift", title="Does the drift watch keep its level?", text=text, figures=summary
        )
    return int(worst > 1)


# False alarms


def false_alarms(records: Records, *, runs: int, quick: bool) -> tuple[list[Any], list[Any]]:
    """Watch clean fields."""
    rows, figures = [], []
    for number, (saver, large) in enumerate(FOUR_PAIRS[:1] if quick else FOUR_PAIRS):
        for level in LEVELS:
            rng = np.random.default_rng([number, int(100 * level)])
            alarms, rates, tested = 0, [], []
            for _ in range(runs):
                entry, disagrees = drawn(records, saver, large, rng)
                one = watch(entry, level=level, action=Action.WARN)
                alarmed = frames_until(one, disagrees, rng, most=CLEAN_FRAMES) is not None
                alarms += alarmed
                rates.append(float(disagrees.mean()))
                tested.append(one.promised)
            means = float(np.mean(rates)), float(np.mean(tested))
            rows.append(
                (f"{saver} → {large}", level, f"{alarms} of {runs}", *(f"{m:.4f}" for m in means))
            )
            figures.append(
                {"saver": saver, "large": large, "level": level, "runs": runs, "alarms": alarms}
                | {"true_rate": means[0], "tested_rate": means[1]}
            )
    return rows, figures


def drawn(
    records: Records, saver: str, large: str, rng: np.random.Generator
) -> tuple[DisagreementEntry, np.ndarray]:
    """Calibrate on a draw; return what is promised, and the truth about each accepted image."""
    index = rng.permutation(len(records.labels))[:10_000]
    outputs = records.outputs[saver], records.outputs[large]
    labels = records.labels[index]
    part = [one.subset(index) for one in outputs]
    choice = certify_pair(*part, labels, max_drop_points=1.0)
    assert choice.certificate is not None
    first = StagePolicy(saver, score=choice.score, threshold=choice.threshold)
    policy = Policy((first, StagePolicy(large)), choice.fusion)
    evidence = Problem(
        ModelAnswers(large, part[1], records.macs[large]),
        (ModelAnswers(saver, part[0], records.macs[saver]),),
        labels,
    )
    choices = choice.certificate.grid_size
    entry = disagreement(policy, evidence, None, choices=choices, seed=0)
    assert entry is not None
    return entry, audit(policy, outputs).disagrees


# Frames until the alarm


def until_alarm(*, runs: int, images: int) -> dict[str, Any]:
    """Watch damaged fields."""
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as scratch:
        folder = Path(scratch)
        halves = split_in_two(folder)
        settings = replace(
            load_recipe("cifar10", root=DATA / "cifar10"),
            data=halves[0],
            savers=("resnet8",),
            max_drop=1.0,
            holdout=0.4,
            work_dir=folder / "records",
            no_timing=True,
            no_report=True,
        )
        result = calibrate(plan_of(settings), out=folder / "bundle")
        entry = result.disagreement
        assert entry is not None
        with halves[1].open(newline="") as file:
            listed = [(folder / row["file"], row["label"]) for row in csv.DictReader(file)]
        order = np.random.default_rng(7).permutation(len(listed))[:images]
        frames = [cv2.imread(str(listed[one][0])) for one in order]
        with Cascade.load(folder / "bundle") as cascade:
            names = cascade.labels
            assert names is not None
            labels = np.array([names.index(listed[one][1]) for one in order])
            fields = {
                name: field_of(cascade, [damage(f, np.random.default_rng(i)) for i, f in
                                         enumerate(frames)], labels)
                for name, damage in DAMAGES.items()
            }  # fmt: skip
    found = [timed(name, one, fields["clean"], entry, runs=runs) for name, one in fields.items()]
    return {
        "runs": runs,
        "level": LEVELS[0],
        "share": SHARE,
        "promised": entry.model_dump(),
        "tested": watch(entry, level=LEVELS[0], action=Action.WARN).promised,
        "fields": found,
    }


def split_in_two(folder: Path) -> tuple[Path, Path]:
    """Unpack the test images and list a random half in each of two tables."""
    with zipfile.ZipFile(DATA / "cifar10" / "test.zip") as archive:
        archive.extractall(folder / "images")
    files = sorted((folder / "images").rglob("*.png"))
    order = np.random.default_rng(0).permutation(len(files))
    tables = folder / "calibration.csv", folder / "field.csv"
    for path, half in zip(tables, np.array_split(order, 2), strict=True):
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file", "label"))
            for one in half:
                rows.writerow((files[one].relative_to(folder).as_posix(), files[one].parent.name))
    return tables


def field_of(cascade: Cascade, frames: list[Frame], labels: np.ndarray) -> Field:
    """Ask both models about every frame."""
    outputs = []
    for stage in cascade.stages:
        parts = [
            stage.ask(stage.prepare_many(frames[at : at + 50])).logits.copy()
            for at in range(0, len(frames), 50)
        ]
        outputs.append(Outputs(logits=np.concatenate(parts)))
    seen = audit(cascade.policy, outputs)
    answered = replay(cascade.policy, outputs).predictions
    drop = 100 * float(np.mean(outputs[-1].predictions == labels) - np.mean(answered == labels))
    return Field(seen.disagrees, len(seen.accepted) / len(frames), drop)


def timed(
    name: str, field: Field, clean: Field, entry: DisagreementEntry, *, runs: int
) -> dict[str, Any]:
    """Run several watches over one field."""
    at_once, later = [], []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        at_once.append(
            frames_until(watch(entry, level=LEVELS[0]), field.disagrees, rng, most=LONGEST)
        )
        one = watch(entry, level=LEVELS[0])
        if frames_until(one, clean.disagrees, rng, most=QUIET) is None:
            later.append(frames_until(one, field.disagrees, rng, most=LONGEST))
    return {
        "field": name,
        "accept_rate": field.accept_rate,
        "disagreement": float(field.disagrees.mean()),
        "drop_points": field.drop_points,
        "frames_until_alarm": at_once,
        "frames_after_quiet": later,
    }


def row_of(one: dict[str, Any]) -> tuple[str, ...]:
    until, later = one["frames_until_alarm"], one["frames_after_quiet"]
    median = np.median([LONGEST if n is None else n for n in until])
    found = all(n is not None for n in until)
    return (
        one["field"],
        f"{one['accept_rate']:.2f}",
        f"{one['disagreement']:.4f}",
        f"{one['drop_points']:+.2f}",
        spread(until),
        f"{SHARE * median:.0f}" if found else "",
        spread(later),
    )


def spread(counts: list[int | None]) -> str:
    """Median and 90th percentile; how many runs had an alarm, where not all had one."""
    had = [one for one in counts if one is not None]
    if len(had) < len(counts) or not had:
        return f"alarm in {len(had)} of {len(counts)} runs"
    return f"{np.median(had):,.0f} ({np.percentile(had, 90):,.0f})"


# The watch


def watch(entry: DisagreementEntry, *, level: float, action: Action = Action.RAISE) -> DriftWatch:
    return DriftWatch(
        entry, DriftOptions(share=SHARE, level=level, action=action), clock=lambda: 0.0
    )


def frames_until(
    one: DriftWatch, disagrees: np.ndarray, rng: np.random.Generator, *, most: int
) -> int | None:
    """Give a watch accepted frames drawn from a field until the alarm; None where there is none.

    Which frames are audited is drawn here, all at once: `DriftWatch.audits` does it frame by frame.
    """
    frames = np.cumsum(rng.geometric(SHARE, size=int(1.2 * SHARE * most) + 100))
    frames = frames[frames <= most]
    drawn = disagrees[rng.integers(0, len(disagrees), size=len(frames))]
    for count, differs in zip(frames, drawn, strict=True):
        one.audited(SAVER, OTHER if differs else SAME, None)
        if not one.vouches:
            return int(count)
    return None


def answer(index: int, source: AnswerSource) -> Decision:
    return Decision(
        label=str(index),
        index=index,
        confidence=1.0,
        score=1.0,
        stage=StageRef(0, "model"),
        source=source,
        escalated=source is not AnswerSource.SAVER,
        degraded=None,
        certified=True,
        revision=0,
        frame_id=FrameId("field", 0),
        timestamp_s=0.0,
    )


SAVER, SAME, OTHER = (
    answer(0, AnswerSource.SAVER),
    answer(0, AnswerSource.FUSED),
    answer(1, AnswerSource.FUSED),
)


if __name__ == "__main__":
    sys.exit(main())
