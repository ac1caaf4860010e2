"""Targets: where bundles are pushed to and pulled from. One layout, an OCI image layout, for all.

A folder holds `index.json`, which has the digest of each tag, and `blobs/sha256/…`, one file for
each file of a bundle and one manifest for each bundle. A web server that serves such a folder is a
target too, and an OCI registry holds the same blobs and manifests behind its own addresses; `oras
pull` takes a bundle from each of them. What a blob is called says what it must hold, so nobody on
the way is believed.

Source: https://github.com/opencontainers/image-spec (image-layout.md, manifest.md) and
https://github.com/opencontainers/distribution-spec (spec.md), both 1.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol
from urllib.parse import quote, urlencode, urljoin

from tinysaver_edge._support.files import atomic_write, claim, open_regular, parse_json, sha256_of
from tinysaver_edge._support.http_client import Answer, WebHost, challenge_of
from tinysaver_edge._support.limits import MOST_TOLD_BYTES
from tinysaver_edge._support.text import brief
from tinysaver_edge._support.urls import Url, is_loopback, redacted
from tinysaver_edge.errors import InputError, TransferError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TAG_NAME = "org.opencontainers.image.ref.name"

LOGIN = "TINYSAVER_TARGET_LOGIN"
"""Environment variable with USER:PASSWORD of a target, where other users cannot read it."""

PAUSE_S = 20.0
"""How long a target may be silent."""

PIECE_BYTES = 8 << 20
"""So much of a blob is asked for at once: what broke off goes on from where it ended."""

FORM = "give a folder, http(s)://HOST/PATH or oci://HOST/NAME, with :TAG at the end"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_SAFE = "/%:=&+~!$,;'()*@"
_REDIRECTS = 3


def digest_of(content: bytes) -> str:
    """Return what a blob of this content is called."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_digest(value: object) -> bool:
    """Whether a stranger's value can be what a blob is called."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag stands for at some moment.

    Attributes:
        digest: of the manifest: ``sha256:…``.
        etag: what tells this answer from another without reading it; None where nothing does.
    """

    digest: str
    content: bytes = field(repr=False)
    etag: str | None = None


class BundleTarget(Protocol):
    """Holds bundles. For one thread at a time.

    Methods raise `TransferError` for what may be otherwise later, `InputError` for what never is.
    """

    @property
    def shown(self) -> str:
        """The target in messages, without credentials."""

    def find(self, tag: str, *, known: str | None = None) -> Tagged | None:
        """Return what a tag stands for; None where that is what is `known`, an `etag`, still."""

    def read(self, digest: str, size: int, file: BinaryIO) -> None:
        """Append to a file what it lacks of a blob; it may come to less, or to what is wrong.

        Args:
            digest: the blob.
            size: its bytes; no more are taken.
            file: open, at its end.
        """

    def has(self, digest: str, size: int) -> bool:
        """Whether it holds a blob of so many bytes already, as far as can be told from here."""

    def write(self, digest: str, content: BinaryIO) -> None:
        """Send a blob."""

    def tag(self, content: bytes, tags: Sequence[str]) -> str:
        """Send a manifest whose blobs are there, have tags stand for it; return its digest."""

    def close(self) -> None:
        """Hang up. Legal in every state."""


