"""One table of cases for every engine that is installed: what the contract promises."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.model_zoo import CLASSES, SIZE, Form, frames, probabilities, save, tiny_classifier
from tests.real_data import data_folder
from tinysaver_edge.engines.base import Engine, EngineOptions, Precision, finite_or_raise
from tinysaver_edge.engines.registry import create_engine, engine_class
from tinysaver_edge.errors import DescriptionError, EngineError, InputError, ModelError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Preprocessor,
    Resize,
)

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("onnxruntime", "openvino")
]
every_engine = pytest.mark.parametrize("engine", ENGINES)

PLAIN = Form()
FORMS = {
    "float32 NCHW, logits": Form(),
    "float32 NHWC, logits": Form(layout=Layout.NHWC),
    "probabilities": Form(softmax=True),
    "batch of 1": Form(batch=1),
    "batch of 4": Form(batch=4),
    "float16 in and out": Form(dtype="float16", output_dtype="float16"),
    "uint8 in and out": Form(dtype="uint8", layout=Layout.NHWC, output_dtype="uint8"),
    "int8 in, int8 probabilities out": Form(dtype="int8", softmax=True, output_dtype="int8"),
    "answer of four axes": Form(flat=False),
}
TOLERANCE = {"float16": 2e-3, "uint8": 6e-2, "int8": 6e-3}
"""Largest difference of a probability to float32 arithmetic, by the answer's type."""


def opened(engine: str, model: Path, form: Form = PLAIN, **options) -> Engine:
    return create_engine(
        engine,
        model,
        preprocess=form.preprocess,
        output=form.output,
        options=EngineOptions(**options),
    )


def batch_of(form: Form, count: int) -> np.ndarray:
    return Preprocessor(form.preprocess).batch(frames(count))


