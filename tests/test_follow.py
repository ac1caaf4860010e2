"""Follow a tag: what is good is kept, what is bad in any of many ways is rolled back."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import plug_ins
from tests.bundle.servers import Server, serving
from tests.colours import LARGE, NAMES, SAVER, colour_model, colour_picture
from tests.command import start
from tests.remote.hosts import remote
from tests.small_bundle import artefact, small_bundle
from tinysaver_edge._support.files import parse_json, sha256_of
from tinysaver_edge.artefact import combined_sha256
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.bundle.shipping import push_bundle
from tinysaver_edge.bundle.signature import SIGNATURE, Trust
from tinysaver_edge.bundle.store import BundleStore
from tinysaver_edge.bundle.target import open_target
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.errors import BundleError, InputError, TransferError
from tinysaver_edge.stream.drift.drift import DriftOptions
from tinysaver_edge.stream.service import Service, ServiceOptions
from tinysaver_edge.stream.sinks.base import CallbackSink
from tinysaver_edge.stream.telemetry.events import BundleNews, Event
from tinysaver_edge.stream.telemetry.metrics import Counter
from tinysaver_edge.verify.follow import Follower, FollowOptions, Running, begin
from tinysaver_edge.verify.run import why_unproven
from tinysaver_edge.verify.trial import OnTrial

pytest.importorskip("cryptography")

from tinysaver_edge.bundle.signing import make_key, sign_bundle

WHITE = np.full((16, 16, 3), 255, np.uint8)
TRIAL_S = 0.8
PATIENCE_S = 90  # a machine that has much else to do takes its time over everything


class Factory:
    """Makes bundles, signs them and pushes them under a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = folder / "shelf"
        self.key = folder / "release.pem"
        make_key(self.key)
        (folder / "keys").mkdir()
        shutil.move(folder / "release.pub.pem", folder / "keys")
        self.trust = Trust(folder / "keys")
        self.good = small_bundle(folder / "good")
        self.versions = 0

    def change(self, name: str, change=lambda told, folder: None, base: Path | None = None) -> Path:
        """Return another bundle: the manifest and the files are what `change` makes of them."""
        made = Path(shutil.copytree(base or self.good, self.folder / name))
        (made / SIGNATURE).unlink(missing_ok=True)
        told = json.loads((made / MANIFEST).read_text())
        told["created_by"] = name
        change(told, made)
        (made / MANIFEST).write_text(json.dumps(told))
        return made

    def push(self, bundle: Path, *, version: int | None = None, sign: bool = True) -> str:
        self.versions = self.versions + 1 if version is None else version
        if sign:
            sign_bundle(bundle, [self.key], name="belt", version=self.versions)
        with closing(open_target(str(self.shelf))) as target:
            push_bundle(bundle, target, "stable")
        return sha256_of(bundle / MANIFEST)


def pictures(stop: threading.Event) -> Iterator[np.ndarray]:
    """A camera of some 400 frames a second; every tenth is white."""
    number = 0
    while not stop.is_set():
        number += 1
        yield WHITE if number % 10 == 0 else colour_picture(number % len(NAMES), number)
        time.sleep(0.0025)


class Device:
    """A stream that follows the tag, with all that stands around it."""

    def __init__(
        self, factory: Factory, place: str, store: BundleStore, *, audit: float = 0.0
    ) -> None:
        self.factory = factory
        self.news: list[BundleNews] = []
        self.by: list[str] = []
        self.sequences: list[int] = []
        self.stop = threading.Event()
        self.opened = begin(store, factory.folder / "first", f"{place}:stable", trust=factory.trust)
        self.cascade = Cascade.from_bundle(self.opened)
        drift = DriftOptions(share=audit, level=0.05) if audit else None
        self.around = Service(
            ServiceOptions(drift=drift), self.opened.manifest,
            clock=time.monotonic, wall=time.time, listener=self.hear,
        )  # fmt: skip
        self.follower = Follower(
            f"{place}:stable", store,
            Running(self.opened, self.cascade, self.around.watch), self.take_over,
            trust=factory.trust, listener=self.around.listener, metrics=self.around.metrics,
            options=FollowOptions(poll_s=0.05, trial_s=TRIAL_S, proof_s=60.0),
        )  # fmt: skip
        self.around.listener.add(self.follower.heard)
        sinks = [CallbackSink(self.follower.saw), CallbackSink(self.saw)]
        self.stream = self.cascade.stream(
            pictures(self.stop), sinks=sinks, listener=self.around.listener,
            metrics=self.around.metrics, watch=self.around.watch,
        )  # fmt: skip
        self.running = threading.Thread(target=self.stream.run, daemon=True)

    def take_over(self, running: Running):
        watch = self.around.switched(running.bundle.manifest, watch=running.watch)
        return watch, running.cascade.take_over(self.stream, watch=watch)

    def hear(self, event: Event, /) -> None:
        if isinstance(event, BundleNews):
            self.news.append(event)

    def saw(self, decision, frame) -> None:
        self.by.append(decision.bundle.sha256)
        self.sequences.append(decision.frame_id.sequence)

    def __enter__(self):
        self.running.start()
        self.follower.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self.follower.__exit__()
        self.stop.set()
        self.running.join(10)
        self.stream.close()
        self.follower.running.close()
        self.cascade.close()

    def outcome(self, *, after: int) -> BundleNews:
        """Wait for what becomes of the next bundle."""
        due_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < due_s:
            found = [one for one in self.news[after:] if one.outcome != "trial"]
            if found:
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f"nothing became of it: {self.news[after:]}")


