"""The commands `devices` and `doctor`, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from tinysaver_edge.cli import main; main()"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a home of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)]),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_list(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["devices"]
    assert "raspberry-pi-5" in {one["name"] for one in listed}
    assert "raspberry-pi-5" in (done.stdout + done.stderr)


def test_show_keeps_square_brackets(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "show", "jetson-orin-nano")
    assert done.returncode == 0, done.stderr
    assert "pip install '" in done.stdout
    assert "[jetson]'" in done.stdout
    assert "not verified on hardware" in (done.stdout + done.stderr)


def test_show_an_unknown_device_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "show", "rasberrypi5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "raspberry-pi-5" in done.stderr


BAD = 'name = "bad"\ndescription = "x"\nkind = "toaster"\n'
SAYS = "bad.toml: kind: Input should be 'board', 'jetson', 'computer' or 'server'"


def test_a_wrong_profile_of_ones_own_costs_a_line_and_not_the_others(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "bad.toml").write_text(BAD)
    listed = run(tmp_path, "devices", "list", "--devices-dir", str(own), "--json")
    assert listed.returncode == 0
    assert [line for line in (listed.stdout + listed.stderr).splitlines() if SAYS in line]
    assert len(json.loads(listed.stdout)["devices"]) >= 13
    for asked in (["bad", "--devices-dir", str(own)], [str(own / "bad.toml")]):
        shown = run(tmp_path, "devices", "show", *asked)
        assert (shown.returncode, shown.stderr.count("\n")) == (2, 1)
        assert SAYS in shown.stderr


@pytest.mark.slow
def test_probe(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "probe", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    engines = next(one for one in found["sections"] if one["title"] == "engines")
    told = {one["name"]: one for one in engines["findings"]}
    assert told["onnxruntime, CPUExecutionProvider"]["value"].startswith("runs a model")
    assert all("value" in one or one["reason"] for one in engines["findings"])


@pytest.mark.slow
def test_a_new_profile_is_found_by_name(tmp_path: Path) -> None:
    made = run(tmp_path, "devices", "new", "my-box")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "config" / "tinysaver-edge" / "devices" / "my-box.toml"
    assert str(path) in made.stderr
    shown = run(tmp_path, "devices", "show", "my-box", "--json")
    assert json.loads(shown.stdout)["path"] == str(path)
    again = run(tmp_path, "devices", "new", "my-box")
    assert again.returncode == 2
    assert "--force" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["My-Box"], "small letters"),
        (["my-box", "--out", "other.toml"], "must be called my-box.toml"),
    ],
)
def test_a_new_profile_under_a_wrong_name(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(tmp_path, "devices", "new", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_doctor_is_content_here_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["healthy"] is True
    assert "nothing is broken" in (done.stdout + done.stderr)


@pytest.mark.slow
def test_doctor_exits_with_2_where_something_is_broken(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = run(tmp_path, "doctor", "--json")
    assert done.returncode == 2
    broken = [one for one in json.loads(done.stdout)["checks"] if one["state"] == "broken"]
    assert [one["name"] for one in broken] == ["cache folder"]
    assert "mend: cache folder" in (done.stdout + done.stderr)
