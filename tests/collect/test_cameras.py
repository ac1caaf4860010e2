"""Cameras on a clock of the test's own: which frame stands for which moment, which are missed."""

import json
import threading
import time

import cv2
import numpy as np
import pytest

from tests.stream.sources.test_live import number_of
from tinysaver_edge.collect.cameras import collect_live
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.store import AWAY, FULL, STOPPED, Store
from tinysaver_edge.data.collection import Collection, CollectionState, read_moments
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources.live import DeviceError, LiveOptions, LiveSource
from tinysaver_edge.stream.sources.source import Frame, Source
from tinysaver_edge.stream.telemetry.events import Lost
from tinysaver_edge.testing import FakeClock, numbered_frame

STEP_S = 0.04
WALL_S = 1_800_000_000.0


class Camera(Source):
    """Frame `n` is taken at `n * STEP_S` of the clock; gone from one frame to another.

    Each frame that is asked for moves the clock on, so that nothing depends on how quick this
    machine is; the second one waits until the period has begun.
    """

    live = True

    def __init__(self, clock, *, gone=(0, 0), last=None, size=(4, 4), leads=True):
        super().__init__("camera")
        self.clock, self.gone, self.last, self.size = clock, gone, last, size
        self.number, self.leads = 0, leads
        self.begun = threading.Event()

    def _frames(self, reuse):
        while not self.closed and (self.last is None or self.number < self.last):
            self.tick()
            if self.number == self.gone[0]:
                self.tell(Lost(self.source_id, self.clock(), "unplugged"))
                while self.number < self.gone[1]:
                    self.tick()
            height, width = self.size
            image = numbered_frame(self.number, height=height, width=width)
            yield Frame(image, self.clock(), self.number, self.source_id)
            self.begun.wait(5)

    def tick(self):
        if self.leads:
            self.number += 1
            self.clock.now_s = self.number * STEP_S
        else:
            time.sleep(0.001)
            self.number = round(self.clock() / STEP_S)


def collected(folder, clock, devices, draw, *, warn=lambda line: None, stop=None, **more):
    for name, device in devices.items():
        device.source_id = name

    def begun(file):
        for device in devices.values():
            device.begun.set()

    with Store(folder, warn=warn) as store:
        return collect_live(
            list(devices.values()),
            store,
            draw,
            clock=clock,
            wall=lambda: WALL_S + clock.now_s,
            stop=stop or threading.Event(),
            patience_s=1.0,
            begun=begun,
            **more,
        )


def shown(folder, moment):
    """Return when the frame that stands for a moment was taken, in seconds of the clock."""
    return STEP_S * number_of_file(folder / moment.file)


def number_of_file(path):
    class Shown:
        image = cv2.imread(str(path))

    return number_of(Shown)


def test_the_next_frame_stands_for_a_moment(tmp_path):
    clock = FakeClock()
    draw = Draw(40, seed=1, period_s=8.0)
    file = collected(tmp_path / "out", clock, {"door": Camera(clock)}, draw)
    assert (file.drawn, file.written, file.missed) == (40, 40, {})
    start_s = file.start.timestamp() - WALL_S
    late = [
        shown(tmp_path / "out", one) - start_s - one.moment_s
        for one in Collection.read(tmp_path / "out").moments
    ]
    assert min(late) >= -1e-3  # `start` has whole microseconds
    assert max(late) < STEP_S + 1e-3


def test_a_moment_at_which_the_camera_was_away_is_missed_and_said(tmp_path):
    clock = FakeClock()
    camera = Camera(clock, gone=(100, 160))  # from 4 s to 6.4 s
    file = collected(tmp_path / "out", clock, {"door": camera}, Draw(100, seed=2, period_s=12.0))
    start_s = file.start.timestamp() - WALL_S
    for one in Collection.read(tmp_path / "out").moments:
        at_s = start_s + one.moment_s
        if one.missed:
            assert one.missed == AWAY
            assert 4.0 - STEP_S <= at_s <= 6.4 + 1e-3
        else:
            assert not 4.0 < at_s < 6.4
            assert shown(tmp_path / "out", one) - at_s < STEP_S + 1e-3
    assert file.missed[AWAY] > 10
    assert file.sources[0].missed == file.missed
    assert file.drawn == 100 == file.written + file.missed[AWAY]


def test_two_cameras_share_the_moments_and_one_that_ends_is_missed(tmp_path):
    clock = FakeClock()
    warned = []
    yard = Camera(clock, last=300, leads=False)
    devices = {"door": Camera(clock), "yard": yard}
    draw = Draw(60, seed=3, period_s=30.0)
    file = collected(tmp_path / "out", clock, devices, draw, warn=warned.append)
    door, other = file.sources
    assert door.written == door.drawn > 15
    assert other.missed[AWAY] > 0
    assert door.drawn + other.drawn == 60


