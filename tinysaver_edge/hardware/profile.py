"""Device profiles: what is known of a kind of device, from `devices/*.toml` or a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinysaver_edge._support.files import read_toml
from tinysaver_edge._support.resources import devices_dir, user_dir
from tinysaver_edge.errors import RecipeError
from tinysaver_edge.latency import LatencySamples

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


PrecisionName = Literal["float32", "tf32", "float16", "bfloat16"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineTable(_Strict):
    """One way to run models on the device."""

    engine: Text
    device: Text
    precision: PrecisionName = "float32"
    note: str = ""


class Fact(_Strict):
    """Something that somebody has published about the device, and where."""

    fact: Text
    source: Text


class PublishedLatency(_Strict):
    """How many milliseconds a frame a model takes on the device, and by whose word.

    Attributes:
        model: name of the model.
        engine: name of the engine.
        device: device string.
        precision: arithmetic.
        mean_ms: milliseconds a frame.
        source: whose word it is.
    """

    model: Text
    engine: Text
    device: Text
    precision: PrecisionName = "float32"
    mean_ms: Positive
    source: Text


class BudgetsTable(_Strict):
    """Limits in force on the device unless others are asked for; named as on the command line."""

    mean_macs: Positive | None = None
    mean_latency_ms: Positive | None = None
    p95_latency_ms: Positive | None = None
    p99_latency_ms: Positive | None = None
    escalation_rate: Fraction | None = None
    memory_mb: Positive | None = None
    mean_energy_mj: Positive | None = None
    uplink_kbit: Positive | None = None


class MeasuredLatency(_Strict):
    """How long a model took on the device itself, one frame at a time, who saw it, and when.

    Attributes:
        model: name of the model.
        engine: name of the engine.
        version: the engine's.
        device: device string.
        precision: arithmetic.
        latency_ms: milliseconds a frame, one at a time.
        machine: which one of that kind.
        who: whose measurement it is.
        when: its day.
    """

    model: Text
    engine: Text
    version: Text
    device: Text
    precision: PrecisionName = "float32"
    latency_ms: Positive
    machine: Text
    who: Text
    when: date


class Verified(_Strict):
    """What somebody ran on the device itself, with versions and figures, and what nobody has."""

    on_hardware: bool
    measured: tuple[MeasuredLatency, ...] = ()
    ran: tuple[Text, ...] = ()
    not_run: tuple[Text, ...] = ()


class SetupTable(_Strict):
    """How to set such a device up."""

    steps: list[Text] = Field(default_factory=list)


class ProfileTable(_Strict):
    """A whole profile."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: Text
    kind: Literal["board", "jetson", "computer", "server"]
    boards: list[Text] = Field(default_factory=list)
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    power_w: Positive | None = None
    engines: Annotated[list[EngineTable], Field(min_length=1)]
    published: tuple[Fact, ...] = ()
    latencies: tuple[PublishedLatency, ...] = ()
    budgets: BudgetsTable = Field(default_factory=BudgetsTable)
    setup: SetupTable = Field(default_factory=SetupTable)
    verified: Verified


class DeviceKind(str, Enum):
    """What sort of machine it is."""

    BOARD = "board"
    JETSON = "jetson"
    COMPUTER = "computer"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """One way to run models on a device.

    Attributes:
        precision: arithmetic; a threshold is valid for the one it was calibrated at.
        note: what to know about it.
    """

    engine: str
    device: str
    precision: str = "float32"
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What is known of a kind of device.

    Attributes:
        name: the file's name without ``.toml``.
        description: one sentence.
        kind: board, jetson, computer or server.
        boards: parts of what such a device calls its board or processor.
        memory_mb: memory in MiB of the smallest of its variants, or None.
        power_w: the most that it draws, in watts, or None.
        engines: ways to run models, the best first.
        published: facts and their sources.
        latencies: published latencies.
        budgets: limits unless others are asked for, by the command line's names.
        setup: what to do to set it up, in order.
        verified: what was run on it.
        path: the file.
    """

    name: str
    description: str
    kind: DeviceKind
    boards: tuple[str, ...]
    memory_mb: int | None
    power_w: float | None
    engines: tuple[EngineChoice, ...]
    published: tuple[Fact, ...]
    latencies: tuple[PublishedLatency, ...]
    budgets: Mapping[str, float]
    setup: tuple[str, ...]
    verified: Verified
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "kind": self.kind.value,
            "memory_mb": self.memory_mb,
            "power_w": self.power_w,
            "engines": [asdict(one) for one in self.engines],
            "published": [one.model_dump() for one in self.published],
            "latencies": [one.model_dump() for one in self.latencies],
            "budgets": dict(self.budgets),
            "setup": list(self.setup),
            "verified": self.verified.model_dump(mode="json"),
            "path": str(self.path),
        }

    def latency_of(self, model: str) -> LatencySamples | None:
        """Return a model's published latency with the best engine that has one, marked as such."""
        for choice in self.engines:
            for one in self.latencies:
                here = (one.engine, one.device, one.precision)
                if one.model == model and here == (choice.engine, choice.device, choice.precision):
                    return LatencySamples.published(one.mean_ms)
        return None

    def fits(self, *names: str | None) -> bool:
        """Whether a device that calls its board or processor so is of this kind."""
        return any(part in name for part in self.boards for name in names if name)


def load_profile(device: str, *, folders: Sequence[Path] = ()) -> DeviceProfile:
    """Read a device profile.

    Args:
        device: path of a ``.toml`` file, or a name.
        folders: looked through for a name before the user's own folder and those that ship.

    Raises:
        RecipeError: there is none of that name, or a field is missing, unknown or wrong.
    """
    path = Path(device)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"device profile {path}: no such file")
        return read_profile(path)
    files = profile_files(folders=folders)
    if device in files:
        return read_profile(files[device])
    near = get_close_matches(device, files, n=3, cutoff=0.4)
    raise RecipeError(
        f"device {device!r}: neither a .toml file nor a profile; "
        f"{'nearest are' if near else 'known are'} {', '.join(near or files)}"
    )


def profile_files(*, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the files of all profiles by name, a user's own over those that ship."""
    found: dict[str, Path] = {}
    for folder in (*folders, user_devices_dir(), devices_dir()):
        for path in [] if folder is None else sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def user_devices_dir() -> Path | None:
    """Return the folder of a user's own profiles; None for a user without a home."""
    folder = user_dir("XDG_CONFIG_HOME", ".config")
    return None if folder is None else folder / "devices"


def read_profile(path: Path) -> DeviceProfile:
    """Read one profile.

    Raises:
        RecipeError: it cannot be read, or a field is missing, unknown or wrong.
    """
    try:
        table = ProfileTable.model_validate(_parse(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(f"device profile {path}: {place}: {first['msg']}") from error
    if table.name != path.stem:
        raise RecipeError(f"device profile {path}: name: is {table.name!r}, not the file's")
    budgets = {name: value for name, value in table.budgets if value is not None}
    return DeviceProfile(
        name=table.name,
        description=table.description,
        kind=DeviceKind(table.kind),
        boards=tuple(table.boards),
        memory_mb=table.memory_mb,
        power_w=table.power_w,
        engines=tuple(EngineChoice(**one.model_dump()) for one in table.engines),
        published=table.published,
        latencies=table.latencies,
        budgets=MappingProxyType(budgets),
        setup=tuple(table.setup.steps),
        verified=table.verified,
        path=path,
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"device profile {path}: {error}") from error
