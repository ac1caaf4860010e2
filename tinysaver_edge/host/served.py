"""What is served of a bundle: its large model, and all that a host must know about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.codec import check_carries
from tinysaver_edge.engines.base import EngineOptions, ModelSignature
from tinysaver_edge.engines.registry import engine_class
from tinysaver_edge.errors import InputError

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a URL, a folder and the hosts' own configuration all take."""


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle's large model.

    Attributes:
        name: its name on the host.
        signature: what the file says of its input and output.
        jpeg: whether the host is sent JPEG files in place of pixels.
    """

    name: str
    artefact: Artefact
    signature: ModelSignature
    jpeg: bool = False

    @property
    def file(self) -> Path:
        """The model's file."""
        return self.artefact.files[0]

    @property
    def sha256(self) -> str:
        """Hash of the model's files, as the bundle's certificate knows it."""
        return self.artefact.sha256


def served_by(
    bundle: Bundle,
    *,
    name: str | None = None,
    jpeg: bool | None = None,
    threads: int | None = None,
) -> Served:
    """Return what is to be served of a bundle.

    Args:
        bundle: an open bundle.
        name: the model's name on the host; by default as in the bundle.
        jpeg: take JPEG files in place of pixels; None takes what the bundle was calibrated on.
        threads: processor threads for one inference; None leaves it to the engine.

    Raises:
        BundleError: it holds no models.
        InputError: the name is none for URLs and folders, or JPEG cannot carry what the model
            takes.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise InputError(
            f"--name {name!r}: a model's name on a host is one of letters, digits, '.', '_' and "
            "'-', and begins with a letter or digit"
        )
    artefact = bundled_artefacts(bundle, EngineOptions(threads=threads))[-1]
    if jpeg is None:
        jpeg = artefact.codec is not None
    if jpeg:
        check_carries(artefact.preprocess, model=artefact.name)
    signature = engine_class(artefact.engine).inspect(
        artefact.files[0], output=artefact.output.name
    )
    return Served(name or safe_name(artefact.name), artefact, signature, jpeg)


def safe_name(name: str) -> str:
    """Return a model's name with nothing in it that a URL, a folder or Kubernetes minds."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "large"
