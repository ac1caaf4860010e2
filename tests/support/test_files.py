import hashlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tinysaver_edge._support.files import atomic_write, default_cache_dir, sha256_of, write_text


def test_a_written_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


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


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_cache_dir() == tmp_path / "cache" / "tinysaver-edge"
    assert (tmp_path / "cache" / "tinysaver-edge").is_dir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache_dir() is None
