"""Bursts and traces: as often, as long and as lumpy as they are said to be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.errors import InputError
from tinysaver_edge.plan.escalating import Bursts, Traced, of_bundle, read_traces


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with Bundle.load(small_bundle(tmp_path_factory.mktemp("b") / "b", golden=False)) as one:
        yield one


def lengths(flags: np.ndarray) -> np.ndarray:
    """How long each burst of one camera is, in frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize(("rate", "burst_s"), [(0.1, 1.0), (0.4, 0.3), (0.02, 4.0), (0.7, 0.5)])
def test_bursts_are_as_frequent_and_as_long_as_said(rate, burst_s):
    fps, frames = 10.0, 4_000_000
    flow = Bursts(rate, burst_s)
    flags = flow.draw(np.random.default_rng(0), cameras=1, frames=frames, fps=fps)
    mean_burst, _ = flow.lengths(fps)
    spread = np.sqrt(flow.dispersion(fps) / (rate * frames))
    assert flags.mean() == pytest.approx(rate, rel=4 * spread)
    assert lengths(flags[0]).mean() == pytest.approx(mean_burst, rel=0.05)
    counts = flags[0].reshape(-1, 20_000).sum(axis=1)
    assert counts.var() / counts.mean() == pytest.approx(flow.dispersion(fps), rel=0.35)


def test_bursts_of_no_length_are_independent_frames():
    flow = Bursts(0.3, 0.0)
    flags = flow.draw(np.random.default_rng(0), cameras=1, frames=200_000, fps=10)[0]
    assert flags.mean() == pytest.approx(0.3, abs=0.01)
    for apart in (1, 2, 5):
        assert np.corrcoef(flags[:-apart], flags[apart:])[0, 1] == pytest.approx(0, abs=0.02)
    assert flow.dispersion(10) == pytest.approx(0.7)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_none_and_all(rate):
    flags = Bursts(rate).draw(np.random.default_rng(0), cameras=3, frames=50, fps=5)
    assert flags.shape == (3, 50)
    assert (flags == bool(rate)).all()


def test_a_trace_is_played_at_the_speed_of_the_clock():
    """Recorded at 5 frames/s, taken at 20: each recorded frame stands for four."""
    recorded = np.zeros(600, bool)
    recorded[::10] = True
    flow = Traced(5.0, (recorded,))
    flags = flow.draw(np.random.default_rng(0), cameras=4, frames=2400, fps=20.0)
    assert flags.mean() == pytest.approx(0.1, abs=0.01)
    inner = np.concatenate([lengths(one)[1:-1] for one in flags])
    assert np.bincount(inner).argmax() == 4
    assert flow.rate == pytest.approx(0.1)


def test_stretches_come_from_every_camera_of_a_trace():
    flow = Traced(10.0, (np.ones(700, bool), np.zeros(2100, bool)))
    flags = flow.draw(np.random.default_rng(0), cameras=200, frames=600, fps=10.0)
    assert flags.mean() == pytest.approx(0.25, abs=0.06)
    assert set(flags.mean(axis=1)) == {0.0, 1.0}


def line(sequence, *, escalated=False, model="saver", source="cam", fps=10.0, **other):
    told = {
        "score": 0.2 if escalated else 0.95,
        "stage": {"index": 1 if escalated else 0, "model": "large" if escalated else model},
        "escalated": escalated,
        "degraded": None,
        "revision": 0,
        "frame_id": {"source_id": source, "sequence": sequence},
        "timestamp_s": 100 + sequence / fps,
        "timings_ms": {"total": 4.0, **({"large": 30.0} if escalated else {})},
        "reused": None,
    }
    return json.dumps(told | other)


