"""A timm model → the file that a device runs, checked against the model it was made of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge._support.files import check_file_target
from tinysaver_edge.errors import InputError
from tinysaver_edge.models.compare.compare import Pictures, draw_pictures
from tinysaver_edge.models.description.description import ModelDescription
from tinysaver_edge.models.export.job import ExportedFile, ExportJob
from tinysaver_edge.models.export.timm_model import TimmModel, TimmSource, exportable, load_timm
from tinysaver_edge.models.graph.macs import count_module_macs
from tinysaver_edge.output_format import OutputFormat

SUFFIXES = (".onnx", ".xml", ".safetensors")
"""What is exported to: ONNX, OpenVINO's IR, and weights for the torch engine."""

TOLERANCE = 1e-3
"""Largest difference of a logit from torch's that an exported file may show."""


@dataclass(frozen=True, slots=True)
class Export:
    """A model that was exported.

    Attributes:
        name: what it is called.
        exported: one for each file that was asked for.
        pictures: what they were compared on, in a few words.
        classes: how many classes it tells apart.
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
    source: TimmSource,
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
        source: which model, and whose weights.
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
    model = load_timm(source)
    return export_model(
        model,
        outs,
        name=name,
        labels=labels,
        batch=batch,
        merge=merge,
        pictures=pictures,
        tolerance=tolerance,
    )


def export_model(
    model: TimmModel,
    outs: Sequence[Path],
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    batch: int | None = None,
    merge: bool = True,
    pictures: Pictures | None = None,
    tolerance: float = TOLERANCE,
) -> Export:
    """Export a model that is built already; see `export`."""
    _check_outs(outs)
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
        check_file_target(out)
    if len(set(outs)) != len(outs):
        raise InputError("the same file is named twice to export to")


def _folder(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent
