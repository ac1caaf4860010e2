import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge._support import files
from tinysaver_edge.errors import RecordError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.records import (
    RecordKey,
    RecordWriter,
    finished_record,
    load_record,
    read_labels,
    record_names,
)

KEY = RecordKey(
    model_sha256="a" * 64,
    preprocess={"preprocess": {"resize": {"height": 8}}, "output": {"kind": "logits"}},
    engine="onnxruntime",
    device="",
    precision="float32",
    data="f" * 64,
)
LOGITS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)


def writer(folder, *, key=KEY, name="model", samples=10, chunk=4):
    return RecordWriter(folder, name, key, samples=samples, chunk=chunk)


def test_a_users_own_record_is_not_written_over(tmp_path):
    np.savez(tmp_path / "model.npz", logits=LOGITS)
    before = (tmp_path / "model.npz").read_bytes()
    with pytest.raises(RecordError, match="was not measured here"):
        writer(tmp_path)
    assert (tmp_path / "model.npz").read_bytes() == before


def fill(one, *, only=None, skipped=()):
    for start in one.starts if only is None else only:
        rows = LOGITS[start : start + one.chunk]
        one.put(start, Outputs(logits=rows), [i for i in skipped if start <= i < start + one.chunk])


def written(folder, **options):
    one = writer(folder, **options)
    fill(one)
    return one.finish()


