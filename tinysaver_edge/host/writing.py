"""Files of a deployment: templates filled in, models copied."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: dict[str, Any]) -> str:
    """Fill in a template of this package; a value that it lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(f"{template}.j2").render(values)


def copy_file(source: Path, target: Path) -> None:
    """Copy a model file, readable for the user that the server runs as."""
    shutil.copyfile(source, target)
    target.chmod(0o644)
