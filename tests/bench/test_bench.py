"""Bench: exact on a clock that stands still, and whole on real engines and a real bundle."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.bench.tiny_artefact import artefact
from tests.hardware import systems
from tests.model_zoo import Form, tiny_classifier
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import NOT_OURS
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.bundle import measure_end_to_end
from tinysaver_edge.bench.frames import EncodedFrame, frames_from, golden_frames, made_up_frame
from tinysaver_edge.bench.model import artefact_of, bench_model, sustain_model
from tinysaver_edge.bench.report import check_report_target, read_report, report_path
from tinysaver_edge.bench.run import BenchRequest, bench_bundle_file, bench_model_file
from tinysaver_edge.bench.throughput import measure_energy, measure_throughput, sustain
from tinysaver_edge.bench.timing import Effort, peak_mb, resident_mb
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import DescriptionError, EngineError, InputError, ModelError
from tinysaver_edge.hardware.energy import EnergyMeter
from tinysaver_edge.latency import CascadeLatency
from tinysaver_edge.preprocess import Batch
from tinysaver_edge.score import Margin
from tinysaver_edge.testing import FakeClock, FakeEngine, frame_numbers, numbered_frame

QUICK = Effort(warm_up=2, min_runs=5, min_seconds=0, max_seconds=20)
ENGINES = ("onnxruntime", "openvino")

DESCRIPTION = """
labels = ["a", "b", "c", "d", "e"]
[input]
layout = "NCHW"
dtype = "float32"
color = "RGB"
size = 16
scale = "imagenet"
[output]
kind = "logits"
"""


def timed_stage(clock: FakeClock, name: str, rows: list[list[float]], seconds: float) -> Stage:
    """A stage whose every run takes exactly so long."""

    def answer(batch: Batch) -> np.ndarray:
        clock.now_s += seconds
        return np.array([rows[number] for number in frame_numbers(batch)], np.float32)

    engine = FakeEngine(answer)
    last = name == "large"
    policy = StagePolicy(name, score=None if last else Margin(), threshold=None if last else 0.5)
    return Stage(engine, preprocess=engine.preprocess, policy=policy)


def lossless(number: int) -> EncodedFrame:
    data = cv2.imencode(".png", numbered_frame(number))[1]
    return EncodedFrame(f"{number}.png", bytes(data.tobytes()))


def test_end_to_end_is_exact_on_a_clock_that_stands_still() -> None:
    clock = FakeClock()
    sure, torn = [9.0, 0.0], [0.1, 0.0]
    stages = [
        timed_stage(clock, "saver", [sure, torn, sure, sure], 0.002),
        timed_stage(clock, "large", [sure] * 4, 0.010),
    ]
    with Cascade(stages, clock=clock) as cascade:
        effort = Effort(warm_up=0, min_runs=8, min_seconds=0, max_seconds=60)
        found = measure_end_to_end(
            cascade, [lossless(number) for number in range(4)], effort=effort, clock=clock
        )
    assert found.frames == 4
    assert found.escalation_rate == 0.25
    assert found.decode.samples_ms == pytest.approx(np.zeros(8))
    assert found.total.samples_ms == pytest.approx([2, 12, 2, 2] * 2)
    assert found.accepted is not None
    assert found.escalated is not None
    assert found.accepted.samples_ms == pytest.approx([2] * 6)
    assert found.escalated.samples_ms == pytest.approx([12] * 2)
    assert found.to_dict()["frames_per_s"] == pytest.approx(1e3 / 4.5)


def test_every_frame_takes_its_turn_as_often_as_the_others() -> None:
    clock = FakeClock()
    stages = [timed_stage(clock, "large", [[1.0, 0.0]] * 7, 0.001)]
    with Cascade(stages, clock=clock) as cascade:
        found = measure_end_to_end(
            cascade, [lossless(number) for number in range(7)], effort=QUICK, clock=clock
        )
    assert len(found.total) == 7
    assert found.escalated is None
    assert found.accepted is not None


def test_drift_compares_the_first_tenth_with_the_last() -> None:
    clock = FakeClock()
    runs = 0

    def run() -> None:
        nonlocal runs
        clock.now_s += 0.1 if runs < 50 else 0.125
        runs += 1

    found = sustain(run, seconds=10, clock=clock)
    assert found.seconds == pytest.approx(10, abs=0.13)
    assert found.first.samples_ms == pytest.approx([100] * 10)
    assert len(found.last) in (8, 9)  # rounding decides over the run on the edge
    assert found.last.samples_ms == pytest.approx(125)
    assert found.drift == pytest.approx(0.25)
    assert json.loads(json.dumps(found.to_dict()))["drift"] == pytest.approx(0.25)


def test_heat_is_read_where_it_is_told(tmp_path: Path) -> None:
    clock = FakeClock(step_s=0.01)
    found = sustain(lambda: None, seconds=0.1, clock=clock, root=systems.intel_n100(tmp_path))
    assert (found.start_c, found.end_c) == (61.0, 61.0)
    assert sustain(lambda: None, seconds=0.1, clock=clock, root=tmp_path / "no").end_c is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_long_run_takes_time(seconds: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        sustain(lambda: None, seconds=seconds)


def tiny(folder: Path, engine: str = "onnxruntime") -> Artefact:
    form = Form()
    return artefact(tiny_classifier(folder / "tiny.onnx", form), form, "tiny", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_is_measured_whole(tmp_path: Path, engine: str) -> None:
    frame = made_up_frame((48, 64)).decode()
    found = bench_model(tiny(tmp_path, engine), frame, effort=QUICK, throughput_s=0.2)
    assert (found.engine, found.precision, found.frame) == (engine, "float32", (48, 64))
    assert found.load_s > 0
    assert found.first_ms > 0
    assert len(found.inference) == len(found.stage) == 5
    assert found.throughput is not None
    assert found.throughput.frames_per_s > 0
    assert found.throughput.parallel >= 1
    assert found.loaded_mb is not None
    assert found.peak_mb is not None
    assert found.peak_mb > 20
    assert found.batches == {}
    assert found.energy is None
    assert json.loads(json.dumps(found.to_dict()))["sha256"] == found.sha256


def test_batches_of_a_host_are_timed(tmp_path: Path) -> None:
    frame = made_up_frame((48, 64)).decode()
    found = bench_model(tiny(tmp_path), frame, effort=QUICK, batches=True)
    assert sorted(found.batches) == [1, 2, 4]
    kept = json.loads(json.dumps(found.to_dict()))["batches"]
    assert {size: one["mean_ms"] for size, one in kept.items()} == {
        str(size): one.mean_ms for size, one in found.batches.items()
    }


class Drawing(EnergyMeter):
    """Draws 5 W, and 2 J more for each run."""

    source = "drawing"

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self.runs = clock, 0

    def joules(self) -> float:
        return 5 * self._clock.now_s + 2 * self.runs


def test_energy_of_a_frame_is_told_with_and_without_idling() -> None:
    clock = FakeClock()
    meter = Drawing(clock)

    def run() -> None:
        clock.advance(0.25)
        meter.runs += 1

    found = measure_energy(run, [meter], seconds=1.0, clock=clock, sleep=clock.advance)
    assert found is not None
    assert (found.runs, found.seconds, found.source) == (4, 1.0, "drawing")
    assert found.idle_w == pytest.approx(5)
    assert found.mj == pytest.approx(1e3 * (2 + 5 * 0.25))
    assert found.above_idle_mj == pytest.approx(2e3)
    assert measure_energy(run, [], clock=clock) is None


def test_throughput_is_of_as_many_frames_as_were_answered(tmp_path: Path) -> None:
    """Half as much time, half as many frames: the rate is about the same."""
    model = tiny(tmp_path)
    rates = [measure_throughput(model, seconds=seconds).frames_per_s for seconds in (0.3, 0.6)]
    assert 0.2 < rates[0] / rates[1] < 5


@pytest.mark.parametrize("engine", ENGINES)
def test_throughput_of_a_device_that_is_not_there_fails(tmp_path: Path, engine: str) -> None:
    from dataclasses import replace

    model = tiny(tmp_path, engine)
    device = "GPU.9" if engine == "openvino" else "MIGraphXExecutionProvider"
    elsewhere = replace(model, options=replace(model.options, device=device))
    with pytest.raises(EngineError):
        measure_throughput(elsewhere, seconds=0.2)


def test_a_model_runs_on(tmp_path: Path) -> None:
    found = sustain_model(tiny(tmp_path), made_up_frame((48, 64)).decode(), seconds=0.2)
    assert found.runs > 1
    assert found.seconds >= 0.2


def test_memory_is_what_the_kernel_counts(tmp_path: Path) -> None:
    root = systems.write(
        tmp_path, {"proc/self/status": "Name:\tpython\nVmHWM:\t   51200 kB\nVmRSS:\t  40960 kB\n"}
    )
    assert (resident_mb(root), peak_mb(root)) == (40, 50)
    assert resident_mb(tmp_path / "elsewhere") is None
    before = resident_mb()
    held = np.ones(32 << 20, np.uint8)
    after = resident_mb()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(32, abs=4)
    assert held.size


def test_frames_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"{number}.png").write_bytes(lossless(number).data)
    (tmp_path / "note.txt").write_text("no picture")
    assert [one.name for one in frames_from(tmp_path)] == ["1.png", "2.png"]
    (one,) = frames_from(tmp_path / "2.png")
    assert np.array_equal(one.decode(), numbered_frame(2))
    with pytest.raises(InputError, match="no such image"):
        frames_from(tmp_path / "3.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        frames_from(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be decoded"):
        EncodedFrame("note.txt", b"no picture").decode()


def test_a_made_up_picture_is_the_same_every_time() -> None:
    assert made_up_frame().data == made_up_frame().data
    assert made_up_frame().decode().shape == (720, 1280, 3)
    assert made_up_frame(seed=1).data != made_up_frame().data


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bench") / "bundle")


def test_a_bundle_is_measured_on_its_golden_frames(bundle: Path, tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    report = bench_bundle_file(
        bundle,
        threads=1,
        wanted=BenchRequest(QUICK, throughput_s=0, sustained_s=0.1),
        now=lambda: at,
    )
    with Bundle.load(bundle) as opened:
        count = len(golden_frames(opened))
        assert count > 1
    assert [one.name for one in report.stages] == ["saver", "large"]
    assert all(one.threads == 1 and one.throughput is None for one in report.stages)
    assert report.bundle is not None
    ran = report.bundle.end_to_end
    assert ran.frames == count
    assert len(ran.total) >= count
    assert ran.total.samples_ms == pytest.approx(ran.decode.samples_ms + ran.decide.samples_ms)
    assert report.sustained is not None
    assert report.measured_at == "2026-01-02T03:04:05+00:00"
    report.write(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["end_to_end"]["escalation_rate"] == ran.escalation_rate
    assert content["machine"]["engines"]["onnxruntime"]


def test_what_calibration_reads_is_what_was_measured(bundle: Path, tmp_path: Path) -> None:
    report = bench_bundle_file(bundle, wanted=BenchRequest(QUICK, throughput_s=0))
    report.write(tmp_path / "a.json")
    found = read_report(tmp_path / "a.json").stages
    for one in report.stages:
        kept = found[(one.sha256, one.engine, one.device, one.precision)].latency
        assert kept.samples_ms == pytest.approx(one.stage.samples_ms, abs=1e-6)
    saver, large = (one.latency for one in found.values())
    assert CascadeLatency.of(saver, large).at(0.5).mean_ms == pytest.approx(
        saver.mean_ms + large.mean_ms / 2
    )


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema_version": 1, "stages": [{}]}', '{"schema_version": 9}'],
)
def test_a_damaged_report_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.json") as caught:
        read_report(path)
    assert "\n" not in str(caught.value)


def test_a_report_lies_beside_its_bundle(tmp_path: Path) -> None:
    assert report_path(tmp_path / "b") == (tmp_path / "b.bench.json").resolve()
    assert report_path(tmp_path / "b.zip") == (tmp_path / "b.bench.json").resolve()
    (tmp_path / "here").mkdir()
    assert report_path(tmp_path / "here" / "..").name == f"{tmp_path.resolve().name}.bench.json"


def described(folder: Path) -> Path:
    model = tiny_classifier(folder / "tiny.onnx", Form())
    (folder / "tiny.toml").write_text(DESCRIPTION)
    return model


@pytest.mark.parametrize("engine", [None, "auto", *ENGINES])
def test_a_model_file_is_measured_with_the_engine_asked_for(
    tmp_path: Path, engine: str | None
) -> None:
    model = artefact_of(described(tmp_path), engine=engine, threads=1)
    report = bench_model_file(model, wanted=BenchRequest(QUICK, throughput_s=0, sustained_s=0.05))
    (one,) = report.stages
    assert one.engine == (engine if engine in ENGINES else "onnxruntime")
    assert report.bundle is None
    assert report.sustained is not None
    assert "1280x720" in report.frames


def test_a_model_file_without_description_or_at_all(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny.onnx", Form())
    with pytest.raises(DescriptionError, match="no description"):
        artefact_of(model)
    with pytest.raises(ModelError, match="no such file"):
        artefact_of(tmp_path / "none.onnx")


def test_a_report_takes_the_place_of_nothing_but_a_report(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    check_report_target(target)
    known = {"schema_version": 1, "subject": "a", "measured_at": "b", "stages": []}
    for report in ("", json.dumps(known)):
        target.write_text(report)
        check_report_target(target)
    for mine in ("my notes", "[]", '{"schema_version": 1}', "\x00"):
        target.write_text(mine)
        with pytest.raises(InputError, match=NOT_OURS):
            check_report_target(target)
    with pytest.raises(InputError, match="a folder of this name"):
        check_report_target(tmp_path)
