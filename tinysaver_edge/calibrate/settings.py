"""Settings: what a recipe and the flags over it ask for, and the plan that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinysaver_edge._support.documents import read_toml
from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.calibrate.plan import ImageInput, ModelFile, Plan, RecordInput
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Reference, Targets
from tinysaver_edge.calibrate.variants import Variants
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.data import DataSource
from tinysaver_edge.errors import InputError, RecipeError
from tinysaver_edge.hardware.profile import DeviceProfile, load_profile
from tinysaver_edge.models.description.description import description_from, find_description
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT

FORMS = ("sizes", "precisions")
"""Fields of a recipe's model that make several candidates of one saver."""


def plan_of(settings: Settings) -> Plan:
    """Find the files and make a plan.

    Raises:
        InputError: something needed is not said, or a file cannot be used.
    """
    device = None if settings.device is None else load_profile(settings.device)
    targets = Targets(
        method=Method(settings.method) if settings.method else Targets().method,
        max_drop_points=settings.max_drop,
        budgets=_budgets(settings, device),
        objective=Objective(settings.objective) if settings.objective else None,
        confidence=Targets().confidence if settings.confidence is None else settings.confidence,
        reference=Reference(settings.reference) if settings.reference else Reference.LABELS,
        score=settings.score,
        fusion=settings.fusion,
    )
    return Plan(
        input=_images(settings, device) if settings.records is None else _records(settings),
        targets=targets,
        holdout=settings.holdout or 0.0,
        seed=settings.seed or 0,
        compare_methods=settings.compare_methods,
        report=not settings.no_report,
        device=device,
    )


def _budgets(settings: Settings, device: DeviceProfile | None) -> Budgets:
    """Return the limits asked for, and those of the device where none is."""
    own = Budgets.parse(settings.budgets)
    return own if device is None else own.over(device.budgets)


def _images(settings: Settings, device: DeviceProfile | None) -> ImageInput:
    if settings.data is None:
        raise InputError("nothing to calibrate on: name --data, --records or a recipe")
    if settings.large is None or not settings.savers:
        raise InputError("name the large model with --large and savers with --saver")
    return ImageInput(
        data=settings.data,
        large=_large(settings, settings.large),
        savers=tuple(form for name in settings.savers for form in _forms(settings, name)),
        large_codec=None if settings.large_jpeg is None else Jpeg(settings.large_jpeg),
        group_column=settings.group_column,
        skip_limit=DEFAULT_SKIP_LIMIT if settings.skip_limit is None else settings.skip_limit,
        records=settings.work_dir,
        embed=not settings.no_embed,
        timing=not settings.no_timing,
        time_budget_s=settings.time_budget,
        labelled=settings.reference != Reference.LARGE.value,
        golden_frames=not settings.no_golden_frames,
        profile=device,
        bench=settings.bench,
    )


def _records(settings: Settings) -> RecordInput:
    unlabelled = settings.reference == Reference.LARGE.value
    given = {
        "--labels": unlabelled or settings.labels,
        "--macs": settings.macs,
        "--large": settings.large,
        "--saver": settings.savers,
    }
    if missing := [flag for flag, value in given.items() if not value]:
        raise InputError(f"records need {' and '.join(missing)} as well")
    assert settings.records is not None
    assert settings.macs is not None
    assert settings.large is not None
    if settings.sizes or settings.precisions or settings.bench or settings.large_jpeg is not None:
        raise InputError(
            "--size, --precision, --bench and --large-jpeg need model files: records are as "
            "they were measured"
        )
    if settings.group_column is not None:
        raise InputError("--group-column is of a table of images: records take --groups, .npy")
    if unlabelled and settings.labels is not None:
        raise InputError("--reference large needs no labels: leave --labels out")
    return RecordInput(
        settings.records,
        settings.labels,
        settings.macs,
        settings.large,
        settings.savers,
        settings.groups,
    )


def _large(settings: Settings, name: str) -> ModelFile:
    for field_name in FORMS:
        if field_name in settings.models.get(name, {}):
            raise RecipeError(
                f"{settings.source}: models.{name}.{field_name}: {name} is the large model here; "
                f"only savers may come in several {field_name}"
            )
    return _model(settings, name)


def _forms(settings: Settings, name: str) -> tuple[ModelFile, ...]:
    """Return a saver in all its sizes and precisions; flags go before the recipe."""
    table = settings.models.get(name, {})
    sizes = settings.sizes or _listed(table.get("sizes", []))
    precisions = settings.precisions or _listed(table.get("precisions", []))
    try:
        variants = Variants.parse(sizes, precisions)
    except InputError as error:
        raise RecipeError(f"{settings.source}, {name}: {error}") from None
    return variants.of(_model(settings, name))


def _model(settings: Settings, name: str) -> ModelFile:
    """Return a model of the recipe by name, or a file with its description."""
    if name in settings.models:
        table = {key: value for key, value in settings.models[name].items() if key not in FORMS}
        file = table.pop("file", None)
        if not isinstance(file, str):
            raise RecipeError(f"{settings.source}: models.{name} names no file")
        path = settings.root / file
        described = description_from(
            {"name": name, **table}, path, folder=settings.root, source=f"{settings.source}, {name}"
        )
    else:
        path = _file(settings, name)
        described = find_description(path, descriptions_dir=settings.descriptions)
    return ModelFile(path, described, engine=settings.engine)


def _file(settings: Settings, name: str) -> Path:
    """Return a model's file: as it is named, else below the recipe's root."""
    path = Path(name)
    return settings.root / name if not path.is_file() and (settings.root / name).is_file() else path


def _listed(value: object) -> Sequence[Any]:
    """Return a list as it is, and a single value as a list of it."""
    return value if isinstance(value, list) else [value]


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
    try:
        return read_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def _below(base: Path, name: str | None) -> Path | None:
    return None if name is None else base / name
