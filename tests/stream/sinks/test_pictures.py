import errno
import json
import os
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.stream.decisions import decision, escalated, frame
from tinysaver_edge._support.files import NOT_OURS
from tinysaver_edge.data.collection import Collection
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import read_looks
from tinysaver_edge.decision import AnswerSource, Reason
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.stream import (
    CalibrationSetSink,
    HardFramesSink,
    PreviewSink,
    Queued,
    RandomShare,
    VideoSink,
)
from tinysaver_edge.stream.sinks.pictures import PictureFolder
from tinysaver_edge.stream.sinks.video import annotated, caption
from tinysaver_edge.stream.sources.opening import open_source
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.testing import FakeClock

NOON = 1_700_000_000.0


def rows(folder):
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def hard(folder, *, clock=None, **options):
    return HardFramesSink(folder, clock=clock or FakeClock(), wall=lambda: NOON, **options)


def test_hard_frames_are_those_that_were_escalated(tmp_path):
    given = [
        decision(0),
        escalated(1),
        escalated(2, source=AnswerSource.FUSED, label="dog"),
        escalated(3, source=AnswerSource.FALLBACK, degraded="large failed"),
        escalated(4, source=AnswerSource.SAVER),
        decision(5, degraded="a device fell back"),
        escalated(
            6,
            source=AnswerSource.FALLBACK,
            degraded="provisional: big has been asked",
            reason=Reason.PROVISIONAL,
        ),
    ]
    with hard(tmp_path, pause_s=0.0) as sink:
        for one in given:
            sink.write(one, frame(one.frame_id.sequence))
        sink.write(escalated(9), None)
    found = rows(tmp_path)
    assert [row["sequence"] for row in found] == [1, 2, 3]
    assert [row["answer"] for row in found] == ["cat", "dog", "cat"]
    assert found[2]["degraded"] == "large failed"
    assert found[0]["file"] == "20231114T221320000-cam-1.jpg"
    picture = cv2.imread(str(tmp_path / found[0]["file"]))
    assert np.abs(picture.astype(int) - frame(1).image).mean() < 4


def test_one_hard_scene_does_not_fill_the_disk(tmp_path):
    clock = FakeClock()
    with hard(tmp_path, clock=clock, pause_s=1.0) as sink:
        for number in range(100):
            if sink.wants_frames:
                sink.write(escalated(number), frame(number))
            clock.advance(0.1)
    assert len(rows(tmp_path)) == 10


def test_the_oldest_frames_go_and_the_table_says_what_is_there(tmp_path):
    with hard(tmp_path, pause_s=0.0, most=20) as sink:
        for number in range(50):
            sink.write(escalated(number), frame(number))
            found = rows(tmp_path)
            assert len(found) <= 20
            assert {row["file"] for row in found} == {one.name for one in tmp_path.glob("*.jpg")}
    assert [row["sequence"] for row in rows(tmp_path)][-1] == 49


def test_a_folder_is_continued_and_what_a_kill_left_is_put_right(tmp_path):
    with hard(tmp_path, pause_s=0.0, most=4) as sink:
        for number in range(3):
            sink.write(escalated(number), frame(number))
    next(tmp_path.glob("*-1.jpg")).unlink()
    with (tmp_path / "frames.jsonl").open("a") as table:
        table.write('{"file": "x')
    with hard(tmp_path, pause_s=0.0, most=4) as sink:
        assert [row["sequence"] for row in rows(tmp_path)] == [0, 2]
        for number in range(10, 13):
            sink.write(escalated(number), frame(number))
    assert [row["sequence"] for row in rows(tmp_path)] == [2, 10, 11, 12]


def test_a_full_disk_leaves_no_half_a_frame(tiny_disk):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    folder = PictureFolder(tiny_disk / "frames", suffix=".png", most=100)
    folder.open()
    failed = 0
    for number in range(10):
        try:
            folder.save(noise, escalated(number), time_s=NOON + number)
        except OSError:
            failed += 1
    folder.close()
    assert failed
    files = sorted(one.name for one in folder.path.iterdir() if one.suffix == ".png")
    assert [row["file"] for row in rows(folder.path)] == files
    assert all(cv2.imread(str(folder.path / one)) is not None for one in files)
    assert not [one for one in folder.path.iterdir() if one.name.startswith(".")]