class TestWriting:
    def test_what_was_put_in_comes_out(self, tmp_path):
        one = writer(tmp_path)
        assert list(one.starts) == [0, 4, 8]
        fill(one, skipped=(3, 9))
        record = one.finish()
        for read in (
            record,
            load_record(tmp_path, "model"),
            finished_record(tmp_path, "model", KEY),
        ):
            assert read is not None
            assert read.name == "model"
            assert read.key == KEY
            assert read.skipped == (3, 9)
            kept = [0, 1, 2, 4, 5, 6, 7, 8]
            assert (read.outputs.subset(kept).logits == LOGITS[kept]).all()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.npz"]

    @given(samples=st.integers(1, 30), chunk=st.integers(1, 40), seed=st.integers(0, 1000))
    @settings(max_examples=30)
    def test_chunks_may_come_in_any_order_and_twice(self, tmp_path_factory, samples, chunk, seed):
        rng = np.random.default_rng(seed)
        table = rng.normal(size=(samples, 3)).astype(np.float32)
        folder = tmp_path_factory.mktemp("records")
        one = writer(folder, samples=samples, chunk=chunk)
        for start in [*rng.permutation(one.starts), one.starts[0]]:
            one.put(int(start), Outputs(logits=table[start : start + chunk]), [])
        one.finish()
        assert (load_record(folder, "model").outputs.logits == table).all()

    def test_a_second_writer_goes_on_where_the_first_stopped(self, tmp_path):
        fill(writer(tmp_path), only=[0, 8])
        second = writer(tmp_path)
        assert [second.has(start) for start in second.starts] == [True, False, True]
        fill(second, only=[4])
        assert (second.finish().outputs.logits == LOGITS).all()

    @pytest.mark.parametrize(
        "other",
        [
            {"key": replace(KEY, model_sha256="b" * 64)},
            {"key": replace(KEY, data="0" * 64)},
            {"key": replace(KEY, precision="bfloat16")},
            {"key": replace(KEY, engine="openvino")},
            {"key": replace(KEY, device="GPU")},
            {"key": replace(KEY, preprocess={"resize": {"height": 9}})},
            {"samples": 9},
            {"chunk": 5},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_chunks_made_for_something_else_are_thrown_away(self, tmp_path, other):
        fill(writer(tmp_path))
        second = writer(tmp_path, **other)
        assert not any(second.has(start) for start in second.starts)

    def test_chunks_that_nobody_vouches_for_are_thrown_away(self, tmp_path):
        """A kill while chunks are being dropped may leave some of them without their key."""
        fill(writer(tmp_path))
        (tmp_path / "model.partial" / "key").unlink()
        second = writer(tmp_path, key=replace(KEY, model_sha256="b" * 64))
        assert not any(second.has(start) for start in second.starts)

    def test_a_folder_of_something_else_is_not_thrown_away(self, tmp_path):
        (tmp_path / "model.partial").mkdir()
        (tmp_path / "model.partial" / "notes.txt").write_text("mine")
        with pytest.raises(RecordError, match="a folder of something else is there: move it"):
            writer(tmp_path)
        assert (tmp_path / "model.partial" / "notes.txt").read_text() == "mine"

    def test_a_damaged_chunk_is_named_and_made_anew(self, tmp_path):
        one = writer(tmp_path)
        fill(one)
        chunk = tmp_path / "model.partial" / "000000004.npz"
        chunk.write_bytes(chunk.read_bytes()[:50])
        with pytest.raises(RecordError, match=r"000000004\.npz: damaged .* run again"):
            one.finish()
        assert not (tmp_path / "model.npz").exists()
        again = writer(tmp_path)
        assert [again.has(start) for start in again.starts] == [True, False, True]
        fill(again, only=[4])
        assert (again.finish().outputs.logits == LOGITS).all()

    def test_half_written_chunks_are_not_seen(self, tmp_path, monkeypatch):
        one = writer(tmp_path)
        fill(one, only=[0])

        def fail(*_, **__):
            raise OSError("disk full")

        monkeypatch.setattr(files.os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            fill(one, only=[4])
        monkeypatch.undo()
        assert [writer(tmp_path).has(start) for start in one.starts] == [True, False, False]

    def test_an_old_record_is_replaced_with_its_key(self, tmp_path):
        written(tmp_path)
        new = replace(KEY, model_sha256="b" * 64)
        assert finished_record(tmp_path, "model", new) is None
        written(tmp_path, key=new)
        assert finished_record(tmp_path, "model", KEY) is None
        assert finished_record(tmp_path, "model", new) is not None

    def test_stopped_between_numbers_and_key_it_is_not_finished(self, tmp_path):
        """The key says what the numbers belong to: without it they are nobody's."""
        written(tmp_path)
        (tmp_path / "model.json").unlink()
        assert finished_record(tmp_path, "model", KEY) is None


class TestReuse:
    @pytest.mark.parametrize("damage", ["npz", "json", "key", "skipped"])
    def test_a_damaged_record_is_made_anew(self, tmp_path, damage):
        written(tmp_path)
        sidecar = tmp_path / "model.json"
        content = json.loads(sidecar.read_text())
        if damage == "npz":
            (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 cut")
        elif damage == "json":
            sidecar.write_text(sidecar.read_text()[:40])
        elif damage == "key":
            content["key"] = {"model": "written by another release"}
        else:
            content["skipped"] = [10]
        if damage in ("key", "skipped"):
            sidecar.write_text(json.dumps(content))
        assert finished_record(tmp_path, "model", KEY) is None

    def test_a_missing_record_is_not_finished(self, tmp_path):
        assert finished_record(tmp_path, "model", KEY) is None
        assert finished_record(tmp_path / "nowhere", "model", KEY) is None

    def test_keys_survive_json(self):
        again = RecordKey(**json.loads(json.dumps(vars_of(KEY))))
        assert again == KEY
        assert again.digest == KEY.digest


def vars_of(key):
    return {name: getattr(key, name) for name in key.__dataclass_fields__}


TOP_CLASS = np.array([[2, 0], [1, 3]], np.int16)
TOP_PROB = np.array([[0.6, 0.3], [0.9, 0.1]], np.float32)


def save(folder, **arrays):
    np.savez(folder / "mine.npz", **arrays)


class TestBringYourOwn:
    def test_logits(self, tmp_path):
        save(tmp_path, logits=LOGITS.astype(np.float64))
        record = load_record(tmp_path, "mine")
        assert record.key is None
        assert record.skipped == ()
        assert (record.outputs.logits == LOGITS).all()

    @pytest.mark.parametrize("k", [1, 2])
    def test_top_k(self, tmp_path, k):
        arrays = {f"top{k}_class": TOP_CLASS[:, :k], f"top{k}_prob": TOP_PROB[:, :k]}
        save(tmp_path, **arrays)
        outputs = load_record(tmp_path, "mine").outputs
        assert outputs.predictions.tolist() == [2, 1]
        assert outputs.truncated
        assert outputs.width == k
        np.testing.assert_array_equal(outputs.confidences, TOP_PROB[:, 0])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({}, "holds nothing; expected logits"),
            ({"scores": LOGITS}, "holds scores; expected logits"),
            ({"top2_class": TOP_CLASS}, "expected logits"),
            ({"top2_class": TOP_CLASS, "top5_prob": TOP_PROB}, "expected logits"),
            ({"top2_class": TOP_CLASS, "top2_prob": TOP_PROB[:, :1]}, r"shape \(2, 2\) but"),
            ({"top2_class": TOP_CLASS, "top2_prob": TOP_PROB[:, ::-1]}, "sample 0 do not fall"),
            ({"top2_class": TOP_CLASS, "top2_prob": 10 * TOP_PROB}, "outside 0..1"),
            ({"logits": LOGITS[0]}, r"shape \(4,\)"),
            ({"logits": np.zeros((3, 0))}, r"shape \(3, 0\)"),
            ({"logits": np.array([[0.0, np.nan]])}, "sample 0 hold NaN"),
            ({"logits": np.array([[0.0, np.inf]])}, "sample 0 hold NaN or infinity"),
            ({"logits": np.array([["a", "b"]])}, "mine.npz"),
            ({"top2_class": np.array([["a", "b"]]), "top2_prob": TOP_PROB[:1]}, "mine.npz"),
            ({"top2_class": -TOP_CLASS, "top2_prob": TOP_PROB}, "below 0"),
            ({"logits": LOGITS.astype("U8")}, "logits is of <U8; expected numbers"),
            ({"logits": LOGITS > 0}, "logits is of bool; expected numbers"),
            ({"logits": LOGITS.astype(complex)}, "logits is of complex128; expected numbers"),
            ({"logits": LOGITS.astype("M8[s]")}, "logits is of datetime64"),
            ({"top2_class": TOP_CLASS + 0.5, "top2_prob": TOP_PROB}, "expected whole numbers"),
        ],
    )
    def test_forms_that_are_refused(self, tmp_path, arrays, message):
        save(tmp_path, **arrays)
        with pytest.raises(RecordError, match=message):
            load_record(tmp_path, "mine")

    @pytest.mark.parametrize(
        "content",
        [b"", b"PK", b"PK\x03\x04" + b"\0" * 50, b"text", pickle.dumps({"logits": [1.0]})],
        ids=["empty", "cut", "broken zip", "text", "pickle"],
    )
    def test_files_that_are_no_npz(self, tmp_path, content):
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(RecordError, match=r"mine\.npz: damaged or not an \.npz"):
            load_record(tmp_path, "mine")

    def test_a_npy_under_another_name(self, tmp_path):
        np.save(tmp_path / "mine.npy", LOGITS)
        (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
        with pytest.raises(RecordError, match=r"mine\.npz: damaged or not an \.npz"):
            load_record(tmp_path, "mine")

    def test_nothing_in_a_record_is_executed(self, tmp_path):
        save(tmp_path, logits=np.array([[object()]], dtype=object))
        with pytest.raises(RecordError, match="damaged or not"):
            load_record(tmp_path, "mine")

    def test_a_cut_record_at_every_length(self, tmp_path):
        buffer = io.BytesIO()
        np.savez(buffer, logits=LOGITS)
        whole = buffer.getvalue()
        for length in range(0, len(whole), 13):
            (tmp_path / "mine.npz").write_bytes(whole[:length])
            with pytest.raises(RecordError, match=r"mine\.npz"):
                load_record(tmp_path, "mine")

    @given(st.integers(0, 2**32 - 1), st.sampled_from([np.savez, np.savez_compressed]))
    @settings(max_examples=150)
    def test_damage_of_any_kind_is_one_error(self, tmp_path_factory, seed, save_as):
        folder = tmp_path_factory.mktemp("records")
        buffer = io.BytesIO()
        save_as(buffer, logits=LOGITS)
        content = bytearray(buffer.getvalue())
        rng = np.random.default_rng(seed)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        (folder / "mine.npz").write_bytes(content)
        try:
            outputs = load_record(folder, "mine").outputs
        except RecordError:
            return
        assert (outputs.logits == LOGITS).all()  # the damage lies where nothing is said

    def test_a_flipped_bit_is_noticed(self, tmp_path):
        save(tmp_path, logits=LOGITS)
        path = tmp_path / "mine.npz"
        with zipfile.ZipFile(path) as archive:
            place = archive.getinfo("logits.npy").header_offset + 250
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(RecordError, match="damaged"):
            load_record(tmp_path, "mine")

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            '{"skipped": 3}',
            '{"skipped": ["x"]}',
            '{"skipped": [12]}',
            '{"key": 5}',
            '{"key": {"a": 1}}',
            '{"skipped": [-1]}',
        ],
    )
    def test_a_damaged_sidecar_is_named(self, tmp_path, text):
        save(tmp_path, logits=LOGITS)
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(RecordError, match=r"mine\.json"):
            load_record(tmp_path, "mine")

    def test_a_missing_record_names_those_that_are_there(self, tmp_path):
        save(tmp_path, logits=LOGITS)
        (tmp_path / ".mine.npz.tmp").write_bytes(b"half")
        (tmp_path / ".hidden.npz").write_bytes(b"half")
        assert record_names(tmp_path) == ["mine"]
        with pytest.raises(RecordError, match=r"yours\.npz: no such file; records there: mine$"):
            load_record(tmp_path, "yours")
        with pytest.raises(RecordError, match="no such folder"):
            load_record(tmp_path / "nowhere", "mine")


class TestLabels:
    @pytest.mark.parametrize("dtype", ["int64", "int16", "uint8", "uint64", "float32", "float64"])
    def test_whole_numbers(self, tmp_path, dtype):
        np.save(tmp_path / "labels.npy", np.array([3, 0, 1], dtype))
        labels = read_labels(tmp_path / "labels.npy")
        assert labels.dtype == np.int64
        assert labels.tolist() == [3, 0, 1]

    @pytest.mark.parametrize(
        "labels",
        [
            np.array([0.0, 1.5]),
            np.array([0.0, np.nan]),
            np.array([0.0, 1e30]),
            np.array([0, 2**63], np.uint64),
            np.array([0.0, -1.0]),
            np.array([0, -1]),
            np.array([], np.int64),
            np.array([[0], [1]]),
            np.array(3),
            np.array(["cat"]),
            np.array([True, False]),
        ],
        ids=[
            "floats",
            "not a number",
            "too large",
            "beyond any class",
            "float below 0",
            "negative",
            "none",
            "a table",
            "one number",
            "names",
            "truth values",
        ],
    )
    def test_other_labels_are_refused(self, tmp_path, labels):
        np.save(tmp_path / "labels.npy", labels)
        with pytest.raises(RecordError, match=r"labels\.npy: .*expected"):
            read_labels(tmp_path / "labels.npy")

    @pytest.mark.parametrize(
        "content", [None, b"", b"PK\x03\x04" + b"\0" * 50, b"\x93NUMPY cut", pickle.dumps([1])]
    )
    def test_files_that_are_no_npy(self, tmp_path, content):
        if content is not None:
            (tmp_path / "labels.npy").write_bytes(content)
        with pytest.raises(
            RecordError, match=r"labels\.npy: (cannot be read \(No such|not an \.npy)"
        ):
            read_labels(tmp_path / "labels.npy")

    def test_an_npz_is_no_npy(self, tmp_path):
        np.savez(tmp_path / "labels.npz", labels=np.arange(3))
        with pytest.raises(RecordError, match="expected one value a sample"):
            read_labels(tmp_path / "labels.npz")
