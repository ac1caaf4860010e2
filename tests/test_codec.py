"""The codec: real JPEG, its two ends, and what it does not carry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.colours import PREPROCESS, colour_picture
from tinysaver_edge.codec import Jpeg, check_carries, decode, jpeg_size
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.preprocess import Preprocess, Resize

BATCH = np.stack([colour_picture(label, label, size=24) for label in range(4)])


def test_a_host_that_decodes_sees_what_calibration_saw() -> None:
    codec = Jpeg(60)
    files = codec.encode(BATCH)
    assert files.shape == (4,)
    assert all(isinstance(one, bytes) for one in files)
    there = decode(files.reshape(4, 1), BATCH.shape[1:])  # as hosts may hand them over
    np.testing.assert_array_equal(codec.through(BATCH), there)
    assert there.dtype == np.uint8
    assert not np.array_equal(there, BATCH)


def test_another_quality_shows_other_pixels_and_more_bytes_are_closer() -> None:
    sizes, apart = [], []
    for quality in (20, 60, 95):
        codec = Jpeg(quality)
        sizes.append(sum(map(len, codec.encode(BATCH))))
        apart.append(np.abs(codec.through(BATCH).astype(int) - BATCH).mean())
    assert sizes == sorted(sizes)
    assert apart == sorted(apart, reverse=True)


def test_colours_keep_their_pixels() -> None:
    stripes = np.zeros((1, 16, 16, 3), np.uint8)
    stripes[:, :, ::2] = (0, 0, 255)
    stripes[:, :, 1::2] = (255, 0, 0)
    kept = Jpeg(95).through(stripes)
    halved = cv2.imdecode(cv2.imencode(".jpg", stripes[0], [cv2.IMWRITE_JPEG_QUALITY, 95])[1], 1)
    assert np.abs(kept[0].astype(int) - stripes[0]).mean() < 10
    assert np.abs(halved.astype(int) - stripes[0]).mean() > 50


@pytest.mark.parametrize("quality", [0, -1, 101])
def test_a_quality_is_from_1_to_100(quality: int) -> None:
    with pytest.raises(InputError, match=f"JPEG quality {quality}: must be from 1 to 100"):
        Jpeg(quality)


@pytest.mark.parametrize(
    "batch", [BATCH.astype(np.float32), BATCH[0], BATCH.transpose(0, 3, 1, 2), BATCH[..., :1]]
)
def test_it_carries_pixels_only(batch: np.ndarray) -> None:
    with pytest.raises(EngineError, match="send it pixels"):
        Jpeg(90).encode(batch)


@pytest.mark.parametrize("data", [b"", b"nonsense", Jpeg(90).encode(BATCH[:, :9])[0]])
def test_what_is_no_file_of_the_models_size_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match="expected JPEG files of 24 x 24 pixels"):
        decode(np.array([data], object), (24, 24, 3))


def test_it_stands_before_models_that_take_a_frames_own_pixels() -> None:
    check_carries(Preprocess(Resize(16, 16)), model="large")
    with pytest.raises(InputError, match="large takes float32 NCHW RGB: JPEG is for"):
        check_carries(PREPROCESS, model="large")


def _declared(height: int, width: int) -> bytes:
    """A JPEG file whose header says another size than its picture has."""
    data = bytearray(Jpeg(90).encode(BATCH)[0])
    place = data.find(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


GOOD = Jpeg(90).encode(BATCH)[0]


@pytest.mark.parametrize(
    "data",
    [
        _declared(65500, 65500),
        _declared(24, 25),
        GOOD[:40],
        GOOD + bytes(1 << 20),
        cv2.imencode(".png", BATCH[0])[1].tobytes(),
        b"",
        b"\xff\xd8",
        b"\xff\xd8" + b"\xff" * 64,
        "text",
    ],
    ids=["huge", "other", "cut", "long", "png", "empty", "begun", "padding", "no bytes"],
)
def test_what_is_no_picture_of_the_right_size_is_not_decoded(monkeypatch, data) -> None:
    decoded = []
    real = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: decoded.append(1) or real(*given))
    files = np.empty(2, object)
    files[:] = [GOOD, data]
    with pytest.raises(EngineError, match="expected JPEG files of 24 x 24 pixels"):
        decode(files, BATCH.shape[1:])
    assert len(decoded) < 2 or data == GOOD[:40]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (30, 50), (1080, 1920)])
def test_a_jpegs_size_is_read_from_its_header(size, progressive) -> None:
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8), settings)[1].tobytes()
    assert jpeg_size(data) == size
