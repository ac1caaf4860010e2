"""HTTP: the Open Inference Protocol, its tensors as bytes behind the JSON."""

from __future__ import annotations

import http.client
import json
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.http_client import Answer, HttpConnection, TooMuchError, refusal
from tinysaver_edge._support.limits import MOST_ANSWER_BYTES, MOST_JSON_BYTES, MOST_TOLD_BYTES
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
from tinysaver_edge.engines.remote.model import Address, RemoteModel, Tls
from tinysaver_edge.errors import InputError

_KINDS = MappingProxyType(
    {
        401: Kind.DENIED,
        403: Kind.DENIED,
        404: Kind.DRAINING,
        408: Kind.TIMEOUT,
        429: Kind.BUSY,
        502: Kind.UNREACHABLE,
        503: Kind.UNREACHABLE,
        504: Kind.TIMEOUT,
    }
)

JSON_LENGTH = "inference-header-content-length"
"""How much of a body is JSON; tensors follow."""


class HttpTransport:
    """Talks HTTP to one host, over one connection a thread.

    Raises:
        InputError: a certificate cannot be read.
    """

    def __init__(self, address: Address, model: RemoteModel) -> None:
        self._address = address
        self._model = model
        self._tls = _tls(address, model.tls)
        version = f"/versions/{address.version}" if address.version else ""
        self._path = f"/v2/models/{address.model}{version}"
        self._own = threading.local()
        self._closed = False

    def describe(self, *, timeout_s: float) -> ModelFacts:
        """Ask whether the host is live and its model ready, and what it takes and gives."""
        due_s = time.monotonic() + timeout_s
        try:
            return self._describe(due_s)
        except RequestError as failure:
            left_s = due_s - time.monotonic()
            raise explained(failure, self._address, self._model.tls, timeout_s=left_s) from None

    def _describe(self, due_s: float) -> ModelFacts:
        def ask(path: str) -> Answer:
            left_s = max(0.001, due_s - time.monotonic())
            return self._send("GET", path, timeout_s=left_s, most_bytes=MOST_TOLD_BYTES)

        self._check_live(ask("/v2/health/live"))
        if ask(f"{self._path}/ready").status != 200:
            none = f"has no model {self._address.model!r} ready"
            try:
                _checked(ask(self._path))  # says why, where a token is not accepted
            except RequestError as failure:
                if failure.kind is not Kind.DRAINING:
                    raise
                raise RequestError(Kind.DRAINING, f"{none} ({failure})") from failure
            raise RequestError(Kind.DRAINING, none)
        metadata = _object(_checked(ask(self._path)).body)
        most, sha256 = _configuration(lambda: _object(_checked(ask(f"{self._path}/config")).body))
        try:
            return ModelFacts(
                inputs=tuple(map(_tensor, metadata["inputs"])),
                outputs=tuple(map(_tensor, metadata["outputs"])),
                max_batch=most,
                sha256=sha256,
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise RequestError(
                Kind.WRONG, f"describes its model in another form ({error})"
            ) from error

    def _check_live(self, answer: Answer) -> None:
        if answer.status == 200:
            return
        if answer.status in (400, 503):  # Triton says the one, KServe the other
            raise RequestError(Kind.UNREACHABLE, f"says that it is not live ({answer.status})")
        if answer.status == 404:
            raise RequestError(
                Kind.UNREACHABLE,
                "answers, but knows no /v2/health/live (404): is this the port of a server of the "
                "Open Inference Protocol, and are there no more parts to its address?",
            )
        raise self._refused(answer)

    def _refused(self, answer: Answer) -> RequestError:
        """Return what an answer other than 200 means, where the host says no more of it."""
        kind = Kind.WRONG if 300 <= answer.status < 400 else _KINDS.get(answer.status)
        kind = kind or (Kind.UNREACHABLE if answer.status >= 500 else Kind.REJECTED)
        return RequestError(
            kind, refusal(answer, login="token", given=self._model.token is not None)
        )

    def infer(
        self, tensor: NDArray[Any], contract: Contract, *, datatype: str, timeout_s: float
    ) -> Reply:
        """Have one batch answered."""
        head, raw = _request(tensor, contract, datatype)
        answer = _checked(
            self._send(
                "POST",
                f"{self._path}/infer",
                timeout_s=timeout_s,
                most_bytes=MOST_ANSWER_BYTES,
                headers={"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))},
                body=head + raw,
            )
        )
        try:
            return _reply(answer, contract.output)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise RequestError(Kind.WRONG, f"answered what cannot be read ({error})") from error

    def close(self) -> None:
        """Let go of this thread's connection; those of others end with their threads."""
        self._closed = True
        self._connection().close()

    def _headers(self) -> Mapping[str, str]:
        if self._model.token is None:
            return {}
        try:
            return self._model.token.headers(grpc=False)
        except InputError as error:
            raise RequestError(Kind.DENIED, str(error)) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        most_bytes: int,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes = b"",
    ) -> Answer:
        """Ask the host, and say in our words what went wrong."""
        if self._closed:
            raise RequestError(Kind.CLOSED, "the connection was closed")
        try:
            return self._connection().request(
                method,
                path,
                timeout_s=timeout_s,
                most_bytes=most_bytes,
                headers={**self._headers(), **headers},
                body=body,
            )
        except TooMuchError as error:
            raise RequestError(Kind.WRONG, str(error)) from None
        except TimeoutError:
            raise RequestError(Kind.TIMEOUT, f"no answer within {timeout_s:.3g} s") from None
        except OSError as error:  # refused, reset, or the handshake failed
            raise RequestError(Kind.UNREACHABLE, str(error)) from None
        except (http.client.HTTPException, ValueError) as error:  # it speaks no HTTP
            raise RequestError(Kind.UNREACHABLE, f"{type(error).__name__}: {error}") from None

    def _connection(self) -> HttpConnection:
        held: HttpConnection | None = getattr(self._own, "connection", None)
        if held is None:
            held = self._own.connection = HttpConnection(
                self._address.host,
                self._address.port,
                tls=self._tls,
                server_name=self._model.tls.server_name,
            )
        return held


def _tls(address: Address, tls: Tls) -> Callable[[], ssl.SSLContext] | None:
    if not address.scheme.secure:
        return None
    tls.read()  # complains in our words about what is no PEM

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        # From Python 3.13 on; a host that gRPC accepts must not depend on it.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if tls.certificate is not None and tls.key is not None:
            made.load_cert_chain(str(tls.certificate), str(tls.key))
        return made

    return context


def _request(tensor: NDArray[Any], contract: Contract, datatype: str) -> tuple[bytes, bytes]:
    """Return the JSON of a request and the bytes behind it."""
    if tensor.dtype == object:
        raw = b"".join(len(file).to_bytes(4, "little") + file for file in tensor.flat)
    else:
        raw = tensor.tobytes()
    given = {
        "name": contract.input,
        "shape": list(tensor.shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = {"name": contract.output, "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [given], "outputs": [wanted]}).encode(), raw


def _checked(answer: Answer) -> Answer:
    """Return an answer that is one.

    Raises:
        RequestError: the host refuses; tells what it says.
    """
    if answer.status == 200:
        return answer
    text = answer.body[:4096].decode("utf-8", "replace")
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), str):
        text = said["error"]
    kind = _KINDS.get(answer.status, Kind.REJECTED)
    if 300 <= answer.status < 400:
        text = refusal(answer, login="token", given=False)
    raise RequestError(kind, f"{answer.status}: {text or http.client.responses.get(answer.status)}")


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a host has sent."""
    try:
        said = json.loads(body) if len(body) <= MOST_JSON_BYTES else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise RequestError(Kind.WRONG, "answered what is no JSON object")
    return said


def _reply(answer: Answer, name: str) -> Reply:
    """Read an answer, its values behind the JSON or within."""
    told = answer.headers.get(JSON_LENGTH)
    length = len(answer.body) if told is None else int(told)
    if not 0 <= length <= len(answer.body):
        raise ValueError(f"{length} bytes of JSON")
    said = _object(answer.body[:length])
    parameters = said.get("parameters")
    sha256 = parameters.get(SHA256) if isinstance(parameters, dict) else None
    values = _values(said["outputs"], answer.body, length, name)
    return Reply(
        values, str(said.get("model_version") or ""), str(sha256).lower() if sha256 else None
    )


def _values(outputs: Any, body: bytes, start: int, name: str) -> NDArray[np.generic]:  # noqa: ANN401
    for output in outputs:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if output["name"] != name:
            start += size or 0
            continue
        dtype = np.dtype(DTYPES[output["datatype"]])
        shape = tuple(int(axis) for axis in output["shape"])
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
        if size is None:
            return np.array(output["data"], dtype).reshape(shape)
        if size != math.prod(shape) * dtype.itemsize or not 0 <= start <= len(body) - size:
            raise ValueError(f"{size} bytes for {shape}")
        return np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape)
    raise RequestError(Kind.WRONG, f"answered without the output {name!r}")


def _configuration(ask: Callable[[], Any]) -> tuple[int | None, str | None]:
    """Return the batch limit and the hash from a model's configuration, where the host has one."""
    try:
        config = ask()
        told = config.get("parameters", {}).get(SHA256, {}).get("string_value", "")
        return (int(config.get("max_batch_size", 0)) or None), (str(told).lower() or None)
    except (AttributeError, TypeError, ValueError):
        return None, None
    except RequestError as failure:
        if failure.kind in (Kind.REJECTED, Kind.DRAINING, Kind.DENIED, Kind.WRONG):
            return None, None
        raise


def _tensor(tensor: dict[str, Any]) -> TensorFacts:
    shape = tuple(int(axis) for axis in tensor["shape"])
    return TensorFacts(str(tensor["name"]), str(tensor["datatype"]), shape)
