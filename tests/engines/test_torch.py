"""The torch engine: the contract on every device that is here, and what only CUDA promises."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

REASON = "needs pip install 'tinysaver-edge[timm]'"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("timm", reason=REASON)
pytest.importorskip("safetensors.torch", reason=REASON)

from tinysaver_edge.engines.base import Engine, EngineOptions, Precision  # noqa: E402
from tinysaver_edge.engines.registry import create_engine, engine_class  # noqa: E402
from tinysaver_edge.engines.timm_file import (  # noqa: E402
    Architecture,
    build_module,
    read_module,
    write_timm_file,
)
from tinysaver_edge.engines.torch import MOST_GRAPHS, TorchEngine  # noqa: E402
from tinysaver_edge.engines.worker import Setup, WorkerEngine  # noqa: E402
from tinysaver_edge.errors import DescriptionError, EngineError, ModelError  # noqa: E402
from tinysaver_edge.output_format import OutputFormat  # noqa: E402
from tinysaver_edge.preprocess import Preprocess, Resize  # noqa: E402

SIZE, CLASSES = 96, 10
FRAMES = Preprocess(Resize(SIZE, SIZE))
NETS = ("test_resnet", "test_vit")
CUDA = torch.cuda.is_available()
DEVICES = ["cpu", *(["cuda"] if CUDA else [])]
TOLERANCE = {
    Precision.FLOAT32: 1e-4,
    Precision.TF32: 5e-3,
    Precision.FLOAT16: 1e-2,
    Precision.BFLOAT16: 5e-2,
}
"""Largest difference of a probability from float32 on the processor."""

every_device = pytest.mark.parametrize("device", DEVICES)
needs_cuda = pytest.mark.skipif(not CUDA, reason="torch finds no CUDA here")


def test_the_device_that_was_announced_is_there() -> None:
    """`make test-gpu` says what it expects: skipping all that matters would look like success."""
    assert os.environ.get("TINYSAVER_GPU", "cpu").partition(":")[0] in DEVICES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small networks with random weights, whose logits spread by 1."""
    folder = tmp_path_factory.mktemp("torch")
    made = {}
    for name in NETS:
        path = folder / f"{name}.safetensors"
        architecture = Architecture(
            name, CLASSES, SIZE, SIZE, multiply=(1 / 60,) * 3, add=(-2.0,) * 3
        )
        torch.manual_seed(0)
        module = build_module(architecture, path).eval()
        with torch.no_grad():
            picture = torch.randn(8, 3, SIZE, SIZE)
            module.get_classifier().weight.mul_(1 / module(picture).std(dim=0).mean())
        write_timm_file(path, module, architecture, {})
        made[name] = path
    return made


@pytest.fixture(scope="module", params=NETS)
def model(request: pytest.FixtureRequest, models: dict[str, Path]) -> Path:
    return models[request.param]


def opened(model: Path, device: str, **options) -> TorchEngine:
    engine = create_engine(
        "torch",
        model,
        preprocess=FRAMES,
        output=OutputFormat(),
        options=EngineOptions(device=device, **options),
    )
    assert isinstance(engine, TorchEngine)
    return engine


def batch_of(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def probabilities(logits: np.ndarray) -> np.ndarray:
    risen = np.exp(logits - logits.max(axis=1, keepdims=True))
    return risen / risen.sum(axis=1, keepdims=True)


def reference(model: Path, batch: np.ndarray) -> np.ndarray:
    """What timm's own module answers to pictures that numpy has scaled."""
    architecture, module = read_module(model)
    scaled = batch[..., ::-1] * np.float32(architecture.multiply) + np.float32(architecture.add)
    with torch.no_grad():
        picture = torch.from_numpy(scaled.astype(np.float32).transpose(0, 3, 1, 2).copy())
        return module(picture).numpy()


@every_device
@pytest.mark.parametrize("count", [1, 3, 8])
def test_answers_are_those_of_timm(model: Path, device: str, count: int) -> None:
    batch = batch_of(count)
    with opened(model, device) as engine:
        logits = engine.infer(batch)
    assert logits.shape == (count, CLASSES)
    assert logits.dtype == np.float32
    expected = reference(model, batch)
    assert np.abs(probabilities(logits) - probabilities(expected)).max() <= 1e-4


@every_device
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
def test_batches_of_any_length_in_any_order(model: Path, device: str, graphs: bool) -> None:
    batch = batch_of(9)
    expected = reference(model, batch)
    with opened(model, device, graphs=graphs) as engine:
        for start, stop in ((0, 1), (1, 2), (2, 5), (5, 9), (0, 9), (3, 5), (0, 7), (8, 9), (0, 9)):
            found = engine.infer(batch[start:stop])
            np.testing.assert_allclose(found, expected[start:stop], atol=2e-3)


@every_device
def test_a_refilled_batch_is_read_again(model: Path, device: str) -> None:
    batch, place = batch_of(2), np.empty((1, SIZE, SIZE, 3), np.uint8)
    with opened(model, device) as engine:
        found = []
        for picture in batch:
            place[0] = picture
            found.append(engine.infer(place).copy())
        np.testing.assert_allclose(np.concatenate(found), engine.infer(batch), atol=2e-3)
        assert np.abs(found[0] - found[1]).max() > 1e-2


@every_device
@pytest.mark.parametrize("kind", ["read-only", "reversed"])
def test_awkward_memory(model: Path, device: str, kind: str) -> None:
    batch = batch_of(1)
    awkward = batch[..., ::-1] if kind == "reversed" else batch
    plain = awkward.copy()
    batch.flags.writeable = False
    with opened(model, device) as engine:
        expected = engine.infer(plain).copy()
        np.testing.assert_array_equal(engine.infer(awkward), expected)


@every_device
def test_a_closed_engine_says_so(model: Path, device: str) -> None:
    engine = opened(model, device)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(batch_of(1))


@every_device
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda batch: batch[:, 1:], "got (2, 95, 96, 3)", id="rows"),
        pytest.param(lambda batch: batch.astype(np.float32), "of float32", id="type"),
        pytest.param(lambda batch: batch[:0], "empty", id="empty"),
    ],
)
def test_a_batch_that_does_not_fit(models, device: str, change, message: str) -> None:
    with opened(models["test_resnet"], device) as engine, pytest.raises(EngineError) as caught:
        engine.infer(change(batch_of(2)))
    assert message in str(caught.value)


def test_a_description_that_contradicts_the_file(models: dict[str, Path]) -> None:
    other = replace(FRAMES, resize=Resize(64, 64))
    with pytest.raises(DescriptionError, match=r"the file takes uint8 \(n, 96, 96, 3\)"):
        create_engine("torch", models["test_vit"], preprocess=other, output=OutputFormat())


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_line(models, tmp_path: Path, share: float) -> None:
    whole = models["test_resnet"].read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError) as caught:
        opened(cut, "cpu")
    assert str(cut) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_and_is_not_there_is_refused(models: dict[str, Path]) -> None:
    model = models["test_resnet"]
    with pytest.raises(EngineError, match=r"no device cuda:77 here, only cpu"):
        opened(model, "cuda:77")
    if not CUDA:
        with pytest.raises(EngineError, match=r"no device cuda here, only cpu"):
            opened(model, "cuda")
    with opened(model, "cuda:77", allow_fallback=True, precision=Precision.TF32) as engine:
        assert (engine.fell_back, engine.device) == (True, "cpu")
        assert engine.precision is Precision.FLOAT32
        found = engine.infer(batch_of(2)).copy()
    with opened(model, "cpu") as engine:
        np.testing.assert_array_equal(found, engine.infer(batch_of(2)))


def test_the_processor_has_no_tf32(models: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="cpu cannot compute in tf32 here, it has float32"):
        opened(models["test_resnet"], "cpu", precision=Precision.TF32)


@every_device
@pytest.mark.parametrize("precision", Precision, ids=[one.value for one in Precision])
def test_precisions_are_near_float32(model: Path, device: str, precision: Precision) -> None:
    if device == "cpu" and precision is Precision.TF32:
        pytest.skip("the processor has none")
    batch = batch_of(4)
    with opened(model, device, precision=precision) as engine:
        assert engine.precision is precision
        found = probabilities(engine.infer(batch))
    expected = probabilities(reference(model, batch))
    assert np.abs(found - expected).max() <= TOLERANCE[precision]


