import numpy as np
import pytest

from tests.real_data import needs_records, read_records
from tinysaver_edge.calibrate.methods.certify import (
    certify_pair,
    default_rule,
    split,
    tuned_thresholds,
)
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion, NoFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Entropy, Head, Margin


def world(n=12_000, seed=0, classes=10):
    """Labels, and two models of which the large one sees less noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=n)
    seen = np.eye(classes)[labels] * 3.0
    difficulty = rng.exponential(size=(n, 1))
    saver, large = (
        Outputs.from_logits(seen + rng.normal(size=seen.shape) * noise * difficulty)
        for noise in (1.0, 0.7)
    )
    return saver, large, labels


def loss(choice, saver, large, labels):
    """D of every sample under the choice, straight from its definition."""
    accept = choice.score(saver) >= choice.threshold
    final, _ = choice.fusion.fuse(saver, large)
    cascade = np.where(accept, saver.predictions, final)
    return (large.predictions == labels).astype(int) - (cascade == labels), accept


def test_the_certificate_counts_what_the_cascade_does():
    saver, large, labels = world()
    choice = certify_pair(saver, large, labels, max_drop_points=1.0)
    d, accept = loss(choice, saver, large, labels)
    certificate = choice.certificate
    assert (certificate.lost, certificate.gained) == ((d == 1).sum(), (d == -1).sum())
    assert certificate.steps[-1].accepted == accept.sum() > 3000
    assert (certificate.samples, certificate.threshold) == (12_000, choice.threshold)
    assert certificate.evidence is EvidenceKind.LABELS
    assert choice.why == certificate.statement
    certificate.recompute()
    if certificate.failed is not None:
        assert certificate.failed.threshold < choice.threshold


def test_by_default_nothing_is_fitted_and_every_sample_certifies():
    saver, large, labels = world()
    choice = certify_pair(saver, large, labels, max_drop_points=1.0)
    assert (choice.score, choice.fusion) == (Margin(), ConditionalLogit())
    assert len(choice.tune_index) == 0
    assert np.array_equal(choice.certify_index, np.arange(12_000))


@pytest.mark.parametrize(
    ("units", "points", "labelled", "fusion"),
    [
        (3000, 0.5, True, ConditionalLogit()),
        (2999, 0.5, True, NoFusion()),
        (1500, 1.0, True, ConditionalLogit()),
        (50_000, 0.5, False, NoFusion()),
    ],
)
def test_fusion_needs_enough_labelled_samples(units, points, labelled, fusion):
    rule = default_rule(units=units, max_drop_points=points, labelled=labelled)
    assert rule.fusion == fusion


@pytest.mark.parametrize(
    ("score", "fusion", "share"),
    [
        (None, None, 0.0),
        ("msp", "none", 0.0),
        ("head", None, 0.2),
        ("msp_temperature", None, 0.05),
        ("entropy", None, 0.05),
        (Entropy(), None, 0.05),
        (None, "conditional_logit", 0.05),
        (None, LinearFusion(), 0.0),
    ],
    ids=str,
)
def test_tune_split_is_made_only_where_something_learns(score, fusion, share):
    saver, large, labels = world(n=6000)
    choice = certify_pair(
        saver, large, labels, max_drop_points=2.0, score=score, fusion=fusion, seed=3
    )
    wanted = 0 if share == 0 else max(200, int(share * 6000))
    assert len(choice.tune_index) == wanted
    assert not set(choice.tune_index) & set(choice.certify_index)
    assert len(choice.certify_index) == 6000 - wanted == choice.certificate.samples
    d, _ = loss(
        choice,
        saver.subset(choice.certify_index),
        large.subset(choice.certify_index),
        labels[choice.certify_index],
    )
    assert choice.certificate.lost == (d == 1).sum()


def test_what_learns_does_not_see_the_certify_labels():
    saver, large, labels = world(n=4000)
    first = certify_pair(
        saver, large, labels, max_drop_points=2.0, score="head", fusion="conditional_logit"
    )
    other = labels.copy()
    other[first.certify_index] = 0
    second = certify_pair(
        saver, large, other, max_drop_points=2.0, score="head", fusion="conditional_logit"
    )
    assert isinstance(first.score, Head)
    assert first.score.parameters == second.score.parameters
    assert first.fusion == second.fusion
    assert first.certificate != second.certificate


def test_tune_samples_can_be_given():
    saver, large, labels = world(n=5000)
    choice = certify_pair(
        saver, large, labels, max_drop_points=2.0, score="head", tune=np.arange(500)
    )
    assert np.array_equal(choice.certify_index, np.arange(500, 5000))
    with pytest.raises(InputError, match="beyond the 5000"):
        certify_pair(saver, large, labels, max_drop_points=2.0, tune=np.array([7000]))
    with pytest.raises(InputError, match="learns from tune samples"):
        certify_pair(
            saver, large, labels, max_drop_points=2.0, score="head", tune=np.array([], int)
        )


def test_seed_decides_the_split_and_repeats():
    assert np.array_equal(split(5000, share=0.1, seed=4)[0], split(5000, share=0.1, seed=4)[0])
    assert not np.array_equal(split(5000, share=0.1, seed=4)[0], split(5000, share=0.1, seed=5)[0])


def test_split_keeps_groups_whole():
    groups = np.repeat(np.arange(1000), 7)
    tune, certify = split(groups, share=0.3, seed=0)
    assert not set(groups[tune]) & set(groups[certify])
    assert len(tune) == 300 * 7


def test_candidates_share_the_risk():
    saver, large, labels = world()
    alone = certify_pair(saver, large, labels, max_drop_points=1.0)
    shared = certify_pair(saver, large, labels, max_drop_points=1.0, candidates=12)
    assert shared.threshold > alone.threshold
    assert shared.certificate.p_value <= 0.1 / 12
    assert shared.certificate.risk == 0.1


@pytest.mark.parametrize(
    ("n", "points", "message"),
    [
        (300, 0.5, "300 samples cannot prove a drop of 0.5 points at confidence 0.9: at least 644"),
        (644, 0.1, "at least 3223"),
    ],
)
def test_too_few_samples_abstain_and_say_how_many(n, points, message):
    saver, large, labels = world(n=n)
    choice = certify_pair(saver, large, labels, max_drop_points=points)
    assert (choice.threshold, choice.certificate) == (None, None)
    assert message in choice.why


def test_a_saver_that_is_confidently_wrong_is_not_certified():
    _, large, labels = world(n=5000)
    wrong = Outputs.from_logits(np.eye(10)[(labels + 1) % 10] * 50)
    choice = certify_pair(wrong, large, labels, max_drop_points=1.0)
    assert choice.threshold is None
    assert "loses" in choice.why


def test_without_labels_answers_are_compared_with_the_large_models():
    saver, large, labels = world()
    choice = certify_pair(saver, large, None, max_drop_points=2.0)
    assert choice.fusion == NoFusion()
    assert choice.certificate.evidence is EvidenceKind.CONSISTENCY
    accept = choice.score(saver) >= choice.threshold
    assert choice.certificate.lost == (accept & (saver.predictions != large.predictions)).sum()
    assert choice.certificate.gained == 0
    assert "from consistency" in choice.why
    d, _ = loss(choice, saver, large, labels)
    assert d.mean() <= choice.certificate.lost / 12_000


@pytest.mark.parametrize("labelled", [True, False])
def test_clips_are_certified_by_their_means(labelled):
    saver, large, labels = world(n=20_000)
    groups = np.array([f"clip {i // 10}" for i in range(20_000)])
    truth = labels if labelled else None
    choice = certify_pair(saver, large, truth, max_drop_points=3.0, groups=groups)
    assert choice.certificate.evidence.grouped
    assert choice.certificate.groups == 2000
    choice.certificate.recompute()
    alone = certify_pair(saver, large, truth, max_drop_points=3.0)
    assert choice.threshold >= alone.threshold


def test_frames_that_repeat_count_once():
    """Each sample ten times over, as a still camera gives: groups must not be fooled by it."""
    saver, large, labels = world(n=400)
    index = np.repeat(np.arange(400), 10)
    repeated = saver.subset(index), large.subset(index), labels[index]
    fooled = certify_pair(*repeated, max_drop_points=0.55)
    honest = certify_pair(*repeated, max_drop_points=0.55, groups=index)
    assert fooled.threshold is not None
    assert honest.threshold is None
    assert "groups" in honest.why


def test_a_budgets_threshold_gets_the_least_drop_that_can_be_signed():
    saver, large, labels = world()
    choice = certify_pair(saver, large, labels, max_drop_points=1.0)
    certificate = choice.trial.certify_at(0.2)
    certificate.recompute()
    assert certificate.threshold == 0.2
    assert certificate.grid_size == 1
    # A single test at a certified threshold signs at least as much as the walk did.
    assert choice.trial.certify_at(choice.threshold).max_drop_points <= 1.0


def test_tuned_thresholds_fall_and_end_by_accepting_every_tune_sample():
    scores = np.random.default_rng(0).normal(size=700)
    thresholds = tuned_thresholds(scores)
    assert (np.diff(thresholds) < 0).all()
    assert thresholds[-1] == scores.min()
    assert len(thresholds) == 250
    assert tuned_thresholds(np.array([0.5])).tolist() == [0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 1.0}, "confidence 1.0"),
        ({"candidates": 0}, "0 candidates"),
        ({"max_drop_points": float("nan")}, "nan points"),
        ({"fusion": "vote"}, "no fusion is called 'vote'"),
        ({"score": "magic"}, "no score is called 'magic'"),
        ({"groups": np.zeros(3)}, "3 groups for 900 samples"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nonsense_is_refused(change, message):
    saver, large, labels = world(n=900)
    with pytest.raises(InputError, match=message):
        certify_pair(saver, large, labels, **({"max_drop_points": 1.0} | change))


def test_samples_must_match():
    saver, large, labels = world(n=50)
    with pytest.raises(InputError, match="49 labels"):
        certify_pair(saver, large, labels[1:], max_drop_points=1.0)


@needs_records
def test_on_the_real_records_the_default_is_cheap():
    records = read_records("mobilenetV2", "xception")
    saver, large = records.outputs["mobilenetV2"], records.outputs["xception"]
    choice = certify_pair(saver, large, records.labels, max_drop_points=0.5)
    kappa = records.macs["mobilenetV2"] / records.macs["xception"]
    accepted = choice.certificate.steps[-1].accepted
    assert kappa + 1 - accepted / 50_000 <= 0.39


@pytest.mark.slow
def test_certificates_are_wrong_no_more_often_than_promised():
    """Small worlds with a known population, at a bound where the walk often comes near it."""
    saver, large, labels = world(n=20_000, seed=5)
    rng, wrong, passed, runs = np.random.default_rng(6), 0, 0, 300
    for _ in range(runs):
        index = rng.integers(0, 20_000, size=1500)
        choice = certify_pair(
            saver.subset(index), large.subset(index), labels[index], max_drop_points=1.0
        )
        if choice.threshold is not None:
            passed += 1
            wrong += loss(choice, saver, large, labels)[0].mean() > 0.01
    assert passed > 200
    assert wrong / runs <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / runs)


def test_a_saver_whose_logits_are_large_is_certified_as_if_they_were_not():
    """Thirty times the logits keep the order of the samples, in the last digits of the margin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 2000)

    def answers(gain):
        logits = rng.normal(0, 1, (2000, 5))
        logits[np.arange(2000), labels] += gain
        return logits

    large, saver = Outputs.from_logits(answers(4)), answers(2.5)
    found = [
        certify_pair(Outputs.from_logits(saver * by), large, labels, max_drop_points=2.0)
        for by in (1, 30)
    ]
    accepted = [one.certificate.steps[-1].accepted for one in found]
    assert accepted[1] == pytest.approx(accepted[0], rel=0.1)


def test_scores_that_saturate_are_named():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 2000)
    saver = rng.normal(0, 1, (2000, 5))
    large = np.eye(5)[labels] * 9
    choice = certify_pair(
        Outputs.from_logits(saver * 1e4), Outputs.from_logits(large), labels, max_drop_points=1.0
    )
    assert choice.certificate is None
    assert "saturated at 1" in choice.why
    assert "maxlogit_pnorm" in choice.why
