"""Cascade: asks the saver first and the large model only when the saver is unsure."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.deciding.decider import Clock, Decider
from tinysaver_edge.deciding.memory import CameraMemory, decide_remembering
from tinysaver_edge.deciding.policy import Case, Judge, Policy
from tinysaver_edge.decision import BundleIdentity, Decision, FrameId
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.reuse import ReuseRule

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from tinysaver_edge.bundle.bundle import Bundle
    from tinysaver_edge.bundle.signature import Trust
    from tinysaver_edge.deciding.loading import LoadOptions
    from tinysaver_edge.deciding.stage import Stage
    from tinysaver_edge.fusion import Fusion
    from tinysaver_edge.stream.drift.watch import Watch
    from tinysaver_edge.stream.options import Escalation
    from tinysaver_edge.stream.pipeline import Stream
    from tinysaver_edge.stream.sinks.base import Sink
    from tinysaver_edge.stream.sources.opening import AnySource
    from tinysaver_edge.stream.submissions import DecisionFuture, Submissions
    from tinysaver_edge.stream.telemetry.events import Listener
    from tinysaver_edge.stream.telemetry.metrics import Metrics

__all__ = ["BATCH", "Cascade", "Clock", "Track"]

BATCH = 32
"""Frames that `Cascade.decide_many` gives an engine at a time."""

Reuse = ReuseRule | Literal["bundle"] | None
"""When earlier answers are repeated: by a rule, by the bundle's if it has one, or never."""


