"""A calibration on a Ray cluster gives what it gives here, to the bit; nodes may die."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, SAVER, colour_folders
from tests.remote.triton import ROOT, site_packages
from tinysaver_edge.calibrate.measured.ray_workers import (
    _check_answers,
    _slots,
    _why_not_joined,
    check_on,
)
from tinysaver_edge.errors import InputError

VENV = Path(os.environ.get("TINYSAVER_RAY_VENV", ROOT / ".venv-ray"))


def why_not() -> str | None:
    site = site_packages(VENV)
    if site is None or not (site / "ray").is_dir() or not (site / "onnxruntime").is_dir():
        return f"no Ray with ONNX Runtime in {VENV.name}: make .venv-ray/.installed"
    return None


needs_ray = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def with_ray(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VENV / "bin/python", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@needs_ray
@pytest.mark.slow
def test_two_nodes_and_one_that_dies_give_the_same_bundle(tmp_path):
    made = recipe(tmp_path, {"saver": SAVER, "large": LARGE})
    pictures = colour_folders(tmp_path / "pictures", each=60)
    out = tmp_path / "out"
    done = with_ray("-m", "tests.calibrate.measured.on_ray", made, pictures, out)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["nodes that worked"] == 2
    assert said["nodes left"] == 2
    lost = re.compile(r"a worker was lost, and with it [12] chunks?,")
    assert any(lost.search(one) for one in said["killed"]["notes"]), said["killed"]["notes"]
    assert not any("lost" in one for one in said["ray"]["notes"])
    for way in ("ray", "killed"):
        assert any("nothing was timed" in one for one in said[way]["warnings"])
        assert files(out / way) == files(out / "here")
        assert files(out / f"{way}.records") == files(out / "here.records")


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds; where its models lie is each folder's own."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("prepared.json", ".lock")
    }


@needs_ray
def test_no_cluster_is_one_line(tmp_path):
    made = recipe(tmp_path, {"saver": SAVER, "large": LARGE})
    pictures = colour_folders(tmp_path / "pictures", each=2)
    arguments = ("calibrate", made, "--data", pictures, "--out", tmp_path / "out", "--on", "ray")
    done = with_ray("-m", "tinysaver_edge", *arguments, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "--on ray: no Ray cluster answers at 127.0.0.1:1" in last
    assert "ray start --head" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("resources", "device", "slots"),
    [
        ({"CPU": 1.0}, None, [(1, 0)]),
        ({"CPU": 10.0}, "CPU", [(4, 0), (4, 0), (2, 0)]),
        ({"CPU": 16.0, "GPU": 2.0}, "CUDAExecutionProvider", [(4, 1), (4, 1)]),
        ({"CPU": 2.0, "GPU": 4.0}, "cuda:0", [(1, 1)] * 4),
        ({"CPU": 8.0}, "cuda", []),
        ({"GPU": 1.0}, None, []),
    ],
    ids=["one core", "ten cores", "two GPUs", "more GPUs than cores", "no GPU", "no core to spare"],
)
def test_a_node_has_room_for_so_many_workers(resources, device, slots):
    assert _slots(resources, device) == slots


@pytest.mark.parametrize("on", ["spark", "ray:10001", "RAY", "http://host"])
def test_another_cluster_is_refused(on):
    with pytest.raises(InputError, match="name 'ray'"):
        check_on(on)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n"),
            r"another version of Ray or Python.*Ray 2\.60\.0.*The cluster was started with: Ray: 2",
        ),
        (
            RuntimeError("Python minor versions differ between client and server"),
            "another version of Ray or Python",
        ),
        (ConnectionError("Failed to connect"), "no Ray cluster answers on this machine.*ray start"),
    ],
    ids=["cluster", "client", "nobody"],
)
def test_why_a_cluster_cannot_be_joined(monkeypatch, error, line):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.60.0"))
    said = _why_not_joined(error, "auto")
    assert re.search(line, said)
    assert "\n" not in said


def test_a_cluster_that_was_killed_is_not_waited_for(tmp_path, monkeypatch):
    """Ray notes where it runs and leaves the note behind; it would ask there for minutes."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    _check_answers("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9\n")
    with pytest.raises(OSError, match="refused"):
        _check_answers("auto")
