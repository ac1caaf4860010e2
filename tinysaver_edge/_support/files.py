"""Files that are either whole or not there: atomic writes, hashes, arrays read or refused."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Linux's numbers for "relative to the current folder" and "change places"."""


def combined(hashes: Sequence[str]) -> str:
    """Return one hash of several files by theirs: that of the file itself where there is one."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its place only when the block ends without an error.

    The folder is made where it is missing. After a kill the old file, or none, is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders change places in one step, so that both names are always taken.

    Returns:
        False where the system cannot do that, or not on this file system; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc 2.28, musl 1.2.6
    return (
        rename is not None
        and rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        == 0
    )


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz, or the one of an .npy as ``""``; nothing in it is executed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or no such file.
    """
    with path.open("rb") as file:
        try:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"": content}
            return {name: np.asarray(content[name]) for name in content.files}
        except Exception as error:
            # Damage comes out of numpy, zipfile, zlib and tokenize as about a dozen kinds of error.
            raise ValueError(str(error) or type(error).__name__) from error


def default_cache_dir() -> Path | None:
    """Return the user's cache folder for compiled models, or None where none can be written."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "tinysaver-edge"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
