"""gRPC: the Open Inference Protocol through tritonclient."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.limits import MOST_ANSWER_BYTES, MOST_JSON_BYTES, MOST_TOLD_BYTES
from tinysaver_edge._support.packages import needs
from tinysaver_edge.engines.remote.diagnosis import explained
from tinysaver_edge.engines.remote.facts import (
    DTYPES,
    SHA256,
    Contract,
    Kind,
    ModelFacts,
    Reply,
    RequestError,
    TensorFacts,
)
from tinysaver_edge.engines.remote.model import Address, RemoteModel
from tinysaver_edge.errors import InputError

Message: TypeAlias = Any  # one of the protocol's protobuf messages

_KINDS = MappingProxyType(
    {
        "UNAVAILABLE": Kind.UNREACHABLE,
        "CANCELLED": Kind.UNREACHABLE,  # by a host that stops
        "RESOURCE_EXHAUSTED": Kind.BUSY,
        "DEADLINE_EXCEEDED": Kind.TIMEOUT,
        "UNAUTHENTICATED": Kind.DENIED,
        "PERMISSION_DENIED": Kind.DENIED,
        "NOT_FOUND": Kind.DRAINING,
    }
)

_CONTENTS = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
    }
)
"""Where values lie that do not come as raw bytes."""


class GrpcTransport:
    """Talks gRPC to one host. Any number of threads may use it.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        InputError: a certificate cannot be read.
    """

    def __init__(self, address: Address, model: RemoteModel) -> None:
        self._triton = _import()
        self._address = address
        self._token, self._tls = model.token, model.tls
        self._closed = False
        self._client = self._triton.InferenceServerClient(
            address.authority,
            creds=_credentials(model) if address.scheme.secure else None,
            channel_args=_channel_args(model),
        )

    def describe(self, *, timeout_s: float) -> ModelFacts:
        """Ask whether the host is live and its model ready, and what it takes and gives."""
        due_s = time.monotonic() + timeout_s
        try:
            return self._describe(due_s)
        except RequestError as failure:
            left_s = due_s - time.monotonic()
            raise explained(failure, self._address, self._tls, timeout_s=left_s) from None

    def _describe(self, due_s: float) -> ModelFacts:
        model = {
            "model_name": self._address.model,
            "model_version": self._address.version,
            "headers": self._headers(),
        }

        def ask(question: Callable[..., Any], **arguments: object) -> Any:  # noqa: ANN401
            left_s = max(0.001, due_s - time.monotonic())
            return self._call(question, client_timeout=left_s, **arguments)

        if not ask(self._client.is_server_live, headers=model["headers"]):
            raise RequestError(Kind.UNREACHABLE, "says that it is not live")
        if not ask(self._client.is_model_ready, **model):
            raise RequestError(Kind.DRAINING, f"has no model {self._address.model!r} ready")
        metadata = _bearable(ask(self._client.get_model_metadata, **model))
        most, sha256 = _configuration(
            lambda: _bearable(ask(self._client.get_model_config, **model))
        )
        return ModelFacts(
            inputs=tuple(map(_tensor, metadata.inputs)),
            outputs=tuple(map(_tensor, metadata.outputs)),
            max_batch=most,
            sha256=sha256,
        )

    def infer(
        self, tensor: NDArray[Any], contract: Contract, *, datatype: str, timeout_s: float
    ) -> Reply:
        """Have one batch answered."""
        given = self._triton.InferInput(contract.input, tensor.shape, datatype)
        given.set_data_from_numpy(tensor)
        answer = self._call(
            self._client.infer,
            model_name=self._address.model,
            model_version=self._address.version,
            inputs=[given],
            outputs=[self._triton.InferRequestedOutput(contract.output)],
            headers=self._headers(),
            client_timeout=timeout_s,
        ).get_response()
        return Reply(
            _values(answer, contract.output), answer.model_version, _told(answer.parameters)
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        self._client.close()

    def _headers(self) -> dict[str, str] | None:
        if self._token is None:
            return None
        try:
            return self._token.headers(grpc=True)
        except InputError as error:
            raise RequestError(Kind.DENIED, str(error)) from error

    def _call(self, method: Callable[..., Any], **arguments: object) -> Any:  # noqa: ANN401
        """Call the client, and say in our words what went wrong."""
        from tritonclient.utils import InferenceServerException

        try:
            return method(**arguments)
        except InferenceServerException as error:
            code = str(error.status() or "").removeprefix("StatusCode.")
            message = " ".join(str(error.message() or code).split())[:300]
            if code == "CANCELLED" and self._closed:
                raise RequestError(Kind.CLOSED, "the connection was closed") from None
            raise RequestError(_kind(code, message), f"{code}: {message}") from None
        except ValueError as error:
            if self._closed:  # "Cannot invoke RPC on closed channel!"
                raise RequestError(Kind.CLOSED, "the connection was closed") from None
            raise RequestError(Kind.REJECTED, str(error)) from None
        except Exception as error:  # whatever a host does, it must not end the stream
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RequestError(Kind.REJECTED, text) from error


def _kind(code: str, message: str) -> Kind:
    """Return what a status means. Triton says UNAVAILABLE when it is full or denies as well."""
    kind = _KINDS.get(code, Kind.REJECTED)
    if kind is Kind.UNREACHABLE and "maximum queue size" in message:
        return Kind.BUSY
    if kind is Kind.UNREACHABLE and "protocol is restricted" in message:
        return Kind.DENIED
    return kind


def _import() -> Any:  # noqa: ANN401 - a module
    with needs("tritonclient[grpc]", extra="remote", purpose="Asking a remote model over gRPC"):
        import tritonclient.grpc
    return tritonclient.grpc


def _credentials(model: RemoteModel) -> Any:  # noqa: ANN401 - grpc's
    import grpc

    ca, key, certificate = model.tls.read()
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _channel_args(model: RemoteModel) -> list[tuple[str, Any]]:
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", MOST_ANSWER_BYTES),
        # A frozen host neither answers nor hangs up: pings find out in two seconds.
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 1000),
        # A host that comes back is found within a second, one that swallows packets as well.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # Breakers and retries are ours; connections of one endpoint are no other's.
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        # No proxy: a camera's frames go where the URL says.
        ("grpc.enable_http_proxy", 0),
    ]
    if model.tls.server_name is not None:
        arguments.append(("grpc.ssl_target_name_override", model.tls.server_name))
    return arguments


def _configuration(ask: Callable[[], Any]) -> tuple[int | None, str | None]:
    """Return the batch limit and the hash from a model's configuration, where the host has one.

    It is Triton's extension of the protocol: other hosts do not know the question.
    """
    try:
        config = ask().config
    except RequestError as failure:
        if failure.kind in (Kind.REJECTED, Kind.DRAINING, Kind.DENIED, Kind.WRONG):
            return None, None
        raise
    sha256 = config.parameters[SHA256].string_value if SHA256 in config.parameters else ""
    return (config.max_batch_size or None), (sha256.lower() or None)


def _bearable(told: Message) -> Message:
    """Return what a host says of its model, if it can be read in a moment.

    Raises:
        RequestError: it is longer than any model's.
    """
    if told.ByteSize() > MOST_TOLD_BYTES:
        raise RequestError(Kind.WRONG, f"describes its model in {told.ByteSize()} bytes")
    return told


def _tensor(tensor: Message) -> TensorFacts:
    return TensorFacts(tensor.name, tensor.datatype, tuple(tensor.shape))


def _told(parameters: Message) -> str | None:
    """Return the hash among an answer's parameters."""
    return parameters[SHA256].string_param.lower() or None if SHA256 in parameters else None


def _values(answer: Message, name: str) -> NDArray[np.generic]:
    """Return an output's values, be they raw or typed."""
    raw = answer.raw_output_contents
    spelt = answer.ByteSize() - sum(map(len, raw))
    if spelt > MOST_JSON_BYTES:  # numbers one by one: reading them would take longer than there is
        raise RequestError(Kind.WRONG, f"answered {spelt} bytes that are no raw values")
    for index, output in enumerate(answer.outputs):
        if output.name != name:
            continue
        try:
            dtype = np.dtype(DTYPES[output.datatype])
            if index < len(raw):
                flat = np.frombuffer(raw[index], dtype)
            else:
                flat = np.array(getattr(output.contents, _CONTENTS[output.datatype]), dtype)
            return flat.reshape(tuple(output.shape))
        except (KeyError, ValueError, OverflowError) as error:
            raise RequestError(
                Kind.WRONG, f"answered {output.datatype} that cannot be read ({error})"
            ) from error
    raise RequestError(Kind.WRONG, f"answered without the output {name!r}")
