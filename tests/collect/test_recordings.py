"""Recordings: each frame weighs as long as it is shown, in whatever file it lies."""

import json
import struct
import threading

import cv2
import numpy as np
import pytest
from scipy import stats

from tests.pictures import encoded
from tests.stream.sources.test_container import boxes, find
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.recordings import Recording, collect_recorded
from tinysaver_edge.collect.store import Store
from tinysaver_edge.data.collection import Collection, CollectionState, read_summary
from tinysaver_edge.data.epochs import open_epochs
from tinysaver_edge.errors import DataError, InputError
from tinysaver_edge.stream.sources.opening import open_source

FPS = 10
WALL_S = 1_800_000_000.0
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def video(path, frames):
    """Write a film whose frames show their numbers, as eight squares that are dark or bright."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (64, 32))
    for number in range(frames):
        bits = [
            [30 + 190 * (number >> 4 * row + column & 1) for column in range(4)] for row in (0, 1)
        ]
        squares = np.kron(np.array(bits, np.uint8), np.ones((16, 16), np.uint8))
        film.write(np.repeat(squares[..., None], 3, axis=2))
    film.release()
    return path


def slowed(data, first, times):
    """Have a film's frames after the first so many be shown so many times as long."""
    data = bytearray(data)
    start, end = find(data, *PARENTS, b"stts")
    entries, count, delta = struct.unpack(">III", data[start + 12 : start + 24])
    assert (entries, end - start) == (1, 24)
    table = struct.pack(">IIIII", 2, first, delta, count - first, times * delta)
    data[start:end] = struct.pack(">I4sI", 12 + len(table), b"stts", 0) + table
    for depth in range(len(PARENTS)):
        place = find(data, *PARENTS[: depth + 1])[0]
        size = struct.unpack(">I", data[place : place + 4])[0] + 8
        data[place : place + 4] = struct.pack(">I", size)
    # An edit list would cut the longer film off where the shorter one ended.
    for kind, place, _ in list(boxes(data, find(data, b"moov", b"trak")[0] + 8, len(data))):
        if kind == b"edts":
            data[place + 4 : place + 8] = b"free"
        if kind == b"mdia":
            break
    return bytes(data)


def recording(path, name="film"):
    return Recording(name, lambda: open_source(path), path.stat().st_size)


def collected(folder, recordings, draw, *, stop=None, **more):
    with Store(folder) as store:
        return collect_recorded(
            recordings, store, draw, wall=lambda: WALL_S, stop=stop or threading.Event(), **more
        )


def number_of(path):
    bright = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[8::16, 8::16] > 125
    return int((bright.ravel() << np.arange(8)).sum())


def numbers(folder):
    return [number_of(folder / one.file) for one in Collection.read(folder).written]


def test_frames_of_a_film_are_drawn_by_time(tmp_path):
    """20 frames of a tenth of a second, then 20 of four tenths: four fifths fall on the latter."""
    path = tmp_path / "film.mp4"
    path.write_bytes(slowed(video(tmp_path / "even.mp4", 40).read_bytes(), 20, 4))
    file = collected(tmp_path / "out", [recording(path)], Draw(400, seed=1))
    assert file.written == 400
    assert file.period_s == pytest.approx(2 + 8, abs=0.5)
    drawn = np.array(numbers(tmp_path / "out"))
    assert stats.binomtest(int((drawn >= 20).sum()), 400, 8 / 10).pvalue > 0.001
    assert stats.chisquare(np.bincount(drawn[drawn >= 20] - 20, minlength=20)).pvalue > 0.001
    for one in Collection.read(tmp_path / "out").written:
        at_s = one.moment_s
        wanted = at_s * FPS if at_s < 2 else 20 + (at_s - 2) / 0.4
        assert abs(number_of(tmp_path / "out" / one.file) - int(wanted)) <= 1


def test_a_frame_that_is_drawn_twice_is_there_twice(tmp_path):
    path = video(tmp_path / "film.mp4", 5)
    file = collected(tmp_path / "out", [recording(path)], Draw(100, seed=2))
    assert file.written == 100 == len(list((tmp_path / "out").glob("*.png")))
    counts = np.bincount(numbers(tmp_path / "out"), minlength=5)
    assert stats.chisquare(counts).pvalue > 0.001


