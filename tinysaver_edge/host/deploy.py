"""Deployments: what Triton, KServe, OVMS and Ray Serve need, and the bundle for the device.

Names in a bundle are its author's, and the files run on a server: nothing that stands between two
braces of a template gets into a file as it is. What is written is a literal of the kind of file.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tinysaver_edge import codec as jpeg_header
from tinysaver_edge._support.files import new_beside, write_text
from tinysaver_edge._support.limits import MOST_NAME, MOST_ROWS
from tinysaver_edge._support.text import brief, printable
from tinysaver_edge.bundle.bundle import files_of, write_bundle
from tinysaver_edge.engines.remote.facts import DATATYPES, JPEG
from tinysaver_edge.errors import BundleError, InputError
from tinysaver_edge.host.served import Served, served_by

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle

_TEMPLATES = Path(__file__).with_name("templates")
MAX_BATCH = 8
"""Frames that Triton runs together at most."""

_BACKENDS = MappingProxyType({".onnx": "onnxruntime", ".xml": "openvino"})
_TYPES = MappingProxyType({"BYTES": "TYPE_STRING"})
_KUBERNETES = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
"""Names of services that leave room for what KServe appends."""


class Target(str, Enum):
    """A kind of server."""

    TRITON = "triton"
    KSERVE = "kserve"
    OVMS = "ovms"
    RAY = "ray"


def deploy(
    bundle: Bundle,
    target: Target,
    out: Path,
    *,
    name: str | None = None,
    jpeg: bool | None = None,
    python_backend: bool = False,
) -> list[Path]:
    """Write what a server needs to serve a bundle's large model, and a README beside it.

    Args:
        bundle: an open bundle.
        target: the server.
        out: a folder that is empty or not there yet.
        name: the model's name on the server; by default as in the bundle.
        jpeg: the devices send JPEG files in place of pixels; None does as was calibrated.
        python_backend: for Triton, also inside KServe: run an .onnx in its Python backend.

    Returns:
        The files that were written.

    Raises:
        InputError: the folder holds something, or the server cannot run such a model.
        BundleError: the bundle holds no models.
    """
    _check_new(out, what="a new folder", empty=True)
    served = served_by(bundle, name=name, jpeg=jpeg)
    if served.jpeg and target is Target.OVMS:
        raise InputError(
            "OpenVINO Model Server decodes no JPEG into these models: send it pixels, from a "
            "bundle that was calibrated without --large-jpeg"
        )
    if target is Target.KSERVE and not _KUBERNETES.fullmatch(served.name):
        raise InputError(
            f"{served.name}: Kubernetes takes names of up to 50 lower-case letters, digits and '-' "
            "that begin with a letter; give one with --name"
        )
    for tensor in (served.signature.input_name, served.signature.output_name):
        check_name(tensor, what="tensor")
    values = {
        "name": served.name,
        "bundle": bundle.path.name,
        "jpeg": served.jpeg,
        "covered": not served.jpeg or served.artefact.codec is not None,
        # A bundle that was calibrated on JPEG tells the device which.
        "large_jpeg": None if served.artefact.codec or not served.jpeg else 90,
        "python_backend": uses_python_backend(served, python_backend),
        "platform": Verbatim("OpenVINO" if served.file.suffix == ".xml" else "ONNX Runtime"),
        "sha256": served.sha256,
    }
    with _all_or_nothing(out) as folder:
        if target is Target.OVMS:
            write_ovms(served, folder)
        elif target is Target.RAY:
            _write_ray(served, folder, values)
        else:
            write_triton(served, folder, python_backend=python_backend)
            if target is Target.KSERVE:
                text = render("kserve_inferenceservice.yaml", values)
                write_text(folder / "inferenceservice.yaml", text)
        write_text(folder / "README.md", render(f"{target.value}_README.md", values))
    return sorted(path for path in out.rglob("*") if path.is_file())


def _check_new(out: Path, *, what: str, empty: bool = False) -> None:
    """Refuse a target that is there, or that nothing can be put below.

    Raises:
        InputError: naming what is in the way.
    """
    try:
        there = os.path.lexists(out)
        if there and not (empty and out.is_dir() and not any(out.iterdir())):
            link = "a link" if out.is_symlink() else "something"
            raise InputError(f"--out {out}: there is {link} already; name {what}")
        above = next(one for one in out.absolute().parents if os.path.lexists(one))
    except (OSError, ValueError) as error:
        raise InputError(f"--out {out}: {getattr(error, 'strerror', None) or error}") from error
    if not above.is_dir():
        raise InputError(f"--out {out}: {above} is no folder; name {what}")


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Give a folder that becomes `out` once all is in it; of what fails nothing is left.

    Raises:
        InputError: there is no room, or it may not be written there.
    """
    new = new_beside(out.absolute())
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        if out.is_dir():  # an empty one, perhaps where the user stands
            for path in sorted(new.iterdir()):
                path.replace(out / path.name)
        else:
            new.replace(out)
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        raise InputError(f"--out {out}: {why}; name another folder") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_device_bundle(bundle: Bundle, out: Path) -> int:
    """Write a copy of a bundle that leaves the large model's files to the hosts that serve it.

    Hashes and golden samples stay, so a host still has to prove that it serves the model that was
    calibrated, and the certificate covers its answers.

    Returns:
        How many bytes it is lighter by.

    Raises:
        InputError: there is something already.
        BundleError: there is no large model to leave out, or the target cannot be written.
    """
    _check_new(out, what="a new folder or .zip")
    *early, large = bundle.manifest.stages
    if not early or not large.model.files:
        why = "has no saver beside it" if not early else "is known by name only"
        raise BundleError(
            f"bundle {bundle.path}: {large.model.name} {why}: nothing can be left out"
        )
    if large.model.elsewhere:
        raise BundleError(f"bundle {bundle.path}: holds no file of {large.model.name} already")
    model = large.model.model_copy(update={"elsewhere": True})
    stages = [*early, large.model_copy(update={"model": model})]
    manifest = bundle.manifest.model_copy(update={"stages": stages})
    write_bundle(out, manifest, {entry.path: bundle.file(entry) for entry in files_of(manifest)})
    return sum(entry.size_bytes for entry in model.files)


