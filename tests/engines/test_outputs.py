"""Which output is the answer: named ones, ones that are no tensors, one number for two classes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.command import spawned
from tests.model_zoo import CLASSES, SIZE, Form, save, tiny_classifier
from tinysaver_edge.calibrate.measured.prepare import prepare
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import DescriptionError, ModelError, TinySaverError
from tinysaver_edge.models.compare.compare import check_model
from tinysaver_edge.models.description.describe import KnownAlready, describe
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.models.embed.embed import embed
from tinysaver_edge.output_format import MULTI_LABEL, OutputFormat, OutputKind, RawOutput
from tinysaver_edge.preprocess import ColorOrder

every_engine = pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
FORM = Form()
BATCH = np.random.default_rng(0).normal(0, 1, (3, 3, SIZE, SIZE)).astype(np.float32)
TELL = KnownAlready(color=ColorOrder.RGB, scale="imagenet")


def opened(engine: str, model: Path, output: OutputFormat | None = None) -> Engine:
    return create_engine(engine, model, preprocess=FORM.preprocess, output=output or OutputFormat())


def ending(
    path: Path, *last: onnx.NodeProto, outputs: int, answer: str = "y", rank: int = 2
) -> Path:
    """A pooling and a matrix whose scores go through further operations."""
    weights = {"w": np.random.default_rng(1).normal(0, 2, (3, outputs)).astype(np.float32)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        *last,
    ]
    shape = {1: ["n"], 2: ["n", outputs]}.get(rank, [None] * rank)
    save(
        path,
        nodes,
        ("image", "float32", ["n", 3, SIZE, SIZE]),
        [(answer, "float32", shape)],
        weights,
    )
    return path


@every_engine
def test_one_of_several_outputs_is_named(tmp_path: Path, engine: str) -> None:
    model = tiny_classifier(tmp_path / "two.onnx")
    proto = onnx.load(model)
    proto.graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 8])
    )
    onnx.save(proto, model)
    with pytest.raises(ModelError, match=r"2 outputs can hold the classes.*--output answer"):
        opened(engine, model)
    with opened(engine, model, OutputFormat(name="answer")) as found:
        assert found.infer(BATCH).shape == (3, CLASSES)
    with opened(engine, model, OutputFormat(name="features")) as found:
        assert found.infer(BATCH).shape == (3, 8)
    with pytest.raises(ModelError, match="has no output 'logits'"):
        opened(engine, model, OutputFormat(name="logits"))


def test_a_named_output_goes_from_the_description_into_what_ships(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "two.onnx")
    proto = onnx.load(model)
    proto.graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 8])
    )
    onnx.save(proto, model)
    with pytest.raises(ModelError, match="say which"):
        describe(model, TELL)
    told = KnownAlready(color=ColorOrder.RGB, scale="imagenet", output="answer")
    model.with_suffix(".toml").write_text(describe(model, told))
    described = find_description(model)
    assert described.output.name == "answer"
    assert find_description(model, output="features").output.name == "features"
    shipped = embed(model, described, tmp_path / "shipped")
    with create_engine(
        "onnxruntime", shipped.path, preprocess=shipped.preprocess, output=shipped.output
    ) as engine:
        assert engine.infer(np.zeros((1, SIZE, SIZE, 3), np.uint8)).shape == (1, CLASSES)


@every_engine
def test_a_model_that_ends_in_identities_runs(tmp_path: Path, engine: str) -> None:
    twice = [
        helper.make_node("Identity", ["scores"], ["again"]),
        helper.make_node("Identity", ["again"], ["y"]),
    ]
    plain = ending(tmp_path / "plain.onnx", outputs=4, answer="scores")
    with (
        opened(engine, plain) as one,
        opened(engine, ending(tmp_path / "i.onnx", *twice, outputs=4)) as two,
    ):
        assert np.allclose(one.infer(BATCH), two.infer(BATCH), atol=1e-5)


def test_maps_and_texts_are_no_answers(tmp_path: Path) -> None:
    model = ending(tmp_path / "map.onnx", outputs=3, answer="scores")
    proto = onnx.load(model)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    proto.graph.node.append(
        helper.make_node(
            "ZipMap", ["scores"], ["loss"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
        )
    )
    proto.graph.output.append(
        helper.make_value_info(
            "loss",
            helper.make_sequence_type_proto(
                helper.make_map_type_proto(
                    TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
                )
            ),
        )
    )
    onnx.save(proto, model)
    with opened("onnxruntime", model) as engine:
        assert engine.signature.output_name == "scores"
        assert engine.infer(BATCH).shape == (3, 3)
    model.with_suffix(".toml").write_text(describe(model, TELL))
    done = spawned("models", "check", model)
    assert done.code == 0, done.stderr


BINARY = [
    pytest.param("Sigmoid", OutputKind.PROBABILITIES, id="sigmoid"),
    pytest.param("Identity", OutputKind.LOGITS, id="logit"),
]


@every_engine
@pytest.mark.parametrize(("last", "kind"), BINARY)
@pytest.mark.parametrize("rank", [1, 2])
def test_one_number_tells_two_classes_apart(
    tmp_path: Path, engine: str, last: str, kind, rank: int
) -> None:
    nodes = [helper.make_node(last, ["scores"], ["y"])]
    if rank == 1:  # as torch's squeeze(1) leaves it
        flat = helper.make_node("Constant", [], ["flat_shape"], value_ints=[-1])
        nodes = [
            helper.make_node(last, ["scores"], ["column"]),
            flat,
            helper.make_node("Reshape", ["column", "flat_shape"], ["y"]),
        ]
    model = ending(tmp_path / "b.onnx", *nodes, outputs=1, rank=rank)
    model.with_suffix(".toml").write_text(describe(model, TELL))
    described = find_description(model)
    assert described.output.kind is kind
    with opened(engine, model, described.output) as runner:
        logits = runner.infer(BATCH).copy()
    with opened(engine, model, RawOutput()) as runner:
        raw = runner.infer(BATCH).astype(np.float64)
    second = raw[:, 0] if kind is OutputKind.PROBABILITIES else 1 / (1 + np.exp(-raw[:, 0]))
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(found, np.stack([1 - second, second], axis=1), atol=1e-5)
    with opened(engine, model, OutputFormat(kind, class_order=(1, 0))) as runner:
        assert np.allclose(runner.infer(BATCH), logits[:, ::-1])
    with pytest.raises(DescriptionError, match="names 3 outputs"):
        opened(engine, model, OutputFormat(kind, class_order=(2, 0)))


def test_independent_sigmoids_are_refused_in_those_words() -> None:
    said = OutputFormat(OutputKind.PROBABILITIES)
    free = np.log(np.random.default_rng(0).uniform(0.01, 0.99, (20, 5)).astype(np.float32))
    assert MULTI_LABEL in (said.why_no_probabilities(free) or "")
    rows = np.exp(free) / np.exp(free).sum(axis=1, keepdims=True)
    assert said.why_no_probabilities(np.log(rows)) is None
    quantised = OutputFormat(OutputKind.PROBABILITIES, quantization_scale=1 / 256)
    assert quantised.why_no_probabilities(np.log(np.round(rows * 256) / 256 + 1e-12)) is None
    assert "multi" not in (said.why_no_probabilities(np.full((4, 3), np.log(3.0))) or "multi")
    background = OutputFormat(OutputKind.PROBABILITIES, class_offset=1)
    assert background.why_no_probabilities(np.log(rows[:, 1:])) is None


def test_a_multi_label_model_is_checked_and_refused(tmp_path: Path) -> None:
    model = ending(tmp_path / "m.onnx", helper.make_node("Sigmoid", ["scores"], ["y"]), outputs=4)
    text = describe(model, TELL)
    assert f'kind = "?"  # {MULTI_LABEL}' in text
    model.with_suffix(".toml").write_text(text.replace('kind = "?"', 'kind = "probabilities"'))
    done = spawned("models", "check", model)
    assert done.code == 2
    assert "multi-label" in done.err.splitlines()[-1]


def test_a_multi_label_model_that_is_described_as_logits_is_refused(tmp_path: Path) -> None:
    model = ending(tmp_path / "m.onnx", helper.make_node("Sigmoid", ["scores"], ["y"]), outputs=4)
    text = describe(model, TELL)
    model.with_suffix(".toml").write_text(text.replace('kind = "?"', 'kind = "logits"'))
    described = find_description(model)
    with pytest.raises(DescriptionError, match="ends in a sigmoid: every class is answered for it"):
        prepare(ModelFile(model, described), tmp_path / "prepared")
    answer = next(one for one in check_model(described).findings if one.name == "answer")
    assert answer.passed is False
    assert answer.detail.endswith(MULTI_LABEL)


@every_engine
def test_an_answer_of_another_shape_is_told_when_it_comes(tmp_path: Path, engine: str) -> None:
    spread = helper.make_node("Reshape", ["scores", "form"], ["y"])
    form = helper.make_node("Constant", [], ["form"], value_ints=[-1, 2, 3])
    model = ending(tmp_path / "r.onnx", form, spread, outputs=6, rank=3)
    with pytest.raises(TinySaverError, match=r"no list of class scores|no output of the form"):
        opened(engine, model).infer(BATCH)


def test_names_that_would_break_a_line_are_shown_plainly(tmp_path: Path) -> None:
    model = ending(tmp_path / "n.onnx", outputs=6, answer="scores")
    proto = onnx.load(model)
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 7
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "a\nb\x1b[31m"
    onnx.save(proto, model)
    with pytest.raises(ModelError) as told:
        describe(model)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_run_or_are_refused(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(tiny_classifier(tmp_path / "whole.onnx").read_bytes())
    for place in rng.integers(0, len(data), 20):
        data[place] = rng.integers(0, 256)
    model = tmp_path / "damaged.onnx"
    model.write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
    for ask in (lambda: describe(model, TELL), lambda: opened("onnxruntime", model).infer(BATCH)):
        with suppress(TinySaverError):
            ask()


@every_engine
def test_a_model_that_takes_no_sample_is_refused(tmp_path: Path, engine: str) -> None:
    model = onnx.load(tiny_classifier(tmp_path / "model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(ModelError):
        opened(engine, tmp_path / "none.onnx")
