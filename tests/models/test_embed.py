"""Models with their preprocessing inside answer as the plain ones after numpy's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.model_zoo import (
    OPSET,
    SIZE,
    Form,
    frames,
    probabilities,
    save,
    tiny_classifier,
)
from tests.real_data import data_folder
from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.description.description import METADATA_KEY, ModelDescription
from tinysaver_edge.models.embed import embed as embed_module
from tinysaver_edge.models.embed.embed import EmbeddedModel, embed
from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.preprocess import (
    DEVICE_FORMAT,
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Preprocessor,
    Resize,
)

BGR_AFFINE = InputFormat(Layout.NCHW, "float32", ColorOrder.BGR, (0.02,), (-3.0, -2.0, -1.0))
GRAY = InputFormat(Layout.NCHW, "float32", ColorOrder.GRAY)


def description(model: Path, form: Form, **changes) -> ModelDescription:
    preprocess = changes.pop("preprocess", form.preprocess)
    return ModelDescription(model, model.stem, preprocess, form.output, **changes)


def answers(
    model: Path, preprocess: Preprocess, output: OutputFormat, pictures, chunk: int
) -> np.ndarray:
    batch = Preprocessor(preprocess).batch(pictures)
    parts = [batch[start : start + chunk] for start in range(0, len(batch), chunk)]
    with create_engine("auto", model, preprocess=preprocess, output=output) as engine:
        return np.concatenate([probabilities(engine.infer(part)) for part in parts])


def farthest(plain: ModelDescription, embedded: EmbeddedModel, pictures, chunk: int = 6) -> float:
    """Largest difference of a probability between the plain model and the embedded one."""
    assert embedded.reason is None
    assert embedded.preprocess.format == DEVICE_FORMAT
    before = answers(plain.file, plain.preprocess, plain.output, pictures, chunk)
    after = answers(embedded.path, embedded.preprocess, embedded.output, pictures, chunk)
    assert before.std(axis=0).max() > 0.02, "the pictures must make a difference"
    return float(np.abs(before - after).max())


FORMS = [
    pytest.param(Form(), id="float32 NCHW"),
    pytest.param(Form(symmetric=False), id="asymmetric padding"),
    pytest.param(Form(layout=Layout.NHWC), id="float32 NHWC"),
    pytest.param(Form(batch=1, softmax=True), id="batch of 1"),
    pytest.param(Form(batch=4), id="batch of 4"),
    pytest.param(Form(dtype="float16"), id="float16"),
    pytest.param(Form(dtype="uint8", layout=Layout.NHWC, output_dtype="uint8"), id="uint8 NHWC"),
    pytest.param(Form(dtype="int8", softmax=True, output_dtype="int8"), id="int8 NCHW"),
    pytest.param(Form(flat=False), id="answer of four axes"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("through", ["onnx", "openvino"])
def test_answers_stay_the_same(tmp_path: Path, monkeypatch, form: Form, through: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    plain = description(model, form)
    if through == "openvino":
        without_onnx(monkeypatch)
    embedded = embed(model, plain, tmp_path / "out")
    assert embedded.path.suffix == (".onnx" if through == "onnx" else ".xml")
    assert farthest(plain, embedded, frames(6)) <= 1e-4


def without_onnx(monkeypatch) -> None:
    """Let `embed` believe that the onnx package is not installed."""
    find_spec = embed_module.find_spec
    monkeypatch.setattr(
        embed_module, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )


@pytest.mark.parametrize("through", ["onnx", "openvino"])
def test_bgr_with_values_a_channel(tmp_path: Path, monkeypatch, through: str) -> None:
    form = Form()
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    plain = description(model, form, preprocess=Preprocess(Resize(SIZE, SIZE), BGR_AFFINE))
    if through == "openvino":
        without_onnx(monkeypatch)
    assert farthest(plain, embed(model, plain, tmp_path / "out"), frames(6)) <= 1e-4


def test_the_first_convolution_takes_colour_and_factor(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    embedded = embed(model, description(model, Form()), tmp_path / "out")
    operations = [node.op_type for node in onnx.load(str(embedded.path)).graph.node]
    assert operations[:4] == ["Transpose", "Cast", "Add", "Conv"]
    assert "Gather" not in operations


def test_weights_that_others_read_too_are_left_alone(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1.0, (3, 3, 1, 1)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["answer"]),
    ]
    model = tmp_path / "shared.onnx"
    shape = ["n", 3, SIZE, SIZE]
    save(model, nodes, ("image", "float32", shape), [("answer", "float32", ["n", 3])], weights)
    plain = description(model, Form())
    assert farthest(plain, embed(model, plain, tmp_path / "out"), frames(6)) <= 1e-4


def test_an_input_with_several_readers(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1.0, (3, 3, 1, 1)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("Add", ["a", "image"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["answer"]),
    ]
    model = tmp_path / "residual.onnx"
    shape = ["n", 3, SIZE, SIZE]
    save(model, nodes, ("image", "float32", shape), [("answer", "float32", ["n", 3])], weights)
    plain = description(model, Form())
    assert farthest(plain, embed(model, plain, tmp_path / "out"), frames(6)) <= 1e-4


def test_what_is_not_the_input_stays(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    proto = onnx.load(str(model))
    for key in ("author", METADATA_KEY):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, "somebody"
    onnx.save(proto, str(model))
    made = onnx.load(str(embed(model, description(model, Form()), tmp_path / "out").path))
    onnx.checker.check_model(made, full_check=True)
    assert (made.ir_version, made.opset_import[0].version) == (proto.ir_version, OPSET)
    assert [(one.key, one.value) for one in made.metadata_props] == [("author", "somebody")]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert made.graph.output == proto.graph.output


@pytest.mark.parametrize("batch", [1, 5])
def test_a_dynamic_batch_stays_dynamic(tmp_path: Path, monkeypatch, batch: int) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    plain = description(model, Form())
    assert farthest(plain, embed(model, plain, tmp_path / "a"), frames(6), batch) <= 1e-4
    without_onnx(monkeypatch)
    assert farthest(plain, embed(model, plain, tmp_path / "b"), frames(6), batch) <= 1e-4


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "big.onnx")
    proto = onnx.load(str(model))
    onnx.save(proto, str(model), save_as_external_data=True, location="w.bin", size_threshold=0)
    plain = description(model, Form())
    assert model_files(model) == (model, tmp_path / "w.bin")
    embedded = embed(model, plain, tmp_path / "out")
    assert [path.name for path in embedded.files] == ["big.onnx", "big.onnx.data"]
    assert model_files(embedded.path) == embedded.files
    assert farthest(plain, embedded, frames(6)) <= 1e-4


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = tiny_classifier(tmp_path / "model" / "sly.onnx")
    proto = onnx.load(str(model))
    onnx.save(proto, str(model), save_as_external_data=True, location="w.bin", size_threshold=0)
    model.write_bytes(model.read_bytes().replace(b"w.bin", b"../wb"))
    (tmp_path / "wb").write_bytes((tmp_path / "model" / "w.bin").read_bytes())
    with pytest.raises(ModelError, match="outside its folder"):
        model_files(model)
    with pytest.raises(ModelError, match=r"sly\.onnx"):
        embed(model, description(model, Form()), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"preprocess": Preprocess(Resize(SIZE, SIZE), DEVICE_FORMAT)}, "already", id="done"
        ),
        pytest.param({"preprocess": Preprocess(Resize(SIZE, SIZE), GRAY)}, "grey", id="grey"),
    ],
)
def test_what_cannot_be_changed_is_returned_with_the_reason(tmp_path, changes, reason) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    plain = description(model, Form(), **changes)
    embedded = embed(model, plain, tmp_path / "out")
    assert (embedded.files, embedded.preprocess) == ((model,), plain.preprocess)
    assert embedded.reason is not None
    assert reason in embedded.reason


def test_an_engine_that_reads_no_xml_keeps_its_onnx(tmp_path: Path, monkeypatch) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    without_onnx(monkeypatch)
    embedded = embed(model, description(model, Form(), engine="onnxruntime"), tmp_path / "out")
    assert embedded.path == model
    assert embedded.reason == "engine onnxruntime reads no .xml"


def test_the_model_itself_is_never_replaced(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    before = model.read_bytes()
    with pytest.raises(InputError, match="choose another folder"):
        embed(model, description(model, Form()), tmp_path)
    assert model.read_bytes() == before


SCRIPT = """
import sys
from pathlib import Path
from tests.model_zoo import Form, tiny_classifier
from tests.models.test_embed import description
from tinysaver_edge.models.embed.embed import embed
from tinysaver_edge.models.embed.embed import embed_openvino
model, out = Path(sys.argv[1]), Path(sys.argv[2])
embed(model, description(model, Form()), out)
if sys.argv[3] == "late":
    embed_openvino(model, Form().preprocess.format, out / "warm" / "tiny.xml")
