"""What has been used of energy: counters of NVIDIA's driver and of the processor (RAPL)."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.hardware.finding import ROOT, Finding, read, read_int

_POWERCAP = "sys/class/powercap"


class EnergyMeter(ABC):
    """A counter of energy that only grows.

    Attributes:
        source: which counter it is, and of what.
    """

    source: str

    @abstractmethod
    def joules(self) -> float:
        """Return what was used since some fixed moment.

        Raises:
            OSError: the counter is not to be read any more.
        """


@dataclass(frozen=True, slots=True)
class Meters:
    """The counters of a machine.

    Attributes:
        found: those that can be read.
        absent: those that cannot, with the reasons.
    """

    found: tuple[EnergyMeter, ...]
    absent: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Energy:
    """What one counter counted between two moments, idling included.

    Attributes:
        source: which counter.
        joules: energy.
        seconds: time between the readings.
    """

    source: str
    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0


class Metering:
    """Reads all of some counters between `__enter__` and `__exit__`.

        with Metering(open_meters().found) as metering:
            work()
        print(metering.used)

    Attributes:
        used: what each has counted; empty before the end.
    """

    def __init__(
        self, meters: Sequence[EnergyMeter], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._meters, self._clock = tuple(meters), clock
        self.used: tuple[Energy, ...] = ()

    def __enter__(self) -> Metering:
        self._before = [(meter.joules(), self._clock()) for meter in self._meters]
        return self

    def __exit__(self, *exception: object) -> None:
        self.used = tuple(
            Energy(meter.source, meter.joules() - joules, self._clock() - since_s)
            for meter, (joules, since_s) in zip(self._meters, self._before, strict=True)
        )


def open_meters(root: Path = ROOT) -> Meters:
    """Return the counters of the machine at hand, and why it lacks the others.

    Args:
        root: folder that stands for ``/``.
    """
    parts = (_nvml(), _rapl(root))
    return Meters(
        tuple(meter for part in parts for meter in part.found),
        tuple(finding for part in parts for finding in part.absent),
    )


class _NvmlMeter(EnergyMeter):
    """Energy of one GPU since its driver was loaded, its memory included.

    The driver brings the counter up to date some ten times a second: measure over seconds.
    """

    def __init__(self, nvml: Any, index: int) -> None:  # noqa: ANN401 - the module
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(self._handle)
        name = name.decode() if isinstance(name, bytes) else name
        self.source = f"NVML, GPU {index} ({name})"

    def joules(self) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise OSError(f"{self.source}: {error}") from error


def _nvml() -> Meters:
    def absent(reason: str) -> Meters:
        return Meters((), (Finding.absent("energy of GPUs (NVML)", reason),))

    try:
        import pynvml
    except ImportError:
        return absent("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
        meters = [_NvmlMeter(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return absent(f"the driver does not answer ({error})")
    if not meters:
        return absent("the driver lists no GPU")
    try:
        for meter in meters:
            meter.joules()
    except OSError as error:
        return absent(str(error))
    return Meters(tuple(meters), ())


class _RaplMeter(EnergyMeter):
    """Energy of one processor package, whose counter begins anew every few minutes or hours."""

    def __init__(self, root: Path, zone: str) -> None:
        self._root, self._path = root, f"{zone}/energy_uj"
        self._range_uj = read_int(root, f"{zone}/max_energy_range_uj") or 0
        self.source = f"RAPL, {read(root, f'{zone}/name') or zone}"
        self._last_uj, self._past_uj = self._now_uj(), 0

    def _now_uj(self) -> int:
        now = read_int(self._root, self._path)
        if now is None:
            raise OSError(f"/{self._path} cannot be read: it is root's alone since Linux 5.10")
        return now

    def joules(self) -> float:
        now = self._now_uj()
        if now < self._last_uj:
            self._past_uj += self._range_uj
        self._last_uj = now
        return (self._past_uj + now) / 1e6


def _rapl(root: Path) -> Meters:
    name = "energy of the processor (RAPL)"
    zones = sorted(
        path.name for path in (root / _POWERCAP).glob("intel-rapl:*") if path.name.count(":") == 1
    )
    if not zones:
        reason = f"/{_POWERCAP} has no intel-rapl: a virtual machine, or a processor without it"
        return Meters((), (Finding.absent(name, reason),))
    try:
        return Meters(tuple(_RaplMeter(root, f"{_POWERCAP}/{zone}") for zone in zones), ())
    except OSError as error:
        return Meters((), (Finding.absent(name, str(error)),))
