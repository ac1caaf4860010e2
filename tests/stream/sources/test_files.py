import os
import struct

import cv2
import numpy as np
import pytest

from tests.pictures import encoded, picture
from tests.real_data import data_folder
from tinysaver_edge.errors import InputError, SourceError
from tinysaver_edge.stream.sources import files, opencv
from tinysaver_edge.stream.sources.files import open_file
from tinysaver_edge.stream.sources.source import Context
from tinysaver_edge.stream.telemetry.events import Connected, Corrupt, Doubtful, Ended


def open_frames(path):
    return open_file(path).frames()


def test_one_image(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(1))
    (frame,) = open_frames(tmp_path / "a.png")
    assert (frame.image == picture(1)).all()
    assert (frame.frame_id.source_id, frame.frame_id.sequence) == ("a.png", 0)
    assert frame.timestamp_s == 0.0


def test_a_folder_of_images_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate(["b/2.png", "b/1.JPG", "a/9.bmp", "c.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(number, path.suffix.lower()))
    (tmp_path / "notes.txt").write_text("no image")
    frames = list(open_frames(tmp_path))
    names = [frame.frame_id.source_id for frame in frames]
    assert names == ["a/9.bmp", "b/1.JPG", "b/2.png", "c.png"]
    assert [frame.frame_id.sequence for frame in frames] == [0, 1, 2, 3]


def test_an_image_that_cannot_be_read_leaves_a_gap(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    (tmp_path / "1.png").write_bytes(encoded(1)[:60])
    (tmp_path / "3.png").symlink_to("nowhere")
    (tmp_path / "4.png").mkdir()
    (tmp_path / "5.png").write_bytes(encoded(5))
    assert [frame.frame_id.sequence for frame in open_frames(tmp_path)] == [0, 2, 4]


def test_what_calibration_leaves_out_is_not_decided_either(tmp_path):
    own = (".ipynb_checkpoints/1.png", "__MACOSX/._1.png", "._1.png", "@eaDir/1.png", "Thumbs.db")
    for name in ("1.png", "2.heic", *own):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(1))
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "@eaDir")
    names, events = told(tmp_path)
    assert names == ["1.png", "linked/1.png"]
    assert [type(event) for event in events] == [Doubtful] * 3
    assert "1 × .heic): 2.heic" in events[0].text
    assert "again" in events[1].text


def test_pictures_that_go_dark_are_told_of_once(tmp_path):
    ramp = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), ramp)
    names, (event,) = told(tmp_path)
    assert names == ["1.png", "2.png"]
    assert event.source_id == "1.png"
    assert event.text.startswith("has 16 bits a channel, of which 12 are used")


def test_files_of_more_than_one_picture_are_told_of_once(tmp_path):
    for name in ("1.tif", "2.tif"):
        cv2.imwritemulti(str(tmp_path / name), [np.zeros((8, 8, 3), np.uint8)] * 2)
    names, (event,) = told(tmp_path)
    assert names == ["1.tif", "2.tif"]
    assert event.text.startswith("is of more than one picture (animations, pages): the first is")


