"""What counts as an image, and that nothing is left out in silence."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.pictures import class_folders, encoded
from tinysaver_edge.data import files
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.images import (
    check_left_out,
    image_files,
    left_out_below,
    printable,
    told_size,
    walk,
)
from tinysaver_edge.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "images", classes=["cat", "dog"], each=10)


def checked(path: Path, limit: float = 0.01) -> list[str]:
    with open_data(path) as data:
        return check_left_out(data.left_out, kept=len(data), limit=limit, path=path)


def test_where_nothing_is_left_out_nothing_is_said(folder: Path) -> None:
    (folder / "README.md").write_text("notes")
    (folder / "cat" / "0000.txt").write_text("0 0.5 0.5 1 1")
    (folder / "LICENCE").write_text("lies in no class folder")
    assert checked(folder) == []


@pytest.mark.parametrize("suffix", [".jfif", ".gif", ".avif", ".jp2", ".pgm", ".apng", ".JPE"])
def test_images_of_rarer_endings_are_read(folder: Path, suffix: str) -> None:
    kinds = {".jfif": ".jpg", ".JPE": ".jpg", ".pgm": ".ppm", ".apng": ".png"}
    (folder / "dog" / f"new{suffix}").write_bytes(encoded(99, kinds.get(suffix, suffix), size=32))
    with open_data(folder) as data:
        assert len(data) == 21
        assert all(data.frame(index) is not None for index in range(21))


def test_a_whole_class_of_another_ending_is_refused_by_name(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"10 files are left.*10 × \.heic.*no image of class dog"):
        checked(folder, limit=0.9)
    lines = checked(folder, limit=1.0)
    assert lines[-1] == "no image of class dog"


@pytest.mark.parametrize("name", ["dog/a.HEIC", "dog/picture", "cat/deeper/b.raw"])
def test_more_than_the_limit_is_refused_and_less_is_told(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something")
    with pytest.raises(DataError, match=rf"1 file is left out.*{name}.*--skip-limit"):
        checked(folder, limit=0.04)
    (line,) = checked(folder, limit=0.05)
    assert name in line


def test_only_files_of_an_ending_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no images; 1 file is left out.*1 × \.heic"):
        open_data(tmp_path)


def test_links_are_followed_and_circles_are_not(folder: Path, tmp_path: Path) -> None:
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "0000.png").unlink()
    (folder / "cat" / "0000.png").symlink_to(tmp_path / "elsewhere" / "0000.png")
    (folder / "cat" / "again").symlink_to(folder)
    (folder / "cat" / "gone.png").symlink_to("nowhere")
    with open_data(folder) as data:
        assert [sample.label for sample in data.samples] == ["cat"] * 10 + ["dog"] * 10
        assert data.left_out.unreachable == ("cat/again", "cat/gone.png")
    with pytest.raises(DataError, match=r"cat/again, cat/gone\.png"):
        checked(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "dog").chmod(0)
    try:
        with pytest.raises(DataError, match="dog"):
            checked(folder)
    finally:
        (folder / "dog").chmod(0o755)


def test_the_systems_own_files_are_no_images(folder: Path) -> None:
    own = (".ipynb_checkpoints/1.png", "__MACOSX/cat/._1.png", "cat/._1.png", "@eaDir/1.png")
    for name in (*own, "cat/Thumbs.db", "$RECYCLE.BIN/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(1))
    with open_data(folder) as data:
        assert len(data) == 20
        assert data.left_out.hidden == 6
    assert checked(folder) == []
    assert len(image_files(folder)) == 20
    assert left_out_below(folder).unknown == ()


def test_names_that_are_no_utf8_are_read_and_can_be_printed(folder: Path) -> None:
    odd = os.fsencode(folder) + b"/cat/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(encoded(77))
    with open_data(folder) as data:
        names = [sample.file for sample in data.samples]
        place = names.index("cat/caf\\xe9.png")
        assert data.frame(place) is not None
        assert len(data.fingerprint()) == 64
        "".join(names).encode()
    assert printable("café") == "café"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_that_steer_a_terminal_are_read_and_written_plainly(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    odd = "cat/\x1b[31mred\n.png"
    (folder / odd).write_bytes(encoded(77))
    source = folder
    if kind == "zip":
        source = tmp_path / "odd.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(folder / odd, odd)
            archive.write(folder / "dog" / "0000.png", "dog/0000.png")
    with open_data(source) as data:
        names = [sample.file for sample in data.samples]
        assert data.read(names.index(r"cat/\x1b[31mred\n.png")) == encoded(77)


def test_members_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat\\1.png", encoded(1))
        archive.writestr("dog\\2.png", encoded(2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("dog\\2.png", encoded(3))
        archive.writestr(link, "1.png")
        archive.writestr("dog\\3.heic", b"x")
    with open_data(path) as data:
        assert [(one.file, one.label) for one in data.samples] == [
            ("cat/1.png", "cat"),
            ("dog/2.png", "dog"),
        ]
        assert data.read(1) == encoded(3)
        assert data.left_out.unreachable == ("cat/link.png", "dog/2.png")
        assert data.left_out.unknown == ("dog/3.heic",)


def headers() -> dict[str, bytes]:
    """Beginnings of pictures of 40 x 30 pixels."""
    stream = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 47, 0, 40, 30, 0, 0)
    core = struct.pack("<2sIHHIIHHHH", b"BM", 26, 0, 0, 26, 12, 40, 30, 1, 24)
    tags = [(256, 4, 1, 40), (257, 3, 1, 30)]
    big = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags))
    big += b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
    return {
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + stream,
        "JPEG 2000, bare": stream,
        "OS/2 bitmap": core,
        "BigTIFF": big,
    }


@pytest.mark.parametrize("kind", ["JPEG 2000", "JPEG 2000, bare", "OS/2 bitmap", "BigTIFF"])
def test_headers_of_rarer_kinds_tell_the_size(kind: str) -> None:
    assert told_size(headers()[kind]) == (30, 40)


def test_folders_lie_as_deep_as_the_system_has_them(folder: Path) -> None:
    picture = min((folder / "cat").iterdir()).read_bytes()
    before = Path.cwd()
    try:
        os.chdir(folder / "cat")
        for _ in range(1100):
            Path("d").mkdir()
            os.chdir("d")
        Path("1.png").write_bytes(picture)
        names, lost = walk(folder)
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-r", folder], check=True)  # which Python before 3.13 cannot
    assert max(name.count("/") for name in names) == 1101
    assert not lost


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(min((folder / "cat").iterdir()), "cat/0.png")
        archive.writestr("cat/1.bmp", b"BM" + bytes(1 << 20))
    monkeypatch.setattr(files, "MOST_FILE_BYTES", 1 << 20)
    with open_data(tmp_path / "images.zip") as data:
        assert data.frame(0) is not None
        with pytest.raises(OSError, match="unpacks to 1048578 bytes"):
            data.read(1)
