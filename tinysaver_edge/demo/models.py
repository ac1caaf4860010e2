"""The models that were trained on the simulated camera, and where they lie in the package.

Each is an ONNX file that takes raw frames (uint8, NHWC, BGR) at its own size and gives logits over
``CLASS_NAMES``. What the runtime must know stands in the file itself, as TOML under the metadata
key ``tinysaver_edge.description``. ``examples/train_demo_models.py`` makes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Names of the models, cheapest first; the last is the large one.
MODEL_NAMES: Final = ("parts_nano", "parts_small", "parts_large")


def demo_model_paths() -> tuple[Path, ...]:
    """Return the files of the demo's models, cheapest first; the last is the large one."""
    folder = Path(__file__).parent / "weights"
    return tuple(folder / f"{name}.onnx" for name in MODEL_NAMES)
