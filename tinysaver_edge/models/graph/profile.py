"""What a model file costs and looks like, in one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinysaver_edge.engines.base import ModelSignature
from tinysaver_edge.engines.registry import inspect
from tinysaver_edge.models.graph.graph import Size
from tinysaver_edge.models.graph.macs import MacCount, count_macs
from tinysaver_edge.models.graph.model_files import model_files
from tinysaver_edge.models.graph.reader import read_graph


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model's cost for one sample, its size and its signature.

    Attributes:
        model: the file.
        cost: MACs and parameters.
        size_bytes: of the file and those that hold its weights.
        signature: input and output.
    """

    model: Path
    cost: MacCount
    size_bytes: int
    signature: ModelSignature

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model": str(self.model),
            "macs": self.cost.macs,
            "flops": self.cost.flops,
            "parameters": self.cost.parameters,
            "parameter_bytes": self.cost.parameter_bytes,
            "size_bytes": self.size_bytes,
            "macs_by_operation": dict(self.cost.by_operation),
            "uncounted": list(self.cost.uncounted),
            "signature": asdict(self.signature),
        }


def profile(model: Path, input_size: Size | None = None) -> ModelProfile:
    """Measure a model file.

    Args:
        model: an .onnx, .xml or .tflite file, or a .safetensors that `models export` wrote.
        input_size: height and width, for a model that leaves them open.

    Raises:
        MissingDependencyError: nothing that reads such a file is installed.
        ModelError: the file is missing or damaged, or a shape in it stays unknown.
    """
    cost = count_macs(model, input_size)
    size_bytes = sum(path.stat().st_size for path in model_files(model))
    if model.suffix == ".safetensors":
        return ModelProfile(model, cost, size_bytes, inspect(model))
    return ModelProfile(model, cost, size_bytes, read_graph(model, size=input_size).signature)