def field(folder, *, share=0.1, seed=2, wall=lambda: NOON, **options):
    saved = CalibrationSetSink(folder, wall=wall, **options)
    return RandomShare(
        Queued(saved, clock=time.monotonic, pictures=1000),
        folder=folder,
        written=lambda: saved.written,
        share=share,
        seed=seed,
        wall=wall,
    )


def test_a_random_share_of_all_frames_is_the_next_calibration_set(tmp_path):
    """Whatever became of a frame: each kind is in the set as often as in the stream."""
    folder = tmp_path / "field"
    kinds = (
        decision,
        escalated,
        lambda number: decision(number, source=AnswerSource.FALLBACK, degraded="late"),
        lambda number: decision(number, degraded="asked", reason=Reason.PROVISIONAL),
    )
    with field(folder) as sample:
        for number in range(4000):
            sample.write(kinds[number % 4](number), frame(number))
    found = rows(folder)
    shares = [sum(row["sequence"] % 4 == kind for row in found) / 1000 for kind in range(4)]
    assert shares == pytest.approx([0.1, 0.1, 0.1, 0.0], abs=0.03)
    collection = Collection.read(folder)
    assert collection.file.written == collection.file.drawn == len(found)
    assert collection.file.share == 0.1
    assert "each of the decided frames was drawn with probability 0.1" in collection.statement
    with pytest.raises(DataError, match="line 1: no label; answer is what the models said"):
        open_data(folder / "frames.jsonl")
    with open_data(folder / "frames.jsonl", labelled=False) as data:
        assert len(data) == len(found)
        number = found[5]["sequence"]
        assert (data.frame(5) == frame(number).image).all()
        assert collection.doubt(read_looks(data).content) is None


def test_drawn_frames_that_could_not_be_saved_are_counted(tiny_disk):
    folder = tiny_disk / "field"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    (tiny_disk / "room").write_bytes(bytes(20_000))
    sample = field(folder, share=0.5)
    with sample:
        for number in range(30):
            sample.write(escalated(number), replace(frame(number), image=noise))
        until_written(sample)
        (tiny_disk / "room").unlink()
    collection = Collection.read(folder)
    missed = sum(collection.file.missed.values())
    assert missed > 0
    assert collection.file.written == len(list(folder.glob("*.png"))) > 0
    assert collection.file.drawn == collection.file.written + missed
    before = collection.file.drawn
    with field(folder, share=0.5, seed=3):
        pass
    assert Collection.read(folder).file.drawn == before  # what was missed stays said


def until_written(sample):
    deadline = time.monotonic() + 10
    while sample._sink._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)


def test_what_was_drawn_otherwise_is_not_added_to(tmp_path):
    with field(tmp_path / "field", share=0.5) as sample:
        sample.write(escalated(1), frame(1))
    with pytest.raises(InputError, match=r"drawn with probability 0\.5; name a new folder"):
        field(tmp_path / "field", share=0.1).__enter__()
    with hard(tmp_path / "hard") as sink:
        sink.write(escalated(1), frame(1))
    with pytest.raises(InputError, match="nobody knows how they were drawn"):
        field(tmp_path / "hard").__enter__()


def test_a_killed_stream_leaves_what_is_not_believed_and_the_next_puts_it_right(tmp_path):
    folder = tmp_path / "field"
    killed = field(folder, share=1.0)
    killed.__enter__()
    for number in range(5):
        killed.write(escalated(number), frame(number))
    killed._sink.__exit__(None, None, None)  # what was queued is on disk, the end never came
    with pytest.raises(DataError, match="not finished"):
        Collection.read(folder)
    with field(folder, share=1.0) as sample:
        sample.write(escalated(7), frame(7))
    assert Collection.read(folder).file.written == 6


def test_what_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be saved"), hard(tmp_path / "file"):
        pass
    for options in ({"most": 0}, {"pause_s": -1.0}):
        with pytest.raises(InputError):
            hard(tmp_path, **options)


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while True:
        good, picture = capture.read()
        if not good:
            return pictures
        pictures.append(picture)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv"])
def test_a_video_has_every_frame_with_its_answer(tmp_path, ending):
    with VideoSink(tmp_path / f"out{ending}", fps=25) as sink:
        for number in range(12):
            sink.write(decision(number), frame(number, height=240, width=320))
        sink.write(decision(5, revision=1), frame(5, height=240, width=320))
        sink.write(decision(12), None)
    pictures = read_video(tmp_path / f"out{ending}")
    assert [one.shape for one in pictures] == [(240, 320, 3)] * 12
    drawn = annotated(frame(3, height=240, width=320).image, decision(3))
    assert np.abs(pictures[3].astype(int) - drawn).mean() < 12


