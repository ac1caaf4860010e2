"""The issue's main job on real images with real models: CIFAR-10, ResNet-8 and 20 to ResNet-56.

The models are measured once for all tests here: a minute on two cores.
"""

import numpy as np
import pytest

from tests.cli.test_records import FIGURES, KEYS
from tests.command import spawned
from tests.real_data import data_folder
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.measured import independence
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.data.files import open_data
from tinysaver_edge.score import Margin

CIFAR = data_folder() / "cifar10"
SEEDS = range(10)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CIFAR / "test.zip").is_file(), reason="no cifar10 in ../shared/data"),
]

DESCRIPTIONS = {
    "resnet8": ('layout = "NHWC", scale = "raw"', "probabilities"),
    "resnet20": ('layout = "NCHW", scale = "imagenet"', "logits"),
    "resnet56": ('layout = "NCHW", scale = "imagenet"', "logits"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cifar10")


@pytest.fixture(scope="module", autouse=True)
def compared_once():
    """All calibrations here look at the same images, which are compared with each other once."""
    real, found = independence.find_alike, {}

    def once(looks, names, labels, groups):
        key = (looks.content.tobytes(), tuple(names), tuple(labels), groups is None)
        if key not in found:
            found[key] = real(looks, names, labels, groups)
        return found[key]

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(independence, "find_alike", once)
        yield


@pytest.fixture(scope="module")
def by_recipe(folder):
    """The issue's second command line, in a process of its own."""
    return spawned(
        "calibrate", "cifar10", "--root", CIFAR, "--holdout", "0.5", "--seed", "0",
        "--out", folder / "bundle", "--no-timing", "--json",
    )  # fmt: skip


@pytest.fixture
def bundle(folder, by_recipe):
    assert by_recipe.code == 0, by_recipe.err
    return folder / "bundle"


def chosen(folder, seed, **settings):
    """What the recipe's calibration chooses with another seed; the records are there already."""
    flags = {"holdout": 0.5, "seed": seed, "no_timing": True, "work_dir": folder / "bundle.records"}
    plan = plan_of(load_recipe("cifar10", root=CIFAR).overridden({**flags, **settings}))
    return calibrate(plan)


def test_the_recipe_gives_one_object(by_recipe):
    assert by_recipe.code == 0, by_recipe.err
    result = by_recipe.json
    assert result.keys() >= KEYS
    for part in ("calibration", "holdout"):
        assert result[part].keys() == FIGURES
        assert result[part]["accuracy_large"] == pytest.approx(0.934, abs=0.006)
    assert result["holdout"]["samples"] == 5000
    last = result["stages"][-1]
    assert (last["model"], last["score"], last["threshold"]) == ("resnet56", None, None)
    kappas = {row["saver"]: row["kappa"] for row in result["candidates"]}
    assert kappas["resnet8"] == pytest.approx(12.5 / 126, rel=0.02)
    assert kappas["resnet20"] == pytest.approx(41 / 126, rel=0.02)


def test_descriptions_beside_the_command_line_give_the_same(command, folder, bundle, by_recipe):
    """The issue's first command line."""
    descriptions = folder / "descriptions"
    descriptions.mkdir()
    for name, (form, kind) in DESCRIPTIONS.items():
        (descriptions / f"{name}.toml").write_text(
            f'input = {{ dtype = "float32", color = "RGB", size = 32, {form} }}\n'
            f'output = {{ kind = "{kind}" }}\n'
        )
    done = command(
        "calibrate", "--data", CIFAR / "test.zip", "--holdout", 0.5, "--seed", 0,
        "--descriptions", descriptions, "--large", CIFAR / "resnet56.onnx",
        "--saver", CIFAR / "resnet8.tflite", "--saver", CIFAR / "resnet20.onnx",
        "--max-drop", 0.5, "--work-dir", f"{bundle}.records", "--no-timing",
        "--out", folder / "second", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "to go" not in done.err  # the same models on the same images: nothing to measure
    for name in ("stages", "calibration", "holdout", "method"):
        assert done.json[name] == by_recipe.json[name]


def test_over_ten_seeds_the_cascade_is_cheap_and_nearly_as_good(folder, bundle):
    held = []
    for seed in SEEDS:
        result = chosen(folder, seed, method="empirical", max_drop=0.5)
        assert result.calibration.drop_points <= 0.5
        assert result.calibration.samples == 5000
        held.append(result.holdout)
    large = [figures.accuracy_large for figures in held]
    assert min(large) >= 0.934 - 0.006
    assert max(large) <= 0.934 + 0.006
    assert np.mean([figures.cost_macs_ratio for figures in held]) <= 0.40
    assert np.mean([figures.drop_points for figures in held]) <= 1.0


def test_the_default_keeps_its_bound_on_the_holdout(folder, bundle):
    """What is certified for 0.5 points at 90 % may fail in one of ten seeds, by chance in two."""
    held = [chosen(folder, seed, max_drop=0.5).holdout for seed in SEEDS]
    # A hold-out of 5,000 has noise of its own: 0.3 points is one standard deviation of it.
    assert sum(figures.drop_points > 0.5 + 0.3 for figures in held) <= 2
    assert np.mean([figures.drop_points for figures in held]) <= 0.5


def test_the_whole_set_gives_the_published_accuracies(folder, bundle):
    result = chosen(folder, 0, holdout=0.0, method="empirical")
    assert result.calibration.samples == 10_000
    assert result.calibration.accuracy_large == pytest.approx(0.9339, abs=5e-4)
    accuracies = {row.saver: row.accuracy_saver for row in result.candidates}
    assert accuracies["resnet8"] == pytest.approx(0.8719, abs=1e-3)
    assert accuracies["resnet20"] == pytest.approx(0.9173, abs=1e-3)


def test_the_bundle_decides_as_calibration_did(command, bundle):
    """One image at a time, on the engines: the records were made in batches."""
    from tinysaver_edge.cascade import Cascade
    from tinysaver_edge.records.records import load_record

    with Bundle.load(bundle) as opened:
        names = [stage.model.name for stage in opened.manifest.stages]
    records = [load_record(bundle.with_name("bundle.records"), name) for name in names]
    picks = np.random.default_rng(0).choice(10_000, 100, replace=False)
    margins = Margin()(records[0].outputs.subset(picks))
    with open_data(CIFAR / "test.zip") as data, Cascade.load(bundle) as cascade:
        threshold = cascade.stages[0].policy.threshold
        for pick, margin in zip(picks, margins, strict=True):
            decision = cascade.decide(data.frame(int(pick)))
            assert decision.score == pytest.approx(margin, abs=1e-4)
            if abs(margin - threshold) > 1e-4:
                assert (decision.stage.index > 0) == (margin < threshold)
                assert decision.escalated == (decision.stage.index == len(names) - 1)
    assert command("verify", bundle).code == 0


def test_papers_rule_and_budgets(folder, bundle):
    result = chosen(folder, 0, method="tinysaver")
    assert result.policy.stages[0].score.name == "msp"
    fitting = chosen(folder, 0, method="empirical", budgets=("mean_macs=60e6",))
    assert fitting.calibration.cost_macs_ratio * 125.5e6 <= 60e6 * 1.005
    assert fitting.calibration.drop_points < 1
