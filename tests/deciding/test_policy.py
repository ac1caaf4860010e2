import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysaver_edge.bundle.manifest import FiguresEntry, Manifest, ModelEntry, Named, StageEntry
from tinysaver_edge.deciding.policy import Policy, StagePolicy, replay
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Margin, MaxSoftmax

CLASSES = 5


def random_topk(rng, samples):
    """Best three of five classes, with many equal margins."""
    classes = np.stack([rng.permutation(CLASSES)[:3] for _ in range(samples)])
    parts = rng.integers(1, 6, (samples, 4)).astype(np.float64)
    shares = -np.sort(-parts / parts.sum(axis=1, keepdims=True), axis=1)[:, :3]
    return classes, shares.astype(np.float32)


@st.composite
def replays(draw):
    """Stages with thresholds, some of which accept nothing, and top-k records for each."""
    samples = draw(st.integers(1, 25))
    count = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    tables = [random_topk(rng, samples) for _ in range(count)]
    stages = []
    for position in range(count):
        threshold = draw(
            st.one_of(
                st.none(),
                st.floats(-0.5, 1.5),
                st.integers(0, samples - 1),  # exactly one of the samples' margins
            )
        )
        if isinstance(threshold, int):
            best = tables[position][1][threshold].astype(np.float64)
            threshold = float(best[0] - best[1])
        last = position == count - 1
        stages.append(
            StagePolicy(
                f"m{position}",
                macs=10.0**position,
                score=None if last else Margin(),
                threshold=None if last else threshold,
            )
        )
    return Policy(tuple(stages)), tables


def by_hand(policy, tables):
    """One sample after the other, as the rule is written: answers, stages and first scores."""
    last = len(policy.stages) - 1
    rows = []
    for i in range(len(tables[0][0])):
        first = math.nan
        for position, stage in enumerate(policy.stages):
            classes, probabilities = tables[position]
            if position == last:
                rows.append((int(classes[i, 0]), position, first))
                break
            if stage.threshold is None:
                continue
            margin = float(probabilities[i, 0]) - float(probabilities[i, 1])
            first = margin if math.isnan(first) else first
            if margin >= stage.threshold:
                rows.append((int(classes[i, 0]), position, first))
                break
    return rows


@given(replays())
@settings(max_examples=200)
def test_replay_equals_going_through_the_samples_one_by_one(case):
    policy, tables = case
    found = replay(policy, [Outputs.from_topk(*table) for table in tables])
    expected = by_hand(policy, tables)
    assert found.predictions.tolist() == [row[0] for row in expected]
    assert found.stage.tolist() == [row[1] for row in expected]
    np.testing.assert_array_equal(found.score, [row[2] for row in expected])


@given(replays(), st.sampled_from([LinearFusion(0.4), ConditionalLogit()]))
@settings(max_examples=100)
def test_a_fusion_combines_the_last_early_answer_with_the_large_models(case, fusion):
    policy, tables = case
    outputs = [Outputs.from_topk(*table) for table in tables]
    found = replay(Policy(policy.stages, fusion), outputs)
    alone = replay(policy, outputs)
    assert (found.stage == alone.stage).all()
    early = policy.asked[-2] if len(policy.asked) > 1 else None
    for i, position in enumerate(alone.stage):
        if position < len(tables) - 1 or early is None:
            assert found.predictions[i] == alone.predictions[i]
        else:
            row = slice(i, i + 1)
            fused = fusion.fuse(outputs[early].subset(row), outputs[-1].subset(row))[0]
            assert found.predictions[i] == fused[0]


def test_scores_of_different_kinds_may_stand_in_one_policy():
    logits = [[2.0, 0.0], [0.1, 0.0], [0.0, 0.3]]
    policy = Policy(
        (
            StagePolicy("a", score=MaxSoftmax(), threshold=0.8),
            StagePolicy("b", score=Margin(), threshold=0.1),
            StagePolicy("c"),
        )
    )
    found = replay(policy, [Outputs.from_logits(logits)] * 3)
    assert found.stage.tolist() == [0, 2, 1]


