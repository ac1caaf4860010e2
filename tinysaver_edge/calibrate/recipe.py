"""Recipes: reads what a calibration is to do from a TOML file, by name or path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.calibrate.settings import Settings
from tinysaver_edge.calibrate.targets import Method, Objective, Reference
from tinysaver_edge.errors import RecipeError

__all__ = ["Settings", "load_recipe", "recipe_names"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TargetsTable(_Strict):
    """What is asked."""

    method: Method | None = None
    max_drop: float | None = None
    confidence: float | None = None
    objective: Objective | None = None
    reference: Reference | None = None
    score: str | None = None
    fusion: str | None = None
    device: str | None = None
    budgets: dict[str, float] = Field(default_factory=dict)


class _RecipeTable(_Strict):
    """A whole recipe.

    `models` holds descriptions, each with the model's ``file``, and of savers perhaps ``sizes`` and
    ``precisions``, each of which is a candidate of its own.
    """

    description: str = ""
    data: str | None = None
    group_column: str | None = None
    records: str | None = None
    labels: str | None = None
    groups: str | None = None
    macs: str | None = None
    large: str | None = None
    large_jpeg: int | None = None
    savers: list[str] = Field(default_factory=list)
    holdout: float | None = None
    seed: int | None = None
    skip_limit: float | None = None
    targets: _TargetsTable = Field(default_factory=_TargetsTable)
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load_recipe(recipe: str, *, root: Path | None = None) -> Settings:
    """Read a recipe.

    Args:
        recipe: path of a TOML file, or the name of one that this package ships.
        root: folder that its paths start at; its own folder where None.

    Raises:
        RecipeError: there is none, or a field is unknown or wrong.
    """
    path = _find(recipe)
    try:
        table = _RecipeTable.model_validate(_parse(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        unknown = first["type"] == "extra_forbidden"
        says = "no such key in a recipe; see calibration/README.md" if unknown else first["msg"]
        raise RecipeError(f"recipe {path}: {place}: {says}") from error
    base = path.parent if root is None else root
    if not base.is_dir():
        raise RecipeError(f"--root {base}: no such folder")
    targets = table.targets
    return Settings(
        data=_below(base, table.data),
        group_column=table.group_column,
        records=_below(base, table.records),
        labels=_below(base, table.labels),
        groups=_below(base, table.groups),
        macs=_below(base, table.macs),
        large=table.large,
        large_jpeg=table.large_jpeg,
        savers=tuple(table.savers),
        max_drop=targets.max_drop,
        budgets=tuple(f"{name}={value!r}" for name, value in targets.budgets.items()),
        method=targets.method and targets.method.value,
        objective=targets.objective and targets.objective.value,
        confidence=targets.confidence,
        reference=targets.reference and targets.reference.value,
        score=targets.score,
        fusion=targets.fusion,
        device=targets.device,
        holdout=table.holdout,
        seed=table.seed,
        skip_limit=table.skip_limit,
        models=table.models,
        root=base,
        source=f"recipe {path.name}",
        at_home=root is None,
    )


def recipe_names() -> list[str]:
    """Return the names of the recipes that this package ships."""
    return sorted(path.stem for path in calibration_dir().glob("*.toml"))


def _find(recipe: str) -> Path:
    path = Path(recipe)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise RecipeError(f"recipe {path}: no such file")
    shipped = calibration_dir() / f"{recipe}.toml"
    if "/" not in recipe and shipped.is_file():
        return shipped
    known = ", ".join(recipe_names()) or "none"
    raise RecipeError(f"recipe {recipe!r}: neither a .toml file nor one of {known}")


def _parse(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def _below(base: Path, name: str | None) -> Path | None:
    return None if name is None else base / name
