"""The simulated camera: same seed, same bytes; easy and hard frames; quick enough to draw."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the simulated camera draws with OpenCV")

from tinysaver_edge.demo.camera import (
    CLASS_NAMES,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    SimulatedCamera,
    draw,
)
from tinysaver_edge.demo.parts import part_patches

TAKES_PER_PART = 12


def test_importing_the_camera_loads_no_opencv():
    check = "import sys, tinysaver_edge.demo.camera; sys.exit('cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_there_are_enough_kinds_with_distinct_names():
    assert len(CLASS_NAMES) >= 12
    assert len(set(CLASS_NAMES)) == len(CLASS_NAMES)


def test_frames_look_like_opencv_frames_and_all_kinds_come():
    frames, labels = draw(200, seed=4)
    assert frames.shape == (200, FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert frames.dtype == np.uint8
    assert labels.dtype == np.int64
    assert set(labels.tolist()) == set(range(len(CLASS_NAMES)))


def test_the_same_seed_gives_the_same_bytes():
    first, again = draw(12, seed=9), draw(12, seed=9)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tolist() == again[1].tolist()


def test_another_process_draws_the_same_bytes():
    script = (
        "import sys, zlib; from tinysaver_edge.demo.camera import draw;"
        "print(zlib.crc32(draw(6, seed=9)[0].tobytes()))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_another_seed_gives_other_frames():
    assert not np.array_equal(draw(3, seed=1)[0], draw(3, seed=2)[0])


def test_a_frame_does_not_depend_on_those_before_it():
    camera = SimulatedCamera(seed=5)
    whole = list(camera.frames(8))
    for (frame, label), (expected, expected_label) in zip(
        camera.frames(3, start=5), whole[5:], strict=True
    ):
        assert label == expected_label
        np.testing.assert_array_equal(frame, expected)


def test_the_stream_starts_anew_with_every_iteration():
    camera = SimulatedCamera(seed=5)
    for (a, label_a), (b, label_b) in itertools.islice(zip(camera, camera, strict=True), 25):
        assert label_a == label_b
        np.testing.assert_array_equal(a, b)


def test_in_the_stream_one_part_moves_by_at_a_time():
    labels = [label for _, label in itertools.islice(SimulatedCamera(seed=2), 40 * TAKES_PER_PART)]
    passages = np.array(labels).reshape(40, TAKES_PER_PART)
    assert (passages == passages[:, :1]).all()
    assert len(set(passages[:, 0].tolist())) > len(CLASS_NAMES) // 2


def test_a_part_moves_left_by_the_belts_speed():
    """Eight pixels a frame at 30 fps: shifted back, a frame equals the one before but for noise."""
    first, second = (f.astype(float) for f, _ in itertools.islice(SimulatedCamera(seed=6), 2))
    inner = slice(60, 180)
    moved = np.abs(second[inner, 80:240] - first[inner, 88:248]).mean()
    stayed = np.abs(second[inner, 80:240] - first[inner, 80:240]).mean()
    assert moved < stayed


def test_half_the_frame_rate_takes_half_the_frames_of_a_part():
    takes = TAKES_PER_PART // 2
    half_rate = itertools.islice(SimulatedCamera(seed=2, fps=15.0), 40 * takes)
    passages = np.array([label for _, label in half_rate]).reshape(40, takes)
    full_rate = itertools.islice(SimulatedCamera(seed=2), 40 * TAKES_PER_PART)
    assert (passages == passages[:, :1]).all()
    assert passages[:, 0].tolist() == [label for _, label in full_rate][::TAKES_PER_PART]


def test_difficulty_varies_and_most_frames_are_easy():
    camera = SimulatedCamera(seed=1)
    difficulties = np.array([camera.scene(i)[0].difficulty for i in range(500)])
    assert difficulties.min() >= 0
    assert difficulties.max() <= 1
    assert 0.4 < (difficulties < 0.25).mean() < 0.8
    assert (difficulties > 0.5).mean() > 0.05


def test_hard_frames_are_disturbed_more_than_easy_ones():
    camera = SimulatedCamera(seed=1)
    scenes = [camera.scene(i)[0] for i in range(600)]
    easy = [s for s in scenes if s.difficulty < 0.2]
    hard = [s for s in scenes if s.difficulty > 0.5]
    for measure in (
        lambda s: s.view.defocus_px,
        lambda s: s.view.noise,
        lambda s: len(s.clutter),
        lambda s: s.occluder is not None,
        lambda s: -s.piece.radius_px,
        lambda s: -s.piece.squeeze,
    ):
        assert np.mean([measure(s) for s in hard]) > np.mean([measure(s) for s in easy])


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_every_part_fits_its_disc_and_varies(label):
    pieces = [part_patches(label, np.random.default_rng(seed)) for seed in range(20)]
    for patches in pieces:
        reach = max(np.hypot(*patch.outline.T).max() for patch in patches if patch.height)
        assert 0.8 < reach < 1.12
    sums = {round(float(sum(np.abs(p.outline).sum() for p in patches)), 6) for patches in pieces}
    assert len(sums) > 10


def test_drawing_is_quick():
    camera = SimulatedCamera(seed=0)
    list(camera.frames(5))
    began = time.perf_counter()
    list(camera.frames(100))
    assert (time.perf_counter() - began) / 100 < 0.02
