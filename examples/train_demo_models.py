"""Train the small models of the demo on its simulated camera and write them as ONNX.

This is how ``tinysaver_edge/demo/weights/`` was made, in about 35 minutes on two busy cores:

    pip install torch==2.13.0 onnx onnxruntime opencv-python numpy
    pip install -e .
    python examples/train_demo_models.py --out tinysaver_edge/demo/weights

All is seeded: frames from ``TRAINING_SEEDS_FROM`` on, weights and batches from ``--seed``. The same
versions on the same kind of processor with the same ``--threads`` give the same models; another
processor rounds differently and gives models that are as good. Training is not part of the package.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from tinysaver_edge.demo import TRAINING_SEEDS_FROM
from tinysaver_edge.demo.camera import CLASS_NAMES, FRAME_HEIGHT, FRAME_WIDTH, SimulatedCamera

CHUNK = 1000
BATCH = 128
MEAN, SPREAD = 110.0, 60.0
OPSET, IR_VERSION = 17, 8


@dataclass(frozen=True)
class Plan:
    """One model: its blocks, and how long it trains.

    Attributes:
        halvings: how often the frame is halved to make the model's input.
        blocks: ``(channels, stride)`` of a convolution; stride 0 is a residual pair.
        coarse_epochs: passes over frames of half the model's size (quick, at the beginning).
        epochs: passes over frames of the model's own size.
        rate: highest learning rate.
    """

    halvings: int
    blocks: tuple[tuple[int, int], ...]
    coarse_epochs: int
    epochs: int
    rate: float


PLANS = {
    "parts_nano": Plan(2, ((12, 2), (24, 2), (48, 2), (48, 1), (64, 2)), 0, 10, 5e-3),
    "parts_small": Plan(2, ((16, 2), (32, 2), (64, 2), (64, 0), (96, 2)), 0, 8, 4e-3),
    "parts_large": Plan(1, ((24, 2), (48, 2), (48, 0), (96, 2), (96, 0), (128, 2), (128, 0)), 5, 2,
                        3e-3),
}  # fmt: skip


class ConvBlock(nn.Module):
    """Convolution 3 × 3 and batch normalisation, with ReLU behind it or not."""

    def __init__(self, channels_in: int, channels: int, stride: int, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(n, channels, height, width)``."""
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.relu else x

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the one convolution that does the same when not training."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        weight = self.conv.weight * scale[:, None, None, None]
        bias = self.norm.bias - self.norm.running_mean * scale
        return weight.detach().numpy().copy(order="C"), bias.detach().numpy()


class Residual(nn.Module):
    """Two convolutions around which the input is carried past."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 1)
        self.second = ConvBlock(channels, channels, 1, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what came in, changed a little."""
        return functional.relu(x + self.second(self.first(x)))


class PartsNet(nn.Module):
    """Blocks one after another, the mean over the picture, and one linear layer."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width, stride in plan.blocks:
            blocks.append(ConvBlock(channels, width, stride) if stride else Residual(width))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, len(CLASS_NAMES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, classes)`` of normalised frames ``(n, 3, height, width)``."""
        return self.head(self.blocks(x).mean((2, 3)))


def halved(frame: np.ndarray, times: int) -> np.ndarray:
    """Halve a frame as the runtime does on its way to a model's input."""
    for _ in range(times):
        frame = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return frame


