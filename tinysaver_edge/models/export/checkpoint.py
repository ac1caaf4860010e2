"""Read a checkpoint's weights without running anything that is in it."""

from __future__ import annotations

import argparse
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.packages import needs
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import ModelError

Tensor: TypeAlias = Any  # torch.Tensor
StateDict: TypeAlias = dict[str, Tensor]

SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")
"""Endings of the checkpoints that are read."""

PUBLISHED_HEAD = "_fc"
"""What published EfficientNets call the layer that answers."""

_WEIGHTS_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", "model.")
_HARMLESS = ("torch.", "collections.", "argparse.Namespace")
# What unpickling makes of bytes that are no pickle.
_NO_PICKLE = (pickle.UnpicklingError, LookupError, EOFError, UnicodeError)


_COUNTER = ".num_batches_tracked"
_PUBLISHED_STEM = "_conv_stem.weight"
_PUBLISHED_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    PUBLISHED_HEAD: "classifier",
}
_PUBLISHED_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_WITHOUT_EXPANSION = {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def is_published_efficientnet(weights: StateDict) -> bool:
    """Whether weights have the names of efficientnet_pytorch, which ported TensorFlow's."""
    return _PUBLISHED_STEM in weights


def fitted(weights: StateDict, own: StateDict) -> StateDict:
    """Return weights under a timm model's names, what no answer depends on filled in."""
    if is_published_efficientnet(weights):
        weights = _as_timm(weights, own)
    counters = {
        name: value
        for name, value in own.items()
        if name.endswith(_COUNTER) and name not in weights  # only training reads it
    }
    return {**weights, **counters}


def _as_timm(weights: StateDict, own: StateDict) -> StateDict:
    """Rename published EfficientNets: their blocks are counted through, timm's by stages."""
    blocks = list(
        dict.fromkeys(".".join(name.split(".")[:3]) for name in own if name.startswith("blocks."))
    )
    renamed: StateDict = {}
    for name, value in weights.items():
        parts = name.split(".")
        number = int(parts[1]) if parts[0] == "_blocks" and parts[1].isdecimal() else len(blocks)
        if len(parts) > 3 and number < len(blocks):
            expands = f"_blocks.{parts[1]}._expand_conv.weight" in weights
            names = _PUBLISHED_BLOCK if expands else {**_PUBLISHED_BLOCK, **_WITHOUT_EXPANSION}
            layer = names.get(parts[2], parts[2])
            renamed[".".join([blocks[number], layer, *parts[3:]])] = value
        else:
            renamed[".".join([_PUBLISHED_TOP.get(parts[0], parts[0]), *parts[1:]])] = value
    return renamed


def read_weights(path: Path) -> StateDict:
    """Read the named weights of a checkpoint: those of its average (EMA) where it has one.

    Pickles are read by torch's weights-only reader, which knows tensors and plain containers and
    calls nothing else.

    Args:
        path: a .safetensors, or what torch.save wrote of a state dict or of a training run.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or holds more than weights.
        MissingDependencyError: what reads it is not installed.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: no such file")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"checkpoint {path}: not a {', '.join(SUFFIXES)} file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _weights_of(_read_pickle(path), path)


def _read_safetensors(path: Path) -> StateDict:
    with needs("safetensors", extra="timm", purpose=f"Reading {path.name}"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        found: StateDict = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return _cleaned(found)


def _read_pickle(path: Path) -> object:
    with needs("torch", extra="timm", purpose=f"Reading {path.name}"):
        import torch
    try:
        _check_sums(path)
        # timm's training script keeps its arguments beside the weights, in this one class.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = [name for name in _names_called(path) if not _is_harmless(name)]
        if not called:
            raise _damaged(path, error) from error
        raise ModelError(
            f"checkpoint {path}: holds more than weights ({called[0]}), which would have to be run "
            "to be read: save model.state_dict() alone, as .safetensors"
        ) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _check_sums(path: Path) -> None:
    """Compare the sums in torch's archive with what is there: torch itself does not.

    Raises:
        BadZipFile: part of it has changed since it was written.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is not None:
            raise zipfile.BadZipFile(f"the checksum of {changed} is wrong")


def _is_harmless(name: str) -> bool:
    return name.startswith(_HARMLESS) and not name.startswith("torch.nn.modules.")


def _names_called(path: Path) -> list[str]:
    """Return what a pickle would import, in its order, by looking at its opcodes only."""
    found, texts = [], [""]
    try:
        for opcode, argument, _ in pickletools.genops(_pickle_bytes(path)):
            if opcode.name == "GLOBAL":
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # where the opcodes end in nonsense, what came before still counts
        return found
    return found


def _pickle_bytes(path: Path) -> bytes:
    """Return the pickle within torch's archive, or the whole file of the older form."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"checkpoint {path}: damaged or no checkpoint ({_reason(error)}): fetch it again"
    )


def _reason(error: Exception) -> str:
    """Return torch's complaint without its advice to trust the file after all."""
    if isinstance(error, _NO_PICKLE):
        return "no pickle of weights"
    return one_line(error).partition(". ")[0][:160]


def _weights_of(content: object, path: Path) -> StateDict:
    """Find the weights within what a training run saved."""
    while isinstance(content, Mapping):
        inner = next(
            (content[key] for key in _WEIGHTS_KEYS if isinstance(content.get(key), Mapping)), None
        )
        if inner is None:
            weights = {str(key): value for key, value in content.items() if _is_tensor(value)}
            if weights and len(weights) == len(content):
                return _cleaned(weights)
            break
        content = inner
    raise ModelError(
        f"checkpoint {path}: holds no weights by name (a state dict, or one under "
        f"{', '.join(_WEIGHTS_KEYS)})"
    )


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _cleaned(weights: StateDict) -> StateDict:
    """Drop the prefixes that wrappers put before every name."""
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights
