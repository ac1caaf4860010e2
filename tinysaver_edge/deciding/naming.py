"""Give the classes of a finished bundle names; nothing that was calibrated changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinysaver_edge.artefact import bundled_artefacts
from tinysaver_edge.bundle.bundle import Bundle, files_of, write_bundle
from tinysaver_edge.errors import BundleError
from tinysaver_edge.models.labels import read_labels


def name_classes(path: Path, labels: Path) -> tuple[str, ...]:
    """Write class names into a bundle that has none.

    Its models, threshold, golden samples and certificate stay what they are, to the byte. A
    signature does not: sign it anew.

    Args:
        path: the bundle, a folder or .zip; replaced once the new one is whole.
        labels: file of names, one a line, in the order of the model's outputs; a background class
            that was left out may be among them.

    Returns:
        The names, one a class.

    Raises:
        BundleError: it has names already, holds no models, or the names do not fit its classes.
        DescriptionError: the file of names cannot be read.
    """
    with Bundle.load_untrusted(path) as bundle:
        if bundle.manifest.labels is not None:
            raise BundleError(
                f"bundle {path}: its classes have names already "
                f"({', '.join(bundle.manifest.labels[:3])}, …), which its golden samples keep; "
                "calibrate anew to change them"
            )
        names = read_labels(str(labels.absolute()), (Path(),), source=f"bundle {path}")
        names = _fitting(names, bundle, labels)
        manifest = bundle.manifest.model_copy(update={"labels": list(names)})
        files = {entry.path: bundle.file(entry) for entry in files_of(manifest)}
        write_bundle(path, manifest, files)
    return names


def _fitting(names: tuple[str, ...], bundle: Bundle, labels: Path) -> tuple[str, ...]:
    """Return one name a class, or say why there is none for each."""
    offset, classes = _classes(bundle)
    if len(names) == classes + offset:
        names = names[offset:]
    if len(names) != classes:
        raise BundleError(
            f"bundle {bundle.path}: {labels} has {len(names)} names, its models tell {classes} "
            "classes apart: one line for each, in the order of their outputs"
        )
    if twice := _twice(names):
        raise BundleError(
            f"bundle {bundle.path}: {labels} names {len(twice)} classes alike, among them "
            f"{twice[0]!r}: give each class its own name"
        )
    return names


def _classes(bundle: Bundle) -> tuple[int, int]:
    """Return how many outputs are left out and how many classes there are, by running a model."""
    first = bundled_artefacts(bundle, elsewhere=True)[0]
    if not first.files:
        raise BundleError(
            f"bundle {bundle.path}: its model {first.name} is elsewhere, so its classes cannot be "
            "counted: name them in the bundle that holds the models"
        )
    blank = np.zeros(first.preprocess.shape(1), np.dtype(first.preprocess.format.dtype))
    with first.open() as engine:
        return first.output.class_offset, int(engine.infer(blank).shape[1])


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]
