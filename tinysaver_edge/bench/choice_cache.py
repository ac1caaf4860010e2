"""Choice cache: the fastest engine for a model on this device, until a release changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge._support.files import default_cache_dir, write_text
from tinysaver_edge._version import __version__
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.report import machine
from tinysaver_edge.engines.registry import engine_version
from tinysaver_edge.hardware.nvidia import read_nvidia
from tinysaver_edge.hardware.profile import EngineChoice


def _device() -> Mapping[str, Any]:
    """Return what tells one device from another; the engines' releases are looked at apart."""
    driver = read_nvidia()
    told = {name: value for name, value in machine().items() if name != "engines"}
    return {**told, "driver": None if driver is None else driver.version}


@dataclass(frozen=True, slots=True)
class ChoiceCache:
    """Choices on disk, one file a model and device.

    Attributes:
        folder: where the files lie.
        device: returns what tells this device from others.
        release: returns the release of an engine that is installed, None where none is.
    """

    folder: Path
    device: Callable[[], Mapping[str, Any]] = _device
    release: Callable[[str], str | None] = engine_version

    @classmethod
    def default(cls) -> ChoiceCache | None:
        """Return the user's, or None where nothing can be written."""
        base = default_cache_dir()
        return None if base is None else cls(base / "engines")

    def read(
        self, model: Artefact, ways: Sequence[EngineChoice]
    ) -> tuple[Path, dict[str, Any]] | None:
        """Return the file and what was kept, None where anything that it rests on has changed."""
        path = self._path(model)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            same = content["key"] == self._key(model, ways)
            return (path, dict(content["chosen"])) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(
        self, model: Artefact, ways: Sequence[EngineChoice], chosen: Mapping[str, Any]
    ) -> None:
        """Keep a choice, in place of the one before it."""
        content = {"key": self._key(model, ways), "chosen": dict(chosen)}
        write_text(self._path(model), json.dumps(content, indent=1, default=str) + "\n")

    def _path(self, model: Artefact) -> Path:
        device = hashlib.sha256(repr(sorted(self.device().items())).encode()).hexdigest()
        return self.folder / f"{model.sha256[:16]}-{device[:16]}.json"

    def _key(self, model: Artefact, ways: Sequence[EngineChoice]) -> dict[str, Any]:
        """Return all else that a choice depends on, as JSON gives it back."""
        names = sorted({model.engine, *(way.engine for way in ways)})
        said = (model.preprocess, model.output, model.engine, model.options)
        key = {
            "created_by": f"tinysaver-edge {__version__}",
            "releases": {name: self.release(name) for name in names},
            "ways": [asdict(way) for way in ways],
            "model": hashlib.sha256(repr(said).encode()).hexdigest(),
        }
        found: dict[str, Any] = json.loads(json.dumps(key))
        return found
