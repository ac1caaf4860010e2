"""An installed package that brings engines, scores, sources or sinks, as pip would leave it."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    brought: Mapping[str, str],
    *,
    package: str = "others",
) -> None:
    """Install a package whose modules lie in a folder.

    Args:
        folder: from which it is imported.
        kind: the last word of the group of entry points.
        brought: what stands for a name, as ``module:attribute``.
        package: what it is called.
    """
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[tinysaver_edge.{kind}]", *(f"{name} = {of}" for name, of in brought.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
