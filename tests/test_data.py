import json
import os
import unicodedata
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import class_folders, encoded, picture
from tests.real_data import data_folder
from tinysaver_edge.data import Sample, class_indices, decode_image, open_data
from tinysaver_edge.data.files import class_folder_samples
from tinysaver_edge.errors import DataError


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def opened(path, **options):
    with open_data(path, **options) as data:
        return [(sample.file, sample.label) for sample in data.samples]


FILES = {"cat/1.png": 1, "cat/2.png": 2, "dog/1.png": 3}
SAMPLES = [(name, name.split("/")[0]) for name in FILES]


@pytest.mark.parametrize("top", ["", "test/", "a/b/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_class_folders_are_read_below_whatever_they_share(tmp_path, top, kind):
    files = {f"{top}{name}": encoded(seed) for name, seed in FILES.items()}
    files["README.txt" if not top else f"{top}README.txt"] = b"no image"
    files["__MACOSX/cat/._1.png"] = b"junk"
    files[f"{top}.hidden/1.png"] = b"junk"
    source = tmp_path / "data.zip"
    if kind == "zip":
        zipped(source, files)
    else:
        source = tmp_path / "data"
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    with open_data(source) as data:
        assert [(s.file, s.label) for s in data.samples] == [(top + f, c) for f, c in SAMPLES]
        assert len(data) == 3
        assert data.groups is None
        for index, seed in enumerate(FILES.values()):
            assert (data.frame(index) == picture(seed)).all()


def test_the_order_does_not_depend_on_the_archives(tmp_path):
    files = {name: encoded(seed) for name, seed in FILES.items()}
    turned = dict(reversed(files.items()))
    assert opened(zipped(tmp_path / "a.zip", files)) == opened(zipped(tmp_path / "b.zip", turned))


def test_one_class_is_a_class_not_a_shared_folder():
    names = ["cat/1.png", "cat/2.png"]
    assert {sample.label for sample in class_folder_samples(names, path=Path("x"))} == {"cat"}
    names = [f"test/{name}" for name in names]
    assert {sample.label for sample in class_folder_samples(names, path=Path("x"))} == {"cat"}


def test_folders_below_a_class_belong_to_it():
    names = ["cat/day/1.png", "cat/night/1.png", "dog/day/1.png"]
    labels = [sample.label for sample in class_folder_samples(names, path=Path("x"))]
    assert labels == ["cat", "cat", "dog"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp", ".tif", ".ppm"])
def test_image_formats(tmp_path, suffix):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / f"1{suffix}").write_bytes(encoded(1, suffix.lower()))
    with open_data(tmp_path) as data:
        frame = data.frame(0)
    assert frame is not None
    assert frame.shape == (16, 16, 3)


@pytest.mark.parametrize("columns", [("file", "label"), ("path", "class"), ("image", "target")])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".CSV"])
def test_tables_of_file_and_label(tmp_path, columns, suffix):
    class_folders(tmp_path / "images", classes=["a", "b"], each=1)
    rows = [("images/a/0000.png", "a"), ("images/b/0000.png", 7), ("images/a/0000.png", "a")]
    table = tmp_path / f"list{suffix}"
    if suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        lines = [",".join(columns), *(f"{file}, {label}" for file, label in rows)]
    table.write_text("\ufeff" + "\n\n".join(lines) + "\n", encoding="utf-8")
    with open_data(table) as data:
        assert [(sample.file, sample.label) for sample in data.samples] == [
            (file, str(label)) for file, label in rows
        ]
        assert (data.frame(0) == picture(0)).all()
        assert (data.frame(1) == picture(1)).all()


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("File,Label", "{},{}"),
        (" file , LABEL ", " {} , {} "),
        ("file;label", "{};{}"),
        ("Label;File;Notes", "{1};{0};a, b"),
        ("file\tlabel", "{}\t{}"),
        ("file|label", "{}|{}"),
        ('"file","label"', '"{}","{}"'),
        ("sep=;\nfile;label", "{};{}"),
        ("\n\nfile,label", "{},{}"),
        ("label,file,label2", "{1},{0}"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_people_and_spreadsheets_write_them(tmp_path, header, row, encoding):
    rows = [("1.png", "café"), ("2.png", "dog")]
    text = "\r\n".join([header, *(row.format(*one) for one in rows), ""])
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert opened(tmp_path / "t.csv") == rows


def test_the_group_column_may_differ_in_case_too(tmp_path):
    (tmp_path / "t.csv").write_text("File;Label; Clip\n1.png;a;one\n")
    with open_data(tmp_path / "t.csv", group_column="clip") as data:
        assert data.groups.tolist() == ["one"]


def test_a_table_that_was_written_on_windows(tmp_path):
    class_folders(tmp_path / "images", classes=["a"], each=1)
    (tmp_path / "t.csv").write_text("file,label\r\nimages\\a\\0000.png,a\r\n")
    with open_data(tmp_path / "t.csv") as data:
        assert data.frame(0) is not None


def test_groups_come_from_a_column(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("file,label,clip\n1.png,a,one\n2.png,a,two\n3.png,b,one\n")
    with open_data(table, group_column="clip") as data:
        assert data.groups is not None
        assert data.groups.tolist() == ["one", "two", "one"]
    with open_data(table) as data:
        assert data.groups is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "no images"),
        ("t.csv", "file,label\n", "no images"),
        ("t.csv", "file,label\n1.png,\n", "line 2: no label"),
        ("t.csv", "file,label\n,cat\n", "line 2: no file"),
        ("t.csv", "name,label\n1.png,cat\n", "line 2: no file; columns there: name, label"),
        ("t.csv", "1.png,cat\n2.png,dog\n", "line 2: no file; columns there: 1.png, cat"),
        # Python 3.10's csv refuses a NUL, later ones take it.
        ("t.csv", "file,label\n1.png,cat\n2.png," + "x" * 140_000, "line 3"),
        ("t.csv", "file,label\n1.png,c\x00t\n2.png," + "x" * 140_000, "line [23]"),
        (
            "t.csv",
            'file,label\n1.png,cat\n"2.png,cat\n3.png,cat\n4.png,cat\n',
            r"line 3: not CSV \(a quote on it is never closed\)",
        ),
        ("t.csv", '\nfile,label\n1.png,"c\n2.png,' + "x" * 140_000, "line 3.*never closed"),
        ("t.csv", "name,label\n1.png,cat\n", "expected the columns file and label"),
        ("t.csv", "file,label\n1.png,tiger, big\n", "line 2: 3 values for 2 columns: names that"),
        ("t.csv", "file,label\n1.png,a\n1.png,b\n", "line 3: 1.png is 'b' here and 'a' in an ear"),
        ("t.csv", "file,File,label\n1.png,2.png,cat\n", "line 1: 2 columns named file"),
        ("t.jsonl", '{"file": "a.png", "answer": "cat"}\n', "say --reference large"),
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.jsonl", '{"file": "a"\n', "line 1: not JSON"),
        ("t.jsonl", '\n{"file": "a.png"}\n', "line 2: no label"),
        ("t.jsonl", '{"file": "a.png", "label": null}\n', "line 1: no label"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / name)


def test_a_table_that_is_no_text_or_lacks_the_group(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"file,label\n\xff\xfe,cat\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_data(table)
    table.write_text("file,label,clip\n1.png,a,one\n2.png,a,\n")
    with pytest.raises(DataError, match="line 3: no value in column 'clip'"):
        open_data(table, group_column="clip")
    with pytest.raises(
        DataError, match="line 2: no column 'scene'; columns there: file, label, clip"
    ):
        open_data(table, group_column="scene")
    class_folders(tmp_path / "images", classes=["a"], each=1)
    with pytest.raises(DataError, match="group column needs"):
        open_data(tmp_path / "images", group_column="clip")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("missing.zip", None, "no such file or folder"),
        ("broken.zip", b"PK\x03\x04 no archive", "not a readable .zip"),
        ("empty.zip", b"", "not a readable .zip"),
        ("images.rar", b"x", r"\.tar or \.parquet, not \.rar"),
        ("images", b"x", "not this"),
    ],
)
def test_sources_that_cannot_be_opened(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_no_images_at_all(tmp_path, kind):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("nothing")
    source = tmp_path
    if kind == "zip":
        source = zipped(tmp_path / "x.zip", {"cat/notes.txt": b"nothing"})
    with pytest.raises(DataError, match="no images; expected one folder a class"):
        open_data(source)


def test_images_beside_class_folders_are_refused(tmp_path):
    class_folders(tmp_path, classes=["cat"], each=1)
    (tmp_path / "stray.png").write_bytes(encoded(5))
    with pytest.raises(DataError, match=r"stray\.png lies in no class folder"):
        open_data(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9, -1])
