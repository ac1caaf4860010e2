"""Files that are either whole or not there: atomic writes, hashes, arrays read or refused."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.limits import (
    MOST_KEY_PARTS,
    MOST_PIPED_BYTES,
    MOST_TOML_BYTES,
    MOST_WHOLE_BYTES,
    WRITER_S,
)
from tinysaver_edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEEP = "nested too deeply"
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_MARK = "\ufeff"
"""Which some editors begin a UTF-8 text with; no parser takes it for nothing."""


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever it holds
    """Read a JSON document.

    Raises:
        ValueError: it is none, or nested beyond what a parser follows.
    """
    try:
        return json.loads(text.removeprefix(_MARK) if isinstance(text, str) else text)
    except RecursionError:
        raise ValueError(_DEEP) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Read a TOML document.

    Raises:
        ValueError: it is none, too long, or nested beyond what a parser follows.
    """
    if len(text) > MOST_TOML_BYTES:
        raise ValueError(f"longer than {MOST_TOML_BYTES >> 20} MiB")
    for line in text.splitlines() if "." in text else ():
        bare = _QUOTED.sub("", line).partition("#")[0]
        if bare.count(".") - bare.count(",") > MOST_KEY_PARTS:  # a time that grows with its square
            raise ValueError(_DEEP)
    try:
        return tomllib.loads(text.removeprefix(_MARK))
    except RecursionError:
        raise ValueError(_DEEP) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or no UTF-8.
    """
    return parse_toml(read_text(path))


def library_path(path: Path) -> str:
    """Return the path of a file for a library that opens it itself.

    Raises:
        InputError: it is no regular file, or no library opens it: its name is no UTF-8 text, which
            ends the process in OpenCV.
    """
    kind = kind_of(path)
    if kind is not None:
        raise InputError(f"file {path}: is {kind}, no file")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"file {path}: its name, or a folder's, is no UTF-8 text, and the library that would "
            "open it cannot: rename it"
        ) from None
    return str(path)


class UnreadableError(OSError):
    """A file that there is and that is not read; its text is why, without a number."""

    def __str__(self) -> str:
        return str(self.strerror)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read in any order.

    Raises:
        OSError: it cannot be opened, or is none: whoever reads a pipe that nobody writes into waits
            for good.
    """
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK)
    kind = _KINDS.get(stat.S_IFMT(os.fstat(handle).st_mode))
    if kind is not None:
        os.close(handle)
        raise UnreadableError(errno.EINVAL, f"is {kind}, no file", path)
    return handle


def read_file(path: Path, *, most: int = MOST_WHOLE_BYTES) -> bytes:
    """Read a whole file, or what is written into a pipe (``<(…)`` of a shell) or comes of a device.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read, is too long, or a pipe that nobody writes into.
    """
    if not _is_written_into(path):
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise _too_long(path, most)
            return file.read()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as pipe:
        content = bytearray(_begun(pipe, path) if path.is_fifo() else b"")
        os.set_blocking(handle, True)
        most = min(most, MOST_PIPED_BYTES)
        while len(content) <= most and (piece := pipe.read(1 << 20)):
            content += piece
    if len(content) > most:
        raise _too_long(path, most)
    return bytes(content)


def _begun(pipe: RawIOBase, path: Path) -> bytes:
    """Wait for somebody to open a pipe for writing, and return the first of what he writes."""
    deadline_s = time.monotonic() + WRITER_S
    while (first := pipe.read(1 << 16)) == b"":  # while there is none; None while he is silent
        if time.monotonic() > deadline_s:
            raise UnreadableError(errno.EPIPE, "a pipe into which nobody writes", str(path))
        time.sleep(0.02)
    return first or b""


def _too_long(path: Path, most: int) -> UnreadableError:
    told = f"{most >> 20} MiB" if most >> 20 else f"{most:,} bytes"
    return UnreadableError(errno.EFBIG, f"longer than {told}", str(path))


def read_text(path: Path, *, most: int = MOST_WHOLE_BYTES) -> str:
    """Read a UTF-8 text whole, as `read_file` does; without an editor's mark.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    return read_file(path, most=most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def combined(hashes: Sequence[str]) -> str:
    """Return one hash of several files by theirs: that of the file itself where there is one."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


_PRIVATE, _USUAL = 0o600, 0o666

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(path: Path) -> str | None:
    """Say what lies at a path if it is no regular file ("a socket"); None if it is, or nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except OSError:
        return None


NOT_OURS = "a file is there that this command did not write"


def check_file_target(
    path: Path, *, flag: str = "--out", ours: Callable[[Path], bool] | None = None
) -> None:
    """Refuse to write a file where something lies that no file may take the place of.

    Pipes and character devices (``/dev/stdout``, ``/dev/null``) are written into.

    Args:
        path: the file.
        flag: what names it.
        ours: tells whether this package wrote a file; nobody else's is replaced.

    Raises:
        InputError: something else is there, a link leads to itself, or its folder cannot be.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(
                f"{flag} {path}: a link that leads back to itself; name a file"
            ) from None
    kind = kind_of(path)
    if kind is not None and not _is_written_into(path):
        raise InputError(f"{flag} {path}: {kind} of this name is there; name a file")
    if ours is not None and path.is_file() and path.stat().st_size and not ours(path):
        raise InputError(f"{flag} {path}: {NOT_OURS}; move it, or name a new one")
    place = next((one for one in path.absolute().parents if os.path.lexists(one)), Path("/"))
    if not place.is_dir():
        raise InputError(f"{flag} {path}: {place} is no folder; name a file elsewhere")
    if kind is None and not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {path}: {place} may not be written to; name a file elsewhere")


