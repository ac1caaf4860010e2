"""Engines by name, by file and by device; those of others; what is missing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model_zoo import Form, frames, tiny_classifier
from tinysaver_edge.engines import registry
from tinysaver_edge.engines.base import Engine, ModelSignature
from tinysaver_edge.engines.registry import (
    create_engine,
    engine_class,
    engine_for,
    engine_names,
    inspect,
)
from tinysaver_edge.errors import EngineError, MissingDependencyError, ModelError, install_command
from tinysaver_edge.preprocess import Preprocessor


class MeanColour(Engine):
    """A third party's engine: the classes are the channels, the brightest wins."""

    name = "mean_colour"
    suffixes = frozenset({".colour"})

    def _load(self) -> tuple[str, ModelSignature]:
        shape = (None, 3, 16, 16)
        return "CPU", ModelSignature("image", shape, "float32", "mean", (None, 3), "float32")

    def _run(self, batch):
        return batch.mean(axis=(2, 3))


PLUG_IN = """[tinysaver_edge.engines]
mean_colour = tests.engines.test_registry:MeanColour
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch):
    """Install a package that brings engines, given its entry points."""

    def install(entry_points: str) -> None:
        folder = tmp_path / "site" / "other_engines-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: other-engines\nVersion: 1.0\n"
        )
        (folder / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(folder.parent))
        importlib.invalidate_caches()

    return install


def test_built_in_engines_are_known_by_name() -> None:
    assert set(engine_names()) >= {"onnxruntime", "openvino"}
    assert engine_class("openvino").name == "openvino"
    with pytest.raises(
        EngineError, match="no engine 'tensorflow': there are onnxruntime, openvino"
    ):
        engine_class("tensorflow")


@pytest.mark.parametrize(
    ("file", "device", "expected"),
    [
        ("a.onnx", None, "onnxruntime"),
        ("a.xml", None, "openvino"),
        ("a.tflite", None, "openvino"),
        ("a.onnx", "cuda", "onnxruntime"),
        ("a.onnx", "TensorrtExecutionProvider", "onnxruntime"),
        ("a.onnx", "CPU", "onnxruntime"),
        ("a.onnx", "GPU", "openvino"),
        ("a.onnx", "AUTO:GPU,CPU", "openvino"),
    ],
)
def test_the_engine_for_a_file_and_a_device(file: str, device, expected: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    assert engine_for(Path(file), device=device) == expected


def test_no_engine_for_a_file_or_a_device() -> None:
    with pytest.raises(ModelError, match=r"no engine reads \.pt files; known are \.onnx, .*\.xml"):
        engine_for(Path("a.pt"))
    with pytest.raises(EngineError, match="knows a device 'CUDAExecutionProvider'"):
        engine_for(Path("a.tflite"), device="CUDAExecutionProvider")


def hide(monkeypatch, *packages: str) -> None:
    """Make packages as good as not installed."""
    find_spec = registry.find_spec
    monkeypatch.setattr(
        registry, "find_spec", lambda name: None if name in packages else find_spec(name)
    )
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_openvino_stands_in_where_onnxruntime_is_missing(monkeypatch) -> None:
    pytest.importorskip("openvino")
    hide(monkeypatch, "onnxruntime")
    assert engine_for(Path("a.onnx")) == "openvino"


@pytest.mark.parametrize(
    ("engine", "file", "extra"),
    [
        ("auto", "a.onnx", "onnxruntime"),
        ("auto", "a.tflite", "openvino"),
        ("onnxruntime", "a.onnx", "onnxruntime"),
        ("openvino", "a.onnx", "openvino"),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    tmp_path, monkeypatch, engine: str, file: str, extra: str
) -> None:
    model = tiny_classifier(tmp_path / "a.onnx")
    hide(monkeypatch, "onnxruntime", "openvino")
    with pytest.raises(MissingDependencyError) as caught:
        create_engine(
            engine,
            model.with_name(file) if engine == "auto" else model,
            preprocess=Form().preprocess,
            output=Form().output,
        )
    assert install_command(extra) in str(caught.value)


def test_inspect_picks_the_engine(tmp_path) -> None:
    assert inspect(tiny_classifier(tmp_path / "a.onnx")).input_shape == (None, 3, 16, 16)


def test_an_engine_of_a_third_party(tmp_path, plug_in) -> None:
    plug_in(PLUG_IN)
    assert "mean_colour" in engine_names()
    model = tmp_path / "any.colour"
    model.write_bytes(b"any")
    assert engine_for(model) == "mean_colour"
    form = Form()
    with create_engine("auto", model, preprocess=form.preprocess, output=form.output) as engine:
        batch = Preprocessor(form.preprocess).batch(frames(4))
        np.testing.assert_allclose(engine.infer(batch), batch.mean(axis=(2, 3)))
    with pytest.raises(EngineError, match="cannot inspect"):
        inspect(model)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Engine", "ModuleNotFoundError"),
        ("tests.engines.test_registry:Absent", "AttributeError"),
        ("tests.engines.test_registry:PLUG_IN", "no subclass"),
    ],
)
def test_a_broken_plug_in_is_named(tmp_path, plug_in, target: str, message: str) -> None:
    plug_in(f"[tinysaver_edge.engines]\nbroken = {target}\n")
    with pytest.raises(EngineError) as caught:
        engine_class("broken")
    assert "engine plug-in 'broken' of other-engines" in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(EngineError, match="plug-in 'broken'"):
        engine_for(tmp_path / "any.colour")


def test_a_broken_plug_in_leaves_built_in_engines_alone(plug_in) -> None:
    pytest.importorskip("onnxruntime")
    plug_in("[tinysaver_edge.engines]\nbroken = no_such_module:Engine\n")
    assert engine_for(Path("a.onnx")) == "onnxruntime"


def test_a_plug_in_cannot_take_the_place_of_a_built_in_engine(plug_in) -> None:
    plug_in("[tinysaver_edge.engines]\nopenvino = tests.engines.test_registry:MeanColour\n")
    with pytest.raises(EngineError, match=r"claimed more than once, by .*other-engines"):
        engine_class("openvino")
