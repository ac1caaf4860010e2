"""Unpack a bundle that came as a .zip: what its manifest lists, no more and no larger than that.

A .zip may claim or bring anything: a gigabyte of zeros in a megabyte, members that leave the
folder, a directory of a million names. So its `bundle.json` is read first; then each listed file is
taken, as long as the manifest says, and the sums have bounds.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from tinysaver_edge._support.files import OddZipError, members_of
from tinysaver_edge.bundle.signature import MOST_SIGNATURE_BYTES, SIGNATURE
from tinysaver_edge.errors import BundleError

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import FileEntry

MANIFEST = "bundle.json"

MOST_MANIFEST_BYTES = 16 << 20
"""A manifest of ten thousand classes has a tenth of it."""

_MOST_DIRECTORY_BYTES = 4 << 20
"""Of a .zip's list of members: some forty thousand names."""

_MOST_TIMES = 200
_FREE_BYTES = 64 << 20
"""Models compress to a half or a tenth; what unpacks two-hundredfold, beyond so much, is a bomb."""

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    KeyError,
    IndexError,
)
"""What comes out of zipfile for damaged archives."""


class PackedBundle:
    """A .zip of a bundle, open. A context manager.

    `bundle.json` may lie in the one folder that the .zip holds, as `zip -r bundle.zip bundle/`
    makes it.

    Raises:
        BundleError: it cannot be read, is none, or holds no bundle.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = _Bounded(path)
        except OSError as error:
            raise BundleError(f"bundle {path}: cannot be read ({error.strerror})") from error
        try:
            self._archive = zipfile.ZipFile(self._file)
            if self._begins_later():
                raise zipfile.BadZipFile("its list of members is missing")
            self._members = self._checked(members_of(self._archive))
            self._top = self._found()
        except OSError as error:
            self._file.close()
            raise BundleError(f"bundle {path}: cannot be read ({error.strerror})") from error
        except DAMAGED as error:
            why = self._no_zip(error)
            self._file.close()
            raise BundleError(f"bundle {path}: {why}") from error
        except BundleError:
            self._file.close()
            raise

    def __enter__(self) -> PackedBundle:
        return self

    def __exit__(self, *exception: object) -> None:
        self._archive.close()
        self._file.close()

    def manifest(self) -> bytes:
        """Return the content of `bundle.json`.

        Raises:
            BundleError: it is damaged, or of no sensible size.
        """
        return self._content(self._members[self._top + MANIFEST], MOST_MANIFEST_BYTES)

    def signature(self) -> bytes | None:
        """Return the content of `bundle.sig.json`, or None where there is none.

        Raises:
            BundleError: it is damaged, or of no sensible size.
        """
        member = self._members.get(self._top + SIGNATURE)
        return None if member is None else self._content(member, MOST_SIGNATURE_BYTES)

    def _content(self, member: zipfile.ZipInfo, most: int) -> bytes:
        if member.file_size > most:
            name = member.filename.removeprefix(self._top)
            raise BundleError(f"bundle {self._path}: {name} of {member.file_size} bytes")
        sink = io.BytesIO()
        self._copy(member, sink, member.file_size)
        return sink.getvalue()

    def unpack(self, entries: Iterable[FileEntry]) -> Path:
        """Unpack `bundle.json` and the files it lists into a new folder, for this user alone.

        Raises:
            BundleError: a file is missing, damaged or of another size, all of them unpack to more
                than is sensible, or there is no room.
        """
        wanted = {entry.path: self._listed(entry) for entry in entries}
        wanted[MANIFEST] = self._members[self._top + MANIFEST]
        total = sum(member.file_size for member in wanted.values())
        packed = self._path.stat().st_size
        if total > max(_FREE_BYTES, _MOST_TIMES * packed):
            raise BundleError(
                f"bundle {self._path}: its {packed} bytes would unpack to {total}: no bundle does"
            )
        try:
            root = Path(tempfile.mkdtemp(prefix="tinysaver-bundle-"))
        except OSError as error:  # gettempdir itself finds no folder to write to
            raise self._no_room(error, total) from error
        try:
            free = shutil.disk_usage(root).free
            if free < total:
                raise self._no_room(None, total)
            for place, member in wanted.items():
                self._unpack_to(root / place, member, total)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise
        return root

    def _unpack_to(self, target: Path, member: zipfile.ZipInfo, total: int) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                self._copy(member, file, member.file_size)
        except OSError as error:
            raise self._no_room(error, total) from error

    def _copy(self, member: zipfile.ZipInfo, sink: BinaryIO, size: int) -> None:
        """Copy a member, but not more of it than the directory says."""
        try:
            source = self._archive.open(member)
        except (OSError, *DAMAGED) as error:
            raise self._damaged(error) from error
        left = size
        with source:
            while True:
                try:
                    chunk = source.read(1 << 20)
                except (OSError, *DAMAGED) as error:
                    raise self._damaged(error) from error
                left -= len(chunk)
                if left < 0:
                    raise BundleError(
                        f"bundle {self._path}: {member.filename!r} is longer than it says"
                    )
                if not chunk:
                    return
                sink.write(chunk)

    def _listed(self, entry: FileEntry) -> zipfile.ZipInfo:
        member = self._members.get(self._top + entry.path)
        if member is None:
            raise BundleError(
                f"bundle {self._path}: {entry.path} is missing; copy the bundle again"
            )
        if member.file_size != entry.size_bytes:
            raise BundleError(
                f"bundle {self._path}: {entry.path} has {member.file_size} bytes, not the "
                f"{entry.size_bytes} that were calibrated; copy the bundle again"
            )
        return member

    def _checked(self, members: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name; refuse those that would leave the folder, or come twice."""
        found: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise BundleError(f"bundle {self._path}: path {name!r} leaves the bundle")
            if name in found:
                raise BundleError(f"bundle {self._path}: holds {name!r} twice")
            found[name] = member
        return found

    def _found(self) -> str:
        """Return the folder of the .zip that `bundle.json` lies in, with its slash."""
        if MANIFEST in self._members:
            return ""
        tops = sorted(
            name.removesuffix(MANIFEST)
            for name in self._members
            if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")
        )
        if len(tops) == 1:
            return tops[0]
        if tops:
            raise BundleError(
                f"bundle {self._path}: holds {len(tops)} bundles ({', '.join(tops)}): unpack it "
                "and name one"
            )
        raise BundleError(
            f"bundle {self._path}: holds no bundle.json; make one with tinysaver-edge calibrate"
        )

    def _begins_later(self) -> bool:
        """Whether only a .zip within this one was found: of a cut one, an .npz may be whole."""
        offsets = [member.header_offset for member in self._archive.infolist()]
        return min(offsets, default=0) > 0 and self._head() == b"PK"

    def _head(self) -> bytes:
        self._file.seek(0)
        return self._file.read(2)

    def _no_zip(self, error: Exception) -> str:
        """Say why a file could not be opened as a .zip."""
        head = self._head()
        if isinstance(error, OddZipError):
            return str(error)
        if head == b"PK":
            return f"the .zip ends early or is damaged ({_told(error)}): fetch it again"
        if not head:
            return "the file is empty: fetch it again"
        return f"neither a folder nor a readable .zip ({_told(error)})"

    def _damaged(self, error: BaseException) -> BundleError:
        return BundleError(
            f"bundle {self._path}: the .zip is damaged ({_told(error)}): copy it again"
        )

    def _no_room(self, error: OSError | None, total: int) -> BundleError:
        why = "there is less room" if error is None else error.strerror or str(error)
        return BundleError(
            f"bundle {self._path}: cannot be unpacked in {tempfile.gettempdir()} ({why}), it takes "
            f"{total / 1e6:.1f} MB: free some, or set TMPDIR to a folder that has them"
        )


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Bounded(io.FileIO):
    """A file that zipfile cannot be made to read without end at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.fspath(path), "rb")
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read; refuse to read more at once than the largest sensible list of members."""
        asked = self._size - self.tell() if size is None or size < 0 else size
        if asked > _MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"{asked} bytes of list of members")
        return super().read(asked) or b""
