"""The engine that CONTRIBUTING.md shows is a real one: what is printed there runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tinysaver_edge.engines.registry as engines
import tinysaver_edge.score as scores
import tinysaver_edge.stream.sinks.base as sinks
import tinysaver_edge.stream.sources.opening as sources
from tinysaver_edge.engines.base import Engine, EngineOptions
from tinysaver_edge.errors import DescriptionError, EngineError, ModelError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import InputFormat, Preprocess, Resize

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text("utf-8")
PREPROCESS = Preprocess(Resize(4, 6), InputFormat(dtype="float32", multiply=(1 / 255,)))
CLASSES = 5


@pytest.fixture(scope="module")
def engine_class() -> type[Engine]:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(program, "CONTRIBUTING.md", "exec"), names)
    found = names["LinearEngine"]
    assert isinstance(found, type)
    assert issubclass(found, Engine)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    file = tmp_path / "model.npz"
    weights = generator.standard_normal((4, 6, 3, CLASSES), dtype=np.float32)
    np.savez(file, weights=weights, bias=np.arange(CLASSES, dtype=np.float32))
    return file


def test_the_engine_answers(engine_class: type[Engine], model: Path) -> None:
    batch = np.random.default_rng(1).random((7, 4, 6, 3), dtype=np.float32)
    with engine_class(model, preprocess=PREPROCESS, output=OutputFormat()) as engine:
        answers = engine.infer(batch)
    with np.load(model) as arrays:
        expected = batch.reshape(7, -1) @ arrays["weights"].reshape(-1, CLASSES) + arrays["bias"]
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)


def test_the_engine_is_strict(engine_class: type[Engine], model: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="GPU"):
        engine_class(
            model,
            preprocess=PREPROCESS,
            output=OutputFormat(),
            options=EngineOptions(device="GPU"),
        )
    with pytest.raises(DescriptionError):
        engine_class(
            model, preprocess=Preprocess(Resize(8, 8), PREPROCESS.format), output=OutputFormat()
        )
    broken = tmp_path / "broken.npz"
    broken.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"broken\.npz"):
        engine_class(broken, preprocess=PREPROCESS, output=OutputFormat())


def test_the_entry_point_group_is_the_one_that_is_read() -> None:
    assert f'[project.entry-points."{engines.PLUG_INS.group}"]' in TEXT
    for others in (scores.PLUG_INS, sources.PLUG_INS, sinks.PLUG_INS):
        assert f"`{others.group}`" in TEXT
