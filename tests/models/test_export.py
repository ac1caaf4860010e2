"""Exports of small timm models: what is in the files, what is not, and what is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

REASON = "needs pip install 'tinysaver-edge[timm]'"
torch = pytest.importorskip("torch", reason=REASON)
timm = pytest.importorskip("timm", reason=REASON)
onnx = pytest.importorskip("onnx", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
safetensors_torch = pytest.importorskip("safetensors.torch", reason=REASON)

from benchmarks.lively import enliven  # noqa: E402
from tests.cli.test_devices import run  # noqa: E402
from tests.command import PROGRAM  # noqa: E402
from tinysaver_edge.engines.registry import create_engine, engine_class  # noqa: E402
from tinysaver_edge.errors import InputError, ModelError  # noqa: E402
from tinysaver_edge.models.compare.compare import (  # noqa: E402
    answers,
    check_model,
    draw_pictures,
)
from tinysaver_edge.models.description.carried import read_metadata  # noqa: E402
from tinysaver_edge.models.description.description import METADATA_KEY, find_description  # noqa: E402
from tinysaver_edge.models.export.export import SUFFIXES, Export, export  # noqa: E402
from tinysaver_edge.models.export.timm_model import (  # noqa: E402
    TimmModel,
    TimmSource,
    exportable,
    load_timm,
)
from tinysaver_edge.models.export.torch_onnx import export_onnx, first_layer_apart  # noqa: E402
from tinysaver_edge.models.graph.macs import count_macs, profile  # noqa: E402
from tinysaver_edge.preprocess import DEVICE_FORMAT, Preprocessor, ResizePolicy  # noqa: E402

LABELS = ("cat", 'a "b"', "grün", "d\\e", "f", "g", "h", "i", "j", "k")
PICTURES = draw_pictures(count=4)


def mergeable() -> TimmModel:
    """RepGhostNet: small, and with branches to be merged."""
    model = load_timm(TimmSource("repghostnet_050", random_seed=0, num_classes=10, image_size=64))
    enliven(model, PICTURES.frames, seed=0)
    return model


@pytest.fixture(scope="module")
def model() -> TimmModel:
    return mergeable()


@pytest.fixture(scope="module")
def made(model: TimmModel, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("exported")
    outs = [folder / f"rep{suffix}" for suffix in SUFFIXES]
    return export(model, outs, labels=LABELS, pictures=PICTURES)


def torch_answers(model: TimmModel) -> np.ndarray:
    batch = Preprocessor(model.preprocess).batch(PICTURES.frames)
    with torch.no_grad():
        return model.module(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("place", range(3), ids=SUFFIXES)
def test_files_answer_frames_as_torch_answers_scaled_pictures(
    model: TimmModel, made: Export, place: int
) -> None:
    one = made.exported[place]
    assert one.comparison.samples == 4
    assert one.comparison.max_difference < 1e-3
    assert one.comparison.largest_logit > 0.5
    assert one.comparison.top1_agreement == 1.0
    found = find_description(one.path)
    assert found.preprocess.format == DEVICE_FORMAT
    assert found.labels == LABELS
    expected = torch_answers(model)
    for engine in ("onnxruntime", "openvino", "torch"):
        if one.path.suffix not in engine_class(engine).suffixes:
            continue
        with create_engine(
            engine, one.path, preprocess=found.preprocess, output=found.output
        ) as opened:
            np.testing.assert_allclose(
                answers(opened, found.preprocess, PICTURES.frames), expected, atol=1e-3
            )


def test_the_description_repeats_timms_preprocessing(model: TimmModel, made: Export) -> None:
    resize = find_description(made.exported[0].path).preprocess.resize
    config = timm.data.resolve_model_data_config(model.module)
    assert (resize.height, resize.width) == (64, 64)
    assert resize.policy is ResizePolicy.CENTER_CROP
    assert resize.crop_ratio == config["crop_pct"]
    form = model.preprocess.format
    black = np.array(form.add)
    white = 255 * np.array(form.multiply) + form.add
    np.testing.assert_allclose(black, -np.array(config["mean"]) / config["std"])
    np.testing.assert_allclose(white, (1 - np.array(config["mean"])) / config["std"])


def test_branches_are_merged_and_macs_counted_alike(model: TimmModel, made: Export) -> None:
    assert made.macs <= made.macs_as_trained
    assert made.parameters < made.parameters_as_trained
    for one in made.exported[:2]:
        assert count_macs(one.path).macs == pytest.approx(made.macs, rel=0.01)
        assert find_description(one.path).macs == made.macs


def test_the_onnx_holds_its_description_and_no_other_text(made: Export) -> None:
    path = made.exported[0].path
    proto = onnx.load(str(path))
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.key for entry in proto.metadata_props] == [METADATA_KEY]
    assert "doc_string" not in texts(proto)
    data = path.read_bytes()
    for word in (b"site-packages", b"stack_trace", b".py", b"pkg.torch", str(Path.cwd()).encode()):
        assert word not in data


def texts(message) -> set[str]:
    """Names of the fields with notes that are set anywhere but at the top."""
    found = set()
    for field, value in message.ListFields():
        if field.name == "doc_string" or (
            field.name == "metadata_props" and not isinstance(message, onnx.ModelProto)
        ):
            found.add("doc_string")
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                found |= texts(inner)
    return found


def test_the_xml_holds_its_description_and_no_paths(made: Export) -> None:
    path = made.exported[1].path
    assert list(read_metadata(path)) == [METADATA_KEY]
    text = path.read_text()
    assert "<framework>" not in text
    for word in ("site-packages", ".py", str(path.parent), str(Path.cwd())):
        assert word not in text


def test_the_same_model_gives_the_same_bytes(
    model: TimmModel, made: Export, tmp_path: Path
) -> None:
    outs = [tmp_path / f"rep{suffix}" for suffix in (".onnx", ".xml")]
    again = export(model, outs, labels=LABELS, pictures=PICTURES)
    for old, new in zip(made.exported, again.exported, strict=False):
        for before, after in zip(old.files, new.files, strict=True):
            assert before.read_bytes() == after.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rep.bin", "rep.onnx", "rep.xml"]


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    model = load_timm(TimmSource("test_vit", random_seed=1))
    outs = [tmp_path / "vit.onnx", tmp_path / "vit.xml"]
    made = export(model, outs, batch=2, pictures=draw_pictures(count=3))
    for one in made.exported:
        found = find_description(one.path)
        with create_engine("auto", one.path, preprocess=found.preprocess, output=found.output) as e:
            assert e.signature.batch_size == 2
        assert count_macs(one.path).macs == made.macs
    assert find_description(outs[0]).labels is None


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_maxvit"])
def test_other_families(tmp_path: Path, name: str) -> None:
    model = load_timm(TimmSource(name, random_seed=0))
    enliven(model, PICTURES.frames, seed=0)
    made = export(model, [tmp_path / "m.onnx", tmp_path / "m.xml"], pictures=PICTURES)
    for one in made.exported:
        assert one.comparison.max_difference < 1e-3
        assert one.comparison.largest_logit > 0.5
        assert count_macs(one.path).macs == pytest.approx(made.macs, rel=0.01)


class Undecided(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Bessel(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Forgetful(torch.nn.Module):
    """Fused, it forgets the sign."""

    def forward(self, x):
        return x

    def fuse(self):
        return torch.nn.ReLU()


def with_layer(layer: torch.nn.Module) -> TimmModel:
    model = load_timm(TimmSource("test_resnet", random_seed=0, num_classes=10))
    model.module.eval()
    body = torch.nn.Sequential()
    body.add_module("first", torch.nn.Conv2d(3, 8, 3, stride=16))
    body.add_module("odd", torch.nn.Sequential(layer))
    body.add_module("last", torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.LazyLinear(10)))
    with torch.no_grad():
        body(torch.zeros(model.preprocess.shape(1)))
    return replace(model, module=body.eval())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        pytest.param(Undecided(), "at layer odd.0: Could not guard", id="control flow on data"),
        pytest.param(Bessel(), "at layer odd.0: No ONNX function found", id="unknown operation"),
        pytest.param(Forgetful(), "from layer odd.0 on, whose branches do not merge", id="merging"),
    ],
)
def test_a_failing_export_names_the_layer(
    tmp_path: Path, layer: torch.nn.Module, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        export(with_layer(layer), [tmp_path / "odd.onnx"], pictures=PICTURES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_answer_with_no_numbers_are_refused(tmp_path: Path) -> None:
    model = load_timm(TimmSource("test_resnet", random_seed=0))
    with torch.no_grad():
        model.module.conv1[0].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite: the weights are damaged"):
        export(model, [tmp_path / "m.onnx"], pictures=PICTURES)
    assert list(tmp_path.iterdir()) == []


def test_branches_that_do_not_merge_can_be_kept(tmp_path: Path) -> None:
    out = tmp_path / "odd.onnx"
    made = export(with_layer(Forgetful()), [out], merge=False, pictures=PICTURES)
    assert made.exported[0].comparison.max_difference < 1e-3


def test_the_first_layer_that_answers_otherwise_is_found(model: TimmModel, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    merged = exportable(model.module)
    layers = export_onnx(merged, model.preprocess.shape(1), plain, batch=None, name="rep")
    batch = Preprocessor(model.preprocess).batch(PICTURES.frames)
    assert first_layer_apart(merged, plain, layers, batch, tolerance=1e-3) is None
    proto = onnx.load(str(plain))
    spoilt = next(one for one in proto.graph.initializer if one.name.startswith("blocks.3."))
    values = onnx.numpy_helper.to_array(spoilt) * 1.5
    spoilt.CopyFrom(onnx.numpy_helper.from_array(values, spoilt.name))
    onnx.save(proto, str(plain))
    found = first_layer_apart(merged, plain, layers, batch, tolerance=1e-3)
    assert found is not None
    assert found.startswith("blocks.3")


def test_refused_past_the_tolerance(model: TimmModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"more than 1e-12.*it was not written"):
        export(model, [tmp_path / "m.onnx"], pictures=PICTURES, tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("outs", "labels", "message"),
    [
        ([], None, "no file to export to"),
        (["m.pt"], None, "must end in .onnx, .xml, .safetensors"),
        (["m.onnx", "m.onnx"], None, "named twice"),
        (["m.onnx"], ("a", "b"), "2 labels for 10 classes"),
    ],
)
def test_contradictions(model: TimmModel, tmp_path: Path, outs, labels, message) -> None:
    with pytest.raises(InputError, match=message):
        export(model, [tmp_path / out for out in outs], labels=labels, pictures=PICTURES)


def state(name: str = "test_vit", **settings: int) -> dict[str, torch.Tensor]:
    return load_timm(TimmSource(name, random_seed=3, **settings)).module.state_dict()


def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: one + 1 if one.is_floating_point() else one for name, one in weights.items()}


CHECKPOINTS = {
    "plain.pth": lambda weights: weights,
    "wrapped.pth": lambda weights: {f"module.{name}": one for name, one in weights.items()},
    "training.pth.tar": lambda weights: {
        "epoch": 3,
        "arch": "test_vit",
        "args": Namespace(lr=0.1),
        "state_dict": changed(weights),
        "state_dict_ema": weights,
        "metric": 0.5,
    },
}


@pytest.mark.parametrize("name", [*CHECKPOINTS, "plain.safetensors"])
def test_checkpoints(tmp_path: Path, name: str) -> None:
    weights, path = state(num_classes=7), tmp_path / name
    if name in CHECKPOINTS:
        torch.save(CHECKPOINTS[name](weights), path)
    else:
        safetensors_torch.save_file(weights, path)
    found = load_timm(TimmSource("test_vit", checkpoint=path))
    assert found.num_classes == 7
    assert found.labels is None
    for key, value in found.module.state_dict().items():
        assert torch.equal(value, weights[key])


class Evil:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


def write_damaged(path: Path, kind: str, mark: Path) -> None:
    if kind == "code":
        torch.save({"state_dict": state(), "extra": Evil(mark)}, path)
    elif kind == "code in a bare pickle":
        path.write_bytes(pickle.dumps(Evil(mark)))
    elif kind == "whole module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "truncated":
        torch.save(state(), path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "one bit changed":
        torch.save(state(), path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
    elif kind == "other model":
        torch.save(state("test_efficientnet"), path)
    elif kind == "other shape":
        torch.save(state(image_size=192), path)
    elif kind == "no weights":
        torch.save({"epoch": 1}, path)
    else:
        path.write_bytes({"empty": b"", "web page": b"<html>not found</html>"}[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "holds more than weights (posix.system)"),
        ("code in a bare pickle", "holds more than weights (posix.system)"),
        ("whole module", "holds more than weights (torch.nn.modules.linear.Linear)"),
        ("truncated", "damaged or no checkpoint"),
        ("one bit changed", "damaged or no checkpoint (the checksum of "),
        ("empty", "damaged or no checkpoint (no pickle of weights)"),
        ("web page", "damaged or no checkpoint (no pickle of weights)"),
        ("no weights", "holds no weights by name"),
        ("other model", "does not fit test_vit: 80 of 80 weights are missing"),
        ("other shape", "does not fit test_vit: pos_embed is (1, 145, 64)"),
    ],
)
def test_a_bad_checkpoint_is_one_clear_line(tmp_path: Path, kind: str, message: str) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "ran"
    write_damaged(path, kind, mark)
    with pytest.raises(ModelError) as caught:
        load_timm(TimmSource("test_vit", checkpoint=path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("mobilnetv3_small_050", {}, InputError, "did you mean mobilenetv3_small_050"),
        ("zzzzz", {}, InputError, "has no model 'zzzzz'"),
        ("hf-hub:timm/lcnet_050", {}, InputError, "did you mean lcnet_050"),
        ("lcnet_050.mine", {}, InputError, "there are lcnet_050.ra2_in1k"),
        ("lcnet_050.pth", {}, InputError, "give timm's name of the model, and the file"),
        ("vit_small_patch14_dinov2", {}, ModelError, "has no classifier head"),
        ("test_vit", {"image_size": 50}, ModelError, "takes no picture of 50 × 50"),
        ("test_vit", {"num_classes": 0}, InputError, "at least 1"),
    ],
)
def test_wrong_names_and_sizes(name: str, settings, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_timm(TimmSource(name, random_seed=0, **settings))
    assert "\n" not in str(caught.value)


def test_published_weights_answer_with_their_own_classes() -> None:
    with pytest.raises(InputError, match="give the checkpoint that was trained on them"):
        TimmSource("test_vit", num_classes=10)
    with pytest.raises(InputError, match="not both"):
        TimmSource("test_vit", checkpoint=Path("a.pth"), random_seed=1)


def hub(folder: Path, *, filled: bool) -> dict[str, str]:
    """An environment without a network, and perhaps with weights that were fetched before."""
    if filled:
        place = folder / "hub" / "models--timm--test_vit.r160_in1k"
        snapshot = place / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(snapshot.name)
        safetensors_torch.save_file(state(), snapshot / "model.safetensors")
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}


@pytest.mark.parametrize("filled", [True, False], ids=["there", "not there"])
def test_published_weights_come_from_the_hub(tmp_path: Path, filled: bool) -> None:
    out = tmp_path / "vit.onnx"
    environment = hub(tmp_path, filled=filled)
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "models", "export", "test_vit", "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not filled:
        assert done.returncode == 2
        assert "its weights cannot be fetched from the hub" in done.stderr
        assert done.stderr.count("\n") == 1
        return
    assert done.returncode == 0, done.stderr
    labels = find_description(out).labels
    assert labels is not None
    assert len(set(labels)) == 1000
    assert labels[0].startswith("tench")


def test_weights_for_torch_say_whose_they_are(made: Export, tmp_path: Path) -> None:
    path = made.exported[2].path
    signature = engine_class("torch").inspect(path)
    assert signature.input_shape == (None, 64, 64, 3)
    assert signature.output_shape == (None, 10)
    bare = tmp_path / "bare.safetensors"
    safetensors_torch.save_file(state(), bare)
    with pytest.raises(ModelError, match="weights without the name of their model"):
        engine_class("torch").inspect(bare)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="its end is missing"):
        engine_class("torch").inspect(cut)


def test_weights_for_torch_are_counted_as_torch_runs_them(made: Export) -> None:
    path = made.exported[2].path
    found = profile(path)
    assert found.cost.macs == made.macs_as_trained == find_description(path).macs
    assert sum(found.cost.by_operation.values()) == found.cost.macs
    assert found.cost.parameters == made.parameters_as_trained
    assert found.cost.parameter_bytes == 4 * made.parameters_as_trained < found.size_bytes
    assert found.signature.input_shape == (None, 64, 64, 3)
    checked = check_model(find_description(path), PICTURES)
    assert checked.passed
    assert checked.macs == made.macs_as_trained


def test_check_compares_the_engines(made: Export) -> None:
    checked = check_model(find_description(made.exported[0].path), PICTURES)
    assert checked.passed
    assert checked.macs == made.macs
    assert "openvino against onnxruntime" in [one.name for one in checked.findings]


def test_the_command_line(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    torch.save(state(num_classes=3), weights)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    out = tmp_path / "made" / "vit.safetensors"
    arguments = ["test_vit", "--checkpoint", str(weights), "--labels", str(tmp_path / "names.txt")]
    done = run(tmp_path, "models", "export", *arguments, "--out", str(out), "--json")
    assert done.code == 0, done.err
    assert '"classes": 3' in done.out
    assert find_description(out).labels == ("a", "b", "c")
    assert run(tmp_path, "models", "check", str(out)).code == 0