def test_a_cut_file_is_damaged(suffix, kept):
    data = encoded(3, suffix, size=64)
    cut = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    assert decode_image(data) is not None
    assert decode_image(cut) is None


def test_a_jpeg_cut_behind_its_thumbnail_is_damaged():
    thumbnail = encoded(1, ".jpg", size=16)
    whole = encoded(2, ".jpg", size=64)
    segment = b"Exif\0\0" + thumbnail
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    with_thumbnail = whole[:2] + header + whole[2:]
    frame = decode_image(with_thumbnail)
    assert frame is not None
    assert frame.shape == (64, 64, 3)
    assert decode_image(with_thumbnail[: len(header) + len(whole) // 2]) is None


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0" * 1000, b"GIF89a;"]
)
def test_what_is_no_image_is_damaged(data):
    assert decode_image(data) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tif"]))
@settings(max_examples=60)
def test_a_damaged_file_never_raises(seed, suffix):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(seed % 7, suffix, size=32))
    for place in rng.integers(0, len(data), 8):
        data[place] = rng.integers(256)
    frame = decode_image(bytes(data))
    assert frame is None or (frame.dtype == np.uint8 and frame.ndim == 3)


def test_pictures_of_other_depths_become_bgr_uint8():
    grey16 = np.full((8, 8), 65535, np.uint16)
    frame = decode_image(cv2.imencode(".png", grey16)[1].tobytes())
    assert frame is not None
    assert frame.dtype == np.uint8
    assert (frame == 255).all()
    with_alpha = np.dstack([picture(1), np.zeros((16, 16), np.uint8)])
    frame = decode_image(cv2.imencode(".png", with_alpha)[1].tobytes())
    assert frame is not None
    assert (frame == picture(1)).all()