def test_each_source_has_its_own_video_and_sizes_are_made_to_fit(tmp_path):
    with VideoSink(tmp_path / "out.avi", by_source=True) as sink:
        for number in range(3):
            for source in ("door", "rtsp://yard/1", "rtsp/yard/1"):
                given = frame(number, source_id=source, height=60 + 20 * number, width=80)
                sink.write(decision(number, source_id=source), given)
    assert {one.name for one in tmp_path.iterdir()} == {
        "out.door.avi", "out.rtsp_yard_1.avi", "out.rtsp_yard_1-2.avi",
    }  # fmt: skip
    for one in tmp_path.iterdir():
        assert [picture.shape for picture in read_video(one)] == [(60, 80, 3)] * 3


@pytest.mark.parametrize("names", [("red",), ("red", "blue")])
def test_a_folder_of_pictures_becomes_one_video(tmp_path, names):
    for name in names:
        for number in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.zeros((40, 60, 3), np.uint8))
    with VideoSink(tmp_path / "out.avi", by_source=len(names) > 1) as sink:
        for name in names:
            source = open_source(tmp_path / name)
            source.attach(Context(sources=len(names)))
            for one in source.frames():
                sink.write(decision(one.sequence, source_id=one.source_id), one)
    films = ["out.avi"] if len(names) == 1 else ["out.blue.avi", "out.red.avi"]
    assert sorted(one.name for one in tmp_path.glob("out*")) == films
    assert [len(read_video(tmp_path / film)) for film in films] == [3] * len(films)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv"])
def test_a_video_takes_the_place_of_one_of_ours_alone(tmp_path, monkeypatch, ending):
    path = tmp_path / f"out{ending}"

    def wrote(frames):
        with VideoSink(path) as sink:
            for number in range(frames):
                sink.write(decision(number), frame(number, height=120, width=160))

    wrote(3)
    wrote(2)
    path.write_bytes(path.read_bytes())  # as copied: no attribute comes along
    monkeypatch.setattr(os, "setxattr", lambda *_: None, raising=False)
    monkeypatch.setattr(os, "getxattr", _no_attribute, raising=False)  # as on a stick
    wrote(3)
    assert len(read_video(path)) == 3
    theirs = path.read_bytes().removesuffix(b"tinysaver-edge")
    path.write_bytes(theirs)
    with pytest.raises(InputError, match=NOT_OURS):
        wrote(1)
    assert path.read_bytes() == theirs
    if ending == ".mp4":  # a kill leaves no index
        path.write_bytes(theirs[: theirs.index(b"moov") - 4])
        wrote(1)


def _no_attribute(*_):
    raise OSError(errno.ENOTSUP, "no attributes here")


def test_a_video_that_lacks_frames_is_told_at_the_end(tmp_path):
    path = tmp_path / "out.avi"
    sink = VideoSink(path).__enter__()
    for number in range(5):
        sink.write(decision(number), frame(number, height=120, width=160))
    (tmp_path / "other").touch()
    (tmp_path / "other").replace(path)
    with pytest.raises(OSError, match="holds 0 of 5 frames"):
        sink.__exit__(None, None, None)