def test_it_ends_early_where_it_is_stopped_and_goes_on(tmp_path):
    clock, stop = FakeClock(), threading.Event()
    draw = Draw(60, seed=4, period_s=16.0)

    class Until(Camera):
        def tick(self):
            super().tick()
            if self.number == 150:
                stop.set()

    file = collected(tmp_path / "out", clock, {"door": Until(clock)}, draw, stop=stop)
    assert file.state is CollectionState.STOPPED
    assert 0 < file.written < 60
    ended_s = (file.end - file.start).total_seconds()
    assert ended_s > 5.5
    Collection.read(tmp_path / "out")  # what there is may be believed, for its part

    clock.advance(2.0)
    again_s = clock.now_s
    camera = Camera(clock)
    camera.number = round(clock.now_s / STEP_S)
    file = collected(tmp_path / "out", clock, {"door": camera}, draw)
    assert file.state is CollectionState.FINISHED
    assert file.drawn == 60
    assert file.missed[STOPPED] >= 1
    for one in Collection.read(tmp_path / "out").moments:
        if one.missed == STOPPED:
            assert ended_s - 1 < one.moment_s < again_s
    with pytest.raises(InputError, match="finished"):
        collected(tmp_path / "out", clock, {"door": Camera(clock)}, draw)


def test_another_call_may_not_go_on(tmp_path):
    clock, stop = FakeClock(), threading.Event()
    stop_soon = threading.Timer(0.5, stop.set)
    stop_soon.start()
    draw = Draw(60, seed=4, period_s=1e6)
    collected(tmp_path / "out", clock, {"door": Camera(clock)}, draw, stop=stop)
    for devices, other, more, said in (
        ({"yard": Camera(clock)}, draw, {}, "of door, not of yard"),
        ({"door": Camera(clock)}, Draw(61, seed=4, period_s=1e6), {}, r"--frames was 60, not 61"),
        ({"door": Camera(clock)}, Draw(60, seed=4, period_s=1e5), {}, r"--for was"),
        ({"door": Camera(clock)}, Draw(60, 4, 1e6, encoding="webp"), {}, "format was png"),
        ({"door": Camera(clock)}, draw, {"cut": "--region 0,0,2,2"}, "no region and no mask"),
    ):
        with pytest.raises(InputError, match=said):
            collected(tmp_path / "out", clock, devices, other, **more)


def test_a_camera_that_is_not_there_leaves_nothing(tmp_path):
    options = LiveOptions(open_s=1, read_s=0.3, shortest_s=0.01, first_attempts=1)
    clock = FakeClock()

    class Unplugged:
        def connect(self, options, stopping):
            raise DeviceError("unplugged")

    source = LiveSource(Unplugged(), source_id="door", options=options)
    with pytest.raises(SourceError, match="unplugged"), Store(tmp_path / "out") as store:
        collect_live(
            [source], store, Draw(5, 0, 5.0), clock=clock, wall=clock, stop=threading.Event()
        )
    assert not (tmp_path / "out").exists()


def test_epochs_are_whole_or_missed(tmp_path):
    clock = FakeClock()
    camera = Camera(clock, gone=(200, 260))  # from 8 s to 10.4 s
    draw = Draw(30, seed=5, period_s=20.0, epoch_s=1.0, epoch_fps=5.0)
    file = collected(tmp_path / "out", clock, {"door": camera}, draw)
    start_s = file.start.timestamp() - WALL_S
    assert file.written > 15
    assert file.missed[AWAY] > 2
    assert file.written + file.missed[AWAY] == 30
    for one in Collection.read(tmp_path / "out").moments:
        at_s = start_s + one.moment_s
        if one.missed:
            assert 7.0 - STEP_S < at_s < 10.4 + STEP_S
            continue
        told = json.loads((tmp_path / "out" / one.file / "epoch.json").read_text())
        seconds = np.array(told["seconds"])
        assert told["source"] == "door"
        assert 0 <= seconds[0] < STEP_S + 1e-3
        assert seconds[-1] < 1.0
        assert np.diff(seconds).min() > 0.19
        assert len(seconds) == pytest.approx(5, abs=1)
        taken = [number_of_file(tmp_path / "out" / one.file / name) for name in told["files"]]
        assert STEP_S * np.array(taken) - at_s == pytest.approx(seconds, abs=1e-3)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".t")]


def test_a_disk_that_fills_costs_moments_and_nothing_else(tiny_disk):
    clock = FakeClock()
    out, warned = tiny_disk / "out", []
    ballast = tiny_disk / "other"
    ballast.write_bytes(b"x" * 30_000)

    class Cleared(Camera):
        def tick(self):
            super().tick()
            if self.number == 200:
                ballast.unlink(missing_ok=True)

    device = Cleared(clock, size=(24, 24))
    draw = Draw(60, seed=6, period_s=12.0)
    file = collected(out, clock, {"door": device}, draw, warn=warned.append)
    assert file.missed.keys() == {FULL}
    assert 0 < file.missed[FULL] < 60
    told = ["again" if "again" in line else "full" for line in warned]
    assert told == ["full", "again", "full"]  # it fills again
    moments = Collection.read(out).moments
    assert sum(1 for one in moments if one.file) == len(list(out.glob("*.png")))
    for path in out.glob("*.png"):
        assert cv2.imread(str(path)) is not None
    assert read_moments(out / "moments.csv") == list(moments)
