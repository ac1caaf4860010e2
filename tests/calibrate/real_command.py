"""The real command in a process of its own, and recipes and engine plug-ins for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.colours import NAMES, SIZE, Kind, colour_model

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from tinysaver_edge.cli import main; main()"

INPUT = f'{{ layout = "NCHW", dtype = "float32", color = "RGB", size = {SIZE}, scale = "unit" }}'


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The candidates by name."""
        return {row["saver"]: row for row in self.json["candidates"]}


def start(
    *arguments: object, path: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the command; `path` is a folder that its Python finds packages in."""
    paths = [str(one) for one in (path, ROOT) if one is not None]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
        # Tests in a shell's background ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: object, **options: Any) -> Done:
    """Run the command to its end."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def recipe(
    folder: Path, models: Mapping[str, Kind], fields: Mapping[str, str] | None = None
) -> Path:
    """Write models, the last of which is the large one, and a recipe of them.

    Args:
        folder: where to.
        models: by name.
        fields: more lines of TOML for some of the models.
    """
    names = list(models)
    lines = [f"savers = {json.dumps(names[:-1])}", f"large = {json.dumps(names[-1])}"]
    for name, kind in models.items():
        colour_model(folder / f"{name}.onnx", kind)
        lines += [
            f'[models."{name}"]',
            f'file = "{name}.onnx"',
            f"labels = {json.dumps(list(NAMES))}",
            f"input = {INPUT}",
            'output = { kind = "logits" }',
            (fields or {}).get(name, ""),
        ]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def plug_in(folder: Path, code: str) -> Path:
    """Install a package with one engine, class `Strange` of `code`, as pip would."""
    folder.mkdir()
    (folder / "strange_engine.py").write_text(code)
    about = folder / "strange_engine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[tinysaver_edge.engines]\nstrange = strange_engine:Strange\n"
    )
    return folder
