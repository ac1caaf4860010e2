"""Makes a plan of settings: finds the files that they name, and says what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge.calibrate.plan import ImageInput, ModelFile, Plan, RecordInput
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Reference, Targets
from tinysaver_edge.calibrate.variants import Variants
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import InputError, RecipeError
from tinysaver_edge.hardware.profile import DeviceProfile, load_profile
from tinysaver_edge.models.description.description import description_from, find_description
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT

if TYPE_CHECKING:
    from tinysaver_edge.calibrate.settings import Settings

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
