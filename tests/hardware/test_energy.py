"""Counters of energy: what is read, what a counter that begins anew does, and why there is none."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from tinysaver_edge.hardware.energy import Energy, EnergyMeter, Metering, open_meters, total
from tinysaver_edge.testing import FakeClock


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
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_a_machine_without_counters_says_why(tmp_path: Path) -> None:
    meters = open_meters(tmp_path)
    assert meters.found == ()
    reasons = {one.name: one.reason for one in meters.absent}
    assert "neither nvidia-ml-py nor nvidia-smi" in reasons["energy of GPUs (NVML)"]
    assert "no Jetson" in reasons["energy of a board's rails"]
    assert all(reason in meters.why_none for reason in reasons.values())
    assert "\n" not in meters.why_none
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
    reason = {one.name: one.reason for one in meters.absent}["energy of the processor (RAPL)"]
    assert "root's alone" in (reason or "")
    assert "chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj" in (reason or "")


def test_what_the_platform_draws_is_not_counted_twice(tmp_path: Path) -> None:
    zone(tmp_path, 0)
    zone(tmp_path, 1, name="psys", energy_uj=9_000_000)
    assert [one.source for one in open_meters(tmp_path).found] == ["RAPL, package-0"]


def rails(root: Path, *, name: str = "ina3221", **milli: tuple[int, int]) -> Path:
    """A sensor as Jetson Linux 35 and 36 show it: millivolts and milliamperes of each rail."""
    folder = root / "sys/class/hwmon/hwmon3"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for number, (label, (voltage, current)) in enumerate(milli.items(), 1):
        (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text(f"{voltage}\n")
        (folder / f"curr{number}_input").write_text(f"{current}\n")
    return folder


def test_a_rail_of_the_whole_module_stands_for_those_within_it(tmp_path: Path) -> None:
    folder = rails(tmp_path, VDD_IN=(5000, 1000), VDD_CPU_GPU_CV=(5000, 400), VDD_SOC=(5000, 300))
    (folder / "in7_label").write_text("sum of shunt voltages")
    clock = FakeClock()
    with open_meters(tmp_path, clock=clock, every_s=60) as meters:
        (meter,) = meters.found
        assert meter.source == "INA3221, VDD_IN"
        assert meter.joules() == 0
        clock.advance(2)
        assert meter.joules() == pytest.approx(10)  # 5 V and 1 A for 2 s
        (folder / "curr1_input").write_text("3000")
        clock.advance(1)
        assert meter.joules() == pytest.approx(10 + (5 + 15) / 2)


def test_rails_side_by_side_are_added_up(tmp_path: Path) -> None:
    rails(tmp_path, VDD_GPU_SOC=(5000, 1000), VDD_CPU_CV=(5000, 400), NC=(0, 0))
    clock = FakeClock()
    with open_meters(tmp_path, clock=clock, every_s=60) as meters:
        (meter,) = meters.found
        assert meter.source == "INA3221, VDD_GPU_SOC + VDD_CPU_CV"
        meter.joules()
        clock.advance(1)
        assert meter.joules() == pytest.approx(7)


def test_rails_of_an_older_release_tell_milliwatts(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    folder.mkdir(parents=True)
    for number, (name, power) in enumerate({"POM_5V_IN": 4200, "POM_5V_GPU": 900}.items()):
        (folder / f"rail_name_{number}").write_text(name)
        (folder / f"in_power{number}_input").write_text(str(power))
    clock = FakeClock()
    with open_meters(tmp_path, clock=clock, every_s=60) as meters:
        (meter,) = meters.found
        meter.joules()
        clock.advance(10)
        assert meter.joules() == pytest.approx(42)
        (folder / "in_power0_input").unlink()
        with pytest.raises(OSError, match="in_power0_input cannot be read"):
            meter.joules()


def test_a_rail_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (rails(tmp_path, VDD_IN=(5000, 1000)) / "in1_input").unlink()
    meters = open_meters(tmp_path)
    assert meters.found == ()
    assert "hwmon3/in1_input cannot be read" in meters.why_none


def test_power_is_summed_up_while_nobody_asks(tmp_path: Path) -> None:
    folder = rails(tmp_path, VDD_IN=(5000, 1000))
    with open_meters(tmp_path, every_s=0.01) as meters:
        with Metering(meters.found) as metering:
            threading.Event().wait(0.2)
            (folder / "curr1_input").write_text("9000")
            threading.Event().wait(0.2)
        (used,) = metering.used
        # Had it looked at both ends only, the mean would be 25 W whatever came between.
        assert 5 * 0.2 + 45 * 0.15 < used.joules < 45 * used.seconds
    assert total(metering.used) == used
    assert total(()) is None


SMI = """#!/bin/sh
test "$1" = --query-gpu=index,name,power.draw || exit 9
printf '%s'
"""


def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """Stand for NVIDIA's program: it prints as that does."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI % told)
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))


def test_nvidia_smi_tells_the_power_where_nothing_counts(tmp_path, monkeypatch) -> None:
    smi(tmp_path, monkeypatch, "0, NVIDIA L4, 30.50\\n1, NVIDIA L4, 29.50\\n")
    clock = FakeClock()
    with open_meters(tmp_path, clock=clock) as meters:
        (meter,) = meters.found
        assert meter.source == "nvidia-smi, GPU 0 (NVIDIA L4), GPU 1 (NVIDIA L4)"
        meter.joules()
        clock.advance(2)
        assert meter.joules() == pytest.approx(120)


def test_a_card_that_does_not_tell_its_power(tmp_path, monkeypatch) -> None:
    smi(tmp_path, monkeypatch, "0, GeForce GT 710, [N/A]\\n")
    meters = open_meters(tmp_path)
    assert meters.found == ()
    assert "nvidia-smi does not tell the power" in meters.why_none


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
