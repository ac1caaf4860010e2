import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Layout,
    Preprocess,
    Preprocessor,
    Resize,
    ResizePolicy,
)

SIZES = [(1, 1), (7, 5), (17, 33), (48, 64), (100, 37), (227, 227), (481, 640)]
IMAGENET_MULTIPLY = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
IMAGENET_ADD = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height, width, seed=0):
    """Something with large shapes and fine detail, as photographs have."""
    coarse = noise(8, 8, seed).astype(np.float32)
    large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(seed).normal(0, 12, (height, width, 1))
    return np.clip(large + grain, 0, 255).astype(np.uint8)


def shrink(frame, height, width, **resize):
    return Preprocessor(Preprocess(Resize(height, width, **resize))).resized(frame)


@pytest.mark.parametrize("policy", list(ResizePolicy))
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(32, 32), (24, 40), (224, 160)])
def test_any_frame_becomes_a_picture_of_the_models_size(policy, antialias, size, target):
    frame = noise(*size)
    preprocess = Preprocess(Resize(*target, policy=policy, antialias=antialias, crop_ratio=0.875))
    batch = Preprocessor(preprocess)(frame)
    assert batch.shape == preprocess.shape(1) == (1, *target, 3)
    assert batch.dtype == np.uint8


@pytest.mark.parametrize("policy", list(ResizePolicy))
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_of_one_colour_keeps_it(policy, antialias, size):
    frame = np.full((*size, 3), (10, 120, 250), np.uint8)
    picture = shrink(frame, 32, 24, policy=policy, antialias=antialias, fill=77)
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    bars = {(77, 77, 77)} if policy is ResizePolicy.LETTERBOX else set()
    assert colours - bars == {(10, 120, 250)}


@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from(list(ResizePolicy)),
    st.floats(0.05, 1.0),
    st.booleans(),
)
@settings(max_examples=150)
def test_no_combination_of_sizes_fails(rows, columns, height, width, policy, ratio, antialias):
    resize = Resize(height, width, policy=policy, crop_ratio=ratio, antialias=antialias)
    picture = Preprocessor(Preprocess(resize)).resized(noise(rows, columns))
    assert picture.shape == (height, width, 3)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_exact_halvings_are_area_means(factor):
    frame = photo(32 * factor, 48 * factor)
    area = cv2.resize(frame, (48, 32), interpolation=cv2.INTER_AREA)
    difference = np.abs(shrink(frame, 32, 48).astype(int) - area.astype(int))
    # Each halving rounds to a whole grey level by itself.
    assert difference.max() <= np.log2(factor)
    assert difference.mean() <= 0.5


@pytest.mark.parametrize("size", [(300, 500), (1080, 1920), (333, 777), (449, 449)])
def test_halvings_stay_closer_to_area_means_than_one_bilinear_step(size):
    frame = photo(*size)
    area = cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    halved = np.abs(shrink(frame, 64, 64) - area).mean()
    bilinear = np.abs(shrink(frame, 64, 64, antialias=False) - area).mean()
    assert halved < 0.6 * bilinear


def test_halvings_do_not_alias():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255  # one bilinear step to a quarter sees only every other pair
    picture = shrink(stripes, 64, 64)
    assert picture.min() == picture.max() == 128
    fine = np.zeros((256, 256, 3), np.uint8)
    fine[:, 1::4] = fine[:, 2::4] = 255
    assert shrink(fine, 64, 64, antialias=False).max() == 255
    assert abs(int(shrink(fine, 64, 64).max()) - 128) <= 1


@pytest.mark.parametrize("antialias", [True, False])
def test_enlarging_is_one_bilinear_step(antialias):
    frame = noise(10, 12)
    enlarged = cv2.resize(frame, (50, 40), interpolation=cv2.INTER_LINEAR)
    assert (shrink(frame, 40, 50, antialias=antialias) == enlarged).all()


def test_a_frame_of_the_right_size_is_taken_as_it_is():
    frame = noise(32, 40)
    for policy in ResizePolicy:
        assert (shrink(frame, 32, 40, policy=policy) == frame).all()


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((100, 200), (slice(8, 24), slice(0, 32))),
        ((200, 100), (slice(0, 32), slice(8, 24))),
        ((50, 50), (slice(0, 32), slice(0, 32))),
        ((10, 1000), (slice(15, 16), slice(0, 32))),  # at least one row is left
    ],
    ids=["wide", "tall", "square", "very wide"],
)
def test_letterbox_keeps_proportions_and_fills_the_rest(size, place):
    frame = np.full((*size, 3), 200, np.uint8)
    picture = shrink(frame, 32, 32, policy=ResizePolicy.LETTERBOX, fill=7)
    inside = np.zeros((32, 32), bool)
    inside[place] = True
    assert (picture[inside] == 200).all()
    assert (picture[~inside] == 7).all()


