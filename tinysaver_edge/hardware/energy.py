"""What has been used of energy: the processor's counter (RAPL), NVIDIA's driver, a Jetson's rails.

RAPL and NVML count energy themselves. A Jetson's rails and `nvidia-smi` tell only the power of the
moment, which is read again and again and summed up here.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge.hardware.finding import ROOT, Finding, read, read_int

if TYPE_CHECKING:
    from typing_extensions import Self

_POWERCAP = "sys/class/powercap"

SAMPLED_S = 0.1
"""How often the power of the moment is read where nothing counts energy."""

_WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN")
"""Rails of a Jetson that feed the whole module: what the others tell is in them."""


class EnergyMeter(ABC):
    """A counter of energy that only grows."""

    source: str

    @abstractmethod
    def joules(self) -> float:
        """Return what was used since some fixed moment.

        Raises:
            OSError: the counter is not to be read any more.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of it. Legal in every state."""


@dataclass(frozen=True, slots=True)
class Meters:
    """The counters of a machine."""

    found: tuple[EnergyMeter, ...]
    absent: tuple[Finding, ...]

    @property
    def why_none(self) -> str:
        """Why those that are absent are, in one line."""
        return "; ".join(f"{one.name}: {one.reason}" for one in self.absent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for meter in self.found:
            meter.close()


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


def total(used: Sequence[Energy]) -> Energy | None:
    """Return what several counters of one machine counted together; None where there are none."""
    if not used:
        return None
    return Energy(
        "; ".join(one.source for one in used),
        sum(one.joules for one in used),
        max(one.seconds for one in used),
    )


def open_meters(
    root: Path = ROOT, *, clock: Callable[[], float] = time.monotonic, every_s: float = SAMPLED_S
) -> Meters:
    """Return the counters of the machine at hand, and why it lacks the others.

    No two of them count the same energy, so that their sum is what they tell of together.

    Args:
        root: folder that stands for ``/``.
        clock: seconds, for what is summed up here.
        every_s: seconds between readings of power.
    """
    parts = (_nvidia(clock), _rapl(root), _rails(root, clock, every_s))
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


def _absent_gpu(reason: str) -> Meters:
    return Meters((), (Finding.absent("energy of GPUs (NVML)", reason),))


def _nvidia(clock: Callable[[], float]) -> Meters:
    """Return the GPUs' own counters, else their power as `nvidia-smi` tells it."""
    try:
        import pynvml
    except ImportError:
        return _smi(clock)
    return _nvml(pynvml)


def _nvml(pynvml: Any) -> Meters:  # noqa: ANN401 - the module
    absent = _absent_gpu
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
            raise OSError(
                f"/{self._path} cannot be read: it is root's alone since Linux 5.10; as root, "
                f"chmod a+r /{self._path} lets others, until the next start"
            )
        return now

    def joules(self) -> float:
        now = self._now_uj()
        if now < self._last_uj:
            self._past_uj += self._range_uj
        self._last_uj = now
        return (self._past_uj + now) / 1e6


def _rapl(root: Path) -> Meters:
    name = "energy of the processor (RAPL)"
    zones = [
        path.name
        for path in sorted((root / _POWERCAP).glob("intel-rapl:*"))
        # What the whole platform draws has the packages in it, and few machines tell it.
        if path.name.count(":") == 1 and read(root, f"{_POWERCAP}/{path.name}/name") != "psys"
    ]
    if not zones:
        reason = f"/{_POWERCAP} has no intel-rapl: a virtual machine, or a processor without it"
        return Meters((), (Finding.absent(name, reason),))
    try:
        return Meters(tuple(_RaplMeter(root, f"{_POWERCAP}/{zone}") for zone in zones), ())
    except OSError as error:
        return Meters((), (Finding.absent(name, str(error)),))


