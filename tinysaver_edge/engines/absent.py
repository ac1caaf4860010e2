"""The absent engine: the place of a model that is served elsewhere while no host is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tinysaver_edge.engines.base import Engine, ModelSignature, signature_for
from tinysaver_edge.errors import EngineError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Preprocess


class AbsentEngine(Engine):
    """Fails whenever it is asked, for streams that never ask it.

    Args:
        model: the model's name.
        preprocess: what its batches would look like.
    """

    name: ClassVar[str] = "absent"
    suffixes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: str, *, preprocess: Preprocess) -> None:
        self._signature = signature_for(preprocess)
        super().__init__(Path(model), preprocess=preprocess, output=OutputFormat())

    def _check_model(self) -> None:
        """Nothing: there is no file."""

    def _load(self) -> tuple[str, ModelSignature]:
        return "nowhere", self._signature

    def _run(self, batch: Batch) -> NDArray[Any]:
        raise EngineError(f"{self.model}: this bundle does not hold its file, and no host is named")
