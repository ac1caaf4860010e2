"""Device profiles: those that ship, a user's own, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hardware import systems
from tinysaver_edge._support.resources import devices_dir
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import RecipeError
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.hardware.nvidia import read_board
from tinysaver_edge.hardware.profile import (
    DeviceKind,
    load_profile,
    profile_files,
    read_profile,
)
from tinysaver_edge.latency import LatencySource

SHIPPED = sorted(path.stem for path in devices_dir().glob("*.toml"))

MINE = """
name = "mine"
description = "A box."
kind = "computer"
boards = ["Box 3"]
memory_mb = 512

[[engines]]
engine = "openvino"
device = "GPU"
precision = "float16"

[[engines]]
engine = "openvino"
device = "CPU"

[[latencies]]
model = "resnet56"
engine = "openvino"
device = "CPU"
mean_ms = 3.5
source = "a note"

[budgets]
p95_latency_ms = 20

[verified]
on_hardware = false
"""


@pytest.fixture(autouse=True)
def _no_profiles_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def written(folder: Path, text: str = MINE, name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_all_kinds_of_devices_that_were_promised_ship() -> None:
    assert set(SHIPPED) >= {
        "core-ultra-cpu",
        "core-ultra-igpu",
        "core-ultra-npu",
        "generic-arm64",
        "generic-x86",
        "gpu-server",
        "intel-n100",
        "jetson-agx-orin",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "jetson-thor",
        "raspberry-pi-4",
        "raspberry-pi-5",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_whole(name: str) -> None:
    profile = load_profile(name)
    assert profile.setup, "without set-up steps it is of little use"
    assert all(fact.source for fact in profile.published)
    for choice in profile.engines:
        assert engine_class(choice.engine).accepts_device(choice.device)
    verified = profile.verified
    assert verified.on_hardware == bool(verified.ran)
    assert verified.on_hardware or verified.not_run, "say what nobody has run"
    assert json.loads(json.dumps(profile.to_dict()))["name"] == name


def test_half_of_the_memory_is_the_budget_where_the_memory_is_known() -> None:
    for name in SHIPPED:
        profile = load_profile(name)
        if profile.memory_mb is not None:
            assert profile.budgets["memory_mb"] == profile.memory_mb / 2


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (systems.raspberry_pi_5, "raspberry-pi-5"),
        (systems.jetson_orin_nano, "jetson-orin-nano"),
        (systems.intel_n100, "intel-n100"),
    ],
    ids=["Pi 5", "Orin Nano", "N100"],
)
def test_a_system_finds_its_profile_and_no_other(tmp_path: Path, system, name: str) -> None:
    root = system(tmp_path)
    cpu = read_cpu(root)
    assert cpu is not None
    fitting = [one for one in SHIPPED if load_profile(one).fits(read_board(root), cpu.model)]
    assert fitting == [name]


def test_a_profile_by_path_by_folder_and_of_the_users_own(tmp_path: Path) -> None:
    path = written(tmp_path / "here")
    assert load_profile(str(path)).path == path
    assert load_profile("mine", folders=[tmp_path / "here"]).path == path
    with pytest.raises(RecipeError, match="'mine'"):
        load_profile("mine")
    own = written(tmp_path / "config" / "tinysaver-edge" / "devices")
    assert load_profile("mine").path == own
    assert load_profile("mine", folders=[tmp_path / "here"]).path == path


def test_ones_own_profile_stands_before_a_shipped_one(tmp_path: Path) -> None:
    text = MINE.replace('"mine"', '"generic-x86"')
    own = written(tmp_path / "config" / "tinysaver-edge" / "devices", text, "generic-x86")
    assert load_profile("generic-x86").path == own
    assert profile_files()["generic-x86"] == own


def test_what_a_profile_says(tmp_path: Path) -> None:
    profile = load_profile(str(written(tmp_path)))
    assert profile.kind is DeviceKind.COMPUTER
    assert dict(profile.budgets) == {"p95_latency_ms": 20.0}
    assert [one.precision for one in profile.engines] == ["float16", "float32"]
    assert profile.fits(None, "Box 3 rev 2")
    assert not profile.fits("Box 4", None)


def test_a_published_latency_stays_marked(tmp_path: Path) -> None:
    profile = load_profile(str(written(tmp_path)))
    found = profile.latency_of("resnet56")
    assert found is not None
    assert (found.mean_ms, found.source) == (3.5, LatencySource.PUBLISHED)
    assert profile.latency_of("resnet20") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('kind = "computer"', 'kind = "toaster"'), "kind: "),
        (('name = "mine"', 'name = "yours"'), "name: is 'yours'"),
        (("p95_latency_ms = 20", "p95_latency = 20"), "budgets.p95_latency: Extra"),
        (("p95_latency_ms = 20", "p95_latency_ms = -1"), "budgets.p95_latency_ms: "),
        (("p95_latency_ms = 20", "escalation_rate = 2"), "budgets.escalation_rate: "),
        (('precision = "float16"', 'precision = "int4"'), "engines.0.precision: "),
        (('source = "a note"', ""), "latencies.0.source: Field required"),
        (("memory_mb = 512", "memory_mb = 512 MB"), "mine.toml: "),
        (("[verified]\non_hardware = false", ""), "verified: Field required"),
    ],
    ids=lambda value: value[1].split(" =")[0] if isinstance(value, tuple) else None,
)
def test_a_wrong_field_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    assert change[0] in MINE
    with pytest.raises(RecipeError) as caught:
        read_profile(written(tmp_path, MINE.replace(*change)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="raspberry-pi-5"):
        load_profile("rasberrypi5")
    with pytest.raises(RecipeError, match="no such file"):
        load_profile("nowhere/box.toml")
