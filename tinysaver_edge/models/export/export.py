"""A timm model → the file that a device runs, checked against the model it was made of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.model_file import model_files
from tinysaver_edge.engines.registry import create_engine, engine_for
from tinysaver_edge.engines.timm_file import Architecture, write_timm_file
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.compare.compare import (
    Comparison,
    Pictures,
    answers,
    compare,
    draw_pictures,
)
from tinysaver_edge.models.description.carried import write_metadata
from tinysaver_edge.models.description.describe import to_toml
from tinysaver_edge.models.description.description import (
    METADATA_KEY,
    ModelDescription,
    check_model_target,
    made_by,
)
from tinysaver_edge.models.embed.embed import embed_openvino
from tinysaver_edge.models.embed.onnx import embed_onnx
from tinysaver_edge.models.export.timm_model import TimmModel, TimmSource, exportable, load_timm
from tinysaver_edge.models.export.torch_onnx import (
    export_onnx,
    first_layer_apart,
    first_layer_merged_apart,
)
from tinysaver_edge.models.graph.macs import count_module_macs
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocessor

Module: TypeAlias = Any  # torch.nn.Module
Logits: TypeAlias = NDArray[np.float32]

SUFFIXES = (".onnx", ".xml", ".safetensors")
"""What is exported to: ONNX, OpenVINO's IR, and weights for the torch engine."""

_COMMAND = "models export"

TOLERANCE = 1e-3
"""Largest difference of a logit from torch's that an exported file may show."""


@dataclass(frozen=True, slots=True)
class Export:
    """A model that was exported.

    Attributes:
        exported: one for each file that was asked for.
        macs: multiply-accumulates of a picture, merged branches counted once.
        parameters: how many numbers are stored, merged branches counted once.
        macs_as_trained: multiply-accumulates before branches were merged.
        parameters_as_trained: how many numbers were learnt.
    """

    name: str
    exported: tuple[ExportedFile, ...]
    pictures: str
    classes: int
    macs: int
    parameters: int
    macs_as_trained: int
    parameters_as_trained: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        values = asdict(self)
        for one, plain in zip(self.exported, values["exported"], strict=True):
            plain["files"] = [str(path) for path in one.files]
        return values


def export(
    source: TimmSource | TimmModel,
    outs: Sequence[Path],
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    batch: int | None = None,
    merge: bool = True,
    pictures: Pictures | None = None,
    tolerance: float = TOLERANCE,
) -> Export:
    """Export one of timm's models, with its preprocessing in the graph.

    The files take resized frames as they are: uint8 NHWC BGR. Branches that only training needs
    are merged. Description and class names stand in the file's metadata.

    Args:
        source: which model, and whose weights; or the model, where it is built already.
        outs: the files to write, each an .onnx, .xml or .safetensors.
        name: what to call it; the first file's stem unless it is given.
        labels: one name a class; those of ImageNet where the published weights are for it.
        batch: a fixed number of samples, or None for any.
        merge: merge the branches that only training needs.
        pictures: what to compare on; drawn ones unless given.
        tolerance: largest difference of a logit that is let through.

    Raises:
        InputError: the name is unknown, or what is asked for contradicts itself.
        ModelError: the weights cannot be had, the model cannot be exported, or what came of it
            answers otherwise; names the layer where that is known. No file is left behind.
        MissingDependencyError: what is needed is not installed.
    """
    _check_outs(outs)
    model = load_timm(source) if isinstance(source, TimmSource) else source
    names = model.labels if labels is None else tuple(labels)
    if names is not None and len(names) != model.num_classes:
        raise InputError(
            f"model {model.source.name}: {len(names)} labels for {model.num_classes} classes"
        )
    pictures = draw_pictures() if pictures is None else pictures
    merged = exportable(model.module, merge=merge)
    shape = model.preprocess.shape(1)
    macs = count_module_macs(merged, shape)
    description = ModelDescription(
        file=outs[0],
        name=name or outs[0].stem,
        preprocess=model.preprocess.in_graph(),
        output=OutputFormat(),
        labels=names,
        macs=float(macs),
    )
    job = ExportJob(model, merged, description, batch, pictures, tolerance)
    with tempfile.TemporaryDirectory(dir=_folder(outs[0]), prefix=".export.") as folder:
        exported = job.run(Path(folder), outs)
    return Export(
        name=description.name,
        exported=exported,
        pictures=pictures.origin,
        classes=model.num_classes,
        macs=macs,
        parameters=sum(one.numel() for one in merged.parameters()),
        macs_as_trained=count_module_macs(model.module, shape),
        parameters_as_trained=model.parameters,
    )


def _check_outs(outs: Sequence[Path]) -> None:
    if not outs:
        raise InputError(f"no file to export to: name one that ends in {', '.join(SUFFIXES)}")
    for out in outs:
        if out.suffix not in SUFFIXES:
            raise InputError(f"cannot export to {out}: it must end in {', '.join(SUFFIXES)}")
        check_model_target(out, command=_COMMAND)
    if len(set(outs)) != len(outs):
        raise InputError("the same file is named twice to export to")


