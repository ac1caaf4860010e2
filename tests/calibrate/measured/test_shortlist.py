"""Which savers are measured, in which order, and which are left out for what reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, MIDDLE, SAVER, colour_folders
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.measured.measuring import BestSoFar, Shortlist
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Targets
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import ColorOrder, InputFormat, Layout, Preprocess, Resize

FORM = InputFormat(Layout.NCHW, "float32", ColorOrder.RGB, (1.0,), (0.0,))


def model(name: str, macs: float, top1: float | None = None) -> Artefact:
    return Artefact(
        name=name,
        files=(Path(f"{name}.onnx"),),
        sha256="0",
        source_sha256="0",
        preprocess=Preprocess(Resize(8, 8), FORM),
        output=OutputFormat(),
        engine="onnxruntime",
        options=EngineOptions(),
        macs=macs,
        parameters=None,
        classes=3,
        labels=None,
        published_top1=top1,
    )


BIG = model("big", 1000.0)


def shortlist(**changes: object) -> Shortlist:
    return Shortlist(Targets(**changes), holdout=0.0, seed=0, candidates=3)


@pytest.mark.parametrize(
    ("top1", "accuracy", "changes", "least"),
    [
        (None, 0.8, {}, 0.2),
        (70.0, 0.8, {}, 0.2 + 0.1 - 0.005),
        (70.0, 0.8, {"max_drop_points": 3.0}, 0.2 + 0.1 - 0.03),
        (79.9, 0.8, {}, 0.2),
        (90.0, 0.8, {}, 0.2),
        (70.0, None, {}, 0.2),
        (70.0, 0.8, {"objective": Objective.ACCURACY}, 0.2),
        (
            70.0,
            0.8,
            {
                "objective": Objective.MACS,
                "max_drop_points": None,
                "budgets": Budgets(mean_macs=500.0),
            },
            0.2,
        ),
    ],
)
def test_least_cost(top1, accuracy, changes, least):
    found = shortlist(**changes).least_cost(model("a", 200.0, top1), BIG, accuracy)
    assert found == pytest.approx(least)


@given(seed=st.integers(0, 10_000), accept=st.floats(0, 1), drop=st.sampled_from([0.0, 1.0, 10.0]))
def test_no_cascade_costs_less_whatever_its_score_and_fusion(seed, accept, drop):
    rng = np.random.default_rng(seed)
    saver, large, fused = (rng.random(60) < rng.random() for _ in range(3))
    accepted = rng.random(60) < accept
    cascade = np.where(accepted, saver, fused)
    lost = 100 * (large.mean() - cascade.mean())
    if lost > drop + 1e-9:
        return
    asked = shortlist(max_drop_points=drop)
    # A published accuracy of exactly 0 is none; the bound only falls with it.
    known = model("a", 200.0, max(100 * saver.mean(), 1e-9))
    least = asked.least_cost(known, BIG, float(large.mean()))
    assert least <= 0.2 + (~accepted).mean() + 1e-9


def test_the_reason_names_every_figure():
    asked, poor = shortlist(), model("poor", 200.0, 60.0)
    best = BestSoFar("good", 0.39)
    why = asked.why_not(poor, BIG, large_accuracy=0.8, best=best)
    assert why == (
        "not measured: its own cost 0.200 and the 0.195 it must escalate at least, with a "
        "published top-1 of 60 % where the large model has 80.00 %, make 0.395, which is no "
        "less than the 0.390 of a cascade with good"
    )
    assert asked.why_not(poor, BIG, large_accuracy=0.8, best=BestSoFar("good", 0.4)) is None
    assert asked.why_not(poor, BIG, large_accuracy=0.8, best=None) is None


def test_without_a_published_accuracy_the_own_cost_counts():
    asked, best = shortlist(), BestSoFar("good", 0.15)
    why = asked.why_not(model("plain", 200.0), BIG, large_accuracy=0.8, best=best)
    assert why == (
        "not measured: its own cost 0.200 is no less than the 0.150 of a cascade with good"
    )


def test_over_the_budget_alone():
    asked = shortlist(budgets=Budgets(mean_macs=100.0))
    why = asked.why_not(model("dear", 200.0), BIG, large_accuracy=0.8, best=None)
    assert why == "not measured: its own 200 MACs are over the budget of 100"


class Notes:
    """Hears of the work, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        self.heard.append(what.partition(" ")[0])

    def advance(self, steps: int) -> None: ...

    def finish(self) -> None: ...

    def note(self, message: str) -> None: ...


def test_the_most_promising_is_measured_first_and_the_hopeless_not_at_all(tmp_path):
    # By κ alone the order would be hopeless, modest, promising.
    fields = {
        "hopeless": "macs = 17\npublished_top1 = 1",
        "modest": "macs = 19\npublished_top1 = 60",
        "promising": "published_top1 = 90",
    }
    models = {"hopeless": SAVER, "modest": SAVER, "promising": MIDDLE, "large": LARGE}
    made = recipe(tmp_path, models, fields)
    pictures = colour_folders(tmp_path / "data", each=20)
    asked = {"data": pictures, "work_dir": tmp_path / "w", "method": "empirical", "max_drop": 1.0}
    plan = plan_of(load_recipe(str(made)).overridden(asked))
    plan = replace(plan, input=replace(plan.input, isolate=False, timing=False))
    notes = Notes()
    found = calibrate(plan, progress=notes)
    assert notes.heard[:3] == ["looking", "large", "promising"]
    rows = {row.saver: row for row in found.candidates}
    assert rows["promising"].chosen
    assert rows["hopeless"].accuracy_saver is None
    assert "a published top-1 of 1 % where the large model has" in rows["hopeless"].why
    assert rows["hopeless"].kappa == pytest.approx(17 / 23_058)
    assert plan.targets.method is Method.EMPIRICAL