def draw_chunk(job: tuple[int, int]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Draw some frames and keep them at a half, a quarter and an eighth of their size."""
    seed, start = job
    cv2.setNumThreads(1)
    sizes: dict[int, list[np.ndarray]] = {1: [], 2: [], 3: []}
    labels = []
    for frame, label in SimulatedCamera(seed=seed).frames(CHUNK, start=start):
        labels.append(label)
        for halvings, kept in sizes.items():
            kept.append(halved(frame, halvings))
    return {k: np.stack(v) for k, v in sizes.items()}, np.array(labels)


def draw_frames(seed: int, count: int, workers: int) -> tuple[dict[int, np.ndarray], torch.Tensor]:
    """Draw labelled frames in parallel; frames by number of halvings."""
    with ProcessPoolExecutor(workers) as pool:
        chunks = list(pool.map(draw_chunk, [(seed, start) for start in range(0, count, CHUNK)]))
    frames = {k: np.concatenate([c[0][k] for c in chunks]) for k in (1, 2, 3)}
    return frames, torch.from_numpy(np.concatenate([c[1] for c in chunks]))


def to_input(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 NHWC pixels into what the blocks take."""
    batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
    return ((batch - MEAN) / SPREAD).contiguous(memory_format=torch.channels_last)


def batches(plan: Plan, count: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Yield how often to halve and which frames to take, batch by batch."""
    for epoch in range(plan.coarse_epochs + plan.epochs):
        order = rng.permutation(count)
        halvings = plan.halvings + (epoch < plan.coarse_epochs)
        for start in range(0, count - BATCH + 1, BATCH):
            yield halvings, np.sort(order[start : start + BATCH])


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror a batch at random: a part's mirror image is a part of the same kind."""
    for axis in (1, 2):
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
    return pixels


def train(
    name: str,
    frames: dict[int, np.ndarray],
    labels: torch.Tensor,
    *,
    seed: int,
    check: tuple[dict[int, np.ndarray], torch.Tensor],
) -> PartsNet:
    """Train one model: AdamW, a warm-up, then a cosine down to nothing."""
    plan = PLANS[name]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = PartsNet(plan).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = (plan.coarse_epochs + plan.epochs) * (len(labels) // BATCH)
    began = time.monotonic()
    for step, (halvings, chosen) in enumerate(batches(plan, len(labels), rng)):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(done / 0.05, 1.0) * (1 + math.cos(math.pi * done)) / 2
        net.train()
        inputs = to_input(augment(frames[halvings][chosen], rng))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = net(inputs)
        loss = functional.cross_entropy(outputs.float(), labels[chosen], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % (steps // 10) == 0:
            right = accuracy(net, check[0][halvings], check[1])
            print(f"{name} {100 * done:3.0f} % {time.monotonic() - began:5.0f} s "
                  f"loss {loss.item():.3f} accuracy {right:.4f}", flush=True)  # fmt: skip
    return net.eval()


@torch.no_grad()
def accuracy(net: PartsNet, pixels: np.ndarray, labels: torch.Tensor) -> float:
    """Return the share of frames that a model gets right, in float32."""
    net.eval()
    found = [net(to_input(pixels[i : i + BATCH])).argmax(1) for i in range(0, len(pixels), BATCH)]
    return (torch.cat(found) == labels).float().mean().item()


class Graph:
    """An ONNX graph that grows by one node at a time, each reading what the last one wrote."""

    def __init__(self, source: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = source

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def add(self, kind: str, *more: str, output: str | None = None, **attributes: object) -> str:
        """Add a node that reads what the last one wrote, and return its output's name."""
        name = f"{kind.lower()}{len(self.nodes)}"
        output = output or name
        self.nodes.append(helper.make_node(kind, [self.last, *more], [output], name, **attributes))
        self.last = output
        return output

    def block(self, block: ConvBlock) -> None:
        """Add a block with its batch normalisation folded into the convolution."""
        folded, name, strides = block.folded(), f"conv{len(self.nodes)}", list(block.conv.stride)
        weight, bias = self.constant(f"{name}.w", folded[0]), self.constant(f"{name}.b", folded[1])
        self.add("Conv", weight, bias, kernel_shape=[3, 3], strides=strides, pads=[1, 1, 1, 1])
        if block.relu:
            self.add("Relu")


def to_onnx(net: PartsNet, name: str) -> onnx.ModelProto:
    """Write a model out by hand: raw uint8 NHWC BGR frames in, logits out, batch norms folded."""
    graph = Graph("frames")
    graph.add("Transpose", perm=[0, 3, 1, 2])
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Mul", graph.constant("scale", np.array(1 / SPREAD)))
    graph.add("Add", graph.constant("offset", np.array(-MEAN / SPREAD)))
    for block in net.blocks:
        if isinstance(block, ConvBlock):
            graph.block(block)
        else:
            carried = graph.last
            graph.block(block.first)
            graph.block(block.second)
            graph.add("Add", carried)
            graph.add("Relu")
    graph.add("GlobalAveragePool")
    graph.add("Flatten")
    weight = graph.constant("head.weight", net.head.weight.detach().numpy())
    bias = graph.constant("head.bias", net.head.bias.detach().numpy())
    graph.add("Gemm", weight, bias, output="logits", transB=1)
    height, width = input_size(name)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", height, width, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASS_NAMES)])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tinysaver-edge",
    )
    helper.set_model_props(model, {"tinysaver_edge.description": description(name)})
    onnx.checker.check_model(model, full_check=True)
    return model


def input_size(name: str) -> tuple[int, int]:
    """Return height and width of a model's input."""
    return FRAME_HEIGHT >> PLANS[name].halvings, FRAME_WIDTH >> PLANS[name].halvings


def description(name: str) -> str:
    """Return what the runtime must know about a model, as TOML."""
    height, width = input_size(name)
    labels = ", ".join(f'"{label}"' for label in CLASS_NAMES)
    return f"""labels = [{labels}]

[input]
layout = "NHWC"
dtype = "uint8"
color = "BGR"
size = [{height}, {width}]
scale = {{ kind = "raw" }}
resize = {{ policy = "squash", antialias = true }}

[output]
kind = "logits"
"""


def check_export(path: Path, net: PartsNet, pixels: np.ndarray) -> float:
    """Return the largest difference between the file's outputs and the trained model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"frames": pixels})
    with torch.no_grad():
        return float(np.abs(found - net(to_input(pixels)).numpy()).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the .onnx files")
    parser.add_argument(
        "--frames", type=int, default=48_000, help="how many to draw, in whole thousands"
    )
    parser.add_argument("--models", nargs="*", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--threads", type=int, default=1, help="processor cores for training")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw frames")
    parser.add_argument("--seed", type=int, default=0, help="weights and order of the batches")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frames, labels = draw_frames(TRAINING_SEEDS_FROM, options.frames, options.workers)
    check = draw_frames(TRAINING_SEEDS_FROM + 1, 2 * CHUNK, options.workers)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        net = train(name, frames, labels, seed=options.seed, check=check)
        path = options.out / f"{name}.onnx"
        onnx.save(to_onnx(net, name), path)
        pixels = check[0][PLANS[name].halvings]
        right = accuracy(net, pixels, check[1])
        difference = check_export(path, net, pixels[:64])
        print(f"{path.name}: {path.stat().st_size} bytes, accuracy {right:.4f} on {len(pixels)} "
              f"other frames, outputs within {difference:.1e} of the trained model's")  # fmt: skip


if __name__ == "__main__":
    main()
