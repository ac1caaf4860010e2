"""Regions and masks: what is cut away is seen by nobody."""

import cv2
import numpy as np
import pytest

from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sources.cut import cut_sources
from tinysaver_edge.stream.sources.opening import IterableSource


def bright(name="door", *, height=30, width=40, count=2):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(1, 256, (height, width, 3), np.uint8) for _ in range(count)]
    return pictures, IterableSource(pictures, source_id=name)


def cut(source, *, regions=(), masks=()):
    (changed,), said = cut_sources([source], regions=regions, masks=masks)
    return [frame.image for frame in changed.frames(reuse=True)], said


def test_a_region_is_what_is_left():
    pictures, source = bright()
    images, said = cut(source, regions=["5,10,20,15"])
    for whole, left in zip(pictures, images, strict=True):
        assert (left == whole[10:25, 5:25]).all()
        assert not np.shares_memory(whole, left)
    assert said == "--region 5,10,20,15"


def test_rectangles_polygons_and_pictures_are_blanked(tmp_path):
    picture = np.full((30, 40), 255, np.uint8)
    picture[:, 30:] = 0
    cv2.imwrite(str(tmp_path / "secret-place.png"), picture)
    pictures, source = bright()
    masks = ["1,2,3,4", "10,10 20,10 20,20", str(tmp_path / "secret-place.png")]
    images, said = cut(source, masks=masks)
    wanted = pictures[0].copy()
    wanted[2:6, 1:4] = 0
    wanted[:, 30:] = 0
    rows, columns = np.mgrid[:30, :40]
    inside = (columns <= 20) & (rows >= 10) & (columns >= rows)
    wanted[inside & (columns >= 10)] = 0
    assert (images[0] == wanted).all()
    assert "secret" not in said
    assert said.endswith("--mask PICTURE")


def test_a_mask_is_in_pixels_of_the_whole_frame():
    pictures, source = bright()
    (left, _), _ = cut(source, regions=["10,10,10,10"], masks=["0,0,15,15"])
    wanted = pictures[0][10:20, 10:20].copy()
    wanted[:5, :5] = 0
    assert (left == wanted).all()


def test_an_option_may_name_its_source():
    pairs = [bright("door"), bright("yard")]
    changed, _ = cut_sources([one for _, one in pairs], regions=["yard=0,0,5,5"], masks=[])
    shapes = [next(iter(one.frames())).image.shape for one in changed]
    assert shapes == [(30, 40, 3), (5, 5, 3)]
    assert [one.source_id for one in changed] == ["door", "yard"]


@pytest.mark.parametrize(
    ("regions", "masks", "said"),
    [
        (["0,0,0,5"], [], "expected x,y,w,h"),
        (["0,0,5"], [], "expected x,y,w,h"),
        (["a,b,c,d"], [], "expected x,y,w,h"),
        (["-1,0,5,5"], [], "expected x,y,w,h"),
        (["0,0,99999999999,5"], [], "expected x,y,w,h"),
        (["0,0,5,5", "1,1,5,5"], [], "there is one for this source already"),
        (["shed=0,0,5,5"], [], "no source is called shed; there are door"),
        (["30,0,11,5"], [], "reaches beyond the picture: the frames are 40 × 30"),
        ([], ["1,1 2,2"], "at least three corners"),
        ([], ["0,0,50,5"], "a corner lies beyond the picture"),
        ([], ["1,1 2,2 9999999999,3"], "beyond any picture"),
        ([], ["nothing.png"], "cannot be read"),
        ([], ["\0"], "cannot be read|expected a picture"),
    ],
)
def test_what_cannot_be_cut_is_refused(regions, masks, said):
    _, source = bright()
    with pytest.raises(InputError, match=said):
        cut(source, regions=regions, masks=masks)


def test_a_mask_of_another_size_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.full((20, 40), 255, np.uint8))
    _, source = bright()
    with pytest.raises(InputError, match="the picture is 40 × 20, the frames are 40 × 30"):
        cut(source, masks=[str(tmp_path / "m.png")])