class _Summed(EnergyMeter):
    """Sums up power that is read again and again, from the first call of `joules` on.

    Between two readings the power is taken for the mean of both.

    Args:
        source: what is read.
        watts: reads it, or raises `OSError`.
        clock: seconds.
        every_s: seconds between readings.
    """

    def __init__(
        self, source: str, watts: Callable[[], float], clock: Callable[[], float], every_s: float
    ) -> None:
        self.source = source
        self._watts, self._clock, self._every_s = watts, clock, every_s
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._joules = 0.0
        self._last: tuple[float, float] | None = None
        watts()

    def joules(self) -> float:
        with self._lock:
            if self._last is None and not self._ended.is_set():
                threading.Thread(target=self._go_on, name="power", daemon=True).start()
            self._read()
            return self._joules

    def close(self) -> None:
        self._ended.set()

    def _read(self) -> None:
        watts, now_s = self._watts(), self._clock()
        if self._last is not None:
            before, since_s = self._last
            self._joules += (before + watts) / 2 * max(0.0, now_s - since_s)
        self._last = (watts, now_s)

    def _go_on(self) -> None:
        while not self._ended.wait(self._every_s):
            with self._lock:
                try:
                    self._read()
                except OSError:  # who asks for the sum is told
                    continue


def _rails(root: Path, clock: Callable[[], float], every_s: float) -> Meters:
    """Return what the sensors on a Jetson's rails (INA3221) tell."""
    rails = _rails_of(root)
    name = "energy of a board's rails"
    if not rails:
        reason = "no INA3221 in /sys/class/hwmon or /sys/bus/i2c/drivers/ina3221x: no Jetson"
        return Meters((), (Finding.absent(name, reason),))
    whole = {label: files for label, files in rails.items() if label in _WHOLE}
    used = whole or rails

    def watts() -> float:
        return sum(_milliwatts(root, files) for files in used.values()) / 1e3

    try:
        meter = _Summed(f"INA3221, {' + '.join(used)}", watts, clock, every_s)
    except OSError as error:
        return Meters((), (Finding.absent(name, str(error)),))
    return Meters((meter,), ())


def _rails_of(root: Path) -> dict[str, tuple[str, ...]]:
    """Return each rail's files by its name: of its power in mW, or of voltage (mV) and current."""
    found: dict[str, tuple[str, ...]] = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if not (read(root, f"{folder.relative_to(root)}/name") or "").startswith("ina3221"):
            continue
        for path in sorted(folder.glob("curr*_input")):
            number = path.name.removeprefix("curr").removesuffix("_input")
            place = str(folder.relative_to(root))
            label = read(root, f"{place}/in{number}_label")
            # The channels beyond the three that are wired sum them up, or are connected to nothing.
            if label and label != "NC" and number in ("1", "2", "3"):
                found[label] = (f"{place}/in{number}_input", f"{place}/curr{number}_input")
    for path in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        number, place = path.name[-1], str(path.parent.relative_to(root))
        if label := read(root, f"{place}/{path.name}"):
            found[label] = (f"{place}/in_power{number}_input",)
    return found


def _milliwatts(root: Path, files: Sequence[str]) -> float:
    values = []
    for path in files:
        value = read_int(root, path)
        if value is None:
            raise OSError(f"/{path} cannot be read")
        values.append(value)
    return float(values[0]) if len(values) == 1 else values[0] * values[1] / 1e3


def _smi(clock: Callable[[], float]) -> Meters:
    """Return the GPUs' power as `nvidia-smi` tells it, once a second since each call takes long."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return _absent_gpu(
            "neither nvidia-ml-py nor nvidia-smi is installed: pip install nvidia-ml-py"
        )

    def told() -> list[list[str]]:
        query = ["--query-gpu=index,name,power.draw", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(
                [program, *query], capture_output=True, text=True, timeout=5.0, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise OSError(f"nvidia-smi does not tell the power ({error})") from error
        return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]

    def watts() -> float:
        try:
            return sum(float(words[-1]) for words in told())
        except ValueError as error:  # "[N/A]"
            raise OSError(f"nvidia-smi does not tell the power ({error})") from error

    try:
        names = ", ".join(f"GPU {words[0]} ({words[1]})" for words in told() if len(words) == 3)
        return Meters((_Summed(f"nvidia-smi, {names}", watts, clock, 1.0),), ())
    except OSError as error:
        return _absent_gpu(str(error))
