import numpy as np
import pytest
from scipy.optimize import minimize

from tinysaver_edge.calibrate.methods.fitting import (
    deferral_area,
    fit_conditional_logit,
    fit_fusion,
    fit_head,
    fit_linear,
    fit_logistic,
    fit_pnorm,
    fit_score,
)
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion, NoFusion
from tinysaver_edge.outputs import Outputs


def world(n=4000, classes=10, seed=0, saver_noise=2.0, large_noise=1.0):
    """Labels and two models that see them through noise; logits are the true log-posteriors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=n)
    seen = np.eye(classes)[labels] * 3.0
    saver = (seen + rng.normal(size=seen.shape) * saver_noise) * 3.0 / saver_noise**2
    large = (seen + rng.normal(size=seen.shape) * large_noise) * 3.0 / large_noise**2
    return Outputs.from_logits(saver), Outputs.from_logits(large), labels


def right(outputs, labels):
    return outputs.predictions == labels


def test_logistic_regression_finds_the_penalised_optimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1.0, 10.0, 0.1] + [0.0, 50.0, 0.0]
    event = rng.random(500) < 1 / (1 + np.exp(-(x[:, 0] - 0.1 * (x[:, 1] - 50))))
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(w):
        u = w[0] + z @ w[1:]
        start = np.log((event.sum() + 0.5) / (500.5 - event.sum()))
        penalty = 5.0 * (w[1:] ** 2).sum() + 1e-3 * (w[0] - start) ** 2
        return np.logaddexp(0, u).sum() - u[event].sum() + penalty / 2

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    fitted = fit_logistic(x, event, ridge=5.0)
    assert np.allclose(x @ fitted[1:] + fitted[0], best[0] + z @ best[1:], atol=1e-4)


@pytest.mark.parametrize("event", [np.zeros(50, bool), np.ones(50, bool)], ids=["never", "always"])
def test_logistic_regression_survives_one_outcome_only(event):
    fitted = fit_logistic(np.random.default_rng(0).normal(size=(50, 2)), event, ridge=3.0)
    assert np.isfinite(fitted).all()


def test_logistic_regression_survives_separable_data_and_constant_features():
    x = np.column_stack((np.linspace(-1, 1, 100), np.ones(100)))
    fitted = fit_logistic(x, x[:, 0] > 0, ridge=1e-3)
    assert np.isfinite(fitted).all()
    assert fitted[1] > 0


def test_head_predicts_how_often_the_large_model_helps():
    saver, large, labels = world(n=20_000)
    head = fit_head(saver, right(saver, labels), right(large, labels))
    fresh_saver, fresh_large, fresh_labels = world(n=20_000, seed=1)
    score = head(fresh_saver)
    gain = right(fresh_saver, fresh_labels).astype(int) - right(fresh_large, fresh_labels)
    for part in np.array_split(np.argsort(score), 4):
        assert gain[part].mean() == pytest.approx(score[part].mean(), abs=0.025)


def test_pnorm_takes_the_order_that_ranks_best():
    saver, large, labels = world()
    facts = {"saver_correct": right(saver, labels), "large_correct": right(large, labels)}
    best = fit_pnorm(saver, *facts.values())
    from tinysaver_edge.score import MaxLogitPNorm

    areas = [deferral_area(MaxLogitPNorm(p=p)(saver), **facts) for p in (1.0, 2.0, 4.0, 8.0)]
    assert deferral_area(best(saver), **facts) <= min(areas)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_wrong_scale(true):
    saver, large, labels = world(n=20_000)
    scaled = Outputs.from_logits(saver.logits * true)
    score = fit_score(
        "msp_temperature",
        scaled,
        saver_correct=right(saver, labels),
        large_correct=right(large, labels),
    )
    assert score.temperature == pytest.approx(true, rel=0.05)


def test_conditional_logit_finds_the_penalised_optimum():
    saver, large, labels = world(n=600, seed=4)
    fitted = fit_conditional_logit(saver, large, labels, ridge=5.0)
    prior = ConditionalLogit()

    def loss(weights):
        fusion = ConditionalLogit(*weights)
        total = 2.5 * ((np.array(weights) - prior.weights) ** 2).sum()
        for i in range(saver.samples):
            one = slice(i, i + 1)
            total -= log_chance(fusion, saver.subset(one), large.subset(one), int(labels[i]))
        return total

    here = loss(fitted.weights)
    for direction in np.eye(4):
        for step in (-0.05, 0.05):
            assert loss(fitted.weights + step * direction) > here


def log_chance(fusion, saver, large, label):
    """Log-probability that the logit gives the label; 0 where neither list has it."""
    lists = [
        dict(zip(o.top(5)[0][0].tolist(), o.top(5)[1][0].tolist(), strict=True))
        for o in (large, saver)
    ]
    utilities = {
        c: fusion.large * np.log(lists[0].get(c, 0) + fusion.floor_large)
        + fusion.saver * np.log(lists[1].get(c, 0) + fusion.floor_saver)
        + fusion.absent_large * (c not in lists[0])
        + fusion.absent_saver * (c not in lists[1])
        for c in {**lists[0], **lists[1]}
    }
    if label not in utilities:
        return 0.0
    return utilities[label] - np.logaddexp.reduce(list(utilities.values()))


def test_conditional_logit_stays_at_the_prior_with_few_samples():
    saver, large, labels = world(n=5)
    fitted = fit_conditional_logit(saver, large, labels)
    assert np.allclose(fitted.weights, ConditionalLogit().weights, atol=0.1)


def test_fitted_fusion_beats_either_model():
    saver, large, labels = world(n=20_000, saver_noise=1.3)
    fresh_saver, fresh_large, fresh_labels = world(n=20_000, seed=9, saver_noise=1.3)
    alone = right(fresh_large, fresh_labels).mean()
    for name in ("linear", "conditional_logit"):
        fusion = fit_fusion(name, saver, large, labels)
        answers, _ = fusion.fuse(fresh_saver, fresh_large)
        assert (answers == fresh_labels).mean() > alone + 0.01


def test_linear_fusion_is_none_where_the_saver_knows_nothing():
    _, large, labels = world()
    noise = Outputs.from_logits(np.random.default_rng(5).normal(size=(4000, 10)) * 5)
    assert fit_linear(noise, large, labels) == NoFusion()
    perfect = Outputs.from_logits(np.eye(10)[labels] * 20)
    assert isinstance(fit_linear(perfect, large, labels), LinearFusion)


def test_fits_refuse_what_they_cannot_fit():
    saver, large, labels = world(n=20)
    with pytest.raises(InputError, match="learns nothing"):
        fit_score("margin", saver, saver_correct=labels > 0, large_correct=labels > 0)
    with pytest.raises(InputError, match="give as many of each"):
        fit_score("head", saver, saver_correct=labels[:3] > 0, large_correct=labels > 0)
    with pytest.raises(InputError, match="give as many of each"):
        fit_fusion("linear", saver, large, labels[:3])
    with pytest.raises(InputError, match="no fusion is called"):
        fit_fusion("vote", saver, large, labels)
