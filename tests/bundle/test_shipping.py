"""Push and pull: folder, web server, registry; what breaks off, and what is not taken."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.bundle.servers import TokenRegistry, registry, serving
from tests.command import spawned
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.bundle import shipping
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.bundle.shipping import Pulled, parted, pull_bundle, push_bundle
from tinysaver_edge.bundle.signature import SIGNATURE, Trust
from tinysaver_edge.bundle.target import open_target
from tinysaver_edge.errors import BundleError, InputError, TransferError

pytest.importorskip("cryptography")

from tinysaver_edge.bundle.signing import make_key, sign_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("pristine") / "bundle")


@pytest.fixture
def belt(tmp_path, pristine) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "belt"))


class Keys:
    def __init__(self, folder: Path) -> None:
        self.private = folder / "release.pem"
        make_key(self.private)
        self.trusted = folder / "trusted"
        self.trusted.mkdir()
        shutil.move(folder / "release.pub.pem", self.trusted)

    def sign(self, bundle: Path, version: int, name: str = "belt") -> None:
        sign_bundle(bundle, [self.private], name=name, version=version)

    @property
    def trust(self) -> Trust:
        return Trust(self.trusted)


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path)


def push(bundle: Path, place: str | Path, tag: str | None = "stable"):
    with closing(open_target(str(place))) as target:
        return push_bundle(bundle, target, tag)


def pull(place: str | Path, folder: Path, tag: str = "stable", **settings) -> Pulled:
    with closing(open_target(str(place))) as target:
        return pull_bundle(target, tag, folder, sleep=lambda _: None, **settings)


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def blob_of(layout: Path, bundle: Path, name: str) -> Path:
    """Where a file of a bundle lies in a layout."""
    return layout / "blobs/sha256" / sha256_of(bundle / name)


LARGE = "models/large.onnx"


@pytest.mark.parametrize("kind", ["folder", "web", "registry"])
def test_what_was_pushed_is_pulled(kind, tmp_path, belt, keys):
    keys.sign(belt, 7)
    (tmp_path / "www").mkdir()
    with serving(tmp_path / "www") as server, closing(_ExitLater()) as later:
        place = {"folder": tmp_path / "shelf", "web": f"{server.url}/belt"}.get(kind)
        if kind == "registry":
            place = f"oci://{later.enter(registry(tmp_path))}/factory/belt"
        first = push(belt, place)
        assert first.tags == ("7", "stable")
        assert first.there_bytes == 0
        again = push(belt, place, "canary")
        assert again.digest == first.digest
        assert again.sent_bytes == 0
        pulled = pull(place, tmp_path / "device", trust=keys.trust)
        assert content(tmp_path / "device") == content(belt)
        assert pulled.signed.version == 7
        assert pulled.changed
        assert not list(tmp_path.glob(".device*"))
        assert not pull(place, tmp_path / "device", "canary", trust=keys.trust).changed
        keys.sign(belt, 8)
        push(belt, place)
        newer = pull(place, tmp_path / "device", trust=keys.trust)
        assert newer.signed.version == 8
        assert newer.kept_bytes > 10 * newer.fetched_bytes / 9
        with closing(open_target(str(place))) as target:
            known = target.find("stable")
            assert target.find("stable", known=known.etag) is None
            assert target.find("7", known=known.etag if kind == "registry" else None) is not None
            with pytest.raises(TransferError, match="has no tag gamma"):
                target.find("gamma")


def test_oras_takes_what_is_pushed_and_what_it_pushes_is_taken(tmp_path, belt, keys, monkeypatch):
    """Another client of the same layout; it calls a file by its name without the folder."""
    oras = pytest.importorskip("oras.client", reason="no oras: make test-clouds tries it")
    keys.sign(belt, 7)
    with registry(tmp_path) as host:
        push(belt, f"oci://{host}/factory/belt")
        client = oras.OrasClient(hostname=host, insecure=True)
        assert set(client.get_tags(f"{host}/factory/belt")) == {"7", "stable"}
        client.pull(target=f"{host}/factory/belt:stable", outdir=str(tmp_path / "theirs"))
        assert content(tmp_path / "theirs") == content(belt)
        monkeypatch.chdir(belt)
        client.push(target=f"{host}/factory/theirs:stable", files=sorted(content(belt)))
        pull(f"oci://{host}/factory/theirs", tmp_path / "ours", trust=keys.trust)
    assert content(tmp_path / "ours") == content(belt)


def test_skopeo_carries_a_bundle_from_a_folder_to_a_registry(tmp_path, belt, keys):
    """A client of registries that knows OCI layouts, of others than us: promotion without us."""
    skopeo = shutil.which("skopeo") or pytest.skip("no skopeo: on Debian apt-get install skopeo")
    keys.sign(belt, 7)
    push(belt, tmp_path / "shelf")
    with registry(tmp_path) as host:
        words = (skopeo, "copy", "--insecure-policy", "--dest-tls-verify=false")
        places = (f"oci:{tmp_path / 'shelf'}:stable", f"docker://{host}/factory/belt:stable")
        subprocess.run([*words, *places], check=True, capture_output=True, timeout=60)
        pull(f"oci://{host}/factory/belt", tmp_path / "device", trust=keys.trust)
    assert content(tmp_path / "device") == content(belt)


class _ExitLater:
    def __init__(self) -> None:
        self._entered = []

    def enter(self, context):
        self._entered.append(context)
        return context.__enter__()

    def close(self) -> None:
        for one in self._entered:
            one.__exit__(None, None, None)


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(tmp_path, belt, pristine):
    push(belt, tmp_path / "shelf")
    with serving(tmp_path / "shelf") as server:
        server.hang_up_after, server.cut = 200, sha256_of(belt / LARGE)
        pull(server.url, tmp_path / "device")
        asked = [ranged for _, path, ranged in server.asked if sha256_of(belt / LARGE) in path]
        assert asked[0] is None
        assert [one.split("-")[0] for one in asked[1:]] == [
            f"bytes={start}" for start in range(200, (belt / LARGE).stat().st_size, 200)
        ]
    assert content(tmp_path / "device") == content(belt)


def test_a_server_without_ranges_begins_again(tmp_path, belt, monkeypatch):
    push(belt, tmp_path / "shelf")
    with serving(tmp_path / "shelf", ranges=False) as server:
        server.hang_up_after, server.cut = 200, sha256_of(belt / LARGE)
        threading.Timer(0.2, setattr, (server, "hang_up_after", None)).start()
        with closing(open_target(server.url)) as target:
            pull_bundle(target, "stable", tmp_path / "device", sleep=lambda _: time.sleep(0.15))
    assert content(tmp_path / "device") == content(belt)


def test_a_server_that_dies_leaves_the_old_one_and_what_came_is_used_later(tmp_path, belt):
    shelf, device = tmp_path / "shelf", tmp_path / "device"
    push(belt, shelf)
    pull(shelf, device)
    before = content(device)
    change_model(belt, (belt / LARGE).read_bytes() + b"\x3a\x00" * 1000)
    push(belt, shelf)
    with serving(shelf) as server:
        server.hang_up_after, server.cut = 1500, sha256_of(belt / LARGE)

        def die(_):
            server.dead = True

        with closing(open_target(server.url)) as target, pytest.raises(TransferError, match="ends"):
            pull_bundle(target, "stable", device, sleep=die)
        assert content(device) == before
        left = sum(path.stat().st_size for path in (tmp_path / ".device.pull").iterdir())
        assert left >= 1500
        server.dead, server.hang_up_after = False, None
        del server.asked[:]
        pull(server.url, device)
        again = [ranged for _, path, ranged in server.asked if server.cut in path]
        assert [one.split("-")[0] for one in again] == ["bytes=1500"]
    assert content(device) == content(belt)
    assert not list(tmp_path.glob(".device*"))


def change_model(bundle: Path, data: bytes) -> None:
    """Exchange the large model and have the manifest fit it, as a forger would."""
    (bundle / LARGE).write_bytes(data)
    told = json.loads((bundle / MANIFEST).read_text())
    file = told["stages"][-1]["model"]["files"][0]
    file.update(sha256=sha256_of(bundle / LARGE), size_bytes=len(data))
    (bundle / MANIFEST).write_text(json.dumps(told))


def older(layout, belt, keys):
    keys.sign(belt, 6)
    push(belt, layout)
    return "is version 6, older than version 7"


def retagged(layout, belt, keys):
    keys.sign(belt, 9, name="door")
    push(belt, layout)
    return "was signed as 'door', and 'belt' is wanted"


def forged(layout, belt, keys):
    said = json.loads((belt / SIGNATURE).read_text())
    said["statement"] = said["statement"].replace('"version": 7', '"version": 9')
    (belt / SIGNATURE).write_text(json.dumps(said))
    push(belt, layout)
    return "is forged or damaged"


def rehashed(layout, belt, keys):
    change_model(belt, (belt / LARGE).read_bytes() + b"\x00")
    push(belt, layout)
    return "is not the one that was signed"


def unsigned(layout, belt, keys):
    (belt / SIGNATURE).unlink()
    push(belt, layout)
    return "is not signed"


def stranger(layout, belt, keys):
    (layout.parent / "other").mkdir()
    other = Keys(layout.parent / "other")
    other.sign(belt, 9)
    push(belt, layout)
    return "none of these keys is in"


def truncated(layout, belt, keys):
    keys.sign(belt, 8)
    change = (belt / LARGE).read_bytes() + b"\x3a\x00" * 100
    change_model(belt, change)
    keys.sign(belt, 8)
    push(belt, layout)
    blob = blob_of(layout, belt, LARGE)
    blob.write_bytes(change[:-50])
    return f"ends after {len(change) - 50} of {len(change)} bytes"


def exchanged(layout, belt, keys):
    change_model(belt, (belt / LARGE).read_bytes() + b"\x3a\x00" * 100)
    keys.sign(belt, 8)
    push(belt, layout)
    blob = blob_of(layout, belt, LARGE)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    return "that came is not what was pushed"


def swapped_list(layout, belt, keys):
    index = json.loads((layout / "index.json").read_text())
    blob = layout / "blobs/sha256" / index["manifests"][-1]["digest"].removeprefix("sha256:")
    blob.write_text(blob.read_text().replace("models/large", "models/other"))
    return "its list of files is not what its tag stands for"


def escaping(layout, belt, keys):
    told = json.loads((belt / MANIFEST).read_text())
    told["stages"][-1]["model"]["files"][0]["path"] = "../../evil"
    (belt / MANIFEST).write_text(json.dumps(told))
    with closing(open_target(str(layout))) as target:
        text = (belt / MANIFEST).read_bytes()
        for data in (text, b"{}"):
            target.write(shipping.digest_of(data), io.BytesIO(data))
        layers = [shipping._layer(MANIFEST, shipping.digest_of(text), len(text))]
        target.tag(shipping._oci_manifest(layers, None), ["stable"])
    return "is not signed"


@pytest.mark.parametrize(
    "spoil",
    [older, retagged, forged, rehashed, unsigned, stranger, truncated, exchanged, swapped_list,
     escaping],
    ids=lambda one: one.__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["folder", "web"])
def test_what_is_not_right_is_refused_in_its_own_words(spoil, kind, tmp_path, belt, keys):
    layout, device = tmp_path / "shelf", tmp_path / "device"
    keys.sign(belt, 7)
    push(belt, layout)
    pull(layout, device, trust=keys.trust)
    before = content(device)
    said = spoil(layout, belt, keys)
    with serving(layout) as server:
        place = layout if kind == "folder" else server.url
        with pytest.raises((BundleError, TransferError)) as refused:
            pull(place, device, trust=keys.trust)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert content(device) == before


@pytest.mark.parametrize("kind", ["folder", "web"])
@pytest.mark.parametrize("spoil", [truncated, exchanged], ids=lambda one: one.__name__)
def test_what_is_damaged_at_the_target_is_mended_by_another_push(spoil, kind, tmp_path, belt, keys):
    layout = tmp_path / "shelf"
    keys.sign(belt, 7)
    push(belt, layout)
    spoil(layout, belt, keys)
    with serving(layout) as server:
        place = layout if kind == "folder" else server.url
        if (kind, spoil) == ("web", exchanged):  # of the same length: a server tells no more
            assert push(belt, place).sent_bytes == 0
            with pytest.raises(BundleError, match=r"remove sha256:.* push the bundle again"):
                pull(place, tmp_path / "device", trust=keys.trust)
            return
        assert push(belt, place).sent_bytes == (belt / LARGE).stat().st_size
        assert pull(place, tmp_path / "device", trust=keys.trust).signed.version == 8


def test_room_is_wanted_for_what_is_still_to_come_only(tmp_path, belt, monkeypatch):
    push(belt, tmp_path / "shelf")
    large = (belt / LARGE).read_bytes()
    staging = tmp_path / ".device.pull"
    staging.mkdir()
    (staging / sha256_of(belt / LARGE)).write_bytes(large)
    files = [path for path in belt.rglob("*") if path.is_file() and path.name != MANIFEST]
    total = sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(tmp_path)._replace(free=total - len(large))
    monkeypatch.setattr(shipping.shutil, "disk_usage", lambda _: free)
    assert pull(tmp_path / "shelf", tmp_path / "device").changed
    with pytest.raises(TransferError, match=r"MB free, .* more: make room there"):
        pull(tmp_path / "shelf", tmp_path / "other")


def test_a_full_disk_is_called_so_at_once_and_not_laid_upon_the_target(tmp_path, belt, tiny_disk):
    push(belt, tmp_path / "shelf")
    room = shutil.disk_usage(tiny_disk).free
    (tiny_disk / "full").write_bytes(bytes(room))
    with pytest.raises(TransferError, match=r"/\.device\.pull: no room is left there"):
        pull(tmp_path / "shelf", tiny_disk / "device")


def test_without_keys_a_path_out_of_the_bundle_is_refused_all_the_same(tmp_path, belt, keys):
    escaping(tmp_path / "shelf", belt, keys)
    with pytest.raises(BundleError, match="path"):
        pull(tmp_path / "shelf", tmp_path / "device")
    assert not (tmp_path / "device").exists()
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", ["folder", "web"])
def test_who_moves_a_tag_back_is_told_that_devices_refuse_that(kind, tmp_path, belt, keys):
    """As after a clock was set back where bundles are signed."""
    (tmp_path / "shelf").mkdir()
    with serving(tmp_path / "shelf") as server:
        place = tmp_path / "shelf" if kind == "folder" else server.url
        for version, name, newer in ((7, "belt", None), (6, "belt", 7), (8, "belt", None),
                                     (5, "door", None)):  # fmt: skip
            keys.sign(belt, version, name=name)
            assert push(belt, place).newer == newer


def test_an_older_one_is_taken_by_hand(tmp_path, belt, keys):
    keys.sign(belt, 7)
    push(belt, tmp_path / "shelf")
    pull(tmp_path / "shelf", tmp_path / "device", trust=keys.trust)
    older(tmp_path / "shelf", belt, keys)
    pulled = pull(tmp_path / "shelf", tmp_path / "device", trust=keys.trust, allow_older=True)
    assert pulled.signed.version == 6


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("shelf", ("shelf", None)),
        ("/srv/belt:canary", ("/srv/belt", "canary")),
        ("oci://host/belt:1.2", ("oci://host/belt", "1.2")),
        ("oci://host:5000/belt", ("oci://host:5000/belt", None)),
        ("http://host:5000", ("http://host:5000", None)),
        ("http://host:5000/x:7", ("http://host:5000/x", "7")),
        ("http://user:pass@host/x:7", ("http://user:pass@host/x", "7")),
    ],
)
def test_target_and_tag_are_told_apart(text, parts):
    assert parted(text) == parts


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "http://user:secret@camera.example/x", "oci://host/Belt", "", "oci://h/a?b=1"],
)
def test_a_target_that_is_none_is_refused_without_its_password(text):
    with pytest.raises(InputError) as refused:
        open_target(text)
    assert "secret" not in str(refused.value)


def test_a_web_server_that_wants_a_login_gets_it(tmp_path, belt, monkeypatch):
    push(belt, tmp_path / "shelf")
    with serving(tmp_path / "shelf") as server:
        server.login = f"Basic {base64.b64encode(b'robot:secret').decode()}"
        with pytest.raises(TransferError, match="wants a user and password"):
            pull(server.url, tmp_path / "device")
        monkeypatch.setenv("TINYSAVER_TARGET_LOGIN", "robot:wrong")
        with pytest.raises(TransferError, match="does not accept the user"):
            pull(server.url, tmp_path / "device")
        monkeypatch.setenv("TINYSAVER_TARGET_LOGIN", "robot:secret")
        assert pull(server.url, tmp_path / "device").changed
        server.puts = False
        with pytest.raises(InputError, match="takes no PUT"):
            push(belt, server.url, "other")


def test_a_registry_that_wants_tokens_and_keeps_blobs_elsewhere(tmp_path, belt, monkeypatch):
    """The login goes to the realm alone, the token to the registry alone."""
    push(belt, tmp_path / "shelf")
    with serving(tmp_path / "shelf") as blobs:
        registry = TokenRegistry(tmp_path / "shelf", blobs.url)
        try:
            place = f"oci://127.0.0.1:{registry.server_address[1]}/belt"
            with pytest.raises(TransferError, match=r"wants a user and password \(401\)"):
                pull(place, tmp_path / "device")
            monkeypatch.setenv("TINYSAVER_TARGET_LOGIN", "robot:secret")
            pull(place, tmp_path / "device")
        finally:
            registry.shutdown()
            registry.server_close()
        assert blobs.asked
        assert set(blobs.authorizations) == {None}
    assert content(tmp_path / "device") == content(belt)


def test_the_commands(tmp_path, belt, keys, pristine):
    keys.sign(belt, 7)
    place = f"{tmp_path / 'shelf'}:stable"
    pushed = spawned("bundle", "push", belt, place, "--json")
    assert pushed.json["tags"] == ["7", "stable"]
    words = ("bundle", "pull", place, tmp_path / "device", "--trusted", keys.trusted, "--json")
    assert spawned(*words).json["version"] == 7
    older(tmp_path / "shelf", belt, keys)
    refused = spawned(*words)
    assert refused.code == 2
    assert "older than version 7" in refused.complaint
    assert spawned(*words, "--allow-older").json["version"] == 6
    for words in (
        ("push", tmp_path / "none", place),
        ("sign", tmp_path / "none", "--key", keys.private),
    ):
        assert spawned("bundle", *words).complaint.endswith("none: is not there")
    nothing = spawned("bundle", "push", pristine, tmp_path / "shelf")
    assert nothing.code == 2
    assert "push it to TARGET:TAG" in nothing.complaint


def test_a_kill_in_the_middle_leaves_a_whole_bundle(tmp_path, belt, keys):
    """The pull is killed at three moments; what lies there is the old one or the new one."""
    shelf, device = tmp_path / "shelf", tmp_path / "device"
    push(belt, shelf)
    pull(shelf, device)
    change_model(belt, (belt / LARGE).read_bytes() + b"\x3a\x00" * 50_000)
    push(belt, shelf)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tinysaver_edge.bundle.shipping import pull_bundle\n"
        "from tinysaver_edge.bundle.target import open_target\n"
        "import tinysaver_edge.bundle.manifest\n"
        "for tag in ['stable', 'old'] * 500:\n"
        "    pull_bundle(open_target(sys.argv[1]), tag, Path(sys.argv[2]))\n"
        "    print(tag, flush=True)\n"
    )
    with closing(open_target(str(shelf))) as target:
        push_bundle(Path(shutil.copytree(device, tmp_path / "before")), target, "old")
    whole = {sha256_of(device / LARGE), sha256_of(belt / LARGE)}
    for moment in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(shelf), str(device)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.004 * moment)
        process.kill()
        process.wait()
        process.stdout.close()
        with Bundle.load(device):
            assert sha256_of(device / LARGE) in whole
    pull(shelf, device)
    assert not list(tmp_path.glob(".device*"))
