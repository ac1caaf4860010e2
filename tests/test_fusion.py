import json

import numpy as np
import pytest

from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import (
    ConditionalLogit,
    LinearFusion,
    NoFusion,
    fusion_names,
    get_fusion,
)
from tinysaver_edge.outputs import Outputs

ALL = [
    NoFusion(),
    LinearFusion(weight=0.3),
    ConditionalLogit(),
    ConditionalLogit(large=0.6, saver=0.24, absent_large=-1.2, absent_saver=-0.4, floor_large=1e-4),
]
ids = pytest.mark.parametrize("fusion", ALL, ids=lambda f: f"{f.name}-{len(f.parameters)}")


def pair(n=300, classes=12, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, classes))
    saver, large = (shared + rng.normal(size=(n, classes)) for _ in range(2))
    return Outputs.from_logits(saver * 2), Outputs.from_logits(large * 3)


def one_by_one(fusion, saver, large):
    """The definitions, class by class in plain Python."""
    answers, confidences = [], []
    for i in range(saver.samples):
        lists = []
        for outputs in (large, saver):
            classes, probabilities = outputs.subset(slice(i, i + 1)).top(fusion.depth)
            pairs = zip(classes[0].tolist(), probabilities[0].tolist(), strict=True)
            lists.append(dict(pairs))
        utilities = {}
        for c in [*lists[0], *lists[1]]:
            p_large, p_saver = lists[0].get(c, 0.0), lists[1].get(c, 0.0)
            if isinstance(fusion, LinearFusion):
                utilities[c] = (1 - fusion.weight) * p_large + fusion.weight * p_saver
            else:
                utilities[c] = (
                    fusion.large * np.log(p_large + fusion.floor_large)
                    + fusion.saver * np.log(p_saver + fusion.floor_saver)
                    + fusion.absent_large * (c not in lists[0])
                    + fusion.absent_saver * (c not in lists[1])
                )
        best = max(utilities, key=utilities.get)
        answers.append(best)
        if isinstance(fusion, LinearFusion):
            confidences.append(utilities[best])
        else:
            confidences.append(1 / sum(np.exp(u - utilities[best]) for u in utilities.values()))
    return answers, confidences


@pytest.mark.parametrize("fusion", ALL[1:], ids=lambda f: f"{f.name}-{len(f.parameters)}")
@pytest.mark.parametrize("classes", [2, 4, 12, 200])
def test_fusion_is_what_its_definition_says(fusion, classes):
    saver, large = pair(classes=classes)
    answers, confidences = fusion.fuse(saver, large)
    expected_answers, expected_confidences = one_by_one(fusion, saver, large)
    assert answers.tolist() == expected_answers
    assert np.allclose(confidences, expected_confidences, rtol=1e-9)


@ids
def test_a_topk_record_and_the_logits_it_came_from_fuse_alike(fusion):
    saver, large = pair()
    records = [Outputs.from_topk(*outputs.top(5)) for outputs in (saver, large)]
    for ours, theirs in zip(fusion.fuse(*records), fusion.fuse(saver, large), strict=True):
        assert np.array_equal(ours, theirs)


@ids
def test_the_device_fuses_one_frame_as_calibration_fused_it(fusion):
    saver, large = pair(n=60)
    answers, confidences = fusion.fuse(saver, large)
    for i in range(60):
        alone = slice(i, i + 1)
        answer, confidence = fusion.fuse(saver.subset(alone), large.subset(alone))
        assert (answer[0], confidence[0]) == (answers[i], confidences[i])


@ids
def test_answers_and_confidences_have_their_types(fusion):
    answers, confidences = fusion.fuse(*pair())
    assert answers.dtype == np.int64
    assert confidences.dtype == np.float64
    assert ((confidences > 0) & (confidences <= 1)).all()


@ids
def test_parameters_survive_json(fusion):
    again = get_fusion(fusion.name, json.loads(json.dumps(fusion.parameters)))
    assert again == fusion


def test_without_weight_the_saver_changes_nothing():
    saver, large = pair()
    for fusion in (NoFusion(), LinearFusion(weight=0.0), ConditionalLogit(saver=0.0)):
        assert np.array_equal(fusion.fuse(saver, large)[0], large.predictions)


def test_two_lists_that_share_no_class():
    saver = Outputs.from_topk([[7, 8]], [[0.9, 0.1]])
    large = Outputs.from_topk([[1, 2]], [[0.4, 0.3]])
    assert LinearFusion(weight=0.2).fuse(saver, large)[0].tolist() == [1]
    assert LinearFusion(weight=0.4).fuse(saver, large)[0].tolist() == [7]
    assert ConditionalLogit().fuse(saver, large)[0].tolist() == [1]


def test_equal_utilities_go_to_the_large_model():
    saver = Outputs.from_topk([[4]], [[0.5]])
    large = Outputs.from_topk([[9]], [[0.5]])
    assert LinearFusion(weight=0.5).fuse(saver, large)[0].tolist() == [9]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("vote", {}, f"there are {', '.join(fusion_names())}"),
        ("none", {"weight": 1}, "it takes none"),
        ("linear", {"weight": 1.5}, "weight is 1.5"),
        ("linear", {"w": 0.1}, "no parameter 'w'"),
        ("conditional_logit", {"floor_saver": 0}, "floor_saver is 0"),
        ("conditional_logit", {"saver": float("nan")}, "saver is nan"),
    ],
    ids=str,
)
def test_wrong_names_and_parameters_are_refused(name, parameters, message):
    with pytest.raises(InputError) as caught:
        get_fusion(name, parameters)
    assert message in str(caught.value)
