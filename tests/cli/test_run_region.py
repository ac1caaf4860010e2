"""`run --region --mask`: the models see what is left, and nothing else of the frame."""

import json

import cv2
import numpy as np
import pytest

from tests.colours import colour_folders
from tests.small_bundle import small_bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.files import open_data


def test_the_answers_are_those_to_the_part(command, tmp_path):
    bundle = small_bundle(tmp_path / "bundle")
    (tmp_path / "frames").mkdir()
    parts = []
    with open_data(colour_folders(tmp_path / "images", each=3)) as data:
        for number in range(len(data)):
            part = cv2.resize(data.frame(number), (32, 24))
            whole = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
            whole[20:44, 10:42] = part
            cv2.imwrite(str(tmp_path / "frames" / f"{number:02d}.png"), whole)
            part[4:9, 5:15] = 0  # the mask, in pixels of the whole frame: 15,24 to 25,29
            parts.append(part)
    words = ("run", bundle, "--source", tmp_path / "frames", "--json", "--region", "10,20,32,24")
    done = command(*words, "--mask", "15,24,10,5")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    with Cascade.load(bundle) as cascade:
        wanted = [cascade.decide(part) for part in parts]
    assert [one["label"] for one in found] == [one.label for one in wanted]
    sure = [one["confidence"] for one in found]
    assert sure == pytest.approx([one.confidence for one in wanted], abs=1e-5)
    done = command(*words, "--region", "70,0,20,5")
    assert "there is one for this source already" in done.err.splitlines()[-1]
    words = ("run", bundle, "--source", tmp_path / "frames", "--quiet", "--region", "70,0,20,5")
    done = command(*words)
    assert done.code == 2
    assert "--region 70,0,20,5 reaches beyond the picture" in done.err.splitlines()[-1]
