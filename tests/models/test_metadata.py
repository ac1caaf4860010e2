"""Descriptions as text, and the files that carry them."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_zoo import Form, tiny_classifier
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.description.carried import read_metadata, write_metadata
from tinysaver_edge.models.description.describe import to_toml
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    ModelDescription,
    description_from,
    find_description,
    parse_description,
)
from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Resize,
    ResizePolicy,
)

NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20)
# Names of classes are kept in composed form, as folders on some systems are not.
CLASS_NAMES = NAMES.map(lambda name: unicodedata.normalize("NFC", name))
FLOATS = st.floats(-1e6, 1e6, allow_nan=False)
FORMATS = st.builds(
    InputFormat,
    layout=st.sampled_from(Layout),
    dtype=st.sampled_from(["float32", "float16", "uint8", "int8"]),
    color=st.sampled_from([ColorOrder.RGB, ColorOrder.BGR]),
    multiply=st.one_of(st.tuples(FLOATS), st.tuples(FLOATS, FLOATS, FLOATS)),
    add=st.one_of(st.tuples(FLOATS), st.tuples(FLOATS, FLOATS, FLOATS)),
)
RESIZES = st.builds(
    Resize,
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    policy=st.sampled_from(ResizePolicy),
    crop_ratio=st.floats(0.01, 1),
    antialias=st.booleans(),
    fill=st.integers(0, 255),
)
OUTPUTS = st.builds(
    OutputFormat,
    kind=st.sampled_from(OutputKind),
    class_offset=st.integers(0, 3),
    quantization_scale=st.floats(1e-6, 10),
    quantization_zero_point=st.integers(-128, 255),
)
DESCRIPTIONS = st.builds(
    ModelDescription,
    file=st.just(Path("model.onnx")),
    name=NAMES,
    preprocess=st.builds(Preprocess, RESIZES, FORMATS),
    output=OUTPUTS,
    labels=st.one_of(st.none(), st.lists(CLASS_NAMES, max_size=4).map(tuple)),
    macs=st.one_of(st.none(), st.floats(1, 1e15)),
    engine=st.one_of(st.none(), st.just("openvino")),
    device=st.one_of(st.none(), NAMES),
    precision=st.one_of(st.none(), st.sampled_from(Precision)),
)


@given(DESCRIPTIONS)
def test_a_description_survives_its_text(description: ModelDescription) -> None:
    table = parse_description(to_toml(description), "here")
    found = description_from(table, description.file, folder=Path(), source="")
    assert found == description


TEXT = 'name = "a \\" b"\n[input]\n\tü < & > \'x\'\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "tiny.onnx")


@pytest.fixture
def network(model: Path) -> Path:
    """The same in OpenVINO's form."""
    import openvino

    path = model.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(str(model)), str(path), compress_to_fp16=False)
    return path


@pytest.mark.parametrize("form", ["model", "network"])
def test_texts_are_written_and_replaced(form: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(form)
    assert read_metadata(path) == {}
    write_metadata(path, {"tinysaver_edge.one": "old", "tinysaver_edge.two": TEXT})
    write_metadata(path, {"tinysaver_edge.one": "new"})
    assert read_metadata(path) == {"tinysaver_edge.one": "new", "tinysaver_edge.two": TEXT}
    before = path.read_bytes()
    write_metadata(path, {"tinysaver_edge.one": "new"})
    assert path.read_bytes() == before


def test_an_xml_is_described_by_its_metadata(network: Path) -> None:
    form = Form()
    written = ModelDescription(
        network, "tiny", form.preprocess.in_graph(), form.output, labels=("é", '"', "c", "d", "e")
    )
    write_metadata(network, {METADATA_KEY: to_toml(written)})
    found = find_description(network)
    assert replace(found, source="") == written
    assert found.source == f"{network} (metadata)"


def test_other_files_carry_none(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\0\0\0\0TFL3")
    assert read_metadata(path) == {}
    with pytest.raises(InputError, match=r"\.tflite file carries no metadata"):
        write_metadata(path, {"a.b": "c"})


def test_without_openvino_an_xml_has_none(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metadata(network, {"tinysaver_edge.one": "text"})
    monkeypatch.setattr("tinysaver_edge.models.description.carried.find_spec", lambda _name: None)
    assert read_metadata(network) == {}