@pytest.mark.parametrize("threshold", [None, math.nan, math.inf])
def test_a_threshold_that_nothing_reaches_escalates_everything(threshold):
    policy = Policy((StagePolicy("a", score=Margin(), threshold=threshold), StagePolicy("b")))
    outputs = [Outputs.from_logits([[9.0, 0.0]]), Outputs.from_logits([[0.0, 9.0]])]
    found = replay(policy, outputs)
    assert found.stage.tolist() == [1]
    assert found.predictions.tolist() == [1]
    assert math.isnan(found.score[0]) == (threshold is None)  # unasked stages give no score


@pytest.mark.parametrize(
    ("stages", "asked"),
    [
        ([None], (0,)),
        ([0.5, None], (0, 1)),
        ([None, None], (1,)),
        ([0.5, None, None], (0, 2)),
        ([None, 0.5, None], (1, 2)),
        ([0.5, 0.5, None], (0, 1, 2)),
    ],
)
def test_stages_that_accept_nothing_are_not_asked(stages, asked):
    policy = Policy(
        tuple(StagePolicy(str(i), score=Margin(), threshold=t) for i, t in enumerate(stages))
    )
    assert policy.asked == asked


def test_a_policy_needs_a_stage():
    with pytest.raises(InputError, match="at least one stage"):
        Policy(())


@pytest.mark.parametrize("sizes", [(), (3,), (3, 2), (3, 3, 3)])
def test_records_must_match_the_stages_and_each_other(sizes):
    policy = Policy((StagePolicy("a", score=Margin(), threshold=0.5), StagePolicy("b")))
    outputs = [Outputs.from_logits(np.zeros((size, 2))) for size in sizes]
    with pytest.raises(InputError, match="2 stages need as many records of one length"):
        replay(policy, outputs)


def manifest(stages, **options):
    figures = FiguresEntry(
        samples=1,
        accuracy_saver=1,
        accuracy_large=1,
        accuracy_cascade=1,
        drop_points=0,
        accept_rate=1,
        cost_macs_ratio=None,
    )
    return Manifest(
        created_by="test",
        labels=None,
        method="empirical",
        seed=0,
        calibration=figures,
        stages=stages,
        **options,
    )


def test_a_policy_is_read_off_a_manifest():
    stages = [
        StageEntry(
            model=ModelEntry(name="a", macs=2.0),
            score=Named(name="entropy", parameters={"depth": 3}),
            threshold=-0.5,
        ),
        StageEntry(model=ModelEntry(name="b", macs=20.0)),
    ]
    policy = Policy.from_manifest(manifest(stages))
    assert [stage.model for stage in policy.stages] == ["a", "b"]
    assert [stage.macs for stage in policy.stages] == [2.0, 20.0]
    assert policy.stages[0].score is not None
    assert policy.stages[0].score.parameters == {"depth": 3}
    assert policy.stages[0].threshold == -0.5
    assert policy.stages[1].score is None
    assert policy.fusion is None
    fused = manifest(stages, fusion=Named(name="linear", parameters={"weight": 0.5}))
    assert Policy.from_manifest(fused).fusion == LinearFusion(0.5)


@pytest.mark.parametrize(
    ("score", "fusion", "message"),
    [
        (Named(name="none such"), None, "none such"),
        (Named(name="entropy", parameters={"depth": "x"}), None, "depth"),
        (Named(name="margin", parameters={"depth": 2}), None, "depth"),
        (None, Named(name="none such"), "none such"),
        (None, Named(name="linear", parameters={"weight": 2}), "weight"),
    ],
)
def test_scores_and_fusions_that_are_unknown_here_are_refused(score, fusion, message):
    stages = [StageEntry(model=ModelEntry(name="a"), score=score)]
    with pytest.raises(InputError, match=message):
        Policy.from_manifest(manifest(stages, fusion=fusion))
