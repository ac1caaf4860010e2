import re

import numpy as np
import pytest

import tinysaver_edge.testing
from tinysaver_edge.engines.base import EngineOptions
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.preprocess import (
    ColorOrder,
    InputFormat,
    Preprocess,
    Preprocessor,
    Resize,
    ResizePolicy,
)
from tinysaver_edge.testing import (
    MOST_FRAMES,
    FakeClock,
    FakeEngine,
    FakeSource,
    frame_numbers,
    numbered_frame,
)

TABLE = [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]


def batch_of(*numbers, preprocess=None):
    preprocess = preprocess or Preprocess(Resize(8, 8))
    return Preprocessor(preprocess).batch([numbered_frame(number) for number in numbers])


def test_the_example_in_the_docstring_runs():
    text = tinysaver_edge.testing.__doc__
    assert text is not None
    example = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    assert "assert" in example
    program = (
        "from tinysaver_edge.testing import *\n"
        "from tinysaver_edge import Cascade, Stage, StagePolicy, get_score\n"
    )
    exec(program + example, {})


@pytest.mark.parametrize("number", [0, 1, 255, 256, 70_000, MOST_FRAMES - 1])
@pytest.mark.parametrize("policy", [ResizePolicy.SQUASH, ResizePolicy.CENTER_CROP])
def test_a_frames_number_survives_any_resize(number, policy):
    preprocess = Preprocess(Resize(9, 5, policy=policy))
    assert frame_numbers(batch_of(number, preprocess=preprocess)).tolist() == [number]


@pytest.mark.parametrize("number", [-1, MOST_FRAMES])
def test_numbers_out_of_range_are_refused(number):
    with pytest.raises(InputError, match=str(number)):
        numbered_frame(number)


def test_other_frames_have_no_number():
    with pytest.raises(InputError, match="not of one colour"):
        frame_numbers(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3))
    with pytest.raises(InputError, match="uint8"):
        frame_numbers(np.zeros((1, 8, 8, 3), np.float32))


def test_a_table_answers_numbered_frames_in_any_order():
    engine = FakeEngine(TABLE)
    assert engine.infer(batch_of(2, 0, 1)).tolist() == [TABLE[2], TABLE[0], TABLE[1]]
    assert engine.infer(batch_of(1)).dtype == np.float32
    assert (engine.runs, engine.samples) == (2, 4)
    with pytest.raises(EngineError, match="no answer to frame 3"):
        engine.infer(batch_of(3))


def test_a_function_answers_batches_of_any_form():
    form = InputFormat(dtype="float32", color=ColorOrder.RGB, multiply=(1 / 255,))
    preprocess = Preprocess(Resize(4, 4), form)
    engine = FakeEngine(lambda batch: batch.mean(axis=(1, 2)), preprocess=preprocess)
    answers = engine.infer(batch_of(255, preprocess=preprocess))
    np.testing.assert_allclose(answers, [[0, 0, 1]], atol=1e-6)


def test_outputs_become_logits_as_those_of_real_engines_do():
    raw = np.array([[9, 64, 192]], np.uint8)
    output = OutputFormat(OutputKind.PROBABILITIES, class_offset=1)
    engine = FakeEngine(raw, output=output)
    np.testing.assert_allclose(engine.infer(batch_of(0)), np.log([[0.25, 0.75]]), atol=1e-6)


def test_a_fixed_batch_size_pads():
    engine = FakeEngine(TABLE, batch_size=2)
    assert engine.infer(batch_of(2, 1, 0)).tolist() == [TABLE[2], TABLE[1], TABLE[0]]
    assert (engine.runs, engine.samples) == (2, 4)


def test_it_fails_when_told_to():
    engine = FakeEngine(TABLE)
    engine.fail("unplugged")
    with pytest.raises(EngineError, match="unplugged"):
        engine.infer(batch_of(0))
    assert engine.runs == 1
    engine.recover()
    assert engine.infer(batch_of(0)).tolist() == [TABLE[0]]


def test_it_is_as_strict_as_real_engines():
    engine = FakeEngine(TABLE, options=EngineOptions(device="NPU"), fell_back=True)
    assert (engine.device, engine.fell_back) == ("NPU", True)
    for bad in (np.zeros((1, 9, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)):
        with pytest.raises(EngineError, match=re.escape(str(bad.shape))):
            engine.infer(bad)
    with pytest.raises(EngineError, match="empty"):
        engine.infer(np.zeros((0, 8, 8, 3), np.uint8))
    engine.close()
    engine.close()
    assert engine.closings == 1
    with pytest.raises(EngineError, match="closed"):
        engine.infer(batch_of(0))
    with pytest.raises(InputError, match="frames, outputs"):
        FakeEngine([1.0, 2.0])


def test_a_clock_goes_on_when_told_to():
    clock = FakeClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(0.25)
    assert clock() == 5.25
    with pytest.raises(InputError, match="never goes back"):
        clock.advance(-1)
    ticking = FakeClock(step_s=0.5)
    assert [ticking(), ticking(), ticking()] == [0.0, 0.5, 1.0]


def test_a_source_gives_its_frames_again_and_again():
    source = FakeSource(4, source_id="door", rate_hz=10, lost={1}, height=6, width=7)
    for _ in range(2):
        frames = list(source)
        assert [frame.frame_id.sequence for frame in frames] == [0, 2, 3]
        assert {frame.frame_id.source_id for frame in frames} == {"door"}
        assert [frame.timestamp_s for frame in frames] == pytest.approx([0.0, 0.2, 0.3])
        assert {frame.image.shape for frame in frames} == {(6, 7, 3)}
        assert frame_numbers(np.stack([frame.image for frame in frames])).tolist() == [0, 2, 3]
    assert len(source) == 3
    with pytest.raises(InputError, match="told apart"):
        FakeSource(MOST_FRAMES + 1)
