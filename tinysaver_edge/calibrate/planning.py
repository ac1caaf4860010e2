"""From settings to a plan: the files that they name are found, and what does not fit is refused."""

from __future__ import annotations

from enum import Enum
from typing import Any

from tinysaver_edge.calibrate.measured.given_records import read_measured
from tinysaver_edge.calibrate.options import is_said
from tinysaver_edge.calibrate.plan import (
    EPOCH_S,
    EPOCHS,
    Asked,
    CutEpochs,
    ImageInput,
    Plan,
    RecordInput,
    beside,
    epochs_given,
)
from tinysaver_edge.calibrate.settings import OPTIONS, Settings
from tinysaver_edge.calibrate.targets import Budgets, Method, Reference, Targets
from tinysaver_edge.calibrate.variants import ModelFinder
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.data.collection import seconds_of
from tinysaver_edge.data.files import names_labels
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.errors import InputError, RecipeError
from tinysaver_edge.hardware.profile import DeviceProfile, load_profile


def plan_of(settings: Settings) -> Plan:
    """Find the files that settings name and make a plan.

    Raises:
        InputError: something needed is not said, or a file cannot be used.
    """
    try:
        return _plan_of(settings)
    except (OSError, ValueError) as error:  # a name that no file can have
        raise RecipeError(f"{settings.source}: {error}") from error


def _plan_of(settings: Settings) -> Plan:
    device = None if settings.device is None else load_profile(settings.device)
    budgets = Budgets.parse(settings.budgets)
    if device is not None:
        budgets = budgets.over(device.budgets)
    asked = placed(settings, "targets")
    if settings.no_max_drop:
        asked["max_drop_points"] = None
    people = Asked(**placed(settings, "asked"))
    reference = people.reference(
        asked.pop("reference", None),
        labelled=lambda: _has_labels(settings),
        written=settings.out is not None,
        certified=asked.get("method", Method.CERTIFIED) is Method.CERTIFIED,
    )
    targets = Targets(**asked, reference=reference, budgets=budgets)
    images = settings.records is None
    return Plan(
        input=_images(settings, device, targets) if images else _records(settings, reference),
        targets=targets,
        device=device,
        asked=people,
        outlook=settings.reference is None and reference is not Reference.LABELS,
        **placed(settings, "plan"),
    )


def images_of(settings: Settings) -> ImageInput:
    """Find models and images, whatever is asked of them; labels count where there are any.

    Raises:
        InputError: something needed is not said, or a file cannot be used.
    """
    reference = Reference.LABELS if _has_labels(settings) else Reference.LARGE
    return _images(settings, None, Targets(reference=reference))


def _has_labels(settings: Settings) -> bool:
    labels = settings.labels is not None
    if labels or settings.epochs is not None or settings.recordings:
        return labels
    if settings.records is not None:
        measured = read_measured(settings.records)
        return measured is not None and measured.labelled
    data = settings.data
    return data is None or isinstance(data, DataSource) or names_labels(data)


def placed(settings: Settings, part: str) -> dict[str, Any]:
    """Return what is said of one part of the plan, by the plan's own names."""
    placed: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if option.plan is None or not is_said(value):
            continue
        there, key = option.plan.split(".")
        if there == part:
            made = option.kind(value) if issubclass(option.kind, Enum) else value
            placed[key] = not made if option.negative else made
    return placed


def _images(settings: Settings, device: DeviceProfile | None, targets: Targets) -> ImageInput:
    cut = _cut(settings)
    if settings.data is None and settings.epochs is None and cut is None:
        raise InputError("nothing to calibrate on: name --data, --epochs, --records or a recipe")
    if settings.large is None:
        raise InputError("no large model: name its file with --large")
    if not settings.savers:
        raise InputError("no saver to try: name the file of a small model with --saver; repeat it")
    models = ModelFinder(settings)
    given = placed(settings, "images")
    epochs = settings.epochs if cut is None else cut.folder
    if epochs is not None:
        given |= epochs_given(epochs, settings.labels, given, targets)
    return ImageInput(
        large=models.large(settings.large),
        savers=tuple(form for name in settings.savers for form in models.forms(name)),
        large_codec=None if settings.large_jpeg is None else Jpeg(settings.large_jpeg),
        labelled=targets.reference is Reference.LABELS,
        profile=device,
        cut=cut,
        **given,
    )


def _cut(settings: Settings) -> CutEpochs | None:
    """Return which recordings are to be cut into epochs; None where none is."""
    about = [f"--{one}" for one in ("epoch", "number", "fps") if is_said(getattr(settings, one))]
    if not settings.recordings:
        if about:
            raise InputError(f"{about[0]} is about recordings: name them with --from")
        return None
    if settings.out is not None:
        folder = beside(settings.out, "epochs")
    elif settings.work_dir is not None:
        folder = settings.work_dir / "epochs"
    else:
        raise InputError("--from keeps the epochs beside the bundle: name it with --out")
    length_s = EPOCH_S if settings.epoch is None else seconds_of(settings.epoch)
    number = EPOCHS if settings.number is None else settings.number
    return CutEpochs(settings.recordings, folder, length_s, number, settings.fps)


def _records(settings: Settings, reference: Reference) -> RecordInput:
    assert settings.records is not None
    unlabelled = reference is not Reference.LABELS
    needed = {
        "--labels": unlabelled or settings.labels,
        "--macs": settings.macs,
        "--large": settings.large,
        "--saver": settings.savers,
    }
    missing = [flag for flag, value in needed.items() if not value]
    if missing and read_measured(settings.records) is None:
        raise InputError(f"records need {' and '.join(missing)} as well")
    of_models = (settings.sizes, settings.precisions, settings.bench, settings.on)
    if any(of_models) or settings.large_jpeg is not None:
        raise InputError(
            "--size, --precision, --bench, --on and --large-jpeg need model files: records are as "
            "they were measured"
        )
    if settings.group_column is not None:
        raise InputError("--group-column is of a table of images: records take --groups, .npy")
    if unlabelled and settings.labels is not None:
        raise InputError(f"--reference {reference.value} needs no labels: leave --labels out")
    return RecordInput(
        large=settings.large,
        savers=settings.savers,
        independent=bool(settings.independent),
        labelled=not unlabelled,
        golden_frames=not settings.no_golden_frames,
        **placed(settings, "records"),
    )
