"""INT8 and FP16 forms of .onnx files, made with ONNX Runtime's own tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinysaver_edge._support.packages import import_engine, quietly
from tinysaver_edge.engines.model_file import one_line
from tinysaver_edge.errors import MissingDependencyError, ModelError
from tinysaver_edge.models.export.torch_onnx import strip
from tinysaver_edge.models.graph.onnx import load_onnx, onnx_signature
from tinysaver_edge.preprocess import Batch


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
    try:
        import_engine("onnxruntime.quantization.shape_inference")
        return import_engine("onnxruntime.quantization")
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "onnxruntime", extra="quantize", purpose=f"Quantising {model.name}"
        ) from error


def _tidy(model: Path, out: Path) -> None:
    """Drop notes, and keep the metadata that the tools have lost."""
    import onnx

    source, made = load_onnx(model), load_onnx(out, weights=True)
    strip(made)
    made.metadata_props.extend(source.metadata_props)
    onnx.save(made, str(out))
