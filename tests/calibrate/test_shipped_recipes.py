"""Every recipe that comes with the package is complete, and says of timm's models what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinysaver_edge.calibrate.plan import ImageInput, RecordInput
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe, recipe_names
from tinysaver_edge.demo.show import demo_model_paths
from tinysaver_edge.errors import InputError
from tinysaver_edge.output_format import OutputKind
from tinysaver_edge.preprocess import ColorOrder, Layout, ResizePolicy

IMAGENET = [name for name in recipe_names() if name.startswith("imagenet-")]


def images(name: str, root=None) -> ImageInput:
    given = plan_of(load_recipe(name, root=root)).input
    assert isinstance(given, ImageInput)
    return given


def test_the_papers_pairs_are_there():
    assert {
        "cifar10",
        "imagenet-convnextv2-huge",
        "imagenet-convnextv2-large",
        "imagenet-efficientformerv2-l",
        "imagenet-swin-large",
    } <= set(recipe_names())
    families = {
        model.description.name.split("_")[0] for name in IMAGENET for model in images(name).savers
    }
    assert families == {"efficientformerv2", "efficientnet", "mobilenetv3", "efficientvit"}


WITH_MODELS = [name for name in recipe_names() if name not in ("demo", "records")]


def test_the_demos_recipe_finds_its_models_and_awaits_frames(tmp_path):
    settings = load_recipe("demo", root=demo_model_paths()[0].parent)
    given = plan_of(replace(settings, data=tmp_path)).input
    assert isinstance(given, ImageInput)
    assert {model.path for model in (given.large, *given.savers)} == set(demo_model_paths())
    with pytest.raises(InputError, match="name --data"):
        plan_of(settings)


def test_the_recipe_for_records_awaits_the_large_models_name(tmp_path):
    settings = load_recipe("records", root=tmp_path)
    given = plan_of(replace(settings, large="big")).input
    assert isinstance(given, RecordInput)
    assert (given.records, given.savers) == (tmp_path, ("all",))
    with pytest.raises(InputError, match="--large"):
        plan_of(settings)


@pytest.mark.parametrize("name", WITH_MODELS)
def test_each_gives_a_plan(name, tmp_path):
    settings = load_recipe(name, root=tmp_path)
    plan = plan_of(settings)
    assert plan.targets.allowed_drop_points is not None
    if not isinstance(plan.input, ImageInput):
        return
    models = (plan.input.large, *plan.input.savers)
    assert len({model.description.name for model in models}) == len(models)
    assert set(settings.models) == {model.description.name for model in models}
    assert all(model.path.parent == tmp_path for model in models)


@pytest.mark.parametrize("name", IMAGENET)
def test_models_of_imagenet_are_described_alike(name):
    given = images(name)
    for model in (given.large, *given.savers):
        said = model.description
        assert model.path.name == f"{said.name}.onnx"
        assert said.output.kind is OutputKind.LOGITS
        form, resize = said.preprocess.format, said.preprocess.resize
        assert (form.layout, form.color, form.dtype) == (Layout.NCHW, ColorOrder.RGB, "float32")
        assert resize.policy is ResizePolicy.CENTER_CROP
        # What becomes of black and of white, by (x / 255 - mean) / std.
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        for channel in range(3):
            black = form.add[channel]
            white = 255 * form.multiply[channel] + black
            assert black == pytest.approx(-mean[channel] / std[channel])
            assert white == pytest.approx((1 - mean[channel]) / std[channel])


def test_sizes_and_crops_are_timms():
    timm_models = pytest.importorskip("timm.models", reason="timm is not installed")
    data = pytest.importorskip("timm.data")
    checked = set()
    for name in IMAGENET:
        given = images(name)
        for model in (given.large, *given.savers):
            said = model.description
            published = timm_models.get_pretrained_cfg(said.name)
            assert published is not None, said.name
            config = data.resolve_data_config(pretrained_cfg=published.to_dict())
            resize = said.preprocess.resize
            assert config["input_size"] == (3, resize.height, resize.width), said.name
            assert config["crop_pct"] == resize.crop_ratio, said.name
            assert config["crop_mode"] == "center", said.name
            assert config["mean"] == data.IMAGENET_DEFAULT_MEAN, said.name
            assert config["std"] == data.IMAGENET_DEFAULT_STD, said.name
            checked.add(said.name)
    assert len(checked) >= 14
