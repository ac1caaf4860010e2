"""Files of a deployment: templates filled in, models copied.

Names in a bundle are its author's, and the files run on a server: nothing that stands between two
braces of a template gets into a file as it is. What is written is a literal of the kind of file.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinysaver_edge import codec as jpeg_header
from tinysaver_edge._support.limits import MOST_NAME
from tinysaver_edge._support.text import brief, printable
from tinysaver_edge.errors import InputError

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: dict[str, Any]) -> str:
    """Fill in a template of this package; a value that it lacks is an error.

    Args:
        template: its name, which ends as the file's does: that decides how values are written.
        values: texts become literals: no template puts quotes around them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_LITERALS[Path(template).suffix],
    )
    environment.globals["jpeg_size"] = Verbatim(inspect.getsource(jpeg_header.jpeg_size))
    return environment.get_template(f"{template}.j2").render(values)


def check_name(name: str, *, what: str) -> None:
    """Refuse what cannot be the name of a tensor on a server.

    Raises:
        InputError: it is empty, too long, or has characters that nobody can see.
    """
    if not name or len(name) > MOST_NAME or printable(name) != name:
        raise InputError(
            f"{what} {brief(name, 60)!r}: a name on a server is 1 to {MOST_NAME} printable "
            "characters; rename it in the model"
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a model file, readable for the user that the server runs as."""
    shutil.copyfile(source, target)
    target.chmod(0o644)


class Verbatim(str):
    """Text of this package, never of a bundle, that goes into a file as it is."""

    __slots__ = ()


def _python(value: object) -> str:
    if isinstance(value, Verbatim):
        return value
    return ascii(value)


def _quoted(value: object) -> str:
    """Return a literal as YAML and protobuf's text format have it."""
    if isinstance(value, Verbatim):
        return value
    if isinstance(value, str):
        # JSON's escapes are YAML's; protobuf knows them too, but \/, which is not written.
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _words(value: object) -> str:
    """Return a value for a text that people read and paste into a shell."""
    if isinstance(value, Verbatim):
        return value
    text = printable(str(value))
    if re.fullmatch(r"[\w.,:+@%=/-]*", text):
        return text
    return shlex.quote(re.sub(r"[`<>|*\[\]\\]", "_", text))  # nothing that Markdown or HTML reads


_LITERALS: MappingProxyType[str, Callable[[object], str]] = MappingProxyType(
    {".py": _python, ".pbtxt": _quoted, ".yaml": _quoted, ".md": _words}
)
"""How a value is written, by the kind of file."""
