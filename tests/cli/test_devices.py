"""The commands `devices` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Done, called, spawned


def run(folder: Path, *arguments: str) -> Done:
    """Run the command line with a home of its own, in this process."""
    homes = {"XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    return called(
        *arguments, environment={name: str(folder / place) for name, place in homes.items()}
    )


def test_list_in_a_process_of_its_own() -> None:
    done = spawned("devices", "list", "--json")
    assert done.code == 0, done.err
    listed = json.loads(done.out)["devices"]
    assert "raspberry-pi-5" in {one["name"] for one in listed}
    assert "raspberry-pi-5" in (done.out + done.err)


def test_show_keeps_square_brackets(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "show", "jetson-orin-nano")
    assert done.code == 0, done.err
    assert "pip install '" in done.out
    assert "[jetson]'" in done.out
    assert "not verified on hardware" in (done.out + done.err)


def test_show_an_unknown_device_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "show", "rasberrypi5")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "raspberry-pi-5" in done.err


BAD = 'name = "bad"\ndescription = "x"\nkind = "toaster"\n'
SAYS = "bad.toml: kind: Input should be 'board', 'jetson', 'computer' or 'server'"


def test_a_wrong_profile_of_ones_own_costs_a_line_and_not_the_others(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "bad.toml").write_text(BAD)
    listed = run(tmp_path, "devices", "list", "--devices-dir", str(own), "--json")
    assert listed.code == 0
    assert [line for line in (listed.out + listed.err).splitlines() if SAYS in line]
    assert len(json.loads(listed.out)["devices"]) >= 13
    for asked in (["bad", "--devices-dir", str(own)], [str(own / "bad.toml")]):
        shown = run(tmp_path, "devices", "show", *asked)
        assert (shown.code, shown.err.count("\n")) == (2, 1)
        assert SAYS in shown.err


@pytest.mark.slow
def test_probe(tmp_path: Path) -> None:
    done = run(tmp_path, "devices", "probe", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    engines = next(one for one in found["sections"] if one["title"] == "engines")
    told = {one["name"]: one for one in engines["findings"]}
    assert told["onnxruntime, CPUExecutionProvider"]["value"].startswith("runs a model")
    assert all("value" in one or one["reason"] for one in engines["findings"])


@pytest.mark.slow
def test_a_new_profile_is_found_by_name(tmp_path: Path) -> None:
    made = run(tmp_path, "devices", "new", "my-box")
    assert made.code == 0, made.err
    path = tmp_path / "config" / "tinysaver-edge" / "devices" / "my-box.toml"
    assert str(path) in made.err
    shown = run(tmp_path, "devices", "show", "my-box", "--json")
    assert json.loads(shown.out)["path"] == str(path)
    again = run(tmp_path, "devices", "new", "my-box")
    assert again.code == 2
    assert "--force" in again.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["My-Box"], "small letters"),
        (["my-box", "--out", "other.toml"], "must be called my-box.toml"),
    ],
)
def test_a_new_profile_under_a_wrong_name(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(tmp_path, "devices", "new", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_doctor_is_content_here_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["healthy"] is True
    assert "nothing is broken" in (done.out + done.err)


@pytest.mark.slow
def test_doctor_exits_with_2_where_something_is_broken(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = run(tmp_path, "doctor", "--json")
    assert done.code == 2
    broken = [one for one in json.loads(done.out)["checks"] if one["state"] == "broken"]
    assert [one["name"] for one in broken] == ["cache folder"]
    assert "mend: cache folder" in (done.out + done.err)
