"""PyTorch: the reference that exported models are held against; timm's models on CPU or CUDA.

A GPU is kept busy with page-locked memory, a stream of its own and CUDA graphs: a large model is
hundreds of small kernels, and at a batch of one the processor takes longer to start them than the
GPU to run them; a graph starts them all at once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import needs
from tinysaver_edge.engines.base import Engine, ModelSignature, Precision
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.timm_file import (
    Architecture,
    Module,
    read_architecture,
    read_module,
)
from tinysaver_edge.errors import EngineError
from tinysaver_edge.preprocess import Batch

Torch: TypeAlias = Any  # the package
Device: TypeAlias = Any  # torch.device
Tensor: TypeAlias = Any  # torch.Tensor

MOST_GRAPHS = 4
"""Sizes of batches that are recorded; later ones run kernel by kernel. Each takes memory."""

_RECORDING = threading.Lock()
"""Nobody may wait for the whole GPU while one records, and beginning to record does."""

_WARM_UPS = 3
"""Runs before a recording: what libraries choose and allocate at first must not be in it."""

_AMPERE = (8, 0)
"""Compute capability of the first GPUs that have TF32 and bfloat16."""


class TorchEngine(Engine):
    """Runs a .safetensors that `models export` wrote, with torch and timm.

    Devices are ``"cpu"``, ``"cuda"`` and ``"cuda:1"``. Frames go in as uint8 NHWC BGR. Float32 is
    float32 on CUDA too: TF32 is off while the model runs, unless it is the precision asked for.
    ``options.threads`` sets the number of threads of the whole process, torch has no other.

    On CUDA, frames and answers cross the bus from and to page-locked memory, and the first few
    sizes of batches are replayed as CUDA graphs where ``options.graphs`` lets them; `graphed` says
    which, and `refused_graphs` which were tried in vain, and why.
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

    @property
    def graphed(self) -> tuple[int, ...]:
        """Sizes of batches that are replayed as CUDA graphs by now."""
        return () if self._cuda is None else self._cuda.graphed

    @property
    def refused_graphs(self) -> dict[int, str]:
        """Sizes of batches that could not be replayed, and why."""
        return {} if self._cuda is None else dict(self._cuda.refused)

    def _load(self) -> tuple[str, ModelSignature]:
        torch = _import()
        device, fell_back = _device(torch, self.options.device, self.options.allow_fallback)
        if fell_back:
            self.precision, self.fell_back = Precision.FLOAT32, True
        _require_precision(torch, device, self.precision)
        architecture, module = read_module(self.model)
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        self._torch, self._device, self._cuda = torch, device, None
        self._answer = _answerer(torch, module, architecture, device, self.precision)
        if device.type == "cuda":
            _deprecated_once(torch, device)
            self._cuda = CudaRunner(
                torch,
                device,
                self._answer,
                sample_shape=(architecture.height, architecture.width, 3),
                classes=architecture.num_classes,
                graphs=self.options.graphs,
            )
        self._run(np.zeros((1, architecture.height, architecture.width, 3), np.uint8))
        return str(device), _signature(architecture)

    def _run(self, batch: Batch) -> NDArray[Any]:
        try:
            if self._cuda is not None:
                return self._cuda.run(batch)
            with self._torch.inference_mode():
                frames = self._torch.from_numpy(np.ascontiguousarray(batch))
                raw: NDArray[Any] = self._answer(frames).numpy()
        except RuntimeError as error:
            raise EngineError(
                f"{self.model.name} failed on {self._device} in {self.precision.value} with a "
                f"batch of {batch.shape}: {one_line(error)}"
            ) from error
        return raw

    def _release(self) -> None:
        del self._answer
        self._cuda = None


def _import() -> Torch:
    with needs("torch", extra="timm", purpose="Running models with engine torch"):
        import torch
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
    if name in there:
        return torch.device(name), False
    if name == "cuda" and count:
        return torch.device("cuda", torch.cuda.current_device()), False
    if allow_fallback:
        return torch.device("cpu"), True
    raise EngineError(
        f"engine torch has no device {name} here, only {', '.join(there)}: ask for one of these, "
        "or install the build of torch that has it"
    )


def _require_precision(torch: Torch, device: Device, precision: Precision) -> None:
    """Refuse a precision that the device would only imitate."""
    there = [Precision.FLOAT32, Precision.FLOAT16, Precision.BFLOAT16]
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= _AMPERE
        there = list(Precision) if new else [Precision.FLOAT32, Precision.FLOAT16]
    if precision not in there:
        raise EngineError(
            f"{device} cannot compute in {precision.value} here, it has "
            f"{', '.join(one.value for one in there)}"
        )


def _answerer(
    torch: Torch, module: Module, architecture: Architecture, device: Device, precision: Precision
) -> Callable[[Tensor], Tensor]:
    """Return the whole model as a function on its device, from uint8 frames to float32 logits."""
    tf32 = precision is Precision.TF32
    kind = torch.float32 if tf32 else getattr(torch, precision.value)
    model = module.to(device, kind)
    multiply = _channels(torch, architecture.multiply, device)
    add = _channels(torch, architecture.add, device)

    def answer(frames: Tensor) -> Tensor:
        picture = frames.permute(0, 3, 1, 2).flip(1).float()
        picture = picture * multiply + add
        with _float32_as(torch, device, tf32=tf32):
            return model(picture.contiguous().to(kind)).float()

    return answer


