"""Ship a bundle: push it to a target, and pull it from there, whole, checked and in one step.

A bundle becomes an OCI manifest whose layers are its files, each called by its sha256. What is
pulled is looked at in this order, so that nothing large is fetched for nothing: the signature of
`bundle.json`, its name and version, the list of files, each file's hash. Only then does it take
the place of what was there.

Against an old bundle sent again a device needs something signed that only rises: the version in the
signature, by default the time of signing. Whoever holds the target can change tag and manifest.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tinysaver_edge._support.files import NO_ROOM, claim, parse_json, sha256_of
from tinysaver_edge._support.limits import MOST_BUNDLE_BYTES, MOST_BUNDLE_FILES, MOST_TOLD_BYTES
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import redacted
from tinysaver_edge.bundle.bundle import (
    Bundle,
    check_target,
    files_of,
    parse_manifest,
    put_in_place,
    read_signature,
    sync_folder,
)
from tinysaver_edge.bundle.signature import (
    MOST_SIGNATURE_BYTES,
    SIGNATURE,
    Signed,
    Trust,
    check_signature,
    claimed,
)
from tinysaver_edge.bundle.target import MANIFEST_TYPE, BundleTarget, Tagged, digest_of, is_digest
from tinysaver_edge.bundle.unpack import MANIFEST, MOST_MANIFEST_BYTES
from tinysaver_edge.errors import BundleError, InputError, TransferError

if TYPE_CHECKING:
    from tinysaver_edge.bundle.manifest import FileEntry, Manifest

BUNDLE_TYPE = "application/vnd.tinysaver-edge.bundle.v1"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_FILE_TYPE = "application/octet-stream"
_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"

TRIES = 5
"""How often a transfer is taken up again that has brought nothing new."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def parted(text: str) -> tuple[str, str | None]:
    """Part ``TARGET:TAG``; the tag is None where there is none.

    Raises:
        InputError: what stands behind the last colon can be no tag.
    """
    start, colon, tag = text.rpartition(":")
    host = start.partition("://")[2]
    if not colon or "/" in tag or (tag.isdigit() and host and "/" not in host):
        return text, None  # a path, or a port
    if _TAG.fullmatch(tag) is None or not start:
        raise InputError(
            f"tag {brief(redacted(tag), 60)!r}: of letters, digits, . _ - and up to 128 of them"
        )
    return start, tag


# Push


@dataclass(frozen=True, slots=True)
class Pushed:
    """A bundle that lies at a target.

    Attributes:
        digest: of its OCI manifest.
        tags: what stands for it there from now on.
        sent_bytes: of files that were not there yet.
        there_bytes: of those that were.
        newer: the version that the tag stood for, where that is newer: devices refuse this one.
    """

    digest: str
    tags: tuple[str, ...]
    sent_bytes: int
    there_bytes: int
    newer: int | None = None


def push_bundle(path: Path, target: BundleTarget, tag: str | None = None) -> Pushed:
    """Push a bundle's folder; files that are there already are not sent again.

    Args:
        path: the folder; every file of it is checked first.
        target: where to.
        tag: what is to stand for it besides its version, which a signed bundle has.

    Raises:
        BundleError: it is damaged, or no folder.
        InputError: nothing would stand for it, or the target never takes it.
        TransferError: the target cannot be reached, or refuses.
    """
    if not path.is_dir():
        why = "only a folder can be pushed: unpack it" if path.exists() else "is not there"
        raise BundleError(f"bundle {path}: {why}")
    with Bundle.load_untrusted(path) as bundle:
        entries = {entry.path: entry for entry in files_of(bundle.manifest)}
        signature = read_signature(path)
        said = claimed(signature, shown=path)
        tags = tuple(dict.fromkeys([*([str(said[1])] if said else []), *([tag] if tag else [])]))
        if not tags:
            raise InputError(
                f"bundle {path}: is not signed, so it has no version to be found by: push it to "
                "TARGET:TAG"
            )
        layers = [_layer(place, _digest(entry.sha256), entry.size_bytes)
                  for place, entry in entries.items()]  # fmt: skip
        sent = there = 0
        for place in entries:
            with (bundle.root / place).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if _sent(target, _digest(entries[place].sha256), size, file):
                    sent += size
                else:
                    there += size
        for place in (MANIFEST,) if signature is None else (SIGNATURE, MANIFEST):
            content = (bundle.root / place).read_bytes()
            layers.insert(0, _layer(place, digest_of(content), len(content)))
            size = len(content)
            sent += size * _sent(target, digest_of(content), size, io.BytesIO(content))
        _sent(target, digest_of(_EMPTY), len(_EMPTY), io.BytesIO(_EMPTY))
    newer = _newer(target, tags[-1], said)
    digest = target.tag(_oci_manifest(layers, said), tags)
    return Pushed(digest, tags, sent, there, newer)


