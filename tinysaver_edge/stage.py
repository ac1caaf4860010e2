"""Stage: one model of a cascade, ready to run, and when its answer is accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.engines.base import Engine, finite_or_raise
from tinysaver_edge.errors import BundleError
from tinysaver_edge.files import default_cache_dir
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.policy import Policy, StagePolicy
from tinysaver_edge.preprocess import Batch, Frame, Preprocess, Preprocessor

if TYPE_CHECKING:
    from tinysaver_edge.bundle import Bundle
    from tinysaver_edge.engines.remote import RemoteModel


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


def load_stages(
    bundle: Bundle,
    *,
    threads: int | None = None,
    cache_dir: Path | None = None,
    allow_fallback: bool = False,
    large: RemoteModel | None = None,
    large_worker: bool = False,
    allow_absent: bool = False,
) -> list[Stage]:
    """Build every stage of a bundle and run each once.

    Args:
        bundle: an open bundle.
        threads: processor threads for one inference; None leaves it to the engines.
        cache_dir: folder for compiled models; None takes the user's cache folder.
        allow_fallback: where a device is missing, run on the CPU.
        large: hosts that serve the last stage's model; None runs it here.
        large_worker: run the last stage's model in a process of its own.
        allow_absent: do without the last stage's model where its file is not in the bundle.

    Raises:
        BundleError: it holds no models, or not all that are needed; or models and labels differ.
        EngineError: an engine, device or precision is not to be had here.
        MissingDependencyError: an engine's package is not installed.
    """
    artefacts = bundled_artefacts(
        bundle,
        threads=threads,
        cache_dir=cache_dir or default_cache_dir(),
        allow_fallback=allow_fallback,
        elsewhere=large is not None or allow_absent,
    )
    stages: list[Stage] = []
    try:
        for artefact, policy in zip(
            artefacts, Policy.from_manifest(bundle.manifest).stages, strict=True
        ):
            if large is not None and artefact is artefacts[-1]:
                # It was warmed up, and its classes counted, when its hosts were proven.
                engine = _elsewhere(artefact, large, bundle)
                stages.append(Stage(engine, preprocess=artefact.preprocess, policy=policy))
                continue
            if not artefact.files:
                stages.append(_absent(artefact, policy))
                continue
            apart = large_worker and artefact is artefacts[-1]
            stages.append(_apart(artefact, policy) if apart else Stage.opened(artefact, policy))
            classes = stages[-1].warm_up()
            if artefact.classes is not None and classes != artefact.classes:
                raise BundleError(
                    f"bundle {bundle.path}: {artefact.name} answers with {classes} classes, but "
                    f"there are {artefact.classes} labels"
                )
    except BaseException:
        for stage in stages:
            stage.close()
        raise
    return stages


def _elsewhere(artefact: Artefact, large: RemoteModel, bundle: Bundle) -> Engine:
    """Open the last stage's model where others serve it."""
    from tinysaver_edge.engines.remote.bundled import golden_of
    from tinysaver_edge.engines.remote.engine import RemoteEngine

    return RemoteEngine(
        large,
        preprocess=artefact.preprocess,
        output=artefact.output,
        classes=artefact.classes,
        sha256=artefact.sha256,
        codec=artefact.codec,
        golden=golden_of(bundle, artefact.preprocess),
        options=artefact.options,
    )


def _absent(artefact: Artefact, policy: StagePolicy) -> Stage:
    """Hold the place of a model that is not here and that nobody is going to ask."""
    from tinysaver_edge.engines.absent import AbsentEngine

    engine = AbsentEngine(artefact.name, preprocess=artefact.preprocess)
    return Stage(engine, preprocess=artefact.preprocess, policy=policy)


def _apart(artefact: Artefact, policy: StagePolicy) -> Stage:
    """Open a model in a process of its own."""
    from tinysaver_edge.engines.worker import Setup, WorkerEngine

    engine = WorkerEngine(
        Setup(
            artefact.engine,
            artefact.files[0],
            artefact.preprocess,
            artefact.output,
            artefact.options,
        )
    )
    return Stage(engine, preprocess=artefact.preprocess, policy=policy, codec=artefact.codec)
