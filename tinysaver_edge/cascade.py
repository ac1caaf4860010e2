"""Cascade: asks the saver first and the large model only when the saver is unsure."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge.decision import Decision, FrameId, Source, StageRef
from tinysaver_edge.errors import EngineError, InputError, ModelError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.policy import Policy, is_certified
from tinysaver_edge.preprocess import Batch, Frame, Preprocess

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.bundle import Bundle
    from tinysaver_edge.fusion import Fusion
    from tinysaver_edge.stage import Stage

BATCH = 32
"""Frames that `Cascade.decide_many` gives an engine at a time."""

Clock = Callable[[], float]
"""Seconds from any fixed point, never going back."""


@dataclass(slots=True)
class _Pending:
    """What is known of one frame while it is being decided.

    Attributes:
        score: of the first stage asked.
        position: the last stage that answered, or -1.
        outputs: what it answered.
        early: what the stage before it answered, where both are known.
        accepted: whether the answer settles the matter.
        degraded: which stage failed, and how.
    """

    frame_id: FrameId
    timestamp_s: float
    score: float = math.nan
    position: int = -1
    outputs: Outputs | None = None
    early: Outputs | None = None
    accepted: bool = False
    degraded: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class Cascade:
    """Decides frames with a list of stages, cheapest first.

    Thread-safe: calls from several threads are served one after the other. A context manager;
    `close` may be called any number of times.

    Args:
        stages: at least one; all but the last have a score and a threshold.
        labels: class names, or None to name classes by their index.
        fusion: combines the answers after an escalation; None takes the large model's.
        certified: whether a certificate covers what these stages decide.
        clock: seconds, for timings and for frames that come without a time.

    Raises:
        InputError: there are no stages.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        labels: Sequence[str] | None = None,
        fusion: Fusion | None = None,
        certified: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.policy = Policy(tuple(stage.policy for stage in stages), fusion)
        self.stages = tuple(stages)
        self.labels = None if labels is None else tuple(labels)
        self._asked = self.policy.asked
        self._fell_back = [stage.policy.model for stage in stages if stage.engine.fell_back]
        self._certified = certified and not self._fell_back
        self._clock = clock
        self._lock = threading.Lock()
        self._sequence = itertools.count()
        self._closed = False

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        cache_dir: Path | None = None,
        allow_fallback: bool = False,
        clock: Clock = time.monotonic,
    ) -> Self:
        """Load a bundle: check its files, build its engines and run each once to warm it up.

        Args:
            path: the bundle's folder or .zip.
            threads: processor threads for one inference; None leaves it to the engines.
            cache_dir: folder for compiled models; None takes the user's cache folder.
            allow_fallback: where a device is missing, run on the CPU. Decisions then say so in
                ``degraded`` and are not certified.
            clock: as for the constructor.

        Raises:
            BundleError: the bundle is damaged, or was made from records and holds no models.
            EngineError: an engine, device or precision is not to be had here.
            MissingDependencyError: an engine's package is not installed.
        """
        from tinysaver_edge.bundle import Bundle

        with Bundle.load(path) as bundle:
            return cls.from_bundle(
                bundle,
                threads=threads,
                cache_dir=cache_dir,
                allow_fallback=allow_fallback,
                clock=clock,
            )

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        threads: int | None = None,
        cache_dir: Path | None = None,
        allow_fallback: bool = False,
        clock: Clock = time.monotonic,
    ) -> Self:
        """Build a cascade from a bundle that is already open; see `load`."""
        from tinysaver_edge.stage import load_stages

        stages = load_stages(
            bundle, threads=threads, cache_dir=cache_dir, allow_fallback=allow_fallback
        )
        return cls(
            stages,
            labels=bundle.manifest.labels,
            fusion=Policy.from_manifest(bundle.manifest).fusion,
            certified=is_certified(bundle.manifest),
            clock=clock,
        )

    def decide(
        self,
        frame: Frame,
        *,
        frame_id: FrameId | None = None,
        timestamp_s: float | None = None,
    ) -> Decision:
        """Answer one frame. Calls from several threads are served one after the other.

        Args:
            frame: ``(height, width, 3)`` BGR uint8, as OpenCV gives it, or ``(height, width)``
                grey uint8.
            frame_id: which frame it is; by default numbered in the order of calls.
            timestamp_s: when it was taken; by default now.

        Raises:
            InputError: the frame is of another shape or type.
            EngineError: no stage could answer, or the cascade is closed. When only some stage
                fails, the others' answer comes back with ``degraded`` saying so.
        """
        with self._lock:
            self._check_open()
            started = self._clock()
            pending = self._new(frame_id, started if timestamp_s is None else timestamp_s)
            batch: Batch | None = None
            made_for: Preprocess | None = None
            now = started
            for position in self._asked:
                stage = self.stages[position]
                if batch is None or stage.preprocess != made_for:
                    batch, made_for = stage.prepare(frame), stage.preprocess
                    now = self._spent(pending, "preprocess", since=now)
                try:
                    self._hear(pending, position, stage.ask(batch))
                except EngineError as error:
                    self._fail(pending, position, error)
                now = self._spent(pending, stage.policy.model, since=now)
                if pending.accepted:
                    break
            pending.timings_ms["total"] = (now - started) * 1e3
            return self._decision(pending)

    def decide_many(
        self, frames: Sequence[Frame], *, frame_ids: Sequence[FrameId] | None = None
    ) -> list[Decision]:
        """Answer several frames, each stage taking the undecided ones in batches.

        The answers are those of `decide` up to rounding. Timings are each frame's equal share of
        its batch.

        Args:
            frames: as for `decide`; they may differ in size.
            frame_ids: one for each frame; by default numbered in order.

        Raises:
            InputError: a frame is of another shape or type, or the ids are not as many.
            EngineError: as for `decide`.
        """
        if frame_ids is not None and len(frame_ids) != len(frames):
            raise InputError(f"{len(frame_ids)} frame ids for {len(frames)} frames")
        with self._lock:
            self._check_open()
            now = self._clock()
            ids: Sequence[FrameId | None] = frame_ids or [None] * len(frames)
            decided: list[Decision] = []
            for start in range(0, len(frames), BATCH):
                part = slice(start, start + BATCH)
                pendings = [self._new(frame_id, now) for frame_id in ids[part]]
                self._decide_batch(frames[part], pendings)
                decided.extend(self._decision(pending) for pending in pendings)
            return decided

    def _decide_batch(self, frames: Sequence[Frame], pendings: Sequence[_Pending]) -> None:
        open_ = list(range(len(frames)))
        for position in self._asked:
            if not open_:
                break
            asking = [pendings[index] for index in open_]
            started = self._clock()
            batch = self.stages[position].prepare_many([frames[index] for index in open_])
            started = self._shared(asking, "preprocess", since=started)
            answers = _ask_each(self.stages[position], batch)
            for pending, answer in zip(asking, answers, strict=True):
                if isinstance(answer, Outputs):
                    self._hear(pending, position, answer)
                else:
                    self._fail(pending, position, answer)
            self._shared(asking, self.stages[position].policy.model, since=started)
            open_ = [index for index in open_ if not pendings[index].accepted]
        for pending in pendings:
            pending.timings_ms["total"] = sum(pending.timings_ms.values())

    def _hear(self, pending: _Pending, position: int, outputs: Outputs) -> None:
        """Take in a stage's answer."""
        pending.early, pending.outputs, pending.position = pending.outputs, outputs, position
        policy = self.stages[position].policy
        if position == self._asked[-1]:
            pending.accepted = True
            return
        assert policy.score is not None
        assert policy.threshold is not None
        score = float(policy.score(outputs)[0])
        if position == self._asked[0]:
            pending.score = score
        pending.accepted = score >= policy.threshold

    def _fail(self, pending: _Pending, position: int, error: EngineError) -> None:
        """Go on without a stage's answer, unless no stage has given one."""
        if position == self._asked[-1] and pending.outputs is None:
            raise error
        pending.degraded = f"{self.stages[position].policy.model} failed: {error}"

    def _decision(self, pending: _Pending) -> Decision:
        index, confidence, source = self._answer(pending)
        position = pending.position
        degraded = pending.degraded
        if degraded is None and self._fell_back:
            degraded = f"{', '.join(self._fell_back)} runs on another device than asked for"
        return Decision(
            label=str(index) if self.labels is None else self.labels[index],
            index=index,
            confidence=confidence,
            score=pending.score,
            stage=StageRef(position, self.stages[position].policy.model),
            source=source,
            escalated=position > 0 or source is Source.FALLBACK,
            degraded=degraded,
            certified=self._certified and degraded is None,
            revision=0,
            frame_id=pending.frame_id,
            timestamp_s=pending.timestamp_s,
            timings_ms=pending.timings_ms,
        )

    def _answer(self, pending: _Pending) -> tuple[int, float, Source]:
        """Return the class, its probability and where it comes from."""
        outputs, fusion = pending.outputs, self.policy.fusion
        assert outputs is not None
        last = pending.position == self._asked[-1]
        if last and fusion is not None and pending.early is not None:
            classes, confidences = fusion.fuse(pending.early, outputs)
            return int(classes[0]), float(confidences[0]), Source.FUSED
        source = Source.LARGE if last else Source.SAVER if pending.accepted else Source.FALLBACK
        top_classes, probabilities = outputs.top(1)
        return int(top_classes[0, 0]), float(probabilities[0, 0]), source

    def _new(self, frame_id: FrameId | None, timestamp_s: float) -> _Pending:
        return _Pending(frame_id or FrameId("frame", next(self._sequence)), timestamp_s)

    def _spent(self, pending: _Pending, step: str, *, since: float) -> float:
        now = self._clock()
        pending.timings_ms[step] = pending.timings_ms.get(step, 0.0) + (now - since) * 1e3
        return now

    def _shared(self, pendings: Sequence[_Pending], step: str, *, since: float) -> float:
        now = self._clock()
        share = (now - since) * 1e3 / len(pendings)
        for pending in pendings:
            pending.timings_ms[step] = pending.timings_ms.get(step, 0.0) + share
        return now

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the cascade is closed")

    def close(self) -> None:
        """Let go of the models. Legal in every state, any number of times."""
        with self._lock:
            self._closed = True
            for stage in self.stages:
                stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _ask_each(stage: Stage, batch: Batch) -> list[Outputs | EngineError]:
    """Return what a stage answers to each frame of a batch, or why it does not.

    A model that fails on a frame, by answering NaN, is asked again frame by frame: the others are
    none the worse. An engine that fails is not: that may take its whole timeout each time.
    """
    try:
        logits = stage.ask(batch).logits
    except ModelError as error:
        if len(batch) == 1:
            return [error]
        return [_ask_each(stage, batch[row : row + 1])[0] for row in range(len(batch))]
    except EngineError as error:
        return [error] * len(batch)
    assert logits is not None
    return [Outputs(logits=logits[row : row + 1].copy()) for row in range(len(batch))]
