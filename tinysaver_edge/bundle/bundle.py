"""The bundle: the folder, or .zip of it, that a device needs; whole, checked and without code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import (
    Seal,
    atomic_write,
    half_written,
    kind_of,
    new_beside,
    open_regular,
    parse_json,
    read_file,
    sha256_of,
)
from tinysaver_edge.bundle.signature import (
    MOST_SIGNATURE_BYTES,
    SIGNATURE,
    Signed,
    Trust,
    check_signature,
)
from tinysaver_edge.bundle.unpack import MANIFEST, MOST_MANIFEST_BYTES, PackedBundle
from tinysaver_edge.decision import BundleIdentity
from tinysaver_edge.errors import BundleError, InputError, install_command

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.bundle.manifest import FileEntry, Manifest


class Bundle:
    """A bundle on disk, its manifest read and its files checked against their hashes.

    A context manager: a .zip is unpacked into a temporary folder that `close` removes.

    Attributes:
        path: the folder or .zip that was opened.
        root: the folder its files lie in.
        manifest: the content of ``bundle.json``.
        signed: who signed it, where that was asked for and holds.
        identity: which bundle it is, as decisions tell it.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        manifest: Manifest,
        *,
        unpacked: bool,
        seals: Mapping[str, Seal] | None = None,
        signed: Signed | None = None,
        sha256: str = "",
    ) -> None:
        self.path = path
        self.root = root
        self.manifest = manifest
        self.signed = signed
        self.identity = BundleIdentity(sha256, *((signed.name, signed.version) if signed else ()))
        self._seals = dict(seals or {})
        self._remove = weakref.finalize(self, _remove, root, os.getpid()) if unpacked else None

    @classmethod
    def load(cls, path: str | Path, *, trusted: str | Path | Trust | None = None) -> Self:
        """Open a bundle and check every file's hash.

        Args:
            path: a folder with ``bundle.json``, or a .zip of one.
            trusted: a folder of public keys, or a `Trust`: the bundle must be signed by one of
                them. None where this device is not set to need that (``TINYSAVER_TRUSTED_KEYS``).

        Raises:
            BundleError: it is missing, damaged, unsafe, made by a newer release, or not signed as
                it must be.
            InputError: the trusted keys cannot be read.
            MissingDependencyError: the package that checks signatures is not installed.
        """
        return cls._load(Path(path), Trust.of(trusted))

    @classmethod
    def load_untrusted(cls, path: str | Path) -> Self:
        """Open a bundle as `load` does, whoever signed it: to sign it, or to change it."""
        return cls._load(Path(path), None)

    @classmethod
    def _load(cls, path: Path, trust: Trust | None) -> Self:
        try:
            unpacked = not path.is_dir() and path.exists()
        except (OSError, ValueError) as error:
            raise BundleError(f"bundle {path}: no such bundle ({error})") from error
        if unpacked and path.name == MANIFEST:
            raise BundleError(f"bundle {path}: name the folder that it lies in, {path.parent}")
        signed = None
        if unpacked:
            if (kind := kind_of(path)) is not None:
                raise BundleError(f"bundle {path}: is {kind}, neither a folder nor a .zip")
            with PackedBundle(path) as packed:
                text = packed.manifest()
                if trust is not None:
                    signed = check_signature(text, packed.signature(), trust, shown=path)
                manifest = parse_manifest(text, shown=path)
                root = packed.unpack(files_of(manifest))
        else:
            text, root = _read_manifest(path), path
            if trust is not None:
                signed = check_signature(text, read_signature(path), trust, shown=path)
            manifest = parse_manifest(text, shown=path)
        try:
            seals = {
                entry.path: _check_file(root, entry, shown=path) for entry in files_of(manifest)
            }
        except BaseException:
            if unpacked:
                shutil.rmtree(root, ignore_errors=True)
            raise
        sha256 = hashlib.sha256(text).hexdigest()
        return cls(
            path, root, manifest, unpacked=unpacked, seals=seals, signed=signed, sha256=sha256
        )

    def file(self, entry: FileEntry) -> Path:
        """Return where a file of the manifest lies."""
        return self.root / entry.path

    def seal(self, entry: FileEntry) -> Seal:
        """Return a file of the manifest as it was when it was hashed."""
        return self._seals[entry.path]

    @property
    def has_models(self) -> bool:
        """Whether there are models, here or elsewhere; one made from records only names them."""
        return all(stage.model.files for stage in self.manifest.stages)

    def close(self) -> None:
        """Remove what was unpacked. Legal in every state."""
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _remove(root: Path, owner: int) -> None:
    """Remove what was unpacked, but not from a process that was forked off its owner."""
    if os.getpid() == owner:
        shutil.rmtree(root, ignore_errors=True)


