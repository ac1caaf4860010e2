"""Architectures with published counts, as ONNX graphs whose weights are zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.networks import NetworkBuilder


def alexnet(path: Path) -> Path:
    net = NetworkBuilder(seed=None)
    x = net.node("Relu", net.conv("image", 3, 64, 11, stride=4, pad=2))
    x = net.max_pool(x, 3, stride=2)
    x = net.node("Relu", net.conv(x, 64, 192, 5))
    x = net.max_pool(x, 3, stride=2)
    for channels_in, channels_out in ((192, 384), (384, 256), (256, 256)):
        x = net.node("Relu", net.conv(x, channels_in, channels_out, 3))
    x = net.node("Flatten", net.max_pool(x, 3, stride=2))
    x = net.node("Relu", net.linear(x, 256 * 6 * 6, 4096))
    x = net.node("Relu", net.linear(x, 4096, 4096))
    return net.save(path, net.linear(x, 4096, 1000), size=224, classes=1000)


def vgg16(path: Path) -> Path:
    net, x, channels = NetworkBuilder(seed=None), "image", 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x, channels = net.node("Relu", net.conv(x, channels, width, 3)), width
        x = net.max_pool(x, 2, stride=2)
    x = net.node("Flatten", x)
    x = net.node("Relu", net.linear(x, 512 * 7 * 7, 4096))
    x = net.node("Relu", net.linear(x, 4096, 4096))
    return net.save(path, net.linear(x, 4096, 1000), size=224, classes=1000)


def resnet50(path: Path) -> Path:
    net = NetworkBuilder(seed=None)
    x = net.node("Relu", net.conv("image", 3, 64, 7, stride=2))
    x, channels = net.max_pool(x, 3, stride=2, pad=1), 64
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = net.node("Relu", net.conv(x, channels, width))
            y = net.node("Relu", net.conv(y, width, width, 3, stride=stride))
            y = net.conv(y, width, 4 * width)
            if not block:
                x = net.conv(x, channels, 4 * width, stride=stride)
            x, channels = net.node("Relu", net.node("Add", x, y)), 4 * width
    x = net.node("Flatten", net.node("GlobalAveragePool", x))
    return net.save(path, net.linear(x, 2048, 1000), size=224, classes=1000)


def vit_b_16(path: Path) -> Path:
    net = NetworkBuilder(seed=None)
    width, heads, tokens = 768, 12, 197
    x = net.conv("image", 3, width, 16, stride=16, pad=0)
    x = net.node("Reshape", x, net.constant(np.array([0, width, 196])))
    x = net.node("Transpose", x, perm=[0, 2, 1])
    front = net.node("Slice", x, *(net.constant(np.array([one])) for one in (0, 1, 1)))
    x = net.node("Concat", front, x, axis=1)
    x = net.node("Add", x, net.weight(1, tokens, width))
    for _ in range(12):
        x = net.node("Add", x, _attention(net, _norm(net, x, width), width, heads))
        y = net.node("Erf", _dense(net, _norm(net, x, width), width, 4 * width))
        x = net.node("Add", x, _dense(net, y, 4 * width, width))
    x = net.node("Gather", _norm(net, x, width), net.constant(np.array(0)), axis=1)
    return net.save(path, net.linear(x, width, 1000), size=224, classes=1000)


def _norm(net: NetworkBuilder, x: str, width: int) -> str:
    return net.node("LayerNormalization", x, net.weight(width), net.weight(width))


def _dense(net: NetworkBuilder, x: str, features_in: int, features_out: int) -> str:
    x = net.node("MatMul", x, net.weight(features_in, features_out))
    return net.node("Add", x, net.weight(features_out))


def _attention(net: NetworkBuilder, x: str, width: int, heads: int) -> str:
    split = net.constant(np.array([0, 0, heads, width // heads]))
    parts = [_dense(net, x, width, width) for _ in range(3)]
    query, key, value = (net.node("Reshape", part, split) for part in parts)
    query, value = (net.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    weights = net.node("MatMul", query, net.node("Transpose", key, perm=[0, 2, 3, 1]))
    x = net.node("MatMul", net.node("Softmax", weights, axis=3), value)
    x = net.node("Transpose", x, perm=[0, 2, 1, 3])
    x = net.node("Reshape", x, net.constant(np.array([0, 0, width])))
    return _dense(net, x, width, width)
