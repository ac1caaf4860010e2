"""Class names from a file, one a line, with or without their numbers."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from tinysaver_edge.errors import DescriptionError

_NUMBERED = re.compile(r"^\s*(\d+)\s*[:,;\s]\s*(\S.*)$")


def read_labels(
    name: str, folders: tuple[Path, ...], *, source: str, confined: bool = False
) -> tuple[str, ...]:
    """Read class names from a file.

    Lines may begin with the class's number (``   0  background``), if all do and count up by one.

    Args:
        name: the file: an absolute path, or relative to one of the folders, the first that has it.
        folders: where to look.
        source: the description that names it, for messages.
        confined: refuse paths that leave the folders, for descriptions that came with a model.

    Raises:
        DescriptionError: the path leaves the folders, or the file is missing, empty or no text.
    """
    if confined and (PurePath(name).is_absolute() or ".." in PurePath(name).parts):
        raise DescriptionError(
            f"{source}: labels {name!r} lies outside its folder: put the file beside it"
        )
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        places = " nor in ".join(str(folder) for folder in dict.fromkeys(folders))
        raise DescriptionError(f"{source}: labels {name!r} is not in {places}")
    try:
        labels = labels_in(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{source}: labels {path} cannot be read: {error}") from error
    if not labels:
        raise DescriptionError(f"{source}: labels {path} is empty")
    return labels


def labels_in(text: str) -> tuple[str, ...]:
    """Return the class names of a text, one a line; empty where it has none."""
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return _without_numbers(lines) if lines else ()


def _without_numbers(lines: list[str]) -> tuple[str, ...]:
    matches = [_NUMBERED.match(line) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) == len(lines) and numbers == list(range(numbers[0], numbers[0] + len(lines))):
        return tuple(match[2].strip() for match in matches if match)
    return tuple(line.strip() for line in lines)
