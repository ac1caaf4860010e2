import json

import numpy as np
import pytest

from tests.plug_ins import install
from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.score import Head, Margin, Score, get_score, score_names

PARAMETERS = {
    "maxlogit_pnorm": {"p": 3.0},
    "msp_temperature": {"temperature": 1.7},
    "head": {"help": [1.0, -2.0, -0.5, 0.3, 0.2], "harm": [-3.0, 0.4, 0.2, -0.1, 0.6]},
}
BUILT_IN = ["msp", "margin", "entropy", "doctor", "maxlogit_pnorm", "msp_temperature", "head"]
NEED_LOGITS = {"maxlogit_pnorm", "msp_temperature"}


def make(name):
    return get_score(name, PARAMETERS.get(name, {}))


def some_logits(n=200, classes=12, seed=0, scale=3.0):
    return (np.random.default_rng(seed).normal(size=(n, classes)) * scale).astype(np.float32)


def reference(name, z):
    """The definitions of DESIGN.md, one sample, in double precision."""
    p = np.sort(np.exp(z - z.max()) / np.exp(z - z.max()).sum())[::-1]
    if name == "msp":
        return p[0]
    if name == "margin":
        return p[0] - p[1]
    if name == "entropy":
        return (p * np.log(p)).sum()
    if name == "doctor":
        return -(1 - (p**2).sum()) / (p**2).sum()
    if name == "maxlogit_pnorm":
        centred = z - z.mean()
        return centred.max() / (np.abs(centred) ** 3.0).sum() ** (1 / 3.0)
    if name == "msp_temperature":
        return 1 / np.exp((z - z.max()) / 1.7).sum()
    entropy = (p[:5] * np.log(p[:5])).sum()
    features = [1.0, p[0] - p[1], p[0], np.log(max(1 - p[0], 1e-6)), entropy]
    chances = [1 / (1 + np.exp(-np.dot(features, PARAMETERS["head"][k]))) for k in ("help", "harm")]
    return chances[1] - chances[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_score_is_what_its_definition_says(name):
    logits = some_logits()
    scores = make(name)(Outputs.from_logits(logits))
    expected = [reference(name, row) for row in logits.astype(np.float64)]
    assert scores.dtype == np.float64
    assert scores.shape == (200,)
    assert np.allclose(scores, expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        (name, classes)
        for name in BUILT_IN
        for classes in (1, 2, 10, 1000)
        if name != "head" or classes >= 5
    ],
)
def test_the_device_scores_one_frame_as_calibration_scored_it(name, classes):
    logits = some_logits(n=300, classes=classes)
    batch = make(name)(Outputs.from_logits(logits))
    single = [make(name)(Outputs(logits=logits[i : i + 1]))[0] for i in range(0, 300, 17)]
    assert np.array_equal(single, batch[::17])


@pytest.mark.parametrize("name", [n for n in BUILT_IN if n not in NEED_LOGITS])
def test_a_score_pinned_to_a_topk_record_means_the_same_on_logits(name):
    logits = Outputs.from_logits(some_logits())
    record = Outputs.from_topk(*logits.top(5))
    pinned = make(name).suited_to(record)
    assert np.array_equal(pinned(record), pinned(logits))
    again = get_score(name, json.loads(json.dumps(pinned.parameters)))
    assert np.array_equal(again(record), pinned(record))


@pytest.mark.parametrize("name", sorted(NEED_LOGITS))
def test_scores_that_need_logits_refuse_a_topk_record(name):
    record = Outputs.from_topk(*Outputs.from_logits(some_logits()).top(5))
    for use in (make(name), make(name).suited_to):
        with pytest.raises(InputError, match="needs the logits"):
            use(record)


@pytest.mark.parametrize("name", BUILT_IN)
def test_parameters_survive_json(name):
    score = make(name)
    again = get_score(name, json.loads(json.dumps(score.parameters)))
    outputs = Outputs.from_logits(some_logits())
    assert np.array_equal(again(outputs), score(outputs))


@pytest.mark.parametrize("name", ["msp", "margin", "msp_temperature"])
def test_fixed_thresholds_go_from_strict_to_loose_and_end_by_accepting_all(name):
    score = make(name)
    thresholds = score.fixed_thresholds()
    assert (np.diff(thresholds) < 0).all()
    assert (score(Outputs.from_logits(some_logits())) >= thresholds[-1]).all()


