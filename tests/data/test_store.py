"""Data that lies elsewhere, through fsspec: the same samples, and one line for what is wrong."""

from __future__ import annotations

import http.server
import pickle
import socket
import tarfile
import threading
import time
from functools import partial
from urllib.request import Request, urlopen

import pytest

from tests.data.test_shards import parquet, samples, tar
from tests.pictures import class_folders, encoded
from tinysaver_edge.data import store
from tinysaver_edge.data.files import names_labels, open_data
from tinysaver_edge.data.store import DataPlace, RemoteStore, suffix_of
from tinysaver_edge.errors import DataError, MissingDependencyError

fsspec = pytest.importorskip("fsspec", reason="no fsspec: pip install 'tinysaver-edge[cloud]'")


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "images", classes=["cat", "dog"], each=12)


def shown(path):
    with open_data(path) as data:
        assert all(data.frame(index) is not None for index in range(len(data)))
        return [(one.file, one.label, data.read(i)) for i, one in enumerate(data.samples)]


def test_a_folder_elsewhere_is_what_it_is_here(memory, folder):
    memory.put(str(folder), "/bucket/images", recursive=True)
    assert shown("memory://bucket/images") == shown(folder)
    assert names_labels("memory://bucket/images")


def test_archives_tables_and_shards_elsewhere(memory, folder, tmp_path):
    import shutil

    archive = shutil.make_archive(str(tmp_path / "all"), "zip", folder)
    memory.put(archive, "/bucket/all.zip")
    assert shown("memory://bucket/all.zip") == shown(tmp_path / "all.zip")
    memory.put(str(folder), "/bucket/images", recursive=True)
    memory.pipe_file("/bucket/t.csv", b"file,label\nimages/cat/0003.png,7\n")
    ((_, label, content),) = shown("memory://bucket/t.csv")
    assert (label, content) == ("7", (folder / "cat/0003.png").read_bytes())
    here = tmp_path / "t.csv"
    here.write_text("file,label\nmemory://bucket/images/cat/0003.png,7\nimages/cat/0001.png,8\n")
    assert [one[1] for one in shown(here)] == ["7", "8"]
    memory.put(str(tar(tmp_path / "s-0.tar", samples(0, 5))), "/bucket/shards/s-0.tar")
    wanted = [one[1:] for one in shown(tmp_path / "s-0.tar")]
    for path in ("memory://bucket/shards", "memory://bucket/shards/s-{0..0}.tar"):
        assert [one[1:] for one in shown(path)] == wanted


@pytest.fixture
def gs(monkeypatch):
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # there is no gRPC
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="no emulator: make test-clouds tries Google's"
    )
    pytest.importorskip("gcsfs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="factory")
    server.start()
    told = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
    monkeypatch.setitem(fsspec.config.conf, "gs", told)
    yield fsspec.filesystem("gs", skip_instance_cache=True)
    server.stop()


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """Moto's server, found and logged in to by the variables that a user of MinIO sets."""
    moto = pytest.importorskip("moto.server", reason="no moto: make test-clouds tries Amazon's")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("factory")
    yield system
    server.stop()
    type(system).clear_instance_cache()


@pytest.fixture(params=["gs", "s3"])
def cloud(request):
    """A bucket called factory, and the beginning of its URL."""
    return request.param, request.getfixturevalue(request.param)


def test_a_bucket_of_a_cloud_is_what_a_folder_is(cloud, folder, tmp_path):
    scheme, system = cloud
    for file in folder.rglob("*.png"):
        path = f"factory/images/{file.relative_to(folder).as_posix()}"
        system.pipe_file(path, file.read_bytes())
    url = f"{scheme}://factory"
    assert shown(f"{url}/images") == shown(folder)
    shard = tar(tmp_path / "s-0.tar", samples(0, 5))
    system.pipe_file("factory/shards/s-0.tar", shard.read_bytes())
    assert shown(f"{url}/shards/s-{{0..0}}.tar") == shown(shard)
    table = parquet(tmp_path / "a.parquet", [(encoded(seed), str(seed % 2)) for seed in range(5)])
    system.pipe_file("factory/tables/a.parquet", table.read_bytes())
    assert shown(f"{url}/tables/*.parquet") == shown(table)
    with open_data(f"{url}/images") as data:
        first = data.fingerprint()
        assert pickle.loads(pickle.dumps(data)).read(3) == data.read(3)
    system.pipe_file("factory/images/cat/0003.png", b"another")
    with open_data(f"{url}/images") as data:
        assert data.fingerprint() != first
    with pytest.raises(DataError, match=f"{url}/nothing: there is nothing there"):
        open_data(f"{url}/nothing")


def test_a_bucket_without_a_login_says_which_one_it_takes(s3, monkeypatch, tmp_path):
    s3.pipe_file("factory/images/cat/1.png", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    type(s3).clear_instance_cache()
    with pytest.raises(DataError, match=r"redentials.*set AWS_ACCESS_KEY_ID .* AWS_PROFILE"):
        open_data("s3://factory/images")
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})  # as fsspec reads it at import
    type(s3).clear_instance_cache()
    with open_data("s3://factory/images") as data:
        assert len(data) == 1