def test_letterbox_shows_the_whole_frame():
    frame = photo(90, 120)
    picture = shrink(frame, 64, 64, policy=ResizePolicy.LETTERBOX)
    assert (picture[8:56] == shrink(frame, 48, 64)).all()


@pytest.mark.parametrize(
    ("size", "ratio", "part"),
    [
        ((100, 200), 1.0, (slice(0, 100), slice(50, 150))),
        ((200, 100), 1.0, (slice(50, 150), slice(0, 100))),
        ((200, 200), 0.875, (slice(12, 187), slice(12, 187))),
        ((64, 64), 0.5, (slice(16, 48), slice(16, 48))),
    ],
    ids=["wide", "tall", "ratio 0.875", "ratio 0.5"],
)
def test_center_crop_takes_the_middle(size, ratio, part):
    frame = photo(*size)
    picture = shrink(frame, 32, 32, policy=ResizePolicy.CENTER_CROP, crop_ratio=ratio)
    assert (picture == shrink(frame[part], 32, 32)).all()


def test_center_crop_keeps_the_models_proportions():
    picture = shrink(photo(100, 300), 32, 64, policy=ResizePolicy.CENTER_CROP)
    assert (picture == shrink(photo(100, 300)[:, 50:250], 32, 64)).all()


def reference(picture, form):
    """The definition, written out in float64."""
    values = picture.astype(np.float64)
    if form.color is ColorOrder.RGB:
        values = values[:, :, ::-1]
    elif form.color is ColorOrder.GRAY:
        values = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[:, :, None].astype(np.float64)
    values = values * np.array(form.multiply) + np.array(form.add)
    if np.issubdtype(np.dtype(form.dtype), np.integer):
        limits = np.iinfo(form.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.transpose(2, 0, 1) if form.layout is Layout.NCHW else values


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("color", list(ColorOrder))
@pytest.mark.parametrize(
    ("dtype", "multiply", "add"),
    [
        ("float32", (1.0,), (0.0,)),
        ("float32", (1 / 255,), (0.0,)),
        ("float32", IMAGENET_MULTIPLY, IMAGENET_ADD),
        ("float16", (1 / 127.5,), (-1.0,)),
        ("uint8", (1.0,), (0.0,)),
        ("uint8", (0.5,), (10.0,)),
        ("uint8", (2.0,), (-100.0,)),
        ("int8", (1.0,), (-128.0,)),
        ("int8", (1.0,), (0.0,)),
        ("int16", (1.0,), (0.0,)),
        ("int32", (100.0,), (0.5,)),
    ],
)
def test_values_are_scaled_as_described(layout, color, dtype, multiply, add):
    if color is ColorOrder.GRAY:
        multiply, add = multiply[:1], add[:1]
    form = InputFormat(layout, dtype, color, multiply, add)
    preprocess = Preprocess(Resize(6, 9), form)
    frame = noise(6, 9)
    batch = Preprocessor(preprocess)(frame)
    assert batch.shape == preprocess.shape(1)
    assert batch.dtype == np.dtype(dtype)
    expected = reference(frame, form)
    tolerance = {"float16": 2e-3, "float32": 2e-6}.get(dtype, 0)
    np.testing.assert_allclose(batch[0].astype(np.float64), expected, atol=tolerance, rtol=1e-6)


def test_the_device_format_is_the_resized_frame():
    preprocess = Preprocess(
        Resize(16, 16), InputFormat(Layout.NCHW, "float32", ColorOrder.RGB, (1 / 255,))
    )
    frame = photo(50, 60)
    in_graph = preprocess.in_graph()
    assert in_graph.format.is_device_format
    assert not preprocess.format.is_device_format
    assert in_graph.resize == preprocess.resize
    here = Preprocessor(in_graph)(frame)[0]
    assert (here == Preprocessor(preprocess).resized(frame)).all()
    scaled = Preprocessor(preprocess)(frame)[0]
    np.testing.assert_allclose(scaled, here[:, :, ::-1].transpose(2, 0, 1) / 255.0, rtol=1e-6)


def test_a_batch_is_its_frames_one_by_one_whatever_their_sizes():
    preprocessor = Preprocessor(
        Preprocess(Resize(20, 30, policy=ResizePolicy.LETTERBOX), InputFormat(dtype="float32"))
    )
    frames = [noise(*size, seed=seed) for seed, size in enumerate([*SIZES, (90, 41), *SIZES])]
    batch = preprocessor.batch(frames)
    for row, frame in zip(batch, frames, strict=True):
        assert (row == Preprocessor(preprocessor.preprocess)(frame)[0]).all()
    assert preprocessor.batch([]).shape == (0, 20, 30, 3)


def test_results_are_not_overwritten_by_the_next_frame():
    preprocessor = Preprocessor(Preprocess(Resize(16, 16)))
    first = preprocessor(noise(64, 64, seed=1))
    resized = preprocessor.resized(noise(64, 64, seed=1))
    kept = first.copy()
    preprocessor(noise(64, 64, seed=2))
    assert (first == kept).all()
    assert (resized == kept[0]).all()


def test_frames_are_left_as_they_were():
    frame = noise(70, 50)
    before = frame.copy()
    frame.flags.writeable = False
    for policy in ResizePolicy:
        for color in ColorOrder:
            form = InputFormat(color=color, multiply=(0.5,), dtype="float32")
            Preprocessor(Preprocess(Resize(16, 16, policy=policy), form))(frame)
    assert (frame == before).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda frame: np.ascontiguousarray(frame[:, :, ::-1])[:, :, ::-1],
        lambda frame: np.ascontiguousarray(frame[::-1])[::-1],
        lambda frame: np.ascontiguousarray(frame[:, ::-1])[:, ::-1],
        lambda frame: np.asfortranarray(frame),
        lambda frame: np.pad(frame, ((3, 2), (5, 1), (0, 0)))[3:-2, 5:-1],
        lambda frame: np.dstack([frame, frame])[:, :, :3],
    ],
    ids=["RGB turned", "upside down", "mirrored", "Fortran order", "part", "of more channels"],
)
@pytest.mark.parametrize("policy", list(ResizePolicy))
def test_how_a_frame_lies_in_memory_changes_nothing(view, policy):
    frame = photo(90, 130)
    same = view(frame)
    assert not same.flags.c_contiguous or same is frame
    preprocessor = Preprocessor(Preprocess(Resize(32, 32, policy=policy)))
    assert (preprocessor(same) == preprocessor(frame)).all()


