"""HTTP: the Open Inference Protocol through tritonclient, whose client is one thread's only."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.engines.remote.address import Address
from tinysaver_edge.engines.remote.diagnosis import explained
from tinysaver_edge.engines.remote.facts import (
    SHA256,
    Contract,
    ModelFacts,
    Reply,
    TensorFacts,
)
from tinysaver_edge.engines.remote.failure import Kind, RequestError
from tinysaver_edge.engines.remote.model import RemoteModel
from tinysaver_edge.errors import InputError, MissingDependencyError

_KINDS = MappingProxyType(
    {
        "401": Kind.DENIED,
        "403": Kind.DENIED,
        "404": Kind.DRAINING,
        "408": Kind.TIMEOUT,
        "429": Kind.BUSY,
        "502": Kind.UNREACHABLE,
        "503": Kind.UNREACHABLE,
        "504": Kind.TIMEOUT,
    }
)


class HttpTransport:
    """Talks HTTP to one host, over one connection a thread.

    Args:
        address: the host and its model.
        model: security.

    Raises:
        MissingDependencyError: tritonclient's HTTP part is not installed.
        InputError: a certificate cannot be read.
    """

    def __init__(self, address: Address, model: RemoteModel) -> None:
        self._triton = _import()
        self._address = address
        self._model = model
        self._options = _tls_options(address, model)
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
        model = {
            "model_name": self._address.model,
            "model_version": self._address.version,
            "headers": self._headers(),
        }

        def ask(question: str, **arguments: object) -> Any:  # noqa: ANN401
            left_s = max(0.001, due_s - time.monotonic())
            return self._call(question, timeout_s=left_s, **arguments)

        if not ask("is_server_live", headers=model["headers"]):
            raise RequestError(Kind.UNREACHABLE, "says that it is not live")
        if not ask("is_model_ready", **model):
            none = f"has no model {self._address.model!r} ready"
            try:
                ask("get_model_metadata", **model)  # says why, where a token is not accepted
            except RequestError as failure:
                if failure.kind is not Kind.DRAINING:
                    raise
                raise RequestError(Kind.DRAINING, f"{none} ({failure})") from failure
            raise RequestError(Kind.DRAINING, none)
        metadata = ask("get_model_metadata", **model)
        most, sha256 = _configuration(lambda: ask("get_model_config", **model))
        try:
            return ModelFacts(
                inputs=tuple(map(_tensor, metadata["inputs"])),
                outputs=tuple(map(_tensor, metadata["outputs"])),
                max_batch=most,
                sha256=sha256,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(
                Kind.WRONG, f"describes its model in another form ({error})"
            ) from error

    def infer(
        self, tensor: NDArray[Any], contract: Contract, *, datatype: str, timeout_s: float
    ) -> Reply:
        """Have one batch answered."""
        given = self._triton.InferInput(contract.input, list(tensor.shape), datatype)
        given.set_data_from_numpy(tensor, binary_data=True)
        result = self._call(
            "infer",
            timeout_s=timeout_s,
            model_name=self._address.model,
            model_version=self._address.version,
            inputs=[given],
            outputs=[self._triton.InferRequestedOutput(contract.output, binary_data=True)],
            headers=self._headers(),
        )
        answer = result.get_response()
        try:
            values = result.as_numpy(contract.output)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(Kind.WRONG, f"answered what cannot be read ({error})") from error
        if values is None or not isinstance(values, np.ndarray):
            raise RequestError(Kind.WRONG, f"answered without the output {contract.output!r}")
        told = (answer.get("parameters") or {}).get(SHA256)
        version = answer.get("model_version") or ""
        return Reply(values, str(version), str(told).lower() if told else None)

    def close(self) -> None:
        """Let go of this thread's connection; those of others end with their threads."""
        self._closed = True
        self._drop()

    def _headers(self) -> dict[str, str] | None:
        if self._model.token is None:
            return None
        try:
            return self._model.token.headers(grpc=False)
        except InputError as error:
            raise RequestError(Kind.DENIED, str(error)) from error

    def _call(self, method: str, *, timeout_s: float, **arguments: object) -> Any:  # noqa: ANN401
        """Call the client, give it up when the time is over, and say in our words what went wrong.

        The client has time-outs for single steps only; gevent's is one for all of them.
        """
        import gevent
        from tritonclient.utils import InferenceServerException

        if self._closed:
            raise RequestError(Kind.CLOSED, "the connection was closed")
        patience = gevent.Timeout(timeout_s)
        patience.start()
        try:
            return getattr(self._client(), method)(**arguments)
        except gevent.Timeout:
            self._drop()
            raise RequestError(Kind.TIMEOUT, f"no answer within {timeout_s:.3g} s") from None
        except InferenceServerException as error:
            code = str(error.status() or "")
            message = " ".join(str(error.message() or code).split())[:300]
            raise RequestError(_KINDS.get(code, Kind.REJECTED), f"{code}: {message}") from None
        except OSError as error:  # refused, reset, or the handshake failed
            self._drop()
            raise RequestError(Kind.UNREACHABLE, " ".join(str(error).split())[:300]) from None
        except Exception as error:  # what is no HTTP comes out of the parser as many kinds
            self._drop()
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RequestError(Kind.UNREACHABLE, text) from None
        finally:
            patience.close()

    def _client(self) -> Any:  # noqa: ANN401 - tritonclient's
        client = getattr(self._own, "client", None)
        if client is None:
            step_s = max(self._model.connect_s, self._model.timeout_s)
            client = self._own.client = self._triton.InferenceServerClient(
                self._address.authority,
                connection_timeout=step_s,
                network_timeout=step_s,
                **self._options,
            )
        return client

    def _drop(self) -> None:
        """Let go of a connection on which an answer may still be under way."""
        client = getattr(self._own, "client", None)
        self._own.client = None
        if client is not None:
            client.close()


