"""`tinysaver-edge deploy`: what it writes is whole, parses, and is what the servers know."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.colours import NAMES, colour_picture
from tests.command import PROGRAM, ROOT
from tests.model_zoo import SIZE, save
from tests.remote.hosts import remote
from tests.remote.kserve import VENV as KSERVE_VENV
from tests.remote.kserve import needs_kserve
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import artefact, small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import InputError
from tinysaver_edge.host.deploy import Target, deploy, write_ovms, write_triton
from tinysaver_edge.host.listening import Listening, parse_bind, same_token
from tinysaver_edge.host.served import Served, safe_name
from tinysaver_edge.output_format import RawOutput


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("deploy") / "bundle")


def written(bundle: Path, target: Target, out: Path, **options) -> set[str]:
    with Bundle.load(bundle) as opened:
        files = deploy(opened, target, out, **options)
    return {path.relative_to(out).as_posix() for path in files}


@pytest.mark.parametrize("target", list(Target))
def test_every_readme_tells_how_to_start_try_and_use_it(bundle, tmp_path, target) -> None:
    files = written(bundle, target, tmp_path / "out")
    assert "README.md" in files
    text = (tmp_path / "out/README.md").read_text()
    assert re.search(r"^## Start$", text, re.M)
    assert re.search(r"^## Smoke test", text, re.M)
    assert re.search(r"tinysaver-edge run bundle .*--large grpc", text)
    assert "not run here" in text.lower()
    assert "{{" not in text
    assert str(tmp_path) not in text
    with pytest.raises(InputError, match="there is something already"):
        written(bundle, target, tmp_path / "out")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("file", "there is something already"),
        ("full", "there is something already"),
        ("link", "there is a link already"),
        ("dangling", "there is a link already"),
        ("loop", "there is a link already"),
        ("pipe", "there is something already"),
        ("file/below", "file is no folder"),
        ("dangling/below", "dangling is no folder"),
        ("n" * 300, "File name too long"),
    ],
)
def test_odd_targets_are_refused_in_a_line_and_left_as_they_are(
    bundle, tmp_path, out, says
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    for name, to in (("link", "file"), ("dangling", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(to)
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    for target in (Target.TRITON, Target.RAY):
        with pytest.raises(InputError, match=says) as caught:
            written(bundle, target, tmp_path / out)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_or_one_that_is_to_come_will_do(bundle, tmp_path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for out in (Path(), tmp_path / "a/b/c"):
        assert "README.md" in written(bundle, Target.TRITON, out)
    assert not list(tmp_path.rglob(".*"))


def test_of_what_does_not_fit_on_the_disk_nothing_is_left(bundle, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "deploy", bundle, "--target", "ray", "--out",
         tmp_path / "out"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"--out {tmp_path / 'out'}: cannot be written (File too large)" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../up", "a b", "a/b", "", ".", "-x", "ä", 'x"'])
@pytest.mark.parametrize("target", list(Target))
def test_a_name_that_is_none_is_refused_before_a_file_is_written(
    bundle, tmp_path, target, name
) -> None:
    with pytest.raises(InputError, match=r"--name .*: a model's name on a host"):
        written(bundle, target, tmp_path / "out", name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Large", "large_2", "2-large", "l" * 51, "large-"])
def test_a_name_that_kubernetes_does_not_take_is_refused(bundle, tmp_path, name) -> None:
    with pytest.raises(InputError, match="Kubernetes takes names"):
        written(bundle, Target.KSERVE, tmp_path / "out", name=name)
    assert written(bundle, Target.TRITON, tmp_path / "triton", name=name)


def test_triton(bundle, tmp_path) -> None:
    files = written(bundle, Target.TRITON, tmp_path / "out")
    folder = "model_repository/large"
    assert files == {"README.md", f"{folder}/config.pbtxt", f"{folder}/1/model.onnx"}
    text = (tmp_path / "out" / folder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    assert "dynamic_batching { }" in text
    settings = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "queue" not in settings


def test_tritons_own_parser_reads_the_configuration(bundle, tmp_path) -> None:
    protobuf = pytest.importorskip("google.protobuf.text_format")
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    written(bundle, Target.TRITON, tmp_path / "out")
    path = tmp_path / "out/model_repository/large/config.pbtxt"
    config = protobuf.Parse(path.read_text(), config_pb2.ModelConfig())
    assert config.input[0].dims == [3, 16, 16]
    assert config.parameters["model_sha256"].string_value
    assert config.HasField("dynamic_batching")


def ending_otherwise(folder: Path, axes: list[int | str]) -> Served:
    """A model that answers a picture with one number of no axis, or with classes and more axes."""
    batch, *others = axes
    width = others[0] if others else 1
    weights = {
        "w": np.random.default_rng(0).normal(0, 1, (width, 3, 1, 1)).astype(np.float32),
        "form": np.array([-1, *others], np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Conv", ["mean", "w"], ["scores"]),
        helper.make_node("Reshape", ["scores", "form"], ["answer"]),
    ]
    path = folder / "odd.onnx"
    source = ("image", "float32", [batch, 3, SIZE, SIZE])
    save(path, nodes, source, [("answer", "float32", axes)], weights)
    made = replace(artefact(folder, "large"), name="odd", files=(path,), output=RawOutput())
    return Served("odd", made, engine_class("onnxruntime").inspect(path))


OTHER_AXES = pytest.mark.parametrize(
    ("axes", "dims", "reshape", "answer"),
    [
        (["n"], [1], [], (1, 1)),
        ([1], [1, 1], [1], (1, 1)),
        (["n", 4, 1, 1], [4], [4, 1, 1], (1, 4)),
        ([1, 4, 1, 1], [1, 4], [1, 4, 1, 1], (1, 4)),
    ],
    ids=str,
)


@OTHER_AXES
def test_triton_is_told_which_axes_a_file_has_and_which_devices_want(
    tmp_path, axes, dims, reshape, answer
) -> None:
    """A tensor of the batch alone is ``dims: [1]``, reshaped: Triton takes no empty ``dims``."""
    protobuf = pytest.importorskip("google.protobuf.text_format")
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    served = ending_otherwise(tmp_path, axes)
    write_triton(served, tmp_path)
    text = (tmp_path / "model_repository/odd/config.pbtxt").read_text()
    (output,) = protobuf.Parse(text, config_pb2.ModelConfig()).output
    assert (output.dims, output.HasField("reshape")) == (dims, True)
    assert output.reshape.shape == reshape
    with served.artefact.open() as engine:
        assert engine.infer(np.zeros((1, 3, SIZE, SIZE), np.float32)).shape == answer


@needs_triton
@pytest.mark.slow
@OTHER_AXES
def test_triton_answers_a_row_a_picture(tmp_path, axes, dims, reshape, answer) -> None:
    import tritonclient.grpc

    served = ending_otherwise(tmp_path, axes)
    write_triton(served, tmp_path, python_backend=True)
    given = tritonclient.grpc.InferInput("image", (1, 3, SIZE, SIZE), "FP32")
    picture = np.random.default_rng(1).random((1, 3, SIZE, SIZE), np.float32)
    given.set_data_from_numpy(picture)
    triton = Triton(tmp_path, tmp_path / "model_repository").start()
    try:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc_port}") as client:
            found = client.infer("odd", [given]).as_numpy("answer")
    finally:
        triton.stop()
    with served.artefact.open() as engine:
        assert found.shape == answer
        assert np.allclose(found, engine.infer(picture), atol=1e-5)


def test_ovms_hands_on_what_devices_do_not_read(tmp_path) -> None:
    with pytest.raises(InputError, match=r"odd.onnx: .* as it is, \(n\), .* another --target"):
        write_ovms(ending_otherwise(tmp_path, ["n"]), tmp_path / "out")


def test_ovms(bundle, tmp_path) -> None:
    files = written(bundle, Target.OVMS, tmp_path / "out")
    assert files == {"README.md", "config.json", "models/large/1/model.onnx"}
    config = json.loads((tmp_path / "out/config.json").read_text())["model_config_list"][0]
    assert config["config"]["base_path"] == "/deployment/models/large"
    assert config["config"]["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    pytest.importorskip("openvino")
    import openvino

    model = openvino.Core().compile_model(
        tmp_path / "out/models/large/1/model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert model(np.zeros((1, 3, 16, 16), np.float32))[0].shape == (1, len(NAMES))


def test_ray(bundle, tmp_path) -> None:
    files = written(bundle, Target.RAY, tmp_path / "out")
    assert files == {"README.md", "app.py", "grpc_service_pb2.py", "serve.yaml", "model.onnx"}
    compile((tmp_path / "out/app.py").read_text(), "app.py", "exec")


CHECK_YAML = """
import json, sys
import kserve, yaml
from kserve import V1beta1InferenceService
from kserve.models import V1beta1InferenceServiceSpec, V1beta1PredictorSpec, V1beta1ModelSpec

