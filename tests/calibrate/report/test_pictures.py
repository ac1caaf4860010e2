import base64

import cv2
import numpy as np
import pytest

from tests.calibrate.report.world import finished, problem
from tests.pictures import encoded
from tinysaver_edge.calibrate.report.pictures import EACH, SIDE, PictureKind
from tinysaver_edge.data.files import open_data

SAMPLES = 300


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """As many pictures as the problem has samples, two sizes, one of them damaged."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(SAMPLES):
        content = encoded(number, size=400 if number % 2 else 32)
        (folder / f"{number:04d}.png").write_bytes(content)
    table = folder / "labels.csv"
    rows = "".join(f"{number:04d}.png,0\n" for number in range(SAMPLES))
    table.write_text("file,label\n" + rows)
    with open_data(table) as data:
        yield data


def decoded(picture):
    kind, _, text = picture.source.partition(",")
    assert kind == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)


def reversed_order():
    """The samples in another order than the data, so that a position taken for the other shows."""
    return np.arange(SAMPLES)[::-1].copy()


def test_the_worst_of_each_kind_are_shown(images):
    done = finished(problem(SAMPLES))
    facts = done.facts(data=images, sample_index=reversed_order())
    lost = [one for one in facts.pictures if one.kind is PictureKind.LOST]
    needless = [one for one in facts.pictures if one.kind is PictureKind.NEEDLESS]
    assert len(lost) == min(EACH, facts.lost) > 0
    assert len(needless) == min(EACH, facts.needless) == EACH
    for shown in (lost, needless):
        assert [one.score for one in shown] == sorted((one.score for one in shown), reverse=True)
    threshold = done.result.policy.stages[0].threshold
    assert all(one.score < threshold and one.saver == one.truth for one in needless)
    assert all(one.large == one.truth != one.cascade for one in lost)


def test_thumbnails_are_the_images_they_name_and_small(images):
    facts = finished(problem(SAMPLES)).facts(data=images, sample_index=reversed_order())
    labels = problem(SAMPLES).labels
    names = {sample.file: number for number, sample in enumerate(images.samples)}
    assert {one.width for one in facts.pictures} == {32, SIDE}
    for one in facts.pictures:
        thumbnail, position = decoded(one), names[one.file]
        assert thumbnail.shape[:2] == (one.height, one.width)
        original = cv2.resize(
            images.frame(position), (one.width, one.height), interpolation=cv2.INTER_AREA
        )
        assert np.abs(thumbnail.astype(int) - original).mean() < 12
        assert one.truth == f"class {labels[SAMPLES - 1 - position]}"
        assert len(one.source) < 16_500


def test_unreadable_images_are_passed_over(images, monkeypatch):
    monkeypatch.setattr(type(images), "frame", lambda self, index: None)
    facts = finished(problem(SAMPLES)).facts(data=images, sample_index=reversed_order())
    assert facts.pictures == ()
    assert facts.lost > 0


def test_without_positions_no_image_is_shown(images):
    assert finished(problem(SAMPLES)).facts(data=images).pictures == ()
