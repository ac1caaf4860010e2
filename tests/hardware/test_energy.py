"""Counters of energy: what is read, what a counter that begins anew does, and why there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tinysaver_edge.hardware.energy import Energy, EnergyMeter, Metering, open_meters


def zone(root: Path, number: int, *, name: str = "package-0", energy_uj: int = 5_000_000) -> Path:
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text("10000000\n")
    return folder


@pytest.fixture(autouse=True)
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_machine_without_counters_says_why(tmp_path: Path) -> None:
    meters = open_meters(tmp_path)
    assert meters.found == ()
    reasons = {one.name: one.reason for one in meters.absent}
    assert "nvidia-ml-py is not installed" in reasons["energy of GPUs (NVML)"]
    assert "no intel-rapl" in reasons["energy of the processor (RAPL)"]


def test_rapl_counts_on_where_the_counter_begins_anew(tmp_path: Path) -> None:
    folder = zone(tmp_path, 0)
    zone(tmp_path, 1, name="package-1")
    (tmp_path / "sys/class/powercap/intel-rapl:0:0").mkdir()
    first, second = open_meters(tmp_path).found
    assert (first.source, second.source) == ("RAPL, package-0", "RAPL, package-1")
    before = first.joules()
    (folder / "energy_uj").write_text("9000000")
    assert first.joules() - before == pytest.approx(4.0)
    (folder / "energy_uj").write_text("1000000")
    assert first.joules() - before == pytest.approx(6.0)


def test_rapl_that_may_not_be_read(tmp_path: Path) -> None:
    (zone(tmp_path, 0) / "energy_uj").unlink()
    meters = open_meters(tmp_path)
    assert meters.found == ()
    assert "root's alone" in (meters.absent[-1].reason or "")


def test_a_counter_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    folder = zone(tmp_path, 0)
    (meter,) = open_meters(tmp_path).found
    (folder / "energy_uj").unlink()
    with pytest.raises(OSError, match="cannot be read"):
        meter.joules()


class Steady(EnergyMeter):
    """Counts 30 W by a clock that the test sets."""

    source = "steady"

    def __init__(self) -> None:
        self.now_s = 100.0

    def joules(self) -> float:
        return 30 * self.now_s


def test_metering_reads_before_and_after() -> None:
    meter = Steady()
    with Metering([meter], clock=lambda: meter.now_s) as metering:
        meter.now_s += 4
    assert metering.used == (Energy("steady", 120.0, 4.0),)
    assert metering.used[0].watts == 30
    assert Energy("none", 0.0, 0.0).watts == 0


class NVMLError(Exception):
    """The driver's."""


def nvml(monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    """Stand for nvidia-ml-py: what a driver with one GPU answers, but for what is given."""
    module = ModuleType("pynvml")
    answers = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"Card",
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 1_500,
    }
    for name, answer in (answers | functions).items():
        setattr(module, name, answer)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def failing(*given: object) -> None:
    raise NVMLError("Not Supported")


def test_nvml_counts_millijoules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml(monkeypatch)
    (meter,) = open_meters(tmp_path).found
    assert meter.source == "NVML, GPU 0 (Card)"
    assert meter.joules() == 1.5


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ({"nvmlInit": failing}, "the driver does not answer (Not Supported)"),
        ({"nvmlDeviceGetCount": lambda: 0}, "lists no GPU"),
        ({"nvmlDeviceGetTotalEnergyConsumption": failing}, "GPU 0 (Card): Not Supported"),
    ],
    ids=["no driver", "no GPU", "no counter"],
)
def test_nvml_that_does_not_count(monkeypatch, tmp_path: Path, functions, reason: str) -> None:
    nvml(monkeypatch, **functions)
    meters = open_meters(tmp_path)
    assert meters.found == ()
    assert reason in (meters.absent[0].reason or "")


@pytest.mark.skipif(not Path("/proc/driver/nvidia/version").exists(), reason="no NVIDIA driver")
def test_the_card_that_is_here_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml")
    pytest.importorskip("pynvml")
    meters = open_meters()
    found = [one for one in meters.found if one.source.startswith("NVML")]
    assert found, meters.absent
    assert found[0].joules() > 0
