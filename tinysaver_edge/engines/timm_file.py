"""Weights as .safetensors with the timm name they belong to: what the torch engine runs.

Of the forms in which torch keeps whole models, TorchScript and pickles run code when they are read,
and torch.export's .pt2 evaluates the expressions of its shapes. Weights and a name run nothing: the
model is built anew by the timm that is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.files import atomic_write, open_regular, parse_json
from tinysaver_edge._support.packages import needs
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import ModelError

Module: TypeAlias = Any  # torch.nn.Module

ARCHITECTURE_KEY = "tinysaver_edge.timm"
"""Key of the file's metadata that holds an `Architecture`, as JSON."""

_LONGEST_HEADER = 100 << 20
_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which model the weights are for, and what stands before it.

    Attributes:
        name: timm's name of the architecture, without weights.
        num_classes: how many classes it tells apart.
        height: rows of its picture, in pixels.
        width: columns of its picture, in pixels.
        multiply: factor for each of red, green and blue, 0..255.
        add: offset for each of red, green and blue.
    """

    name: str
    num_classes: int
    height: int
    width: int
    multiply: tuple[float, float, float]
    add: tuple[float, float, float]


def read_header(path: Path) -> dict[str, str]:
    """Return the metadata of a .safetensors file, without its weights.

    Raises:
        ModelError: the file is missing, truncated or none of that kind.
    """
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 0 < length <= _LONGEST_HEADER else b""
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}") from error
    try:
        header = parse_json(text) if len(text) == length else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"model {path}: no .safetensors, or its end is missing: fetch it again")
    metadata = header.get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()}


def read_architecture(path: Path) -> Architecture:
    """Return which model a file's weights are for.

    Raises:
        ModelError: the file is damaged, or does not say so.
    """
    text = read_header(path).get(ARCHITECTURE_KEY)
    if text is None:
        raise ModelError(
            f"model {path}: weights without the name of their model: export it with "
            f"'tinysaver-edge models export NAME --checkpoint {path.name} --out …'"
        )
    try:
        values = parse_json(text)
        triples = {key: tuple(map(float, values.pop(key))) for key in ("multiply", "add")}
        found = Architecture(**{**values, **triples})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"model {path}: its {ARCHITECTURE_KEY} is damaged: {error}") from error
    sizes = (found.num_classes, found.height, found.width)
    if not (
        isinstance(found.name, str)
        and _NAME.fullmatch(found.name)
        and all(isinstance(size, int) and size > 0 for size in sizes)
        and len(found.multiply) == len(found.add) == 3
    ):
        raise ModelError(f"model {path}: its {ARCHITECTURE_KEY} describes no model")
    return found


def write_timm_file(
    path: Path, module: Module, architecture: Architecture, metadata: Mapping[str, str]
) -> None:
    """Write a model's weights with its architecture.

    Raises:
        MissingDependencyError: safetensors is not installed.
    """
    save = _safetensors().save
    weights = {name: one.detach().contiguous().clone() for name, one in module.state_dict().items()}
    header = {**metadata, ARCHITECTURE_KEY: json.dumps(asdict(architecture))}
    with atomic_write(path) as file:
        file.write(save(weights, header))


def read_module(path: Path) -> tuple[Architecture, Module]:
    """Build the model of a file, in evaluation mode: float32 NCHW RGB → ``(n, classes)``.

    Raises:
        MissingDependencyError: torch, timm or safetensors is not installed.
        ModelError: the file is damaged, or the timm that is installed builds another model.
    """
    architecture = read_architecture(path)
    load = _safetensors().load_file
    module = build_module(architecture, path)
    try:
        module.load_state_dict(load(path))
    except Exception as error:
        raise ModelError(
            f"model {path}: its weights are not those of timm's {architecture.name} here: "
            f"{one_line(error)[:200]}"
        ) from error
    return architecture, module.eval()


def build_module(architecture: Architecture, path: Path) -> Module:
    """Build a model with the weights it happens to start with."""
    with needs(extra="timm", purpose="Running models with engine torch"):
        import timm
    if not timm.is_model(architecture.name):
        raise ModelError(
            f"model {path}: timm {timm.__version__} has no {architecture.name}: install another "
            "version of timm"
        )
    settings = {"pretrained": False, "num_classes": architecture.num_classes}
    return sized_model(architecture.name, (architecture.height, architecture.width), settings)


def sized_model(name: str, size: tuple[int, int], settings: Mapping[str, Any]) -> Module:
    """Create one of timm's models for a size of picture: some must be told, others take any."""
    import timm

    try:
        return timm.create_model(name, img_size=size, **settings)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **settings)


def _safetensors() -> Any:  # noqa: ANN401 - the module
    with needs(extra="timm", purpose="Running models with engine torch"):
        import safetensors.torch
    return safetensors.torch
