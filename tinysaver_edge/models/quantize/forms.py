"""INT8 and FP16 forms of a model: of .onnx with ONNX Runtime's tools, of the rest with OpenVINO's.

OpenVINO writes .xml and .bin; its INT8 is NNCF's.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tinysaver_edge._support.packages import import_engine, needs, quietly
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.engines.openvino import open_core, read_model
from tinysaver_edge.errors import ModelError
from tinysaver_edge.models.export.torch_onnx import strip
from tinysaver_edge.models.graph.onnx import load_onnx, onnx_signature
from tinysaver_edge.preprocess import Batch

Network: TypeAlias = Any  # openvino.Model


def quantize_onnx(
    model: Path,
    out: Path,
    batches: Sequence[Batch],
    *,
    reduce_range: bool,
    output: str | None = None,
) -> None:
    """Write a model whose weights and activations are INT8, with QuantizeLinear pairs (QDQ).

    Weights have a scale a channel, activations one a tensor.

    Args:
        model: the .onnx file.
        out: the .onnx to write.
        batches: model input to find the activations' ranges on.
        reduce_range: use 7 bits for weights: on processors without VNNI the products of 8 bits
            overflow.
        output: name of the output that holds the classes, where there are several.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        ModelError: it cannot be quantised.
    """
    tools = _tools(model)
    name = onnx_signature(model, load_onnx(model), output).input_name
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            with quietly():
                tools.shape_inference.quant_pre_process(
                    str(model), str(prepared), skip_symbolic_shape=True
                )
                tools.quantize_static(
                    str(prepared),
                    str(out),
                    _Reader(name, batches),
                    quant_format=tools.QuantFormat.QDQ,
                    activation_type=tools.QuantType.QUInt8,
                    weight_type=tools.QuantType.QInt8,
                    per_channel=True,
                    reduce_range=reduce_range,
                )
        except Exception as error:
            raise ModelError(
                f"model {model}: onnxruntime cannot quantise it: {one_line(error)}"
            ) from error
    _tidy(model, out)


def halve_onnx(model: Path, out: Path) -> None:
    """Write a model that computes in FP16 between an input and an output of the old types.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        ModelError: it cannot be converted.
    """
    import onnx

    _tools(model)
    convert = import_engine("onnxruntime.transformers.float16").convert_float_to_float16
    proto = load_onnx(model, weights=True)
    try:
        with quietly():
            halved = convert(proto, keep_io_types=True)
    except Exception as error:
        raise ModelError(
            f"model {model}: onnxruntime cannot convert it to float16: {one_line(error)}"
        ) from error
    onnx.save(halved, str(out))
    _tidy(model, out)


class _Reader:
    """Hands model input to onnxruntime's calibration, one batch at a time."""

    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        self._name = name
        self._batches = batches
        self.rewind()

    def get_next(self) -> dict[str, Batch] | None:
        """Return the next input, None after the last."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Begin anew."""
        self._left: Iterator[dict[str, Batch]] = iter(
            [{self._name: batch} for batch in self._batches]
        )

    def __len__(self) -> int:
        return len(self._batches)


def _tools(model: Path) -> Any:  # noqa: ANN401 - the module
    with needs(extra="quantize", purpose=f"Quantising {model.name}"):
        import_engine("onnxruntime.quantization.shape_inference")
        return import_engine("onnxruntime.quantization")


def _tidy(model: Path, out: Path) -> None:
    """Drop notes, and keep the metadata that the tools have lost."""
    import onnx

    source, made = load_onnx(model), load_onnx(out, weights=True)
    strip(made)
    made.metadata_props.extend(source.metadata_props)
    onnx.save(made, str(out))


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
        purpose = f"Quantising {model.name} for OpenVINO"
        with needs(extra="quantize", purpose=purpose), quietly():
            import nncf
    finally:
        if said is None:
            os.environ.pop("NNCF_CI", None)
    return nncf
