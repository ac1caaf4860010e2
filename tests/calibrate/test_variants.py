"""Savers at several input sizes and precisions, through the real command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, SAVER, SIZE, colour_folders, macs
from tests.command import spawned
from tinysaver_edge.calibrate import calibrate
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.calibrate.variants import Variants
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import InputError

OPEN = replace(SAVER, layers=1, any_size=True)
QUICK = ("--method", "empirical", "--max-drop", "5", "--no-timing", "--no-report", "--json")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return colour_folders(tmp_path_factory.mktemp("pictures") / "data", each=10)


def command(pictures: Path, folder: Path, *arguments: object):
    return spawned("calibrate", *arguments, "--data", pictures, "--out", folder / "bundle", *QUICK)


def candidates(made: Path, pictures: Path, folder: Path, **flags: object):
    """The candidates of a recipe, measured in this process."""
    flags = {"data": pictures, "work_dir": folder, "method": "empirical", "max_drop": 5.0, **flags}
    plan = plan_of(load_recipe(str(made)).overridden(flags))
    given = replace(plan.input, isolate=False, timing=False)
    return {row.saver: row for row in calibrate(replace(plan, input=given)).candidates}


def test_every_size_and_precision_is_a_candidate(pictures, tmp_path):
    made = recipe(
        tmp_path,
        {"small": OPEN, "large": LARGE},
        {"small": f'sizes = [{SIZE}, [12, 8]]\nprecisions = ["float32", "bfloat16"]'},
    )
    done = command(pictures, tmp_path, made)
    assert done.code == 0, done.err
    rows = done.rows
    assert {name: row["kappa"] and row["kappa"] * macs(LARGE) for name, row in rows.items()} == {
        "small": pytest.approx(9 * 16 * 16 + 18),
        "small@12x8": pytest.approx(9 * 12 * 8 + 18),
        "small-bfloat16": None,
        "small@12x8-bfloat16": None,
    }
    measured = {name for name, row in rows.items() if row["accuracy_saver"] is not None}
    assert measured == {"small", "small@12x8"}
    why = {row["why"] for name, row in rows.items() if name not in measured}
    assert len(why) == 1
    assert "CPUExecutionProvider computes in float32, not bfloat16" in why.pop()
    assert done.json["saver"] in measured
    assert "small-bfloat16: " in (done.out + done.err)


def test_another_engine_has_the_precision(pictures, tmp_path):
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE}, {"small": 'engine = "openvino"'})
    forms = {"sizes": ("8",), "precisions": ("float32", "bfloat16")}
    rows = candidates(made, pictures, tmp_path, **forms)
    assert list(rows) == ["small@8", "small@8-bfloat16"]
    plain, rough = rows.values()
    # OpenVINO refuses bfloat16 where the processor has none.
    if rough.accuracy_saver is None:
        assert "bfloat16" in rough.why
    else:
        assert rough.accuracy_saver == pytest.approx(plain.accuracy_saver, abs=0.05)


def test_a_file_of_one_size_is_refused_in_a_line(pictures, tmp_path):
    made = recipe(tmp_path, {"small": SAVER, "large": LARGE})
    done = command(pictures, tmp_path, made, "--size", "8")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "small.onnx: takes pictures of 16 × 16 only, not of 8 × 8" in done.err
    assert not (tmp_path / "bundle.records").exists()


def test_its_own_size_may_be_named(pictures, tmp_path):
    made = recipe(tmp_path, {"small": SAVER, "large": LARGE})
    assert list(candidates(made, pictures, tmp_path, sizes=("16",))) == ["small"]


def test_a_form_as_dear_as_the_large_model_is_left_out(pictures, tmp_path):
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE})
    rows = candidates(made, pictures, tmp_path, sizes=("16", "64"))
    assert rows["small"].accuracy_saver is not None
    assert "no less than the large model's" in rows["small@64"].why


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("sizes = [0]", "size 0: expected pixels"),
        ("sizes = [[1, 2, 3]]", "size [1, 2, 3]: expected pixels"),
        ('sizes = "big"', "size 'big': expected pixels"),
        ('precisions = ["int3"]', "precision 'int3': there are float32, tf32, float16, bfloat16"),
        ("sizes = [[8]]\nsises = [8]", "sises: no such key; did you mean sizes?"),
    ],
)
def test_nonsense_in_a_recipe(tmp_path, fields, complaint):
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE}, {"small": fields})
    with pytest.raises(InputError) as error:
        plan_of(load_recipe(str(made)).overridden({"data": tmp_path}))
    assert complaint in str(error.value)


def test_the_large_model_has_one_form(tmp_path):
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE}, {"large": "sizes = [8]"})
    with pytest.raises(InputError, match=r"models\.large\.sizes: large is the large model here"):
        plan_of(load_recipe(str(made)).overridden({"data": tmp_path}))


def test_records_have_no_forms(tmp_path):
    flags = {"records": tmp_path, "labels": tmp_path, "macs": tmp_path, "large": "a"}
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE})
    with pytest.raises(InputError, match="--size, --precision, --bench, --on and --large-jpeg"):
        plan_of(load_recipe(str(made)).overridden({**flags, "sizes": ("8",)}))


def test_flags_go_before_the_recipe_and_repeat_nothing(tmp_path):
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE}, {"small": "sizes = [8, 12]"})
    plan = plan_of(load_recipe(str(made)).overridden({"data": tmp_path, "sizes": ("12", "12x12")}))
    assert [saver.description.name for saver in plan.input.savers] == ["small@12"]


def test_what_holds_for_one_size_holds_for_no_other(tmp_path):
    fields = {"small": "macs = 7\npublished_top1 = 61.5\nsizes = [16, 8]"}
    made = recipe(tmp_path, {"small": OPEN, "large": LARGE}, fields)
    same, other = (
        saver.description
        for saver in plan_of(load_recipe(str(made)).overridden({"data": tmp_path})).input.savers
    )
    assert (same.macs, same.published_top1) == (7, 61.5)
    assert (other.macs, other.published_top1) == (None, None)


def test_parse():
    parsed = Variants.parse(["160", 8, "120x160", [3, 4]], ["float16"])
    assert parsed.sizes == ((160, 160), (8, 8), (120, 160), (3, 4))
    assert parsed.precisions == (Precision.FLOAT16,)