def _channels(torch: Torch, values: tuple[float, ...], device: Device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)


def _deprecated_once(torch: Torch, device: Device) -> None:
    """Let torch say now, unheard, that of the two forms of `_float32_as` it likes the newer one.

    It says so once a process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _float32_as(torch, device, tf32=False):
            pass


@contextmanager
def _float32_as(torch: Torch, device: Device, *, tf32: bool) -> Iterator[None]:
    """Say for a while whether CUDA may compute float32 with the ten bits of mantissa of TF32.

    Torch keeps each of these settings twice, and refuses to be asked about one of which only the
    newer form was set. So both are set, and the newer one is what is read and put back.
    """
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    places = (matmul, cudnn.conv, cudnn.rnn)
    before = [place.fp32_precision for place in places]
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32 = before[0] == "tf32"
        cudnn.allow_tf32 = before[1] == "tf32"
        for place, value in zip(places, before, strict=True):
            if place.fp32_precision != value:
                place.fp32_precision = value


class _Recorded(NamedTuple):
    """A graph and where it reads and writes."""

    graph: Any
    frames: Tensor
    answer: Tensor


class CudaRunner:
    """Runs batches on one GPU. For one thread at a time.

    Args:
        torch: the package.
        device: the GPU.
        answer: the model, from uint8 frames on the GPU to float32 logits there.
        sample_shape: of one frame.
        classes: how many logits a frame has.
        graphs: record the first `MOST_GRAPHS` sizes of batches, and replay them.

    Attributes:
        refused: sizes of batches that could not be recorded, and why.
    """

    def __init__(
        self,
        torch: Torch,
        device: Device,
        answer: Callable[[Tensor], Tensor],
        *,
        sample_shape: tuple[int, int, int],
        classes: int,
        graphs: bool,
    ) -> None:
        self._torch, self._device, self._answer = torch, device, answer
        self._sample_shape, self._classes, self._graphs = sample_shape, classes, graphs
        self._stream = torch.cuda.Stream(device)
        # Who waits sleeps: a thread that spins takes a core from the saver.
        self._done = torch.cuda.Event(blocking=True)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[int, _Recorded] = {}
        self.refused: dict[int, str] = {}
        self._make_room(1)

    @property
    def graphed(self) -> tuple[int, ...]:
        """Sizes of batches that are replayed by now."""
        return tuple(sorted(self._recorded))

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Answer a batch, in memory that the next call writes to.

        Raises:
            RuntimeError: torch's, when the run failed.
        """
        torch, count = self._torch, len(batch)
        if count > len(self._frames):
            self._make_room(count)
        np.copyto(self._frames.numpy()[:count], batch)
        with torch.cuda.device(self._device), torch.inference_mode():
            if self._graphs and self._may_record(count):
                with _RECORDING:
                    self._record(count)
            with torch.cuda.stream(self._stream):
                answer = self._started(count)
                self._logits[:count].copy_(answer, non_blocking=True)
                self._done.record(self._stream)
            self._done.synchronize()
        logits: NDArray[np.float32] = self._logits.numpy()[:count]
        return logits

    def _make_room(self, count: int) -> None:
        """Take page-locked memory for batches of up to so many frames."""
        torch = self._torch
        self._frames = torch.empty((count, *self._sample_shape), dtype=torch.uint8, pin_memory=True)
        self._logits = torch.empty((count, self._classes), dtype=torch.float32, pin_memory=True)

    def _started(self, count: int) -> Tensor:
        """Have the GPU begin with the frames that lie in page-locked memory."""
        waiting = self._frames[:count]
        recorded = self._recorded.get(count)
        if recorded is None:
            return self._answer(waiting.to(self._device, non_blocking=True))
        recorded.frames.copy_(waiting, non_blocking=True)
        recorded.graph.replay()
        return recorded.answer

    def _may_record(self, count: int) -> bool:
        tried = len(self._recorded) + len(self.refused)
        return count not in self._recorded and count not in self.refused and tried < MOST_GRAPHS

    def _record(self, count: int) -> None:
        """Record a size of batches, and keep it if its answers are the model's own to the bit."""
        torch = self._torch
        try:
            with torch.cuda.stream(self._stream):
                frames = self._frames[:count].to(self._device, non_blocking=True)
                for _ in range(_WARM_UPS):
                    expected = self._answer(frames)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ):
                answer = self._answer(frames)
            with torch.cuda.stream(self._stream):
                graph.replay()
                same = torch.equal(answer, expected)
        except RuntimeError as error:
            self.refused[count] = one_line(error)
            return
        if same:
            self._recorded[count] = _Recorded(graph, frames, answer)
        else:
            farthest = float((answer - expected).abs().max())
            self.refused[count] = f"its answers differ by up to {farthest:.2g} from those without"
