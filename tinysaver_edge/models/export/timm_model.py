"""A timm name and the place of its weights → a torch model that is ready to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.packages import needs, unlogged
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.timm_file import sized_model
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.export.catalogue import nearest
from tinysaver_edge.models.export.checkpoint import (
    PUBLISHED_HEAD,
    StateDict,
    fitted,
    is_published_efficientnet,
    read_weights,
)
from tinysaver_edge.models.export.checkpoint import SUFFIXES as CHECKPOINT_SUFFIXES
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Resize,
    ResizePolicy,
)

Timm: TypeAlias = Any  # the package
Module: TypeAlias = Any  # torch.nn.Module

_POLICIES = {
    "center": ResizePolicy.CENTER_CROP,
    "squash": ResizePolicy.SQUASH,
    "border": ResizePolicy.LETTERBOX,
}
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class TimmSource:
    """Which of timm's models, and whose weights.

    Attributes:
        name: timm's name, ``"lcnet_050"`` or with the weights ``"lcnet_050.ra2_in1k"``.
        checkpoint: a file of weights; None takes those that timm publishes, from the hub.
        random_seed: makes random weights of it instead of reading any, for measurements of speed.
        num_classes: how many classes it tells apart; None for as many as its weights do.
        image_size: side of the picture in pixels; None for the one that its weights are for.
    """

    name: str
    checkpoint: Path | None = None
    random_seed: int | None = None
    num_classes: int | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.random_seed is not None:
            raise InputError(f"model {self.name}: give a checkpoint or random weights, not both")
        if self.num_classes is not None and self.num_classes < 1:
            raise InputError(f"model {self.name}: num_classes must be at least 1")
        if self.num_classes is not None and self.checkpoint is None and self.random_seed is None:
            raise InputError(
                f"model {self.name}: the published weights are for their own classes; for "
                f"{self.num_classes} others give the checkpoint that was trained on them"
            )


@dataclass(frozen=True, slots=True)
class TimmModel:
    """A torch model and what timm says of it.

    Attributes:
        module: the model, in evaluation mode; takes float32 NCHW RGB, answers ``(n, classes)``.
        preprocess: how a frame becomes its input, nothing folded.
        labels: names of ImageNet's classes where the published weights answer with them.
    """

    source: TimmSource
    module: Module
    preprocess: Preprocess
    num_classes: int
    labels: tuple[str, ...] | None

    @property
    def parameters(self) -> int:
        """How many numbers it learnt."""
        return sum(one.numel() for one in self.module.parameters())


def load_timm(source: TimmSource) -> TimmModel:
    """Build one of timm's models with its weights.

    Raises:
        InputError: timm knows no such name; suggests the nearest.
        ModelError: the weights cannot be had or do not fit, or the model classifies nothing.
        MissingDependencyError: timm or torch is not installed.
    """
    timm = _import()
    _check_name(timm, source.name)
    weights = read_weights(source.checkpoint) if source.checkpoint is not None else None
    module = _create(timm, source, _classes_asked(timm, source, weights))
    if weights is not None:
        _load(module, weights, source)
    module = module.eval()
    preprocess = _preprocess(timm, module, source)
    classes = _count_classes(module, preprocess, source)
    published = weights is None and source.random_seed is None
    labels = imagenet_labels() if published and classes == _IMAGENET_CLASSES else None
    return TimmModel(source, module, preprocess, classes, labels)


def _import() -> Timm:
    with needs(extra="timm", purpose="Building timm's models"):
        import timm
        import timm.data
    return timm


def _check_name(timm: Timm, name: str) -> None:
    architecture, _, tag = name.partition(".")
    if name.endswith(CHECKPOINT_SUFFIXES):
        raise InputError(
            f"model {name!r}: the name of a file; give timm's name of the model, and the file as "
            "its checkpoint"
        )
    if not timm.is_model(architecture):
        raise InputError(f"timm {timm.__version__} has no model {name!r}{_like(name, timm)}")
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        there = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise InputError(f"timm {timm.__version__} has no weights {name!r}; there are {there}")


def _like(name: str, timm: Timm) -> str:
    like = nearest(name.partition(".")[0], timm.list_models())
    return f": did you mean {' or '.join(like)}?" if like else ""


def _classes_asked(timm: Timm, source: TimmSource, weights: StateDict | None) -> int | None:
    """Return how many classes to build for: as asked, else as many as a checkpoint answers with."""
    if source.num_classes is not None or weights is None:
        return source.num_classes
    config = timm.get_pretrained_cfg(source.name)
    heads = getattr(config, "classifier", None) or ()
    for head in (PUBLISHED_HEAD, *((heads,) if isinstance(heads, str) else heads)):
        if f"{head}.weight" in weights:
            return int(weights[f"{head}.weight"].shape[0])
    return None


def _create(timm: Timm, source: TimmSource, num_classes: int | None) -> Module:
    import torch

    settings: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    settings["pretrained"] = source.checkpoint is None and source.random_seed is None
    try:
        # The hub's log tells of every attempt; its bar, of how far the download has come, stays.
        with torch.random.fork_rng(devices=[]), unlogged():
            torch.manual_seed(source.random_seed or 0)
            return _sized(timm, source, settings)
    except Exception as error:
        if not settings["pretrained"]:
            raise ModelError(f"model {source.name}: timm cannot build it: {one_line(error)}") from (
                error
            )
        raise ModelError(
            f"model {source.name}: its weights cannot be fetched from the hub "
            f"({one_line(error).partition('. ')[0][:200]}): check the network, or give a "
            "checkpoint"
        ) from error


def _sized(timm: Timm, source: TimmSource, settings: Mapping[str, Any]) -> Module:
    if source.image_size is None:
        return timm.create_model(source.name, **settings)
    return sized_model(source.name, (source.image_size, source.image_size), settings)


def _load(module: Module, weights: StateDict, source: TimmSource) -> None:
    where = f"checkpoint {source.checkpoint}: does not fit {source.name}"
    own = module.state_dict()
    if is_published_efficientnet(weights) and not source.name.startswith("tf_"):
        raise InputError(
            f"{where}: it is one of those from TensorFlow, which pad pictures otherwise: name "
            f"tf_{source.name}"
        )
    weights = fitted(weights, own)
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in own]
    if missing or unknown:
        raise ModelError(
            f"{where}: {len(missing)} of {len(own)} weights are missing"
            f"{_first(missing)}, {len(unknown)} are unknown{_first(unknown)}"
        )
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise ModelError(
                f"{where}: {name} is {tuple(value.shape)}, the model's {tuple(own[name].shape)}"
            )
    module.load_state_dict(weights)


def _first(names: list[str]) -> str:
    return f" ({names[0]}, …)" if names else ""


def _preprocess(timm: Timm, module: Module, source: TimmSource) -> Preprocess:
    config = timm.data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise ModelError(f"model {source.name}: takes {channels} channels, a frame has 3")
    if source.image_size is not None:
        height = width = source.image_size
    mean, std = config["mean"], config["std"]
    return Preprocess(
        Resize(
            height,
            width,
            policy=_POLICIES.get(config["crop_mode"], ResizePolicy.CENTER_CROP),
            crop_ratio=min(1.0, float(config["crop_pct"])),
        ),
        InputFormat(
            Layout.NCHW,
            "float32",
            ColorOrder.RGB,
            tuple(1 / (255 * one) for one in std),
            tuple(-one / other for one, other in zip(mean, std, strict=True)),
        ),
    )


def _count_classes(module: Module, preprocess: Preprocess, source: TimmSource) -> int:
    """Run the model once: nothing else tells for sure what it answers with.

    Raises:
        ModelError: it takes no such picture, or what it answers is no list of class scores.
    """
    import torch

    if not getattr(module, "num_classes", 1):
        raise ModelError(
            f"model {source.name}: has no classifier head, it makes features: give a checkpoint "
            "with a head and its num_classes"
        )
    with torch.no_grad():
        try:
            answer = module(torch.zeros(preprocess.shape(1)))
        except Exception as error:
            raise ModelError(
                f"model {source.name}: takes no picture of {preprocess.resize.height} × "
                f"{preprocess.resize.width}: {one_line(error)}"
            ) from error
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2:
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ModelError(f"model {source.name}: has no classifier head, it answers with {found}")
    return int(answer.shape[1])


def imagenet_labels() -> tuple[str, ...]:
    """Return ImageNet's classes by name; two that share one get their synset's number besides.

    Raises:
        MissingDependencyError: timm or torch is not installed.
    """
    info = _import().data.ImageNetInfo("imagenet-1k")
    names = [info.index_to_description(place) for place in range(_IMAGENET_CLASSES)]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({info.index_to_label_name(place)})"
        for place, name in enumerate(names)
    )


def exportable(module: Module, *, merge: bool = True) -> Module:
    """Return a copy that answers the same, in operations that exporters and counters know.

    Attention in one piece is taken apart into matrix products: what torch takes it apart into when
    it exports does not always fit what comes after it.

    Args:
        module: one of timm's models, in evaluation mode.
        merge: merge the branches that only training needs. MobileOne, RepVGG, RepViT, FastViT and
            others take fewer multiplications then; other models have none.
    """
    from copy import deepcopy

    from timm.utils.model import reparameterize_model

    copy = reparameterize_model(module, inplace=False) if merge else deepcopy(module)
    for layer in copy.modules():
        if getattr(layer, "fused_attn", False):
            layer.fused_attn = False
    return copy.eval()