def write_triton(served: Served, out: Path, *, python_backend: bool = False) -> None:
    """Write ``model_repository/`` for Triton.

    Args:
        served: the model.
        out: a folder that is there.
        python_backend: run an .onnx with the ``onnxruntime`` package in Triton's Python backend,
            for builds without the ONNX Runtime backend. JPEG needs it in any case.

    Raises:
        InputError: Triton has no backend for such a model.
    """
    python_backend = uses_python_backend(served, python_backend)
    suffix = served.file.suffix
    if suffix not in _BACKENDS or (python_backend and suffix != ".onnx"):
        readable = ".onnx in its Python backend" if python_backend else ".onnx and .xml"
        raise InputError(f"{served.file.name}: Triton runs {readable}, not {suffix}")
    folder = out / "model_repository" / served.name
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(served.artefact.files):
        copy_file(file, version / f"model{file.suffix if number == 0 else Path(file.name).suffix}")
    values = {
        "name": served.name,
        "platform": "python" if python_backend else _BACKENDS[suffix],
        "sha256": served.sha256,
        "file": f"model{suffix}",
        "jpeg": served.jpeg,
        "height": served.artefact.preprocess.resize.height,
        "width": served.artefact.preprocess.resize.width,
        **_tensors(served),
    }
    write_text(folder / "config.pbtxt", render("triton_config.pbtxt", values))
    if python_backend:
        write_text(version / "model.py", render("triton_model.py", values))


def uses_python_backend(served: Served, asked: bool) -> bool:
    """Whether Triton's Python backend runs a model: when asked to, and where JPEG is decoded."""
    return asked or served.jpeg


def _tensors(served: Served) -> dict[str, Any]:
    """Return input and output as Triton's configuration wants them."""
    signature = served.signature
    fixed = signature.batch_size
    max_batch = MAX_BATCH if fixed is None else 0
    shape = served.artefact.preprocess.shape(1)[1:]
    inputs: tuple[int | None, ...] = (1,) if served.jpeg else shape
    outputs, stated = signature.output_shape[1:], signature.file_axes
    if stated is not None:
        stated = stated[1:]
    if not max_batch:
        inputs, outputs = (fixed, *inputs), (fixed, *outputs)
        stated = None if stated is None else (fixed, *stated)
    datatype = JPEG if served.jpeg else DATATYPES[signature.input_dtype]
    return {
        "max_batch": max_batch,
        "model_input": signature.input_name,
        "input": {
            "name": "jpeg" if served.jpeg else signature.input_name,
            "type": _type(datatype),
            "dims": _dims(inputs),
        },
        "output": {
            "name": signature.output_name,
            "type": _type(DATATYPES[signature.output_dtype]),
            "dims": _dims(outputs),
            "reshape": None if stated is None else _dims(stated),
        },
    }


def _dims(axes: tuple[int | None, ...]) -> list[int]:
    return [-1 if axis is None else axis for axis in axes]


def _type(datatype: str) -> Verbatim:
    return Verbatim(_TYPES.get(datatype, f"TYPE_{datatype}"))


def write_ovms(served: Served, out: Path) -> None:
    """Write a configuration and ``models/`` for OpenVINO Model Server.

    Args:
        served: the model.
        out: a folder that is there.

    Raises:
        InputError: it reads no such file, or devices would not read its answers.
    """
    if served.file.suffix not in (".onnx", ".xml", ".tflite"):
        raise InputError(f"{served.file.name}: OpenVINO Model Server reads .onnx, .xml and .tflite")
    if (stated := served.signature.file_axes) is not None:
        axes = ", ".join("n" if axis is None else str(axis) for axis in stated)
        raise InputError(
            f"{served.file.name}: OpenVINO Model Server hands on its output as it is, ({axes}), "
            "and devices want (n, classes): export it so, or write for another --target"
        )
    folder = out / "models" / served.name / "1"
    folder.mkdir(parents=True)
    for file in served.artefact.files:
        copy_file(file, folder / f"model{file.suffix}")
    config = {
        "model_config_list": [
            {
                "config": {
                    "name": served.name,
                    "base_path": f"/deployment/models/{served.name}",
                    "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"},
                }
            }
        ]
    }
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")


def _write_ray(served: Served, out: Path, values: dict[str, Any]) -> None:
    if served.file.suffix != ".onnx":
        raise InputError(f"{served.file.name}: the Ray Serve application runs .onnx files only")
    signature = served.signature
    width = signature.output_shape[-1]
    shape = [-1] if served.jpeg else [-1, *served.artefact.preprocess.shape(1)[1:]]
    values |= {
        "file": "model.onnx",
        "height": served.artefact.preprocess.resize.height,
        "width": served.artefact.preprocess.resize.width,
        "most_rows": MOST_ROWS,
        "model_input": signature.input_name,
        "input": {
            "name": "jpeg" if served.jpeg else signature.input_name,
            "datatype": JPEG if served.jpeg else DATATYPES[signature.input_dtype],
            "dtype": signature.input_dtype,
            "shape": shape,
        },
        "output": {
            "name": signature.output_name,
            "datatype": DATATYPES[signature.output_dtype],
            "shape": [-1, -1 if width is None else width],
        },
    }
    for template in ("app.py", "grpc_service_pb2.py", "serve.yaml"):
        write_text(out / template, render(f"ray_{template}", values))
    copy_file(served.file, out / "model.onnx")


def render(template: str, values: dict[str, Any]) -> str:
    """Fill in a template of this package; a value that it lacks is an error.

    Args:
        template: its name, which ends as the file's does: that decides how values are written.
        values: texts become literals: no template puts quotes around them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_LITERALS[Path(template).suffix],
    )
    environment.globals["jpeg_size"] = Verbatim(inspect.getsource(jpeg_header.jpeg_size))
    return environment.get_template(f"{template}.j2").render(values)


def check_name(name: str, *, what: str) -> None:
    """Refuse what cannot be the name of a tensor on a server.

    Raises:
        InputError: it is empty, too long, or has characters that nobody can see.
    """
    if not name or len(name) > MOST_NAME or printable(name) != name:
        raise InputError(
            f"{what} {brief(name, 60)!r}: a name on a server is 1 to {MOST_NAME} printable "
            "characters; rename it in the model"
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a model file, readable for the user that the server runs as."""
    shutil.copyfile(source, target)
    target.chmod(0o644)


class Verbatim(str):
    """Text of this package, never of a bundle, that goes into a file as it is."""

    __slots__ = ()


def _python(value: object) -> str:
    if isinstance(value, Verbatim):
        return value
    return ascii(value)


def _quoted(value: object) -> str:
    """Return a literal as YAML and protobuf's text format have it."""
    if isinstance(value, Verbatim):
        return value
    if isinstance(value, str):
        # JSON's escapes are YAML's; protobuf knows them too, but \/, which is not written.
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _words(value: object) -> str:
    """Return a value for a text that people read and paste into a shell."""
    if isinstance(value, Verbatim):
        return value
    text = printable(str(value))
    if re.fullmatch(r"[\w.,:+@%=/-]*", text):
        return text
    return shlex.quote(re.sub(r"[`<>|*\[\]\\]", "_", text))  # nothing that Markdown or HTML reads


_LITERALS: MappingProxyType[str, Callable[[object], str]] = MappingProxyType(
    {".py": _python, ".pbtxt": _quoted, ".yaml": _quoted, ".md": _words}
)
"""How a value is written, by the kind of file."""
