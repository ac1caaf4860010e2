"""An engine of one's own: OpenCV's dnn module runs the large model.

    python examples/custom_engine.py SAVER.onnx LARGE.onnx IMAGE…

Each model needs its description beside it (`tinysaver-edge models describe`). To use such an engine
by its name in bundles and on the command line, offer it as an entry point: see CONTRIBUTING.md.
"""

import sys
from pathlib import Path
from typing import ClassVar

import cv2

from tinysaver_edge import Cascade
from tinysaver_edge.deciding.policy import StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Engine, ModelSignature
from tinysaver_edge.engines.registry import create_engine
from tinysaver_edge.errors import EngineError, ModelError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.score import Margin


class OpenCvEngine(Engine):
    """Runs .onnx files with `cv2.dnn`, on the CPU. Give it float32 NCHW."""

    name: ClassVar[str] = "opencv"
    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx"})

    def _load(self):
        if self.options.device not in (None, "CPU"):
            raise EngineError(f"engine opencv runs on CPU, not on {self.options.device!r}")
        try:
            self._network = cv2.dnn.readNetFromONNX(str(self.model))
        except cv2.error as error:
            raise ModelError(f"model {self.model}: OpenCV cannot read it ({error.err})") from error
        # cv2.dnn does not tell what a file takes: the description is believed.
        channels, height, width = self._sample_shape
        signature = ModelSignature(
            input_name="image",
            input_shape=(None, channels, height, width),
            input_dtype="float32",
            output_name="logits",
            output_shape=(None, None),
            output_dtype="float32",
        )
        return "CPU", signature

    def _run(self, batch):
        self._network.setInput(batch)
        try:
            return self._network.forward()
        except cv2.error as error:
            raise EngineError(f"{self.model.name}: OpenCV failed ({error.err})") from error


def stage(path, policy, *, engine=None):
    """Open a model with an engine, or with the one that this package picks."""
    description = find_description(path)
    how = {"preprocess": description.preprocess, "output": description.output}
    opened = create_engine("auto", path, **how) if engine is None else engine(path, **how)
    return Stage(opened, preprocess=description.preprocess, policy=policy)


def main(saver, large, images):
    """Decide some images."""
    saver, large = Path(saver), Path(large)
    stages = [
        stage(saver, StagePolicy(saver.stem, score=Margin(), threshold=0.9)),
        stage(large, StagePolicy(large.stem), engine=OpenCvEngine),
    ]
    with Cascade(stages, labels=find_description(large).labels) as cascade:
        for image in images:
            decision = cascade.decide(cv2.imread(str(image)))
            print(f"{image}: {decision.label} {decision.confidence:.2f} ({decision.stage.model})")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
