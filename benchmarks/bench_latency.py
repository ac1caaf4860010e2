"""Predicted against measured latency: what a calibration says, and then the bundle, frame by frame.

    python benchmarks/bench_latency.py [--rounds 9] [--frames 1000] [--case NAME]

Every round times the chosen models anew, as `calibrate` does, in processes of their own, and takes
the prediction off the calibration's result (key `latency`). Before and after that it loads the
bundle and decides half of the held-out images each time, one after the other, and then the large
model alone on the same images. So a machine whose pace drifts favours neither. The latency of three
stages is predicted from what each takes, timed with the large model. Rounds of all cases take turns
and medians over them count; with `--case` the other cases keep their last results. Where
other programs run as well, give it precedence:

    chrt -r 20 python benchmarks/bench_latency.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from imagenet import DATA, RESULTS, save, table

from tinysaver_edge import Cascade
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.measured.images import open_input_data
from tinysaver_edge.calibrate.plan import ImageInput, Plan
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.problem import split_holdout
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.demo.show import CameraData, demo_model_paths
from tinysaver_edge.latency import LatencySamples, PooledLatency
from tinysaver_edge.preprocess import Frame

COMMON = {"holdout": 0.5, "no_report": True, "no_golden_frames": True}
WARM_UP = 50
WITHIN = 0.15
WITHIN_P95 = 0.2
FIGURES = {"mean": None, "p95": 0.95}


@dataclass
class Case:
    """A bundle to predict, and what came of it in each round.

    Attributes:
        name: for the table.
        plan: of the calibration; half of the images are held out.
        folder: where bundle and records lie.
        frames: held-out images.
        found: predicted and measured, a pair a round, by "cascade mean" and so on.
        rate: the escalation rate that the prediction is for.
        at_most: the p95 predicted for the rate's upper bound, a round each.
        on_edge: whether that is another p95: then the rate decides whose, not any clock.
        rates: those measured.
        models: of the bundle, in order.
    """

    name: str
    plan: Plan
    folder: Path
    frames: list[Frame]
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    rate: float = 0.0
    at_most: list[float] = field(default_factory=list)
    on_edge: bool = False
    rates: list[float] = field(default_factory=list)
    models: str = ""

    def prepare(self) -> None:
        """Calibrate for the first time: records and bundle are there from now on."""
        calibrate(self.plan, out=self.folder / "bundle")

    def round(self) -> None:
        """Measure, predict, measure."""
        half = len(self.frames) // 2
        before = self._run(self.frames[:half])
        predicted = self._predict()
        after = self._run(self.frames[half:])
        measured = {
            who: LatencySamples(np.concatenate((before[who], after[who]))) for who in predicted
        }
        for who, said in predicted.items():
            for figure, q in FIGURES.items():
                here = measured[who]
                pair = (said.mean_ms, here.mean_ms)
                if q is not None:
                    pair = (said.quantile_ms(q), here.quantile_ms(q))
                self.found.setdefault(f"{who} {figure}", []).append(pair)

    def _predict(self) -> dict[str, PooledLatency]:
        """Time the models of the bundle anew; return what the calibration says of them."""
        with Bundle.load(self.folder / "bundle") as bundle:
            *early, large = (stage.model.name for stage in bundle.manifest.stages)
        records = self.folder / "bundle.records"
        self.models = " → ".join([*early, large])
        for name in (*(f"{one}+{large}" for one in early), large):
            (records / f"{name}.timing.json").unlink()
        said = calibrate(self.plan, out=self.folder / "bundle").latency
        assert said is not None
        self.rate = said.escalation_rate
        edge = said.cascade.quantile_ms(0.95), said.cascade_at_most.quantile_ms(0.95)
        self.on_edge |= edge[1] > (1 + WITHIN) * edge[0]
        self.at_most.append(edge[1])
        return {"cascade": said.cascade, "large model alone": said.large}

    def _run(self, frames: Sequence[Frame]) -> dict[str, list[float]]:
        """Load the bundle; decide the frames with it, and then with its large model alone."""
        with Cascade.load(self.folder / "bundle") as cascade:
            large = cascade.stages[-1]
            alone = Cascade([Stage(large.engine, preprocess=large.preprocess, policy=large.policy)])
            took, escalated = run(cascade, frames)
            self.rates.append(escalated)
            return {"cascade": took, "large model alone": run(alone, frames[: len(frames) // 2])[0]}


def run(cascade: Cascade, frames: Sequence[Frame]) -> tuple[list[float], float]:
    """Decide the frames in their order; return what each took in ms, and the share escalated."""
    for frame in frames[:WARM_UP]:
        cascade.decide(frame)
    took, escalated = [], 0
    for frame in frames:
        start = time.perf_counter()
        decision = cascade.decide(frame)
        took.append((time.perf_counter() - start) * 1e3)
        escalated += decision.escalated
    return took, escalated / len(frames)


def cifar(folder: Path, name: str, frames: int, **flags: object) -> Case:
    """The CIFAR-10 recipe with some flags over it."""
    plan = plan_of(load_recipe("cifar10", root=DATA / "cifar10").overridden(COMMON | flags))
    return Case(name, plan, folder, held_out(plan, frames))


def demo(folder: Path, name: str, frames: int, **flags: object) -> Case:
    """The demo's recipe on its simulated camera."""
    recipe = load_recipe("demo", root=demo_model_paths()[0].parent)
    plan = plan_of(recipe.overridden(COMMON | flags | {"data": CameraData(3000, seed=0)}))
    return Case(name, plan, folder, held_out(plan, frames))


