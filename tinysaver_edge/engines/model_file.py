"""What can be said of a model file before any engine opens it, and engines' complaints in a line.

Runtimes answer a file that is no model with stack traces, or by trying every parser they have, each
with log lines of its own. The usual cases are told apart here: an empty or cut-off file, a Git LFS
pointer, a download that brought a web page.
"""

from __future__ import annotations

import re
from pathlib import Path

from tinysaver_edge.engines import onnx_file, tflite_file
from tinysaver_edge.errors import ModelError

_HEAD_BYTES = 64
# ModelProto's fields in protobuf's encoding: a file that begins with another byte is no ONNX model.
_ONNX_FIRST_BYTES = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")
_NOISE = re.compile(r"^(Exception from |Check '|FrontEnd API failed)")
_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def check_model_file(path: Path) -> None:
    """Refuse what is plainly no model.

    Raises:
        ModelError: the file is missing, empty, a Git LFS pointer, begins like another format,
            or ends early.
    """
    if not path.is_file():
        raise ModelError(f"model {path}: no such file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}") from error
    if not head:
        raise ModelError(f"model {path}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"model {path}: a Git LFS pointer, not the model: run 'git lfs pull'")
    if not _looks_like(path.suffix, head):
        raise ModelError(
            f"model {path}: not a {path.suffix} model (it begins with {head[:12]!r}): "
            "fetch or export it again"
        )
    if path.suffix == ".onnx":
        onnx_file.check_whole(path)
    elif path.suffix == ".tflite":
        tflite_file.check_whole(path)


def _looks_like(suffix: str, head: bytes) -> bool:
    if suffix == ".onnx":
        return head[0] in _ONNX_FIRST_BYTES
    if suffix == ".tflite":
        return head[4:8] == b"TFL3"
    if suffix == ".xml":
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return True


def one_line(error: BaseException) -> str:
    """Return what an engine's exception says, without the places in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not _NOISE.match(line)]
    text = telling[-1] if telling else " ".join(filter(None, lines)) or type(error).__name__
    return _ORT_PREFIX.sub("", text)[:400]
