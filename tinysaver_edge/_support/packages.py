"""Packages of engines, imported without what they would tell their makers."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

ASKED_FOR = "TINYSAVER_ENGINE_TELEMETRY"
"""Set to 1, this variable of the environment leaves the engines' telemetry as it is."""

_ONNXRUNTIME_OFF = "ORT_DISABLE_TELEMETRY"
_OPENVINO_TELLER = "openvino_telemetry"


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
