"""HTTP requests whose tensors are bytes behind the JSON: KServe makes text of them, and fails.

It turns such a tensor into what JSON could hold: pixels into lists of numbers, which takes tens of
milliseconds, and JPEG files into UTF-8, which they are not. Here the bytes stay bytes.
"""

from __future__ import annotations

import json
from typing import Any

from tinysaver_edge._support.text import brief


def parse_raw(kserve: Any, body: bytes, json_length: int, model_name: str) -> Any:  # noqa: ANN401
    """Read a request whose every input is bytes behind the JSON.

    Args:
        kserve: the module.
        body: JSON, and the tensors after it.
        json_length: how long the JSON is.
        model_name: whom it is for.

    Returns:
        A ``kserve.InferRequest``; None where it is of another form, which KServe itself reads.
    """
    try:
        asked = json.loads(body[:json_length])
        given = asked["inputs"]
        sizes = [one["parameters"]["binary_data_size"] for one in given]
        if any("data" in one for one in given) or sum(sizes) != len(body) - json_length:
            return None
        raw, start = [], json_length
        for size in sizes:
            raw.append(body[start : start + size])
            start += size
        wanted = asked.get("outputs")
        return kserve.InferRequest(
            model_name=model_name,
            infer_inputs=[
                kserve.InferInput(one["name"], one["shape"], one["datatype"]) for one in given
            ],
            request_id=asked.get("id"),
            raw_inputs=raw,
            parameters=asked.get("parameters"),
            request_outputs=None
            if wanted is None
            else [
                kserve.protocol.infer_type.RequestedOutput(one["name"], one.get("parameters"))
                for one in wanted
            ],
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def raw_data_plane(kserve: Any) -> type:  # noqa: ANN401 - a module
    """Return KServe's data plane, with such requests read here."""
    from kserve.protocol.dataplane import DataPlane

    class RawDataPlane(DataPlane):  # type: ignore[misc]
        def decode_inference_request(
            self,
            body: Any,  # noqa: ANN401 - bytes, or what KServe has read already
            headers: dict[str, str],
            model_name: str,
        ) -> Any:  # noqa: ANN401 - a kserve.InferRequest
            length = str(headers.get("inference-header-content-length", ""))
            if isinstance(body, bytes) and length.isdigit():
                request = parse_raw(kserve, body, int(length), model_name)
                if request is not None:
                    return request
            try:
                return super().decode_inference_request(body, headers, model_name)
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                # A client's mistake: KServe would tell of a fault of ours, at length.
                raise kserve.errors.InvalidInput(brief(f"the request: {error}")) from None

    return RawDataPlane
