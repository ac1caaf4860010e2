"""The device's side of a deployment: the bundle without the large model, which its hosts have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge.bundle.bundle import files_of, write_bundle
from tinysaver_edge.errors import BundleError, InputError

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle


def write_device_bundle(bundle: Bundle, out: Path) -> int:
    """Write a copy of a bundle that leaves the large model's files to the hosts that serve it.

    Hashes and golden samples stay, so a host still has to prove that it serves the model that was
    calibrated, and the certificate covers its answers.

    Args:
        bundle: an open bundle.
        out: a new folder, or a file name ending in ``.zip``.

    Returns:
        How many bytes it is lighter by.

    Raises:
        InputError: there is something already.
        BundleError: there is no large model to leave out, or the target cannot be written.
    """
    if out.exists():
        raise InputError(f"--out {out}: there is something already; name a new folder or .zip")
    *early, large = bundle.manifest.stages
    if not early or not large.model.files:
        why = "has no saver beside it" if not early else "is known by name only"
        raise BundleError(
            f"bundle {bundle.path}: {large.model.name} {why}: nothing can be left out"
        )
    if large.model.elsewhere:
        raise BundleError(f"bundle {bundle.path}: holds no file of {large.model.name} already")
    model = large.model.model_copy(update={"elsewhere": True})
    stages = [*early, large.model_copy(update={"model": model})]
    manifest = bundle.manifest.model_copy(update={"stages": stages})
    write_bundle(out, manifest, {entry.path: bundle.file(entry) for entry in files_of(manifest)})
    return sum(entry.size_bytes for entry in model.files)