embed_openvino(model, Form().preprocess.format, out / "tiny.xml")
"""


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    hashes = []
    for run in ("early", "late"):
        out = tmp_path / run
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", SCRIPT, str(model), str(out), run]
        subprocess.run(command, check=True, cwd=root)
        names = ("tiny.onnx", "tiny.xml", "tiny.bin")
        hashes.append([hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names])
        assert not list(out.glob(".*")), "nothing half-written is left"
    assert hashes[0] == hashes[1]


def real(name: str) -> Path:
    path = data_folder() / name
    if not path.is_file():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    return path


HALF = InputFormat(Layout.NHWC, "float32", ColorOrder.RGB, (1 / 127.5,), (-1.0,))
RAW = InputFormat(Layout.NHWC, "float32", ColorOrder.RGB)
MINUS_128 = InputFormat(Layout.NHWC, "int8", ColorOrder.RGB, (1.0,), (-128.0,))
PROBABILITIES = OutputFormat(OutputKind.PROBABILITIES)
BACKGROUND = replace(PROBABILITIES, class_offset=1)


@pytest.mark.parametrize(
    ("name", "size", "form", "output"),
    [
        ("cifar10/resnet20.onnx", 32, Form().preprocess.format, OutputFormat()),
        ("cifar10/resnet8.tflite", 32, RAW, PROBABILITIES),
        ("cifar10/resnet8-int8.tflite", 32, MINUS_128, PROBABILITIES),
        ("imagenet/mobilenet_v1_0.25_224.tflite", 224, HALF, BACKGROUND),
        (
            "imagenet/mobilenet_v2_1.0_224_int8.tflite",
            224,
            InputFormat(Layout.NHWC, "uint8", ColorOrder.RGB),
            BACKGROUND,
        ),
    ],
)
def test_real_models_on_photos(tmp_path: Path, name, size, form, output) -> None:
    import cv2

    model = real(name)
    files = sorted((data_folder() / "imagenet" / "photos").iterdir())[:12]
    photos = [cv2.imread(str(path)) for path in files]
    plain = ModelDescription(model, model.stem, Preprocess(Resize(size, size), form), output)
    assert farthest(plain, embed(model, plain, tmp_path), photos) <= 1e-4
