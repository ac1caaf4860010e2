"""A recipe: settings in a TOML file, of which those that the table of options places there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tinysaver_edge._support.files import read_toml
from tinysaver_edge._support.resources import calibration_dir
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.manifest import ModelEntry
from tinysaver_edge.bundle.unpack import MANIFEST
from tinysaver_edge.calibrate.options import Option
from tinysaver_edge.calibrate.settings import OPTIONS, Settings
from tinysaver_edge.calibrate.targets import BUDGET_UNITS
from tinysaver_edge.calibrate.variants import FORMS
from tinysaver_edge.data.store import DataPlace
from tinysaver_edge.errors import RecipeError
from tinysaver_edge.models.description.schema import DescriptionTable


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _keys(part: str) -> dict[str, Any]:
    """Return the keys that options have in one table of a recipe, with their types."""
    keys: dict[str, Any] = {}
    for option in OPTIONS.values():
        table, _, key = (option.recipe or "").rpartition(".")
        if key and table == part:
            kind: Any = str if option.kind in (Path, DataPlace) else option.kind
            keys[key] = (list[kind], []) if option.many else (Optional[kind], None)  # noqa: UP045
    return keys


_TargetsTable = create_model(
    "_TargetsTable", __base__=_Strict, budgets=(dict[str, float], {}), **_keys("targets")
)
_RecipeTable = create_model(
    "_RecipeTable",
    __base__=_Strict,
    description=(str, ""),
    targets=(_TargetsTable, _TargetsTable()),
    models=(dict[str, dict[str, Any]], {}),
    **_keys(""),
)
"""A whole recipe. Its models are descriptions, each with the model's ``file``, and of savers
perhaps ``sizes`` and ``precisions``, each of which is a candidate of its own."""


MODEL_KEYS = ("file", *FORMS, *DescriptionTable.model_fields)
"""Keys of one model's table; those within its ``input`` and ``output`` are a description's."""


def recipe_keys() -> tuple[str, ...]:
    """Return every key that a recipe may have, with its tables: ``targets.max_drop`` for one."""
    tables = ("targets", "models")
    return (
        *(key for key in _RecipeTable.model_fields if key not in tables),
        *(f"targets.{key}" for key in _TargetsTable.model_fields if key != "budgets"),
        *(f"targets.budgets.{key}" for key in BUDGET_UNITS),
        *(f"models.NAME.{key}" for key in MODEL_KEYS),
    )


def _complaint(error: ValidationError) -> str:
    """Say which key is unknown or wrong; an unknown one first, it may be a slip for another."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    *tables, key = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(key, ".".join(tables))
    place = ".".join((*tables, key))
    return f"{place}: {first['msg']}, not {first['input']!r}; {_listed()}"


def _listed() -> str:
    return f"{calibration_dir() / 'README.md'} lists them all"


def _unknown(key: str, table: str) -> str:
    """Say that a key is unknown, which one is nearest, and which there are in its table."""
    general = re.sub(r"^models\..*", "models.NAME", table)
    prefix = f"{general}." if general else ""
    there = [one.removeprefix(prefix) for one in recipe_keys() if one.startswith(prefix)]
    here = [one for one in there if "." not in one]
    place = f"{table}.{key}" if table else key
    elsewhere = [one for one in recipe_keys() if one.rpartition(".")[2] == key]
    nearest = difflib.get_close_matches(key, here, n=1)
    if elsewhere:
        home = elsewhere[0].rpartition(".")[0]
        hint = f"; it belongs to {f'[{home}]' if home else 'the top of the recipe'}"
    else:
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
    where = f"[{table}]" if table else "the top of a recipe"
    return f"{place}: no such key{hint}; {where} takes {', '.join(here)}; {_listed()}"


def load_recipe(recipe: str, *, root: Path | None = None) -> Settings:
    """Read a recipe.

    Args:
        recipe: path of a TOML file, the name of one that this package ships, or a bundle's folder,
            whose models and limit are taken again.
        root: folder that its paths start at; its own folder where None.

    Raises:
        RecipeError: there is none, or a field is unknown or wrong.
        BundleError: a bundle is damaged.
    """
    if (Path(recipe) / MANIFEST).is_file():
        return of_bundle(Bundle.load(recipe))
    path = _find(recipe)
    try:
        table = _RecipeTable.model_validate(_parse(path))
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {_complaint(error)}") from error
    base = path.parent if root is None else root
    if not base.is_dir():
        raise RecipeError(f"--root {base}: no such folder")
    said = table.model_dump()
    for name, described in said["models"].items():
        for key in described:
            if key not in MODEL_KEYS:
                raise RecipeError(f"recipe {path}: {_unknown(key, f'models.{name}')}")
    return Settings(
        **{name: _read(said, option, base) for name, option in OPTIONS.items() if option.recipe},
        budgets=tuple(f"{name}={value!r}" for name, value in said["targets"]["budgets"].items()),
        models=said["models"],
        root=base,
        source=f"recipe {path.name}",
        at_home=root is None,
    )