@pytest.fixture(scope="module")
def factory(tmp_path_factory) -> Factory:
    made = Factory(tmp_path_factory.mktemp("factory"))
    first = made.change("first")
    made.first_sha256 = made.push(first)
    return made


@pytest.fixture
def shelf(factory) -> Iterator[Server]:
    with serving(factory.shelf) as server:
        yield server


def rehash(told, folder: Path, place: str) -> None:
    """Have every entry of a file in the manifest fit the file."""

    def walk(node) -> None:
        if isinstance(node, dict):
            if node.get("path") == place:
                path = folder / place
                node.update(sha256=sha256_of(path), size_bytes=path.stat().st_size)
            for one in node.values():
                walk(one)
        elif isinstance(node, list):
            for one in node:
                walk(one)

    walk(told)


def wrong_hash(factory):
    made = factory.change("wrong-hash", lambda told, folder: other_saver(told, folder, blur=0.19))
    factory.push(made)
    blob = factory.shelf / "blobs/sha256" / sha256_of(made / "models/saver.onnx")
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")


def other_saver(told, folder, **changes):
    colour_model(folder / "models/saver.onnx", replace(SAVER, **changes))
    rehash(told, folder, "models/saver.onnx")


def wrong_signature(factory):
    made = factory.change("wrong-signature")
    sign_bundle(made, [factory.key], name="belt", version=99)
    said = json.loads((made / SIGNATURE).read_text())
    said["statement"] = said["statement"].replace("99", "98")
    (made / SIGNATURE).write_text(json.dumps(said))
    factory.push(made, sign=False, version=factory.versions)


def replayed(factory):
    factory.push(factory.change("replayed"), version=0)


def wrong_golden(factory):
    factory.push(factory.change("golden", lambda told, folder: other_saver(told, folder, blur=0.9)))


def too_slow(factory):
    def promise(told, folder):
        told["latency"] = {"escalation_rate": 0.5, "p95_latency_ms": 1e-4}

    factory.push(factory.change("slow", promise))


def crashes_at_load(factory):
    def crash(told, folder):
        told["stages"][0]["model"]["engine"] = "crashing"

    factory.push(factory.change("crash", crash))


def engine_missing(factory):
    def missing(told, folder):
        told["stages"][0]["model"]["engine"] = "quantum"

    factory.push(factory.change("missing", missing))


def other_classes(factory):
    def rename(told, folder):
        told["labels"] = ["violet", *told["labels"][1:]]

    factory.push(factory.change("classes", rename))


def other_preprocess(factory):
    def wide(told, folder):
        told["stages"][0]["model"]["preprocess"]["resize"].update(width=24, height=24)

    factory.push(factory.change("preprocess", wide))


def drifts(factory):
    """A saver that is sure of everything, and a promise that it never differs."""
    made = factory.folder / "drifting"
    if not made.exists():
        small_bundle(made, thresholds=(0.0,))
        told = json.loads((made / MANIFEST).read_text())
        told["disagreement"].update(accepted=100_000, disagreed=1, upper=0.0001)
        (made / MANIFEST).write_text(json.dumps(told))
    factory.push(made)


