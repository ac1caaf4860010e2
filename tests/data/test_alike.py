"""Copies and frames of one clip are found; pictures that are independent are not taken for such."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from tests.colours import colour_picture
from tests.pictures import picture
from tests.real_data import data_folder
from tinysaver_edge.data.alike import Alike, find_alike
from tinysaver_edge.data.files import open_data
from tinysaver_edge.data.looks import SIDE, Looks, content_hash, read_looks
from tinysaver_edge.preprocess import Frame

DATA = data_folder()


def looks(frames: Sequence[Frame]) -> Looks:
    small = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in frames]
    content = np.array([content_hash(one.tobytes()) for one in frames], np.uint64)
    return Looks(content, np.array(small), np.zeros(len(frames), np.int64))


def found(
    frames: Sequence[Frame],
    *,
    names: Callable[[int], str] = "{:04d}.png".format,
    labels: Callable[[int], str] = lambda _: "a",
    groups: Sequence[str] | None = None,
) -> Alike:
    places = range(len(frames))
    result = find_alike(
        looks(frames),
        [names(place) for place in places],
        [labels(place) for place in places],
        None if groups is None else np.array(groups),
    )
    assert result is not None
    return result


def hashed(place: int) -> str:
    return hashlib.sha256(str(place).encode()).hexdigest()


@functools.cache
def scene(number: int, *, size: int = 480) -> Frame:
    """A picture with detail of every size."""
    rng = np.random.default_rng(number)
    total = np.zeros((size, size, 3))
    for step in (4, 8, 16, 32, 64):
        coarse = rng.normal(0, 256 / step, (step, step, 3))
        total += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def clip(scenes: int, frames: int, *, speed: int, noise: float = 4.0) -> list[Frame]:
    """A camera that moves over some scenes, so many pixels of 240 a frame."""
    rng = np.random.default_rng(1)
    taken = []
    for number in range(scenes):
        whole = scene(number)
        for step in range(frames):
            place = min(step * speed, 240)
            view = whole[place : place + 240, 240 - place : 480 - place]
            small = cv2.resize(view, (96, 96), interpolation=cv2.INTER_AREA)
            taken.append(np.clip(small + rng.normal(0, noise, small.shape), 0, 255))
    return [one.astype(np.uint8) for one in taken]


INDEPENDENT = {
    "colours": [colour_picture(i % 6, i) for i in range(400)],
    "patches": [picture(i) for i in range(400)],
    "scenes": [cv2.resize(scene(i), (96, 96), interpolation=cv2.INTER_AREA) for i in range(150)],
    "black": [np.zeros((32, 32, 3), np.uint8) + np.uint8(i % 2) for i in range(2)]
    + [colour_picture(i % 6, i, size=24) for i in range(300)],
}


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_independent_pictures_pass(kind: str) -> None:
    frames = INDEPENDENT[kind]
    result = found(frames)
    assert result.independent
    assert result.weight > 0.97 * len(frames)
    assert result.copies == 0


@pytest.mark.arithmetic
@pytest.mark.parametrize("names", ["{:04d}.png".format, hashed], ids=["in order", "hashed"])
@pytest.mark.parametrize("labels", [lambda _: "a", lambda i: "abc"[i % 3]], ids=["one", "mixed"])
@pytest.mark.parametrize("speed", [0, 2, 5])
def test_frames_of_a_clip_are_no_independent_pictures(
    names: Callable[[int], str], labels: Callable[[int], str], speed: int
) -> None:
    frames = clip(8, 25, speed=speed)
    order = sorted(range(len(frames)), key=names)
    result = found([frames[place] for place in order], names=names, labels=labels)
    assert not result.independent
    assert result.weight < 0.6 * len(frames)
    assert result.example is not None


def test_a_quick_clip_gives_itself_away_by_its_order() -> None:
    frames = clip(12, 9, speed=30)
    result = found(frames, names="{}.png".format)  # 10 comes after 9, not after 1
    assert result.order is not None
    assert result.order > 0.7
    assert not result.independent
    assert "in the order of their names" in result.found


def changed(kind: str, frame: Frame, place: int) -> Frame:
    if kind == "jpeg":
        return cv2.imdecode(
            cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 70 + place % 25])[1], 1
        )
    if kind == "smaller":
        share = 1 - 0.02 * (place % 20)
        return cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return frame


@pytest.mark.parametrize("kind", ["same", "jpeg", "smaller"])
def test_copies_are_found_whatever_they_are_called(kind: str) -> None:
    few = [cv2.resize(scene(i), (96, 96), interpolation=cv2.INTER_AREA) for i in range(20)]
    frames = [changed(kind, few[place % 20], place) for place in range(400)]
    order = np.random.default_rng(0).permutation(len(frames))
    result = found([frames[place] for place in order], labels=lambda i: "ab"[i % 2])
    assert not result.independent
    assert result.weight == pytest.approx(20, rel=0.1)
    if kind == "same":
        assert result.copies == 380
        assert result.contradicting > 100
        assert "380 of 400 images are copies of others" in result.found
        assert result.brief == "380 of 400 images are copies of others"


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("most", [4, 8, 16])
def test_copies_that_are_moved_a_little_are_no_other_pictures(share: float, most: int) -> None:
    """As a camera that is nudged between two shots, or a crop drawn anew, moves them."""
    rng = np.random.default_rng(3)
    frames = []
    for number in range(150):
        whole = cv2.resize(scene(number), (240, 240), interpolation=cv2.INTER_AREA)
        frames.append(whole[:216, :216])
        if rng.random() < share:
            down, right = rng.integers(0, most + 1, 2)
            frames.append(whole[down : down + 216, right : right + 216])
    order = rng.permutation(len(frames))
    result = found([frames[place] for place in order], names=hashed)
    assert not result.independent
    assert "look like an earlier one" in result.found


def test_frames_of_a_camera_in_the_dark_are_no_independent_pictures() -> None:
    """Nothing is to be seen but the sensor's noise, which is another each time."""
    rng = np.random.default_rng(4)
    dark = [np.clip(rng.normal(2, 1.5, (96, 96, 3)), 0, 255).astype(np.uint8) for _ in range(100)]
    assert not found(dark, names=hashed).independent
    swatches = [np.full((96, 96, 3), rng.integers(0, 256, 3), np.uint8) for _ in range(100)]
    assert found(swatches, names=hashed).independent


