"""What is loaded is what was hashed: nothing else, nothing beside it, nothing written meanwhile."""

import os
import shutil
import signal
import time
import zipfile

import numpy as np
import pytest

from tests.colours import LARGE, OUTPUT, PREPROCESS, SAVER, colour_model, colour_picture
from tests.small_bundle import small_bundle
from tinysaver_edge import Cascade
from tinysaver_edge._support.files import Seal
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.engines.model_file import check_model_file, external_names, model_files
from tinysaver_edge.engines.registry import create_engine, engine_class
from tinysaver_edge.errors import ModelError
from tinysaver_edge.preprocess import Preprocessor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture
def model(tmp_path):
    (tmp_path / "models").mkdir()
    return colour_model(tmp_path / "models" / "model.onnx", SAVER)


def apart(model, location="model.bin"):
    """Move a model's weights to a file beside it."""
    onnx.save(
        onnx.load(model), model, save_as_external_data=True, location=location, size_threshold=0
    )
    return model.parent / location


def renamed(model, to):
    """Let a model's weights lie somewhere else, by its own account."""
    proto = onnx.load(model, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = to
    model.write_bytes(proto.SerializeToString())


def opened(engine, model, *sealed):
    pytest.importorskip(engine)
    return create_engine(
        engine, model, preprocess=PREPROCESS, output=OUTPUT,
        options=EngineOptions(threads=1, sealed=sealed),
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
class TestEveryEngine:
    def test_what_was_hashed_is_loaded(self, engine, model):
        with opened(engine, model, Seal.of(model)):
            pass

    def test_another_file_is_not(self, engine, model):
        seal = Seal.of(model)
        colour_model(model, LARGE)
        with pytest.raises(ModelError, match="not what was calibrated"):
            opened(engine, model, seal)

    def test_the_same_bytes_written_again_are(self, engine, model):
        seal = Seal.of(model)
        model.write_bytes(model.read_bytes())
        with opened(engine, model, seal):
            pass

    def test_a_file_that_changes_while_it_is_loaded_is_refused(self, engine, model, monkeypatch):
        pytest.importorskip(engine)
        kind = engine_class(engine)
        load = kind._load

        def slowly(self):
            answer = load(self)
            model.write_bytes(model.read_bytes())
            return answer

        monkeypatch.setattr(kind, "_load", slowly)
        with pytest.raises(ModelError, match="written to while it was loaded"):
            opened(engine, model, Seal.of(model))

    def test_weights_that_nobody_hashed_are_not_read(self, engine, model):
        weights = apart(model)
        with opened(engine, model, Seal.of(model), Seal.of(weights)):
            pass
        with pytest.raises(ModelError, match=r"needs model\.bin, which is none of the files"):
            opened(engine, model, Seal.of(model))

    @pytest.mark.parametrize("place", ["/etc/hostname", "../other.bin", "a/../../other.bin"])
    def test_weights_outside_the_folder_are_not_read(self, engine, model, place):
        apart(model)
        renamed(model, place)
        with pytest.raises(ModelError, match="outside its folder"):
            opened(engine, model)

    def test_nor_through_a_link(self, engine, model, tmp_path):
        weights = apart(model)
        weights.rename(tmp_path / "elsewhere.bin")
        weights.symlink_to(tmp_path / "elsewhere.bin")
        with pytest.raises(ModelError, match="outside its folder"):
            opened(engine, model)


def test_a_cache_of_links_is_no_outside(model, tmp_path):
    """Download caches keep files by their hash, and a folder of links to them."""
    weights = apart(model)
    links = tmp_path / "snapshot"
    links.mkdir()
    for file in (model, weights):
        (links / file.name).symlink_to(file)
    assert model_files(links / model.name) == (links / model.name, links / weights.name)


def test_references_are_found_in_whatever_order_they_are_written(model):
    apart(model)
    location = b"/etc/hostname"
    renamed(model, location.decode())
    key, value = b"\x0a\x08location", b"\x12" + bytes([len(location)]) + location
    data = model.read_bytes()
    assert data.count(key + value)
    model.write_bytes(data.replace(key + value, value + key))
    with pytest.raises(ModelError, match="outside its folder"):
        external_names(model)


def test_references_are_found_in_constants_and_inner_graphs(tmp_path):
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "inner.bin"
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=weight)], "i", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    file = tmp_path / "model.onnx"
    file.write_bytes(helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString())
    assert external_names(file) == ["inner.bin"]


def test_openvinos_weights_lie_beside_the_model(tmp_path):
    (tmp_path / "m.xml").write_text("<net/>")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "m.bin").touch()
    (tmp_path / "models").mkdir()
    shutil.move(tmp_path / "m.xml", tmp_path / "models" / "m.xml")
    (tmp_path / "models" / "m.bin").symlink_to(tmp_path / "elsewhere" / "m.bin")
    with pytest.raises(ModelError, match="outside its folder"):
        check_model_file(tmp_path / "models" / "m.xml")


def test_weights_that_change_while_the_model_runs_change_nothing(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = colour_model(tmp_path / "model.onnx", SAVER)
    network = openvino.Core().read_model(model)
    openvino.save_model(network, tmp_path / "model.xml", compress_to_fp16=False)
    weights = tmp_path / "model.bin"
    batch = Preprocessor(PREPROCESS).batch([colour_picture(1, 1)] * 3)
    with opened("openvino", tmp_path / "model.xml") as engine:
        before = engine.infer(batch[:1]).copy()
        with weights.open("r+b") as file:
            file.write(bytes(weights.stat().st_size))
        np.testing.assert_array_equal(engine.infer(batch[:1]), before)
        np.testing.assert_allclose(engine.infer(batch), np.repeat(before, 3, 0), rtol=1e-4)


def test_a_bundle_is_loaded_as_it_was_when_it_was_checked(tmp_path):
    folder = small_bundle(tmp_path / "bundle")
    with Bundle.load(folder) as bundle:
        shutil.copyfile(folder / "models" / "large.onnx", folder / "models" / "saver.onnx")
        with pytest.raises(ModelError, match=r"saver\.onnx is not what was calibrated"):
            Cascade.from_bundle(bundle, threads=1)


def test_a_worker_comes_back_although_its_bundle_came_as_a_zip(tmp_path):
    folder, packed = small_bundle(tmp_path / "bundle"), tmp_path / "bundle.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    with Cascade.load(packed, large_worker=True, threads=1) as cascade:
        worker = cascade.stages[-1].engine
        first = worker.pid
        os.kill(first, signal.SIGKILL)
        batch = cascade.stages[-1].blank
        due_s = time.monotonic() + 30
        while True:
            assert time.monotonic() < due_s
            try:
                cascade.stages[-1].ask(batch)
                break
            except Exception:
                time.sleep(0.05)
        assert worker.pid not in (None, first)
