"""What `deploy` writes holds a bundle's names as texts, whatever its author called things."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from tests.remote.device_bundle import device_bundle
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.errors import InputError
from tinysaver_edge.host import deploy as deploy_module
from tinysaver_edge.host.deploy import Target, check_name, deploy, render

NAMES = [
    'X", "b"); raise SystemExit("ran") #',
    "x'); raise SystemExit('ran') #",
    "back\\slash\\",
    '"""; raise SystemExit("ran")',
    "{{ 7 * 7 }}{% raw %}",
    "größe ✓",
    '" } ] dynamic_batching { } #',
    "${HOME} $(id) `id`",
]


def renamed(folder: Path, new: str) -> Path:
    """A bundle whose large model calls its output so."""

    def shipped(made):
        model = onnx.load(made.files[0])
        old = model.graph.output[0].name
        for node in model.graph.node:
            for place, name in enumerate(node.output):
                if name == old:
                    node.output[place] = new
        model.graph.output[0].name = new
        onnx.save(model, made.files[0])
        return made

    return small_bundle(folder / "bundle", golden=False, shipped=shipped)


SILENCE = "os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')"


def assigned(text: str) -> dict[str, object]:
    """The constants at the top of a Python file; nothing of it is run."""
    found: dict[str, object] = {}
    for node in ast.parse(text).body:
        assert isinstance(
            node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.ClassDef, ast.FunctionDef)
        )
        if isinstance(node, ast.Expr) and ast.unparse(node) != SILENCE:
            assert isinstance(node.value, ast.Constant)  # the docstring
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [one.id for one in node.targets[0].elts]
            found |= dict(zip(names, ast.literal_eval(node.value), strict=True))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_tensors_name_is_a_text_in_every_file(tmp_path, name) -> None:
    bundle = renamed(tmp_path, name)
    with Bundle.load(bundle) as opened:
        deploy(opened, Target.TRITON, tmp_path / "triton", python_backend=True)
        deploy(opened, Target.RAY, tmp_path / "ray")
    repository = tmp_path / "triton/model_repository/large"
    assert assigned((repository / "1/model.py").read_text())["OUTPUT"] == name
    assert assigned((tmp_path / "ray/app.py").read_text())["OUTPUT"] == name
    protobuf = pytest.importorskip("google.protobuf.text_format")
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = protobuf.Parse((repository / "config.pbtxt").read_text(), config_pb2.ModelConfig())
    assert [one.name for one in config.output] == [name]
    assert not config.HasField("dynamic_batching") or config.max_batch_size


@pytest.mark.parametrize("name", ["a\nb", "a\x00", "\x1b[2J", "\u202egnp.exe", "x" * 200, ""])
@pytest.mark.parametrize("target", [Target.TRITON, Target.RAY])
def test_what_is_no_name_is_refused_before_a_file_is_written(tmp_path, target, name) -> None:
    with pytest.raises(InputError, match=r"tensor .*a name on a server is 1 to 128") as refusal:
        check_name(name, what="tensor")
    assert str(refusal.value).isprintable()
    if "\x00" in name or not name:  # no model file holds such a one
        return
    bundle = renamed(tmp_path, name)
    with Bundle.load(bundle) as opened, pytest.raises(InputError, match="printable"):
        deploy(opened, target, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundles_own_name_is_a_text_in_the_readme(tmp_path) -> None:
    odd = tmp_path / "b; rm -rf `id` <script>"
    shutil.copytree(small_bundle(tmp_path / "bundle", golden=False), odd)
    with Bundle.load(odd) as opened:
        deploy(opened, Target.TRITON, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "tinysaver-edge run 'b; rm -rf _id_ _script_' --source 0" in text
    assert "`id`" not in text
    assert "<script>" not in text


def test_every_kind_of_file_has_its_own_literals() -> None:
    values = {"name": 'a": b', "large_jpeg": None}
    assert 'name: "a\\": b"' in render("kserve_inferenceservice.yaml", values)
    for template in Path(deploy_module.__file__).with_name("templates").glob("*.j2"):
        assert '"{{' not in template.read_text().replace(" ", "")


@pytest.mark.parametrize("target", [Target.TRITON, Target.RAY])
def test_the_written_servers_look_at_a_pictures_size_first(tmp_path, target) -> None:
    with Bundle.load(device_bundle(tmp_path / "bundle")) as opened:
        deploy(opened, target, tmp_path / "out", jpeg=True)
    (file,) = [*(tmp_path / "out").rglob("app.py"), *(tmp_path / "out").rglob("1/model.py")]
    module = ast.parse(file.read_text())
    functions = [one for one in module.body if isinstance(one, ast.FunctionDef)]
    assert [one.name for one in functions] == ["jpeg_size"]
    space: dict[str, object] = {}
    exec(compile(ast.Module(functions, []), file.name, "exec"), space)
    picture = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    assert space["jpeg_size"](picture) == (30, 50)
    assert "except cv2.error" in file.read_text()