def _folder(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was made, and how near it is to the model it was made of."""

    files: tuple[Path, ...]
    engine: str
    comparison: Comparison

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]


@dataclass(frozen=True, slots=True)
class ExportJob:
    """All that making and checking the files takes.

    Attributes:
        merged: its module with branches merged, or as it is.
        description: what the files say of themselves.
        batch: a fixed number of samples, or None for any.
    """

    model: TimmModel
    merged: Module
    description: ModelDescription
    batch: int | None
    pictures: Pictures
    tolerance: float

    def run(self, folder: Path, outs: Sequence[Path]) -> tuple[ExportedFile, ...]:
        """Make all files in a folder of their own, check them, and move them where they belong.

        Raises:
            ModelError: torch has no finite answers, the model cannot be exported, or a file
                answers otherwise.
        """
        expected = self._torch_answers(self.model.module)
        plain, layers = folder / "plain" / "plain.onnx", {}
        plain.parent.mkdir()
        if any(out.suffix != ".safetensors" for out in outs):
            layers = export_onnx(
                self.merged,
                self.model.preprocess.shape(1),
                plain,
                batch=self.batch,
                name=self.model.source.name,
            )
        made = []
        for place, out in enumerate(outs):
            target = folder / str(place) / out.name
            target.parent.mkdir()
            self._make(plain, target)
            engine, comparison = self._compare(target, expected)
            if not comparison.within(self.tolerance):
                raise self._refusal(out, engine, comparison, plain, layers)
            made.append((model_files(target), out, engine, comparison))
        return tuple(
            ExportedFile(_moved(files, out), engine, comparison)
            for files, out, engine, comparison in made
        )

    def _make(self, plain: Path, out: Path) -> None:
        form = self.model.preprocess.format
        if out.suffix == ".safetensors":
            # Torch runs it as it was trained, branches and all.
            macs = count_module_macs(self.model.module, self.model.preprocess.shape(1))
            described = replace(self.description, engine="torch", macs=float(macs))
            write_timm_file(
                out,
                self.model.module,
                self._architecture(),
                made_by(_COMMAND, to_toml(described)),
            )
            return
        if out.suffix == ".onnx":
            embed_onnx(plain, form, out, drop_metadata=METADATA_KEY)
        else:
            embed_openvino(plain, form, out)
        write_metadata(out, made_by(_COMMAND, to_toml(self.description)))

    def _architecture(self) -> Architecture:
        resize, form = self.model.preprocess.resize, self.model.preprocess.format
        return Architecture(
            name=self.model.source.name.partition(".")[0],
            num_classes=self.model.num_classes,
            height=resize.height,
            width=resize.width,
            multiply=(form.multiply[0], form.multiply[1], form.multiply[2]),
            add=(form.add[0], form.add[1], form.add[2]),
        )

    def _torch_answers(self, module: Module) -> Logits:
        """Run the model as timm builds it, branches and all, on pictures scaled in numpy."""
        import torch

        preprocessor = Preprocessor(self.model.preprocess)
        parts = []
        with torch.no_grad():
            for frame in self.pictures.frames:
                parts.append(module(torch.from_numpy(preprocessor(frame))).numpy())
        logits: Logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise ModelError(
                f"model {self.model.source.name}: torch itself answers with numbers that are not "
                "finite: the weights are damaged"
            )
        return logits

    def _compare(self, made: Path, expected: Logits) -> tuple[str, Comparison]:
        name = engine_for(made)
        preprocess = self.description.preprocess
        with create_engine(name, made, preprocess=preprocess, output=OutputFormat()) as engine:
            found = answers(engine, preprocess, self.pictures.frames)
        return name, compare(expected, found)

    def _refusal(
        self, out: Path, engine: str, found: Comparison, plain: Path, layers: dict[str, str]
    ) -> ModelError:
        """Say how far off a file is, and what it is that changed the answers."""
        return ModelError(
            f"model {self.model.source.name}: {out.name} answers up to {found.max_difference:.2g} "
            f"off torch in {engine} (the largest logit is {found.largest_logit:.3g}), more than "
            f"{self.tolerance:g}, {self._culprit(plain, layers)}: it was not written"
        )

    def _culprit(self, plain: Path, layers: dict[str, str]) -> str:
        if not layers:
            return "reading its weights back"
        batch = Preprocessor(self.model.preprocess).batch(self.pictures.frames[: self.batch or 2])
        changed = first_layer_merged_apart(
            self.model.module, self.merged, batch, tolerance=self.tolerance
        )
        if changed:
            return f"from layer {changed} on, whose branches do not merge (--no-merge keeps them)"
        layer = first_layer_apart(self.merged, plain, layers, batch, tolerance=self.tolerance)
        return f"from layer {layer} on" if layer else "at no layer in particular"


def _moved(files: Sequence[Path], out: Path) -> tuple[Path, ...]:
    """Move finished files beside each other, the one to open last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    places = [out.parent / file.name for file in files]
    for file, place in reversed(list(zip(files, places, strict=True))):
        file.replace(place)
    return tuple(places)
