"""Quantiles of samples, pooled quantiles of a cascade, and how much escalation a limit allows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError
from tinysaver_edge.latency import (
    CascadeLatency,
    LatencySamples,
    LatencySource,
    pooled,
)

durations = st.lists(st.floats(0, 1e4), min_size=1, max_size=60)
rates = st.floats(0, 1)


def of(*samples_ms: float) -> LatencySamples:
    return LatencySamples(np.array(samples_ms))


@pytest.mark.parametrize(
    ("q", "expected"),
    [(0, 1), (0.01, 1), (0.011, 2), (0.5, 50), (0.9, 90), (0.95, 95), (0.951, 96), (1, 100)],
)
def test_a_quantile_is_a_sample_that_was_seen(q: float, expected: float) -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 101))
    assert LatencySamples(shuffled).quantile_ms(q) == expected


def test_named_quantiles_and_mean() -> None:
    samples = LatencySamples(np.arange(1, 101))
    assert (samples.p50_ms, samples.p90_ms, samples.p95_ms, samples.p99_ms) == (50, 90, 95, 99)
    assert samples.median_ms == 50
    assert samples.mean_ms == 50.5


@given(durations, rates)
def test_a_share_q_lies_within_the_quantile_and_less_within_anything_below(
    values: list[float], q: float
) -> None:
    samples = of(*values)
    found = samples.quantile_ms(q)
    assert samples.share_within(found) >= q - 1e-8
    assert (samples.samples_ms < found).mean() <= q


@pytest.mark.parametrize("samples_ms", [[], [1.0, float("nan")], [float("inf")], [-0.1]], ids=str)
def test_what_is_no_duration_is_refused(samples_ms: list[float]) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        of(*samples_ms)


def test_samples_cannot_be_changed_from_outside() -> None:
    given_ = np.array([1.0, 2.0])
    samples = LatencySamples(given_)
    given_[0] = 9
    assert samples.samples_ms[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        samples.samples_ms[0] = 9


@given(durations, st.sampled_from(LatencySource))
def test_json_keeps_samples_to_the_nanosecond(values: list[float], source: LatencySource) -> None:
    samples = LatencySamples(np.array(values), source)
    back = LatencySamples.from_dict(json.loads(json.dumps(samples.to_dict())))
    assert back.source is source
    assert np.abs(back.samples_ms - samples.samples_ms).max() <= 5.1e-7
    assert LatencySamples.from_dict(back.to_dict()) == back


@pytest.mark.parametrize(
    "values",
    [{}, {"samples_ms": []}, {"samples_ms": [1], "source": "hearsay"}, {"samples_ms": "x"}],
    ids=str,
)
def test_damaged_json_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        LatencySamples.from_dict({"source": "measured", **values} if values else values)


def test_a_published_figure_is_its_own_quantile_and_stays_marked() -> None:
    published = LatencySamples.published(7.5)
    assert published.p99_ms == published.mean_ms == 7.5
    assert published.plus(of(1)).source is LatencySource.PUBLISHED
    assert CascadeLatency.of(of(1), published).at(0.5).source is LatencySource.PUBLISHED
    assert CascadeLatency.of(of(1), published).at(0.0).source is LatencySource.MEASURED


def test_sums_are_of_all_pairs() -> None:
    assert sorted(of(1, 2).plus(of(10, 20)).samples_ms) == [11, 12, 21, 22]


@given(durations, durations)
def test_the_mean_of_sums_is_the_sum_of_means(first: list[float], second: list[float]) -> None:
    total = of(*first).plus(of(*second)).mean_ms
    assert total == pytest.approx(of(*first).mean_ms + of(*second).mean_ms, abs=1e-7)


def test_sums_of_many_samples_keep_the_quantiles_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = (LatencySamples(rng.gamma(4, size, 700)) for size in (0.1, 1.0))
    all_pairs = LatencySamples(np.add.outer(first.samples_ms, second.samples_ms).reshape(-1))
    for q in (0.5, 0.9, 0.95, 0.99):
        assert first.plus(second).quantile_ms(q) == pytest.approx(
            all_pairs.quantile_ms(q), rel=0.005
        )


@pytest.mark.parametrize(
    ("rate", "mean", "p50", "p95", "p99"),
    [
        (0.0, 1.0, 1, 1, 1),
        (0.04, 1.4, 1, 1, 11),
        (0.05, 1.5, 1, 1, 11),
        (0.06, 1.6, 1, 11, 11),
        (0.6, 7.0, 11, 11, 11),
        (1.0, 11.0, 11, 11, 11),
    ],
)
def test_quantiles_come_from_pooled_samples(
    rate: float, mean: float, p50: float, p95: float, p99: float
) -> None:
    found = CascadeLatency.of(of(1, 1, 1), of(10, 10)).at(rate)
    assert found.mean_ms == pytest.approx(mean)
    assert [found.quantile_ms(q) for q in (0.5, 0.95, 0.99)] == [p50, p95, p99]


def test_pooling_weighs_frames_not_samples() -> None:
    many, few = LatencySamples(np.full(10_000, 1.0)), of(5)
    assert pooled([(many, 0.5), (few, 0.5)]).quantile_ms(0.51) == 5


def test_pooling_takes_any_number_of_ways() -> None:
    found = pooled([(of(1), 0.5), (of(2), 0.3), (of(3), 0.2)])
    assert [found.quantile_ms(q) for q in (0.5, 0.8, 0.81)] == [1, 2, 3]
    assert found.mean_ms == pytest.approx(1.7)


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)], ids=str)
def test_shares_must_be_fractions_of_one(shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="shares of frames"):
        pooled([(of(1), shares[0]), (of(2), shares[1])])


@given(durations, durations, st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.floats(0, 3e4))
def test_the_largest_rate_keeps_a_quantile_and_a_larger_one_breaks_it(
    saver: list[float], large: list[float], q: float, limit_ms: float
) -> None:
    pair = CascadeLatency.of(of(*saver), of(*large))
    rate = pair.largest_rate_for_quantile(q, limit_ms)
    if rate is None:
        assert pair.at(0).quantile_ms(q) > limit_ms
        return
    assert pair.at(rate).quantile_ms(q) <= limit_ms
    if rate < 0.999:
        assert pair.at(rate + 0.001).quantile_ms(q) > limit_ms


@given(durations, durations, st.floats(0, 3e4))
def test_the_largest_rate_keeps_a_mean_and_a_larger_one_breaks_it(
    saver: list[float], large: list[float], limit_ms: float
) -> None:
    pair = CascadeLatency.of(of(*saver), of(*large))
    rate = pair.largest_rate_for_mean(limit_ms)
    if rate is None:
        assert pair.at(0).mean_ms > limit_ms
        return
    assert pair.at(rate).mean_ms <= limit_ms + 1e-6
    if rate < 0.999:
        assert pair.at(min(rate * 1.01 + 0.001, 1)).mean_ms > limit_ms


# The saver after an escalated frame, when the large model has taken the caches.


def three(saver: list[float], after: list[float], escalated: list[float]) -> CascadeLatency:
    return CascadeLatency(of(*saver), of(*escalated), of(*after))


@given(durations, durations, durations, rates)
def test_three_ways_are_pooled_with_their_shares(
    saver: list[float], after: list[float], escalated: list[float], p: float
) -> None:
    found = three(saver, after, escalated).at(p)
    means = [float(np.mean(one)) for one in (saver, after, escalated)]
    shares = [(1 - p) ** 2, (1 - p) * p, p]
    assert found.mean_ms == pytest.approx(np.dot(means, shares))
    for limit_ms in (*saver[:3], *after[:3], *escalated[:3]):
        within = [np.mean(np.array(one) <= limit_ms) for one in (saver, after, escalated)]
        share = float(np.dot(within, shares))
        if 0 < share < 1:
            assert found.quantile_ms(share) <= limit_ms
        if share + 1e-6 <= 1:
            assert found.quantile_ms(share + 1e-6) > limit_ms


@given(durations, durations, durations, st.floats(0, 3e4))
def test_up_to_the_largest_rate_a_mean_is_kept_and_right_above_it_is_not(
    saver: list[float], after: list[float], escalated: list[float], limit_ms: float
) -> None:
    ways = three(saver, after, escalated)
    rate = ways.largest_rate_for_mean(limit_ms)
    if rate is None:
        assert ways.at(0).mean_ms > limit_ms
        return
    for p in np.linspace(0, rate, 7):
        assert ways.at(min(p, 1)).mean_ms <= limit_ms + 1e-6
    assert rate == 1 or max(ways.at(min(rate + d, 1)).mean_ms for d in (1e-9, 1e-3)) >= limit_ms


@given(durations, durations, durations, st.sampled_from([0.5, 0.95, 0.99]), st.floats(0, 3e4))
def test_up_to_the_largest_rate_a_quantile_is_kept_and_right_above_it_is_not(
    saver: list[float], after: list[float], escalated: list[float], q: float, limit_ms: float
) -> None:
    ways = three(saver, after, escalated)
    rate = ways.largest_rate_for_quantile(q, limit_ms)
    if rate is None:
        assert ways.at(0).quantile_ms(q) > limit_ms
        return
    for p in np.linspace(0, rate, 7):
        assert ways.at(min(p, 1)).quantile_ms(q) <= limit_ms

    def share(p: float) -> float:
        within = [np.mean(np.array(one) <= limit_ms) for one in (saver, after, escalated)]
        return float(np.dot(within, [(1 - p) ** 2, (1 - p) * p, p]))

    assert rate == 1 or min(share(rate + 1e-9), share(min(rate + 1e-3, 1))) <= q


@pytest.mark.parametrize(
    ("limit_ms", "rate"),
    # At a quarter: 9/16 of 1 ms, 3/16 of 2 ms and 1/4 of 12 ms.
    [(0.9, None), (1.0, 0.0), (9 / 16 + 6 / 16 + 3, 0.25), (12.0, 1.0), (13.0, 1.0)],
)
def test_rates_that_can_be_told_by_hand(limit_ms: float, rate: float | None) -> None:
    found = three([1.0], [2.0], [12.0]).largest_rate_for_mean(limit_ms)
    assert found == (None if rate is None else pytest.approx(rate, abs=1e-12))


def test_a_cascades_latency_survives_json() -> None:
    for ways in (three([1, 2], [3], [9]), CascadeLatency(of(1), of(5))):
        back = CascadeLatency.from_dict(json.loads(json.dumps(ways.to_dict())))
        assert (back.saver, back.escalated) == (ways.saver, ways.escalated)
        assert back.saver_after == ways.saver_after
    with pytest.raises(InputError, match="cannot be read"):
        CascadeLatency.from_dict({"saver": of(1).to_dict()})