def _import() -> Any:  # noqa: ANN401 - a module
    try:
        import tritonclient.http
    except ImportError as error:
        raise MissingDependencyError(
            "tritonclient[http]", extra="remote-http", purpose="Asking a remote model over HTTP"
        ) from error
    return tritonclient.http


def _tls_options(address: Address, model: RemoteModel) -> dict[str, Any]:
    if not address.scheme.secure:
        return {}
    import gevent.ssl

    tls = model.tls
    tls.read()  # complains in our words about what is no PEM

    def context(**_: object) -> ssl.SSLContext:
        made: ssl.SSLContext = gevent.ssl.create_default_context(
            cafile=None if tls.ca is None else str(tls.ca)
        )
        # From Python 3.13 on; a host that gRPC accepts must not depend on it.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if tls.certificate is not None and tls.key is not None:
            made.load_cert_chain(str(tls.certificate), str(tls.key))
        return made

    options = {} if tls.ca is None else {"ca_certs": str(tls.ca)}
    if tls.server_name is not None:
        options["server_hostname"] = tls.server_name
    return {"ssl": True, "ssl_context_factory": context, "ssl_options": options}


def _configuration(ask: Callable[[], Any]) -> tuple[int | None, str | None]:
    """Return the batch limit and the hash from a model's configuration, where the host has one."""
    try:
        config = ask()
        told = config.get("parameters", {}).get(SHA256, {}).get("string_value", "")
        return (int(config.get("max_batch_size", 0)) or None), (str(told).lower() or None)
    except (AttributeError, TypeError, ValueError):
        return None, None
    except RequestError as failure:
        if failure.kind in (Kind.REJECTED, Kind.DRAINING, Kind.DENIED):
            return None, None
        raise


def _tensor(tensor: dict[str, Any]) -> TensorFacts:
    shape = tuple(int(axis) for axis in tensor["shape"])
    return TensorFacts(str(tensor["name"]), str(tensor["datatype"]), shape)