def open_target(text: str) -> BundleTarget:
    """Return a target by its address or path, without a tag.

    Raises:
        InputError: it is neither.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if not scheme:
        if not text or redacted(text) == "…":
            raise InputError(f"target {redacted(text)}: {FORM}")
        return _Folder(Path(text))
    if scheme not in ("http", "https", "oci"):
        raise InputError(f"target {redacted(text)}: {FORM}")
    url = Url.parse(text, what="target", form=FORM)
    if url.query or url.fragment:
        raise InputError(f"target {url.shown()}: has a ? or # in it: {FORM}")
    if scheme == "oci":
        return _Registry(url)
    return _Web(url)


class _Folder:
    """An image layout on a disk of this machine, or on one that is mounted here."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def shown(self) -> str:
        return str(self._path)

    def find(self, tag: str, *, known: str | None = None) -> Tagged | None:
        try:
            index = self._read("index.json")
            etag = digest_of(index)
            if etag == known:
                return None
            digest = tagged_in(index, tag, shown=self.shown)
            return Tagged(digest, self._read(_place(digest)), etag)
        except OSError as error:
            if not self._path.exists():
                raise TransferError(f"target {self.shown}: is not there") from error
            self._failed(error)

    def _read(self, place: str) -> bytes:
        with open_regular(self._path / place) as file:
            return file.read(MOST_TOLD_BYTES + 1)

    def read(self, digest: str, size: int, file: BinaryIO) -> None:
        try:
            with open_regular(self._path / _place(digest)) as source:
                source.seek(file.tell())
                while piece := source.read(min(size - file.tell(), 1 << 20)):
                    file.write(piece)
        except OSError as error:
            self._failed(error)

    def has(self, digest: str, size: int) -> bool:
        place = self._path / _place(digest)
        try:  # a disk may lose bits: who pushes again has it mended
            return place.is_file() and f"sha256:{sha256_of(place)}" == digest
        except OSError as error:
            self._failed(error)

    def write(self, digest: str, content: BinaryIO) -> None:
        try:
            with atomic_write(self._path / _place(digest)) as file:
                while piece := content.read(1 << 20):
                    file.write(piece)
        except OSError as error:
            self._failed(error)

    def tag(self, content: bytes, tags: Sequence[str]) -> str:
        digest = digest_of(content)
        place = self._path / "index.json"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            held = claim(self._path)  # two that push at once would lose one's tags
            try:
                there = self._read(place.name) if place.exists() else None
                index = indexed(there, digest, len(content), tags, shown=self.shown)
                layout = {"oci-layout": LAYOUT, _place(digest): content, place.name: index}
                for name, text in layout.items():
                    with atomic_write(self._path / name) as file:
                        file.write(text)
            finally:
                os.close(held)
        except OSError as error:
            self._failed(error)
        return digest

    def _failed(self, error: OSError) -> NoReturn:
        place = "" if error.filename is None else f"{Path(error.filename).name}: "
        raise TransferError(f"target {self.shown}: {place}{error.strerror}") from error

    def close(self) -> None: ...


LAYOUT = b'{"imageLayoutVersion": "1.0.0"}\n'


def _place(digest: str) -> str:
    assert _DIGEST.fullmatch(digest) is not None
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def tagged_in(index: bytes, tag: str, *, shown: str) -> str:
    """Return the digest that a tag stands for in an `index.json`.

    Raises:
        TransferError: it is damaged, or has no such tag.
    """
    found = {_tag_of(entry): entry.get("digest") for entry in _entries(index, shown)}
    if tag not in found:
        there = ", ".join(sorted(one for one in found if one)) or "none"
        raise TransferError(f"target {shown}: has no tag {tag}; its tags: {brief(there)}")
    if not is_digest(found[tag]):
        raise TransferError(f"target {shown}: index.json has no sha256 for {tag}")
    return str(found[tag])


