import json
import pickle

import cv2
import numpy as np
import pytest

from tests.data.epoch_folders import epoch_folders
from tinysaver_edge.data.epochs import open_epochs
from tinysaver_edge.errors import DataError


@pytest.fixture
def clips(tmp_path):
    epoch_folders(tmp_path / "clips", count=3, frames=4)
    return tmp_path / "clips"


def said(clips, epoch, **changes):
    """Change what an epoch says of itself."""
    place = clips / epoch / "epoch.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def test_frames_stand_epoch_by_epoch_in_order_with_their_times_and_classes(clips):
    with open_epochs(clips, spans=clips.with_name("clips.csv")) as data:
        assert len(data) == 12
        assert data.numbers.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert data.times_s[:4].tolist() == [0.05, 1.05, 2.05, 3.05]
        assert data.epoch_s == 4.0
        assert data.samples[5].file == "e001/00001.png"
        assert set(data.groups) == {"e000", "e001", "e002"}
        assert all(sample.label for sample in data.samples)
        there = cv2.imread(str(clips / "e001" / "00001.png"))
        assert np.array_equal(data.frame(5), there)
        again = pickle.loads(pickle.dumps(data))
        assert again.fingerprint() == data.fingerprint()
        assert [sample.label for sample in again.samples] == [one.label for one in data.samples]


def test_a_video_is_an_epoch_whose_frames_can_be_asked_for_in_any_order(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.avi", "b.avi"):
        video = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (48, 32))
        for number in range(10):
            video.write(np.full((32, 48, 3), 20 * number, np.uint8))
        video.release()
    with open_epochs(folder) as data:
        assert len(data) == 20
        assert data.epoch_s == 2.0
        assert data.times_s[10:13].tolist() == [0.0, 0.2, 0.4]
        for index in (0, 13, 11, 19, 3, 10):
            assert abs(float(data.frame(index).mean()) - 20 * (index % 10)) < 3


def damage(name):
    """What is wrong with a folder of epochs, and what is said of it."""

    def one_frame(clips):
        said(clips, "e001", files=["00000.png"], seconds=[0.0])

    def length(clips):
        said(clips, "e001", length_s=9.0)

    def no_times(clips):
        (clips / "e001" / "epoch.json").unlink()

    def few_times(clips):
        said(clips, "e001", seconds=[0.0, 1.0])

    def falling(clips):
        said(clips, "e001", seconds=[0.0, 2.0, 1.0, 3.0])

    def too_early(clips):
        said(clips, "e001", seconds=[-1.0, 0.0, 1.0, 2.0])

    def too_late(clips):
        said(clips, "e001", seconds=[0.0, 1.0, 2.0, 7.0])

    def no_length(clips):
        said(clips, "e001", length_s=float("nan"))

    def overlap(clips):
        said(clips, "e001", moment_s=2.0)

    def gone(clips):
        (clips / "e001" / "00002.png").unlink()

    def outside(clips):
        said(clips, "e001", files=["../clips.csv"] * 4)

    def json_cut(clips):
        (clips / "e001" / "epoch.json").write_text('{"files": [')

    def other_kind(clips):
        (clips / "e001" / "epoch.json").write_text('{"files": 3, "seconds": "no"}')

    def video(clips):
        (clips / "x.mp4").write_bytes(b"no video at all")

    return locals()[name]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("one_frame", "e001: has 1 frame; .* at least 2"),
        ("length", "e001: lasts 9 s and others 4 s"),
        ("no_times", "e001: has no epoch.json, which says when each frame was taken"),
        ("few_times", "names 4 files and 2 seconds"),
        ("falling", "e001: the seconds .* must rise"),
        ("too_early", "e001: lasts 4 s, and has frames from -1 to 2 s"),
        ("too_late", "e001: lasts 4 s, and has frames from 0 to 7 s"),
        ("no_length", "e001: lasts nan s"),
        ("overlap", "e000 and e001: overlap in camera1"),
        ("gone", "'00002.png', which is no image there"),
        ("outside", "which is no image there"),
        ("json_cut", "e001: epoch.json cannot be read"),
        ("other_kind", r"e001: epoch.json is damaged \(files"),
        ("video", "x.mp4: the video cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(clips, what, words):
    damage(what)(clips)
    with pytest.raises(DataError, match=words) as raised:
        open_epochs(clips)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("epoch,from_s,to_s\ne000,0,4", "expected epoch,from_s,to_s,class"),
        ("epoch,from_s,to_s,class\nother,0,4,red", "line 2: there is no epoch 'other'"),
        ("epoch,from_s,to_s,class\ne000,0,4,red", "e001: .* no span for 0.050 s"),
        ("epoch,from_s,to_s,class\ne000,0,soon,red", "line 2: from_s and to_s are seconds"),
        ("epoch,from_s,to_s,class\ne000,0,nan,red", "from_s before to_s"),
        ("epoch,from_s,to_s,class\ne000,0,3,red\ne000,2,4,blue", "lines 2 and 3: overlap"),
        ("epoch,from_s,to_s,class\ne000,0,1,red\ne000,2,4,blue", "e000: .* no span for 1.050 s"),
        ("epoch,from_s,to_s,class\ne000,0", "line 2: has too few cells"),
    ],
)
def test_labels_that_do_not_fit_are_said_in_one_line(clips, rows, words):
    table = clips.with_name("other.csv")
    table.write_text(rows + "\n")
    with pytest.raises(DataError, match=words) as raised:
        open_epochs(clips, spans=table)
    assert "\n" not in str(raised.value)


def test_no_epochs_at_all(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_epochs(tmp_path / "nothing")
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(DataError, match="holds no epochs"):
        open_epochs(tmp_path)