def test_saved_pictures_are_their_users_alone(tmp_path):
    with VideoSink(tmp_path / "out.avi") as sink:
        sink.write(decision(0), frame(0, height=120, width=160))
    folder = PictureFolder(tmp_path / "frames", suffix=".jpg", most=4)
    folder.open()
    for number in range(6):
        folder.save(frame(number).image, decision(number), time_s=NOON + number)
    folder.close()
    saved = [tmp_path / "out.avi", tmp_path / "frames", *(tmp_path / "frames").iterdir()]
    assert len(saved) > 4
    assert [one.name for one in saved if one.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    "name", ["../victim.jpg", "{root}/victim.jpg", "a/../../victim.jpg", "frames.jsonl", "."]
)
def test_what_a_table_names_outside_its_folder_is_left_alone(tmp_path, name):
    victim, path = tmp_path / "victim.jpg", tmp_path / "frames"
    victim.write_bytes(b"keep me")
    (path / "a").mkdir(parents=True)
    row = {"file": name.format(root=tmp_path), "label": "x", "saved_at_s": NOON}
    (path / "frames.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    folder = PictureFolder(path, suffix=".jpg", most=2)
    folder.open()
    for number in range(6):
        folder.save(frame(number).image, decision(number), time_s=NOON + number)
    folder.close()
    assert victim.read_bytes() == b"keep me"
    assert len(rows(path)) <= 2


@pytest.mark.parametrize("line", ['{"file": "photo.jpg", "label": "x"}', "7", '["photo.jpg"]'])
def test_a_table_of_something_else_is_not_taken_over(tmp_path, line):
    """Its pictures would be removed one day, and lines that are not ours at once."""
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    (tmp_path / "frames.jsonl").write_text(f"{line}\nno JSON\n")
    with pytest.raises(InputError, match="holds rows of something else; name a new folder"):
        PictureFolder(tmp_path, suffix=".jpg", most=2).open()
    assert (tmp_path / "frames.jsonl").read_text() == f"{line}\nno JSON\n"


def test_a_full_disk_is_noticed_before_the_video_breaks(tiny_disk):
    with VideoSink(tiny_disk / "out.avi") as sink, pytest.raises(OSError, match="No space"):
        sink.write(decision(0), frame(0))


def test_a_video_that_was_removed_is_missed(tmp_path):
    path = tmp_path / "out.avi"
    with VideoSink(path) as sink:
        sink.write(decision(0), frame(0))
        path.unlink()
        with pytest.raises(FileNotFoundError, match="removed"):
            sink.write(decision(1), frame(1))


def test_a_video_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        VideoSink(tmp_path / "out.gif")
    with pytest.raises(InputError, match="frames a second"):
        VideoSink(tmp_path / "out.mp4", fps=0)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be"), VideoSink(tmp_path / "file" / "o.mp4"):
        pass


def test_the_answer_is_drawn_on_a_copy():
    given = frame(3, height=120, width=160)
    before = given.image.copy()
    drawn = annotated(given.image, decision(3, label="nächste Straße" * 9, degraded="late"))
    assert (given.image == before).all()
    assert (drawn[:100] == before[:100]).all()
    assert (drawn[110:] != before[110:]).any()
    assert caption(decision(label="dog", confidence=0.5)) == "dog  50 %  saver"
    assert caption(decision(degraded="late")).endswith("degraded: late")


@pytest.mark.parametrize("shape", [(1, 1), (4, 300), (300, 4)])
def test_pictures_of_any_size_can_be_drawn_on(shape):
    assert annotated(np.zeros((*shape, 3), np.uint8), decision()).shape == (*shape, 3)


def test_without_a_display_the_preview_says_what_to_do():
    with pytest.raises(InputError, match=r"no display here.*--dashboard"):
        PreviewSink(environment={}).__enter__()


def has_windows():
    """Whether this OpenCV was built with them; opencv-python-headless is not."""
    try:
        cv2.destroyAllWindows()
    except cv2.error:
        return False
    return True


@pytest.mark.skipif(has_windows(), reason="this OpenCV has windows")
def test_an_opencv_without_windows_says_what_to_do():
    with pytest.raises(InputError, match="pip install opencv-python"):
        PreviewSink(environment={"DISPLAY": ":0"}).__enter__()


@pytest.mark.skipif(not os.access("/usr/bin/Xvfb", os.X_OK), reason="no Xvfb: apt-get install xvfb")
@pytest.mark.skipif(not has_windows(), reason="opencv-python-headless has no windows")
def test_the_preview_shows_a_window_on_a_real_display(tmp_path):
    from tests.stream.sinks.display import run_preview

    said = run_preview(tmp_path)
    assert said["shown"] == 20
    assert said["colour"] == [10, 200, 90]
    assert said["quits"] == 1
    assert said["wants_frames_after"] is False


@pytest.mark.parametrize("kind", ["video", "hard frames", "calibration set"])
def test_two_runs_do_not_write_over_each_other(tmp_path, kind):
    """Whoever came second would lose the other's frames, and both would say that all is well."""

    def made():
        if kind == "video":
            return VideoSink(tmp_path / "film.avi", fps=5)
        if kind == "hard frames":
            return hard(tmp_path / "saved", pause_s=0.0)
        return CalibrationSetSink(tmp_path / "saved", wall=lambda: NOON)

    first = made()
    with first:
        with pytest.raises(InputError, match="another run writes there: name another place"):
            made().__enter__()
        assert first.write(escalated(0), frame(0))
    with made() as again:
        assert again.write(escalated(1), frame(1))