def test_names_that_are_no_text_are_decided(tmp_path):
    for name in (b"caf\xe9.png", b"a\nb.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(encoded(1))
    assert told(tmp_path) == ([r"a\nb.png", r"caf\xe9.png"], [])


def told(folder):
    """The names of a folder's frames and what was told besides."""
    events = []
    source = open_file(folder)
    source.attach(Context(listener=events.append))
    names = [frame.frame_id.source_id for frame in source.frames()]
    return names, [one for one in events if not isinstance(one, Connected | Ended)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "no such file or folder"),
        ("missing", None, "no such file or folder"),
        ("a.png", b"no image", r"a\.png: not a readable image"),
        ("a.png", b"", r"a\.png: is empty"),
        ("a.mp4", b"no video", r"a\.mp4: no video but text"),
        ("a.mp4", b"", r"a\.mp4: the file is empty"),
        ("notes.txt", b"text", r"notes\.txt: no video but text"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(open_frames(tmp_path / name))


def test_a_folder_without_one_readable_image(tmp_path):
    with pytest.raises(InputError, match="no images in this folder"):
        open_frames(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        list(open_frames(tmp_path))


def test_what_is_missing_is_told_before_the_first_frame(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_frames(tmp_path / "missing.mp4")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten frames at ten a second, ever brighter."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(10):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def test_a_video_gives_every_frame_its_number_and_time(video):
    frames = list(open_frames(video))
    assert [frame.frame_id.sequence for frame in frames] == list(range(10))
    assert {frame.frame_id.source_id for frame in frames} == {"clip.avi"}
    assert [frame.timestamp_s for frame in frames] == pytest.approx([n / 10 for n in range(10)])
    for number, frame in enumerate(frames):
        assert abs(int(frame.image.mean()) - 20 * number) <= 3


def test_frames_are_read_when_they_are_asked_for(video):
    frames = open_frames(video)
    first, second = next(frames), next(frames)
    assert (second.frame_id.sequence, first.image.shape) == (1, (48, 64, 3))
    assert not np.shares_memory(first.image, second.image)
    frames.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="no such file"):
        open_frames(tmp_path / "pipe.mp4")


REAL = data_folder() / "video" / "bottles-360p.mp4"


@pytest.mark.skipif(not REAL.is_file(), reason="no video in ../shared/data")
def test_a_real_video():
    frames = []
    for frame in open_frames(REAL):
        frames.append((frame.frame_id.sequence, frame.timestamp_s, frame.image.shape))
        if len(frames) == 30:
            break
    assert [number for number, _, _ in frames] == list(range(30))
    assert (np.diff([time for _, time, _ in frames]) > 0.03).all()
    assert {shape for _, _, shape in frames} == {(360, 640, 3)}


def test_names_of_films_and_pictures_steer_no_terminal(tmp_path):
    name = "a\x1b[2Jb\u202e"
    for ending in (".png", ".mp4"):
        (tmp_path / f"{name}{ending}").write_bytes(encoded(1))
        assert open_file(tmp_path / f"{name}{ending}").source_id == f"a\\x1b[2Jb\\u202e{ending}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.png").write_bytes(encoded(1))
    (tmp_path / name / "2.png").write_bytes(encoded(1))
    assert open_file(tmp_path / name).source_id == "a\\x1b[2Jb\\u202e"


def test_an_image_of_any_length_takes_no_more_memory_than_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_FILE_BYTES", 1 << 20)
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encoded(1))
    os.truncate(tmp_path / "2.png", 1 << 40)
    os.mkfifo(tmp_path / "3.png")
    source, events = open_file(tmp_path), []
    source.attach(Context(listener=events.append))
    assert [frame.sequence for frame in source.frames()] == [0]
    reasons = [event.reason for event in events if isinstance(event, Corrupt)]
    assert reasons == [
        "2.png: longer than 1 MiB",
        "3.png: cannot be read (is a pipe, no file)",
    ]


def film(path, size, frames=3):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    for _ in range(frames):
        writer.write(np.zeros((*size[::-1], 3), np.uint8))
    writer.release()
    return path


def test_a_film_that_claims_frames_without_end_comes_to_one(tmp_path):
    path = film(tmp_path / "a.avi", (32, 24))
    data = bytearray(path.read_bytes())
    for place in (data.find(b"avih") + 8 + 16, data.find(b"strh") + 8 + 32):
        struct.pack_into("<I", data, place, 4_000_000_000)
    path.write_bytes(data)
    assert sum(1 for _ in open_frames(path)) == 3


def test_a_film_of_too_many_pixels_is_refused_before_any_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(opencv, "MOST_PIXELS", 32 * 24 - 1)
    with pytest.raises(SourceError, match=r"source a\.avi: frames of 32 x 24 pixels; at most"):
        next(open_frames(film(tmp_path / "a.avi", (32, 24))))