def trace(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


def test_a_trace_tells_rate_bursts_times_and_scores(bundle, tmp_path):
    lines = [line(k, escalated=k % 20 < 5) for k in range(600)]
    lines.append(line(3, escalated=True, revision=1))  # what was decided is not decided twice
    lines.append(json.dumps({"error": "frames were lost", "exit_code": 2, "frame_id": None}))
    found = read_traces([trace(tmp_path / "t.jsonl", *lines)], bundle)
    assert found.rate == 0.25
    assert found.frames_per_s == pytest.approx(10)
    assert found.large_ms.tolist() == [30.0] * 151
    assert found.device_ms.tolist() == [4.0] * 450
    assert "25.00 % of the frames are escalated (too short to tell how surely)" in found.said[0]
    assert "in bursts of 0.5 s" in found.said[0]
    assert found.beside_ms(np.array([20.0, 22.0])) == pytest.approx(9.6)
    assert found.at_threshold(0.1).rate == 0
    assert found.at_threshold(0.99).rate == 1
    with (tmp_path / "t.jsonl").open("a") as file:  # what a kill leaves of a line
        file.write(lines[0][:-30])
    assert read_traces([tmp_path / "t.jsonl"], bundle).rate == 0.25


def test_cameras_of_another_rate_keep_how_long_their_bursts_last(bundle, tmp_path):
    """One of 10 and one of 2 frames a second, 200 s each, both with bursts of 2 s."""
    fast = [line(k, escalated=k % 200 < 20, source="fast") for k in range(2000)]
    slow = [line(k, escalated=k % 40 < 4, source="slow", fps=2.0) for k in range(400)]
    found = read_traces([trace(tmp_path / "t.jsonl", *fast, *slow)], bundle)
    assert found.frames_per_s == pytest.approx(10)
    for flags in found.flags:
        assert len(flags) == pytest.approx(2000, abs=5)
        assert lengths(flags).mean() == pytest.approx(20, abs=0.6)
    assert [len(one) for one in found.scores] == [len(one) for one in found.flags]
    assert "2,400 frames of 2 cameras" in found.said[0]
    assert "to 13.72 % by 95 %), in bursts of 2 s" in found.said[0]


def test_frames_that_waited_for_another_cameras_are_not_slower_for_it(bundle, tmp_path):
    """The saver's queue is simulated: what a trace of a shared device waited must not count too."""
    spent = {"timings_ms": {"preprocess": 1.0, "saver": 3.0, "waiting": 0.5, "total": 60.0}}
    rows = [
        line(k, escalated=k % 20 < 5, source=name, **({} if k % 20 < 5 else spent))
        for name in ("a", "b")
        for k in range(400)
    ]
    assert set(read_traces([trace(tmp_path / "t.jsonl", *rows)], bundle).device_ms) == {4.0}
    alone = trace(tmp_path / "one.jsonl", *rows[:400])
    assert set(read_traces([alone], bundle).device_ms) == {60.0}


def test_answers_that_came_as_revisions_tell_the_round_trip(bundle, tmp_path):
    rows = []
    for k in range(400):
        escalated = k % 20 < 5
        first = {"stage": {"index": 0, "model": "saver"}, "degraded": "provisional"}
        rows.append(line(k, escalated=escalated, **(first if escalated else {})))
        if escalated:
            rows.append(line(k, escalated=True, revision=1))
    found = read_traces([trace(tmp_path / "t.jsonl", *rows)], bundle)
    assert found.large_ms.tolist() == [30.0] * 100
    assert found.rate == 0.25


def test_a_trace_of_another_threshold_is_refused_and_of_another_bundle_said(bundle, tmp_path):
    rows = [line(k, escalated=k % 20 < 5) for k in range(400)]
    loose = line(400, score=0.5)
    with pytest.raises(InputError, match=r"line 401 was accepted at a score of 0\.5, .* from 0\.9"):
        read_traces([trace(tmp_path / "t.jsonl", *rows, loose)], bundle)
    here = {"sha256": bundle.identity.sha256, "name": None, "version": None}
    for sha256, said in ((here["sha256"], 1), ("f" * 64, 2)):
        by = {"bundle": here | {"sha256": sha256}}
        rows = [line(k, escalated=k % 20 < 5, **by) for k in range(400)]
        assumed = read_traces([trace(tmp_path / "t.jsonl", *rows)], bundle).assumed
        assert len(assumed) == said
    assert "bundle ffffffffffff of the trace escalates as this one" in assumed[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_id": {"source_id": {"a": 1}}},
        {"timestamp_s": "now"},
        {"timestamp_s": math.nan},
        {"timings_ms": {"total": -5.0}},
        {"timings_ms": {}},
        {"score": "high"},
        {"reused": "still"},
        {"stage": {"index": 0, "model": ["saver"]}},
        {"bundle": "x"},
    ],
    ids=lambda one: json.dumps(one),
)
def test_a_line_of_another_form_is_named(bundle, tmp_path, wrong):
    with pytest.raises(InputError, match="line 2 is no decision of run --json"):
        read_traces([trace(tmp_path / "t.jsonl", line(0), line(1, **wrong), line(2))], bundle)


def test_still_frames_ask_nobody(bundle, tmp_path):
    still = {"frame_id": {}, "age_s": 0.1, "alike": "still"}
    lines = [line(k, escalated=k % 20 < 2, reused=still if k % 2 else None) for k in range(800)]
    lines = [row.replace('"escalated": true', '"escalated": false') if "still" in row else row
             for row in lines]  # fmt: skip
    found = read_traces([trace(tmp_path / "t.jsonl", *lines)], bundle)
    assert found.asked == 0.5
    assert found.scores == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], r"t.jsonl: line 1 is no decision of run --json"),
        (['{"label": "x"}'], r"line 1 is no decision of run --json"),
        ([line(0, model="resnet")], r"answered by resnet, which is no model of this bundle"),
        ([line(k, escalated=k == 5) for k in range(300)], r"1 bursts of escalations in 300 frames"),
        ([], r"no times that rise"),
    ],
    ids=["no JSON", "something else", "another bundle", "too little", "empty"],
)
def test_a_trace_that_tells_nothing_is_one_line(bundle, tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        read_traces([trace(tmp_path / "t.jsonl", *lines)], bundle)


def test_what_nobody_measured_is_said(bundle):
    assert "nobody has measured it" in of_bundle(bundle, rate=None, burst_s=None).assumed[0]
    assert "by chance, independently" in of_bundle(bundle, rate=0.2, burst_s=0.0).assumed[0]
    assert "% by 95 %): of the bundle's" in of_bundle(bundle, rate=None, burst_s=None).said[0]
    given = of_bundle(bundle, rate=0.2, burst_s=3.0)
    assert given.rate == 0.2
    assert "bursts of 3 s" in given.said[1]
    assert all("bursts" not in one for one in given.assumed)