def fails_on_white(factory):
    def blind(made):
        if made.name != "saver":
            return made
        path = colour_model(made.files[0], replace(SAVER, nan_above=0.97))
        digest = combined_sha256((path,))
        return replace(made, sha256=digest, source_sha256=digest)

    made = factory.folder / "blind"
    if not made.exists():
        small_bundle(made, shipped=blind)
    factory.push(made)


BAD = {
    wrong_hash: ("refused", "is not what was pushed"),
    wrong_signature: ("refused", "forged or damaged"),
    replayed: ("refused", "older than version"),
    wrong_golden: ("refused", "answers of saver"),
    crashes_at_load: ("refused", "crashed (signal 11)"),
    engine_missing: ("refused", "quantum"),
    other_classes: ("refused", "other classes"),
    other_preprocess: ("refused", "saver"),
    too_slow: ("rolled_back", "p95_latency_ms"),
    fails_on_white: ("rolled_back", "a model failed on"),
    drifts: ("rolled_back", "drift alarm"),
}


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """An engine that takes its process with it, as a broken driver does."""
    (tmp_path / "crash_engine.py").write_text(
        "import os, signal\n"
        "from tinysaver_edge.engines import Engine\n"
        "class CrashEngine(Engine):\n"
        "    name = 'crashing'\n"
        "    suffixes = frozenset({'.onnx'})\n"
        "    @classmethod\n"
        "    def accepts_device(cls, device): return True\n"
        "    def _load(self): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    def _run(self, batch): raise NotImplementedError\n"
    )
    plug_ins.install(tmp_path, monkeypatch, "engines", {"crashing": "crash_engine:CrashEngine"})


def test_a_bad_bundle_of_any_kind_is_rolled_back_and_a_good_one_kept(
    factory, shelf, tmp_path, crashing
):
    """One device meets them all; no frame is lost, and only what was tried has decided."""
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        with Device(factory, shelf.url, store, audit=1.0) as device:
            for make, (outcome, why) in BAD.items():
                after = len(device.news)
                make(factory)
                told = device.outcome(after=after)
                assert (make.__name__, told.outcome) == (make.__name__, outcome), told
                assert why in told.reason, (make.__name__, told.reason)
                if outcome == "rolled_back":
                    assert told.time_s - device.news[after].time_s < TRIAL_S + 3
                assert store.state.trial is None
            after = len(device.news)
            good = factory.push(factory.change("better"))
            assert device.outcome(after=after).outcome == "kept"
            time.sleep(0.3)
            assert device.by[-1] == good
            after = len(device.news)
            time.sleep(0.3)  # six polls: nothing bad is tried again
            assert device.news[after:] == []
        tally = device.around.tally
        assert device.sequences == list(range(len(device.sequences)))
        assert tally.total(Counter.UNDECIDED) == 0
        assert len(set(device.by)) == 2 + sum(one == "rolled_back" for one, _ in BAD.values())
        for name in ("refused", "rolled_back", "kept"):
            expected = sum(one == name for one, _ in BAD.values()) + (name == "kept")
            assert tally.total(Counter.BUNDLES, detail=name) == expected
        info = {one.name: one.samples for one in device.follower.readings()}
        assert info["bundle_info"][0][0][2] == good[:16]
        assert len(store.paths) == 1
    lines = (tmp_path / "store/history.jsonl").read_text().splitlines()
    outcomes = [parse_json(line)["outcome"] for line in lines]
    assert outcomes.count("refused") == sum(one == "refused" for one, _ in BAD.values())
    assert outcomes[-2:] == ["trial", "kept"]
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        opened = begin(store, None, f"{shelf.url}:stable", trust=factory.trust)
        assert opened.identity.sha256 == good


def test_a_registry_that_dies_leaves_the_stream_as_it_is(factory, shelf, tmp_path):
    with (
        BundleStore(tmp_path / "store", wall=time.time) as store,
        Device(factory, shelf.url, store) as device,
    ):
        shelf.hang_up_after, shelf.cut = 100, "/blobs/"
        factory.push(factory.change("dying"))
        assert device.outcome(after=0).outcome == "away"
        shelf.dead = True
        count, due_s = len(device.by), time.monotonic() + PATIENCE_S
        while len(device.by) <= count + 20:
            assert time.monotonic() < due_s
            time.sleep(0.02)
        assert set(device.by) == {device.opened.identity.sha256}
        shelf.dead, shelf.hang_up_after = False, None
        assert device.outcome(after=1).outcome == "kept"


