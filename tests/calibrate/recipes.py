"""Recipes and engine plug-ins for the real command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.colours import NAMES, SIZE, Kind, colour_model

INPUT = f'{{ layout = "NCHW", dtype = "float32", color = "RGB", size = {SIZE}, scale = "unit" }}'


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