def test_written_digits_are_independent() -> None:
    """Of one class, and simple: many are much alike, none is another. (Their order has writers.)"""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    drawn = np.random.default_rng(5).permutation(len(digits.images))[:500]
    grey = (15 * digits.images[drawn]).astype(np.uint8)
    frames = [np.repeat(one[..., None], 3, axis=2) for one in grey]
    labels = [str(one) for one in digits.target[drawn]]
    assert found(frames, names=hashed, labels=labels.__getitem__).independent
    frames[450:] = [cv2.convertScaleAbs(one, alpha=0.9, beta=4) for one in frames[:50]]
    labels[450:] = labels[:50]
    assert not found(frames, names=hashed, labels=labels.__getitem__).independent


def test_one_picture_many_times_among_others_counts_for_what_it_is() -> None:
    others = [colour_picture(i % 6, i) for i in range(500)]
    few = found([*others, *[others[0]] * 4])
    assert few.independent
    assert few.copies == 4
    many = found([*others, *[others[0]] * 40])
    assert not many.independent
    assert many.weight == pytest.approx(540**2 / (499 + 41**2), rel=0.01)


def test_groups_that_hold_the_clips_are_independent_and_made_up_ones_are_not() -> None:
    frames = clip(40, 6, speed=3)
    by_scene = [str(place // 6) for place in range(len(frames))]
    assert found(frames, groups=by_scene).independent
    alone = [str(place) for place in range(len(frames))]
    result = found(frames, groups=alone)
    assert not result.independent
    assert result.grouped
    halves = [str(place // 3) for place in range(len(frames))]
    assert not found(frames, groups=halves).independent


def test_what_cannot_be_read_or_is_too_little_says_nothing() -> None:
    frames = [colour_picture(0, i) for i in range(29)]
    names = [str(i) for i in range(29)]
    assert find_alike(looks(frames), names, names) is None
    seen = looks([colour_picture(0, i) for i in range(60)])
    seen.content[:31] = 0
    names = [str(i) for i in range(60)]
    assert find_alike(seen, names, ["a"] * 60) is None


def test_names_with_long_numbers_can_be_sorted() -> None:
    frames = [colour_picture(0, i) for i in range(40)]
    assert found(frames, names=lambda i: f"{'9' * 5000}{i}.png").independent


@pytest.mark.skipif(not (DATA / "imagenet").is_dir(), reason="no imagenet in ../shared/data")
def test_real_photos_are_independent() -> None:
    with open_data(DATA / "imagenet" / "labels.csv") as data:
        seen = read_looks(data)
        names = [one.file for one in data.samples]
        result = find_alike(seen, names, [one.label for one in data.samples])
    assert result is not None
    assert result.independent
    assert result.weight == 300


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no cifar10 in ../shared/data")
def test_cifar10_is_independent_though_it_has_near_copies() -> None:
    with open_data(DATA / "cifar10" / "test.zip") as data:
        some = data.samples[::4]
        frames = [data.frame(place) for place in range(0, len(data), 4)]
    seen = looks([one for one in frames if one is not None])
    result = find_alike(seen, [one.file for one in some], [one.label for one in some])
    assert result is not None
    assert result.independent
    assert 0 < result.repeats < 0.02 * result.units


@pytest.mark.arithmetic
@pytest.mark.skipif(not (DATA / "video").is_dir(), reason="no video in ../shared/data")
@pytest.mark.parametrize("name", ["objects-1080p.mp4", "bottles-360p.mp4"])
@pytest.mark.parametrize("every", [5, 15])
def test_frames_of_real_clips_are_not(name: str, every: int) -> None:
    frames = video(name)[::every]
    for names in ("{}.jpg".format, hashed):
        order = sorted(range(len(frames)), key=names)
        result = found([frames[i] for i in order], names=names, labels=lambda i: "ab"[i % 2])
        assert not result.independent


_FRAMES: dict[str, list[Frame]] = {}


def video(name: str) -> list[Frame]:
    """Every fifth frame at its place, in small; the others are left empty."""
    if name not in _FRAMES:
        capture = cv2.VideoCapture(str(DATA / "video" / name))
        frames: list[Frame] = []
        while len(frames) < 600 and capture.grab():
            if len(frames) % 5 == 0:
                whole = capture.retrieve()[1]
                frames.append(cv2.resize(whole, (64, 64), interpolation=cv2.INTER_AREA))
            else:
                frames.append(frames[-1])
        _FRAMES[name] = frames
    return _FRAMES[name]


def test_a_picture_and_its_mirror_image_are_one():
    scenes = [scene(number, size=96) for number in range(60)]
    flips = [one[:, ::-1] for one in scenes]
    result = found([*scenes, *flips], names=hashed)
    assert not result.independent
    assert result.repeats == 60
    assert found(scenes, names=hashed).repeats == 0


@functools.cache
def digits() -> tuple[list[Frame], list[str]]:
    """Scanned digits of 8 x 8 pixels, in an order that tells nothing of who wrote them."""
    known = pytest.importorskip("sklearn.datasets").load_digits()
    order = np.random.default_rng(5).permutation(len(known.target))
    grey = (known.images[order] * 255 / 16).astype(np.uint8)
    return [np.repeat(one[..., None], 3, 2) for one in grey], [str(i) for i in known.target[order]]


def noisy(frame: Frame, levels: float) -> Frame:
    rng = np.random.default_rng(int(frame.sum()))
    return np.clip(frame + rng.normal(0, levels, frame.shape), 0, 255).astype(np.uint8)


CHANGED = {
    "copied": lambda one: one,
    "noisy": lambda one: noisy(one, 8),
    "relit": lambda one: (one * 0.7 + 20).astype(np.uint8),
    "mirrored": lambda one: one[:, ::-1],
    "encoded": lambda one: cv2.imdecode(cv2.imencode(".jpg", one)[1], cv2.IMREAD_COLOR),
}


@pytest.mark.parametrize("change", CHANGED)
def test_copies_of_tiny_pictures_are_found(change: str) -> None:
    frames, labels = digits()
    change_of = CHANGED[change]
    some = [*frames[:600], *(change_of(one) for one in frames[:150])]
    classes = [*labels[:600], *labels[:150]]
    assert not found(some, names=hashed, labels=classes.__getitem__).independent


@pytest.mark.parametrize("moves", [False, True])
def test_clips_of_tiny_pictures_are_found_whatever_they_are_called(moves: bool) -> None:
    frames, labels = digits()
    rng = np.random.default_rng(0)
    taken, classes = [], []
    for scene in range(60):
        for part in np.linspace(0, 1 if moves else 0, 20):
            seen = (1 - part) * frames[scene] + part * frames[scene + 60]
            taken.append(np.clip(seen + rng.normal(0, 8, seen.shape), 0, 255).astype(np.uint8))
            classes.append(labels[scene])
    order = rng.permutation(len(taken))
    shuffled, named = [taken[i] for i in order], [classes[i] for i in order]
    assert not found(shuffled, names=hashed, labels=named.__getitem__).independent
