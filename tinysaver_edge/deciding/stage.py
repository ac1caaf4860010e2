"""Stage: one model of a cascade, ready to run, and when its answer is accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.engines.base import Engine, finite_or_raise
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch, Frame, Preprocess, Preprocessor

CLOSE_S = 10.0
"""How long `Stage.close` waits for a model that is at work."""


class Stage:
    """One model of a cascade.

    Any number of threads may call `ask`: as many at a time as the engine takes, the others wait.
    All else is for one thread at a time.

    Args:
        engine: runs the model.
        preprocess: what the engine's batches are made with.
        policy: the model's name, score and threshold.
        codec: what prepared frames pass before the engine sees them; None where they pass none,
            or the engine itself sees to it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        preprocess: Preprocess,
        policy: StagePolicy,
        codec: Jpeg | None = None,
    ) -> None:
        self.engine = engine
        self.policy = policy
        self.preprocess = preprocess
        self.codec = codec
        self._preprocessor = Preprocessor(preprocess)
        self._turn = threading.BoundedSemaphore(engine.concurrency)
        self._single = self.blank

    @property
    def blank(self) -> Batch:
        """A prepared frame of zeros, in a new array."""
        return np.zeros(self.preprocess.shape(1), np.dtype(self.preprocess.format.dtype))

    @classmethod
    def opened(cls, artefact: Artefact, policy: StagePolicy) -> Stage:
        """Open a model as it was calibrated.

        Raises:
            EngineError: its engine, device or precision is not to be had here.
        """
        return cls(
            artefact.open(), preprocess=artefact.preprocess, policy=policy, codec=artefact.codec
        )

    def with_policy(self, policy: StagePolicy) -> Stage:
        """Return another stage of the same open model."""
        return Stage(self.engine, preprocess=self.preprocess, policy=policy, codec=self.codec)

    def prepare(self, frame: Frame) -> Batch:
        """Return the model input for one frame, in a buffer that the next call fills anew."""
        self._preprocessor.into(frame, self._single[0])
        return self._single

    def prepare_many(self, frames: Sequence[Frame]) -> Batch:
        """Return the model input for several frames, in a new array."""
        return self._preprocessor.batch(frames)

    def resized(self, frame: Frame) -> Frame:
        """Return the frame at the model's size, BGR uint8."""
        return self._preprocessor.resized(frame)

    def ask(self, batch: Batch, *, timeout_s: float | None = None) -> Outputs:
        """Run the model on prepared frames.

        Args:
            batch: the frames.
            timeout_s: after so long nobody waits for the answer any more; see `Engine.infer`.

        Returns:
            The answers, in memory that no later call writes to.

        Raises:
            EngineError: the run failed.
            ModelError: an answer is NaN or infinite.
        """
        if self.codec is not None:
            batch = self.codec.through(batch)
        with self._turn:
            logits = self.engine.infer(batch, timeout_s=timeout_s).copy()
            identity = self.engine.answered_by
        finite_or_raise(logits, model=self.policy.model, where="a frame")
        return Outputs(logits=logits, identity=identity)

    def warm_up(self) -> int:
        """Run the model once, so that the first frame does not pay for what comes first.

        Returns:
            How many classes it answers with.
        """
        return self.ask(self._single).width

    def close(self) -> None:
        """Let go of the model, once it has answered who is asking. Legal in every state.

        A model that does not come back within `CLOSE_S` is left alone: what runs cannot be closed.
        """
        deadline_s = time.monotonic() + CLOSE_S
        turns = 0
        try:
            while turns < self.engine.concurrency:
                if not self._turn.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                    return
                turns += 1
            self.engine.close()
        finally:
            for _ in range(turns):
                self._turn.release()
