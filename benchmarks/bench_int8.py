"""INT8 savers beside FP32 ones: how much quicker, how much less accurate, what the cascade costs.

    python benchmarks/bench_int8.py [--turns 600] [--seeds 5]

Needs the extras `cpu` and `quantize`; with `timm`, mobilenetv3_small_050 is timed as well (random
weights: it can be timed, and no more). Ranges of activations are found on images that nothing else
here sees. A saver's forms are timed in one process on one thread, in an order drawn anew each turn,
and the ratio is the median of those of 50 turns at a time. Every calibration runs on the very file
that is timed. Where other programs run as well, give it precedence: `chrt -r 20 python …`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from bench_decide import BLOCK, times_us
from imagenet import DATA, save, table

from tinysaver_edge.calibrate import ImageInput, ModelFile, Plan, calibrate
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.demo.show import CameraData, demo_model_paths
from tinysaver_edge.errors import InfeasibleError
from tinysaver_edge.models.description.description import ModelDescription, find_description
from tinysaver_edge.models.quantize.quantize import quantize

TARGET = 1.2
ENGINES = {"openvino": ".xml", "onnxruntime": ".onnx"}
FITTED = CHECKED = 300


@dataclass
class Saver:
    """A saver in its forms, and what came of each.

    Attributes:
        name: the model's.
        fp32: its description, with the preprocessing in its graph.
        fit: images to find ranges on, and others to count its errors on.
        plan: of a calibration with it, or None where it has learnt nothing.
        int8: the quantised file, by engine.
        speed: medians in µs of FP32, INT8 and the large model, and FP32 over INT8, by engine.
        cascade: accuracy, accept rate, cost in MACs and hold-out drop, by engine and form.
    """

    name: str
    fp32: ModelDescription
    fit: DataSource
    plan: Plan | None
    int8: dict[str, Path] = field(default_factory=dict)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)
    cascade: dict[str, dict[str, float]] = field(default_factory=dict)

    def forms(self, engine: str) -> dict[str, ModelFile]:
        """Both forms, to be run by one engine."""
        small = self.int8[engine]
        return {
            "FP32": ModelFile(self.fp32.file, self.fp32, engine=engine),
            "INT8": ModelFile(small, find_description(small), engine=engine),
        }


def main() -> int:
    """Measure and print the tables; exit 1 when no saver of a cascade reaches the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=600, help="calls of each form")
    parser.add_argument("--seeds", type=int, default=5, help="calibrations of each form")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        savers = [*demo(), *cifar10(folder), *random_timm(folder)]
        for saver in savers:
            make(saver, folder / saver.name)
            print(f"{saver.name}: quantised", file=sys.stderr)
        for saver in savers:
            for engine in ENGINES:
                saver.speed[engine] = time_forms(saver, engine, folder, turns=asked.turns)
        for saver in savers:
            for engine in ENGINES if saver.plan else ():
                for form, model in saver.forms(engine).items():
                    # One folder a plan: what the large model answered serves all its savers.
                    work = folder / f"records-{images(saver.plan).large.path.stem}-{engine}"
                    found = cascade(saver.plan, model, work, seeds=asked.seeds)
                    saver.cascade[f"{engine} {form}"] = found
            print(f"{saver.name}: calibrated", file=sys.stderr)
    return report(savers, seeds=asked.seeds)


def demo() -> list[Saver]:
    """The demo's two savers; ranges come from another camera."""
    paths = demo_model_paths()
    recipe = load_recipe("demo", root=paths[0].parent)
    plan = plan_of(recipe.overridden({"data": CameraData(3000, seed=0)}))
    fit = CameraData(FITTED + CHECKED, seed=1)
    return [Saver(one.stem, find_description(one), fit, plan) for one in paths[:-1]]


def cifar10(folder: Path) -> list[Saver]:
    """A ResNet-20 for a ResNet-56; ranges come from training images."""
    if not (DATA / "cifar10" / "test.zip").is_file():
        print(f"no CIFAR-10 in {DATA}: set TINYSAVER_DATA; it is left out", file=sys.stderr)
        return []
    recipe = load_recipe("cifar10", root=DATA / "cifar10")
    plan = plan_of(recipe.overridden({"holdout": 0.5, "savers": ("resnet20",)}))
    saver = in_graph(images(plan).savers[0], folder)
    return [Saver("resnet20", saver, open_data(DATA / "cifar10" / "train-20k.zip"), plan)]


def images(plan: Plan) -> ImageInput:
    """What a plan runs over images."""
    assert isinstance(plan.input, ImageInput)
    return plan.input


def random_timm(folder: Path) -> list[Saver]:
    """mobilenetv3_small_050 where timm is there, with weights under which every layer matters."""
    if find_spec("timm") is None:
        print("timm is not installed: mobilenetv3_small_050 is left out", file=sys.stderr)
        return []
    from lively import enliven

    from tinysaver_edge.models.compare.compare import draw_pictures
    from tinysaver_edge.models.export.export import export
    from tinysaver_edge.models.export.timm_model import TimmSource, load_timm

    pictures = draw_pictures()
    model = load_timm(TimmSource("mobilenetv3_small_050", random_seed=0, num_classes=16))
    enliven(model, pictures.frames, seed=0)
    out = folder / "mobilenetv3_small_050.onnx"
    # The camera's frames and labels: its ranges are real pictures', its accuracy is chance's.
    labels = find_description(demo_model_paths()[0]).labels
    export(model, [out], labels=labels, pictures=pictures)
    fit = CameraData(FITTED + CHECKED, seed=1)
    return [Saver(out.stem, find_description(out), fit, None)]