def test_several_recordings_and_a_folder_of_pictures(tmp_path):
    (tmp_path / "stills").mkdir()
    for number in range(10):
        (tmp_path / "stills" / f"{number}.png").write_bytes(encoded(number))
    stills = Recording("stills", lambda: open_source(tmp_path / "stills"))
    film = recording(video(tmp_path / "film.mp4", 20))
    file = collected(tmp_path / "out", [film, stills], Draw(240, seed=3))
    assert file.period_s == pytest.approx(2 + 10)  # a picture counts as a second
    of_film, of_stills = (one.written for one in file.sources)
    assert of_film + of_stills == 240
    assert stats.binomtest(of_film, 240, 2 / 12).pvalue > 0.001
    collection = Collection.read(tmp_path / "out")
    still = next(one for one in collection.written if one.source == "stills")
    exact = cv2.imread(str(tmp_path / "stills" / f"{int(still.moment_s)}.png"))
    assert (cv2.imread(str(tmp_path / "out" / still.file)) == exact).all()


def test_damaged_frames_are_drawn_less_and_a_damaged_film_is_refused(tmp_path):
    whole = bytearray(video(tmp_path / "film.mp4", 40).read_bytes())
    start, end = find(whole, b"mdat")
    whole[start + (end - start) // 2 : end] = bytes(end - start - (end - start) // 2)
    (tmp_path / "cut.mp4").write_bytes(whole)
    file = collected(tmp_path / "out", [recording(tmp_path / "cut.mp4")], Draw(30, seed=4))
    assert file.written + sum(file.missed.values()) == 30
    (tmp_path / "noise.mp4").write_bytes(b"\0" * 1000)
    with pytest.raises(InputError, match=r"noise\.mp4"):
        collected(tmp_path / "none", [recording(tmp_path / "noise.mp4")], Draw(30, seed=4))
    assert not (tmp_path / "none").exists()


def test_it_goes_on_where_it_was_stopped(tmp_path):
    path = video(tmp_path / "film.mp4", 60)
    draw, stop = Draw(200, seed=5), threading.Event()

    class Until(Store):
        def take(self, moment, data):
            if len(list(self.folder.glob("*.png"))) == 50:
                stop.set()
            return super().take(moment, data)

    with Until(tmp_path / "out") as store:
        assert (
            collect_recorded([recording(path)], store, draw, wall=lambda: WALL_S, stop=stop) is None
        )
    assert read_summary(tmp_path / "out" / "collection.json").state is CollectionState.COLLECTING
    with pytest.raises(DataError, match="not finished"):
        Collection.read(tmp_path / "out")
    before = {one.name: one.read_bytes() for one in (tmp_path / "out").glob("*.png")}
    assert 50 <= len(before) < 200
    other = video(tmp_path / "other.mp4", 61)
    with pytest.raises(InputError, match="not the recording"):
        collected(tmp_path / "out", [recording(other)], draw)
    file = collected(tmp_path / "out", [recording(path)], None)
    once = collected(tmp_path / "once", [recording(path)], draw)
    assert (file.written, file.missed) == (once.written, once.missed) == (200, {})
    for one in (tmp_path / "out").glob("*.png"):
        assert one.read_bytes() == (tmp_path / "once" / one.name).read_bytes()
    assert before.keys() <= {one.name for one in (tmp_path / "once").glob("*.png")}


def test_epochs_of_a_film_keep_its_times(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(slowed(video(tmp_path / "even.mp4", 40).read_bytes(), 20, 4))
    draw = Draw(12, seed=6, epoch_s=1.0)
    file = collected(tmp_path / "out", [recording(path)], draw)
    assert file.written == 12
    for one in Collection.read(tmp_path / "out").written:
        folder = tmp_path / "out" / one.file
        told = json.loads((folder / "epoch.json").read_text())
        assert told["start"] is None
        assert told["source"] == "film"
        assert told["seconds"][0] == 0.0
        assert told["seconds"][-1] < 1.0
        taken = [number_of(folder / name) for name in told["files"]]
        assert taken == list(range(taken[0], taken[0] + len(taken)))
        gaps = np.diff(told["seconds"])
        wanted = [0.1 if number < 20 else 0.4 for number in taken[:-1]]
        assert gaps == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("what", ["frame", "times", "more"])
def test_an_epoch_that_was_changed_is_no_draw(tmp_path, what):
    out = tmp_path / "out"
    collected(out, [recording(video(tmp_path / "film.mp4", 60))], Draw(4, seed=3, epoch_s=1.0))
    with open_epochs(out) as data:
        assert data.collection is not None
        changed = data.epochs[1].path
    if what == "frame":
        (changed / "00001.png").write_bytes((changed / "00000.png").read_bytes())
    elif what == "times":
        told = json.loads((changed / "epoch.json").read_text())
        told["seconds"][-1] += 0.001
        (changed / "epoch.json").write_text(json.dumps(told))
    else:
        (changed / "notes").mkdir()
    with pytest.raises(DataError, match=f"{changed.name} is not as it was collected"):
        open_epochs(out)


def test_epochs_want_times_and_length(tmp_path):
    (tmp_path / "stills").mkdir()
    for number in range(10):
        (tmp_path / "stills" / f"{number}.png").write_bytes(encoded(number))
    stills = Recording("stills", lambda: open_source(tmp_path / "stills"))
    with pytest.raises(InputError, match="does not say when"):
        collected(tmp_path / "out", [stills], Draw(3, seed=0, epoch_s=2.0))
    film = recording(video(tmp_path / "film.mp4", 20))
    with pytest.raises(InputError, match="none as long as 5 s"):
        collected(tmp_path / "out", [film], Draw(3, seed=0, epoch_s=5.0))


def test_a_full_disk_ends_it_in_a_line_and_it_goes_on(tiny_disk, tmp_path):
    path = video(tmp_path / "film.mp4", 30)
    ballast = tiny_disk / "other"
    ballast.write_bytes(b"x" * 25_000)
    with pytest.raises(InputError, match="no space left on device; what is written is whole"):
        collected(tiny_disk / "out", [recording(path)], Draw(8, seed=7))
    ballast.unlink()
    file = collected(tiny_disk / "out", [recording(path)], Draw(8, seed=7))
    assert (file.drawn, file.written, file.missed) == (8, 8, {})


def moving(path, seed, *, size=(64, 36), four="mp4v"):
    """Write 12 s of a fixed place that something moves in, somewhere else for each seed."""
    place = np.random.default_rng(0).integers(60, 200, (36, 64, 3)).astype(np.uint8)
    rng = np.random.default_rng(seed)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*four), FPS, size)
    for second in range(12):
        frame, (x, y) = place.copy(), rng.integers(0, (44, 20))
        frame[y : y + 16, x : x + 20] = 255 * (second % 2)
        for _ in range(FPS):
            film.write(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    film.release()
    return path


def test_a_recording_that_is_there_twice_is_refused(tmp_path):
    """Encoded anew, at another size; another day at the same place is none."""
    one = recording(moving(tmp_path / "a.mp4", 1), "one")
    again = recording(moving(tmp_path / "b.avi", 1, size=(96, 54), four="MJPG"), "again")
    other = recording(moving(tmp_path / "c.mp4", 2), "other")
    with pytest.raises(InputError, match="--from again: shows from second to second what one"):
        collected(tmp_path / "twice", [one, other, again], Draw(10, seed=1))
    file = collected(tmp_path / "both", [one, other], Draw(10, seed=1))
    assert file.period_s == pytest.approx(24)


def test_what_is_hidden_in_its_folder_and_not_its_own_stays(tmp_path):
    film, folder = recording(video(tmp_path / "film.mp4", 30)), tmp_path / "out"
    collected(folder, [film], Draw(3, 1))
    own = [".git/HEAD", ".env", ".DS_Store", ".dvc/config", ".x.0123456789ab"]
    left = [".room", ".collection.json.0123456789ab", f".{read_names(folder)[0]}.0123456789ab"]
    for name in (*own, *left):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    with Store(folder):
        pass
    assert all((folder / name).is_file() for name in own)
    assert not any((folder / name).exists() for name in left)


def read_names(folder):
    return sorted(path.name for path in folder.glob("*.png"))