@pytest.mark.parametrize("color", list(ColorOrder))
def test_a_grey_frame_is_taken_as_equal_channels(color):
    grey = noise(40, 50)[:, :, 0]
    preprocessor = Preprocessor(Preprocess(Resize(16, 16), InputFormat(color=color)))
    assert (preprocessor(grey) == preprocessor(np.dstack([grey] * 3))).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), np.int8), "int8"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((4, 4, 1), np.uint8), r"\(4, 4, 1\)"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        (np.zeros((4, 0), np.uint8), "not empty"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros(12, np.uint8), r"\(12,\)"),
        (None, "NoneType"),
        ([[0]], "list"),
    ],
    ids=lambda value: getattr(value, "dtype", None) and f"{value.dtype}{value.shape}",
)
def test_bad_frames_are_refused(frame, message):
    preprocessor = Preprocessor(Preprocess(Resize(8, 8)))
    with pytest.raises(InputError, match=message):
        preprocessor(frame)
    with pytest.raises(InputError, match="frame"):
        preprocessor.resized(frame)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0, 8), "0x8"),
        (lambda: Resize(8, -1), "at least 1"),
        (lambda: Resize(8, 8, crop_ratio=0.0), "crop_ratio"),
        (lambda: Resize(8, 8, crop_ratio=1.5), "crop_ratio"),
        (lambda: Resize(8, 8, fill=256), "fill"),
        (lambda: InputFormat(multiply=(1.0, 2.0)), "multiply has 2 values"),
        (lambda: InputFormat(color=ColorOrder.GRAY, add=(0.0, 0.0, 0.0)), "add has 3 values"),
        (lambda: InputFormat(multiply=()), "multiply has 0 values"),
        (lambda: InputFormat(dtype="complex64"), "complex64"),
        (lambda: InputFormat(dtype="pixels"), "pixels"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
