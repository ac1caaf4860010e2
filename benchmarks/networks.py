"""Networks of known architecture as .onnx files, built without a training framework.

Weights are seeded random numbers, or zeros that take hardly any room on the disk: what is measured
with them (time, multiply-accumulates, preprocessing) does not depend on what a network has learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from onnx import TensorProto, external_data_helper, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class NetworkBuilder:
    """Strings layers together; every method adds one and returns the name of its output.

    Args:
        seed: for the weights; None makes them zeros in a sparse file beside the model.
    """

    def __init__(self, *, seed: int | None = 0) -> None:
        self._rng = np.random.default_rng(seed) if seed is not None else None
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._sparse_bytes = 0
        self._sparse_offsets: list[int] = []

    def node(self, operation: str, *inputs: str, **attributes: object) -> str:
        """Add an operation of one output."""
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """Add a weight; random ones keep the size of activations about the same."""
        name = f"w{len(self._weights)}"
        if self._rng is None:
            self._weights.append(self._sparse(name, shape))
        else:
            fan_in = max(1, int(np.prod(shape[1:])))
            values = self._rng.normal(0, gain * np.sqrt(2 / fan_in), shape).astype(np.float32)
            self._weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, values: ArrayLike) -> str:
        """Add a small constant."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(
        self,
        x: str,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """Add a convolution, padded to keep its size unless told otherwise."""
        pad = kernel // 2 if pad is None else pad
        weights = [self.weight(channels_out, channels_in // groups, kernel, kernel)]
        if bias:
            weights.append(self.weight(channels_out, gain=0.01))
        return self.node(
            "Conv",
            x,
            *weights,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )

    def linear(self, x: str, features_in: int, features_out: int) -> str:
        """Add a fully connected layer over (n, features)."""
        matrix = self.weight(features_out, features_in)
        return self.node("Gemm", x, matrix, self.weight(features_out, gain=0.01), transB=1)

    def max_pool(self, x: str, kernel: int, *, stride: int, pad: int = 0) -> str:
        """Add a pooling by the maximum."""
        return self.node(
            "MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
        )

    def save(
        self, path: Path, answer: str, *, size: int, classes: int, batch: int | str = "n"
    ) -> Path:
        """Write the model, input ``image`` (batch, 3, size, size), output ``logits``."""
        self._nodes.append(helper.make_node("Identity", [answer], ["logits"]))
        self._write_sparse(path)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])
        graph = helper.make_graph(self._nodes, path.stem, [image], [logits], self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def _sparse(self, name: str, shape: tuple[int, ...]) -> TensorProto:
        """Add a weight of zeros but for a number that tells it from the others.

        Compilers merge equal weights, and then the operations that read them.
        """
        size_bytes = 4 * int(np.prod(shape))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, raw_data=b"")
        external_data_helper.set_external_data(
            tensor, "sparse", offset=self._sparse_bytes, length=size_bytes
        )
        self._sparse_bytes += -(-size_bytes // 4096) * 4096
        self._sparse_offsets.append(self._sparse_bytes)
        return tensor

    def _write_sparse(self, path: Path) -> None:
        """Write all weights of zeros into one file, which takes a page of the disk for each."""
        if not self._sparse_bytes:
            return
        weights = path.with_suffix(".weights")
        with weights.open("wb") as file:
            file.truncate(self._sparse_bytes)
            for number, offset in enumerate([0, *self._sparse_offsets[:-1]]):
                file.seek(offset)
                file.write(np.float32(number + 1).tobytes())
        for tensor in self._weights:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = weights.name


# Rows of (kernel, expansion, output channels, squeeze-and-excitation, hard swish, stride): Howard
# et al., "Searching for MobileNetV3", arXiv 1905.02244, table 2 (small), expansions as ratios.
_MOBILENET_V3_SMALL = (
    (3, 1.0, 16, True, False, 2),
    (3, 4.5, 24, False, False, 2),
    (3, 3.67, 24, False, False, 1),
    (5, 4.0, 40, True, True, 2),
    (5, 6.0, 40, True, True, 1),
    (5, 6.0, 40, True, True, 1),
    (5, 3.0, 48, True, True, 1),
    (5, 3.0, 48, True, True, 1),
    (5, 6.0, 96, True, True, 2),
    (5, 6.0, 96, True, True, 1),
    (5, 6.0, 96, True, True, 1),
)


def mobilenet_v3_small(
    path: Path, *, width: float = 1.0, size: int = 224, batch: int | str = "n", seed: int | None = 0
) -> Path:
    """Write MobileNetV3-small; `width` scales its channels, the stem and the head excepted.

    At 1.0 it is torchvision's and timm's (2.54 M parameters, 0.06 GMACs), at 0.5 timm's
    ``mobilenetv3_small_050`` (1.59 M, 0.02 GMACs).
    """
    net = NetworkBuilder(seed=seed)
    x, channels = net.node("HardSwish", net.conv("image", 3, 16, 3, stride=2)), 16
    for kernel, expansion, out, squeeze, swish, stride in _MOBILENET_V3_SMALL:
        block = _Block(kernel, channels, _divisible(channels * expansion), _divisible(out * width))
        x = _inverted_residual(net, x, block, squeeze=squeeze, swish=swish, stride=stride)
        channels = block.channels_out
    last = _divisible(576 * width)
    x = net.node("HardSwish", net.conv(x, channels, last))
    x = net.node("HardSwish", net.conv(net.node("GlobalAveragePool", x), last, 1024))
    x = net.linear(net.node("Flatten", x), 1024, 1000)
    return net.save(path, x, size=size, classes=1000, batch=batch)


def mobilenet_v3_small_050(path: Path, *, batch: int | str = "n", seed: int | None = 0) -> Path:
    """Write timm's ``mobilenetv3_small_050``: the smallest saver in use."""
    return mobilenet_v3_small(path, width=0.5, batch=batch, seed=seed)


class _Block(NamedTuple):
    """Widths of one inverted residual."""

    kernel: int
    channels_in: int
    expanded: int
    channels_out: int


def _inverted_residual(
    net: NetworkBuilder, x: str, block: _Block, *, squeeze: bool, swish: bool, stride: int
) -> str:
    activation = "HardSwish" if swish else "Relu"
    middle, y = block.expanded, x
    if middle != block.channels_in:
        y = net.node(activation, net.conv(y, block.channels_in, middle))
    y = net.conv(y, middle, middle, block.kernel, stride=stride, groups=middle)
    y = net.node(activation, y)
    if squeeze:
        narrow = _divisible(middle / 4)
        gate = net.node("Relu", net.conv(net.node("GlobalAveragePool", y), middle, narrow))
        gate = net.node("HardSigmoid", net.conv(gate, narrow, middle), alpha=1 / 6, beta=0.5)
        y = net.node("Mul", y, gate)
    y = net.conv(y, middle, block.channels_out)
    return net.node("Add", x, y) if stride == 1 and block.channels_in == block.channels_out else y


def _divisible(channels: float, by: int = 8) -> int:
    """Round to a multiple of eight, not more than a tenth down, as MobileNets do."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
