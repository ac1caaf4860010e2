import ast
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tinysaver_edge
from tinysaver_edge._support.packages import ASKED_FOR, opencv
from tinysaver_edge.errors import MissingDependencyError

PACKAGE = Path(tinysaver_edge.__file__).parent
ENGINES = {"onnxruntime", "openvino"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_no_engine_is_imported_but_by_the_one_place_that_silences_it():
    direct = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for name in imported(path)
        if name.partition(".")[0] in ENGINES
    }
    assert direct == set()


CHOSEN_BY_NAME = {
    "_support/packages.py", "cli/__init__.py", "cli/models.py", "engines/registry.py",
    "models/export/torch_onnx.py", "stream/sources/opening.py",
}  # fmt: skip
"""Files that import what a name says: our own modules, what entry points name, and torch."""


def test_no_engine_is_imported_by_a_name_that_is_computed():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("importlib.import_module", "__import__")
    }
    assert found == CHOSEN_BY_NAME


def test_an_empty_folder_is_no_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    with pytest.raises(MissingDependencyError, match="opencv-python"):
        opencv("Resizing")


def after(program, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "ORT_DISABLE_TELEMETRY", ASKED_FOR)
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True,
        env={**clean, **environment},
    )  # fmt: skip
    return done.stdout.split()


def test_onnxruntime_is_told_before_it_is_imported():
    pytest.importorskip("onnxruntime")
    program = (
        "import os, sys; from tinysaver_edge._support.packages import import_engine\n"
        "import_engine('onnxruntime'); print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    )
    assert after(program) == ["1"]
    assert after(program, ORT_DISABLE_TELEMETRY="0") == ["0"]
    assert after(program, **{ASKED_FOR: "1"}) == ["None"]


def test_openvino_is_imported_without_what_reports_it(tmp_path):
    pytest.importorskip("openvino")
    program = (
        "import sys; from tinysaver_edge._support.packages import import_engine\n"
        "import_engine('openvino'); print(sorted(one for one in sys.modules if 'telemetry' in one"
        " and 'stub' not in one and 'tools' not in one))"
    )
    assert after(program, HOME=str(tmp_path)) == ["[]"]
    assert list(tmp_path.rglob("*")) == []


def test_the_garbage_collector_passes_over_what_is_loaded_until_the_end():
    program = (
        "import gc, numpy\n"
        "from tinysaver_edge._support.packages import frozen_heap\n"
        "loaded = [[] for _ in range(10_000)]\n"
        "with frozen_heap():\n"
        "    inside = len(gc.get_objects())\n"
        "    with frozen_heap():\n"
        "        pass\n"
        "    assert gc.get_freeze_count() > 10_000\n"
        "assert inside < 1_000 < 10_000 < len(gc.get_objects()), inside\n"
        "assert gc.get_freeze_count() == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
