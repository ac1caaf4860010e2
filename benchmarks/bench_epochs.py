"""Certified cost and validity of reuse over time, on real photos under a moving camera.

    python benchmarks/bench_epochs.py [--epochs 1600] [--draws 300] [--cache FOLDER]

The models run once over all scenes, 64,000 frames; what they
answered is kept in the cache. Epochs of a calibration are then drawn from these with replacement.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import scenes
from imagenet import DATA, save, table
from numpy.typing import NDArray
from pair import LARGE, SAVER, artefacts, need_data

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge.calibrate.chosen.asking import ask_about
from tinysaver_edge.calibrate.methods.certify import certify, default_rule, trial_of
from tinysaver_edge.calibrate.methods.path import Path as StagePath
from tinysaver_edge.calibrate.methods.propose import propose_all
from tinysaver_edge.calibrate.methods.reuse import EpochTest
from tinysaver_edge.calibrate.problem import MeasuredProblem, ModelAnswers, Problem
from tinysaver_edge.calibrate.targets import Reference, Targets
from tinysaver_edge.certificate.p_values import EvidenceKind, group_p_value, group_p_values, walk
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.questions.known import Known
from tinysaver_edge.reuse import SIDE, Thumbnailer

CHUNK = 50
TOP = 10
KAPPA = 41 / 300
EPSILON, RISK = 0.01, 0.1
ASKED = 600
"""Epochs that somebody is asked about in place of labels."""
TARGETS = {300: 0.56, 1200: 0.20, 3000: 0.14}


def records(count: int, folder: Path) -> dict[str, NDArray]:
    """Run both models over the scenes, or take what is kept of that.

    Returns:
        By name: ``thumbnail`` (epochs, frames, 256), ``truth`` (epochs, frames), the saver's
        ``probabilities`` (epochs, frames, 1000) float16, the large model's ``classes`` and
        ``chances`` (epochs, frames, 10).
    """
    folder = folder / hashlib.sha256(Path(scenes.__file__).read_bytes()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    photos, labels = scenes.read_photos(DATA / "imagenet")
    drawn = [scenes.draw(len(photos), rng) for _ in range(count)]
    parts, engines = [], None
    for start in range(0, count, CHUNK):
        kept = folder / f"{start:05d}.npz"
        if not kept.is_file():
            if engines is None:
                made = artefacts(folder)
                engines = {
                    name: (one.with_threads(1).open(), Preprocessor(one.preprocess))
                    for name, one in made.items()
                }
            print(f"scenes {start} to {start + CHUNK} of {count}", file=sys.stderr)
            rows = [answer(scene, photos, labels, engines) for scene in drawn[start:][:CHUNK]]
            with atomic_write(kept) as file:
                np.savez(file, **{name: np.array([row[name] for row in rows]) for name in rows[0]})
        with np.load(kept) as arrays:
            parts.append(dict(arrays))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def answer(scene: scenes.Scene, photos: list, labels: NDArray, engines: dict) -> dict:
    """Run both models over one scene."""
    frames, look = list(scenes.frames_of(scene, photos)), Thumbnailer()
    probabilities = {}
    for name, (engine, preprocessor) in engines.items():
        logits = np.asarray(engine.infer(preprocessor.batch(frames)), np.float32)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[name] = weights / weights.sum(axis=1, keepdims=True)
    classes = np.argsort(-probabilities[LARGE], axis=1, kind="stable")[:, :TOP]
    return {
        "thumbnail": np.array([look(frame).ravel().copy() for frame in frames]),
        "truth": scenes.classes_of(scene, labels),
        "probabilities": probabilities[SAVER].astype(np.float16),
        "classes": classes.astype(np.int16),
        "chances": np.take_along_axis(probabilities[LARGE], classes, axis=1),
    }


@dataclass(frozen=True)
class World:
    """All scenes, as a calibration sees them."""

    saver: Outputs
    large: Outputs
    truth: NDArray
    timeline: EpochTimeline

    @classmethod
    def of(cls, found: dict[str, NDArray], index: NDArray | None = None) -> World:
        """Return the scenes, or some of them."""
        if index is not None:
            found = {name: values[index] for name, values in found.items()}
        count, frames = found["truth"].shape
        flat = {name: values.reshape(count * frames, -1) for name, values in found.items()}
        return cls(
            Outputs.from_probabilities(flat["probabilities"].astype(np.float32)),
            Outputs.from_topk(flat["classes"].astype(np.int64), flat["chances"]),
            found["truth"].ravel(),
            EpochTimeline(
                np.repeat(np.arange(count), frames),
                np.tile(np.arange(frames) / scenes.FRAMES_PER_S, count),
                flat["thumbnail"].astype(np.int32).reshape(-1, SIDE * SIDE),
                frames / scenes.FRAMES_PER_S,
            ),
        )


@dataclass(frozen=True)
class Steps:
    """What each step of a walk does on each epoch.

    Attributes:
        loss: ``(k, epochs)``.
        cost: ``(k, epochs)``, where the large model alone takes 1.
    """

    loss: NDArray
    cost: NDArray

    def walked(self, drawn: NDArray, p_values: object) -> int | None:
        """Return the last step that passes on some epochs."""
        return walk(p_values(self.loss[:, drawn]), risk=RISK)  # type: ignore[operator]


def test_of(world: World, *, units: int, reuse: bool) -> EpochTest:
    """Return what a calibration on so many epochs would compute its certificate from."""
    rule = default_rule(units=units, max_drop_points=100 * EPSILON, labelled=True)
    return trial_of(  # type: ignore[return-value]
        rule.plain_score,
        rule.plain_fusion,
        StagePath.of(1, final=rule.fuses),
        tune_saver=world.saver,
        stages=(world.saver, world.large),
        known=Known.of_labels(world.truth),
        groups=world.timeline.positions,
        evidence=EvidenceKind.EPOCHS if reuse else EvidenceKind.GROUPS,
        risk=RISK,
        candidates=1,
        timeline=world.timeline if reuse else None,
    )


def with_reuse(world: World, *, units: int) -> Steps:
    """Replay every step of the path on every epoch."""
    test = test_of(world, units=units, reuse=True)
    by_epoch, loss, cost = world.timeline.by_epoch, [], []
    for threshold in test.thresholds.tolist():
        done = test.at(threshold)
        asked = done.frames.fresh & (done.stage > 0)
        loss.append(by_epoch(done.loss))
        cost.append(KAPPA * by_epoch(done.frames.asked) + by_epoch(asked))
    return Steps(np.array(loss), np.array(cost))


def without_reuse(world: World, *, units: int) -> Steps:
    """Decide every frame by itself at every threshold."""
    test = test_of(world, units=units, reuse=False)
    by_epoch, loss, cost = world.timeline.by_epoch, [], []
    answers = test.answers
    for threshold in test.thresholds.tolist():
        accepted = test.scores[0] >= threshold
        loss.append(by_epoch(np.where(accepted, answers.losses[0], answers.losses[-1])))
        cost.append(KAPPA + by_epoch(~accepted))
    return Steps(np.array(loss), np.array(cost))


def target_bets(losses: NDArray) -> NDArray:
    return group_p_values(losses, epsilon=EPSILON, risk=RISK)


def fixed_bets(losses: NDArray) -> list[float]:
    rows = (np.unique(row, return_counts=True) for row in losses)
    return [group_p_value(*row, epsilon=EPSILON, risk=RISK) for row in rows]


def normal(losses: NDArray) -> NDArray:
    """What a normal bound says, which promises nothing: the yardstick."""
    from scipy.stats import norm

    spread = losses.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])
    return norm.cdf((losses.mean(axis=1) - EPSILON) / np.maximum(spread, 1e-12))


@dataclass(frozen=True)
class Drawn:
    """What many calibrations certified."""

    costs: NDArray
    drops: NDArray
    nothing: float

    @property
    def broken(self) -> float:
        """Share of them whose true drop exceeds the bound."""
        return float((self.drops > EPSILON).mean())


def calibrations(steps: Steps, epochs: int, draws: int, p_values: object) -> Drawn:
    """Calibrate on many draws of epochs; truth is what all scenes say."""
    costs, drops, nothing = [], [], 0
    for indices in draw_epochs(steps.loss.shape[1], epochs, draws):
        last = steps.walked(indices, p_values)
        nothing += last is None
        costs.append(1.0 if last is None else float(steps.cost[last].mean()))
        drops.append(0.0 if last is None else float(steps.loss[last].mean()))
    return Drawn(np.array(costs), np.array(drops), nothing / draws)


def draw_epochs(there: int, epochs: int, draws: int) -> Iterator[NDArray]:
    rng = np.random.default_rng(epochs)
    return (rng.integers(there, size=epochs) for _ in range(draws))


def check_against_package(found: dict[str, NDArray], steps: Steps) -> None:
    """Hold the short way that the draws take against `certify` itself, on one draw."""
    drawn = next(draw_epochs(len(found["truth"]), 300, 1))
    world = World.of(found, drawn)
    made = certify(
        (world.saver, world.large),
        world.truth,
        max_drop_points=100 * EPSILON,
        timeline=world.timeline,
    )
    order = np.empty(300, np.int64)
    order[np.random.default_rng(0).permutation(300)] = np.arange(300)
    last = steps.walked(drawn[order], target_bets)
    certified = None if made.certificate is None else len(made.certificate.steps) - 1
    if certified != last:
        raise SystemExit(f"certify stops at step {certified}, the benchmark at {last}")


def asked_about(found: dict[str, NDArray], epochs: int) -> dict[str, float | int | None]:
    """Ask somebody who is always right about some epochs, in place of labels.

    Returns:
        How many frames there are, on how many of them an answer differs somewhere on the path, how
        many questions were asked until no further one helps, for how many frames they stand, and
        what is certified with them and with labels.
    """
    drawn = np.random.default_rng(0).permutation(len(found["truth"]))[:epochs]
    world = World.of(found, drawn)
    frames = len(world.truth)
    large = ModelAnswers(LARGE, world.large, 1.0)
    problem = Problem(
        large,
        (ModelAnswers(SAVER, world.saver, KAPPA),),
        world.large.predictions,
        world.timeline.positions.astype(str),
        world.timeline,
    )
    content = np.random.default_rng(0).integers(1, 1 << 62, frames).astype(np.uint64)
    targets = Targets(max_drop_points=100 * EPSILON, reference=Reference.QUESTIONS)
    proposals = propose_all(problem, targets, seed=0, candidates=1)
    asking = ask_about(
        MeasuredProblem(problem, np.arange(frames), content=content),
        problem,
        np.arange(frames),
        proposals,
        targets,
        data=None,
        book=None,
        answers=(),
        repeated=0.0,
    )
    interview, now = asking.interview, datetime.now(timezone.utc)
    while (turn := interview.next_for("somebody")) is not None:
        one, right = turn.question, int(world.truth[turn.question.sample])
        interview.answer(
            one.id, {one.a: "a", one.b: "b"}.get(right, "neither"), by="somebody", at=now
        )
    trial = proposals[0].trial
    assert trial is not None
    common = {"max_drop_points": 100 * EPSILON, "timeline": world.timeline}
    pair, costs = (world.saver, world.large), []
    for known in (asking.known(), world.truth):
        threshold = certify(pair, known, fusion=NoFusion(), **common).threshold
        counts = None if threshold is None else trial.counted(np.array([threshold]))
        costs.append(
            None
            if counts is None or counts.asked is None
            else float((KAPPA * counts.asked[0] + counts.reached[0][0]) / frames)
        )
    standing = interview.standing()
    return {
        "epochs": epochs,
        "frames": frames,
        "differing": len(np.unique(trial.pairs().sample)),
        "questions": standing.asked,
        "stand_for": standing.frames,
        "cost": costs[0],
        "cost_labels": costs[1],
    }


def main() -> int:
    """Measure, print and keep the figures; 1 where a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=1600, help="scenes to make")
    options.add_argument("--draws", type=int, default=300, help="calibrations of each size")
    cache = Path(tempfile.gettempdir()) / "tinysaver-scenes"
    options.add_argument("--cache", type=Path, default=cache)
    asked = options.parse_args()
    need_data()
    cv2.setNumThreads(1)
    found = records(asked.epochs, asked.cache)
    world = World.of(found)
    rows, figures, met = [], {}, True
    made: dict[bool, tuple[Steps, Steps]] = {}
    for epochs, target in TARGETS.items():
        fuses = default_rule(units=epochs, max_drop_points=100 * EPSILON, labelled=True).fuses
        if fuses not in made:
            made[fuses] = with_reuse(world, units=epochs), without_reuse(world, units=epochs)
        reuse, plain = made[fuses]
        if not rows:
            check_against_package(found, reuse)
        certified = calibrations(reuse, epochs, asked.draws, target_bets)
        fixed = calibrations(reuse, epochs, min(asked.draws, 60), fixed_bets)
        bell = calibrations(reuse, epochs, asked.draws, normal)
        alone = calibrations(plain, epochs, min(asked.draws, 60), target_bets)
        cost = float(certified.costs.mean())
        met &= cost <= target and certified.broken <= RISK
        figures[str(epochs)] = {
            "cost": cost,
            "target": target,
            "nothing_certified": certified.nothing,
            "true_drop_points": 100 * float(certified.drops.mean()),
            "broken": certified.broken,
            "cost_fixed_bets": float(fixed.costs.mean()),
            "cost_normal": float(bell.costs.mean()),
            "broken_normal": bell.broken,
            "cost_without_reuse": float(alone.costs.mean()),
        }
        rows.append(
            (
                epochs,
                f"**{cost:.3f}**",
                target,
                f"{100 * certified.nothing:.0f} %",
                f"{100 * certified.drops.mean():+.2f}",
                f"{100 * certified.broken:.1f} %",
                f"{fixed.costs.mean():.3f}",
                f"{bell.costs.mean():.3f} ({100 * bell.broken:.1f} %)",
                f"{alone.costs.mean():.3f}",
            )
        )
    head = (
        "epochs", "certified cost", "target", "nothing certified", "true drop", "above 1 point",
        "fixed bets", "normal bound (above)", "without reuse",
    )  # fmt: skip
    right = [float((one.predictions == world.truth).mean()) for one in (world.saver, world.large)]
    told = figures["questions"] = asked_about(found, ASKED)
    text = (
        f"{asked.epochs} epochs of {scenes.FRAMES} frames, {SAVER} ({right[0]:.1%}) → {LARGE} "
        f"({right[1]:.1%}), 1 point, δ = 0.1; means of {asked.draws} draws with replacement (fixed "
        f"bets and without reuse: {min(asked.draws, 60)}), 1 where nothing is certified. Cost in "
        f"MACs, where the large model on every frame takes 1.\n\n{table(head, rows)}\n\n"
        f"Asked in place of labels, without fusion: {told['epochs']} epochs, {told['frames']} "
        f"frames, on {told['differing']} of which an answer differs somewhere on the path. "
        f"{told['questions']} questions, which stand for "
        f"{told['stand_for']} frames, certify a cost of {told['cost']:.3f}; labels on every frame "
        f"{told['cost_labels']:.3f}."
    )
    save("bench_epochs", title="Reuse over time", text=text, figures=figures)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
