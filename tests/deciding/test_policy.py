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
from tinysaver_edge.score import Margin, MaxSoftmax, TemperatureScaled

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


def pooled_by_hand(policy, tables):
    """The mixture after every stage, one sample and one class after the other."""
    asked, last = policy.asked, len(policy.stages) - 1
    rows = []
    for i in range(len(tables[0][0])):
        pool, first = None, math.nan
        for position in asked:
            here = dict(zip(*(column[i].tolist() for column in tables[position]), strict=True))
            weight = policy.pool[position - 1] if position and pool is not None else 0
            if weight:
                classes = [*here, *(c for c in pool if c not in here)]
                here = {
                    c: (1 - weight) * here.get(c, 0.0) + weight * pool.get(c, 0.0) for c in classes
                }
            best = sorted(here, key=lambda c: -here[c])  # stable, as the models' own order is
            pool = {c: float(np.float32(here[c])) for c in best[:3]}
            values = list(pool.values())
            if position == asked[0] and position != last:
                first = values[0] - values[1]
            stage = policy.stages[position]
            settled = stage.threshold is not None and values[0] - values[1] >= stage.threshold
            if position == last or settled:
                rows.append((best[0], position, first))
                break
    return rows


@given(replays(), st.data())
@settings(max_examples=200)
def test_a_pool_equals_mixing_the_samples_one_by_one(case, data):
    policy, tables = case
    count = len(policy.stages) - 1
    weights = st.lists(st.sampled_from([0.0, 0.23, 0.4, 1.0]), min_size=count, max_size=count)
    policy = Policy(policy.stages, pool=tuple(data.draw(weights)))
    outputs = [Outputs.from_topk(*table) for table in tables]
    found = replay(policy, outputs)
    expected = pooled_by_hand(policy, tables)
    assert found.predictions.tolist() == [row[0] for row in expected]
    assert found.stage.tolist() == [row[1] for row in expected]
    np.testing.assert_array_equal(found.score, [row[2] for row in expected])
    for i in range(len(found.stage)):  # one frame takes another road through the pool
        alone = replay(policy, [one.subset(slice(i, i + 1)) for one in outputs])
        assert (alone.predictions[0], alone.stage[0]) == (found.predictions[i], found.stage[i])


@given(replays())
@settings(max_examples=50)
def test_of_two_stages_a_pool_is_the_linear_fusion(case):
    policy, tables = case
    stages, tables = policy.stages[-2:], tables[-2:]
    if len(stages) < 2 or stages[0].threshold is None:
        return
    outputs = [Outputs.from_topk(*table) for table in tables]
    fused = replay(Policy(stages, LinearFusion(0.23)), outputs)
    mixed = replay(Policy(stages, pool=(0.23,)), outputs)
    assert (mixed.predictions == fused.predictions).all()
    assert (mixed.stage == fused.stage).all()


@pytest.mark.parametrize(
    ("thresholds", "pool", "asked"),
    [
        ([None, 0.5, None], (0.4, 0.4), (0, 1, 2)),  # a committee of the first two
        ([None, 0.5, None], (0.0, 0.4), (1, 2)),
        ([0.5, None, None], (0.4, 0.0), (0, 2)),
        ([None, None, None], (0.4, 0.4), (0, 1, 2)),
        ([None, None, None], (0.4, 0.0), (2,)),
    ],
)
def test_a_stage_that_accepts_nothing_is_asked_for_the_pool(thresholds, pool, asked):
    stages = tuple(
        StagePolicy(str(i), score=Margin(), threshold=t) for i, t in enumerate(thresholds)
    )
    assert Policy(stages, pool=pool).asked == asked


def test_a_pool_must_fit_its_stages():
    stages = (
        StagePolicy("a", score=TemperatureScaled(1.5), threshold=0.5),
        StagePolicy("b", score=TemperatureScaled(1.5), threshold=0.5),
        StagePolicy("c"),
    )
    assert Policy(stages, pool=(0.0, 0.4)).pool == (0.0, 0.4)  # the second is not pooled
    with pytest.raises(InputError, match=r"stage b: score 'msp_temperature' needs the logits"):
        Policy(stages, pool=(0.4, 0.4))
    with pytest.raises(InputError, match="has 2 weights, one for each but the first: there are 1"):
        Policy(stages, pool=(0.4,))
    with pytest.raises(InputError, match="a fusion or a pool, not both"):
        Policy(stages, LinearFusion(), (0.0, 0.4))
    with pytest.raises(InputError, match=r"weight is 1\.5"):
        Policy(stages, pool=(0.0, 1.5))


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
    assert Policy.from_manifest(manifest(stages, pool=[0.3])).pool == (0.3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": [0.3, 0.3]}, "pool has 2 weights for 2 stages"),
        ({"pool": [1.3]}, "pool"),
        ({"pool": [0.3], "fusion": Named(name="linear")}, "a fusion and a pool"),
        ({"pool": [0.3], "threshold": (0.5, 0.5)}, "b is the last and has a threshold"),
        ({"pool": [0.3], "score": None}, "a has a threshold and no score"),
    ],
)
def test_a_manifest_whose_pool_does_not_fit_is_refused(change, message):
    first, last = change.pop("threshold", (0.5, None))
    score = change.pop("score", Named(name="margin"))
    stages = [
        StageEntry(model=ModelEntry(name="a"), score=score, threshold=first),
        StageEntry(model=ModelEntry(name="b"), threshold=last),
    ]
    with pytest.raises(ValueError, match=message):
        manifest(stages, **change)


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