def _newer(target: BundleTarget, tag: str, said: tuple[str, int] | None) -> int | None:
    try:
        found = target.find(tag)
        told = parse_json(found.content if found else b"{}")["annotations"]
        name, version = told[_TITLE], int(told[_VERSION])
    except (TransferError, ValueError, TypeError, KeyError):  # nothing yet, or no bundle
        return None
    return version if said is not None and name == said[0] and version > said[1] else None


def _sent(target: BundleTarget, digest: str, size: int, content: BinaryIO) -> bool:
    """Send a blob, unless it is there; tell which."""
    if target.has(digest, size):
        return False
    target.write(digest, content)
    return True


def _digest(sha256: str) -> str:
    return f"sha256:{sha256}"


def _layer(place: str, digest: str, size: int) -> dict[str, Any]:
    return {
        "mediaType": _FILE_TYPE,
        "digest": digest,
        "size": size,
        "annotations": {_TITLE: place},
    }


def _oci_manifest(layers: Sequence[Mapping[str, Any]], said: tuple[str, int] | None) -> bytes:
    """Return the manifest of a bundle; the same bytes for the same bundle."""
    empty = {"mediaType": _EMPTY_TYPE, "digest": digest_of(_EMPTY), "size": len(_EMPTY)}
    told = {} if said is None else {_TITLE: said[0], _VERSION: str(said[1])}
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": BUNDLE_TYPE,
        "config": empty,
        "layers": list(layers),
        "annotations": told,
    }
    return json.dumps(content, indent=1).encode()


# Pull


class SpoiledError(BundleError):
    """What lies at the target is not what it is called: a push mends it, as the same bundle."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A bundle that has come.

    Attributes:
        digest: of its OCI manifest.
        path: its folder.
        signed: who signed it, where that was asked for.
        fetched_bytes: that crossed the network.
        kept_bytes: of files that were here already.
        changed: whether something else was there before, or nothing.
    """

    digest: str
    path: Path
    signed: Signed | None
    fetched_bytes: int
    kept_bytes: int
    changed: bool


@dataclass(frozen=True, slots=True)
class _Layer:
    digest: str
    size: int


