"""An engine of one's own: OpenCV's dnn module runs the large model.

    python examples/custom_engine.py SAVER.onnx LARGE.onnx IMAGE…

Each model needs its description beside it (`tinysaver-edge models describe`). To use such an engine
by its name in bundles and on the command line, offer it as an entry point: see CONTRIBUTING.md.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import cv2

from tinysaver_edge import (
    Cascade,
    EngineError,
    InputError,
    ModelError,
    Stage,
    StagePolicy,
    find_description,
    get_score,
)
from tinysaver_edge.engines import Batch, Engine, ModelSignature, create_engine


class OpenCvEngine(Engine):
    """Runs .onnx files with `cv2.dnn`, on the CPU. Give it float32 NCHW."""

    name: ClassVar[str] = "opencv"
    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx"})

    def _load(self) -> tuple[str, ModelSignature]:
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

    def _run(self, batch: Batch) -> Batch:
        self._network.setInput(batch)
        try:
            answers: Batch = self._network.forward()
        except cv2.error as error:
            raise EngineError(f"{self.model.name}: OpenCV failed ({error.err})") from error
        return answers


def stage(path: Path, policy: StagePolicy, *, engine: type[Engine] | None = None) -> Stage:
    """Open a model with an engine, or with the one that this package picks."""
    description = find_description(path)
    takes, gives = description.preprocess, description.output
    if engine is None:
        opened = create_engine("auto", path, preprocess=takes, output=gives)
    else:
        opened = engine(path, preprocess=takes, output=gives)
    return Stage(opened, preprocess=takes, policy=policy)


def main(saver: Path, large: Path, images: Iterable[str | Path]) -> None:
    """Decide some images."""
    stages = [
        stage(saver, StagePolicy(saver.stem, score=get_score("margin"), threshold=0.9)),
        stage(large, StagePolicy(large.stem), engine=OpenCvEngine),
    ]
    with Cascade(stages, labels=find_description(large).labels) as cascade:
        for image in images:
            picture = cv2.imread(str(image))
            if picture is None:
                raise InputError(f"{image}: cannot be read as an image")
            decision = cascade.decide(picture)
            model = decision.stage.model
            print(f"{image}: {decision.label} {decision.confidence:.2f} ({model})")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
