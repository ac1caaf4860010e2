"""Which files below a folder or in an archive count as images, and what is left out of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinysaver_edge.data.images import IMAGE_SUFFIXES
from tinysaver_edge.errors import DataError

HOUSEKEEPING = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Files and folders that systems put beside images of their own accord, in lower case."""

NOTES = frozenset(
    {
        *(".txt", ".md", ".rst", ".pdf", ".html", ".csv", ".tsv", ".json", ".jsonl", ".xml"),
        *(".yaml", ".yml", ".toml", ".ini", ".log", ".db", ".npy", ".npz", ".py", ".ipynb"),
        *(".md5", ".sha256", ".onnx", ".tflite", ".url", ".license", ".names", ".labels"),
    }
)
"""Endings of files that lie beside images and are none."""

NAMED = 3
"""So many files of a kind are named."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files below a data source that are not among its samples.

    Attributes:
        unknown: names of files whose ending is of no image that can be read.
        unreachable: names of links that lead nowhere or in a circle, of folders that may not be
            read, and of members that an archive holds twice.
        hidden: how many hidden files and files of the system's own there are.
        empty: class folders without any image, with all that they do hold left out.
    """

    unknown: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    hidden: int = 0
    empty: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many files may have been images."""
        return len(self.unknown) + len(self.unreachable)

    @property
    def lines(self) -> list[str]:
        """What was left out, a line each cause, for people."""
        found = []
        if self.unknown:
            endings = Counter(PurePosixPath(name).suffix.lower() or "none" for name in self.unknown)
            kinds = ", ".join(f"{count} × {suffix}" for suffix, count in endings.most_common(5))
            found.append(
                f"{_files(len(self.unknown))} left out, their ending is of no image that is read "
                f"({kinds}): {_some(self.unknown)}"
            )
        if self.unreachable:
            found.append(
                f"{_files(len(self.unreachable))} left out, a link that leads nowhere or in a "
                f"circle, a folder that may not be read, or a name that is there twice: "
                f"{_some(self.unreachable)}"
            )
        if self.empty:
            found.append(f"no image of class {', '.join(self.empty)}")
        if self.hidden and found:
            found.append(f"{_files(self.hidden)} left out, hidden or the system's own")
        return found


NOTHING = LeftOut()


def check_left_out(left_out: LeftOut, *, kept: int, limit: float, path: Path) -> list[str]:
    """Refuse data of which more is left out than the user allows.

    Args:
        left_out: what is left out.
        kept: how many images there are.
        limit: share of the files that may be left out, 0..1.
        path: of the data, for the message.

    Returns:
        Lines for the user, where it is allowed.

    Raises:
        DataError: it is more, or a whole class is left out.
    """
    lines = left_out.lines
    whole = f"data {path}: {'; '.join(lines)}"
    if left_out.empty and limit < 1:
        raise DataError(f"{whole}; convert or remove what is there, or say --skip-limit 1")
    if left_out.count > limit * (kept + left_out.count):
        raise DataError(
            f"{whole}; more than the {100 * limit:g} % that may be left out: convert or remove "
            f"them, or raise --skip-limit"
        )
    return lines


def printable(name: str) -> str:
    """Return a file's name as text that can be written anywhere, terminals included.

    Names that are no UTF-8 come from the system with halves of surrogate pairs in them, and a name
    may hold whatever steers a terminal.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its way, is hidden or the system's own."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.lower() in HOUSEKEEPING for part in parts)


def is_image(name: str) -> bool:
    """Whether a file counts as an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)


def image_files(folder: Path) -> list[Path]:
    """Return every image below a folder, in the order of their names; links are followed.

    Links that lead nowhere are among them, so that whoever reads them tells of it.
    """
    names, lost = walk(folder)
    found = (folder / name for name in (*names, *lost) if is_image(name))
    return sorted(file for file in found if not file.is_dir())


def left_out_below(folder: Path) -> LeftOut:
    """Return which files below a folder are no images."""
    return left_out_of(*walk(folder), shared=0, classes=None)


def walk(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below a folder, and what could not be reached.

    Links are followed, but into no folder that they lie in.

    Returns:
        Names relative to the folder, with forward slashes, in no order.
    """
    names: list[str] = []
    lost: list[str] = []
    for path, reachable in _walk(folder, frozenset()):
        (names if reachable else lost).append(path.relative_to(folder).as_posix())
    return names, lost


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    try:
        state = folder.stat()
        here = (state.st_dev, state.st_ino)
        if here in above:
            yield folder, False
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder, False
        return
    for entry in found:
        path = folder / entry.name
        try:
            if entry.is_dir():
                yield from _walk(path, above | {here})
            elif entry.is_file() or entry.is_symlink():
                yield path, entry.is_file()
        except OSError:
            yield path, False


def left_out_of(
    names: Iterable[str], unreachable: Iterable[str], *, shared: int, classes: Iterable[str] | None
) -> LeftOut:
    """Sort what is no sample by why.

    Args:
        names: all files.
        unreachable: what could not be reached.
        shared: how many folders all images have in common above their class folders.
        classes: the classes that have images; None where there are no class folders.
    """
    unknown: list[str] = []
    hidden = 0
    for name in sorted(names):
        if is_image(name):
            continue
        if is_hidden(name):
            hidden += 1
        elif PurePosixPath(name).suffix.lower() not in NOTES:
            unknown.append(name)
    lost = tuple(sorted(printable(name) for name in unreachable if not is_hidden(name)))
    empty: tuple[str, ...] = ()
    if classes is not None:
        known = set(classes)
        # A README beside the class folders, whatever its ending, is no image that is missed.
        unknown = [name for name in unknown if len(PurePosixPath(name).parts) > shared + 1]
        others = {printable(PurePosixPath(name).parts[shared]) for name in unknown}
        empty = tuple(sorted(others - known))
    return LeftOut(tuple(printable(name) for name in unknown), lost, hidden, empty)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
