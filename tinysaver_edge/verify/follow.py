"""Follow a tag: what is pushed under it is fetched, proven, tried, and kept or rolled back.

A bundle that comes is proven in a process of its own, so that one that crashes or hangs takes
nothing with it; then it is loaded beside the one that decides, and takes over between two frames.
For its trial time it is watched. Where it fails, the former, which is loaded still, takes over
again, and the failed one is not tried again until it has changed.
"""

from __future__ import annotations

import functools
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge.bundle.bundle import Bundle, check_target, read_signature
from tinysaver_edge.bundle.shipping import SpoiledError, parted, pull_bundle, told_sha256
from tinysaver_edge.bundle.signature import SIGNATURE
from tinysaver_edge.bundle.store import BundleStore, Held
from tinysaver_edge.bundle.target import Tagged, open_target
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.decision import Decision
from tinysaver_edge.errors import BundleError, InputError, TinySaverError, TransferError
from tinysaver_edge.stream.drift.watch import Watch
from tinysaver_edge.stream.sinks.queued import reason_of
from tinysaver_edge.stream.sources.source import Frame
from tinysaver_edge.stream.telemetry.events import BundleNews, Event, Listener, ignore
from tinysaver_edge.stream.telemetry.hosts import hosts_of
from tinysaver_edge.stream.telemetry.metrics import NO_METRICS, Counter, Metrics, Reading, reading
from tinysaver_edge.verify.run import why_unproven
from tinysaver_edge.verify.trial import OnTrial

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.bundle.manifest import Manifest
    from tinysaver_edge.bundle.signature import Trust

TELL_AGAIN_S = 600.0
"""How often it is told that a target stays away."""

LONGEST_PAUSE = 8
"""So many polls lie between two at most while the target is away."""