def reference(model: Path, form: Form, batch: np.ndarray) -> np.ndarray:
    """Probabilities by ONNX's own reference implementation, frame by frame where need be."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(str(model)))
    answers = []
    size = form.batch if isinstance(form.batch, int) else len(batch)
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
        answers.append(evaluator.run(None, {"image": part})[0].reshape(size, -1))
    return probabilities(form.output.to_logits(np.concatenate(answers)[: len(batch)]))


@every_engine
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("form", [pytest.param(form, id=name) for name, form in FORMS.items()])
def test_answers_are_those_of_the_reference(tmp_path, engine, form: Form, count: int) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    batch = batch_of(form, count)
    with opened(engine, model, form) as runner:
        logits = runner.infer(batch)
    assert logits.shape == (count, CLASSES)
    assert logits.dtype == np.float32
    expected = reference(model, form, batch)
    assert np.abs(probabilities(logits) - expected).max() <= TOLERANCE.get(form.output_dtype, 1e-4)


@every_engine
def test_batches_of_any_length_in_any_order(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    whole = batch_of(Form(), 7)
    with opened(engine, model) as runner:
        expected = runner.infer(whole).copy()
        for start, stop in ((0, 1), (1, 2), (2, 5), (5, 6), (0, 7)):
            found = runner.infer(whole[start:stop])
            np.testing.assert_allclose(found, expected[start:stop], atol=1e-4)


@every_engine
def test_a_refilled_batch_is_read_again(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    batch = batch_of(Form(), 2)
    place = np.empty_like(batch[:1])
    with opened(engine, model) as runner:
        found = []
        for picture in batch:
            place[0] = picture
            found.append(runner.infer(place).copy())
        np.testing.assert_allclose(np.concatenate(found), runner.infer(batch), atol=1e-4)
        assert np.abs(found[0] - found[1]).max() > 1e-2


@every_engine
@pytest.mark.parametrize("kind", ["read-only", "reversed"])
def test_awkward_memory(tmp_path, engine: str, kind: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    batch = batch_of(Form(), 1)
    awkward = batch[..., ::-1] if kind == "reversed" else batch
    plain = awkward.copy()
    batch.flags.writeable = False
    with opened(engine, model) as runner:
        expected = runner.infer(plain).copy()
        np.testing.assert_allclose(runner.infer(awkward), expected, atol=1e-6)


@every_engine
def test_a_closed_engine_says_so(tmp_path, engine: str) -> None:
    runner = opened(engine, tiny_classifier(tmp_path / "tiny.onnx"))
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="closed"):
        runner.infer(batch_of(Form(), 1))


@every_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda batch: batch[:, :, 1:], "got (2, 3, 15, 16)", id="rows"),
        pytest.param(lambda batch: batch[0], "got (3, 16, 16)", id="no batch"),
        pytest.param(lambda batch: batch.astype(np.float64), "of float64", id="type"),
        pytest.param(lambda batch: batch[:0], "empty", id="empty"),
    ],
)
def test_a_batch_that_does_not_fit(tmp_path, engine: str, change, message: str) -> None:
    with (
        opened(engine, tiny_classifier(tmp_path / "tiny.onnx")) as runner,
        pytest.raises(EngineError) as caught,
    ):
        runner.infer(change(batch_of(Form(), 2)))
    assert message in str(caught.value)


@every_engine
@pytest.mark.parametrize(
    "preprocess",
    [
        pytest.param(Form(layout=Layout.NHWC).preprocess, id="layout"),
        pytest.param(Form(dtype="uint8").preprocess, id="type"),
        pytest.param(replace(Form().preprocess, resize=Resize(8, SIZE)), id="size"),
        pytest.param(
            Preprocess(Resize(SIZE, SIZE), InputFormat(Layout.NCHW, "float32", ColorOrder.GRAY)),
            id="colours",
        ),
    ],
)
def test_a_description_that_contradicts_the_file(tmp_path, engine, preprocess) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    with pytest.raises(DescriptionError) as caught:
        create_engine(engine, model, preprocess=preprocess, output=OutputFormat())
    assert "the file takes float32 (n, 3, 16, 16)" in str(caught.value)
    assert "tinysaver-edge models describe" in str(caught.value)


@every_engine
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_clear_line(tmp_path, capfd, engine: str, share: float) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    model.write_bytes(model.read_bytes()[: int(model.stat().st_size * share)])
    refuses(engine, model, capfd)


@every_engine
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"hello", id="text"),
        pytest.param(b"<!DOCTYPE html><html></html>", id="web page"),
        pytest.param(bytes(range(256)) * 40, id="bytes"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", id="LFS"),
        pytest.param(b"\x08\x08" + b"\x00" * 100, id="almost"),
    ],
)
def test_what_is_no_model_is_one_clear_line(tmp_path, capfd, engine, content: bytes) -> None:
    model = tmp_path / "tiny.onnx"
    model.write_bytes(content)
    refuses(engine, model, capfd)


def refuses(engine: str, model: Path, capfd) -> None:
    for attempt in (lambda: opened(engine, model), lambda: engine_class(engine).inspect(model)):
        with pytest.raises(ModelError) as caught:
            attempt()
        assert str(model) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "the runtime itself stays silent"


@every_engine
def test_a_missing_file(tmp_path, engine: str) -> None:
    with pytest.raises(ModelError, match="no such file"):
        opened(engine, tmp_path / "absent.onnx")


@every_engine
def test_a_file_of_another_kind(tmp_path, engine: str) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(ModelError, match=f"engine {engine} reads"):
        opened(engine, tmp_path / "model.pt")


@every_engine
def test_nan_is_passed_on_and_named(tmp_path, engine: str) -> None:
    form = Form(nan=True)
    model = tiny_classifier(tmp_path / "broken.onnx", form)
    with opened(engine, model, form) as runner:
        logits = runner.infer(batch_of(form, 2))
    assert np.isnan(logits).all()
    with pytest.raises(ModelError, match=r"broken answered NaN or infinity on frame 7"):
        finite_or_raise(logits, model="broken", where="frame 7")


@every_engine
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [("a", ["n", CLASSES]), ("b", ["n", CLASSES])],
            "2 outputs can hold the classes, a float32 (n, 5), b float32 (n, 5): say which",
        ),
        ([("a", ["n", 8, 4, 4])], "no output of the form (n, classes) among a"),
    ],
    ids=["two answers", "no answer"],
)
def test_answers_that_are_not_clear(tmp_path, engine: str, answers, message: str) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
    ]
    weights = {}
    for name, shape in answers:
        if len(shape) == 2:
            weights[f"w_{name}"] = np.ones((3, CLASSES), np.float32)
            nodes.append(helper.make_node("Gemm", ["flat", f"w_{name}"], [name]))
        else:
            weights["w"] = np.ones((8, 3, 4, 4), np.float32)
            nodes.append(helper.make_node("Conv", ["image", "w"], [name], strides=[4, 4]))
    model = tmp_path / "unclear.onnx"
    outputs = [(name, "float32", shape) for name, shape in answers]
    save(model, nodes, ("image", "float32", ["n", 3, SIZE, SIZE]), outputs, weights)
    with pytest.raises(ModelError) as caught:
        opened(engine, model)
    assert message in str(caught.value)


@every_engine
def test_features_beside_the_answer_do_not_matter(tmp_path, engine: str) -> None:
    weights = {"w": np.ones((3, CLASSES), np.float32)}
    nodes = [
        helper.make_node("Relu", ["image"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["answer"]),
    ]
    model = tmp_path / "both.onnx"
    outputs = [
        ("map", "float32", ["n", 3, SIZE, SIZE]),
        ("answer", "float32", ["n", CLASSES]),
    ]
    save(model, nodes, ("image", "float32", ["n", 3, SIZE, SIZE]), outputs, weights)
    with opened(engine, model) as runner:
        assert runner.signature.output_name == "answer"
        assert runner.infer(batch_of(Form(), 3)).shape == (3, CLASSES)


@every_engine
def test_two_inputs_are_refused(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "two.onnx")
    proto = onnx.load(str(model))
    proto.graph.input.append(helper.make_tensor_value_info("mask", 1, ["n", 1]))
    proto.graph.node.append(helper.make_node("Add", ["answer", "mask"], ["masked"]))
    proto.graph.output[0].name = "masked"
    onnx.save(proto, str(model))
    with pytest.raises(ModelError, match=r"has 2 inputs \(image"):
        opened(engine, model)


@every_engine
def test_weights_in_a_file_of_their_own(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    with opened(engine, model) as runner:
        expected = runner.infer(batch_of(Form(), 2)).copy()
    proto = onnx.load(str(model))
    onnx.save(proto, str(model), save_as_external_data=True, location="w.bin", size_threshold=0)
    with opened(engine, model) as runner:
        np.testing.assert_allclose(runner.infer(batch_of(Form(), 2)), expected, atol=1e-5)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx"):
        opened(engine, model)


NOWHERE = {"onnxruntime": "RknpuExecutionProvider", "openvino": "GPU.7"}


@every_engine
def test_an_unknown_device_names_those_that_are_there(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    for device in ("NONSENSE", NOWHERE[engine]):
        with pytest.raises(EngineError, match=f"no .*{device}.*only .*CPU"):
            opened(engine, model, device=device)


@every_engine
def test_falling_back_is_opt_in_and_visible(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    with opened(engine, model, device=NOWHERE[engine], allow_fallback=True) as runner:
        assert runner.fell_back
        assert runner.device in ("CPU", "CPUExecutionProvider")
        found = runner.infer(batch_of(Form(), 2)).copy()
    with opened(engine, model) as runner:
        assert not runner.fell_back
        np.testing.assert_allclose(found, runner.infer(batch_of(Form(), 2)), atol=1e-6)


@every_engine
def test_a_precision_that_the_device_lacks(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    if engine == "openvino":
        capabilities = openvino_capabilities()
        if "FP16" in capabilities:
            pytest.skip("this processor computes in float16")
    with pytest.raises(EngineError, match=r"float32, not float16|cannot compute in float16"):
        opened(engine, model, precision=Precision.FLOAT16)


def openvino_capabilities() -> list[str]:
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_computes_in_float32_unless_asked(tmp_path) -> None:
    if "BF16" not in openvino_capabilities():
        pytest.skip("this processor has no bfloat16 to fall into")
    model = tiny_classifier(tmp_path / "tiny.onnx")
    batch = batch_of(Form(), 4)
    expected = reference(model, Form(), batch)
    with opened("openvino", model) as runner:
        exact = np.abs(probabilities(runner.infer(batch)) - expected).max()
    with opened("openvino", model, precision=Precision.BFLOAT16) as runner:
        assert runner.precision is Precision.BFLOAT16
        coarse = np.abs(probabilities(runner.infer(batch)) - expected).max()
    assert exact <= 1e-5
    assert coarse > 10 * max(exact, 1e-6)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize(
    "device", ["AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU", "BATCH:CPU", "BATCH:CPU(4)"]
)
def test_openvino_combined_devices_keep_float32(tmp_path, device: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    batch = batch_of(Form(), 4)
    with opened("openvino", model, device=device, threads=1) as runner:
        assert runner.device == device
        found = probabilities(runner.infer(batch))
    assert np.abs(found - reference(model, Form(), batch)).max() <= 1e-5


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("device", ["BATCH", "BATCH:", "BATCH:CPU,CPU"])
def test_openvino_batch_takes_one_device(tmp_path, device: str) -> None:
    with pytest.raises(EngineError, match=r"BATCH takes one: ask for BATCH:CPU, or"):
        opened("openvino", tiny_classifier(tmp_path / "tiny.onnx"), device=device)


@every_engine
def test_threads_and_cache_folder(tmp_path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx")
    batch = batch_of(Form(), 2)
    for _ in range(2):
        with opened(engine, model, threads=1, cache_dir=tmp_path / "cache") as runner:
            found = probabilities(runner.infer(batch))
        assert np.abs(found - reference(model, Form(), batch)).max() <= 1e-4
    if engine == "openvino":
        assert list((tmp_path / "cache").iterdir())
    with pytest.raises(InputError, match="threads 0"):
        EngineOptions(threads=0)


@every_engine
def test_inspect_needs_no_description(tmp_path, engine: str) -> None:
    form = Form(dtype="uint8", layout=Layout.NHWC, batch=4, flat=False)
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    found = engine_class(engine).inspect(model)
    assert (found.input_name, found.input_shape) == ("image", (4, SIZE, SIZE, 3))
    assert (found.input_dtype, found.output_dtype) == ("uint8", "float32")
    assert (found.output_name, found.output_shape) == ("answer", (4, CLASSES))


needs_both = pytest.mark.skipif(
    find_spec("onnxruntime") is None or find_spec("openvino") is None,
    reason="compares onnxruntime with openvino",
)


def farthest_between_engines(
    model: Path, preprocess: Preprocess, output: OutputFormat, batch: np.ndarray
) -> float:
    found = []
    for engine in ("onnxruntime", "openvino"):
        with create_engine(engine, model, preprocess=preprocess, output=output) as runner:
            found.append(probabilities(runner.infer(batch)))
    return float(np.abs(found[0] - found[1]).max())


@needs_both
@pytest.mark.parametrize(
    "form",
    [pytest.param(form, id=name) for name, form in FORMS.items() if form.output_dtype == "float32"],
)
def test_both_engines_answer_alike(tmp_path, form: Form) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", form)
    batch = batch_of(form, 16)
    assert farthest_between_engines(model, form.preprocess, form.output, batch) <= 1e-4


@needs_both
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_both_engines_answer_alike_on_real_pictures(name: str) -> None:
    import zipfile

    import cv2

    folder = data_folder() / "cifar10"
    if not folder.is_dir():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    with zipfile.ZipFile(folder / "test.zip") as archive:
        names = [one for one in archive.namelist() if one.endswith(".png")][::200]
        data = [np.frombuffer(archive.read(one), np.uint8) for one in names]
    preprocess = replace(Form().preprocess, resize=Resize(32, 32))
    pictures = [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in data]
    batch = Preprocessor(preprocess).batch(pictures)

    assert len(batch) >= 50
    assert (
        farthest_between_engines(folder / f"{name}.onnx", preprocess, OutputFormat(), batch) <= 1e-4
    )


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("part", [".xml", ".bin"])
def test_a_truncated_ir_is_one_clear_line(tmp_path, capfd, part: str, share: float) -> None:
    import openvino

    source = tiny_classifier(tmp_path / "tiny.onnx")
    model = tmp_path / "ir" / "tiny.xml"
    openvino.save_model(openvino.Core().read_model(str(source)), str(model))
    cut = model.with_suffix(part)
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * share)])
    refuses("openvino", model, capfd)
    cut.unlink()
    with pytest.raises(ModelError, match=r"no such file|not beside it"):
        opened("openvino", model)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9])
def test_a_truncated_tflite_is_one_clear_line(tmp_path, capfd, share: float) -> None:
    source = data_folder() / "cifar10" / "resnet8.tflite"
    if not source.is_file():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    model = tmp_path / "resnet8.tflite"
    model.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    refuses("openvino", model, capfd)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_releases_that_misread_tflite_are_refused(monkeypatch) -> None:
    import openvino

    model = data_folder() / "cifar10" / "resnet8-int8.tflite"
    if not model.is_file():
        pytest.skip("no models: set TINYSAVER_DATA or put the data into ../shared/data")
    monkeypatch.setattr(openvino, "__version__", "2025.0.0-17942-releases/2025/0")
    with pytest.raises(EngineError, match=r"openvino 2025\.0\.0 misreads .*openvino>=2025\.2"):
        engine_class("openvino").inspect(model)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_runs_several_samples_at_once_where_the_file_says_one(tmp_path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", Form(batch=1))
    batch = batch_of(Form(), 4)
    with opened("openvino", model) as runner:
        alone = np.concatenate([runner.infer(batch[n : n + 1]).copy() for n in range(4)])
        np.testing.assert_allclose(runner.infer(batch), alone, atol=1e-5)
        assert runner._for_several[4] is not None


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("shape", [[1, CLASSES], [CLASSES, -1]])
def test_openvino_does_not_where_the_graph_would_mix_them(tmp_path, shape) -> None:
    """A constant inside that counts on one sample: the first cannot take four, the second could."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["features"]),
        helper.make_node("MatMul", ["features", "w"], ["scores"]),
        helper.make_node("Reshape", ["scores", "inner"], ["turned"]),
        helper.make_node("Reshape", ["turned", "outer"], ["answer"]),
    ]
    weights = {
        "w": np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32),
        "inner": np.array(shape, np.int64),
        "outer": np.array([-1, CLASSES], np.int64),
    }
    if shape[0] == CLASSES:  # the samples' numbers come out in another order
        nodes.insert(-1, helper.make_node("Transpose", ["turned"], ["back"], perm=[1, 0]))
        nodes[-1].input[0] = "back"
    model = tmp_path / "mixing.onnx"
    given, made = ("image", "float32", [1, 3, SIZE, SIZE]), ("answer", "float32", [1, CLASSES])
    save(model, nodes, given, [made], weights)
    batch = batch_of(Form(), 4)
    with opened("openvino", model) as runner:
        alone = np.concatenate([runner.infer(batch[n : n + 1]).copy() for n in range(4)])
        np.testing.assert_allclose(runner.infer(batch), alone, atol=1e-6)
        assert runner._for_several[4] is None


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_binds_no_model_to_a_core(tmp_path) -> None:
    """Bound, all models' threads share the first cores while others idle."""
    model = tiny_classifier(tmp_path / "tiny.onnx")
    with opened("openvino", model, threads=1) as runner:
        compiled = runner._single._request.get_compiled_model()
        assert compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_cuda_is_loaded_from_the_packages_that_pip_has_brought(monkeypatch, capsys) -> None:
    from types import SimpleNamespace

    from tinysaver_edge.engines import onnxruntime as engine

    def preload() -> None:
        asked.append(True)
        print("Failed to load libcudnn.so.9")

    asked: list[bool] = []
    for there, times in ((None, 0), (object(), 1)):
        monkeypatch.setattr(engine, "find_spec", lambda name, there=there: there)
        engine._preload(SimpleNamespace(preload_dlls=preload))
        assert len(asked) == times
    engine._preload(SimpleNamespace())  # older than 1.21
    assert capsys.readouterr().out == ""
