"""Engine choice: real engines measured on a real model, and the rule on figures that are given."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import pytest

from tests.bench.test_bench import described
from tests.bench.tiny_artefact import artefact
from tests.calibrate.recipes import recipe
from tests.cli.test_devices import run as command
from tests.colours import LARGE, SAVER, colour_folders
from tests.command import spawned
from tests.model_zoo import Form, tiny_classifier
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench import engine_choice
from tinysaver_edge.bench.engine_choice import (
    CandidateAnswer,
    ChoiceCache,
    TryStep,
    candidates,
    choose_engine,
    in_way,
)
from tinysaver_edge.bench.timing import Effort
from tinysaver_edge.engines.base import EngineOptions, Precision
from tinysaver_edge.engines.registry import engine_version
from tinysaver_edge.errors import EngineError
from tinysaver_edge.hardware.profile import EngineChoice, load_profile

ORT = EngineChoice("onnxruntime", "CPUExecutionProvider")
OV = EngineChoice("openvino", "CPU")
CUDA = EngineChoice("onnxruntime", "CUDAExecutionProvider")

FRAMES = [np.full((20, 30, 3), value, np.uint8) for value in (0, 90, 255)]


@pytest.fixture
def model(tmp_path: Path) -> Artefact:
    form = Form()
    found = artefact(tiny_classifier(tmp_path / "tiny.onnx", form), form, "tiny")
    return replace(found, options=EngineOptions())


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = Effort(warm_up=1, min_runs=3, min_seconds=0, max_seconds=5)
    monkeypatch.setattr(engine_choice, "EFFORT", effort)


class Told:
    """A runner that knows what each way gives: its time, and how far its answer is off."""

    def __init__(self, **ways: tuple[float, float] | Exception) -> None:
        self.ways = ways
        self.runs: list[str] = []

    def __call__(self, step: TryStep, what: str) -> CandidateAnswer:
        name = f"{step.artefact.engine}_{step.artefact.options.precision.value}"
        self.runs.append(name)
        found = self.ways[name]
        if isinstance(found, Exception):
            raise found
        took_ms, off = found
        return CandidateAnswer(np.array([[0.5 + off, 0.5 - off]]), took_ms)


@pytest.mark.usefixtures("briefly")
def test_real_engines_are_measured_and_one_is_taken(model: Artefact) -> None:
    found = choose_engine(model, (CUDA, OV, ORT), FRAMES)
    assert found.choice in (OV, ORT)
    cuda, *others = found.tried
    assert cuda.why.startswith("does not run: engine onnxruntime has no CUDAExecutionProvider here")
    assert all(one.median_ms and one.difference is not None for one in others)
    (loser,) = (one for one in others if one.why)
    assert loser.why == f"slower than {engine_choice.name_of(found.choice)}"
    with in_way(model, found.choice).open() as engine:
        assert (engine.name, engine.device) == (found.choice.engine, found.choice.device)


def test_the_fastest_that_agrees_is_taken(model: Artefact) -> None:
    told = Told(onnxruntime_float32=(5.0, 0.0), openvino_float32=(2.0, 0.0009))
    found = choose_engine(model, (ORT, OV), FRAMES, run=told)
    assert found.choice == OV
    assert [one.median_ms for one in found.tried] == [5.0, 2.0]


def test_a_faster_one_that_answers_otherwise_loses_and_says_so(model: Artefact) -> None:
    told = Told(onnxruntime_float32=(5.0, 0.0), openvino_float32=(2.0, 0.0011))
    found = choose_engine(model, (OV, ORT), FRAMES, run=told)
    assert found.choice == ORT
    assert found.tried[0].why == (
        "answers otherwise than onnxruntime on CPUExecutionProvider, float32: probabilities "
        "differ by up to 0.0011 (allowed: 0.001)"
    )


def test_fewer_bits_have_a_wider_tolerance(model: Artefact) -> None:
    half = replace(OV, precision="bfloat16")
    told = Told(onnxruntime_float32=(5.0, 0.0), openvino_bfloat16=(2.0, 0.04))
    assert choose_engine(model, (ORT, half), FRAMES, run=told).choice == half
    told.ways["openvino_bfloat16"] = (2.0, 0.06)
    assert choose_engine(model, (ORT, half), FRAMES, run=told).choice == ORT


def test_a_precision_that_is_asked_for_holds_for_all(model: Artefact) -> None:
    told = Told(
        onnxruntime_float32=(5.0, 0.0),
        onnxruntime_bfloat16=EngineError("has only float32"),
        openvino_bfloat16=(9.0, 0.01),
    )
    found = choose_engine(model, (ORT, OV), FRAMES, precision=Precision.BFLOAT16, run=told)
    assert found.choice == replace(OV, precision="bfloat16")
    assert found.tried[0].why == "does not run: has only float32"


def test_a_device_that_is_asked_for_leaves_the_others_out(model: Artefact) -> None:
    told = Told(onnxruntime_float32=(5.0, 0.0))
    found = choose_engine(model, (ORT, OV), FRAMES, device="CPUExecutionProvider", run=told)
    assert [one.choice for one in found.tried] == [ORT]
    with pytest.raises(EngineError, match="no engine on NPU"):
        choose_engine(model, (ORT, OV), FRAMES, device="NPU", run=told)


def test_candidates_run_again_in_turns_and_the_better_figure_counts(model: Artefact) -> None:
    times = {"onnxruntime_float32": [9.0, 4.0], "openvino_float32": [5.0, 6.0]}

    def busy_at_first(step: TryStep, what: str) -> CandidateAnswer:
        name = f"{step.artefact.engine}_{step.artefact.options.precision.value}"
        return CandidateAnswer(np.array([[1.0, 0.0]]), times[name].pop(0))

    found = choose_engine(model, (OV, ORT), FRAMES, run=busy_at_first)
    assert found.choice == ORT
    assert [one.median_ms for one in found.tried] == [5.0, 4.0]


def test_where_none_can_be_taken_every_reason_is_told(model: Artefact) -> None:
    told = Told(onnxruntime_float32=(5.0, 0.0), openvino_float32=EngineError("no driver"))
    unknown = EngineChoice("rknn", "NPU")
    with pytest.raises(EngineError) as caught:
        choose_engine(model, (OV, unknown), FRAMES, run=told)
    message = str(caught.value)
    assert message.startswith("model tiny: no engine can be taken: openvino on CPU, float32: does")
    assert "no driver" in message
    assert "no engine 'rknn'" in message


def test_files_that_an_engine_does_not_read_are_not_given_to_it(model: Artefact) -> None:
    other = model.files[0].with_suffix(".tflite")
    told = Told(openvino_float32=(5.0, 0.0))
    reference = replace(model, files=(other,), engine="openvino")
    found = choose_engine(reference, (ORT, OV), FRAMES, run=told)
    assert [one.why for one in found.tried] == ["does not read .tflite files", ""]


def test_a_choice_is_kept_until_something_it_rests_on_changes(
    model: Artefact, tmp_path: Path
) -> None:
    told = Told(onnxruntime_float32=(5.0, 0.0), openvino_float32=(2.0, 0.0))
    releases = {"onnxruntime": "onnxruntime 1.31", "openvino": "openvino 2026.1"}
    cache = ChoiceCache(tmp_path / "cache", lambda: {"processor": "x"}, releases.get)

    def again(model: Artefact = model, cache: ChoiceCache = cache) -> bool:
        """Whether it was measured anew."""
        told.runs.clear()
        found = choose_engine(model, (ORT, OV), FRAMES, run=told, cache=cache)
        assert found.choice == OV
        assert [one.why for one in found.tried][1] == ""
        assert (found.kept_in is None) == bool(told.runs)
        return bool(told.runs)

    assert again()
    assert not again()
    releases["openvino"] = "openvino 2026.2"
    assert again()
    assert not again()
    assert again(replace(model, sha256="0" * 64))
    assert again(cache=replace(cache, device=lambda: {"processor": "y"}))
    assert not again(), "another device's choice has its own file"
    for path in (tmp_path / "cache").iterdir():
        path.write_text(path.read_text()[:-30])
    assert again(), "a damaged file is none"


def test_candidates_are_the_profiles_or_what_this_machine_has() -> None:
    profile = load_profile("jetson-orin-nano")
    assert candidates(profile) == profile.engines
    here = candidates(None)
    assert {ORT, OV} <= set(here)
    assert all(one.precision == "float32" for one in here)


def test_the_distribution_is_part_of_an_engines_version() -> None:
    found = engine_version("onnxruntime")
    assert found is not None
    assert found.startswith("onnxruntime")
    assert engine_version("no-such-engine") is None
    brought = packages_distributions()
    for name in ("onnxruntime", "openvino"):
        told = [f"{owner} {version(owner)}" for owner in sorted(set(brought.get(name, [])))]
        assert engine_version(name) == (", ".join(told) or None)


def test_bench_takes_the_fastest_and_keeps_the_choice(tmp_path: Path) -> None:
    model = described(tmp_path)
    quickly = ("--runs", "3", "--seconds", "0.05", "--no-throughput", "--json")
    first = command(tmp_path, "bench", str(model), "--engine", "auto", *quickly)
    assert first.code == 0, first.err
    report = json.loads(first.out)
    taken = [one for one in report["engine_choice"]["tried"] if not one["why"]]
    assert [one["engine"] for one in taken] == [report["stages"][0]["engine"]]
    assert "slower than" in first.err
    second = command(tmp_path, "bench", str(model), "--engine", "auto", *quickly)
    assert "as measured before" in second.err
    assert json.loads(second.out)["stages"][0]["engine"] == taken[0]["engine"]


def test_bench_tries_what_a_profile_lists(tmp_path: Path) -> None:
    model = described(tmp_path)
    quickly = ("--runs", "3", "--seconds", "0.05", "--no-throughput")
    asked = ("bench", str(model), "--engine", "auto", "--profile", "jetson-orin-nano", *quickly)
    done = command(tmp_path, *asked)
    assert done.code == 0, done.err
    assert "has no TensorrtExecutionProvider here" in done.out
    assert "engine onnxruntime on CPUExecutionProvider, float32" in done.out
    alone = command(tmp_path, "bench", str(model), "--profile", "jetson-orin-nano")
    assert (alone.code, alone.err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_calibrate_writes_the_engine_that_it_chose_into_the_bundle(tmp_path: Path) -> None:
    path = recipe(tmp_path, {"tiny": SAVER, "big": LARGE})
    colour_folders(tmp_path / "images", each=60)
    own = tmp_path / "box.toml"
    own.write_text(
        'name = "box"\ndescription = "a box"\nkind = "computer"\n'
        '[[engines]]\nengine = "openvino"\ndevice = "GPU.7"\n'
        '[[engines]]\nengine = "openvino"\ndevice = "CPU"\n'
        "[verified]\non_hardware = false\n"
    )
    done = spawned(
        "calibrate", path, "--data", tmp_path / "images", "--engine", "auto", "--device", own,
        "--method", "empirical", "--no-timing", "--no-report", "--out", tmp_path / "bundle",
        environment={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err.count("openvino on GPU.7, float32: does not run") == 2
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    ways = {(one["model"]["engine"], one["model"]["device"]) for one in manifest["stages"]}
    assert ways == {("openvino", "CPU")}
    assert len(list((tmp_path / "cache").rglob("engines/*.json"))) == 2