@every_device
def test_a_worker_answers_the_same(models: dict[str, Path], device: str) -> None:
    setup = Setup(
        "torch", models["test_resnet"], FRAMES, OutputFormat(), EngineOptions(device=device)
    )
    batch = batch_of(3)
    with WorkerEngine(setup) as worker, opened(models["test_resnet"], device) as here:
        np.testing.assert_allclose(worker.infer(batch), here.infer(batch), atol=1e-4)


def test_devices_are_torchs_own() -> None:
    accepts = engine_class("torch").accepts_device
    assert [one for one in ("cpu", "cuda", "cuda:1", "CUDA", "gpu", "cuda:x") if accepts(one)] == [
        "cpu", "cuda", "cuda:1",
    ]  # fmt: skip


# CUDA alone


@needs_cuda
@pytest.mark.parametrize("precision", Precision, ids=[one.value for one in Precision])
def test_graphs_answer_as_kernels_do_to_the_bit(model: Path, precision: Precision) -> None:
    sizes = (1, 2, 5, 8)
    with (
        opened(model, "cuda", precision=precision) as graphs,
        opened(model, "cuda", precision=precision, graphs=False) as eager,
    ):
        for seed in range(3):
            for count in sizes:
                batch = batch_of(count, seed=seed)
                np.testing.assert_array_equal(graphs.infer(batch).copy(), eager.infer(batch))
        assert graphs.graphed == sizes, graphs.refused_graphs
        assert eager.graphed == ()


@needs_cuda
def test_no_more_sizes_are_recorded_than_there_is_room_for(models: dict[str, Path]) -> None:
    with opened(models["test_resnet"], "cuda") as engine:
        for count in range(1, MOST_GRAPHS + 4):
            engine.infer(batch_of(count))
        assert engine.graphed == tuple(range(1, MOST_GRAPHS + 1))


@needs_cuda
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
def test_nothing_crosses_the_bus_from_pageable_memory(models, graphs: bool) -> None:
    from torch.profiler import ProfilerActivity, profile

    with opened(models["test_vit"], "cuda", graphs=graphs) as engine:
        engine.infer(batch_of(4))
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
            for _ in range(3):
                engine.infer(batch_of(4))
    copies = [one.name for one in watched.events() if "HtoD" in one.name or "DtoH" in one.name]
    assert len(copies) >= 6
    assert [one for one in copies if "Pinned" not in one] == []


@needs_cuda
def test_float32_is_float32_whatever_the_program_has_set(models: dict[str, Path]) -> None:
    """TF32 is asked for by its name, and what others have set stays as it was."""
    model, batch = models["test_vit"], batch_of(8)
    with opened(model, "cuda", graphs=False) as engine:
        exact = engine.infer(batch).copy()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with opened(model, "cuda", graphs=False) as engine:
            np.testing.assert_array_equal(engine.infer(batch), exact)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    with opened(model, "cuda", precision=Precision.TF32) as engine:
        coarse = engine.infer(batch)
        assert np.abs(coarse - exact).max() > 2e-5
    assert not torch.backends.cuda.matmul.allow_tf32


@needs_cuda
def test_two_engines_take_turns_on_one_gpu(models: dict[str, Path]) -> None:
    """Each has a stream and graphs of its own; threads do not disturb a recording."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(engine: Engine) -> list[np.ndarray]:
        return [engine.infer(batch_of(count)).copy() for count in (1, 2, 3, 2, 1) for _ in range(9)]

    with opened(models["test_resnet"], "cuda") as one, opened(models["test_vit"], "cuda") as other:
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(ask, (one, other)))
        for engine, found in zip((one, other), together, strict=True):
            for again, before in zip(ask(engine), found, strict=True):
                np.testing.assert_array_equal(again, before)


@needs_cuda
def test_a_gpu_without_room_is_one_clear_line(models: dict[str, Path]) -> None:
    with opened(models["test_resnet"], "cuda", graphs=False) as engine:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        hog = torch.empty(int(free * 0.95), dtype=torch.uint8, device="cuda")
        try:
            with pytest.raises(EngineError, match=r"failed on cuda:0 in float32 .*memory"):
                engine.infer(np.zeros((20_000, SIZE, SIZE, 3), np.uint8))
        finally:
            del hog
            torch.cuda.empty_cache()
        assert engine.infer(batch_of(1)).shape == (1, CLASSES)
