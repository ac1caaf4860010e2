"""Stores: where the bytes of a data source lie, on this machine or wherever fsspec reaches."""

from __future__ import annotations

import inspect
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from tinysaver_edge._support.files import open_regular, read_file
from tinysaver_edge._support.packages import needs
from tinysaver_edge.data.images import IMAGE_SUFFIXES, is_hidden, walk
from tinysaver_edge.errors import DataError, MissingDependencyError, TinySaverError

Place: TypeAlias = "Path | str"
"""Where data lies: a path on this machine, or the URL of a place elsewhere."""

_KINDS = (".tar", ".parquet")
_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST_SHARDS = 1_000_000
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

SILENT_S = 20.0
"""How long a web server may be silent."""

AT_ONCE = 16
"""Files whose state is asked for at the same time."""

_UNCHANGED = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "content-md5")
"""What stores call a hash of a file's content, or what stands for one."""

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket "
    "FSSPEC_S3_ANON=true",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS; for "
    "a public bucket FSSPEC_GCS_TOKEN=anon",
}


def is_url(text: str) -> bool:
    """Whether a text names a place elsewhere, as ``s3://bucket/folder`` does."""
    return _URL.match(text) is not None


class DataPlace:
    """What an option, or a recipe, takes as the place of data."""

    @staticmethod
    def of(text: str | Path, base: Path = Path()) -> Place:
        """Return a URL as it is and everything else as a path, below a folder."""
        if isinstance(text, str) and is_url(text):
            return text if not text.startswith("file://") else Path(text.removeprefix("file://"))
        return base / text


def named(place: Place, *more: str) -> str:
    """Return the name of something in a place, for people."""
    return "/".join((str(place).rstrip("/"), *more))


class DataStore(ABC):
    """Files below one place. Pickled, it opens the same place in another process.

    Names are relative to the place, with forward slashes; one that is a URL is what it is.
    """

    place: Place

    @abstractmethod
    def find(self) -> tuple[list[str], list[str]]:
        """Return the files below the place, and what could not be reached.

        Raises:
            DataError: it cannot be listed.
        """

    @abstractmethod
    def top(self) -> tuple[list[str], list[str]]:
        """Return the files and the folders that lie in the place itself.

        Raises:
            DataError: it cannot be listed.
        """

    @abstractmethod
    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """Return the bytes of a file, or a part of it.

        Raises:
            OSError: there is no such file.
            DataError: the store does not answer, or not us.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file to be read in any order; errors as in `read`."""

    @abstractmethod
    def states(self, names: Sequence[str]) -> list[str]:
        """Return for each file what changes when its content does; ``"missing"`` for none."""


class LocalStore(DataStore):
    """Files of this machine."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def find(self) -> tuple[list[str], list[str]]:
        """See `DataStore.find`."""
        return walk(Path(self.place))

    def top(self) -> tuple[list[str], list[str]]:
        """See `DataStore.top`."""
        try:
            with os.scandir(self.place) as entries:
                found = {entry.name: entry.is_dir() for entry in entries}
        except OSError as error:
            raise DataError(f"data {self.place}: cannot be listed ({error.strerror})") from error
        return [one for one in found if not found[one]], [one for one in found if found[one]]

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `DataStore.read`."""
        if start == 0 and size is None:
            return read_file(Path(self.place) / name)
        with self.open(name) as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

    def open(self, name: str) -> BinaryIO:
        """See `DataStore.open`."""
        return open_regular(Path(self.place) / name)

    def states(self, names: Sequence[str]) -> list[str]:
        """See `DataStore.states`."""
        return [self._state(Path(self.place) / name) for name in names]

    @staticmethod
    def _state(path: Path) -> str:
        # Not the size alone: all .bmp files of one shape have the same.
        try:
            status = path.stat()
        except (OSError, ValueError):  # the latter: a NUL in the name
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns}"


