"""PyTorch: the reference that exported models are held against; timm's models on CPU or CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.base import Engine, ModelSignature, Precision
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.timm_file import Architecture, read_architecture, read_module
from tinysaver_edge.errors import EngineError, MissingDependencyError
from tinysaver_edge.preprocess import Batch

Torch: TypeAlias = Any  # the package
Device: TypeAlias = Any  # torch.device


class TorchEngine(Engine):
    """Runs a .safetensors that `models export` wrote, with torch and timm.

    Devices are ``"cpu"``, ``"cuda"`` and ``"cuda:1"``. Frames go in as uint8 NHWC BGR. Float32 is
    float32 on CUDA too: TF32 is off while the model runs. ``options.threads`` sets the number of
    threads of the whole process, torch has no other.
    """

    name: ClassVar[str] = "torch"
    suffixes: ClassVar[frozenset[str]] = frozenset({".safetensors"})

    @classmethod
    def accepts_device(cls, device: str) -> bool:
        """Whether the name is one of torch's."""
        kind, _, number = device.partition(":")
        return kind in ("cpu", "cuda") and (not number or number.isdigit())

    @classmethod
    def inspect(cls, model: Path, *, output: str | None = None) -> ModelSignature:
        """Read a file's signature, without its weights."""
        return _signature(read_architecture(model))

    def _load(self) -> tuple[str, ModelSignature]:
        torch = _import()
        architecture, module = read_module(self.model)
        device, fell_back = _device(torch, self.options.device, self.options.allow_fallback)
        if fell_back:
            self.precision, self.fell_back = Precision.FLOAT32, True
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        self._torch, self._device = torch, device
        self._kind = getattr(torch, self.precision.value)
        self._module = module.to(device, self._kind)
        self._multiply = _channels(torch, architecture.multiply, device)
        self._add = _channels(torch, architecture.add, device)
        signature = _signature(architecture)
        self._run(np.zeros((1, architecture.height, architecture.width, 3), np.uint8))
        return str(device), signature

    def _run(self, batch: Batch) -> NDArray[Any]:
        torch = self._torch
        try:
            with torch.inference_mode(), _full_float32(torch, self._device):
                frames = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
                picture = frames.permute(0, 3, 1, 2).flip(1).float()
                picture = picture * self._multiply + self._add
                answer = self._module(picture.contiguous().to(self._kind))
                raw: NDArray[Any] = answer.float().cpu().numpy()
        except RuntimeError as error:
            raise EngineError(
                f"{self.model.name} failed on {self._device} in {self.precision.value} with a "
                f"batch of {batch.shape}: {one_line(error)}"
            ) from error
        return raw

    def _release(self) -> None:
        self._module = self._multiply = self._add = None


def _import() -> Torch:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "torch", extra="timm", purpose="Running models with engine torch"
        ) from error
    return torch


def _signature(architecture: Architecture) -> ModelSignature:
    return ModelSignature(
        input_name="frame",
        input_shape=(None, architecture.height, architecture.width, 3),
        input_dtype="uint8",
        output_name="logits",
        output_shape=(None, architecture.num_classes),
        output_dtype="float32",
    )


def _device(torch: Torch, wanted: str | None, allow_fallback: bool) -> tuple[Device, bool]:
    """Return the device, and whether it is another than was asked for.

    Raises:
        EngineError: there is none of that name here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{number}" for number in range(count))]
    name = wanted or "cpu"
    if name in there or (name == "cuda" and count):
        return torch.device(name), False
    if allow_fallback:
        return torch.device("cpu"), True
    raise EngineError(
        f"engine torch has no device {name} here, only {', '.join(there)}: ask for one of these, "
        "or install the build of torch that has it"
    )


def _channels(torch: Torch, values: tuple[float, ...], device: Device) -> Any:  # noqa: ANN401
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)


@contextmanager
def _full_float32(torch: Torch, device: Device) -> Iterator[None]:
    """Keep CUDA from computing float32 with the ten bits of mantissa of TF32."""
    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value
