"""The large model as KServe wants its models: announced, asked in batches, answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from tinysaver_edge._support.limits import MOST_NAME, MOST_ROWS, MOST_TEXT
from tinysaver_edge._support.text import brief
from tinysaver_edge.codec import decode
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.engines.batching import most_at_once, quickest_size
from tinysaver_edge.engines.remote.facts import DATATYPES, JPEG, SHA256
from tinysaver_edge.errors import EngineError, MissingDependencyError
from tinysaver_edge.host.served import Served
from tinysaver_edge.output_format import RawOutput
from tinysaver_edge.preprocess import Batch

JSON_LENGTH = "inference-header-content-length"
"""The header that tells how much of a request is JSON."""

Answer: TypeAlias = "NDArray[Any] | Exception"


@dataclass(slots=True, eq=False)
class _Request:
    """What somebody waits for."""

    given: NDArray[Any]
    answer: asyncio.Future[NDArray[Any]]


class Batches:
    """Puts requests that wait into batches. Nobody waits for a batch to fill.

    A request whose client has gone while it waited is never begun with. For one event loop.

    Args:
        prepare: makes a request's batch of what was sent; raises `EngineError` where it is none.
        run: answers a batch.
        threads: how many may run at once.
        limit: single frames that are run at once at most.
    """

    def __init__(
        self,
        prepare: Callable[[NDArray[Any]], Batch],
        run: Callable[[Batch], NDArray[Any]],
        *,
        threads: int,
        limit: int,
    ) -> None:
        self._prepare, self._run, self._limit = prepare, run, limit
        self._waiting: deque[_Request] = deque()
        self._idle = threads
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="large")
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, given: NDArray[Any]) -> NDArray[Any]:
        """Wait for the answer to a request.

        One of many frames is answered in pieces, between which others have their turn: it neither
        takes memory by its length, nor keeps anybody waiting for long.

        Raises:
            EngineError: the run failed, the input is none, or it holds too many frames.
        """
        rows = given.shape[0] if given.ndim else 0
        if rows > MOST_ROWS:
            raise EngineError(f"{rows} frames in one request: at most {MOST_ROWS}")
        step = self._limit
        if rows <= step:
            return await self._turn(given)
        pieces = [await self._turn(given[at : at + step]) for at in range(0, rows, step)]
        return np.concatenate(pieces)

    async def _turn(self, given: NDArray[Any]) -> NDArray[Any]:
        request = _Request(given, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._answer_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await request.answer

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while requests := self._next():
                given = [request.given for request in requests]
                answers: Sequence[Answer]
                try:
                    answers = await loop.run_in_executor(self._workers, self._answers, given)
                except Exception as error:  # who waits must hear of it, whatever it is
                    answers = [error] * len(requests)
                for request, answer in zip(requests, answers, strict=True):
                    _settle(request.answer, answer)
        finally:
            self._idle += 1

    def _next(self) -> list[_Request]:
        """Take the requests to answer at once: single frames together, others alone."""
        self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
        singles = 0
        while singles < len(self._waiting) and self._waiting[singles].given.shape[:1] == (1,):
            singles += 1
        count = max(most_at_once(singles, self._limit), min(1, len(self._waiting)))
        return [self._waiting.popleft() for _ in range(count)]

    def _answers(self, given: Sequence[NDArray[Any]]) -> list[Answer]:
        """Answer some requests in a worker's thread; what one of them lacks harms no other."""
        prepared = [self._prepared(one) for one in given]
        good = [one for one in prepared if not isinstance(one, EngineError)]
        rows = iter(self._rows(good))
        return [one if isinstance(one, EngineError) else next(rows) for one in prepared]

    def _prepared(self, given: NDArray[Any]) -> Batch | EngineError:
        try:
            return self._prepare(given)
        except EngineError as error:
            return error
        except Exception as error:  # what a decoder stumbles over is its sender's affair alone
            return EngineError(f"the input cannot be read ({type(error).__name__})")

    def _rows(self, batches: Sequence[Batch]) -> list[Answer]:
        if len(batches) > 1 and len({batch.shape for batch in batches}) == 1:
            try:
                values = self._run(np.concatenate(batches))
                return [values[place : place + 1] for place in range(len(batches))]
            except Exception:
                pass  # each alone tells which one it was
        return [self._alone(batch) for batch in batches]

    def _alone(self, batch: Batch) -> Answer:
        try:
            return self._run(batch)
        except Exception as error:  # another request's answer must not be lost over it
            return error


