from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.report.world import MACS, answers, finished, problem
from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.report.latency import latency_facts
from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import LatencySamples


def costs(saver, large):
    """Two models of these latencies; what they answer does not matter."""
    labels = np.array([0, 1])
    one, other = (answers(name, labels, classes=2, seed=0) for name in ("tiny", "large"))
    return CascadeCosts.of(
        replace(one, latency=LatencySamples(np.array(saver))),
        replace(other, latency=LatencySamples(np.array(large))),
    )


def test_paths_are_pooled_as_they_occur():
    facts = latency_facts(costs([1.0], [10.0]), rates=(0.04,), asked=True, machine="here")
    assert facts.cascade.mean_ms == pytest.approx(0.96 * 1 + 0.04 * 11)
    assert (facts.cascade.p50_ms, facts.cascade.p95_ms, facts.cascade.p99_ms) == (1.0, 1.0, 11.0)
    assert (facts.large.mean_ms, facts.large.p99_ms) == (10.0, 10.0)
    assert (facts.machine, facts.measured) == ("here", True)


def test_steps_are_the_distribution():
    rng = np.random.default_rng(0)
    saver, large = rng.gamma(2, 1, 40), 20 + rng.gamma(2, 1, 30)
    facts = latency_facts(costs(saver, large), rates=(0.3,), asked=True, machine=None)
    both = np.add.outer(saver, large).reshape(-1)
    for time, share in facts.cascade.steps:
        within = 0.7 * (saver <= time).mean() + 0.3 * (both <= time).mean()
        assert share == pytest.approx(within)
    shares = [share for _, share in facts.cascade.steps]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_a_saver_that_is_not_asked_takes_no_time():
    facts = latency_facts(costs([1.0], [10.0]), rates=(1.0,), asked=False, machine=None)
    assert facts.cascade.mean_ms == facts.large.mean_ms == 10.0


def test_published_figures_are_not_called_measured():
    pair = costs([1.0], [10.0])
    pair = CascadeCosts.of(replace(pair.saver, latency=LatencySamples.published(1.0)), pair.large)
    assert not latency_facts(pair, rates=(0.5,), asked=True, machine=None).measured


def test_the_reports_rate_is_the_cascades():
    given = problem()
    timed = replace(
        given,
        large=replace(given.large, latency=LatencySamples(np.array([2.0]))),
        savers=tuple(
            replace(one, latency=LatencySamples(np.array([MACS[one.name] / 1e9])))
            for one in given.savers
        ),
    )
    done = finished(timed)
    facts = done.facts().latency
    accepted = done.result.calibration.accept_rate
    assert facts.escalation_rate == pytest.approx(1 - accepted)
    kappa = done.result.policy.stages[0].macs / 1e9
    assert facts.cascade.mean_ms == pytest.approx(kappa + 2 * (1 - accepted))
    assert finished().facts().latency is None


@pytest.mark.parametrize("name", ["", "latency", "mean_latency", "p50_latency_ms", "mean_flops"])
def test_the_costs_of_what_nobody_budgets_are_an_error_and_no_latency(name) -> None:
    pair = costs([1.0], [10.0])
    for asked in (
        lambda: pair.at(name, 0.5),
        lambda: pair.alone(name),
        lambda: pair.largest_rate(name, 5.0),
    ):
        with pytest.raises(InputError, match=f"budget {name!r} is unknown: there are mean_macs, "):
            asked()