def test_what_is_mended_at_the_target_is_taken_though_it_is_called_the_same(
    factory, shelf, tmp_path
):
    mended = factory.change("mended")
    factory.push(mended)
    blob = factory.shelf / "blobs/sha256" / sha256_of(mended / MANIFEST)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        with Device(factory, shelf.url, store) as device:
            assert "push the bundle again" in device.outcome(after=0).reason
            with closing(open_target(str(factory.shelf))) as target:
                push_bundle(mended, target, "stable")
            kept(device)
        assert store.state.current.sha256 == sha256_of(mended / MANIFEST)
        assert store.state.refused == {}


def kept(device) -> None:
    due_s = time.monotonic() + PATIENCE_S
    while not any(one.outcome == "kept" for one in device.news):
        assert time.monotonic() < due_s, device.news
        time.sleep(0.02)


def test_a_bundle_that_is_signed_anew_replaces_what_the_old_key_signed(factory, shelf, tmp_path):
    """Keys change: the device must not be left with what only the old one has signed."""
    first = Path(shutil.copytree(factory.folder / "first", tmp_path / "first"))
    factory.push(first)
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        with Device(factory, shelf.url, store) as device:
            factory.push(first)
            due_s = time.monotonic() + PATIENCE_S  # it may have taken the one before it as well
            while store.state.current is None or store.state.current.version < factory.versions:
                assert time.monotonic() < due_s, device.news
                time.sleep(0.02)
        assert device.sequences == list(range(len(device.sequences)))


