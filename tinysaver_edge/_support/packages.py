"""How packages are imported: when first asked for, quietly, and telling their makers nothing."""

from __future__ import annotations

import gc
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import Any

from tinysaver_edge.errors import MissingDependencyError

ASKED_FOR = "TINYSAVER_ENGINE_TELEMETRY"
"""Set to 1, this variable of the environment leaves the engines' telemetry as it is."""

_ONNXRUNTIME_OFF = "ORT_DISABLE_TELEMETRY"
_OPENVINO_TELLER = "openvino_telemetry"


def lazy_exports(
    package: str, places: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Type checkers do not see them: the package names the same imports under ``TYPE_CHECKING`` and
    in ``__all__``, and calls this where that is not set, so that a wrong name is an error to them.

    Args:
        package: the package's name.
        places: names by the module, within the package or written out, that they stand in; a
            module without any is exported itself.
    """
    modules = {name: place for place, names in places.items() for name in names or (place,)}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = modules[name]
        inside = "" if place.startswith(f"{package.partition('.')[0]}.") else f"{package}."
        module = import_module(f"{inside}{place}")
        value: object = getattr(module, name) if places[place] else module
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        listed: list[str] = sys.modules[package].__all__
        return sorted(listed)

    return load, names


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Have the garbage collector pass over all that is loaded by now, while the block runs.

    Where KServe is, or another large package, it looks at some 100,000 objects every few seconds
    of an attack, and no frame is decided for 50 to 100 ms.
    """
    frozen_before = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:  # else it is somebody else's
            gc.unfreeze()


@contextmanager
def quietly() -> Iterator[None]:
    """Swallow the process's prints, warnings and log lines while the block runs."""
    said = io.StringIO()
    with unlogged(), warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def unlogged() -> Iterator[None]:
    """Swallow log lines alone: a bar that shows how far a download has come stays."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def needs(package: str | None = None, *, extra: str, purpose: str) -> Iterator[None]:
    """Turn an import that fails in the block into the error that says what to install.

    The package is what is named, or whatever is missing; `extra` of ours brings it.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            package or error.name or extra, extra=extra, purpose=purpose
        ) from error


def opencv(purpose: str) -> Any:  # noqa: ANN401 - a module
    """Return the module `cv2`.

    Raises:
        MissingDependencyError: it is not installed, or an empty folder is all that is left of it.
    """
    try:
        import cv2

        cv2.resize  # noqa: B018 - a folder without a module imports as an empty one
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError("opencv-python", extra="cpu", purpose=purpose) from error
    return cv2


def import_engine(name: str) -> ModuleType:
    """Import ``onnxruntime``, ``openvino`` or a module of theirs, its telemetry off.

    ONNX Runtime from 1.29 on writes an id of the device below HOME and reports the models it opens;
    OpenVINO reports each import. Both decide when they are imported: afterwards is too late.

    Raises:
        ImportError: it is not installed.
    """
    if os.environ.get(ASKED_FOR) == "1":
        return importlib.import_module(name)
    silence_onnxruntime()
    with _without_openvino_teller():
        return importlib.import_module(name)


def silence_onnxruntime() -> None:
    """Turn its telemetry off for this process and those it starts, unless it is asked for."""
    if os.environ.get(ASKED_FOR) != "1":
        os.environ.setdefault(_ONNXRUNTIME_OFF, "1")


@contextmanager
def _without_openvino_teller() -> Iterator[None]:
    """Let the package that reports be missing for a moment: OpenVINO then does without."""
    if _OPENVINO_TELLER in sys.modules:
        yield
        return
    sys.modules[_OPENVINO_TELLER] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(_OPENVINO_TELLER, None)


def python_command(program: str, *arguments: str) -> list[str]:
    """Return a command that runs a program with this Python, which imports nothing from here.

    ``python -c`` looks for modules in the folder that the user stands in first: a stranger's
    ``numpy.py`` among the pictures would be run.
    """
    # A file, where no module lies, stands for it: OpenCV counts on whatever is first in the path.
    own = "import sys; sys.path[:] = [one or sys.executable for one in sys.path]\n"
    known = "" if "" in sys.path else own
    return [sys.executable, "-c", known + program, *arguments]
