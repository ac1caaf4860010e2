"""The constants of the path of reuse on scenes that they were not chosen on, and the presets.

    python benchmarks/bench_path.py [--epochs 800] [--cache FOLDER] [--scenes FOLDER]

Other photos, other motions and other models than those of `bench_epochs.py`: pictures of
CIFAR-10's test set under a camera that is shaken by hand, turns, pans fast or sees the light fade,
ResNet-8 and ResNet-20 before ResNet-56. Other constants are chosen on one half of the photos and
measured on the other, beside those of the package; ``--scenes`` does the same with the cache of
`bench_epochs.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import bench_epochs
import cv2
import numpy as np
import scenes
from bench_epochs import EPSILON, RISK, draw_epochs
from imagenet import DATA, save, table
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.methods.certify import default_rule, trial_of
from tinysaver_edge.calibrate.methods.path import Path as StagePath
from tinysaver_edge.calibrate.methods.reuse import (
    MOST_SAME,
    MOST_STILL,
    THEN,
    EpochTest,
    ReusePath,
)
from tinysaver_edge.calibrate.plan import ImageInput
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.certificate.p_values import EvidenceKind, group_p_values, walk
from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.deciding.figures import epoch_drop_interval
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Preprocessor
from tinysaver_edge.questions.known import Known
from tinysaver_edge.reuse import SIDE, Thumbnailer
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.options import PRESETS

MODELS = {"resnet8": 12.5, "resnet20": 41.0, "resnet56": 126.0}
"""In millions of multiply-accumulates."""

MOTIONS = ("shaken", "turned", "panned fast", "fading light")
CHUNK, PHOTOS = 50, 2000
OURS = "the package's"
CASCADES = ((0, 2), (1, 2), (0, 1, 2))
CHOSEN = ("scenes", "epochs", OURS, "chosen on the other half", "best in hindsight")
LONG = ("epochs", "ResNet-8 alone", "best of both pairs", "and of the chain", "above 1 point")
PRESET = (
    "preset", "scenes (epochs)", "still", "same", "to the large model", "drop without",
    "drop, points (95 %)",
)  # fmt: skip
DRAWS, MANY = 40, 300
SIZES = (300, 1200)
STILL, SAME, THENS = (4.0, 8.0, 16.0), (0.1, 0.3, 0.5), (0.9, 0.97)
"""What else the constants might be."""


def photos() -> tuple[list[NDArray], NDArray]:
    """Read the pictures, enlarged to the size of the scenes, and their classes."""
    with zipfile.ZipFile(DATA / "cifar10" / "test.zip") as archive:
        names = sorted(one for one in archive.namelist() if one.endswith(".png"))
        kinds = sorted({Path(one).parent.name for one in names})
        order = np.random.default_rng(0).permutation(len(names))[:PHOTOS]
        chosen = [names[one] for one in sorted(order.tolist())]
        files = [np.frombuffer(archive.read(one), np.uint8) for one in chosen]
    pictures = [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in files]
    labels = np.array([kinds.index(Path(one).parent.name) for one in chosen])
    return pictures, labels


def frames_of(scene: scenes.Scene, motion: str, pictures: list[NDArray]) -> Iterator[NDArray]:
    """Yield the frames of one epoch, 224 x 224: the photo enlarged, under another motion."""
    rng = np.random.default_rng(scene.seed)
    phase, side = rng.uniform(0, 2 * np.pi, 3), scenes.SIDE
    for number in range(scenes.FRAMES):
        photo = pictures[scene.photos[number >= scene.cut]]
        scale, angle, moved, light = 0.95 * photo.shape[0] / side, 0.0, np.zeros(2), 1.0
        if motion == "shaken":
            moved = 4 * np.sin(phase[:2] + np.array([1.9, 2.7]) * number)
        elif motion == "turned":
            angle = 10 * np.sin(phase[0] + 0.05 * number)
        elif motion == "panned fast":
            moved = 8 * np.sin(phase[:2] + 0.3 * number)
        else:
            light = 1 + 0.35 * np.sin(phase[0] + 0.04 * number)
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
        matrix[:, 2] += moved - side / 2
        matrix = scale * matrix
        matrix[:, 2] += photo.shape[0] / 2 - 0.5
        view = cv2.warpAffine(
            photo,
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        ).astype(np.float32)
        view *= light * (1 + scene.flicker * np.sin(phase[2] + scene.flicker_step * number))
        view += rng.standard_normal(view.shape, np.float32) * scene.noise
        yield np.clip(np.rint(view), 0, 255).astype(np.uint8)


def records(count: int, folder: Path) -> dict[str, NDArray]:
    """Run the models over the scenes, or take what is kept of that."""
    folder = folder / hashlib.sha256(Path(scenes.__file__).read_bytes()).hexdigest()[:12]
    rng, (pictures, labels) = np.random.default_rng(1), photos()
    drawn = [
        (scenes.draw(len(pictures), rng), MOTIONS[rng.integers(len(MOTIONS))]) for _ in range(count)
    ]
    parts, engines = [], None
    for start in range(0, count, CHUNK):
        kept = folder / f"{start:05d}.npz"
        if not kept.is_file():
            engines = engines or _engines(folder)
            print(f"scenes {start} to {start + CHUNK} of {count}", file=sys.stderr)
            rows = [
                answer(scene, motion, pictures, labels, engines)
                for scene, motion in drawn[start:][:CHUNK]
            ]
            with atomic_write(kept) as file:
                np.savez(file, **{name: np.array([one[name] for one in rows]) for name in rows[0]})
        with np.load(kept) as arrays:
            parts.append(dict(arrays))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _engines(folder: Path) -> dict:
    given = plan_of(load_recipe("cifar10", root=DATA / "cifar10")).input
    assert isinstance(given, ImageInput)
    engines = {}
    for model in (*given.savers, given.large):
        name = model.description.name
        made = prepare(model, folder / name)
        engines[name] = (made.with_threads(1).open(), Preprocessor(made.preprocess))
    return engines


def answer(
    scene: scenes.Scene, motion: str, pictures: list[NDArray], labels: NDArray, engines: dict
) -> dict[str, NDArray]:
    """Run all models over one scene."""
    frames, look = list(frames_of(scene, motion, pictures)), Thumbnailer()
    answers = {
        name: np.asarray(engine.infer(preprocessor.batch(frames)), np.float32)
        for name, (engine, preprocessor) in engines.items()
    }
    return {
        "thumbnail": np.array([look(one).ravel().copy() for one in frames]),
        "truth": scenes.classes_of(scene, labels),
        "photos": np.array(scene.photos),
        "motion": np.array(motion),
        **answers,
    }


@dataclass(frozen=True)
class World:
    """Scenes as a calibration sees them: each stage's answers, costs as shares of the last's."""

    stages: tuple[Outputs, ...]
    macs: tuple[float, ...]
    truth: NDArray
    timeline: EpochTimeline

    def test(self, stages: tuple[int, ...], *, units: int) -> EpochTest:
        """Return what a certificate of some of the stages would be computed from."""
        rule = default_rule(units=units, max_drop_points=100 * EPSILON, labelled=True)
        outputs = [self.stages[one] for one in stages]
        return trial_of(  # type: ignore[return-value]
            rule.plain_score,
            rule.plain_fusion,
            StagePath.of(len(stages) - 1, final=rule.fuses),
            tune_saver=outputs[0],
            stages=outputs,
            known=Known.of_labels(self.truth),
            groups=self.timeline.positions,
            evidence=EvidenceKind.EPOCHS,
            risk=RISK,
            candidates=1,
            timeline=self.timeline,
        )


def world_of(found: dict[str, NDArray], index: NDArray) -> World:
    """Return some of the scenes of CIFAR-10."""
    part = {name: values[index] for name, values in found.items()}
    count, frames = part["truth"].shape
    return World(
        tuple(Outputs.from_logits(part[name].reshape(count * frames, -1)) for name in MODELS),
        tuple(one / MODELS["resnet56"] for one in MODELS.values()),
        part["truth"].ravel(),
        EpochTimeline(
            np.repeat(np.arange(count), frames),
            np.tile(np.arange(frames) / scenes.FRAMES_PER_S, count),
            part["thumbnail"].astype(np.int32).reshape(-1, SIDE * SIDE),
            frames / scenes.FRAMES_PER_S,
        ),
    )


def steps_of(world: World, stages: tuple[int, ...], *, units: int, path: ReusePath) -> NDArray:
    """Return loss and cost of each step on each epoch, ``(2, k, epochs)``."""
    test = replace(world.test(stages, units=units), reuse=path, thresholds=path.thresholds)
    by_epoch, loss, cost = world.timeline.by_epoch, [], []
    for threshold in test.thresholds.tolist():
        done = test.at(threshold)
        loss.append(by_epoch(done.loss))
        spent = world.macs[stages[0]] * by_epoch(done.frames.asked)
        for place, stage in enumerate(stages[1:], 1):
            spent = spent + world.macs[stage] * by_epoch(done.frames.fresh & (done.stage >= place))
        cost.append(spent)
    return np.array([loss, cost])


def certified(steps: NDArray, epochs: int, *, share: float = RISK) -> NDArray:
    """Return the certified cost of each of some calibrations; 1 where nothing is certified."""
    return calibrations(steps, epochs, share=share)[1]


def calibrations(
    steps: NDArray, epochs: int, *, share: float = RISK, draws: int = DRAWS
) -> NDArray:
    """Return true loss and cost of what each of some calibrations certifies, ``(2, draws)``."""
    found = []
    for drawn in draw_epochs(steps.shape[2], epochs, draws):
        p = group_p_values(steps[0][:, drawn], epsilon=EPSILON, risk=share)
        last = walk(p, risk=share)
        found.append((0.0, 1.0) if last is None else steps[:, last].mean(axis=1))
    return np.array(found).T


def paths() -> dict[str, ReusePath]:
    """Return the package's path, and others."""
    made = {OURS: ReusePath.fixed()}
    for still, same, then in product(STILL, SAME, THENS):
        if (still, same, then) != (MOST_STILL, MOST_SAME, THEN):
            name = f"{still:g}, {same:g}, {then:g}"
            made[name] = ReusePath.fixed(most_still=still, most_same=same, then=then)
    return made