def _settle(waiting: asyncio.Future[NDArray[Any]], answer: Answer) -> None:
    if waiting.done():  # its client has gone
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


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
                response_id=payload.id or "",  # of answers in JSON, too
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


class _Given(BaseModel):
    """How many bytes behind the JSON are a tensor's."""

    binary_data_size: int | None = Field(default=None, strict=True, ge=0)


class _Wished(BaseModel):
    """Whether an answer is to come as bytes."""

    binary_data: bool = Field(default=False, strict=True)


class _Input(BaseModel):
    name: str = Field(max_length=MOST_TEXT)
    shape: list[Annotated[int, Field(strict=True)]] = Field(max_length=64)  # as numpy
    datatype: str = Field(max_length=MOST_NAME)
    data: list[Any] | None = None
    parameters: _Given = _Given()


class _Output(BaseModel):
    name: str = Field(max_length=MOST_TEXT)
    parameters: _Wished = _Wished()


class _Asked(BaseModel):
    """The JSON of a request; models here take one input and give one output."""

    inputs: list[_Input] = Field(min_length=1, max_length=1)
    outputs: list[_Output] | None = Field(default=None, max_length=1)
    id: str | None = Field(default=None, max_length=MOST_TEXT)


def read_request(kserve: Any, body: bytes, json_length: int, model_name: str) -> Any:  # noqa: ANN401
    """Read a request: KServe's own reading tells every fault of a bad one, without bound.

    Args:
        kserve: the module.
        body: JSON, and the bytes of the tensor after it where they are not spelt out.
        json_length: how long the JSON is.
        model_name: whom it is for.

    Returns:
        A ``kserve.InferRequest``.

    Raises:
        InvalidInput: KServe's, where it is none; says what is wrong first.
    """
    try:
        asked = _Asked.model_validate_json(body[:json_length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"the request: {where}{': ' if where else ''}{first['msg']}"
        raise kserve.errors.InvalidInput(brief(what)) from None
    (given,), raw = asked.inputs, body[json_length:]
    tensor = kserve.InferInput(given.name, given.shape, given.datatype, given.data)
    told = (given.parameters.binary_data_size or 0) if given.data is None else 0
    if told != len(raw):
        raise kserve.errors.InvalidInput(
            f"the request: {told} bytes of its input are announced, {len(raw)} are behind the JSON"
        )
    return kserve.InferRequest(
        model_name=model_name,
        infer_inputs=[tensor],
        request_id=asked.id,
        raw_inputs=[raw] if given.data is None else None,
        request_outputs=None
        if asked.outputs is None
        else [
            kserve.protocol.infer_type.RequestedOutput(one.name, one.parameters.model_dump())
            for one in asked.outputs
        ],
    )


def data_plane(kserve: Any) -> type:  # noqa: ANN401 - a module
    """Return KServe's data plane, with requests read here."""
    from kserve.protocol.dataplane import DataPlane

    class OwnDataPlane(DataPlane):  # type: ignore[misc]
        def decode_inference_request(
            self,
            body: bytes,
            headers: dict[str, str],
            model_name: str,
        ) -> Any:  # noqa: ANN401 - a kserve.InferRequest
            length = number_in(str(headers.get(JSON_LENGTH, "")))
            return read_request(kserve, body, len(body) if length is None else length, model_name)

    return OwnDataPlane


def number_in(header: str) -> int | None:
    """Return the length that a header states; None where it states none."""
    return int(header) if header.isascii() and header.isdigit() and len(header) < 19 else None


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