@pytest.mark.parametrize("name", ["maxlogit_pnorm", "msp", "entropy"])
def test_extreme_logits_give_finite_scores(name):
    logits = np.array([[1e4, -1e4, 0, 0], [5, 5, 5, 5], [88, 0, 0, 0]], dtype=np.float32)
    assert np.isfinite(make(name)(Outputs.from_logits(logits))).all()


def test_head_adds_what_it_learned_of_the_predicted_class():
    outputs = Outputs.from_logits(some_logits(classes=6))
    plain = make("head")
    informed = Head(plain.help, plain.harm, class_help=(2.0,) + (0.0,) * 5, class_harm=(0.0,) * 6)
    risky = outputs.predictions == 0
    assert (informed(outputs)[risky] < plain(outputs)[risky]).all()
    assert np.array_equal(informed(outputs)[~risky], plain(outputs)[~risky])


def test_names_list_the_built_in_scores():
    assert list(score_names())[: len(BUILT_IN)] == BUILT_IN


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("magic", {}, "there are msp, margin"),
        ("msp", {"p": 2}, "no parameter 'p'"),
        ("maxlogit_pnorm", {}, "cannot be made"),
        ("maxlogit_pnorm", {"p": 0.5}, "p is 0.5"),
        ("maxlogit_pnorm", {"p": float("inf")}, "p is inf"),
        ("msp_temperature", {"temperature": "hot"}, "temperature is 'hot'"),
        ("entropy", {"depth": 0}, "depth is 0"),
        ("head", {"help": [1.0], "harm": [1.0]}, "expected 5 of each"),
        ("head", {"help": [None] * 5, "harm": [1.0] * 5}, "help is None"),
    ],
    ids=str,
)
def test_wrong_names_and_parameters_are_refused_in_one_line(name, parameters, message):
    with pytest.raises(InputError) as caught:
        get_score(name, parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Sharpness(Score):
    """A score as another package would write it."""

    name = "sharpness"

    def __call__(self, outputs):
        return outputs.top(1)[1][:, 0].astype(np.float64) ** 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    named = {"sharpness": "Sharpness", "no_score": "np", "gone": "Gone"}
    install(tmp_path, monkeypatch, "scores", {one: f"{__name__}:{of}" for one, of in named.items()})


@pytest.mark.usefixtures("installed")
def test_other_packages_bring_scores():
    assert "sharpness" in score_names()
    score = get_score("sharpness")
    outputs = Outputs.from_logits(some_logits())
    assert np.allclose(score(outputs), get_score("msp")(outputs) ** 2)
    assert score.parameters == {}
    assert score.fixed_thresholds() is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "message"), [("no_score", "no subclass"), ("gone", "Gone")])
def test_a_broken_package_is_named(name, message):
    with pytest.raises(InputError, match=message):
        get_score(name)


def test_margin_of_a_single_class_is_its_confidence():
    assert Margin()(Outputs.from_logits([[3.0]])).tolist() == [1.0]


def test_a_margin_near_one_tells_what_float32_cannot():
    """The gap between the best two logits is what is asked; old thresholds mean what they did."""
    gaps = np.array([5.0, 10.0, 18.0, 20.0, 25.0, 33.0])
    logits = np.stack([gaps, np.zeros_like(gaps), np.full_like(gaps, -200.0)], axis=1)
    found = Margin()(Outputs.from_logits(logits))
    assert found == pytest.approx(np.tanh(gaps / 2), abs=1e-7)
    assert 1 - found[1:] == pytest.approx(2 / (np.exp(gaps[1:]) + 1), rel=1e-2)
    assert (np.diff(found) > 0).all()
    for row, score in zip(logits, found, strict=True):
        assert Margin()(Outputs.from_logits(row[None]))[0] == score


def test_a_margin_is_the_difference_of_two_probabilities():
    outputs = Outputs.from_logits(np.random.default_rng(0).normal(0, 8, (500, 20)))
    best = outputs.top(2)[1].astype(np.float64)
    assert Margin()(outputs) == pytest.approx(best[:, 0] - best[:, 1], abs=3e-7)


@pytest.mark.parametrize("classes", [2, 3, 16, 100, 1001])
def test_a_margin_alone_is_the_margin_among_others_to_the_bit(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 2, (200, classes)).astype(np.float32)
    logits[np.arange(200), rng.integers(0, classes, 200)] += rng.uniform(0, 60, 200)
    together = Margin()(Outputs(logits=logits))
    alone = [Margin()(Outputs(logits=logits[row : row + 1]))[0] for row in range(200)]
    assert together.tolist() == [float(one) for one in alone]
    assert (together > 0.999).sum() > 50