def test_files_that_are_missing_or_damaged_have_no_frame(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(1))
    (tmp_path / "2.png").write_bytes(encoded(1)[:40])
    (tmp_path / "3.png").mkdir()
    table = tmp_path / "t.csv"
    table.write_text("file,label\n1.png,a\n2.png,a\n3.png,a\n4.png,a\n")
    with open_data(table) as data:
        frames = [data.frame(index) for index in range(4)]
        assert data.fingerprint() == data.fingerprint()
    assert [frame is not None for frame in frames] == [True, False, False, False]


def test_a_damaged_member_of_an_archive_has_no_frame(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a/1.png": encoded(1), "a/2.png": encoded(2)})
    content = bytearray(path.read_bytes())
    place = content.index(encoded(2)) + 30
    content[place] ^= 0xFF  # the archive's checksum tells, though the picture may decode
    path.write_bytes(content)
    with open_data(path) as data:
        assert data.frame(0) is not None
        assert data.frame(1) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
@settings(max_examples=150)
def test_damage_of_an_archive_costs_images_or_is_one_error(tmp_path_factory, seed, compression):
    path = tmp_path_factory.mktemp("data") / "x.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for index in range(3):
            archive.writestr(f"a/{index}.bmp", encoded(index, ".bmp"))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    span = len(content) if seed % 2 else 250  # half of all damage goes into the directory
    for _ in range(3):
        content[-1 - int(rng.integers(span))] = rng.integers(256)
    path.write_bytes(content)
    try:
        with open_data(path) as data:
            data.fingerprint()
            frames = [data.frame(index) for index in range(len(data))]
    except DataError:
        return
    shown = [frame.tolist() for frame in frames if frame is not None]
    assert all(frame in [picture(index).tolist() for index in range(3)] for frame in shown)


class TestFingerprint:
    @staticmethod
    def of(path):
        with open_data(path) as data:
            return data.fingerprint()

    @pytest.fixture
    def folder(self, tmp_path):
        return class_folders(tmp_path / "data", classes=["a", "b"], each=2, suffix=".bmp")

    def test_is_the_same_for_the_same_data(self, folder):
        assert self.of(folder) == self.of(folder)

    def test_changes_with_a_files_content_though_not_its_size(self, folder):
        before = self.of(folder)
        file = folder / "a" / "0000.bmp"
        size = file.stat().st_size
        file.write_bytes(encoded(99, ".bmp"))
        os.utime(file, (1e9, 1e9))  # a moment that differs on any file system
        assert file.stat().st_size == size
        assert self.of(folder) != before

    def test_changes_with_names_labels_and_numbers_of_files(self, folder):
        seen = {self.of(folder)}
        (folder / "a" / "0000.bmp").rename(folder / "a" / "0002.bmp")
        seen.add(self.of(folder))
        (folder / "a" / "0002.bmp").rename(folder / "b" / "0002.bmp")
        seen.add(self.of(folder))
        (folder / "b" / "0002.bmp").unlink()
        seen.add(self.of(folder))
        assert len(seen) == 4

    def test_of_an_archive_sees_content_not_time(self, tmp_path):
        files = {"a/1.bmp": encoded(1, ".bmp"), "b/1.bmp": encoded(2, ".bmp")}
        one = self.of(zipped(tmp_path / "1.zip", files))
        copy = zipped(tmp_path / "2.zip", files)
        os.utime(copy, (0, 0))
        assert self.of(copy) == one
        files["a/1.bmp"] = encoded(3, ".bmp")
        assert self.of(zipped(tmp_path / "3.zip", files)) != one


def indices(names, *, labels=None, classes):
    samples = [Sample(f"{name}.png", name) for name in names]
    return class_indices(samples, labels=labels, classes=classes, path=Path("data")).tolist()


class TestClassIndices:
    LABELS = ("background", "Tabby_Cat", "dog", "Ice cream")

    def test_names_are_looked_up(self):
        assert indices(["dog", "Tabby_Cat"], labels=self.LABELS, classes=4) == [2, 1]

    def test_names_may_differ_in_case_and_spaces(self):
        names = ["DOG", "tabby cat", "ice_cream", "Tabby-Cat"]
        assert indices(names, labels=self.LABELS, classes=4) == [2, 1, 3, 1]

    def test_an_exact_name_goes_before_a_loose_one(self):
        assert indices(["a b", "A_B"], labels=("A_B", "a b"), classes=2) == [1, 0]

    def test_numbers_are_indices(self):
        assert indices(["3", "0", "10"], classes=11) == [3, 0, 10]
        assert indices(["3", "0"], labels=self.LABELS, classes=4) == [3, 0]

    def test_a_models_labels_may_be_numbers_themselves(self):
        assert indices(["7", "9"], labels=("9", "8", "7"), classes=3) == [2, 0]

    def test_names_without_labels_are_numbered_in_sorted_order(self):
        assert indices(["dog", "cat", "dog"], classes=2) == [1, 0, 1]

    @pytest.mark.parametrize("write", ["{}", "{}.0", "{:03d}", " {}", "{}e0", "+{}"])
    @pytest.mark.parametrize("labels", [None, tuple(f"class {i}" for i in range(12))])
    def test_numbers_are_numbers_however_they_are_written(self, write, labels):
        names = [write.format(number) for number in range(12)]
        assert indices(names, labels=labels, classes=12) == list(range(12))

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_accents_may_be_written_either_way(self, form):
        labels = ("tea", unicodedata.normalize(form, "café"))
        for name in ("NFC", "NFD"):
            assert indices([unicodedata.normalize(name, "café")], labels=labels, classes=2) == [1]

    def test_both_ways_are_one_class_of_a_folder(self, tmp_path):
        for form in ("NFC", "NFD"):
            folder = tmp_path / unicodedata.normalize(form, "café")
            folder.mkdir()
            (folder / f"{form}.png").write_bytes(encoded(1))
        with open_data(tmp_path) as data:
            assert {sample.label for sample in data.samples} == {"café"}
            assert len(data) == 2
            assert all(data.frame(place) is not None for place in (0, 1))

    def test_names_that_text_and_numbers_sort_otherwise_are_asked_about(self):
        names = [f"part {number}" for number in range(11)]
        with pytest.raises(DataError, match=r"which class is 'part 10'\? .* number 2, .* 10"):
            indices(names, classes=11)
        assert indices(names, labels=tuple(names), classes=11) == list(range(11))
        assert indices([f"part {n:02d}" for n in range(11)], classes=11) == list(range(11))

    @pytest.mark.parametrize(
        ("names", "options", "message"),
        [
            (["-1", "0", "1"], {"classes": 3}, "label -1 is no class"),
            (["-1.0", "0.0"], {"labels": LABELS, "classes": 4}, "label -1.0 is no class"),
            (["0.5", "1"], {"classes": 2}, "a class is a whole number"),
            (["1e99"], {"classes": 2}, "counted from 0"),
            (["nan", "1"], {"labels": LABELS, "classes": 4}, "label 'nan'"),
            (["1", "2", "3"], {"classes": 3}, "label 3, but the model has 3 classes, counted"),
            (["dog", "cow"], {"labels": LABELS, "classes": 4}, r"label 'cow' \(1 such\)"),
            (["1", "cow"], {"labels": LABELS, "classes": 4}, "is none of the model's 4 labels"),
            (["4"], {"classes": 4}, "label 4, but the model has 4 classes"),
            (["4"], {"labels": LABELS, "classes": 4}, "label 4, but the model has 4 classes"),
            (["-1"], {"classes": 4}, "label -1 is no class"),
            (["cat", "dog"], {"classes": 3}, r"2 classes \(cat, dog, …\), but the model has 3"),
            (["cat", "dog", "cow"], {"classes": 2}, "but the model has 2"),
            (["²"], {"classes": 4}, "but the model has 4"),
        ],
    )
    def test_wrong_labels_are_refused(self, names, options, message):
        with pytest.raises(DataError, match=message):
            indices(names, **options)

    def test_a_name_that_two_classes_share_is_refused(self):
        with pytest.raises(DataError, match="'crane'"):
            indices(["dog", "crane"], labels=("crane", "dog", "crane"), classes=3)
        assert indices(["dog"], labels=("crane", "dog", "crane"), classes=3) == [1]


CIFAR = data_folder() / "cifar10" / "test.zip"


@pytest.mark.skipif(not CIFAR.is_file(), reason="no cifar10/test.zip in ../shared/data")
def test_the_real_cifar10_archive():
    with open_data(CIFAR) as data:
        assert len(data) == 10_000
        labels = [sample.label for sample in data.samples]
        assert {labels.count(name) for name in set(labels)} == {1000}
        assert len(set(labels)) == 10
        frame = data.frame(1234)
    assert frame is not None
    assert frame.shape == (32, 32, 3)


def test_the_first_of_several_names_is_enough():
    labels = ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert indices(["goldfish"], labels=labels, classes=2) == [1]


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png"])
def test_a_table_that_names_what_can_be_no_file(tmp_path, name):
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"file": name, "label": "a"}))
    with pytest.raises(DataError, match=r"line 1: .* is no name that a file can have"):
        open_data(table)


def test_files_are_counted_by_their_endings_where_there_are_several(tmp_path):
    class_folders(tmp_path, classes=["a", "b"], each=2)
    with open_data(tmp_path) as data:
        assert data.endings is None
    for path in list((tmp_path / "b").iterdir()):
        path.rename(path.with_suffix(".JFIF"))
    with open_data(tmp_path) as data:
        assert data.endings == "2 of .png, 2 of .jfif"