def halves(worlds: tuple[World, World], what: str, figures: dict) -> list[tuple[str, ...]]:
    """Choose constants on one half, measure on the other; the package's beside them."""
    first, last = 0, len(worlds[0].stages) - 1
    found: dict[int, dict[str, list[float]]] = {size: {} for size in SIZES}
    for name, path in paths().items():
        steps = [steps_of(one, (first, last), units=SIZES[0], path=path) for one in worlds]
        for size in SIZES:
            found[size][name] = [float(certified(one, size).mean()) for one in steps]
    rows = []
    for size, costs in found.items():
        for here, there in ((0, 1), (1, 0)):
            best = min(costs, key=lambda name: costs[name][here])
            told = (costs[OURS][there], costs[best][there], min(c[there] for c in costs.values()))
            figures[f"{what} {size} {'AB'[there]}"] = {
                "package": told[0],
                "chosen": told[1],
                "constants": best,
                "hindsight": told[2],
            }
            chosen = f"{told[1]:.3f} ({best})"
            rows.append((what, str(size), f"{told[0]:.3f}", chosen, f"{told[2]:.3f}"))
    return rows


def chains(world: World, figures: dict) -> list[tuple[str, ...]]:
    """Certify the best of two pairs, and the best of these and the chain, at their shares of δ."""
    ways = {one: steps_of(world, one, units=300, path=ReusePath.fixed()) for one in CASCADES}
    rows = []
    for size in (300, 600, 1200, 2400):
        pairs = np.min([certified(ways[one], size, share=RISK / 2) for one in CASCADES[:2]], axis=0)
        found = np.array(
            [calibrations(one, size, share=RISK / 3, draws=MANY) for one in ways.values()]
        )
        best = found[:, 1].argmin(axis=0)
        losses, each = found[best, :, np.arange(MANY)].T
        broken = float((losses > EPSILON).mean())
        one = certified(ways[CASCADES[0]], size)
        figures[f"chains {size}"] = {
            "one": float(one.mean()),
            "pairs": float(pairs.mean()),
            "chain": float(each.mean()),
            "broken": broken,
        }
        told = (f"{cost.mean():.3f}" for cost in (one, pairs, each))
        rows.append((str(size), *told, f"{broken:.1%}"))
    return rows