def test_the_fingerprint_follows_the_content(memory):
    for name in range(20):
        memory.pipe_file(f"/b/cat/{name}.png", b"x")
    with open_data("memory://b") as data:
        first = data.fingerprint()
        assert data.fingerprint() == first
        assert pickle.loads(pickle.dumps(data)).read(3) == b"x"
    memory.pipe_file("/b/cat/7.png", b"xy")
    with open_data("memory://b") as data:
        assert data.fingerprint() != first


def test_a_store_that_does_not_answer_ends_it_and_leaves_nothing_out(memory, monkeypatch):
    memory.pipe_file("/b/cat/1.png", b"x")
    with open_data("memory://b") as data:
        for error in (TimeoutError("too slow"), PermissionError("Access Denied")):

            def fail(*_, error=error, **__):
                raise error

            monkeypatch.setattr(type(memory), "cat_file", fail)
            with pytest.raises(DataError, match=f"memory://b/cat/1.png: cannot be read .{error}"):
                data.frame(0)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("memory://nothing/here", "there is nothing there"),
        ("memory://nothing/a.csv", "no such file"),
        ("memory://nothing/a.zip", "no such file"),
        ("memory://nothing/a.tar", "there is no a.tar"),
        ("nowhere://bucket/images", "nowhere"),
        ("https://host/images/", "cannot be listed"),
        ("http://127.0.0.1:9/a.tar", "cannot be read"),
    ],
)
def test_what_is_not_there_is_one_line(path, line):
    with pytest.raises(DataError, match=line):
        open_data(path)


def test_what_reads_a_store_and_is_missing_is_named(monkeypatch):
    def missing(protocol):
        raise ImportError("Install s3fs to access S3", name="s3fs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(MissingDependencyError, match=r"needs s3fs.*\[cloud\]"):
        open_data("s3://bucket/images")


def test_urls_and_paths_are_told_apart(tmp_path):
    assert DataPlace.of("s3://bucket/a") == "s3://bucket/a"
    assert DataPlace.of("images", tmp_path) == tmp_path / "images"
    assert DataPlace.of(f"file://{tmp_path}", tmp_path / "x") == tmp_path


def test_over_http(folder, tmp_path):
    pytest.importorskip("aiohttp", reason="no aiohttp: pip install 'tinysaver-edge[cloud]'")
    (tmp_path / "t.csv").write_text("file,label\nimages/cat/0003.png,7\nimages/dog/0001.png,8\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def send_head(self):
            if self.path.startswith("/private"):
                return self.send_error(403)
            return super().send_head()

    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(folder, arcname=".")
    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert [one[1:] for one in shown(f"{url}/t.csv")] == [
            one[1:] for one in shown(tmp_path / "t.csv")
        ]
        with open_data(f"{url}/t.csv") as data:
            assert data.fingerprint() == data.fingerprint()
        with pytest.raises(DataError, match=r"a\.tar: cannot be read \(403.*let you in"):
            open_data(f"{url}/private/a.tar")
        # Python's server sends all of a file, whatever part is asked for.
        with open_data(f"{url}/t.tar") as data, pytest.raises(DataError, match="HTTP's Range"):
            data.frame(0)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ["s3://me:Kr4nich@bucket/x.zip", "gs://Kr4nich@bucket/x/"])
def test_keys_in_the_address_of_a_bucket_are_refused(address):
    with pytest.raises(DataError, match="an address there holds no keys: ") as caught:
        RemoteStore(address)
    assert "Kr4nich" not in str(caught.value)


def test_an_address_that_was_signed_ends_as_its_file_does(tmp_path):
    assert suffix_of("https://host/a/b.ZIP?X-Amz-Signature=a%2Fb.c") == ".zip"
    assert suffix_of(tmp_path / "a?b.zip") == ".zip"


def test_what_an_address_alone_does_not_reach_is_told_so():
    with pytest.raises(DataError, match="ftp:// is not reached by an address alone"):
        RemoteStore("ftp://host/x")


def test_samples_of_a_table_are_called_without_the_logins_of_their_addresses(tmp_path):
    address = "https://me:Kr4nich@host/a.png?sig=Kr4nich"
    (tmp_path / "t.csv").write_text(f"file,label\n{address},cat\nb.png,dog\n")
    with open_data(tmp_path / "t.csv") as data:
        assert [one.file for one in data.samples] == ["https://…@host/a.png?sig=***", "b.png"]
        assert data._name(0) == address


def test_a_web_server_that_says_nothing_is_not_waited_for_long(monkeypatch):
    pytest.importorskip("aiohttp", reason="no aiohttp: pip install 'tinysaver-edge[cloud]'")
    monkeypatch.setattr(store, "SILENT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip?{time.monotonic_ns()}"
        started_s = time.monotonic()
        with pytest.raises(DataError):
            open_data(address)
        assert time.monotonic() - started_s < 30