def held_out(plan: Plan, count: int) -> list[Frame]:
    """Return images that the plan does not calibrate on, in random order."""
    assert isinstance(plan.input, ImageInput)
    with open_input_data(plan.input) as data:
        _, held = split_holdout(len(data), fraction=plan.holdout, seed=plan.seed)
        drawn = np.random.default_rng(0).permutation(held)[:count]
        frames = [data.frame(int(index)) for index in drawn]
    return [frame for frame in frames if frame is not None]


def main() -> int:
    """Print the table; exit 1 when a prediction misses by more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of predicting and measuring")
    parser.add_argument("--frames", type=int, default=1000, help="held-out images of a round")
    parser.add_argument("--case", action="append", choices=CASES, help="only this; repeatable")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cases = [
            CASES[title](Path(name) / str(place), title, asked.frames)
            for place, title in enumerate(asked.case or CASES)
        ]
        for case in cases:
            case.prepare()
        for number in range(asked.rounds):
            for case in cases:
                case.round()
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
    return report(cases)


TWO: dict[str, Any] = {"max_stages": 2}

# At a drop of 0.5 points a resnet20 escalates about a twentieth: the p95 then jumps from the
# saver's to the large model's with every tenth of a percent. At 0.2 it is a tenth.
OWN: dict[str, Any] = {"savers": ("resnet20",), "max_drop": 0.2} | TWO

CASES: dict[str, Callable[[Path, str, int], Case]] = {
    "CIFAR-10 recipe": cifar,
    "CIFAR-10 recipe, two stages": partial(cifar, **TWO),
    "demo recipe": demo,
    "resnet20, resnet56: onnxruntime": partial(cifar, engine="onnxruntime", **OWN),
    "resnet20, resnet56: openvino": partial(cifar, engine="openvino", **OWN),
}


def report(cases: Sequence[Case]) -> int:
    """Write the results; return 1 when one is further off than allowed."""
    kept = RESULTS / "bench_latency.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    figures = {name: figures[name] for name in CASES if name in figures}
    for case in cases:
        figures[case.name] = {
            "models": case.models,
            "rate": case.rate,
            "rates": case.rates,
            "predicted_and_measured_ms": case.found,
            "p95_at_most_ms": case.at_most if case.on_edge else None,
            "load": round(os.getloadavg()[1], 1),
        }
    rows, missed = [], False
    for name in CASES:
        for row, off in told(name, figures[name]) if name in figures else ():
            rows.append(row)
            missed |= off
    head = ("bundle", "escalated", "figure", "predicted, ms", "measured, ms", "ratio", "rounds")
    text = (
        f"Medians of rounds; the ratio, predicted over measured, is the median of the rounds' "
        f"ratios (target: within {100 * WITHIN:.0f} % for means, {100 * WITHIN_P95:.0f} % for the "
        f"p95). Escalated: in the calibration, in the run. Where a twentieth is escalated, the p95 "
        f"is the saver's or the large model's as chance has it: then both are predicted, at the "
        f"rate and at its upper bound. In brackets how many rounds, and the load of the two cores "
        f"meanwhile, where it was kept: others worked there.\n\n{table(head, rows)}"
    )
    save("bench_latency", title="Predicted against measured latency", text=text, figures=figures)
    return int(missed)


def told(name: str, figures: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield a row for each figure of a case, and whether it is further off than allowed."""
    rates = f"{100 * figures['rate']:.1f} / {100 * statistics.fmean(figures['rates']):.1f} %"
    for what, pairs in figures["predicted_and_measured_ms"].items():
        ratios = [said / here for said, here in pairs]
        said, here = (statistics.median(values) for values in zip(*pairs, strict=True))
        predicted = f"{said:.3f}"
        at_most = figures["p95_at_most_ms"]
        if what == "cascade p95" and at_most is not None:
            predicted += f" to {statistics.median(at_most):.3f}"
            ratios = [  # of a range, what is nearest to the measured
                min(max(low, here), high) / here
                for (low, here), high in zip(pairs, at_most, strict=True)
            ]
        ratio = statistics.median(ratios)
        within = WITHIN_P95 if what.endswith("p95") else WITHIN
        rounds = f"{len(ratios)}, load {figures['load']}" if figures.get("load") else len(ratios)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f} ({rounds})"
        bundle = f"{name}: {figures['models']}" if figures["models"] else name
        row = (bundle, rates, what, predicted, f"{here:.3f}", f"{ratio:.2f}", spread)
        yield row, abs(ratio - 1) > within


if __name__ == "__main__":
    sys.exit(main())
