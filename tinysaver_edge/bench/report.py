"""Reports: what was measured and on which machine, kept as JSON beside the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import write_text
from tinysaver_edge._version import __version__
from tinysaver_edge.bench.bundle import BundleBench
from tinysaver_edge.bench.model import ModelBench
from tinysaver_edge.bench.sustained import Sustained
from tinysaver_edge.engines.registry import engine_names, engine_version
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.hardware.jetson import read_board, read_jetson
from tinysaver_edge.hardware.memory import read_memory
from tinysaver_edge.hardware.system_files import ROOT

if TYPE_CHECKING:
    from tinysaver_edge.bench.engine_choice import Chosen

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured.

    Attributes:
        subject: path of the model or bundle.
        measured_at: when, as ISO 8601 in UTC.
        frames: what it was measured with, in words.
        pause_s: idleness before each run, in seconds.
        machine: which processor, memory, engines.
        stages: each model apart.
        bundle: the whole, or None where a model alone was measured.
        sustained: a long run, or None where none was asked for.
        chosen: how the engine was chosen, or None where it was not.
    """

    subject: str
    measured_at: str
    frames: str
    pause_s: float
    machine: Mapping[str, Any]
    stages: tuple[ModelBench, ...]
    bundle: BundleBench | None = None
    sustained: Sustained | None = None
    chosen: Chosen | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        whole = self.bundle
        return {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"tinysaver-edge {__version__}",
            "subject": self.subject,
            "measured_at": self.measured_at,
            "frames": self.frames,
            "pause_s": self.pause_s,
            "machine": dict(self.machine),
            "stages": [one.to_dict() for one in self.stages],
            "load_s": None if whole is None else whole.load_s,
            "end_to_end": None if whole is None else whole.end_to_end.to_dict(),
            "sustained": None if self.sustained is None else self.sustained.to_dict(),
            "engine_choice": None if self.chosen is None else self.chosen.to_dict(),
        }

    def write(self, path: Path) -> None:
        """Write it as JSON, replacing an older one."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def machine(root: Path = ROOT) -> dict[str, Any]:
    """Return what tells one machine from another: processor, memory, power mode, engines."""
    cpu, memory, jetson = read_cpu(root), read_memory(root), read_jetson(root)
    releases = {name: engine_version(name) for name in engine_names()}
    return {
        "board": read_board(root),
        "processor": None if cpu is None else cpu.model,
        "threads": None if cpu is None else cpu.threads,
        "memory_mb": None if memory is None else memory.usable_mb,
        "power_mode": None if jetson is None else jetson.power_mode,
        "engines": {name: release for name, release in releases.items() if release is not None},
    }


def report_path(bundle: Path) -> Path:
    """Return where a bundle's report lies: beside it, as ``NAME.bench.json``."""
    name = bundle.resolve().name
    return bundle.resolve().with_name(f"{name.removesuffix('.zip')}.bench.json")
