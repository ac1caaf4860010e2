"""Settings: what a recipe asks for, and the command line's flags over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tinysaver_edge.calibrate.plan import Plan
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.data import DataSource
from tinysaver_edge.errors import InputError, RecipeError


@dataclass(frozen=True, slots=True)
class Settings:
    """What a recipe and flags ask for, before any file is looked at; None where nothing is said.

    Attributes:
        models: descriptions by model name, each with its ``file``.
        root: folder that the recipe's paths start at.
        source: the recipe, for messages.
        at_home: whether the data is to lie beside the recipe, nobody having said otherwise.
    """

    data: Path | DataSource | None = None
    group_column: str | None = None
    independent: bool = False
    trust_labels: bool = False
    records: Path | None = None
    labels: Path | None = None
    groups: Path | None = None
    macs: Path | None = None
    large: str | None = None
    large_jpeg: int | None = None
    savers: tuple[str, ...] = ()
    descriptions: Path | None = None
    engine: str | None = None
    sizes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    max_drop: float | None = None
    budgets: tuple[str, ...] = ()
    method: str | None = None
    objective: str | None = None
    confidence: float | None = None
    reference: str | None = None
    score: str | None = None
    fusion: str | None = None
    device: str | None = None
    compare_methods: bool = False
    no_report: bool = False
    holdout: float | None = None
    seed: int | None = None
    skip_limit: float | None = None
    time_budget: float | None = None
    work_dir: Path | None = None
    no_timing: bool = False
    bench: tuple[Path, ...] = ()
    no_golden_frames: bool = False
    no_embed: bool = False
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    root: Path = Path()
    source: str = "the command line"
    at_home: bool = False

    def overridden(self, flags: Mapping[str, Any]) -> Settings:
        """Return the settings with every flag that was given put over them.

        Naming records takes the recipe's images out, and the other way round.

        Raises:
            InputError: both are named.
        """
        known = {one.name for one in fields(self)} - {"models", "root", "source", "at_home"}
        given = {name: value for name, value in flags.items() if name in known and value}
        for name in (
            "max_drop",
            "confidence",
            "holdout",
            "seed",
            "skip_limit",
            "time_budget",
            "large_jpeg",
        ):
            if flags.get(name) is not None:
                given[name] = flags[name]
        if flags.get("no_max_drop"):
            if "max_drop" in given:
                raise InputError("--max-drop and --no-max-drop exclude each other")
            given["max_drop"] = None
        if "data" in given and "records" in given:
            raise InputError("--data and --records exclude each other: name one of them")
        if "data" in given:
            given["at_home"] = False
            given["records"] = None
        elif "records" in given:
            given["data"] = None
            given.setdefault("group_column", None)
            given.setdefault("independent", False)
            given.setdefault("large_jpeg", None)
        return replace(self, **given)

    def check_place(self) -> None:
        """Refuse a recipe whose data is looked for in its own folder and is not there.

        Raises:
            RecipeError: names the flag that is missing.
        """
        if self.at_home and isinstance(self.data, Path) and not self.data.exists():
            raise RecipeError(
                f"{self.source}: its data {self.data.name} does not lie beside it: name the folder "
                "of data and models with --root"
            )

    def plan(self) -> Plan:
        """Find the files and make a plan.

        Raises:
            InputError: something needed is not said, or a file cannot be used.
        """
        return plan_of(self)