def indexed(
    index: bytes | None, digest: str, size: int, tags: Sequence[str], *, shown: str
) -> bytes:
    """Return an `index.json` in which tags stand for a manifest; what else it has stays."""
    entries = [] if index is None else _entries(index, shown)
    kept = [entry for entry in entries if _tag_of(entry) not in tags]
    kept += [
        {"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "annotations": {TAG_NAME: tag}}
        for tag in tags
    ]
    whole = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": kept}
    return json.dumps(whole, indent=1).encode() + b"\n"


def _entries(index: bytes, shown: str) -> list[dict[str, Any]]:
    try:
        if len(index) > MOST_TOLD_BYTES:
            raise ValueError("too long")
        entries = parse_json(index)["manifests"]
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ValueError("no list")
    except (ValueError, TypeError, KeyError) as error:
        raise TransferError(f"target {shown}: its index.json is none of an OCI layout") from error
    return entries


def _tag_of(entry: Mapping[str, Any]) -> str:
    annotations = entry.get("annotations")
    tag = annotations.get(TAG_NAME, "") if isinstance(annotations, dict) else ""
    return tag if isinstance(tag, str) else ""


def _append(
    host: WebHost, ask: Callable[..., Answer], target: str, size: int, file: BinaryIO
) -> None:
    """Fetch what a file lacks of a blob, in pieces; from the start where no part can be had."""
    while (offset := file.tell()) < size:
        end = min(offset + PIECE_BYTES, size)
        whole = offset == 0 and end == size

        def into(status: int, headers: Mapping[str, str], offset: int = offset) -> BinaryIO | None:
            if status == 206 and headers.get("content-range", "").startswith(f"bytes {offset}-"):
                return file
            if status != 200:
                return None
            file.seek(0)  # a server that knows no ranges begins again
            file.truncate()
            return file

        ranged = {} if whole else {"Range": f"bytes={offset}-{end - 1}"}
        answer = ask("GET", target, headers=ranged, most_bytes=size, into=into)
        if answer.status == 416:  # it is shorter than it should be
            return
        host.check(answer, 200, 206)
        if file.tell() <= offset or answer.status == 200:
            return


class _Web:
    """A web server that serves an image layout; one that takes PUT can be pushed to."""

    def __init__(self, url: Url) -> None:
        self._host = _host(url, tls=url.scheme == "https")
        self._base = quote(url.path.rstrip("/"), safe=_SAFE)

    @property
    def shown(self) -> str:
        return self._host.shown

    def _asked(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 - what `WebHost.ask` takes
    ) -> Answer:
        return self._host.ask(
            method, target, headers={**self._host.login, **(headers or {})}, **more
        )

    def _get(self, place: str, **more: Any) -> Answer:  # noqa: ANN401
        return self._asked("GET", f"{self._base}/{place}", **more)

    def find(self, tag: str, *, known: str | None = None) -> Tagged | None:
        answer = self._get("index.json", headers={} if known is None else {"If-None-Match": known})
        if answer.status == 304:
            return None
        self._host.check(answer, 200)
        digest = tagged_in(answer.body, tag, shown=self.shown)
        manifest = self._get(_place(digest))
        self._host.check(manifest, 200)
        return Tagged(digest, manifest.body, answer.headers.get("etag"))

    def read(self, digest: str, size: int, file: BinaryIO) -> None:
        _append(self._host, self._asked, f"{self._base}/{_place(digest)}", size, file)

    def has(self, digest: str, size: int) -> bool:
        return self._asked("HEAD", f"{self._base}/{_place(digest)}").tells_of(size)

    def write(self, digest: str, content: BinaryIO) -> None:
        self._put(_place(digest), content)

    def tag(self, content: bytes, tags: Sequence[str]) -> str:
        digest = digest_of(content)
        before = self._get("index.json")
        self._host.check(before, 200, 404)
        there = before.body if before.status == 200 else None
        index = indexed(there, digest, len(content), tags, shown=self.shown)
        self._put("oci-layout", LAYOUT)
        self._put(_place(digest), content)
        etag = before.headers.get("etag")  # a server that knows it refuses where another was first
        held = {} if there is None or etag is None else {"If-Match": etag}
        self._put("index.json", index, headers=held)
        return digest

    def _put(self, place: str, body: bytes | BinaryIO, **more: Any) -> None:  # noqa: ANN401
        answer = self._asked("PUT", f"{self._base}/{place}", body=body, **more)
        if answer.status in (405, 501):
            raise InputError(
                f"target {self.shown}: takes no PUT ({answer.status}): push to the folder that it "
                "serves"
            )
        if answer.status == 412:
            raise self._host.failed("somebody else has pushed meanwhile: push again")
        self._host.check(answer, 200, 201, 204)

    def close(self) -> None:
        self._host.close()


def _host(url: Url, *, tls: bool) -> WebHost:
    return WebHost(url, what="target", tls=tls, login=os.environ.get(LOGIN), pause_s=PAUSE_S)


class _Registry:
    """A repository of an OCI registry; only on this machine without TLS."""

    def __init__(self, url: Url) -> None:
        name = url.path.strip("/")
        if _NAME.fullmatch(name) is None:
            raise InputError(
                f"target {url.shown()}: a repository's name is of small letters, digits, . _ - /"
            )
        self._base = f"/v2/{name}"
        self._tls = not is_loopback(url.host)
        self._host = _host(url, tls=self._tls)
        self._authorization: dict[str, str] = {}

    @property
    def shown(self) -> str:
        return self._host.shown

    def _asked(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 - what `WebHost.ask` takes
    ) -> Answer:
        """Ask; where it wants to know who asks, get what it takes for that, and ask again."""
        given, host = headers or {}, self._host
        answer = host.ask(method, target, headers={**self._authorization, **given}, **more)
        if answer.status == 401 and self._authorize(answer.headers.get("www-authenticate", "")):
            answer = host.ask(method, target, headers={**self._authorization, **given}, **more)
        return self._followed(answer, given, more) if method == "GET" else answer

    def _followed(
        self, answer: Answer, headers: Mapping[str, str], more: Mapping[str, Any]
    ) -> Answer:
        """Fetch a blob from where the registry keeps it, which is not told who asks."""
        for _ in range(_REDIRECTS):
            place = answer.headers.get("location", "")
            if answer.status not in (301, 302, 303, 307, 308) or not place:
                break
            url = self._url(place)
            if url.scheme != "https" and not is_loopback(url.host):
                break
            host = WebHost(url, what="target", tls=url.scheme == "https", pause_s=PAUSE_S)
            try:
                answer = host.ask("GET", _path(url, url.query), headers=headers, **more)
            finally:
                host.close()
        return answer

    def _url(self, place: str) -> Url:
        """Return an address that an answer names, perhaps without its host."""
        own = self._host.url
        host = f"[{own.host}]" if ":" in own.host else own.host
        port = "" if own.port is None else f":{own.port}"
        full = urljoin(f"{'https' if self._tls else 'http'}://{host}{port}/", place)
        return Url.parse(full, what=f"target {self.shown}", form="it names another")

    def _authorize(self, wanted: str) -> bool:
        """Find what a registry wants of those who ask; tell whether there is anything."""
        kind, _, rest = wanted.partition(" ")
        if kind.lower() == "basic":
            self._authorization = dict(self._host.login)
            return bool(self._authorization)
        if kind.lower() != "bearer":
            return False
        said = challenge_of(rest)
        if "realm" not in said:
            return False
        realm = self._url(said["realm"])
        if realm.scheme != "https" and not is_loopback(realm.host):
            return False
        asked = urlencode([(key, said[key]) for key in ("service", "scope") if key in said])
        host = _host(realm, tls=realm.scheme == "https")
        try:
            query = "&".join(part for part in (realm.query, asked) if part)
            answer = host.ask("GET", _path(realm, query), headers=self._host.login)
            host.check(answer, 200)
            told = parse_json(answer.body)
            token = str(told.get("token") or told["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise host.failed("gives no token") from error
        finally:
            host.close()
        self._authorization = {"Authorization": f"Bearer {token}"}
        return token.isascii() and token.isprintable()

    def find(self, tag: str, *, known: str | None = None) -> Tagged | None:
        place, accept = f"{self._base}/manifests/{tag}", {"Accept": MANIFEST_TYPE}
        if known is not None:
            told = self._asked("HEAD", place, headers=accept)
            if told.headers.get("docker-content-digest") == known:
                return None
        answer = self._asked("GET", place, headers=accept)
        if answer.status == 404:
            raise self._host.failed(f"has no tag {tag}")
        self._host.check(answer, 200)
        digest = digest_of(answer.body)
        return Tagged(digest, answer.body, digest)

    def read(self, digest: str, size: int, file: BinaryIO) -> None:
        _append(self._host, self._asked, f"{self._base}/blobs/{digest}", size, file)

    def has(self, digest: str, size: int) -> bool:
        return self._asked("HEAD", f"{self._base}/blobs/{digest}").tells_of(size)

    def write(self, digest: str, content: BinaryIO) -> None:
        answer = self._asked("POST", f"{self._base}/blobs/uploads/")
        self._host.check(answer, 202)
        url = self._url(answer.headers.get("location", ""))
        if (url.host, url.port) != (self._host.url.host, self._host.url.port):
            raise self._host.failed("wants its blobs sent to another host")
        query = "&".join(part for part in (url.query, urlencode({"digest": digest})) if part)
        kind = {"Content-Type": "application/octet-stream"}
        sent = self._asked("PUT", _path(url, query), headers=kind, body=content)
        self._host.check(sent, 201, 204)

    def tag(self, content: bytes, tags: Sequence[str]) -> str:
        kind = {"Content-Type": MANIFEST_TYPE}
        for tag in tags:
            place = f"{self._base}/manifests/{tag}"
            self._host.check(self._asked("PUT", place, headers=kind, body=content), 201)
        return digest_of(content)

    def close(self) -> None:
        self._host.close()


def _path(url: Url, query: str) -> str:
    path = quote(url.path or "/", safe=_SAFE)
    return f"{path}?{query}" if query else path