class Cascade:
    """Decides frames with a list of stages, cheapest first.

    Thread-safe: calls are served one after the other. A context manager; `close` may be called any
    number of times, from signal handlers too. It does not survive a fork.

    Args:
        stages: at least one; all but the last have a score and a threshold.
        labels: class names, or None to name classes by their index.
        fusion: combines the answers after an escalation; None takes the large model's.
        pool: the weight of what was answered before, for every stage but the first; see `Policy`.
        certified: whether a certificate covers what these stages decide.
        uncovered: why a certificate that is there does not, for `doubt`.
        reuse: when earlier answers of a camera are repeated; None for never. A certificate that
            covers that covers cameras' frames, in `stream` and `track`, and no frame alone.
        identity: of the bundle that they are from, for decisions; None where from none.
        clock: seconds, for timings and for frames that come without a time.
        wall: seconds since 1970, for the time of day of such frames.

    Raises:
        InputError: there are no stages, or the pool does not fit them.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        labels: Sequence[str] | None = None,
        fusion: Fusion | None = None,
        pool: Sequence[float] | None = None,
        certified: bool = False,
        uncovered: str | None = None,
        reuse: ReuseRule | None = None,
        identity: BundleIdentity | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.policy = Policy(
            tuple(stage.policy for stage in stages), fusion, None if pool is None else tuple(pool)
        )
        self.stages = tuple(stages)
        self.labels = None if labels is None else tuple(labels)
        self.reuse, self.identity = reuse, identity
        self._certified, self._uncovered = certified, uncovered
        self._bundle: Bundle | None = None
        self._clock, self._wall = clock, wall
        self._lock, self._calls = threading.Lock(), Calls("a cascade")
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._sequence, self._closed = itertools.count(), False
        self.decider = self._decider(certified and reuse is None)
        self._submissions: Submissions | None = None

    def _decider(self, certified: bool) -> Decider:
        """Return what asks the stages, where a certificate covers the answers or does not."""
        judge = Judge(
            self.policy,
            labels=self.labels,
            certified=certified,
            fell_back=[stage.policy.model for stage in self.stages if stage.engine.fell_back],
            doubt_about=self.stages[-1].engine.doubt_about,
            bundle=self.identity,
        )
        return Decider(self.stages, judge, clock=self._clock)

    def _remembering(self, reuse: Reuse) -> tuple[Decider, Callable[[], CameraMemory] | None]:
        """Return what asks the stages about cameras, and what makes a memory for one of them."""
        rule = self.reuse if reuse == "bundle" else reuse
        if rule is not None and not isinstance(rule, ReuseRule):
            raise InputError(f"reuse {rule!r}: expected 'bundle', None or a ReuseRule(2, 0.1)")
        if rule is None or not rule.reuses:
            return self.decider, None
        as_calibrated = rule == self.reuse
        decider = self._decider(self._certified) if as_calibrated else self.decider
        certified = self._certified and as_calibrated
        return decider, lambda: CameraMemory(rule, certified=certified)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        trusted: str | Path | Trust | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a bundle: check its files, build its engines and run each once to warm it up.

        Args:
            path: the bundle's folder or .zip.
            trusted: whose signature it needs, as for `Bundle.load`.
            clock: as for the constructor.
            wall: as for the constructor.
            options: ``threads``, ``cache_dir``, ``allow_fallback``, ``large``, ``large_worker``
                and ``allow_absent``, each told of in `LoadOptions`.

        Raises:
            BundleError: it is damaged, not signed as it must be, or lacks models.
            EngineError: an engine, device or precision is not to be had here, or a host serves
                another model.
            InputError: a URL cannot be understood, or would send frames out in plain text.
            MissingDependencyError: an engine's package is not installed.
        """
        from tinysaver_edge.bundle.bundle import Bundle

        bundle = Bundle.load(path, trusted=trusted)
        try:
            cascade = cls.from_bundle(bundle, clock=clock, wall=wall, **options)
        except BaseException:
            bundle.close()
            raise
        cascade._bundle = bundle  # a worker that starts again opens its file anew
        return cascade

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        cut: str | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Build a cascade from a bundle that is open, and stays so; see `load`.

        Args:
            bundle: it.
            cut: what is left out of each frame, in words, as `run` has it: other frames than those
                that were collected to be calibrated on are not certified. None says nothing.
            clock: as for `load`; so are the others.
            wall: seconds since 1970.
            options: of its models.
        """
        from tinysaver_edge.bundle import covered
        from tinysaver_edge.deciding.loading import load_stages

        uncovered = covered.why_not_covered(bundle.manifest, cut=cut)
        policy = Policy.from_manifest(bundle.manifest)
        return cls(
            load_stages(bundle, **options),
            labels=bundle.manifest.labels,
            fusion=policy.fusion,
            pool=policy.pool,
            certified=uncovered is None,
            uncovered=None if bundle.manifest.certificate is None else uncovered,
            reuse=None if bundle.manifest.reuse is None else bundle.manifest.reuse.rule,
            identity=bundle.identity,
            clock=clock,
            wall=wall,
        )

    @property
    def doubt(self) -> str | None:
        """Why the certificate does not cover what is decided at this moment, where there is one.

        None if it does, in streams and tracks that repeat answers as the bundle says, if at all.
        It follows what hosts have proven by now; of one answer `Decision.certified` tells.
        """
        return self.doubt_of(self.reuse)

    def doubt_of(self, reuse: ReuseRule | None) -> str | None:
        """Return the same for streams and tracks that repeat answers by a rule, or not at all."""
        if self._certified and self.reuse is not None and reuse != self.reuse:
            return f"its certificate is about cameras whose answers are repeated at {self.reuse}"
        return self.stages[-1].engine.doubt if self._certified else self._uncovered

    def decide(
        self, frame: Frame, *, frame_id: FrameId | None = None, timestamp_s: float | None = None
    ) -> Decision:
        """Answer one frame. Calls from several threads are served one after the other.

        Args:
            frame: uint8, ``(height, width, 3)`` BGR as OpenCV has it, or ``(height, width)`` grey.
            frame_id: which frame it is; by default numbered in the order of calls.
            timestamp_s: when it was taken; by default now, with the time of day.

        Raises:
            InputError: the frame is of another shape or type.
            EngineError: no stage could answer, or the cascade is closed or another process's. When
                only some stage fails, the others' answer comes back, ``degraded``.
        """
        return self._decide(self.decider, None, frame, frame_id, timestamp_s)

    def _decide(
        self,
        decider: Decider,
        memory: CameraMemory | None,
        frame: Frame,
        frame_id: FrameId | None,
        timestamp_s: float | None,
    ) -> Decision:
        self._calls.check()
        with self._calls, self._lock:
            self._check_open()
            started_s = self._clock()
            case = self._new(frame_id, started_s if timestamp_s is None else timestamp_s)
            case.taken_at_s = self._wall() if timestamp_s is None else None
            if memory is not None:
                return decide_remembering(decider, memory, frame, case, started_s=started_s)
            return decider.decide(frame, case, started_s=started_s)

    def decide_many(
        self, frames: Sequence[Frame], *, frame_ids: Sequence[FrameId] | None = None
    ) -> list[Decision]:
        """Answer several frames, each stage taking the undecided ones in batches.

        Answers are those of `decide` up to rounding, timings each frame's share of its batch.

        Args:
            frames: as for `decide`; they may differ in size.
            frame_ids: one for each frame; by default numbered in order.

        Raises:
            InputError: a frame is of another shape or type, or the ids are not as many.
            EngineError: as for `decide`.
        """
        if frame_ids is not None and len(frame_ids) != len(frames):
            raise InputError(f"{len(frame_ids)} frame ids for {len(frames)} frames")
        self._calls.check()
        with self._calls, self._lock:
            self._check_open()
            now_s = self._clock()
            ids: Sequence[FrameId | None] = frame_ids or [None] * len(frames)
            decided: list[Decision] = []
            for start in range(0, len(frames), BATCH):
                part = slice(start, start + BATCH)
                cases = [self._new(frame_id, now_s) for frame_id in ids[part]]
                decided.extend(self.decider.decide_batch(frames[part], cases))
            return decided

    def track(self, *, reuse: Reuse = "bundle") -> Track:
        """Return what decides one camera's frames and remembers them, for a loop of one's own.

            camera = cascade.track()
            while True:
                decision = camera.decide(frame, timestamp_s=...)

        Args:
            reuse: when an earlier answer is repeated: ``"bundle"`` for what was calibrated, if
                anything was; a rule of one's own, as ``ReuseRule(still=2, same=0.1)``, by which
                nothing repeated is certified; None for never. All else is an InputError.
        """
        decider, memory = self._remembering(reuse)
        return Track(self, decider, None if memory is None else memory())

    def stream(
        self,
        *sources: AnySource,
        escalation: Escalation | str = "wait",
        deadline_ms: float | None = None,
        max_in_flight: int = 4,
        sinks: Sequence[Sink] = (),
        listener: Listener | None = None,
        metrics: Metrics | None = None,
        watch: Watch | None = None,
        reuse: Reuse = "bundle",
        min_time_between_escalations_s: float = 0.0,
        escalations_per_minute: int | None = None,
    ) -> Stream:
        """Decide the frames of cameras, files or whatever else gives frames, as they come.

            for decision in cascade.stream("rtsp://camera/1"):
                print(decision.label)

        ``async for`` works as well. Reading, the first stage and the later ones overlap, within
        bounds, and the first stage never waits for the others.

        Args:
            sources: addresses or paths (`tinysaver_edge.stream.sources.uri`), camera numbers,
                iterables of pictures, functions that wait for the next one, or one's own sources.
            escalation: ``"wait"`` gives one final decision a frame, in order; ``"revise"`` the
                first stage's answer at once and a second decision, ``revision`` 1, when the large
                model has answered; ``"local"`` never asks it.
            deadline_ms: how long after a frame was taken its final decision may come; the first
                stage's answer then goes out, ``degraded``. By default 1,000 for live sources, none
                for files and iterables, which wait for the large model instead.
            max_in_flight: frames that wait for the large model at once; more are degraded, too,
                where they have a deadline.
            sinks: take every decision too.
            listener: hears of events: connected, lost, reconnected, dropped and others.
            metrics: takes counters and times.
            watch: audits accepted frames.
            reuse: when a camera's earlier answers are repeated, as for `track`.
            min_time_between_escalations_s: of one source; what comes sooner is degraded.
            escalations_per_minute: of one source, audits included; None for no limit.

        Raises:
            InputError: a source, or an option, cannot be understood.
            EngineError: the cascade is closed.
        """
        from tinysaver_edge.stream.drift.watch import NO_WATCH
        from tinysaver_edge.stream.options import StreamOptions, escalation_from
        from tinysaver_edge.stream.pipeline import Stream
        from tinysaver_edge.stream.telemetry.events import ignore
        from tinysaver_edge.stream.telemetry.metrics import NO_METRICS

        self._calls.check()
        decider, memory = self._remembering(reuse)
        made = Stream(
            decider,
            sources,
            options=StreamOptions(
                escalation=escalation_from(escalation),
                deadline_ms=deadline_ms,
                max_in_flight=max_in_flight,
                min_time_between_escalations_s=min_time_between_escalations_s,
                escalations_per_minute=escalations_per_minute,
            ),
            memory=memory,
            sinks=sinks,
            listener=listener or ignore,
            metrics=metrics or NO_METRICS,
            watch=watch or NO_WATCH,
            clock=self._clock,
            wall=self._wall,
        )
        with self._calls, self._lock:
            self._check_open()
            self._streams = self._streams.union((made,))  # `close` may be reading the former set
        return made

    def take_over(
        self, stream: Stream, *, watch: Watch | None = None, reuse: Reuse = "bundle"
    ) -> threading.Event:
        """Decide a running stream's frames from the next one on; `Stream.switch` tells the rest.

        Args:
            stream: of another cascade.
            watch: audits accepted frames.
            reuse: when a camera's earlier answers are repeated, as for `track`.

        Returns:
            An event that is set when the former cascade may be closed: nothing of it is open.

        Raises:
            EngineError: this cascade is closed.
        """
        from tinysaver_edge.stream.drift.watch import NO_WATCH

        self._calls.check()
        decider, memory = self._remembering(reuse)
        with self._calls, self._lock:
            self._check_open()
            self._streams = self._streams.union((stream,))
            return stream.switch(decider, watch=watch or NO_WATCH, memory=memory)

    def submit(
        self,
        frame: Frame,
        *,
        frame_id: FrameId | None = None,
        timestamp_s: float | None = None,
        deadline_ms: float | None = None,
    ) -> DecisionFuture:
        """Have one frame decided while the caller goes on; ``await`` the future, or ask for it.

        The frame is prepared before this returns: its memory may be used again at once. Frames
        that were submitted later may be answered earlier.

        Args:
            frame: it and its id as for `decide`.
            frame_id: which frame it is.
            timestamp_s: when it was taken; by default now.
            deadline_ms: from now; when it passes before the large model has answered, the first
                stage's answer comes back, ``degraded``. None waits for the large model.

        Returns:
            A future of the decision. It holds an `EngineError` where no stage could answer.

        Raises:
            InputError: the frame, or the deadline, makes no sense.
            EngineError: the cascade is closed, or too many frames wait already.
        """
        from tinysaver_edge.stream.submissions import Submissions

        self._calls.check()
        with self._calls:
            with self._lock:
                self._check_open()
                if self._submissions is None:
                    self._submissions = Submissions(
                        self.decider, calls=self._calls, clock=self._clock, wall=self._wall
                    )
                submissions = self._submissions
            return submissions.submit(
                frame, frame_id=frame_id, timestamp_s=timestamp_s, deadline_ms=deadline_ms
            )

    def _new(self, frame_id: FrameId | None, timestamp_s: float) -> Case:
        return Case(frame_id or FrameId("frame", next(self._sequence)), timestamp_s)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the cascade is closed")

    def close(self) -> None:
        """Let go of the models. Legal in every state, any number of times.

        Submitted frames that wait for the large model get the first stage's answer; streams end.
        Signal handlers, sinks and listeners are not held up: the models go once all has ended.
        """
        self._closed = True
        self._calls.end(self._close, apart=any(one.inside for one in self._streams))

    def _close(self) -> None:
        with self._lock:
            submissions, self._submissions = self._submissions, None
            streams = [one for one in self._streams if one.decider.stages is self.stages]
        with ExitStack() as ends:  # from the last to the first, whatever one of them raises
            ends.callback(self._let_go)
            if submissions is not None:
                ends.callback(submissions.close)
            for stream in streams:
                ends.callback(stream.close)

    def _let_go(self) -> None:
        with self._lock:
            for stage in self.stages:
                stage.close()
            if self._bundle is not None:
                self._bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Track:
    """Decides the frames of one camera, in order, and repeats answers of those that look alike.

    Thread-safe as `Cascade.decide` is; frames of two cameras need two of them.
    """

    def __init__(self, cascade: Cascade, decider: Decider, memory: CameraMemory | None) -> None:
        self._cascade, self._decider, self._memory = cascade, decider, memory

    def decide(
        self, frame: Frame, *, frame_id: FrameId | None = None, timestamp_s: float | None = None
    ) -> Decision:
        """Answer the camera's next frame; arguments and errors are those of `Cascade.decide`.

        Times must rise: where one does not, what came before is forgotten.
        """
        return self._cascade._decide(self._decider, self._memory, frame, frame_id, timestamp_s)

    def forget(self) -> None:
        """Forget what came before: the camera was moved, or comes back after a pause."""
        if self._memory is not None:
            self._memory.forget()