def in_graph(model: ModelFile, folder: Path) -> ModelDescription:
    """Fold a model's preprocessing into it, as a calibration does."""
    made = prepare(model, folder / "prepared")
    return replace(
        model.description, file=made.files[0], preprocess=made.preprocess, macs=made.macs
    )


def make(saver: Saver, folder: Path) -> None:
    """Quantise it for both engines."""
    for engine, suffix in ENGINES.items():
        out = folder / f"{saver.name}-int8{suffix}"
        quantize(saver.fp32, out, saver.fit, calibration_samples=FITTED, evaluation_samples=CHECKED)
        saver.int8[engine] = out


def time_forms(saver: Saver, engine: str, folder: Path, *, turns: int) -> dict[str, float]:
    """Time the engine's call on a ready frame, of both forms and the large model."""
    models = saver.forms(engine)
    if saver.plan is not None:
        models["large"] = replace(images(saver.plan).large, engine=engine)
    draw = np.random.default_rng(0)
    opened, steps = [], []
    for key, model in models.items():
        artefact = prepare(model, folder / f"{saver.name}-{engine}-{key}").with_threads(1)
        opened.append(artefact.open())
        batch = draw.integers(0, 256, artefact.preprocess.shape(1), dtype=np.uint8)
        steps.append(lambda run=opened[-1].infer, batch=batch: run(batch))
    spent = times_us(tuple(steps), turns=turns)
    for one in opened:
        one.close()
    blocks = np.median(spent.reshape(-1, BLOCK, len(steps)), axis=1)
    found = dict(zip(models, np.median(blocks, axis=0).tolist(), strict=True))
    return {**found, "ratio": float(np.median(blocks[:, 0] / blocks[:, 1]))}


def cascade(plan: Plan, saver: ModelFile, work: Path, *, seeds: int) -> dict[str, float]:
    """Calibrate with one form of a saver; means over some draws of the hold-out."""
    given = images(plan)
    given = replace(
        given,
        savers=(saver,),
        large=replace(given.large, engine=saver.engine),
        records=work,
        timing=False,
        isolate=False,
    )
    rows = []
    for seed in range(seeds):
        try:
            found = calibrate(replace(plan, input=given, seed=seed, report=False))
        except InfeasibleError:  # nothing can be promised: the large model answers every frame
            rows.append({"accept": 0.0, "cost": 1.0, "drop": 0.0})
            continue
        assert found.holdout is not None
        rows.append(
            {
                "accuracy": found.holdout.accuracy_saver,
                "accept": found.calibration.accept_rate,
                "cost": float(found.calibration.cost_macs_ratio or "nan"),
                "drop": found.holdout.drop_points,
            }
        )
    keys = {key for row in rows for key in row}
    return {key: statistics.fmean(row[key] for row in rows if key in row) for key in keys}


def report(savers: Sequence[Saver], *, seeds: int) -> int:
    """Write the results; return 1 when no saver of a cascade reaches the target."""
    speeds, costs = [], []
    for saver in savers:
        for engine, took in saver.speed.items():
            times = (f"{took[key]:.0f}" for key in ("FP32", "INT8"))
            speeds.append((saver.name, engine, *times, f"{took['ratio']:.2f}"))
        for form, found in saver.cascade.items():
            engine, number = form.split()
            took = saver.speed[engine]
            in_time = took[number] / took["large"] + 1 - found["accept"]
            costs.append(
                (
                    saver.name,
                    engine,
                    number,
                    f"{100 * found['accuracy']:.2f} %" if "accuracy" in found else "",
                    f"{100 * found['accept']:.1f} %",
                    f"{found['cost']:.3f}",
                    f"{in_time:.3f}",
                    f"{found['drop']:+.2f}",
                )
            )
    slower = [
        f"{one.name} in {engine}"
        for one in savers
        for engine, took in one.speed.items()
        if took["ratio"] < 1
    ]
    best = max(one.speed["openvino"]["ratio"] for one in savers if one.plan is not None)
    text = (
        f"The engine's call on one frame, one thread. Target: a saver at least {TARGET} × as fast "
        f"in OpenVINO; the best of a cascade's is {best:.2f} ×. Not every model gains: slower in "
        f"INT8 are {', '.join(slower) or 'none'}.\n\n"
        + table(("saver", "engine", "FP32, µs", "INT8, µs", "FP32 / INT8"), speeds)
        + f"\n\nCertified cascades, at most 0.5 points lost at 90 % confidence, the large model in "
        f"FP32; means over {seeds} draws of the hold-out. The cost is relative to the large model "
        "on every frame: in MACs, of which INT8 takes as many, and in the times above, whose "
        "certificate is the same. Accuracy is the saver's alone.\n\n"
        + table(
            (
                "saver",
                "engine",
                "form",
                "accuracy",
                "accepted",
                "cost in MACs",
                "cost in time",
                "points lost on hold-out",
            ),
            costs,
        )
    )
    figures = {one.name: {"speed_us": one.speed, "cascade": one.cascade} for one in savers}
    save("bench_int8", title="INT8 savers beside FP32 ones", text=text, figures=figures)
    return int(best < TARGET)


if __name__ == "__main__":
    sys.exit(main())
