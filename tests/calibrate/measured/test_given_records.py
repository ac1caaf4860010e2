import json

import numpy as np
import pytest

from tinysaver_edge.calibrate.measured.given_records import from_records, read_macs
from tinysaver_edge.calibrate.plan import RecordInput
from tinysaver_edge.errors import InputError, RecordError

RNG = np.random.default_rng(0)
LOGITS = {name: RNG.normal(size=(6, 3)).astype(np.float32) for name in ("big", "mid", "tiny")}
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def folder(tmp_path):
    for name, logits in LOGITS.items():
        np.savez(tmp_path / f"{name}.npz", logits=logits)
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "models.csv").write_text(
        "name,parameters,macs\nbig,9,2.83e9\nmid,5,5e8\ntiny,1,1e6\nabsent,1,1\n"
    )
    return tmp_path


def gathered(folder, *savers, large="big"):
    given = RecordInput(folder, folder / "labels.npy", folder / "models.csv", large, savers)
    return from_records(given)[0]


def test_named_savers_come_in_the_order_they_were_named(folder):
    found = gathered(folder, "tiny", "mid").problem
    assert [saver.name for saver in found.savers] == ["tiny", "mid"]
    assert (found.large.name, found.large.macs) == ("big", 2.83e9)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.large.outputs.logits is not None
    assert (found.large.outputs.logits == LOGITS["big"]).all()


def test_all_are_the_cheaper_ones_that_are_there(folder):
    assert [one.name for one in gathered(folder, "all").problem.savers] == ["tiny", "mid"]
    assert [one.name for one in gathered(folder, "all", large="mid").problem.savers] == ["tiny"]


def test_samples_that_any_model_skipped_are_left_out(folder):
    (folder / "tiny.json").write_text(json.dumps({"skipped": [1, 4]}))
    found = gathered(folder, "tiny", "mid")
    assert found.sample_index.tolist() == [0, 2, 3, 5]
    assert found.problem.labels.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("savers", "large", "message"),
    [
        (("none such",), "big", "no row for model none such; rows there: big, mid, tiny, absent"),
        (("tiny",), "none such", "no row for model none such"),
        (("absent",), "big", r"absent\.npz: no such file; records there: big, mid, tiny"),
        (("big",), "big", "big is named twice"),
        (("big",), "mid", "must be the cheaper one"),
        (("all",), "tiny", "no model there has a row in .* with fewer MACs than tiny"),
        (("all",), "none such", r"no none such\.npz; records there: big, mid, tiny"),
    ],
)
def test_names_that_do_not_fit(folder, savers, large, message):
    with pytest.raises(InputError, match=message):
        gathered(folder, *savers, large=large)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("name,macs\n", "no rows"),
        ("model,macs\na,1\n", "needs columns name and macs, has model, macs"),
        ("name\na\n", "needs columns name and macs, has name"),
        ("name\na,3\n", "needs columns name and macs, has name"),
        ("name,macs\na\n", "line 2"),
        ("name,macs\na,1\nb,12 M\n", "line 3: '12 M' is not a number"),
        ("name,macs\na,\n", "line 2: '' is not a number"),
        ("name,macs\na,1\na,2\n", "a is there twice"),
        ("name,macs\n" + "x" * 140_000 + ",1\n", "not CSV"),
    ],
)
def test_tables_of_macs_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "models.csv").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_macs(tmp_path / "models.csv")


def test_tables_of_macs_that_are_no_text_or_not_there(tmp_path):
    with pytest.raises(RecordError, match="not readable"):
        read_macs(tmp_path / "models.csv")
    (tmp_path / "models.csv").write_bytes(b"name,macs\n\xff\xfe,1\n")
    with pytest.raises(RecordError, match="no text; expected CSV with columns name, macs"):
        read_macs(tmp_path / "models.csv")


def test_other_columns_spaces_and_a_mark_at_the_start_are_ignored(tmp_path):
    (tmp_path / "models.csv").write_bytes(
        b"\xef\xbb\xbfmacs,what,name\r\n 2.83e9 ,x, big \r\n1,,b\r\n"
    )
    assert read_macs(tmp_path / "models.csv") == {"big": 2.83e9, "b": 1.0}


def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path):
    (tmp_path / "m.csv").write_text('name,macs\nbig,9\n"mid,5\ntiny,1\n')
    with pytest.raises(RecordError, match=r"m\.csv, line 3: not CSV \(a quote on it is never"):
        read_macs(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text('name,macs\n\n"bi""g",9\n')
    assert read_macs(tmp_path / "m.csv") == {'bi"g': 9.0}
