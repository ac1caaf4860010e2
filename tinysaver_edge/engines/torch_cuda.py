"""How the torch engine keeps a GPU busy: page-locked memory, a stream of its own, CUDA graphs.

A large model is hundreds of small kernels, and at a batch of one the processor takes longer to
start them than the GPU to run them: a graph starts them all at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.model_file import one_line
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