def test_a_disk_that_fails_costs_no_bundle(factory, shelf, tmp_path, monkeypatch):
    """Neither is what decides left behind undecided, nor what was to be tried forgotten."""
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        write, full = store._write, {"at": 1}

        def failing(state):
            if full["at"]:
                full["at"] -= 1
                raise full.get("error") or OSError(28, "No space left on device")
            write(state)

        monkeypatch.setattr(store, "_write", failing)
        with Device(factory, shelf.url, store) as device:
            factory.push(factory.change("full"))
            told = device.outcome(after=0)
            assert (told.outcome, "No space left" in told.reason) == ("away", True)
            while not any(one.outcome == "trial" for one in device.news):
                time.sleep(0.01)
            full.update(at=2, error=InputError("the store may not be written to"))
            kept(device)
            while store.state.current is None:
                time.sleep(0.01)
        assert store.state.trial is None
        assert device.by[-1] == store.state.current.sha256
    assert full["at"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_stopped_while_it_proves_a_bundle_refuses_none(
    number, factory, tmp_path, monkeypatch
):
    """As systemd stops a service: the signal goes to the process that proves the bundle, too."""
    (tmp_path / "stop_engine.py").write_text(
        "import os, signal, time\n"
        "from tinysaver_edge.engines import Engine\n"
        "class StopEngine(Engine):\n"
        "    name = 'stopped'\n"
        "    suffixes = frozenset({'.onnx'})\n"
        "    @classmethod\n"
        "    def accepts_device(cls, device): return True\n"
        "    def _load(self):\n"
        f"        signal.signal({int(number)}, signal.SIG_DFL)\n"  # a shell may have it ignored
        f"        os.kill(os.getpid(), {int(number)}); time.sleep(30)\n"
        "    def _run(self, batch): raise NotImplementedError\n"
    )
    plug_ins.install(tmp_path, monkeypatch, "engines", {"stopped": "stop_engine:StopEngine"})

    def stopped(told, folder):
        told["stages"][0]["model"]["engine"] = "stopped"

    made = factory.change(f"stopped-{int(number)}", stopped)
    with pytest.raises(TransferError, match="was stopped"):
        why_unproven(made, {}, timeout_s=60)


def test_hosts_that_are_away_do_not_have_a_bundle_refused(factory, tmp_path):
    large = remote("http://127.0.0.1:9/large")
    with pytest.raises(TransferError, match=r"127\.0\.0\.1:9"):
        why_unproven(factory.good, {"large": large}, timeout_s=60)


def test_a_process_that_is_killed_during_a_trial_comes_up_with_the_old_one(factory, tmp_path):
    store, first = tmp_path / "store", factory.folder / "first"
    words = ("run", first, "--source", "demo://", "--trusted", factory.trust.keys, "--follow",
             f"{factory.shelf}:stable", "--store", store, "--poll-s", "0.1")  # fmt: skip
    factory.push(factory.change("killed"))
    process = start(*words, "--trial-s", "60", "--quiet")
    try:
        wait_for(store / "history.jsonl", '"trial"')
    finally:
        process.kill()
        process.communicate()
    again = start(*words, "--limit", "60", "--json", "--fps", "40")
    out, told = again.communicate(timeout=60)
    assert again.returncode == 0, told
    by = {json.loads(line)["bundle"]["sha256"] for line in out.splitlines()}
    assert by == {sha256_of(first / MANIFEST)}
    last = parse_json((store / "history.jsonl").read_text().splitlines()[-1])
    assert last["outcome"] == "rolled_back"
    assert "rolled back: the process ended during its trial" in told
    assert "the process ended during its trial" in last["reason"]


def wait_for(path: Path, text: str) -> None:
    due_s = time.monotonic() + PATIENCE_S
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < due_s, path
        time.sleep(0.02)


def test_a_store_says_what_is_wrong_with_it(tmp_path):
    store = BundleStore(tmp_path / "store", wall=time.time)
    with store, pytest.raises(InputError, match="another run writes there"):
        BundleStore(tmp_path / "store", wall=time.time).__enter__()
    (tmp_path / "store/state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        store.__enter__()
    told = {"current": {"folder": "../x", "sha256": "", "name": None, "version": None}}
    (tmp_path / "store/state.json").write_text(
        json.dumps({**told, "trial": None, "previous": None, "refused": {}})
    )
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        store.__enter__()


def test_times_are_judged_by_more_than_chance(factory):
    from tests.stream.decisions import decision
    from tinysaver_edge.bundle.manifest import LatencyEntry
    from tinysaver_edge.decision import BundleIdentity

    with Bundle.load(factory.folder / "first") as opened:
        limits = LatencyEntry(escalation_rate=0.5, p95_latency_ms=10.0, mean_latency_ms=20.0)
        manifest = opened.manifest.model_copy(update={"latency": limits})
    ours = BundleIdentity("a" * 64)

    def judged(slow: int, of: int) -> str | None:
        trial = OnTrial(manifest, ours.sha256, here=True, clock=time.monotonic)
        for number in range(of):
            spent = {"saver": 30.0 if number < slow else 1.0, "waiting": 500.0, "total": 900.0}
            trial.saw(decision(number, bundle=ours, timings_ms=spent))
        trial.saw(decision(0, bundle=BundleIdentity("b" * 64), timings_ms={"saver": 1e6}))
        return trial.failure()

    assert judged(63, 63) is None
    assert judged(5, 64) is None
    assert judged(10, 100) is None
    assert judged(30, 200).startswith("p95_latency_ms: 30 of 200 frames took more than 10 ms")
    assert "mean_latency_ms" in judged(200, 200)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--follow", "shelf:stable"), "go together"),
        ((), "Missing argument"),
        (("--follow", "nowhere:stable", "--store", "s"), "is not there"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(words, said, tmp_path):
    done = start("run", "--source", "demo://", *words, cwd=tmp_path)
    _, told = done.communicate(timeout=60)
    assert done.returncode == 2
    assert said in told
    assert "Traceback" not in told


def test_a_store_without_a_bundle_begins_with_the_tag(factory, tmp_path):
    factory.push(factory.change("begins"))
    with BundleStore(tmp_path / "store", wall=time.time) as store:
        tag = f"{factory.shelf}:stable"
        with begin(store, None, tag, trust=factory.trust) as opened:
            assert opened.manifest.created_by == "begins"
        (store.path(store.state.current) / "models/saver.onnx").write_bytes(b"")
        with pytest.raises(BundleError):  # nothing else is here, and the same is not fetched twice
            begin(store, tmp_path / "none", tag, trust=factory.trust)


def test_models_of_the_tests_are_what_they_were(tmp_path):
    """`artefact` and `LARGE` are what the bundles above are made of."""
    made = artefact(tmp_path, "large")
    assert made.sha256 == combined_sha256((colour_model(tmp_path / "again.onnx", LARGE),))


def test_a_store_beside_ones_own_bundles_leaves_them(tmp_path):
    own, former = tmp_path / "bundles/mine", tmp_path / "bundles/0123456789abcdef-3"
    for folder in (own, former):
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    with BundleStore(tmp_path, wall=time.time):
        pass
    assert (own / "notes.txt").is_file()
    assert not former.exists()
