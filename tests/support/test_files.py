import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinysaver_edge._support import files
from tinysaver_edge._support.files import (
    Seal,
    atomic_write,
    check_file_target,
    half_written,
    members_of,
    new_beside,
    open_regular,
    parse_json,
    parse_toml,
    read_arrays,
    read_file,
    read_text,
    sha256_of,
    write_text,
)
from tinysaver_edge.errors import InputError


def test_a_written_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("read", [parse_json, parse_toml])
def test_a_mark_of_an_editor_is_no_part_of_a_text(read):
    text = '{"a": 1}' if read is parse_json else "a = 1"
    assert read("\ufeff" + text) == {"a": 1}


def test_a_toml_that_is_too_long_is_not_read():
    with pytest.raises(ValueError, match="longer than 4 MiB"):
        parse_toml("a = 1\n" + 5 * (1 << 20) * " ")


@pytest.mark.parametrize("key", [".".join(50_000 * "a"), "[a" + 40 * " . 'a'" + "]\nb"])
def test_a_key_of_parts_without_end_is_not_read(key):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(f"{key} = 1")
    numbers = [index / 10 for index in range(1000)]
    assert parse_toml(f"a = {numbers}\nb = '{'.' * 100}' # {'.' * 100}")["a"] == numbers


READERS = [open_regular, read_file, read_text, read_arrays, sha256_of, Seal.of]


@pytest.mark.parametrize("read", READERS)
def test_nobody_waits_for_a_pipe_that_nobody_writes_into(read, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WRITER_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe"):
        read(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a folder, no file"):
        read(tmp_path)


def test_what_a_shell_writes_into_a_pipe_is_read():
    code = "import sys; from pathlib import Path; "
    code += "from tinysaver_edge._support.files import read_file, read_text; "
    code += "print(len(read_file(Path(sys.argv[1]))), read_text(Path(sys.argv[2])))"
    shell = (
        f"{sys.executable} -c '{code}' <(sleep 0.3; head -c 300000 /dev/zero) <(printf 'a\\r\\nb')"
    )
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == "300000 a\nb\n"


def test_a_device_without_end_is_not_read_into_memory():
    with pytest.raises(OSError, match="longer than 64 MiB"):
        read_file(Path("/dev/zero"))


def test_a_file_that_no_memory_holds_is_refused(tmp_path):
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="longer than 1024 MiB"):
        read_file(tmp_path / "sparse.json")


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, before, error):
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)

    def write_half():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == (before is not None)


def test_a_kill_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    program = f"""
        import os, signal
        from pathlib import Path
        from tinysaver_edge._support.files import atomic_write
        with atomic_write(Path({str(path)!r})) as file:
            file.write(b"half" * 100_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_text_is_utf8_and_replaces_the_old(tmp_path):
    path = tmp_path / "text"
    write_text(path, "α\n")
    write_text(path, "κ + p\n")
    assert path.read_bytes() == "κ + p\n".encode()


def test_hash_of_more_than_one_block(tmp_path):
    path = tmp_path / "big"
    content = os.urandom((1 << 20) + 17)
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_only_what_a_kill_left_half_written_is_ours(tmp_path):
    assert half_written(new_beside(tmp_path / "a.b.png").name) == "a.b.png"
    for name in (".git", ".env", ".DS_Store", "a.0123456789ab", ".a.0123456789AB", ".0123456789ab"):
        assert half_written(name) is None


@pytest.mark.parametrize(
    ("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")]
)
def test_what_unpacks_at_once_to_any_size_is_not_unpacked(tmp_path, method, name):
    """But for deflated files Python unpacks all that it reads, however little is asked for."""
    place = tmp_path / "a.npz"
    with zipfile.ZipFile(place, "w", method) as archive:
        archive.writestr("a.npy", bytes(1000))
    with zipfile.ZipFile(place) as archive, pytest.raises(zipfile.BadZipFile, match=name):
        members_of(archive)
    with pytest.raises(ValueError, match="zip it anew"):
        read_arrays(place)


@pytest.fixture
def umask():
    """Lets a test choose what others may not do."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_has_its_say(tmp_path, umask, mask, mode):
    umask(mask)
    with atomic_write(tmp_path / "usual") as file:
        file.write(b"x")
    with atomic_write(tmp_path / "private", private=True) as file:
        file.write(b"x")
    assert (tmp_path / "usual").stat().st_mode & 0o777 == mode
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_a_socket_is_not_replaced(tmp_path):
    place = tmp_path / "node"
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(place))
        for check in (check_file_target, lambda path: write_text(path, "text")):
            with pytest.raises(InputError, match="a socket of this name is there"):
                check(place)
        assert stat.S_ISSOCK(place.lstat().st_mode)


def test_a_file_below_a_file_is_refused_before_it_is_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is no folder; name a file elsewhere"):
        check_file_target(tmp_path / "file" / "new" / "report.json")
    check_file_target(tmp_path / "new" / "folder" / "report.json")
    assert not (tmp_path / "new").exists()


def test_a_pipe_is_written_into(tmp_path):
    place = tmp_path / "pipe"
    os.mkfifo(place)
    reading = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    check_file_target(place)
    write_text(place, "text")
    assert os.read(reading, 10) == b"text"
    os.close(reading)
    assert stat.S_ISFIFO(place.lstat().st_mode)


def test_a_device_is_written_into():
    device = Path("/dev/null")
    before = device.stat()
    write_text(device, "text")
    assert (device.stat().st_ino, device.stat().st_mode) == (before.st_ino, before.st_mode)


def test_a_pipe_that_nobody_reads_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: nobody reads this pipe"):
        write_text(tmp_path / "pipe", "text")


def test_where_there_is_no_room_is_said():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text(Path("/dev/full"), "text")


def test_a_link_to_itself_stays(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for place in (tmp_path / "a", tmp_path / "a" / "file"):
        with pytest.raises(InputError, match="leads back to itself"):
            write_text(place, "text")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("one", "two"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == text


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="a folder of this name"):
        check_file_target(tmp_path)


class TestSeal:
    def test_it_holds_until_the_file_is_written_to(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"text")
        seal = Seal.of(path)
        assert (seal.sha256, seal.size_bytes) == (hashlib.sha256(b"text").hexdigest(), 4)
        assert seal.holds()
        path.write_bytes(b"text")
        os.utime(path, ns=(seal.state[3], seal.state[3]))  # whoever tries to look innocent
        assert not seal.holds()

    def test_another_file_of_that_name_does_not_hold(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"text")
        seal = Seal.of(path)
        (tmp_path / "other").write_bytes(b"text")
        (tmp_path / "other").replace(path)
        assert not seal.holds()
        path.unlink()
        assert not seal.holds()


def test_arrays_that_unpack_without_end_are_refused(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, zeros=np.zeros(20 << 20, np.float32))
    with pytest.raises(ValueError, match="unpack to"):
        read_arrays(path)
    np.savez_compressed(path, zeros=np.zeros(1 << 20, np.float32))
    assert len(read_arrays(path)["zeros"]) == 1 << 20
