"""The bundle: the folder, or .zip of it, that a device needs; whole, checked and without code."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import atomic_write, exchange, sha256_of
from tinysaver_edge.errors import BundleError

if TYPE_CHECKING:
    from typing_extensions import Self

    from tinysaver_edge.bundle.manifest import FileEntry, Manifest

MANIFEST = "bundle.json"


class Bundle:
    """A bundle on disk, its manifest read and its files checked against their hashes.

    A context manager: a .zip is unpacked into a temporary folder that `close` removes.

    Attributes:
        path: the folder or .zip that was opened.
        root: the folder its files lie in.
        manifest: the content of ``bundle.json``.
    """

    def __init__(self, path: Path, root: Path, manifest: Manifest, *, unpacked: bool) -> None:
        self.path = path
        self.root = root
        self.manifest = manifest
        self._unpacked = unpacked

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a bundle and check every file's hash.

        Args:
            path: a folder with ``bundle.json``, or a .zip of one.

        Raises:
            BundleError: it is missing, damaged, unsafe, or made by a newer release.
        """
        path = Path(path)
        unpacked = path.is_file()
        root = _unpack(path) if unpacked else path
        try:
            manifest = _read_manifest(root, shown=path)
            for entry in files_of(manifest):
                _check_file(root, entry, shown=path)
        except BaseException:
            if unpacked:
                shutil.rmtree(root, ignore_errors=True)
            raise
        return cls(path, root, manifest, unpacked=unpacked)

    def file(self, entry: FileEntry) -> Path:
        """Return where a file of the manifest lies."""
        return self.root / entry.path

    @property
    def has_models(self) -> bool:
        """Whether there are models, here or elsewhere; one made from records only names them."""
        return all(stage.model.files for stage in self.manifest.stages)

    def close(self) -> None:
        """Remove what was unpacked. Legal in every state."""
        if self._unpacked:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


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


def check_target(target: Path) -> None:
    """Refuse to write a bundle over something that is none.

    Raises:
        BundleError: there is something else, or the folder above is no folder.
    """
    if target.suffix == ".zip":
        if target.is_dir():
            raise BundleError(f"--out {target}: a folder of this name is there")
        return
    if target.is_file():
        raise BundleError(f"--out {target}: a file of this name is there")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise BundleError(f"--out {target}: the folder holds something else; name a new one")


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
        new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise BundleError(f"--out {target}: cannot be written ({error.strerror})") from error
    try:
        for place, source in files.items():
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, new / place)
        text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
        (new / MANIFEST).write_text(text)
        new.chmod(0o755)
        _put_in_place(new, target)
    except OSError as error:
        raise BundleError(f"--out {target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put_in_place(new: Path, target: Path) -> None:
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


def _unpack(path: Path) -> Path:
    """Unpack a .zip into a new temporary folder; refuse members that would leave it."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                    raise BundleError(f"bundle {path}: path {name!r} leaves the bundle")
            root = Path(tempfile.mkdtemp(prefix="tinysaver-bundle-"))
            try:
                archive.extractall(root)
            except BaseException:
                shutil.rmtree(root, ignore_errors=True)
                raise
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise BundleError(
            f"bundle {path}: neither a folder nor a readable .zip ({error})"
        ) from error
    return root


def _read_manifest(root: Path, *, shown: Path) -> Manifest:
    from pydantic import ValidationError

    from tinysaver_edge.bundle.manifest import SCHEMA_VERSION, Manifest
    from tinysaver_edge.errors import InputError

    path = root / MANIFEST
    if not path.is_file():
        state = "has no bundle.json" if root.is_dir() else "no such bundle"
        raise BundleError(f"bundle {shown}: {state}; make one with tinysaver-edge calibrate")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"bundle {shown}: bundle.json is damaged ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        writer = content.get("created_by", "a newer tinysaver-edge")
        raise BundleError(
            f"bundle {shown}: schema version {version} was written by {writer}; this release reads "
            f"up to {SCHEMA_VERSION}: upgrade with pip install -U tinysaver-edge"
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


def _check_file(root: Path, entry: FileEntry, *, shown: Path) -> None:
    path = root / entry.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"bundle {shown}: {entry.path} is a link that leaves the bundle")
    if not path.is_file():
        raise BundleError(f"bundle {shown}: {entry.path} is missing; copy the bundle again")
    if path.stat().st_size != entry.size_bytes or sha256_of(path) != entry.sha256:
        raise BundleError(
            f"bundle {shown}: {entry.path} is not what was calibrated (its hash differs); "
            f"copy the bundle again"
        )
