"""A few hundred mutants of everything that is read; `make fuzz` feeds ten thousand of each."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

NEEDS = {"http_answers": "tritonclient"}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_read_is_answered_or_refused_in_a_line(name, tmp_path):
    if find_spec(NEEDS.get(name, "json")) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.driver", name, "--mutants", "250", "--keep", tmp_path],
        capture_output=True, text=True, timeout=300, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "250 mutants" in done.stdout
    assert ", 0 findings" in done.stdout


def test_the_same_seed_gives_the_same_mutants():
    seeds = [b'{"a": [1, {"b": null}], "c": "text"}', bytes(range(200))]
    one, other, third = Mutator(3), Mutator(3), Mutator(4)
    first = [one.mutant(seeds) for _ in range(200)]
    assert first == [other.mutant(seeds) for _ in range(200)]
    assert first != [third.mutant(seeds) for _ in range(200)]
    assert len(set(first)) > 150


def test_the_driver_finds_what_it_looks_for(tmp_path, monkeypatch):
    from tests.fuzz import driver
    from tests.fuzz.targets import Target
    from tinysaver_edge.errors import InputError

    def feed(data: bytes) -> None:
        if data.startswith(b"\0"):
            raise IndexError("no such place")
        if data != b"good":
            raise InputError("refused")

    monkeypatch.setitem(driver.TARGETS, "picky", lambda folder: Target([b"good"], feed))
    found = driver.run("picky", mutants=500, seed=0, keep=tmp_path)
    assert found.mutants == 500
    assert len(found.told) == 1
    (told,) = found.told.values()
    assert "IndexError" in told
    assert Path(told.partition(":")[0]).read_bytes().startswith(b"\0")