def presets(
    saver: Outputs,
    large: Outputs,
    truth: NDArray,
    timeline: EpochTimeline,
    kinds: NDArray,
    figures: dict,
) -> list[tuple[str, ...]]:
    """Say what a preset does where half of the frames are escalated without."""
    margin = Margin()(saver)
    accepted = margin >= np.quantile(margin, 0.5)
    alone = np.where(accepted, saver.predictions, large.predictions)
    rows = []
    for name, preset in PRESETS.items():
        rule = replace(preset.reuse, epoch_s=timeline.epoch_s)
        frames = reused(rule, timeline, saver, accepted)
        asked = frames.fresh & ~accepted
        for kind in dict.fromkeys(kinds.tolist()):
            epochs = kinds == kind
            here = np.repeat(epochs, timeline.sizes)
            drops = [
                timeline.by_epoch((large.predictions == truth) * 1.0 - (answers == truth))[epochs]
                for answers in (alone, alone[frames.of])
            ]
            within = epoch_drop_interval(drops[1])
            assert within is not None
            told = {
                "epochs": int(epochs.sum()),
                "still": float(frames.still[here].mean()),
                "same": float(frames.same[here].mean()),
                "large_without": float((~accepted)[here].mean()),
                "large": float(asked[here].mean()),
                "drop_points_without": 100 * float(drops[0].mean()),
                "drop_points": 100 * float(drops[1].mean()),
                "drop_interval_points": within,
            }
            figures[f"{name}, {kind}"] = told
            rows.append(
                (
                    name,
                    f"{kind} ({told['epochs']})",
                    f"{told['still']:.1%}",
                    f"{told['same']:.1%}",
                    f"{told['large_without']:.1%} → {told['large']:.1%}",
                    f"{told['drop_points_without']:+.2f}",
                    f"{told['drop_points']:+.2f} ({within[0]:+.2f} to {within[1]:+.2f})",
                )
            )
    return rows