def files_of(manifest: Manifest) -> Iterator[FileEntry]:
    """Yield every file that the bundle of a manifest holds."""
    for stage in manifest.stages:
        if not stage.model.elsewhere:
            yield from stage.model.files
    if manifest.golden is not None:
        yield from manifest.golden.frames
        yield manifest.golden.answers
        if manifest.golden.decoder is not None:
            yield manifest.golden.decoder
    if manifest.seen is not None:
        yield manifest.seen.file


def file_entry(source: Path, place: str) -> FileEntry:
    """Describe a file that will lie at a place of a bundle."""
    from tinysaver_edge.bundle.manifest import FileEntry

    return FileEntry(path=place, sha256=sha256_of(source), size_bytes=source.stat().st_size)


def check_target(target: Path, *, flag: str = "--out ") -> None:
    """Refuse to write a bundle over something that is none.

    Raises:
        BundleError: there is something else, it is the current folder or one above, or nothing can
            be written there.
    """
    here = Path.cwd()
    try:
        kind = kind_of(target)
        is_folder = target.is_dir()
        there = target.exists()
        others = is_folder and any(target.iterdir()) and not (target / MANIFEST).is_file()
        resolved = target.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # the last: a link that leads to itself
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"{flag}{target}: {why}; name a new one") from error
    if target.is_symlink() and not there:
        raise BundleError(f"{flag}{target}: a link to what is not there: name a new one")
    if resolved in (here, *here.parents):
        raise BundleError(
            f"{flag}{target}: a bundle takes the place of its folder, which cannot be the one you "
            "are in: name a new one"
        )
    above = next(one for one in target.absolute().parents if one.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise BundleError(f"{flag}{target}: cannot be written ({error.strerror})") from error
    if target.suffix == ".zip":
        if kind is not None:
            raise BundleError(f"{flag}{target}: {kind} of this name is there; name a new one")
        if there and target.stat().st_size:
            _check_is_bundle(target, flag)
        return
    if there and not is_folder:
        kind = kind or "a file"
        raise BundleError(f"{flag}{target}: {kind} of this name is there; name a new one")
    if others:
        raise BundleError(f"{flag}{target}: the folder holds something else; name a new one")
    if is_folder and (stranger := _stranger_in(target)) is not None:
        raise BundleError(
            f"{flag}{target}: holds {stranger}, which is no file of the bundle there and would go "
            "with it: move it elsewhere, or name a new one"
        )


def _check_is_bundle(packed: Path, flag: str) -> None:
    """Refuse to replace a .zip of something else, such as the images.

    Raises:
        BundleError: it is one.
    """
    try:
        PackedBundle(packed).__exit__()
    except BundleError as error:
        raise BundleError(
            f"{flag}{packed}: a file of this name is there that is no bundle; name a new one"
        ) from error


def _stranger_in(folder: Path) -> str | None:
    """Return the first file in a bundle's folder that its manifest does not list; None for none."""
    try:
        told = parse_json(read_file(folder / MANIFEST))
        listed = {MANIFEST, SIGNATURE, *_paths_in(told)}
    except (OSError, ValueError):  # it is damaged: its files lie where those of others do
        told, listed = {"schema_version": None}, set()
    if not isinstance(told, dict) or "schema_version" not in told:
        return MANIFEST  # of something else
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in sorted(files + links):
            inside = Path(place, half_written(name) or name).relative_to(folder).as_posix()
            usual = not listed and inside.startswith(_USUAL)
            if inside not in listed and not usual and name not in _OF_SYSTEMS:
                return inside
    return None


_USUAL = (MANIFEST, SIGNATURE, "models/", "golden/", "seen.npy")
_OF_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")


def _paths_in(told: object) -> Iterator[str]:
    """Yield every ``path`` of a manifest, of whatever version and however deep."""
    waiting = [told]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from (value for key, value in one.items() if (key, type(value)) == ("path", str))
            one = list(one.values())
        if isinstance(one, list):
            waiting += one


def write_bundle(target: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write a bundle, replacing an older one only once the new one is whole.

    Args:
        target: folder, or file name ending in ``.zip``.
        manifest: what ``bundle.json`` will hold; it names every file.
        files: where each named file lies now, by its place in the bundle.

    Raises:
        BundleError: the target is something else, or cannot be written.
    """
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = new_beside(target)
        new.mkdir()
    except OSError as error:
        raise BundleError(f"--out {target}: cannot be written ({error.strerror})") from error
    try:
        for place, source in files.items():
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, new / place)
        text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
        (new / MANIFEST).write_text(text, encoding="utf-8")
        put_in_place(new, target)
    except OSError as error:
        raise BundleError(f"--out {target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Linux's numbers for "relative to the current folder" and "change places"."""


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


def sync_folder(folder: Path, *, deep: bool = False) -> None:
    """Have a folder's names on the disk, so that they outlive a power cut.

    Args:
        folder: which.
        deep: its files and folders too, all the way down.

    Raises:
        OSError: it cannot be read.
    """
    within = [path for path in folder.rglob("*") if not path.is_symlink()] if deep else []
    for path in (*within, folder):
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(held)
        finally:
            os.close(held)


def put_in_place(new: Path, target: Path) -> None:
    """Have a new folder take the place of a bundle, or become one, in one step."""
    if target.suffix == ".zip":
        with (
            atomic_write(target) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for path in sorted(new.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(new).as_posix())
        return
    if not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        old = new.with_name(new.name + ".old")
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    # Exchanged, the old bundle lies where the new one was made, and goes with it.


def _read_manifest(root: Path) -> bytes:
    path = root / MANIFEST
    if not path.is_file():
        raise BundleError(f"bundle {root}: {_why_no_manifest(root)}")
    try:
        if path.stat().st_size > MOST_MANIFEST_BYTES:
            raise BundleError(f"bundle {root}: bundle.json of {path.stat().st_size} bytes")
        return read_file(path)
    except OSError as error:
        raise BundleError(f"bundle {root}: bundle.json: {error.strerror}") from error


def read_signature(root: Path) -> bytes | None:
    """Return a folder's `bundle.sig.json`, one byte too many where it is too long.

    Raises:
        BundleError: it cannot be read.
    """
    path = root / SIGNATURE
    try:
        with open_regular(path) as file:
            return file.read(MOST_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"bundle {root}: {SIGNATURE}: {error.strerror}") from error


def _why_no_manifest(root: Path) -> str:
    if not root.is_dir():
        return "no such bundle; make one with tinysaver-edge calibrate"
    inner = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    if inner:
        return f"bundle.json lies in {root / inner[0]}: name that folder"
    for near in (root.parent, root.with_suffix("")):
        if (near / MANIFEST).is_file():
            return f"has no bundle.json, but {near} has: name that folder"
    return "has no bundle.json; make one with tinysaver-edge calibrate"


def parse_manifest(text: bytes, *, shown: Path | str) -> Manifest:
    """Read a `bundle.json`.

    Raises:
        BundleError: it is damaged, or of a version that this release cannot read.
    """
    from pydantic import ValidationError

    from tinysaver_edge.bundle.manifest import SCHEMA_VERSION, Manifest

    try:
        content = parse_json(text)
    except ValueError as error:
        raise BundleError(f"bundle {shown}: bundle.json is damaged ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        writer = content.get("created_by", "a newer tinysaver-edge")
        raise BundleError(
            f"bundle {shown}: schema version {version} was written by {writer}; this release reads "
            f"up to {SCHEMA_VERSION}: upgrade with {install_command()} --upgrade"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise BundleError(
            f"bundle {shown}: bundle.json, {place}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except InputError as error:
        raise BundleError(f"bundle {shown}: bundle.json: {error}") from error


def _check_file(root: Path, entry: FileEntry, *, shown: Path) -> Seal:
    """Hash a file and hold it against the manifest."""
    path = root / entry.path
    try:
        inside = path.resolve().is_relative_to(root.resolve())
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle
        raise BundleError(f"bundle {shown}: {entry.path!r}: {error}") from error
    if not inside:
        raise BundleError(f"bundle {shown}: {entry.path} is a link that leaves the bundle")
    if not there:
        raise BundleError(f"bundle {shown}: {entry.path} is missing; copy the bundle again")
    try:
        seal = Seal.of(path)
    except OSError as error:
        raise BundleError(f"bundle {shown}: {entry.path}: {error.strerror}") from error
    if seal.size_bytes != entry.size_bytes or seal.sha256 != entry.sha256:
        raise BundleError(
            f"bundle {shown}: {entry.path} is not what was calibrated (its hash differs); "
            f"copy the bundle again"
        )
    return seal