def known(kind, value, where):
    names = set(kind.attribute_map.values())
    unknown = set(value) - names
    assert not unknown, (where, unknown)

whole = yaml.safe_load(open(sys.argv[1]))
known(V1beta1InferenceService, whole, "service")
known(V1beta1InferenceServiceSpec, whole["spec"], "spec")
known(V1beta1PredictorSpec, whole["spec"]["predictor"], "predictor")
known(V1beta1ModelSpec, whole["spec"]["predictor"]["model"], "model")
print(whole["metadata"]["name"])
"""


@needs_kserve
@pytest.mark.slow
def test_kserves_package_knows_every_field(bundle, tmp_path) -> None:
    written(bundle, Target.KSERVE, tmp_path / "out")
    done = subprocess.run(
        [KSERVE_VENV / "bin/python", "-c", CHECK_YAML, tmp_path / "out/inferenceservice.yaml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "large"


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("jpeg", [False, True])
def test_triton_runs_what_was_written(tmp_path, jpeg) -> None:
    """With JPEG at quality 100 as well: of pictures this smooth hardly anything is lost."""
    from tests.remote.device_bundle import device_bundle

    bundle = device_bundle(tmp_path / "bundle")
    written(bundle, Target.TRITON, tmp_path / "out", jpeg=jpeg, python_backend=True)
    triton = Triton(tmp_path, tmp_path / "out/model_repository").start()
    frames = [colour_picture(number % len(NAMES), number) for number in range(60)]
    large = remote(triton.url("large"), jpeg_quality=100 if jpeg else None, timeout_s=5.0)
    try:
        with Cascade.load(bundle, large=large) as there, Cascade.load(bundle) as here:
            answers = [there.decide(frame) for frame in frames]
            expected = [here.decide(frame) for frame in frames]
            traffic = there.stages[-1].engine.traffic
            doubt = there.stages[-1].engine.doubt
    finally:
        triton.stop()
    assert [one.degraded for one in answers] == [None] * len(frames)
    same = [one.label == other.label for one, other in zip(answers, expected, strict=True)]
    assert sum(same) >= (0.97 if jpeg else 1.0) * len(frames)
    assert (doubt is not None) == jpeg
    assert traffic.answered > 10


@pytest.mark.parametrize("target", [Target.TRITON, Target.KSERVE, Target.RAY])
def test_what_decodes_jpeg_is_whole_and_the_readme_tells_the_device(tmp_path, target) -> None:
    """A bundle that was calibrated on pixels wants the quality typed, and is not covered."""
    from tests.remote.device_bundle import device_bundle

    files = written(device_bundle(tmp_path / "bundle"), target, tmp_path / "out", jpeg=True)
    programs = [name for name in files if name.endswith(".py")]
    for name in programs:
        compile((tmp_path / "out" / name).read_text(), name, "exec")
    decoding = [name for name in programs if "imdecode" in (tmp_path / "out" / name).read_text()]
    assert len(decoding) == 1
    assert "expected JPEG files of 16 x 16 pixels" in (tmp_path / "out" / decoding[0]).read_text()
    assert "--large-jpeg 90" in (tmp_path / "out/README.md").read_text()


def test_jpeg_is_for_models_that_take_pixels(bundle, tmp_path) -> None:
    with pytest.raises(InputError, match="JPEG is for models that take the frame's own pixels"):
        written(bundle, Target.TRITON, tmp_path / "out", jpeg=True)


@pytest.mark.parametrize(
    ("name", "safe"), [("ResNet-50 (v1.5)", "resnet-50-v1-5"), ("large", "large"), ("é", "large")]
)
def test_names_that_every_server_takes(name, safe) -> None:
    assert safe_name(name) == safe


def test_beyond_loopback_only_with_tls(tmp_path) -> None:
    assert parse_bind("[::1]:7") == ("::1", 7)
    for wrong in ("127.0.0.1", "127.0.0.1:x", ":8001", "", "a b:1"):
        with pytest.raises(InputError, match="expected HOST:PORT"):
            parse_bind(wrong)
    with pytest.raises(InputError, match="others can reach it, and nothing is encrypted"):
        Listening(host="0.0.0.0")
    assert Listening(host="0.0.0.0", insecure=True).authority == "0.0.0.0:8001"
    assert Listening(host="0.0.0.0", certificate=tmp_path, key=tmp_path).key == tmp_path
    with pytest.raises(InputError, match="give both"):
        Listening(certificate=tmp_path)
    with pytest.raises(InputError, match="needs TLS"):
        Listening(client_ca=tmp_path)
    with pytest.raises(InputError, match="cannot both listen"):
        Listening(http_port=8001)


def test_tokens_are_compared() -> None:
    assert same_token(None, None)
    assert same_token("Bearer a", "Bearer a")
    assert not same_token("Bearer b", "Bearer a")
    assert not same_token(None, "Bearer a")
