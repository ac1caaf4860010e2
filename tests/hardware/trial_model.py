"""The model that engines are tried with, built here so that the file in the package can be checked.

Run it to write that file anew: python -m tests.hardware.trial_model
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysaver_edge.hardware.trial import MODEL, SIZE


def build() -> bytes:
    """A convolution, a pooling and a matrix: what cuDNN and cuBLAS are needed for."""
    kernel = np.ones((4, 3, 3, 3), np.float32) / 27
    matrix = np.eye(4, 2, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "kernel"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        "trial",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7, producer_name=""
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    MODEL.write_bytes(build())