def pull_bundle(
    target: BundleTarget,
    tag: str,
    folder: Path,
    *,
    trust: Trust | None = None,
    allow_older: bool = False,
    near: Sequence[Path] = (),
    found: Tagged | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Pulled:
    """Pull a bundle into a folder. What is there stays until all of the new one is here.

    What was fetched of one that breaks off stays in ``.NAME.pull`` beside it and is used next time.

    Args:
        target: where from.
        tag: what stands for it there.
        folder: where to; a bundle that is there says by its signature which versions are older,
            and which name is wanted, unless `trust` does.
        trust: whose signature it needs; None takes any that is whole.
        allow_older: take an older version than the one that is there.
        near: folders of other bundles, whose files may serve.
        found: what the tag stands for, where that has been asked already.
        sleep: waits for so many seconds before a transfer is taken up again.

    Raises:
        BundleError: it is not signed as it must be, older, another product's, or not what it says.
        InputError: the folder holds something else, or the trusted keys cannot be read.
        TransferError: the target cannot be reached, or hangs up too often; nothing has changed.
        MissingDependencyError: the package that checks signatures is not installed.
    """
    check_target(folder, flag="")
    if folder.suffix == ".zip":
        raise InputError(f"{folder}: a bundle is pulled into a folder; name one")
    trust = _with_floor(trust, folder, allow_older=allow_older)
    staging = folder.absolute().with_name(f".{folder.absolute().name}.pull")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        held = claim(staging)
        try:
            pull = _Pull(target, tag, staging, (folder, *near), sleep)
            return pull.into(folder, found or target.find(tag), trust)
        finally:
            os.close(held)
    except OSError as error:
        raise TransferError(f"{folder}: {error.strerror or error}") from error


def _with_floor(trust: Trust | None, folder: Path, *, allow_older: bool) -> Trust | None:
    """Ask for the name of what is there, and for no older version of it."""
    if trust is None:
        return None
    said = claimed(read_signature(folder), shown=folder) if folder.is_dir() else None
    name, version = (None, None) if said is None else said
    least = trust.least_version if version is None else max(version, trust.least_version or 0)
    return replace(trust, name=trust.name or name, least_version=None if allow_older else least)


class _Pull:
    """One bundle on its way into a folder beside the one that it will lie in."""

    def __init__(
        self,
        target: BundleTarget,
        tag: str,
        staging: Path,
        near: Sequence[Path],
        sleep: Callable[[float], object],
    ) -> None:
        self._target, self._tag, self._staging = target, tag, staging
        self._near, self._sleep = near, sleep
        self._shown = f"{target.shown}:{tag}"
        self._fetched = self._kept = 0

    def into(self, folder: Path, found: Tagged | None, trust: Trust | None) -> Pulled:
        assert found is not None
        if digest_of(found.content) != found.digest:
            raise SpoiledError(
                f"bundle {self._shown}: its list of files is not what its tag stands for (hash "
                "differs): push the bundle there again"
            )
        layers = self._layers(found.content)
        text = self._small(layers, MANIFEST, MOST_MANIFEST_BYTES)
        signature = None
        if SIGNATURE in layers:
            signature = self._small(layers, SIGNATURE, MOST_SIGNATURE_BYTES)
        signed = None
        if trust is not None:
            signed = check_signature(text, signature, trust, shown=self._shown)
        manifest = parse_manifest(text, shown=self._shown)
        entries = self._entries(manifest)
        if _is_there(folder, text, signature):
            shutil.rmtree(self._staging, ignore_errors=True)
            return Pulled(found.digest, folder, signed, self._fetched, 0, changed=False)
        self._fetch_all(entries)
        whole = self._assembled(entries, text, signature)
        Bundle.load_untrusted(whole).close()
        sync_folder(whole, deep=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(whole, folder)
        sync_folder(folder.absolute().parent)
        shutil.rmtree(self._staging, ignore_errors=True)
        return Pulled(found.digest, folder, signed, self._fetched, self._kept, changed=True)

    def _refused(self, why: str) -> BundleError:
        return BundleError(f"bundle {self._shown}: {why}")

    def _layers(self, content: bytes) -> dict[str, _Layer]:
        try:
            if len(content) > MOST_TOLD_BYTES:
                raise ValueError("too long")
            told = parse_json(content)["layers"]
            if len(told) > MOST_BUNDLE_FILES:
                raise ValueError("too many files")
            named = [(one["annotations"][_TITLE], _Layer(one["digest"], one["size"]))
                     for one in told]  # fmt: skip
            for _, one in named:
                if not is_digest(one.digest) or type(one.size) is not int or one.size < 0:
                    raise ValueError("a file without sha256 or size")
            self._held = {one for _, one in named}  # other clients may leave out a file's folder
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._refused(
                f"what lies there is no bundle ({brief(str(error), 80)})"
            ) from error
        if MANIFEST not in (layers := dict(named)):
            raise self._refused("what lies there is no bundle: it has no bundle.json")
        return layers

    def _entries(self, manifest: Manifest) -> list[FileEntry]:
        entries = list({entry.path: entry for entry in files_of(manifest)}.values())
        for entry in entries:
            if _Layer(_digest(entry.sha256), entry.size_bytes) not in self._held:
                raise self._refused(
                    f"{entry.path} at the target is not the one that its bundle.json names (hash "
                    "or size differs): it was exchanged there; push the bundle again"
                )
        total = sum(entry.size_bytes for entry in entries)
        if total > MOST_BUNDLE_BYTES:
            raise self._refused(f"{total} bytes; at most {MOST_BUNDLE_BYTES} are fetched")
        free, lacks = shutil.disk_usage(self._staging).free, total - self._arrived(entries)
        if free < lacks:
            raise TransferError(
                f"{self._staging.parent}: has {free / 1e6:.1f} MB free, and the bundle "
                f"{self._shown} takes {lacks / 1e6:.1f} more: make room there"
            )
        return entries

    def _arrived(self, entries: Sequence[FileEntry]) -> int:
        """Return the bytes that came before a transfer broke off, and will be used."""
        places = {self._staging / entry.sha256: entry.size_bytes for entry in entries}
        return sum(min(size, place.stat().st_size)
                   for place, size in places.items() if place.exists())  # fmt: skip

    def _small(self, layers: Mapping[str, _Layer], place: str, most: int) -> bytes:
        if layers[place].size > most:
            raise self._refused(f"{place} of {layers[place].size} bytes")
        return self._fetched_file(layers[place].digest, layers[place].size, place).read_bytes()

    def _fetch_all(self, entries: Sequence[FileEntry]) -> None:
        wanted = {entry.sha256 for entry in entries}
        for old in self._staging.iterdir():  # of another version that broke off
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name not in wanted:
                old.unlink()
        here = _files_by_hash(self._near)
        for entry in entries:
            place = self._staging / entry.sha256
            near = here.get(entry.sha256)
            if near is not None and not place.exists() and near.stat().st_size == entry.size_bytes:
                shutil.copyfile(near, place)
                if sha256_of(place) == entry.sha256:
                    self._kept += entry.size_bytes
                    continue
                place.unlink()
            self._fetched_file(_digest(entry.sha256), entry.size_bytes, entry.path)

    def _fetched_file(self, digest: str, size: int, shown: str) -> Path:
        """Return a blob in a file, what is missing of it fetched, once it is what it is called."""
        place = self._staging / digest.removeprefix("sha256:")
        for again in (False, True):
            before = min(size, place.stat().st_size) if place.exists() else 0
            self._fetch(digest, size, place, shown)
            if _digest(sha256_of(place)) == digest:
                self._fetched += size - before
                return place
            place.unlink()
            if again or not before:  # what was left from before a power cut may be to blame
                break
        raise SpoiledError(
            f"bundle {self._shown}: {shown} that came is not what was pushed (its hash differs): "
            f"remove {digest[:19]}… there and push the bundle again"
        )

    def _fetch(self, digest: str, size: int, place: Path, shown: str) -> None:
        failures, error = 0, None
        with place.open("r+b" if place.exists() else "w+b") as file:
            file.truncate(min(size, file.seek(0, io.SEEK_END)))
            while (before := file.seek(0, io.SEEK_END)) < size:
                try:
                    self._target.read(digest, size, file)
                except TransferError as one:
                    error = one
                    if getattr(one.__cause__, "errno", None) in NO_ROOM:  # it is not the target's
                        raise TransferError(f"{place.parent}: no room is left there") from one
                failures = 0 if file.seek(0, io.SEEK_END) > before else failures + 1
                if failures >= TRIES:
                    what = f"{shown} ends after {before} of {size} bytes"
                    raise TransferError(f"{error or f'bundle {self._shown}'}: {what}")
                if file.tell() < size:
                    self._sleep(0.5 * 2**failures)

    def _assembled(
        self, entries: Sequence[FileEntry], text: bytes, signature: bytes | None
    ) -> Path:
        whole = self._staging / "bundle"
        placed: dict[str, Path] = {}
        for entry in entries:
            place = whole / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.sha256 in placed:
                shutil.copyfile(placed[entry.sha256], place)
            else:
                placed[entry.sha256] = (self._staging / entry.sha256).rename(place)
        whole.mkdir(exist_ok=True)
        (whole / MANIFEST).write_bytes(text)
        if signature is not None:
            (whole / SIGNATURE).write_bytes(signature)
        return whole


def told_sha256(found: Tagged, place: str = MANIFEST) -> str | None:
    """Return the hash of a file of the bundle that a tag stands for, as the target tells it.

    Nothing has been checked: enough to pass over what is here already. None where it is no bundle,
    or has no such file.
    """
    try:
        layers = parse_json(found.content)["layers"]
        told = {one["annotations"][_TITLE]: one["digest"] for one in layers}
        return str(told[place]).removeprefix("sha256:")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_there(folder: Path, manifest: bytes, signature: bytes | None) -> bool:
    """Whether a folder holds a whole bundle with this manifest and signature already."""
    try:
        if (folder / MANIFEST).read_bytes() != manifest or read_signature(folder) != signature:
            return False
        Bundle.load_untrusted(folder).close()
    except (OSError, BundleError):
        return False
    return True


def _files_by_hash(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the files of bundles that lie here, as far as their manifests can be read."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            manifest = parse_manifest((folder / MANIFEST).read_bytes(), shown=folder)
        except (OSError, BundleError):
            continue
        for entry in files_of(manifest):
            if (folder / entry.path).is_file():
                found.setdefault(entry.sha256, folder / entry.path)
    return found
