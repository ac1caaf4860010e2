"""Class names from a file, one a line, with or without their numbers."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from tinysaver_edge._support.files import read_text
from tinysaver_edge.data.source import one_spelling
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
        labels = labels_in(read_text(path))
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
    """Return the lines without their numbers, where these count the lines and are no part of names.

    "0 people", "1 people" are names: without their numbers nothing would tell them apart.
    """
    whole = tuple(one_spelling(line.strip()) for line in lines)
    matches = [_NUMBERED.match(line) for line in whole]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(lines) or numbers != list(range(numbers[0], numbers[0] + len(lines))):
        return whole
    bare = tuple(match[2].strip() for match in matches if match)
    # A few classes of a thousand may share a name, as two of ImageNet are called crane.
    return bare if len(set(bare)) >= 0.9 * len(bare) else whole