class RemoteStore(DataStore):
    """Files wherever fsspec reaches: ``s3://``, ``gs://``, ``https://``, ``memory://`` and others.

    Raises:
        MissingDependencyError: fsspec, or what it needs for such a place, is not installed.
        DataError: it knows no such places.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self._systems: dict[str, Any] = {}
        self._path = self._resolve(self.place)[1].rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay here; what lies in this process's memory comes along."""
        system, path = self._resolve(str(self.place))
        kept = {}
        if self._protocol == "memory":
            kept = {name: system.cat_file(name) for name in system.find(path)}
        return {"place": self.place, "_path": self._path, "_systems": {}, "kept": kept}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take in what another process sent."""
        self.place, self._path = state["place"], state["_path"]
        self._systems = {}
        for name, content in state["kept"].items():
            self._resolve(str(self.place))[0].pipe_file(name, content)

    @property
    def _protocol(self) -> str:
        return str(self.place).partition("://")[0]

    def find(self) -> tuple[list[str], list[str]]:
        """See `DataStore.find`."""
        if self._protocol in ("http", "https"):
            raise DataError(
                f"data {self.place}: folders cannot be listed over {self._protocol}: name a .tar, "
                f".parquet, .zip, or a .csv of file and label"
            )
        return list(self._listed()), []

    def top(self) -> tuple[list[str], list[str]]:
        """See `DataStore.top`."""
        system, path = self._resolve(str(self.place))
        with self._telling(str(self.place)):
            try:
                found = system.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                raise DataError(f"data {self.place}: there is nothing there") from None
        names = {one["name"].rstrip("/").rpartition("/")[2]: one["type"] for one in found}
        files = [name for name, kind in names.items() if kind != "directory"]
        return files, [name for name, kind in names.items() if kind == "directory"]

    def _listed(self) -> dict[str, Mapping[str, Any]]:
        system, path = self._resolve(str(self.place))
        with self._telling(str(self.place)):
            found = system.find(path, detail=True)
        if not found:
            raise DataError(f"data {self.place}: there is nothing there")
        return {name[len(self._path) :].lstrip("/"): info for name, info in found.items()}

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `DataStore.read`."""
        url = self._url(name)
        system, path = self._resolve(url)
        with self._telling(url):
            if start == 0 and size is None:
                return bytes(system.cat_file(path))
            part = bytes(
                system.cat_file(path, start=start, end=None if size is None else start + size)
            )
            if size is not None and len(part) > size:
                raise DataError(
                    f"data {url}: the server sends all of a file where a part is asked for: serve "
                    "it from one that knows HTTP's Range, or fetch the file"
                )
            return part

    def open(self, name: str) -> BinaryIO:
        """See `DataStore.open`."""
        url = self._url(name)
        system, path = self._resolve(url)
        with self._telling(url):
            opened: BinaryIO = system.open(path, "rb")
            return opened

    def states(self, names: Sequence[str]) -> list[str]:
        """See `DataStore.states`; one listing tells of all, where the place has one."""
        known: dict[str, Mapping[str, Any]] = {}
        if len(names) > AT_ONCE and self._protocol not in ("http", "https"):
            known = self._listed()
        unknown = [name for name in names if name not in known]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="state") as pool:
            known |= dict(zip(unknown, pool.map(self._info, unknown), strict=True))
        return [_state_of(known[name]) for name in names]

    def _info(self, name: str) -> Mapping[str, Any]:
        url = self._url(name)
        system, path = self._resolve(url)
        try:
            with self._telling(url):
                found: Mapping[str, Any] = system.info(path)
        except OSError:
            return {}
        return found

    def _url(self, name: str) -> str:
        return name if is_url(name) else f"{self.place}/{name}"

    def _resolve(self, url: str) -> tuple[Any, str]:
        """Return the file system and the path in it of a URL."""
        fsspec = _fsspec(url)
        protocol, _, rest = url.partition("://")
        if protocol in _CREDENTIALS and "@" in rest.partition("/")[0]:
            raise DataError(
                f"data {protocol}://…: an address there holds no keys: {_CREDENTIALS[protocol]}"
            )
        try:
            if protocol not in self._systems:
                if _wants_more(fsspec.get_filesystem_class(protocol)):
                    why = f"{protocol}:// is not reached by an address alone"
                    raise DataError(f"data {url}: {why}: fetch what is there")
                self._systems[protocol] = fsspec.filesystem(protocol, **_patience(fsspec, protocol))
            system = self._systems[protocol]
            return system, system._strip_protocol(url)
        except ImportError as error:
            package = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
            if protocol not in package:  # fsspec says what of it must be installed
                raise DataError(f"data {url}: {' '.join(str(error).split())[:200]}") from error
            name = package[protocol]
            raise MissingDependencyError(name, extra="cloud", purpose=f"Reading {url}") from None
        except TinySaverError:
            raise
        except Exception as error:  # whatever a file system's constructor raises
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"data {url}: {said}") from error

    @contextmanager
    def _telling(self, url: str) -> Iterator[None]:
        """Turn what goes wrong into one line. That a file is not there is for the caller.

        Raises:
            OSError: there is no such file.
            DataError: the store does not answer, or not us; a sample is not left out for that.
        """
        try:
            yield
        except (TinySaverError, IsADirectoryError):
            raise
        except Exception as error:
            cause = _unreachable(error)
            if isinstance(error, FileNotFoundError) and cause is None:
                raise
            said = " ".join(str(cause or error).split())[:200] or type(error).__name__
            hint = "try again; what was measured is kept"
            kind = type(error).__name__
            denied = isinstance(error, PermissionError) or "redential" in f"{kind} {said}"
            if denied or "Forbidden" in said or "401" in said or "403" in said:
                hint = _CREDENTIALS.get(self._protocol, "see what it asks for to let you in")
            raise DataError(f"data {url}: cannot be read ({said}): {hint}") from error


