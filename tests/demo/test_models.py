"""The demo's models: small files, no leaks, and a large model that is worth asking."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from tinysaver_edge.demo import TRAINING_SEEDS_FROM
from tinysaver_edge.demo.camera import CLASS_NAMES, SimulatedCamera
from tinysaver_edge.demo.show import MODEL_NAMES, demo_model_paths

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

cv2 = pytest.importorskip("cv2", reason="the simulated camera draws with OpenCV")
onnx = pytest.importorskip("onnx", reason="the test reads the models' graphs")
ort = pytest.importorskip("onnxruntime", reason="the test runs the models")

SEED = 20_000
FRAMES = 2_000
ALL_MODELS = pytest.mark.parametrize("path", demo_model_paths(), ids=MODEL_NAMES)


@dataclass(frozen=True)
class Answers:
    """What every model said about the fresh frames: logits by model, and the labels."""

    logits: list[np.ndarray]
    labels: np.ndarray

    def right(self, model: int) -> np.ndarray:
        return self.logits[model].argmax(axis=1) == self.labels


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Halve exactly while possible, then one bilinear step, as the runtime does."""
    while frame.shape[0] >= 2 * height and frame.shape[1] >= 2 * width:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = cv2.resize(frame, half, interpolation=cv2.INTER_AREA)
    if frame.shape[:2] != (height, width):
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return frame


def session(path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def answers() -> Answers:
    assert SEED < TRAINING_SEEDS_FROM
    sessions = [session(path) for path in demo_model_paths()]
    logits, labels = [[] for _ in sessions], []
    for frame, label in SimulatedCamera(seed=SEED).frames(FRAMES):
        labels.append(label)
        for found, runner in zip(logits, sessions, strict=True):
            _, height, width, _ = runner.get_inputs()[0].shape
            batch = resized(frame, height, width)[None]
            found.append(runner.run(None, {"frames": batch})[0][0])
    return Answers([np.stack(found) for found in logits], np.array(labels))


def macs(path) -> int:
    """Count the multiply-accumulates of the convolutions and linear layers of a graph."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    known = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known}
    weights = {w.name: list(w.dims) for w in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            pixels = math.prod(shapes[node.output[0]][2:])
            total += pixels * math.prod(weights[node.input[1]])
        elif node.op_type == "Gemm":
            total += math.prod(weights[node.input[1]])
    return total


def test_the_files_are_small_enough_for_the_package():
    assert sum(path.stat().st_size for path in demo_model_paths()) < 15e6


@ALL_MODELS
def test_the_description_in_the_file_fits_the_file(path):
    model = onnx.load(path)
    (text,) = (p.value for p in model.metadata_props if p.key == "tinysaver_edge.description")
    described = tomllib.loads(text)
    (entry,) = model.graph.input
    dims = entry.type.tensor_type.shape.dim
    assert described["labels"] == list(CLASS_NAMES)
    assert described["input"]["size"] == [dims[1].dim_value, dims[2].dim_value]
    assert (described["input"]["layout"], dims[3].dim_value) == ("NHWC", 3)
    assert described["input"]["dtype"] == "uint8"
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert described["input"]["color"] == "BGR"
    assert described["input"]["scale"] == {"kind": "raw"}
    assert described["input"]["resize"] == {"policy": "squash", "antialias": True}
    assert described["output"]["kind"] == "logits"


@ALL_MODELS
def test_older_runtimes_can_read_it_and_nothing_leaks(path):
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert [(o.domain, o.version <= 20) for o in model.opset_import] == [("", True)]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not {"BatchNormalization", "Dropout"} & {node.op_type for node in model.graph.node}
    assert [n.op_type for n in model.graph.node][:5] == ["Transpose", "Cast", "Mul", "Add", "Conv"]
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")
    assert not re.search(rb"/\w+/|\w:\\|\.py\b", model.SerializeToString())


@ALL_MODELS
def test_a_batch_gives_what_single_frames_give(path):
    runner = session(path)
    _, height, width, _ = runner.get_inputs()[0].shape
    frames = SimulatedCamera(seed=SEED + 1).frames(5)
    batch = np.stack([resized(frame, height, width) for frame, _ in frames])
    (together,) = runner.run(None, {"frames": batch})
    single = np.concatenate([runner.run(None, {"frames": one[None]})[0] for one in batch])
    assert together.shape == (5, len(CLASS_NAMES))
    np.testing.assert_allclose(together, single, atol=1e-4)


def test_models_are_listed_cheapest_first_and_the_large_costs_much_more():
    costs = [macs(path) for path in demo_model_paths()]
    assert costs == sorted(costs)
    assert costs[-1] >= 20 * costs[0]


@pytest.mark.slow
def test_the_large_model_is_worth_asking_and_the_smallest_worth_having(answers):
    accuracies = [answers.right(i).mean() for i in range(len(MODEL_NAMES))]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] - accuracies[0] >= 0.03
    assert accuracies[0] >= 0.85
    assert accuracies[-1] >= 0.95


@pytest.mark.slow
def test_the_smallest_answers_most_frames_within_half_a_point(answers):
    """Half the frames choose the threshold on the margin, the others are counted."""
    ordered = np.sort(np.exp(answers.logits[0]), axis=1)
    margins = (ordered[:, -1] - ordered[:, -2]) / ordered.sum(axis=1)
    lost = answers.right(-1).astype(int) - answers.right(0)
    tune, fresh = slice(0, FRAMES // 2), slice(FRAMES // 2, None)
    order = np.argsort(-margins[tune])
    drops = np.cumsum(lost[tune][order]) / order.size
    accepted = np.flatnonzero(drops <= 0.005)[-1]
    threshold = margins[tune][order][accepted]
    assert 0.5 <= (margins[fresh] >= threshold).mean() <= 0.95