def check_place(settings: Settings) -> None:
    """Refuse a recipe whose data is looked for in its own folder and is not there.

    Raises:
        RecipeError: names the flag that is missing.
    """
    data = settings.data
    if settings.at_home and isinstance(data, Path) and not data.exists():
        raise RecipeError(
            f"{settings.source}: its data {data.name} does not lie beside it: name the folder of "
            "data and models with --root"
        )


def of_bundle(bundle: Bundle) -> Settings:
    """Return what calibrates a bundle's models anew, on other images: the field has changed.

    Its models are those that were measured before, described as the bundle describes them; the
    limit and the confidence are its certificate's. Flags override both.

    Raises:
        RecipeError: it holds no models, or one whose classes cannot be told from it.
    """
    manifest, where = bundle.manifest, f"bundle {bundle.path}"
    entries = [stage.model for stage in manifest.stages]
    if len(entries) < MANY or any(not one.files or one.elsewhere for one in entries):
        raise RecipeError(
            f"{where}: does not hold the files of two models: name them with --large and --saver"
        )
    counts = {} if manifest.certificate is None else manifest.certificate.counts
    drop, risk = counts.get("max_drop_points"), counts.get("risk")
    return Settings(
        large=entries[-1].name,
        savers=tuple(one.name for one in entries[:-1]),
        max_drop=drop if isinstance(drop, float) else Settings().max_drop,
        confidence=round(1 - risk, 9) if isinstance(risk, float) else Settings().confidence,
        models={one.name: _described(one, manifest.labels, where) for one in entries},
        root=bundle.root,
        source=where,
    )


MANY = 2


def _described(model: ModelEntry, labels: Sequence[str] | None, where: str) -> dict[str, Any]:
    """Return a model of a bundle as a recipe's table has it."""
    if model.preprocess is None or model.output is None:
        raise RecipeError(f"{where}: does not say what {model.name} takes and gives")
    form, resize, output = model.preprocess.format, model.preprocess.resize, model.output
    own = None if labels is None else list(labels)
    if own is not None and output.class_order is not None:  # its outputs are in another order
        if sorted(output.class_order) != list(range(len(own))):
            raise RecipeError(
                f"{where}: {model.name} has outputs that are no class of the bundle's: name its "
                "file with --saver, and a description beside it"
            )
        for name, place in zip(labels or (), output.class_order, strict=True):
            own[place] = name
    quantization = {
        "scale": output.quantization_scale,
        "zero_point": output.quantization_zero_point,
    }
    table = {
        "file": model.files[0].path,
        "labels": None if own is None else tuple(own),
        "macs": model.macs,
        "engine": model.engine,
        "device": model.device,
        "precision": model.precision,
        "input": {
            "layout": form.layout,
            "dtype": form.dtype,
            "color": form.color,
            "size": (resize.height, resize.width),
            "scale": {"kind": "affine", "multiply": form.multiply, "add": form.add},
            "resize": {
                "policy": resize.policy,
                "crop_ratio": resize.crop_ratio,
                "antialias": resize.antialias,
                "fill": resize.fill,
            },
        },
        "output": {
            "kind": output.kind,
            "name": output.name,
            "class_offset": output.class_offset,
            "quantization": None if None in quantization.values() else quantization,
        },
    }
    return {key: value for key, value in table.items() if value is not None}


def _read(said: dict[str, Any], option: Option, base: Path) -> Any:  # noqa: ANN401
    """Return what a recipe says of one option, paths below the recipe's root."""
    table, _, key = (option.recipe or "").rpartition(".")
    value = (said[table] if table else said)[key]
    if option.many:
        return tuple(value)
    if value is not None and option.kind in (Path, DataPlace):
        place = DataPlace.of(value, base)
        if isinstance(place, str) and option.kind is Path:
            raise RecipeError(f"{option.recipe}: an address, and this takes a path on this machine")
        return place
    return value.value if isinstance(value, Enum) else value


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
    near = difflib.get_close_matches(path.name, recipe_names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    if path.exists():
        hint = "; images are named with --data, a model with --large or --saver"
    raise RecipeError(f"recipe {recipe!r}: neither a .toml file nor one of {known}{hint}")


def _parse(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"recipe {path}: {error}") from error