_STEP_S, _RELEASE_S = 0.1, 30.0


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How a tag is followed.

    Attributes:
        poll_s: seconds from one look at the tag to the next; a fifth more or less, by chance, so
            that a fleet does not ask all at once.
        trial_s: how long a bundle is watched, from its first decision on.
        proof_s: how long it may take to load and to answer its golden samples.

    Raises:
        InputError: a figure is not above 0.
    """

    poll_s: float = 60.0
    trial_s: float = 600.0
    proof_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("poll_s", "trial_s", "proof_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}: must be above 0")


@dataclass(frozen=True, slots=True)
class Running:
    """A bundle that is loaded, and its watch once it has decided."""

    bundle: Bundle
    cascade: Cascade
    watch: Watch | None = None

    def close(self) -> None:
        """Let go of its models. Legal in every state."""
        self.cascade.close()
        self.bundle.close()


TakeOver = Callable[[Running], "tuple[Watch, threading.Event]"]
"""Has a bundle decide; returns its watch, and what is set once the former may go."""


class Follower:
    """Follows a tag for a running stream, whose decisions `saw` hears and events `heard`.

    A context manager with a thread of its own.

    Args:
        tag: ``TARGET:TAG``.
        store: where bundles are kept; open.
        running: what decides at first.
        take_over: has another decide.
        load: loads a bundle beside it; by default as it is.
        trust: whose signature is needed; None takes what is whole.
        options: how often, and how long.
        proof: what it takes to prove a bundle in another process, as for `why_unproven`.
        clock: seconds.
        listener: hears what becomes of bundles.
        metrics: counts it.
        seed: decides by how much polls are early or late.

    Raises:
        InputError: there is no tag, or no such target.
    """

    def __init__(
        self,
        tag: str,
        store: BundleStore,
        running: Running,
        take_over: TakeOver,
        *,
        load: Callable[[Bundle], Cascade] = Cascade.from_bundle,
        trust: Trust | None = None,
        options: FollowOptions | None = None,
        proof: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        listener: Listener = ignore,
        metrics: Metrics = NO_METRICS,
        seed: int | None = None,
    ) -> None:
        self._fetch = Fetch(tag, store, trust=trust, proof=proof, options=options)
        self._store, self._options = store, options or FollowOptions()
        self._take_over, self._load, self._clock = take_over, load, clock
        self._listener, self._metrics = listener, metrics
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._trial: OnTrial | None = None
        self._away, self._told_s = 0, -float("inf")
        self._owed: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self.running = running

    def saw(self, decision: Decision, frame: Frame | None = None) -> None:
        """Hear of a decision."""
        if (trial := self._trial) is not None:
            trial.saw(decision)

    def heard(self, event: Event, /) -> None:
        """Hear of an event."""
        if (trial := self._trial) is not None:
            trial.heard(event)

    def readings(self) -> Iterable[Reading]:
        """Return which bundle decides, for the metrics."""
        by, labels = self.running.bundle.identity, ("name", "version", "sha256")
        values = (by.name or "", str(by.version or ""), by.sha256[:16])
        yield Reading("bundle_info", "The bundle that decides", ((values, 1.0),), labels)
        yield reading("bundle_on_trial", "1 during a trial", float(self._trial is not None))

    def __enter__(self) -> Self:
        while self._store.untold:
            self._tell(*self._store.untold.pop(0))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; what is on trial is tried anew at the next start."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    # The thread

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s()):
            try:
                self.look()
                self._away = 0
            except (TinySaverError, OSError) as error:  # whatever it is, the stream goes on
                self._away += 1
                stopping = self._stopping.is_set()
                if self._clock() - self._told_s >= TELL_AGAIN_S and not stopping:
                    self._told_s = self._clock()
                    why = reason_of(error)
                    self._tell("away", self._fetch.shown, why)

    def _pause_s(self) -> float:
        longer: int = min(2**self._away, LONGEST_PAUSE)
        return self._options.poll_s * longer * self._random.uniform(0.8, 1.2)

    def _tell(self, outcome: str, bundle: str, reason: str = "") -> None:
        self._metrics.count(Counter.BUNDLES, "", detail=outcome)
        self._listener(BundleNews("", self._clock(), outcome, bundle, reason))

    def look(self) -> None:
        """Look at the tag once; try what is new.

        Raises:
            TinySaverError: it cannot be fetched now, or the trusted keys cannot be read.
            OSError: the store's disk fails.
        """
        if self._owed is not None:
            self._owed()
            self._owed = None
        try:
            held = self._fetch.next(self.running.bundle)
        except _RefusedError as refused:
            if self._fetch.spoiled is not None:  # told by that; it is looked for again
                self._told_s = self._clock()
            self._tell("refused", refused.shown, str(refused))
            return
        if held is None or self._stopping.is_set():
            return
        try:
            loaded = self._loaded(held)
        except TinySaverError as error:
            self._store.refuse(str(held), str(error), held.sha256)
            self._tell("refused", str(held), str(error))
            return
        self._try(held, loaded)

    def _loaded(self, held: Held) -> Running:
        bundle = Bundle.load(self._store.path(held), trusted=self._fetch.trust)
        try:
            return Running(bundle, self._load(bundle))
        except BaseException:
            bundle.close()
            raise

    def _try(self, held: Held, loaded: Running) -> None:
        """Have a bundle decide, for good or until it fails."""
        former = self.running
        manifest = loaded.bundle.manifest
        here = hosts_of(loaded.cascade.stages) is None
        try:
            self._store.begin_trial(held)
        except (OSError, InputError):  # full or read-only: none decides that a kill would hide
            loaded.close()
            self._fetch.forget()
            raise
        self._trial = OnTrial(manifest, held.sha256, here=here, clock=self._clock)
        try:
            watch, over = self._take_over(loaded)
        except TinySaverError as error:
            self._fail(held, loaded, str(error), None)
            return
        self.running = replace(loaded, watch=watch)
        self._tell("trial", str(held))
        failure = self._watched(self._trial, watch)
        if failure is not None:
            self.running = former
            over = self._take_over(former)[1]
            self._fail(held, loaded, failure, over)
        elif self._stopping.is_set():
            self._store.pause()
            self._tell("paused", str(held))
        else:
            self._trial = None
            self._settle(self._store.keep)
            self._tell("kept", str(held))
            if self._released(over):
                former.close()

    def _watched(self, trial: OnTrial, watch: Watch) -> str | None:
        """Wait until the trial is over; return why it failed."""
        while True:
            over = trial.over(self._options.trial_s)
            if not watch.vouches:
                last = getattr(getattr(watch, "state", None), "last_alarm", None)
                return f"drift alarm: {last or 'audited answers differ'}"
            if (failure := trial.failure()) is not None:
                return failure
            if over or self._stopping.wait(min(_STEP_S, self._options.trial_s / 20)):
                return None

    def _fail(self, held: Held, failed: Running, reason: str, over: threading.Event | None) -> None:
        self._trial = None
        self._settle(functools.partial(self._store.roll_back, reason))
        self._tell("rolled_back", str(held), reason)
        if over is None or self._released(over):
            failed.close()

    def _settle(self, settled: Callable[[], object]) -> None:
        """Have the store know how a trial ended; where its disk fails, before the next one."""
        try:
            settled()
        except (OSError, InputError):
            self._owed = settled

    def _released(self, over: threading.Event) -> bool:
        """Wait until nothing of a bundle is open; tell whether it is so."""
        due_s = time.monotonic() + _RELEASE_S
        while not over.wait(_STEP_S):
            if self._stopping.is_set() or time.monotonic() > due_s:
                return False  # whoever ends the process ends it
        return True


class _RefusedError(BundleError):
    """A bundle that came is not to decide; the message says why, `shown` which."""

    def __init__(self, shown: str, reason: str) -> None:
        super().__init__(reason)
        self.shown = shown


class Fetch:
    """Fetches what a tag stands for into a store and proves it; arguments as for `Follower`."""

    def __init__(
        self,
        tag: str,
        store: BundleStore,
        *,
        trust: Trust | None,
        proof: dict[str, Any] | None = None,
        options: FollowOptions | None = None,
    ) -> None:
        place, name = parted(tag)
        self._target = open_target(place)
        if name is None:
            raise InputError(f"target {self._target.shown}: name a tag, as in TARGET:stable")
        self._tag, self._store, self.trust = name, store, trust
        self._proof, self._proof_s = proof or {}, (options or FollowOptions()).proof_s
        self._etag: str | None = None
        self.spoiled: str | None = None
        self.refusal: str | None = None
        self.shown = f"{self._target.shown}:{name}"

    def next(self, running: Bundle | None) -> Held | None:
        """Fetch and prove what the tag stands for now; None where that is not new, or was refused.

        Args:
            running: what decides; what comes must name the same classes, and be no older.

        Raises:
            BundleError: it is not to decide.
            TransferError: it cannot be fetched now, or the large model's hosts do not prove it.
        """
        found = self._target.find(self._tag, known=self._etag)
        if found is None:
            return None
        told = told_sha256(found)
        reasons = (self._store.refusal(key) for key in (found.digest, told) if key)
        self.refusal = next((why for why in reasons if why is not None), None)
        here = running is not None and running.identity.sha256 == told
        if here and running is not None and self.trust is not None:  # signed anew, by a new key
            here = told_sha256(found, SIGNATURE) == _sha256_of(read_signature(running.root))
        held = None if here or self.refusal is not None else self._fetched(found, running)
        self._etag = found.etag
        return held

    def _fetched(self, found: Tagged, running: Bundle | None) -> Held | None:
        check_target(self._store.incoming, flag="")  # no bundle is to blame for the store
        try:
            pulled = pull_bundle(
                self._target,
                self._tag,
                self._store.incoming,
                trust=self._trust(running),
                near=[*self._store.paths, *([] if running is None else [running.root])],
                found=found,
            )
        except SpoiledError as error:  # as mended it is called the same: not to be refused for good
            if self.spoiled == found.digest:
                raise TransferError(str(error)) from error
            self.spoiled = found.digest
            self._store.note("refused", self.shown, str(error))
            raise _RefusedError(self.shown, str(error)) from error
        except BundleError as error:
            raise self._refused(self.shown, str(error), found.digest) from error
        self.spoiled, signed = None, pulled.signed
        name, version = (signed.name, signed.version) if signed else (None, None)
        with Bundle.load_untrusted(pulled.path) as bundle:
            sha256, manifest = bundle.identity.sha256, bundle.manifest
        held = self._store.admit(sha256, name=name, version=version)
        why = _other_classes(running, manifest) or why_unproven(
            self._store.path(held), self._proof, timeout_s=self._proof_s
        )
        if why is not None:
            raise self._refused(str(held), why, sha256, found.digest)
        return held

    def forget(self) -> None:
        """Fetch what the tag stands for anew, though it has not changed."""
        self._etag = None

    def _refused(self, shown: str, reason: str, *keys: str) -> _RefusedError:
        self._store.refuse(shown, reason, *keys)
        return _RefusedError(shown, reason)

    def _trust(self, running: Bundle | None) -> Trust | None:
        """Want the name of what decides, and nothing older."""
        if self.trust is None:
            return None
        known = self._store.state.current or (None if running is None else running.identity)
        name, version = (None, None) if known is None else (known.name, known.version)
        floors = [one for one in (version, self.trust.least_version) if one is not None]
        return replace(
            self.trust, name=self.trust.name or name, least_version=max(floors, default=None)
        )


def _sha256_of(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _other_classes(running: Bundle | None, manifest: Manifest) -> str | None:
    """Say which classes differ from those that readers of the decisions know."""
    if running is None or running.manifest.labels == manifest.labels:
        return None
    before, now = running.manifest.labels or [], manifest.labels or []
    return (
        f"it answers with other classes ({len(now)}, {', '.join(now[:3])}, …) than the one that "
        f"decides ({len(before)}, {', '.join(before[:3])}, …): start a run with it by hand"
    )


def begin(
    store: BundleStore,
    given: Path | None,
    tag: str,
    *,
    trust: Trust | None,
    proof: dict[str, Any] | None = None,
    options: FollowOptions | None = None,
) -> Bundle:
    """Open the bundle that a device begins with: the store's, else the given one, else the tag's.

    Args:
        store: open.
        given: a bundle for a store that has none yet.
        tag: ``TARGET:TAG``, which is fetched where there is neither.
        trust: whose signature is needed; it and the others as for `Follower`.
        proof: what it takes to prove one.
        options: how long that may take.

    Raises:
        BundleError: there is none that may decide.
        TransferError: none is here, and none can be fetched.
    """
    for held in (store.state.current, store.state.previous):
        if held is None:
            continue
        try:
            return Bundle.load(store.path(held), trusted=trust)
        except BundleError as error:
            store.note("damaged", str(held), str(error))
            store.untold.append(("damaged", str(held), str(error)))
    if given is not None:
        return Bundle.load(given, trusted=trust)
    fetch = Fetch(tag, store, trust=trust, proof=proof, options=options)
    held = fetch.next(None)
    if held is None:
        raise BundleError(
            f"{fetch.shown}: what it stands for was refused before and has not changed: "
            f"{fetch.refusal}; --retry-refused tries it again"
        )
    store.begin_trial(held)  # there is nothing to go back to
    return Bundle.load(store.path(store.keep()), trusted=trust)
