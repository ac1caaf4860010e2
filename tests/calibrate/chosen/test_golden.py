"""Golden frames: each stage settles one of them, though it settles few of all."""

import cv2
import numpy as np
import pytest

from tests.colours import NAMES, colour_picture
from tests.small_bundle import artefact
from tinysaver_edge.calibrate.chosen.golden import MOST_FRAMES, make_golden
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.files import open_data
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.score import Margin

MODELS = ("saver", "middle", "large")


@pytest.mark.arithmetic
@pytest.mark.parametrize("seed", range(5))
def test_a_stage_that_settles_few_frames_settles_a_golden_one(tmp_path, seed):
    artefacts = [artefact(tmp_path, name) for name in MODELS]
    asked = [
        StagePolicy(one.name, macs=one.macs, score=Margin(), threshold=threshold)
        for one, threshold in zip(artefacts, (0.9, 0.6), strict=False)
    ]
    policy = Policy((*asked, StagePolicy("large", macs=artefacts[-1].macs)), pool=(0.5, 0.3))
    stages = [Stage.opened(*both) for both in zip(artefacts, policy.stages, strict=True)]
    left, settled, files = [70, 2, 2], {}, {}
    (tmp_path / "images" / NAMES[0]).mkdir(parents=True)
    with Cascade(stages, pool=policy.pool) as cascade:
        for number in range(300):
            frame = colour_picture(number % len(NAMES), number)
            stage = cascade.decide(frame).stage.index
            if left[stage]:
                left[stage] -= 1
                settled[frame.tobytes()] = stage
                cv2.imwrite(str(tmp_path / "images" / NAMES[0] / f"{number:03d}.png"), frame)
    assert not any(left[1:])
    (tmp_path / "golden").mkdir()
    with open_data(tmp_path / "images") as data:
        made = make_golden(
            policy,
            artefacts,
            data,
            pool=np.arange(len(data)),
            seed=seed,
            folder=tmp_path / "golden",
            files=files,
        )
    kept = [settled[cv2.imread(str(files[one.path])).tobytes()] for one in made.frames]
    assert len(kept) == MOST_FRAMES
    assert set(kept) == {0, 1, 2}