def _is_written_into(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def claim(path: Path, *, flags: int = os.O_RDONLY) -> int:
    """Open a file or folder that only one program may write to at a time.

    The claim ends when the descriptor is closed, or with the process, however that ends.

    Returns:
        The descriptor, for the caller to close.

    Raises:
        InputError: another has claimed it.
        OSError: it cannot be opened.
    """
    held = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        lock(held, f"{path}: another run writes there: name another place")
    except InputError:
        os.close(held)
        raise
    return held


def lock(descriptor: int, taken: str) -> None:
    """Lock an open file until it is closed; where another has it, that is an error of these words.

    Raises:
        InputError: another has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(taken) from None
    except OSError:  # a file system that knows no locks
        pass


def new_beside(path: Path) -> Path:
    """Return a name in the same folder that nothing has, for what is to take the path's place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def half_written(name: str) -> str | None:
    """Return the name that one of `new_beside`, which a kill leaves, was for; None for others."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{12}", name)
    return None if found is None else found[1]


@contextmanager
def atomic_write(path: Path, *, private: bool = False, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes its place only when the block ends without an error.

    The folder is made where it is missing. After a kill the old file, or none, is there. A link
    stays one, and what it points at is replaced. Pipes and character devices are written into.

    Args:
        path: the file.
        private: whether nobody but the user may read it, whatever the umask lets others do.
        sync: whether it is on the disk at the end; else a power cut, but no kill, may lose it.

    Raises:
        InputError: a folder, a socket or a disk of this name is there, a pipe that nobody reads,
            or a link that leads back to itself.
        OSError: it cannot be written; where there is no room left, the error names the file.
    """
    check_file_target(path, flag="file")
    with _naming(path):
        if _is_written_into(path):
            with _opened(path) as file:
                yield file
        else:
            with _replaced(Path(os.path.realpath(path)), private=private, sync=sync) as file:
                yield file


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How a system says that a disk, or a user's share of it, is full."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file to what a write that finds no room says: the system leaves it out."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _opened(path: Path) -> BinaryIO:
    """Open a pipe or a device; a pipe without a reader would be waited on for good."""
    if not path.is_fifo():
        return path.open("wb")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InputError(
                f"file {path}: nobody reads this pipe; start its reader first"
            ) from None
        raise
    os.set_blocking(handle, True)
    return os.fdopen(handle, "wb")


@contextmanager
def _replaced(path: Path, *, private: bool, sync: bool) -> Iterator[BinaryIO]:
    """Open a new file beside a path that takes its place at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = new_beside(path)
    # Made with the mode it is to have, so that the user's umask has its say.
    mode = _PRIVATE if private else _USUAL
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Seal:
    """A file as it was when it was hashed.

    Whoever opens the file afterwards and finds `holds` still true has opened what was hashed: a
    system gives a file another change time with every write to it, and takes no orders about it.

    Attributes:
        path: the file.
        sha256: of its content.
        size_bytes: its length.
        state: device, inode, length, times of modification and change.
    """

    path: Path
    sha256: str
    size_bytes: int
    state: tuple[int, int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> Seal:
        """Hash a file.

        Raises:
            OSError: it cannot be read.
            InputError: it changed meanwhile.
        """
        digest = hashlib.sha256()
        with open_regular(path) as file:
            before = _state(os.fstat(file.fileno()))
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            after = _state(os.fstat(file.fileno()))
        if before != after:
            raise InputError(f"file {path}: was written to while it was read; try again")
        return cls(path, digest.hexdigest(), after[2], after)

    def holds(self) -> bool:
        """Whether the file at this path is still the one that was hashed, with nothing written."""
        try:
            return _state(self.path.stat()) == self.state
        except OSError:
            return False


def _state(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class OddZipError(zipfile.BadZipFile):
    """A .zip that is whole, and packed in a way that is not unpacked; its text is why."""


def members_of(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the members of a .zip, none of which unpacks to more at once than is asked for.

    Raises:
        OddZipError: one is packed otherwise than usual. By bzip2 four kilobytes may become five
            gigabytes, by LZMA a megabyte seven, whatever the list of members says.
    """
    found = archive.infolist()
    for kind in {one.compress_type for one in found} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        name = {12: "bzip2", 14: "LZMA", 93: "Zstandard"}.get(kind, f"method {kind}")
        raise OddZipError(f"packed by {name}, which is not unpacked here: zip it anew as usual")
    return found


_INFLATED_BYTES = 64 << 20
_INFLATED_TIMES = 100
"""Arrays compress well, but not a hundredfold beyond so many bytes unless to fill a memory."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz, or the one of an .npy as ``""``; nothing in it is executed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or no such file.
    """
    with open_regular(path) as file:
        try:
            _refuse_inflated(file)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"": content}
            return {name: np.asarray(content[name]) for name in content.files}
        except Exception as error:
            # Damage comes out of numpy, zipfile, zlib and tokenize as about a dozen kinds of error.
            raise ValueError(str(error) or type(error).__name__) from error


def _refuse_inflated(file: BinaryIO) -> None:
    """Refuse an .npz that unpacks to far more than it is."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            inflated = sum(one.file_size for one in members_of(archive))
        packed = os.fstat(file.fileno()).st_size
        if inflated > max(_INFLATED_BYTES, _INFLATED_TIMES * packed):
            raise ValueError(f"{packed} bytes that unpack to {inflated} bytes")
    file.seek(0)
