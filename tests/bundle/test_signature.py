"""Signed bundles: what is taken, and each way in which one is refused."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.colours import NAMES
from tests.command import spawned
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.bundle.signature import SIGNATURE, TRUSTED_KEYS, Trust
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.errors import BundleError, InputError, TinySaverError

pytest.importorskip("cryptography")

from tinysaver_edge.bundle.signing import make_key, sign_bundle

WHEN = datetime(2026, 11, 28, 5, 30, tzinfo=timezone.utc)


class Release:
    """A signed bundle, its key, and the folder of keys that devices trust."""

    def __init__(self, folder: Path, pristine: Path) -> None:
        self.folder = folder
        self.bundle = Path(shutil.copytree(pristine, folder / "belt"))
        self.key = folder / "release.pem"
        public, self.key_name = make_key(self.key)
        self.trusted = folder / "trusted"
        self.trusted.mkdir()
        public.rename(self.trusted / public.name)

    def sign(self, **settings: object) -> None:
        sign_bundle(self.bundle, [self.key], **{"name": "belt", "version": 7, **settings})

    def load(self, trusted: object = None) -> Bundle:
        return Bundle.load(self.bundle, trusted=trusted or self.trusted)

    def change_manifest(self, change) -> None:
        content = json.loads((self.bundle / MANIFEST).read_text())
        change(content)
        (self.bundle / MANIFEST).write_text(json.dumps(content))

    def change_signature(self, change) -> None:
        content = json.loads((self.bundle / SIGNATURE).read_text())
        change(content)
        (self.bundle / SIGNATURE).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("pristine") / "bundle")


@pytest.fixture
def release(tmp_path, pristine):
    return Release(tmp_path, pristine)


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent).as_posix())
    return path


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_signed_bundle_is_taken_and_says_who_signed_it(release, kind, tmp_path):
    sign_bundle(release.bundle, [release.key], name="belt", at=WHEN)
    path = release.bundle if kind == "folder" else zipped(release.bundle, tmp_path / "belt.zip")
    with Bundle.load(path, trusted=release.trusted) as bundle:
        assert bundle.signed is not None
        assert bundle.signed.version == 20261128053000
        assert bundle.signed.manifest_sha256 == sha256_of(release.bundle / MANIFEST)
        assert str(bundle.signed) == (
            f"belt, version 20261128053000, signed 2026-11-28T05:30:00Z by {release.key_name}"
        )
    with Bundle.load(path) as bundle:  # nobody asked
        assert bundle.signed is None
    with Cascade.load(path, trusted=release.trusted):
        pass


def test_an_unsigned_one_is_refused(release):
    with pytest.raises(BundleError, match="is not signed"):
        release.load()


def test_a_changed_manifest_is_refused_with_or_without_its_hashes_made_anew(release):
    release.sign()
    release.change_manifest(lambda content: content["stages"][0].update(threshold=0.01))
    with pytest.raises(BundleError, match="not the one that was signed"):
        release.load()


def test_a_swapped_model_is_refused(release):
    release.sign()
    model = next((release.bundle / "models").iterdir())
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="its hash differs"):
        release.load()


@pytest.mark.parametrize("part", ["signature", "statement"])
def test_a_forged_signature_is_refused(release, part):
    release.sign()

    def forge(content):
        if part == "statement":
            content["statement"] = content["statement"].replace('"version": 7', '"version": 8')
        else:
            value = content["signatures"][release.key_name]
            content["signatures"][release.key_name] = ("B" if value[0] == "A" else "A") + value[1:]

    release.change_signature(forge)
    with pytest.raises(BundleError, match=f"signature by {release.key_name} is forged"):
        release.load()


def test_the_signature_of_another_key_is_refused_under_the_trusted_name_too(release, tmp_path):
    _, other = make_key(tmp_path / "other.pem")
    sign_bundle(release.bundle, [tmp_path / "other.pem"], name="belt")
    with pytest.raises(BundleError, match=f"signed by {other}, and none of these keys is in"):
        release.load()

    def renamed(content):
        content["signatures"] = {release.key_name: content["signatures"][other]}

    release.change_signature(renamed)
    with pytest.raises(BundleError, match="forged"):
        release.load()


def test_another_bundles_signature_is_refused(release, pristine, tmp_path):
    release.sign()
    other = Path(shutil.copytree(pristine, tmp_path / "other"))
    content = json.loads((other / MANIFEST).read_text())
    (other / MANIFEST).write_text(json.dumps(content))
    shutil.copy(release.bundle / SIGNATURE, other / SIGNATURE)
    with pytest.raises(BundleError, match="another bundle's"):
        Bundle.load(other, trusted=release.trusted)


def test_an_older_one_sent_again_and_one_of_another_name_are_refused(release):
    release.sign()
    release.load(Trust(release.trusted, name="belt", least_version=7)).close()
    with pytest.raises(BundleError, match="is version 7, older than version 8"):
        release.load(Trust(release.trusted, least_version=8))
    with pytest.raises(BundleError, match="signed as 'belt', and 'door' is wanted"):
        release.load(Trust(release.trusted, name="door"))


def test_keys_change_without_a_gap(release, tmp_path):
    public, new = make_key(tmp_path / "new.pem")
    sign_bundle(release.bundle, [release.key, tmp_path / "new.pem"], name="belt")
    with release.load() as bundle:
        assert bundle.signed.keys == (release.key_name,)
    shutil.copy(public, release.trusted)
    with release.load() as bundle:
        assert set(bundle.signed.keys) == {release.key_name, new}
    (release.trusted / "release.pub.pem").unlink()
    with release.load() as bundle:
        assert bundle.signed.keys == (new,)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"statement": 1, "signatures": {"a": "AA=="}}', b"\xff\xfe", b"[" * 60000,
     b'{"statement": "{}", "signatures": {}}', b'{"statement": "x", "signatures": {"a": "?"}}',
     b'{"statement": "x", "signatures": {"a": 3}}', b" " * (1 << 17), b'{"signatures": null}'],
)  # fmt: skip
def test_a_damaged_signature_file_is_one_line(release, content):
    (release.bundle / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.sig\.json is damaged"):
        release.load()


def test_what_is_no_folder_of_public_keys_is_told(release, tmp_path):
    release.sign()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no bundle could be trusted"):
        release.load(empty)
    with pytest.raises(InputError, match=r"trusted keys .*nowhere: No such file"):
        release.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="private key, which signs and belongs on no device"):
        release.load(release.key)
    (empty / "a.pem").write_text("nothing")
    with pytest.raises(InputError, match="is no public key in PEM form"):
        release.load(empty)


def test_a_device_that_is_set_to_need_signatures_refuses_all_else(release, monkeypatch):
    monkeypatch.setenv(TRUSTED_KEYS, str(release.trusted))
    with pytest.raises(BundleError, match="is not signed"):
        Cascade.load(release.bundle)
    release.sign()
    Cascade.load(release.bundle).close()


def test_signing_refuses_what_is_damaged_and_keys_that_are_none(release, tmp_path):
    with pytest.raises(InputError, match="is the public key"):
        sign_bundle(release.bundle, [release.trusted / "release.pub.pem"], name="belt")
    with pytest.raises(InputError, match="cannot be read"):
        sign_bundle(release.bundle, [tmp_path / "none.pem"], name="belt")
    with pytest.raises(BundleError, match="only a folder"):
        sign_bundle(zipped(release.bundle, tmp_path / "a.zip"), [release.key], name="belt")
    with pytest.raises(InputError, match="version -1"):
        sign_bundle(release.bundle, [release.key], name="belt", version=-1)
    next((release.bundle / "models").iterdir()).unlink()
    with pytest.raises(BundleError, match="is missing"):
        release.sign()


def test_a_key_is_its_owners_alone_never_replaced_and_may_have_a_password(release, tmp_path):
    assert stat.S_IMODE(release.key.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="is there already"):
        make_key(release.key)
    (tmp_path / "half.pub.pem").write_text("signed what is in the field")
    with pytest.raises(InputError, match="is there already"):
        make_key(tmp_path / "half.pem")
    assert not (tmp_path / "half.pem").exists()
    locked = tmp_path / "locked.pem"
    make_key(locked, password="correct horse")
    with pytest.raises(InputError, match="has a password, and none was given"):
        sign_bundle(release.bundle, [locked], name="belt")
    with pytest.raises(InputError, match="its password is another"):
        sign_bundle(release.bundle, [locked], name="belt", password=lambda path: "wrong")
    sign_bundle(release.bundle, [locked], name="belt", password=lambda path: "correct horse")


def test_openssl_makes_keys_that_sign(release, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    key = tmp_path / "openssl.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, timeout=60
    )
    public = release.trusted / "openssl.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, timeout=60
    )
    sign_bundle(release.bundle, [key], name="belt")
    release.load().close()


def test_without_the_package_the_command_that_installs_it_is_told(release, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(TinySaverError, match=r"pip install .*\[signed\]"):
        release.load()


def test_naming_the_classes_takes_the_signature_away(release):
    release.sign()
    release.change_manifest(lambda content: content.update(labels=None))
    names = release.folder / "names.txt"
    names.write_text("\n".join(NAMES))
    done = spawned("bundle", "labels", release.bundle, names)
    assert done.code == 0, done.err
    assert not (release.bundle / SIGNATURE).exists()


def test_the_command_line_makes_a_key_signs_and_holds_devices_to_it(release, tmp_path):
    key, keys = tmp_path / "mine.pem", tmp_path / "keys"
    made = spawned("bundle", "key", key)
    assert made.code == 0, made.err
    keys.mkdir()
    (tmp_path / "mine.pub.pem").rename(keys / "mine.pub.pem")
    refused = spawned("verify", release.bundle, "--trusted", keys)
    assert refused.code == 2
    assert "is not signed" in refused.err
    signed = spawned("bundle", "sign", release.bundle, "--key", key, "--json")
    assert signed.code == 0, signed.err
    assert signed.json["name"] == "belt"
    checked = spawned("verify", release.bundle, "--trusted", keys)
    assert checked.code == 0, checked.err
    assert f"signed: belt, version {signed.json['version']}" in checked.err
    again = spawned("bundle", "key", key)
    assert again.code == 2
    assert "is there already; name another" in again.err
