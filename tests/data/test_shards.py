"""WebDataset's .tar and Parquet: the same samples as in folders, and one line for what is wrong."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import pytest

from tests.pictures import encoded
from tinysaver_edge.data.alike import find_alike
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import read_looks
from tinysaver_edge.errors import DataError

CLASSES = ("cat", "dog")


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(start, stop):
    """Files of some samples, label by .cls or, every third time, by .json."""
    for seed in range(start, stop):
        label = CLASSES[seed % 2]
        yield f"{seed:04d}.png", encoded(seed)
        if seed % 3:
            yield f"{seed:04d}.cls", f"{label}\n".encode()
        else:
            yield f"{seed:04d}.json", json.dumps({"label": label, "clip": seed // 4}).encode()


def parquet(path, rows, *, nested=True, names=None, **options):
    pa = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'tinysaver-edge[parquet]'")
    from pyarrow import parquet as pq

    images = [{"bytes": content, "path": None} if nested else content for content, _ in rows]
    table = pa.table({"image": images, "label": [label for _, label in rows]})
    if names is not None:
        said = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(said).encode()})
    pq.write_table(table, path, row_group_size=3, **options)
    return path


def shown(path, **options):
    with open_data(path, **options) as data:
        assert all(data.frame(index) is not None for index in range(len(data)))
        return [(one.label, data.read(index)) for index, one in enumerate(data.samples)]


WANTED = [(CLASSES[seed % 2], seed) for seed in range(10)]


class TestTar:
    @pytest.mark.parametrize(
        "named", ["", "shard-{000..001}.tar", "shard-*.tar", "shard-{000,001}.tar"],
        ids=["folder", "range", "star", "choice"],
    )  # fmt: skip
    def test_shards_are_read_in_their_order(self, tmp_path, named):
        tar(tmp_path / "shard-000.tar", samples(0, 6))
        tar(tmp_path / "shard-001.tar", samples(6, 10))
        found = shown(tmp_path / named if named else tmp_path)
        assert found == [(label, encoded(seed)) for label, seed in WANTED]

    def test_one_file_and_its_names(self, tmp_path):
        with open_data(tar(tmp_path / "a.tar", samples(0, 3))) as data:
            assert [one.file for one in data.samples] == [f"a.tar/{n:04d}.png" for n in range(3)]
            again = pickle.loads(pickle.dumps(data))
            assert again.read(2) == encoded(2)
            assert again.fingerprint() == data.fingerprint()

    def test_another_content_has_another_fingerprint(self, tmp_path):
        prints = set()
        for stop in (4, 5, 6):
            with open_data(tar(tmp_path / "a.tar", samples(0, stop))) as data:
                prints.add(data.fingerprint())
        assert len(prints) == 3

    def test_class_folders_in_it_are_read_as_such(self, tmp_path):
        files = [(f"train/{CLASSES[seed % 2]}/{seed}.png", encoded(seed)) for seed in range(10)]
        assert [label for label, _ in shown(tar(tmp_path / "a.tar", files))] == [
            label for label, _ in WANTED
        ]

    def test_groups_come_from_the_json(self, tmp_path):
        files = [one for one in samples(0, 12) if "png" in one[0] or "json" in one[0]]
        files = [one for one in files if int(one[0][:4]) % 3 == 0]
        with open_data(tar(tmp_path / "a.tar", files), group_column="clip") as data:
            assert list(data.groups) == ["0", "0", "1", "2"]

    def test_copies_in_other_shards_are_found(self, tmp_path):
        tar(tmp_path / "a.tar", samples(0, 40))
        tar(tmp_path / "b.tar", [(f"9{name}", content) for name, content in samples(0, 20)])
        with open_data(tmp_path) as data:
            names = [one.file for one in data.samples]
            found = find_alike(read_looks(data), names, [one.label for one in data.samples])
        assert found is not None
        assert found.copies == 20
        assert not found.independent

    @pytest.mark.parametrize(
        ("files", "line"),
        [
            ([("1.png", b"x"), ("2.png", b"x"), ("2.cls", b"0")], r"1\.png is without its label"),
            ([("1.png", b"x")], r"1\.png is without its label.*\.cls.*CLASS/IMAGE"),
            ([("1.png", b"x"), ("1.json", b"{no")], "cannot be read"),
            ([("1.png", b"x"), ("1.json", b'{"a": 1}')], "without its label"),
            ([("1.cls", b"0")], "no images"),
            ([("1.png", b"x"), ("1.cls", b"0" * 2_000_000)], "too many for a label"),
        ],
        ids=["one label missing", "no labels", "no JSON", "JSON without", "no image", "huge label"],
    )
    def test_what_is_missing_is_named(self, tmp_path, files, line):
        with pytest.raises(DataError, match=line):
            open_data(tar(tmp_path / "a.tar", files))

    def test_a_sparse_file_that_unpacks_to_a_terabyte_is_refused(self, tmp_path):
        path = tmp_path / "a.tar"
        member = tarfile.TarInfo("1.png")
        member.size, member.type = 512, tarfile.GNUTYPE_SPARSE
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        block[386:398], block[398:410] = b"00000000000\0", b"00000001000\0"
        block[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
        path.write_bytes(bytes(block) + bytes(512) + bytes(1024))
        with pytest.raises(DataError, match=r"1\.png is sparse"):
            open_data(path)

    def test_a_picture_of_too_many_pixels_is_unreadable_and_costs_nothing(self, tmp_path):
        bomb = bytearray(encoded(0))
        bomb[16:24] = (60_000).to_bytes(4, "big") * 2
        with open_data(tar(tmp_path / "a.tar", [("1.png", bytes(bomb)), ("1.cls", b"0")])) as data:
            assert data.frame(0) is None

    @pytest.mark.parametrize("damage", ["cut", "text", "gz"])
    def test_damage_is_one_line(self, tmp_path, damage):
        path = tar(tmp_path / "a.tar", samples(0, 4))
        whole = path.read_bytes()
        if damage == "gz":
            path = path.rename(tmp_path / "a.tar.gz")
        else:
            path.write_bytes(whole[:700] if damage == "cut" else b"no tar at all" * 100)
        with pytest.raises(DataError, match=r"no readable \.tar|unpack it"):
            open_data(path)

    @pytest.mark.parametrize("more", [0, 100], ids=["between files", "in a header"])
    def test_a_tar_that_was_cut_short_does_not_pass_for_a_smaller_one(self, tmp_path, more):
        path = tar(tmp_path / "a.tar", samples(0, 4))
        with tarfile.open(path) as archive:
            third = [one.offset for one in archive][4]
        path.write_bytes(path.read_bytes()[: third + more])
        with pytest.raises(DataError, match=r"a\.tar is cut short: it lacks the block"):
            open_data(path)

    def test_a_pattern_that_fits_nothing(self, tmp_path):
        with pytest.raises(DataError, match="no file there fits"):
            open_data(tmp_path / "*.tar")
        with pytest.raises(DataError, match=r"there is no b-1\.tar"):
            open_data(tmp_path / "b-{1..3}.tar")

    @pytest.mark.parametrize("told", [True, False], ids=["told", "class folders"])
    def test_what_is_no_sample_is_left_out_aloud(self, tmp_path, told):
        """A class whose files have another ending is missed, and what is not a file as well."""
        files = [
            *((f"cat/{seed}.png", encoded(seed)) for seed in range(3)),
            *((f"dog/{seed}.xyz", encoded(seed)) for seed in range(3)),
            ("cat/0.depth.npy", b"beside an image"),
            ("__meta__.json", b"{}"),
        ]
        if told:
            labels = [(f"{name.partition('.')[0]}.cls", name[:3].encode()) for name, _ in files[:6]]
            files += labels
        path = tar(tmp_path / "a.tar", files)
        with tarfile.open(path, "a") as archive:
            for name, kind in (("cat/7.png", tarfile.SYMTYPE), ("cat/8.png", tarfile.FIFOTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "0.png"
                archive.addfile(member)
        with open_data(path) as data:
            assert len(data) == 3
            assert data.left_out.unknown == ("dog/0.xyz", "dog/1.xyz", "dog/2.xyz")
            assert data.left_out.unreachable == ("cat/7.png", "cat/8.png")
            assert data.left_out.empty == ("dog",)


class TestParquet:
    @pytest.mark.parametrize("nested", [True, False], ids=["struct", "bytes"])
    def test_rows_are_samples(self, tmp_path, nested):
        rows = [(encoded(seed), label) for label, seed in WANTED]
        path = parquet(tmp_path / "a.parquet", rows, nested=nested)
        assert shown(path) == [(label, encoded(seed)) for label, seed in WANTED]
        with open_data(path) as data:
            again = pickle.loads(pickle.dumps(data))
            assert again.read(7) == encoded(7)
            assert again.fingerprint() == data.fingerprint()

    def test_names_of_classes_as_hugging_face_writes_them(self, tmp_path):
        rows = [(encoded(seed), seed % 2) for _, seed in WANTED]
        path = parquet(tmp_path / "a.parquet", rows, names=list(CLASSES))
        assert [label for label, _ in shown(tmp_path)] == [label for label, _ in WANTED]
        parquet(path, [(encoded(0), 2)], names=list(CLASSES))
        with pytest.raises(DataError, match="label 2, of 2 classes"):
            open_data(path)

    def test_what_is_missing_is_named(self, tmp_path):
        pa = pytest.importorskip(
            "pyarrow", reason="no pyarrow: pip install 'tinysaver-edge[parquet]'"
        )
        from pyarrow import parquet as pq

        def written(**columns):
            pq.write_table(pa.table(columns), tmp_path / "a.parquet")
            return tmp_path / "a.parquet"

        for columns, line in (
            (
                {"picture": ["a.png"], "label": [0]},
                "no column of images.*columns there: picture, label",
            ),
            ({"image": [b"x"]}, "no column of labels"),
            ({"image": [b"x"], "label": pa.array([None], pa.int64())}, "has no label"),
        ):
            with pytest.raises(DataError, match=line):
                open_data(written(**columns))
        with pytest.raises(DataError, match="no column 'clip'"):
            open_data(written(image=[b"x"], label=[0]), group_column="clip")
        with open_data(written(image=pa.array([None], pa.binary()), label=[0])) as data:
            assert data.frame(0) is None
        (tmp_path / "a.parquet").write_bytes(b"PAR1 cut")
        with pytest.raises(DataError, match="no readable Parquet file"):
            open_data(tmp_path / "a.parquet")
