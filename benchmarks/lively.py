"""Random weights under which every layer matters, to compare two forms of a model with.

Fresh models are easy to export: many start with branches that are multiplied by zero or 1e-6, with
normalisations that have seen nothing, and with logits near zero, where no mistake shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tinysaver_edge.models.export.timm_model import TimmModel
from tinysaver_edge.preprocess import Frame, Preprocessor

Module: TypeAlias = Any  # torch.nn.Module
Tensor: TypeAlias = Any  # torch.Tensor

_NEAR_ZERO = 0.1


def enliven(model: TimmModel, frames: Sequence[Frame], *, seed: int) -> None:
    """Spread constant parameters, fit batch normalisations to pictures, scale logits to about 1.

    Args:
        model: changed in place.
        frames: pictures to fit the normalisations to.
        seed: decides what is drawn.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(Preprocessor(model.preprocess).batch(frames))
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                middle = float(parameter.flatten()[0])
                middle = middle if abs(middle) > _NEAR_ZERO else 0.0
                noise = torch.randn(parameter.shape, generator=generator) * 0.2
                parameter.copy_(middle + noise)
        model.module.train().eval()  # some keep what they computed of the old parameters till then
        _fit_normalisations(model.module, batch)
        logits = model.module(batch)
        spread = float(logits.std())
        if np.isfinite(spread) and spread > 0:
            _scale_head(model.module, 1 / spread)


def _fit_normalisations(module: Module, batch: Tensor) -> None:
    """Let batch normalisations see the pictures once; dropout stays off."""
    import torch

    fitted = [one for one in module.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    fitted += [one for one in module.modules() if isinstance(one, torch.nn.BatchNorm1d)]
    for one in fitted:
        one.train()
        one.momentum = 1.0
    module(batch)
    for one in fitted:
        one.eval()


def _scale_head(module: Module, factor: float) -> None:
    """Multiply the last linear layer."""
    heads = module.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        last = [one for one in head.modules() if hasattr(one, "weight")][-1]
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.mul_(factor)
