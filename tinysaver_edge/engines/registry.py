"""Engines by name: those of this package and those that others bring through entry points.

A package adds an engine by naming a subclass of `Engine` in its own metadata:

    [project.entry-points."tinysaver_edge.engines"]
    my_engine = "my_package.engine:MyEngine"
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinysaver_edge._support.plug_ins import PlugIns
from tinysaver_edge.engines.base import DEFAULT_OPTIONS, Engine, EngineOptions, ModelSignature
from tinysaver_edge.errors import EngineError, MissingDependencyError, ModelError, TinySaverError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess

if TYPE_CHECKING:
    from importlib.metadata import Distribution

AUTO = "auto"
"""Stands for the fastest engine, where one is measured (`bench.engine_choice`), and
for the one that `engine_for` picks elsewhere."""

PLUG_INS = PlugIns("engine", EngineError)
"""Engines of other packages."""


class _BuiltIn(NamedTuple):
    """An engine of this package; `package` is what it imports and the extra that brings it."""

    module: str
    attribute: str
    package: str


_BUILT_IN = {
    "onnxruntime": _BuiltIn(
        "tinysaver_edge.engines.onnxruntime", "OnnxRuntimeEngine", "onnxruntime"
    ),
    "openvino": _BuiltIn("tinysaver_edge.engines.openvino", "OpenVinoEngine", "openvino"),
    "torch": _BuiltIn("tinysaver_edge.engines.torch", "TorchEngine", "timm"),
}


def create_engine(
    name: str,
    model: Path,
    *,
    preprocess: Preprocess,
    output: OutputFormat,
    options: EngineOptions = DEFAULT_OPTIONS,
) -> Engine:
    """Open a model with an engine.

    Args:
        name: an engine's name, or ``"auto"`` for the one that `engine_for` picks.
        model: the model's file.
        preprocess: what the batches given to it will look like.
        output: how the model states its answer.
        options: device, precision, threads.

    Raises:
        MissingDependencyError: the engine's package is not installed.
        ModelError: the file cannot be read.
        EngineError: there is no such engine, or its device or precision cannot be had.
        DescriptionError: the file's input is not what ``preprocess`` makes.
    """
    if name == AUTO:
        name = engine_for(model, device=options.device)
    return engine_class(name)(model, preprocess=preprocess, output=output, options=options)


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines, be their packages installed or not."""
    return tuple(sorted({*_BUILT_IN, *PLUG_INS.names()}))


def engine_class(name: str) -> type[Engine]:
    """Return the class of an engine.

    Raises:
        EngineError: no engine has that name, or the plug-in that has it is broken.
    """
    names = PLUG_INS.names()
    if name in _BUILT_IN and name in names:
        raise PLUG_INS.claimed(name)
    if name in _BUILT_IN:
        built_in = _BUILT_IN[name]
        found: type[Engine] = getattr(importlib.import_module(built_in.module), built_in.attribute)
        return found
    if name not in names:
        raise EngineError(f"no engine {name!r}: there are {', '.join(engine_names())}")
    brought = PLUG_INS.load(name)
    if not (isinstance(brought, type) and issubclass(brought, Engine)):
        raise EngineError(f"{PLUG_INS.told(name)} is no subclass of tinysaver_edge.engines.Engine")
    return brought


def engine_for(model: Path, *, device: str | None = None) -> str:
    """Return the name of the engine to open a file with.

    That is the first, of ONNX Runtime, OpenVINO and the plug-ins, that is installed, reads such
    files and knows the device by its name. ONNX Runtime stays first since OpenVINO's lead is small
    where it has one (at the median 8 %, see `benchmarks/bench_default_engine.py`) and differs by
    model and processor: `bench.engine_choice` measures.

    Raises:
        MissingDependencyError: engines read such files, but none is installed.
        ModelError: no engine reads such files.
        EngineError: none that does knows the device, or a plug-in is broken.
    """
    readers: list[str] = []
    for name in _by_preference():
        engine = engine_class(name)
        if model.suffix not in engine.suffixes:
            continue
        readers.append(name)
        if is_installed(name) and (device is None or engine.accepts_device(device)):
            return name
    raise _why_none(model, readers, device)


def _by_preference() -> Iterator[str]:
    """Yield built-in engines first: a broken plug-in harms only those who need one."""
    yield from _BUILT_IN
    yield from (name for name in engine_names() if name not in _BUILT_IN)


def _why_none(model: Path, readers: list[str], device: str | None) -> TinySaverError:
    """Return the error that says why no engine can open a file."""
    if not readers:
        known = sorted({end for name in _by_preference() for end in engine_class(name).suffixes})
        return ModelError(
            f"model {model}: no engine reads {model.suffix or 'such'} files; "
            f"known are {', '.join(known)}"
        )
    absent = [name for name in readers if not is_installed(name)]
    for name in absent:
        if device is None or engine_class(name).accepts_device(device):
            package = _BUILT_IN[name].package
            return MissingDependencyError(package, extra=package, purpose=f"Running {model.name}")
    return EngineError(
        f"no engine that reads {model.suffix} files knows a device {device!r} "
        f"(asked {', '.join(readers)})"
    )


def engine_name(asked: str | None, model: Path, *, device: str | None = None) -> str:
    """Return the engine that is asked for, or the one that `engine_for` picks where none is.

    Raises:
        MissingDependencyError: as `engine_for`.
        ModelError: as `engine_for`.
        EngineError: as `engine_for`.
    """
    return engine_for(model, device=device) if asked is None or asked == AUTO else asked


def engine_version(name: str) -> str | None:
    """Return which release of an engine's package is installed, None where none is.

    The distribution is named as well: ``onnxruntime`` and ``onnxruntime-gpu`` bring one package.
    """
    brings = PLUG_INS.distribution(name)
    if brings is not None:
        return brings
    from importlib.metadata import distributions  # 25 ms, which a device need not spend

    packages = {"torch": ("torch", "timm")}.get(name, (name,))
    found: dict[str, str] = {}
    for one in distributions():
        if any(_brings(one, package) for package in packages):
            found.setdefault(one.metadata["Name"], one.version)  # the first is what is imported
    return ", ".join(f"{owner} {found[owner]}" for owner in sorted(found)) or None


def _brings(distribution: Distribution, package: str) -> bool:
    """Whether a package is of a distribution; `packages_distributions` takes ten times as long."""
    top = distribution.read_text("top_level.txt")
    if top is not None:
        return package in top.split()
    return f"\n{package}/" in f"\n{distribution.read_text('RECORD')}"


def inspect(model: Path, *, output: str | None = None) -> ModelSignature:
    """Read what a model file says of its input and output, without a description.

    Args:
        model: the file.
        output: name of the output that holds the classes, where there are several.

    Raises:
        MissingDependencyError: no engine that reads such files is installed.
        ModelError: the file is missing, truncated, of no known format, or has several inputs.
    """
    return engine_class(engine_for(model)).inspect(model, output=output)


def is_installed(name: str) -> bool:
    """Whether an engine's package is there; plug-ins always are."""
    return name not in _BUILT_IN or find_spec(_BUILT_IN[name].package) is not None
