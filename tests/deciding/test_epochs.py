import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge.deciding.epochs import EpochTimeline, reused
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import SIDE, STEPS, Gate, ReuseRule


@st.composite
def scenes(draw):
    """Epochs of different sizes whose pictures and answers move by small steps."""
    rng = np.random.default_rng(draw(st.integers(0, 1_000_000)))
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    count, classes = sum(sizes), draw(st.sampled_from([2, 7, 40]))
    grey = np.cumsum(rng.integers(-2, 3, (count, SIDE * SIDE)), axis=0) * STEPS // 4 + 100 * STEPS
    logits = np.cumsum(rng.normal(0, 0.3, (count, classes)), axis=0).astype(np.float32)
    times = np.concatenate([np.cumsum(rng.uniform(0.05, 1.5, size)) for size in sizes])
    timeline = EpochTimeline(
        np.repeat(np.arange(len(sizes)), sizes), times, grey.astype(np.int32), epoch_s=10.0
    )
    rule = ReuseRule(
        still=draw(st.sampled_from([0.0, 0.2, 0.5, 2.0])),
        same=draw(st.sampled_from([0.0, 0.05, 0.2, 1.0])),
        epoch_s=draw(st.sampled_from([2.0, 10.0, 100.0])),
        max_age_s=draw(st.sampled_from([None, 0.7, 3.0])),
    )
    return timeline, Outputs.from_logits(logits), rng.random(count) < 0.3, rule


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_side_by_side_it_decides_as_the_gate_does_frame_by_frame(scene):
    timeline, saver, accepted, rule = scene
    found = reused(rule, timeline, saver, accepted)
    for start, size in zip(timeline.starts.tolist(), timeline.sizes.tolist(), strict=True):
        gate, answers = Gate(rule), {}
        for place in range(start, start + size):
            look = gate.look(
                place,
                timeline.thumbnails[place].reshape(SIDE, SIDE),
                1.7e9 + timeline.times_s[place],
            )
            kept = None
            if look.repeats is None and not accepted[place]:
                kept = gate.keeps(look, saver.subset(np.array([place])))
            assert found.still[place] == (look.repeats is not None)
            assert found.same[place] == (kept is not None)
            earlier = look.repeats if look.repeats is not None else kept
            answers[place] = place if earlier is None else answers[earlier]
            assert found.of[place] == answers[place]


def test_a_mean_by_epoch_weighs_each_frame_of_it_the_same():
    timeline = EpochTimeline(
        np.array([3, 3, 3, 8]), np.array([0.0, 1, 2, 0]), np.zeros((4, 256), np.int32), 10.0
    )
    assert timeline.epochs == 2
    assert timeline.by_epoch(np.array([1.0, 0, 2, 5])).tolist() == [1.0, 5.0]
    part = timeline.subset(np.array([0, 2, 3]))
    assert (part.sizes.tolist(), part.starts.tolist()) == ([2, 1], [0, 2])


def test_answers_without_all_probabilities_are_refused():
    timeline = EpochTimeline(np.array([0]), np.zeros(1), np.zeros((1, 256), np.int32), 10.0)
    top = Outputs.from_topk(np.array([[1, 0]]), np.array([[0.6, 0.4]], np.float32))
    with pytest.raises(InputError, match="logits"):
        reused(ReuseRule(1.0, 0.1), timeline, top, np.array([False]))
