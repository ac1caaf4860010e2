import re
from dataclasses import replace

import pytest

from tests.colours import DESCRIPTION, LARGE, SAVER, colour_model
from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.calibrate.plan import ImageInput, RecordInput
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe, recipe_keys
from tinysaver_edge.calibrate.settings import Settings
from tinysaver_edge.calibrate.targets import Method, Objective, Reference
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import DescriptionError, InputError, ModelError, RecipeError

IMAGES = f"""
data = "images"
group_column = "clip"
large = "big"
savers = ["tiny"]
holdout = 0.25
seed = 7
skip_limit = 0.05
[targets]
method = "empirical"
max_drop = 1.5
objective = "accuracy"
budgets = {{ mean_macs = 6e4, escalation_rate = 0.5 }}
[models.big]
file = "models/big.onnx"
{DESCRIPTION}
[models.tiny]
file = "models/tiny.onnx"
{DESCRIPTION}
"""

RECORDS = """
records = "records"
labels = "labels.npy"
macs = "models.csv"
large = "big"
savers = ["all"]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    colour_model(tmp_path / "models" / "big.onnx", LARGE)
    colour_model(tmp_path / "models" / "tiny.onnx", SAVER)
    (tmp_path / "images.toml").write_text(IMAGES)
    (tmp_path / "records.toml").write_text(RECORDS)
    return tmp_path


def settings(folder, name="images", **options):
    return load_recipe(str(folder / f"{name}.toml"), **options)


def test_a_recipe_becomes_a_plan(folder):
    plan = plan_of(settings(folder))
    assert isinstance(plan.input, ImageInput)
    assert plan.input.data == folder / "images"
    assert plan.input.large.path == folder / "models" / "big.onnx"
    assert [saver.description.name for saver in plan.input.savers] == ["tiny"]
    assert (plan.input.group_column, plan.input.skip_limit) == ("clip", 0.05)
    assert (plan.holdout, plan.seed) == (0.25, 7)
    targets = plan.targets
    assert (targets.method, targets.objective) == (Method.EMPIRICAL, Objective.ACCURACY)
    assert targets.max_drop_points == 1.5
    assert (targets.budgets.mean_macs, targets.budgets.escalation_rate) == (6e4, 0.5)


class TestLargeJpeg:
    RECIPE = IMAGES.replace("seed = 7", "seed = 7\nlarge_jpeg = 90")

    def test_a_recipe_names_a_quality_and_a_flag_another(self, folder):
        assert plan_of(settings(folder)).input.large_codec is None
        (folder / "images.toml").write_text(self.RECIPE)
        assert plan_of(settings(folder)).input.large_codec == Jpeg(90)
        flagged = settings(folder).overridden({"large_jpeg": 60})
        assert plan_of(flagged).input.large_codec == Jpeg(60)

    @pytest.mark.parametrize("quality", [0, 101])
    def test_a_quality_is_from_1_to_100(self, folder, quality):
        (folder / "images.toml").write_text(self.RECIPE.replace("90", str(quality)))
        with pytest.raises(InputError, match=f"JPEG quality {quality}: must be from 1 to 100"):
            plan_of(settings(folder))

    def test_records_are_as_they_were_measured(self, folder):
        (folder / "images.toml").write_text(self.RECIPE)
        flags = {"records": folder, "labels": folder / "l.npy", "macs": folder / "m.csv"}
        assert isinstance(plan_of(settings(folder).overridden(flags)).input, RecordInput)
        with pytest.raises(InputError, match="--large-jpeg need model files: records are as they"):
            plan_of(settings(folder).overridden({**flags, "large_jpeg": 90}))


def test_records_need_no_models(folder):
    plan = plan_of(settings(folder, "records"))
    assert plan.input == RecordInput(
        folder / "records", folder / "labels.npy", folder / "models.csv", "big", ("all",)
    )
    assert (plan.holdout, plan.seed) == (0.0, 0)


def test_paths_start_at_the_root(folder, tmp_path):
    recipe = tmp_path / "elsewhere" / "r.toml"
    recipe.parent.mkdir()
    recipe.write_text(IMAGES)
    plan = plan_of(load_recipe(str(recipe), root=folder))
    assert plan.input.data == folder / "images"
    assert (
        plan_of(load_recipe(str(recipe))).input.large.path == recipe.parent / "models" / "big.onnx"
    )
    with pytest.raises(RecipeError, match="no such folder"):
        load_recipe(str(recipe), root=folder / "none")


class TestFlags:
    def test_override_what_the_recipe_says(self, folder):
        flags = {
            "data": folder / "other",
            "max_drop": 0.0,
            "holdout": 0.0,
            "seed": 0,
            "skip_limit": 0.0,
            "budgets": ("mean_flops=1e5",),
            "method": "tinysaver",
            "work_dir": folder / "work",
            "no_embed": True,
            "no_golden_frames": True,
        }
        plan = plan_of(settings(folder).overridden(flags))
        assert plan.input.data == folder / "other"
        assert (plan.holdout, plan.seed, plan.input.skip_limit) == (0.0, 0, 0.0)
        assert plan.targets.max_drop_points == 0.0
        assert plan.targets.budgets.mean_macs == 5e4
        assert plan.targets.budgets.escalation_rate is None
        assert plan.targets.method is Method.TINYSAVER
        assert plan.input.records == folder / "work"
        assert (plan.input.embed, plan.input.golden_frames) == (False, False)

    def test_that_are_not_given_change_nothing(self, folder):
        before = settings(folder)
        nothing = {"data": None, "max_drop": None, "savers": (), "no_embed": False, "seed": None}
        assert before.overridden(nothing) == before

    def test_that_name_records_take_the_images_out_and_the_other_way_round(self, folder):
        flags = {"records": folder, "labels": folder / "l.npy", "macs": folder / "m.csv"}
        plan = plan_of(settings(folder).overridden(flags))
        assert isinstance(plan.input, RecordInput)
        plan = settings(folder, "records").overridden({"data": folder})
        with pytest.raises(ModelError, match="big: no such file"):
            plan_of(plan)

    def test_that_name_both_are_refused(self, folder):
        with pytest.raises(InputError, match="--data and --records exclude each other"):
            settings(folder).overridden({"records": folder, "data": folder})

    def test_models_by_name_or_by_file(self, folder):
        by_file = folder / "models" / "tiny.onnx"
        plan = plan_of(settings(folder).overridden({"savers": ("tiny", "big")}))
        assert [saver.description.name for saver in plan.input.savers] == ["tiny", "big"]
        with pytest.raises(DescriptionError, match="has no description"):
            plan_of(settings(folder).overridden({"savers": (str(by_file),)}))
        by_file.with_suffix(".toml").write_text(DESCRIPTION)
        plan = plan_of(settings(folder).overridden({"savers": (str(by_file),)}))
        assert plan.input.savers[0].path == by_file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("data =", "date ="), "date"),
        (('large = "big"', "large = 3"), "large"),
        (("max_drop = 1.5", 'max_drop = "much"'), r"targets\.max_drop"),
        (('method = "empirical"', 'method = "guess"'), r"targets\.method"),
        (("mean_macs = 6e4", "speed = 1"), "budget 'speed' is unknown"),
        (("mean_macs = 6e4", "mean_macs = -1"), "must be a number above 0"),
        (("seed = 7", "seed = -7"), "--seed -7"),
        (("seed = 7", "seed = 7.5"), "seed"),
        (("holdout = 0.25", "holdout = 2"), "--holdout 2.0"),
        (("skip_limit = 0.05", "skip_limit = 5"), "--skip-limit 5.0"),
        (('file = "models/tiny.onnx"', ""), r"models\.tiny names no file"),
        (('file = "models/tiny.onnx"', "file = 3"), r"models\.tiny names no file"),
        (('dtype = "float32"', 'dtype = "text"'), r"input\.dtype"),
        (('"unit"', '"?"'), "still to be filled in: input.scale"),
        (('savers = ["tiny"]', "savers = []"), "--saver"),
        (('savers = ["tiny"]', 'savers = ["small"]'), "small: no such file"),
        (('data = "images"', ""), "nothing to calibrate on"),
        (("[targets]", "[targets"), "images.toml"),
    ],
)
def test_slips_are_named(folder, change, message):
    (folder / "images.toml").write_text(IMAGES.replace(*change))
    with pytest.raises((InputError, ModelError), match=message):
        plan_of(settings(folder))


@pytest.mark.parametrize("missing", ["macs", "large", "savers"])
def test_records_need_all_that_goes_with_them(folder, missing):
    lines = [line for line in RECORDS.splitlines() if not line.startswith(missing)]
    (folder / "records.toml").write_text("\n".join(lines))
    with pytest.raises(
        InputError,
        match=f"records need --{missing.rstrip('s') if missing == 'savers' else missing} as well",
    ):
        plan_of(settings(folder, "records"))


def test_records_without_labels_are_asked_about(folder):
    lines = [line for line in RECORDS.splitlines() if not line.startswith("labels")]
    (folder / "records.toml").write_text("\n".join(lines))
    found = settings(folder, "records")
    plan = plan_of(found)
    assert (plan.targets.reference, plan.input.labels) == (Reference.QUESTIONS, None)
    assert plan.only_plans
    written = plan_of(found.overridden({"out": folder / "bundle"}))
    assert (written.targets.reference, written.only_plans) == (Reference.LARGE, False)
    answered = plan_of(found.overridden({"answers": (folder / "a.csv",), "out": folder / "bundle"}))
    assert (answered.targets.reference, answered.only_plans) == (Reference.QUESTIONS, False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"questions": "q.csv", "reference": "large"}, "--questions"),
        ({"ask": True}, "--out"),
        ({"answers": ("a.csv",), "method": "crc"}, "--method crc needs labels"),
        ({"answers": ("a.csv",), "score": "all"}, "--score all needs labels"),
        ({"answers": ("a.csv",), "labels": "labels.npy"}, "leave --labels out"),
    ],
)
def test_what_goes_with_no_questions_is_named(folder, flags, message):
    lines = [line for line in RECORDS.splitlines() if not line.startswith("labels")]
    (folder / "records.toml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        plan_of(settings(folder, "records").overridden(flags))


def test_a_recipe_that_is_not_there():
    with pytest.raises(RecipeError, match=r"no\.toml: no such file"):
        load_recipe("no.toml")
    with pytest.raises(RecipeError, match=r"'no-such': neither a \.toml file nor one of .*cifar10"):
        load_recipe("no-such")
    with pytest.raises(RecipeError, match="neither"):
        load_recipe("../calibration/cifar10")


def test_settings_without_a_recipe():
    with pytest.raises(InputError, match="nothing to calibrate on"):
        plan_of(Settings())


def test_a_recipes_drop_can_be_taken_away(folder):
    asked = replace(settings(folder), max_drop=0.7)
    assert asked.overridden({"no_max_drop": True}).max_drop is None
    assert asked.overridden({"no_max_drop": False}).max_drop == 0.7
    with pytest.raises(InputError, match="exclude each other"):
        asked.overridden({"no_max_drop": True, "max_drop": 0.1})


def test_the_readme_lists_every_key():
    text = (calibration_dir() / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"(?m)^\| `([^`]+)` \|", text)) == sorted(recipe_keys())


@pytest.mark.parametrize(
    ("slip", "parts"),
    [
        ("savrs = []", ["savrs: no such key", "did you mean savers?", "takes description, data"]),
        ("max_drop = 1", ["max_drop: no such key", "it belongs to [targets]"]),
        ("[targets]\nmax_dorp = 1", ["targets.max_dorp", "did you mean max_drop?", "confidence"]),
        ("[targets]\nsavers = []", ["targets.savers", "it belongs to the top of the recipe"]),
        ("[targets]\np95_latency_ms = 5", ["it belongs to [targets.budgets]"]),
        ("[targets]\nmax_drop = '0.5 points'", ["targets.max_drop", "number", "'0.5 points'"]),
        ("large = 3", ["large: ", "not 3"]),
        ("[models.big]\nfiel = 'a'", ["models.big.fiel", "did you mean file?", "sizes"]),
    ],
)
def test_a_wrong_key_says_which_there_are_and_where_they_are_told(folder, slip, parts):
    (folder / "slip.toml").write_text(slip)
    with pytest.raises(RecipeError) as caught:
        settings(folder, "slip")
    for part in ("slip.toml", "calibration/README.md", *parts):
        assert part in str(caught.value)