def _unreachable(error: BaseException) -> BaseException | None:
    """Return why a file "is not there" where nobody answers, or not us: fsspec says so of HTTP."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError)) or "Connect" in type(cause).__name__:
            return cause
        if getattr(cause, "status", 404) not in (404, 410):  # 403, 503: it may well be there
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _state_of(info: Mapping[str, Any]) -> str:
    """Return what changes when a file's content does, of what a store says of it."""
    if not info:
        return "missing"
    for name in _UNCHANGED:
        if info.get(name):
            return str(info[name]).strip('"')
    changed = next(
        (info[name] for name in ("LastModified", "mtime", "updated", "created") if info.get(name)),
        "",
    )
    return f"{info.get('size')} {changed}"


def _patience(fsspec: Any, protocol: str) -> dict[str, Any]:  # noqa: ANN401 - a module
    """Return how long a web server may be silent; aiohttp would wait for five minutes."""
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    said = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    timeout = aiohttp.ClientTimeout(total=None, connect=SILENT_S, sock_read=SILENT_S)
    return {"client_kwargs": {"timeout": timeout, **said}}


def _wants_more(kind: type) -> bool:
    """Whether a file system is made of more than an address: of a host, a token."""
    _, *asked = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return any(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in asked)


def _fsspec(url: str) -> Any:  # noqa: ANN401
    with needs("fsspec", extra="cloud", purpose=f"Reading {url}"):
        import fsspec
    for name in ("fsspec", "gcsfs", "s3fs", "asyncio"):  # what they say comes as an error anyway
        logging.getLogger(name).addHandler(_SILENT)
    return fsspec


_SILENT = logging.NullHandler()


def store_of(place: Place) -> DataStore:
    """Return the store of a folder."""
    return RemoteStore(place) if isinstance(place, str) else LocalStore(place)


def parted(place: Place) -> tuple[Place, str]:
    """Return the folder that a file lies in, and the file's name."""
    if isinstance(place, Path):
        return place.parent, place.name
    folder, _, name = place.rpartition("/")
    return folder, name


def suffix_of(place: Place) -> str:
    """Return the ending of a file's name, in lower case; of a URL, what is behind ``?`` is none."""
    name = parted(place)[1]
    return PurePosixPath(name if isinstance(place, Path) else name.partition("?")[0]).suffix.lower()


@dataclass(frozen=True, slots=True)
class Shards:
    """Files of one kind that hold the samples of a data source together."""

    folder: Place
    names: tuple[str, ...]
    kind: str


def find_shards(path: Place) -> Shards | None:
    """Return the shards that a place names: a file, ``a-{000..015}.tar``, ``*.parquet``, a folder.

    Returns:
        None where it names none: a folder of images, a table, an archive, or nothing at all.

    Raises:
        DataError: a pattern fits no file, or what it names is compressed as a whole.
    """
    if _PACKED.search(str(path)):
        raise DataError(
            f"data {path}: a compressed .tar cannot be read in any order, and images hardly "
            f"shrink: unpack it to a .tar"
        )
    kind, folder = suffix_of(path), isinstance(path, Path) and path.is_dir()
    if kind in _KINDS and not folder:
        where, name = parted(path)
        names = _expanded(where, name)
        if not names:
            raise DataError(f"data {path}: no file there fits")
        return Shards(where, names, kind)
    if not folder and (isinstance(path, Path) or kind or path.startswith(("http:", "https:"))):
        return None
    files, folders = store_of(path).top()
    kinds = {suffix_of(Path(name)) for name in files if not is_hidden(name)}
    found = kinds & {*_KINDS}
    if len(found) != 1 or kinds & IMAGE_SUFFIXES or not all(map(is_hidden, folders)):
        return None
    (kind,) = found
    return Shards(path, tuple(sorted(one for one in files if suffix_of(Path(one)) == kind)), kind)


def _expanded(folder: Place, name: str) -> tuple[str, ...]:
    """Return the names that a pattern stands for, as a shell and WebDataset read it."""
    names = [name]
    while any(_BRACES.search(one) for one in names):
        names = [_BRACES.sub(value, one, count=1) for one in names for value in _values(one)]
    if not any(sign in name for sign in "*?["):
        return tuple(names)
    there, _ = store_of(folder).top()
    return tuple(sorted(one for one in there if any(fnmatchcase(one, fits) for fits in names)))


def _values(name: str) -> Sequence[str]:
    """Return what the first braces of a name stand for."""
    found = _BRACES.search(name)
    assert found is not None
    if found[1] is None:
        return found[3].split(",")
    first, last = int(found[1]), int(found[2])
    if last - first > MOST_SHARDS:
        raise DataError(f"data {name}: {last - first + 1} files are more than {MOST_SHARDS}")
    return [str(number).zfill(len(found[1])) for number in range(first, last + 1)]
