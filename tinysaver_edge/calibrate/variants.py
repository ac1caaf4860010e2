"""Variants: one model file at several input sizes and precisions, each a candidate of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tinysaver_edge.calibrate.options import listed
from tinysaver_edge.calibrate.plan import ModelFile
from tinysaver_edge.calibrate.settings import Settings
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.registry import engine_class, engine_name
from tinysaver_edge.errors import DescriptionError, InputError, RecipeError
from tinysaver_edge.models.description.description import description_from, find_description
from tinysaver_edge.models.graph.graph import Size
from tinysaver_edge.preprocess import Layout

_SIZE = re.compile(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?")


@dataclass(frozen=True, slots=True)
class Variants:
    """Which forms of a saver are candidates; nothing named leaves it as its description says."""

    sizes: tuple[Size, ...] = ()
    precisions: tuple[Precision, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.precisions)

    def of(self, model: ModelFile) -> tuple[ModelFile, ...]:
        """Return a model in every size and precision.

        A form that differs from the description has a name of its own: ``NAME@160``,
        ``NAME@120x160`` (height and width), ``NAME-bfloat16``, ``NAME@160-bfloat16``.

        Raises:
            DescriptionError: its file takes another size than one that is asked for.
            ModelError: the file cannot be read.
        """
        if not self:
            return (model,)
        resize = model.description.preprocess.resize
        sizes = self.sizes or ((resize.height, resize.width),)
        _check_sizes(model, sizes)
        precisions = self.precisions or (model.description.precision or Precision.FLOAT32,)
        forms = dict.fromkeys(product(sizes, precisions))
        return tuple(_form(model, size, precision) for size, precision in forms)

    @classmethod
    def parse(cls, sizes: Sequence[Any], precisions: Sequence[Any]) -> Variants:
        """Read what a recipe or flags name.

        Args:
            sizes: ``160``, ``"160"``, ``"120x160"`` or ``[120, 160]``: height, then width.
            precisions: names of `Precision`.

        Raises:
            InputError: one of them is neither.
        """
        return cls(tuple(map(_size, sizes)), tuple(map(_precision, precisions)))


def _size(value: object) -> Size:
    text = "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InputError(f"size {value!r}: expected pixels, as 160, or height and width, 120x160")
    height = int(found[1])
    return height, int(found[2] or height)


def _precision(value: object) -> Precision:
    try:
        return Precision(value)
    except ValueError:
        known = ", ".join(one.value for one in Precision)
        raise InputError(f"precision {value!r}: there are {known}") from None


def _form(model: ModelFile, size: Size, precision: Precision) -> ModelFile:
    """Return a model of another description; what its maker says of one size holds for no other."""
    said = model.description
    resize, changes = said.preprocess.resize, dict[str, Any]()
    name = said.name
    if size != (resize.height, resize.width):
        height, width = size
        name += f"@{height}" if height == width else f"@{height}x{width}"
        resize = replace(resize, height=height, width=width)
        changes = {
            "preprocess": replace(said.preprocess, resize=resize),
            "macs": None,
            "published_top1": None,
        }
    if precision is not (said.precision or Precision.FLOAT32):
        name += f"-{precision.value}"
        changes["precision"] = precision
    return replace(model, description=replace(said, name=name, **changes), variant=True)


def _check_sizes(model: ModelFile, sizes: Sequence[Size]) -> None:
    """Refuse sizes that a file does not take, before anything is prepared."""
    resize = model.description.preprocess.resize
    others = [size for size in sizes if size != (resize.height, resize.width)]
    if not others:
        return
    fixed = _fixed_size(model)
    for size in others:
        if any(have not in (None, want) for have, want in zip(fixed, size, strict=True)):
            raise DescriptionError(
                f"model {model.path}: takes pictures of {_times(fixed)} only, not of "
                f"{_times(size)}: export it with height and width left open, or name no other size"
            )


def _fixed_size(model: ModelFile) -> tuple[int | None, int | None]:
    """Return the height and width that a file insists on, None where it leaves one open."""
    said = model.description
    engine = engine_name(model.engine or said.engine, model.path, device=said.device)
    shape = engine_class(engine).inspect(model.path, output=said.output.name).input_shape
    if len(shape) != 4:
        return None, None
    rows, columns = (2, 3) if said.preprocess.format.layout is Layout.NCHW else (1, 2)
    return shape[rows], shape[columns]


def _times(size: tuple[int | None, int | None]) -> str:
    return " × ".join("any" if length is None else str(length) for length in size)


FORMS = ("sizes", "precisions")
"""Fields of a recipe's model that make several candidates of one saver."""


@dataclass(frozen=True, slots=True)
class ModelFinder:
    """Finds models by their names, in what is said: in a recipe, or as files with descriptions."""

    said: Settings

    def large(self, name: str) -> ModelFile:
        """Return the large model.

        Raises:
            InputError: it cannot be found, or a recipe has it in several forms.
        """
        for field_name in FORMS:
            if field_name in self.said.models.get(name, {}):
                raise RecipeError(
                    f"{self.said.source}: models.{name}.{field_name}: {name} is the large model "
                    f"here; only savers may come in several {field_name}"
                )
        return self._model(name)

    def forms(self, name: str) -> tuple[ModelFile, ...]:
        """Return a saver in all its sizes and precisions; flags go before the recipe.

        Raises:
            InputError: it cannot be found, or a size or precision is none.
        """
        table = self.said.models.get(name, {})
        sizes = self.said.sizes or listed(table.get("sizes", []))
        precisions = self.said.precisions or listed(table.get("precisions", []))
        try:
            variants = Variants.parse(sizes, precisions)
        except InputError as error:
            raise RecipeError(f"{self.said.source}, {name}: {error}") from None
        return variants.of(self._model(name))

    def _model(self, name: str) -> ModelFile:
        """Return a model of the recipe by name, or a file with its description."""
        said, root = self.said, self.said.root
        if name in said.models:
            table = {key: value for key, value in said.models[name].items() if key not in FORMS}
            file = table.pop("file", None)
            if not isinstance(file, str):
                raise RecipeError(f"{said.source}: models.{name} names no file")
            path = root / file
            described = description_from(
                {"name": name, **table}, path, folder=root, source=f"{said.source}, {name}"
            )
        else:  # as it is named, else below the recipe's root
            path = Path(name)
            path = root / name if not path.is_file() and (root / name).is_file() else path
            described = find_description(
                path, descriptions_dir=said.descriptions, output=said.output
            )
        return ModelFile(path, described, engine=said.engine)
