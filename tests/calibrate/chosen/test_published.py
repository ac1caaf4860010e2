import pytest

from tinysaver_edge.bundle.manifest import FiguresEntry, Manifest, ModelEntry, StageEntry
from tinysaver_edge.calibrate.chosen.published import COLUMNS, read_published, set_beside
from tinysaver_edge.errors import InputError

HEAD = ",".join(COLUMNS)
HUGE = "convnextv2_huge.fcmae_ft_in1k"


def manifest(large="large", *, macs=115e9, holdout=True):
    figures = FiguresEntry(
        samples=40_000,
        accuracy_saver=0.8,
        accuracy_large=0.8626,
        accuracy_cascade=0.8601,
        drop_points=0.25,
        accept_rate=0.8,
        cost_macs_ratio=0.22,
    )
    return Manifest(
        created_by="tinysaver-edge test",
        labels=None,
        stages=[
            StageEntry(model=ModelEntry(name="tiny", macs=1e9), threshold=0.5),
            StageEntry(model=ModelEntry(name=large, macs=macs)),
        ],
        method="certified",
        max_drop_points=0.5,
        seed=0,
        calibration=figures,
        holdout=figures.model_copy(update={"samples": 10_000}) if holdout else None,
    )


def table(tmp_path, *rows, head=HEAD):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(("# a comment, with a comma", head, *rows)) + "\n")
    return path


def test_the_figures_that_come_with_the_package():
    rows = [one for one in read_published() if one.system == "TinySaver"]
    assert {(one.large.split(".")[0], one.max_drop_points, one.top1_percent) for one in rows} == {
        ("convnextv2_huge", 0.01, 86.24),
        ("convnextv2_huge", 0.5, 85.75),
        ("swin_large_patch4_window7_224", 0.5, 85.74),
        ("swin_large_patch4_window7_224", 1.0, 85.24),
        ("efficientformerv2_l", 0.01, 83.52),
    }
    gmacs = {one.max_drop_points: one.mean_gmacs for one in rows if one.large == HUGE}
    assert gmacs == {0.01: 31.17, 0.5: 19.41}
    assert all("arXiv" in one.source for one in read_published())


def test_figures_of_the_same_large_model_are_chosen_and_made_comparable():
    found = set_beside(manifest(HUGE), read_published())
    assert found.same_large
    assert [one.large for one in found.published] == [HUGE, HUGE]
    ratios = {one.max_drop_points: one.cost_macs_ratio for one in found.published}
    assert ratios == {0.01: pytest.approx(31.17 / 115), 0.5: pytest.approx(19.41 / 115)}


def test_a_bundle_on_both_sets_of_samples():
    ours = set_beside(manifest(HUGE), ()).own
    assert [one.data for one in ours] == ["40,000 calibration samples", "10,000 hold-out"]
    first = ours[0]
    assert (first.large, first.saver, first.max_drop_points) == (HUGE, "tiny", 0.5)
    assert (first.top1_percent, first.drop_points) == (pytest.approx(86.01), 0.25)
    assert (first.cost_macs_ratio, first.mean_gmacs) == (0.22, pytest.approx(0.22 * 115))
    assert len(set_beside(manifest(holdout=False), ()).own) == 1


def test_without_the_same_large_model_all_are_shown():
    published = read_published()
    found = set_beside(manifest("something else"), published)
    assert not found.same_large
    assert found.published == published


def test_a_cost_that_is_printed_is_kept_and_one_without_macs_left_open(tmp_path):
    path = table(tmp_path, "A,B,large,,,90,10,0.5,C", "A,B,large,,,90,10,,C", "A,B,large,,,90,,,C")
    ratios = [one.cost_macs_ratio for one in set_beside(manifest(), read_published(path)).published]
    assert ratios == [0.5, pytest.approx(10 / 115), None]
    unknown = set_beside(manifest(macs=None), read_published(path)).published
    assert [one.cost_macs_ratio for one in unknown] == [0.5, None, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["A,B,large,,,ninety,,,C"], "line 3: top1_percent: 'ninety' is no number"),
        (["A,B,large,,,nan,,,C"], "line 3: top1_percent: 'nan' is no number"),
        (["A,B,large,,,-1,,,C"], "is no number from 0"),
        (["A,B,large,,,90,,,"], "line 3: source is empty"),
        (["A,B,large,,,90,,,C", "", "A,B"], "line 5: has 2 fields, the table 9"),
    ],
    ids=["a word", "not a number", "negative", "no source", "too short"],
)
def test_a_wrong_line_is_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_published(table(tmp_path, *rows))


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="its columns must be system, data"):
        read_published(table(tmp_path, head="name,macs"))
    with pytest.raises(InputError, match="cannot be read"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(InputError, match="line 2: is no line of a table"):
        read_published(table(tmp_path, head="x" * 200_000))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="its columns must be"):
        read_published(tmp_path / "empty.csv")
