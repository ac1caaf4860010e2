"""INT8 and FP16 forms of anything that OpenVINO reads, as its .xml and .bin; INT8 with NNCF."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.packages import import_engine, quietly
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.openvino import open_core, read_model
from tinysaver_edge.errors import MissingDependencyError, ModelError
from tinysaver_edge.preprocess import Batch

Network: TypeAlias = Any  # openvino.Model


def quantize_openvino(model: Path, out: Path, batches: Sequence[Batch]) -> None:
    """Write a model whose weights and activations are INT8.

    Activations keep their sign where they need one; attention is treated as transformers want it.

    Args:
        model: an .onnx, .xml or .tflite file.
        out: the .xml to write; its .bin goes beside it.
        batches: model input to find the activations' ranges on.

    Raises:
        MissingDependencyError: openvino or nncf is not installed.
        ModelError: it cannot be quantised.
    """
    nncf = _nncf(model)
    network = read_model(open_core(), model)
    _forget_source(network)
    kind = nncf.ModelType.TRANSFORMER if _has_attention(network) else None
    try:
        with quietly():
            made = nncf.quantize(
                network,
                nncf.Dataset(list(batches)),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
                model_type=kind,
            )
    except Exception as error:
        raise ModelError(f"model {model}: nncf cannot quantise it: {one_line(error)}") from error
    _save(made, out, half=False)


def halve_openvino(model: Path, out: Path) -> None:
    """Write a model whose weights are stored in FP16; devices compute in what they are told to.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelError: the model cannot be read.
    """
    network = read_model(open_core(), model)
    _forget_source(network)
    _save(network, out, half=True)


def copy_openvino(model: Path, out: Path) -> None:
    """Write a model as it is, as .xml and .bin.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelError: the model cannot be read.
    """
    network = read_model(open_core(), model)
    _forget_source(network)
    _save(network, out, half=False)


def _save(network: Network, out: Path, *, half: bool) -> None:
    openvino = import_engine("openvino")
    out.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(network, str(out), compress_to_fp16=half)


def _forget_source(network: Network) -> None:
    """Drop what OpenVINO took over of an .onnx file's metadata: it is written anew."""
    for group in ("framework", "conversion_parameters"):
        if network.has_rt_info([group]):
            del network.get_rt_info()[group]  # OpenVINO's map has no pop


def _has_attention(network: Network) -> bool:
    """Whether two computed tensors are multiplied as matrices."""
    return any(
        operation.get_type_name() in ("MatMul", "ScaledDotProductAttention")
        and all(_computed(operation.input_value(place)) for place in (0, 1))
        for operation in network.get_ops()
    )


def _computed(port: Any) -> bool:  # noqa: ANN401 - openvino.Output
    node = port.get_node()
    while node.get_type_name() in ("Convert", "Reshape", "Transpose", "FakeQuantize"):
        node = node.input_value(0).get_node()
    return str(node.get_type_name()) != "Constant"


def _nncf(model: Path) -> Any:  # noqa: ANN401 - the module
    """Import nncf without the reports that it would send over the network."""
    said = os.environ.get("NNCF_CI")
    try:
        if "nncf" not in sys.modules:
            os.environ["NNCF_CI"] = "1"
        with quietly():
            import nncf
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "nncf", extra="quantize", purpose=f"Quantising {model.name} for OpenVINO"
        ) from error
    finally:
        if said is None:
            os.environ.pop("NNCF_CI", None)
    return nncf