def of_photos(photos: NDArray, there: int) -> tuple[NDArray, NDArray]:
    """Return the epochs of one half of the photos, and those of the other; a few have both."""
    half = photos < there // 2
    return np.flatnonzero(half.all(axis=1)), np.flatnonzero((~half).all(axis=1))


def imagenet(folder: Path, count: int) -> tuple[dict, NDArray, NDArray]:
    """Return the records of `bench_epochs`, the photos of each epoch, and its motion."""
    found = bench_epochs.records(count, folder)
    rng = np.random.default_rng(0)
    there = len(scenes.read_photos(DATA / "imagenet")[0])
    drawn = [scenes.draw(there, rng) for _ in range(count)]
    photos = np.array([one.photos for one in drawn])
    return found, photos, np.array([one.motion for one in drawn])


def imagenet_world(found: dict[str, NDArray], index: NDArray) -> World:
    """Return some of its scenes."""
    one = bench_epochs.World.of(found, index)
    return World((one.saver, one.large), (bench_epochs.KAPPA, 1.0), one.truth, one.timeline)


def main() -> int:
    """Print the tables and keep the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--epochs", type=int, default=800, help="scenes of CIFAR-10 to make")
    temporary = Path(tempfile.gettempdir())
    options.add_argument("--cache", type=Path, default=temporary / "tinysaver-path")
    options.add_argument("--scenes", type=Path, help="cache of bench_epochs.py, to use it as well")
    options.add_argument("--of", type=int, default=1600, help="scenes there")
    asked = options.parse_args()
    if not (DATA / "cifar10" / "test.zip").is_file():
        print(f"no {DATA}/cifar10: set TINYSAVER_DATA", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    figures: dict[str, dict] = {}
    found = records(asked.epochs, asked.cache)
    world = world_of(found, np.arange(asked.epochs))
    both = of_photos(found["photos"], PHOTOS)
    rows = halves((world_of(found, both[0]), world_of(found, both[1])), "CIFAR-10", figures)
    long = chains(world, figures)
    shown = presets(
        world.stages[0], world.stages[-1], world.truth, world.timeline, found["motion"], figures
    )
    if asked.scenes is not None:
        kept, photos_of, motions = imagenet(asked.scenes, asked.of)
        both = of_photos(photos_of, 1 + int(photos_of.max()))
        parts = (imagenet_world(kept, both[0]), imagenet_world(kept, both[1]))
        rows += halves(parts, "ImageNet", figures)
        one = bench_epochs.World.of(kept)
        shown += presets(one.saver, one.large, one.truth, one.timeline, motions, figures)
    right = ", ".join(
        f"{name} {(one.predictions == world.truth).mean():.1%}"
        for name, one in zip(MODELS, world.stages, strict=True)
    )
    text = (
        f"{asked.epochs} epochs of {scenes.FRAMES} frames of CIFAR-10 ({', '.join(MOTIONS)}; "
        f"{right}), certified at 1 point, δ = 0.1; means of {DRAWS} draws, 1 where nothing is "
        "certified. Constants are still, same and the threshold where reuse ends; of "
        f"{len(paths())} choices the best on one half of the photos is measured on the other.\n\n"
        + table(CHOSEN, rows)
        + "\n\nThe chain ResNet-8 → 20 → 56 beside both pairs, each at its share of δ:\n\n"
        + table(LONG, long)
        + f"\n\nAbove 1 point: of {MANY} calibrations, those whose true drop is."
        + "\n\nThe presets, not certified, where half of all frames are escalated without:\n\n"
        + table(PRESET, shown)
    )
    title = "The path's constants elsewhere, and the presets"
    save("bench_path", title=title, text=text, figures=figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
