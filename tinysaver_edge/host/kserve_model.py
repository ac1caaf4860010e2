"""The large model as KServe wants its models: announced, asked, answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.limits import MOST_ROWS
from tinysaver_edge.codec import decode
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.engines.batching import quickest_size
from tinysaver_edge.engines.remote.facts import DATATYPES, JPEG, SHA256
from tinysaver_edge.errors import EngineError, MissingDependencyError
from tinysaver_edge.host.batches import Batches
from tinysaver_edge.host.served import Served
from tinysaver_edge.output_format import RawOutput
from tinysaver_edge.preprocess import Batch


class Answerer:
    """Runs the model with the bundle's own engine; nothing of it knows KServe.

    Args:
        served: the model.
        at_once: frames that are run at once at most; None measures what is quickest.

    Attributes:
        input: the input as the protocol describes it.
        output: the output.
        at_once: frames that are run at once at most.
    """

    def __init__(self, served: Served, *, at_once: int | None = None) -> None:
        self.served = served
        # Raw outputs go over the wire, as from any other host: the device makes logits of them.
        self._engine: Engine = replace(
            served.artefact, output=RawOutput(name=served.artefact.output.name)
        ).open()
        integer = np.dtype(self._engine.signature.output_dtype).kind in "iu"
        self._dtype = np.dtype(self._engine.signature.output_dtype if integer else "float32")
        self._shape = served.artefact.preprocess.shape(1)[1:]
        signature = self._engine.signature
        self.input = {
            "name": "jpeg" if served.jpeg else signature.input_name,
            "datatype": JPEG if served.jpeg else DATATYPES[signature.input_dtype],
            "shape": [-1] if served.jpeg else [-1, *self._shape],
        }
        width = signature.output_shape[-1]
        self.output = {
            "name": signature.output_name,
            "datatype": DATATYPES[self._dtype.name],
            "shape": [-1, -1 if width is None else width],
        }
        blank = np.zeros((1, *self._shape), signature.input_dtype)
        self._engine.infer(blank)
        self.at_once = at_once or quickest_size(self._engine.infer, blank)

    @property
    def concurrency(self) -> int:
        """How many threads may ask at once."""
        return self._engine.concurrency

    def prepare(self, given: NDArray[Any]) -> Batch:
        """Return the batch of what was sent: itself, or the pictures of JPEG files.

        Raises:
            EngineError: they are no JPEG files, or of another size.
        """
        return decode(given, self._shape) if self.served.jpeg else given

    def run(self, batch: Batch) -> NDArray[Any]:
        """Answer a batch.

        Raises:
            EngineError: the run failed, or the input is none.
        """
        return self._engine.infer(batch).astype(self._dtype)

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()


def kserve_model(answerer: Answerer) -> Any:  # noqa: ANN401 - a kserve.Model
    """Return the model as KServe's server takes it.

    Raises:
        MissingDependencyError: kserve is not installed.
    """
    kserve = import_kserve()
    batches = Batches(
        answerer.prepare, answerer.run, threads=answerer.concurrency, limit=answerer.at_once
    )
    name, told = answerer.served.name, answerer.served.sha256

    class LargeModel(kserve.Model):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__(name)
            self.ready = True

        def get_input_types(self) -> list[dict[str, Any]]:
            return [answerer.input]

        def get_output_types(self) -> list[dict[str, Any]]:
            return [answerer.output]

        async def predict(
            self,
            payload: Any,  # noqa: ANN401 - a kserve.InferRequest
            headers: object = None,
            response_headers: object = None,
        ) -> Any:  # noqa: ANN401 - a kserve.InferResponse
            given = _given(kserve, payload, answerer)
            try:
                values = await batches.answer(given)
            except EngineError as error:
                raise kserve.errors.InvalidInput(str(error)) from error
            output = kserve.InferOutput(
                answerer.output["name"], list(values.shape), str(answerer.output["datatype"])
            )
            output.set_data_from_numpy(values, binary_data=True)
            return kserve.InferResponse(
                response_id=payload.id,
                model_name=name,
                model_version="1",
                infer_outputs=[output],
                parameters={SHA256: told},
                use_binary_outputs=True,
                requested_outputs=payload.request_outputs,
            )

    return LargeModel()


def _given(kserve: Any, payload: Any, answerer: Answerer) -> NDArray[Any]:  # noqa: ANN401
    """Return the request's one tensor.

    Raises:
        InvalidInput: KServe's, when it has another or none.
    """
    inputs = getattr(payload, "inputs", None)
    if inputs is None or len(inputs) != 1 or inputs[0].datatype != answerer.input["datatype"]:
        raise kserve.errors.InvalidInput(
            f"{answerer.served.name} takes one input, {answerer.input['datatype']} "
            f"{answerer.input['shape']}"
        )
    if answerer.served.jpeg and _has_too_many(getattr(inputs[0], "_raw_data", None)):
        raise kserve.errors.InvalidInput(f"at most {MOST_ROWS} files in one request")
    try:
        values: NDArray[Any] = inputs[0].as_numpy()
    except Exception as error:  # its data and its shape do not belong together
        raise kserve.errors.InvalidInput(f"input {inputs[0].name}: {error}") from error
    return values


def _has_too_many(raw: bytes | None) -> bool:
    """Whether a tensor holds more files than may be, before an object is made of each."""
    place = count = 0
    while raw is not None and place + 4 <= len(raw) and count <= MOST_ROWS:
        place += 4 + int.from_bytes(raw[place : place + 4], "little")
        count += 1
    return count > MOST_ROWS


def import_kserve() -> Any:  # noqa: ANN401 - a module
    """Return the module `kserve`; it reads the command line when it is imported, ours as well.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import sys

    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kserve
        import kserve.errors
        import kserve.model_server
    except ImportError as error:
        raise MissingDependencyError(
            "kserve", extra="serve", purpose="Serving the large model"
        ) from error
    finally:
        sys.argv = kept
    return kserve
