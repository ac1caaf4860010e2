from dataclasses import replace

import numpy as np
import pytest

from tinysaver_edge.calibrate.costs import CascadeCosts
from tinysaver_edge.calibrate.methods.certify import certify
from tinysaver_edge.calibrate.methods.reuse import ReusePath
from tinysaver_edge.calibrate.problem import ModelAnswers
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.errors import InputError
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import SIDE, STEPS, Gate

CLASSES = 6


def world(*, epochs=80, frames=7, seed=0):
    """Frames that mostly rest, while what is to be seen in them changes now and then."""
    rng = np.random.default_rng(seed)
    count = epochs * frames
    truth = np.repeat(rng.integers(CLASSES, size=epochs), frames)
    changed = rng.random(count) < 0.05
    truth[changed] = rng.integers(CLASSES, size=int(changed.sum()))
    logits = rng.normal(0, 1, (2, count, CLASSES)).astype(np.float32)
    logits[0, np.arange(count), truth] += 3
    logits[1, np.arange(count), truth] += 5
    grey = 100 * STEPS + np.repeat(rng.integers(-2000, 2000, (epochs, 256)), frames, axis=0)
    grey += rng.integers(-STEPS, STEPS, (count, 256)) * rng.integers(1, 12, (count, 1))
    timeline = EpochTimeline(
        np.repeat(np.arange(epochs), frames),
        np.tile(np.arange(frames) * 0.5, epochs),
        grey.astype(np.int32),
        epoch_s=4.0,
    )
    return [Outputs.from_logits(one) for one in logits], truth, timeline


def frame_by_frame(stages, truth, timeline, rule, threshold):
    """D of every frame, and who was asked, as a gate has it."""
    saver, large = stages
    top = np.sort(np.exp(saver.logits) / np.exp(saver.logits).sum(axis=1, keepdims=True))
    margin = top[:, -1] - top[:, -2]
    losses, asked, escalated = [], 0, 0
    for start, size in zip(timeline.starts.tolist(), timeline.sizes.tolist(), strict=True):
        gate, answers = Gate(rule), {}
        for place in range(start, start + size):
            look = gate.look(
                place, timeline.thumbnails[place].reshape(SIDE, SIDE), timeline.times_s[place]
            )
            if look.repeats is not None:
                answer = answers[look.repeats]
            else:
                asked += 1
                one = saver.subset(np.array([place]))
                if margin[place] >= threshold:
                    answer = int(saver.predictions[place])
                elif (kept := gate.keeps(look, one)) is not None:
                    answer = answers[kept]
                else:
                    escalated += 1
                    answer = int(large.predictions[place])
            answers[place] = answer
            right = int(large.predictions[place] == truth[place])
            losses.append(right - int(answer == truth[place]))
    return np.array(losses), asked, escalated


def test_every_step_of_the_walk_counts_what_a_gate_does_frame_by_frame():
    stages, truth, timeline = world()
    made = certify(stages, truth, max_drop_points=60, fusion=NoFusion(), timeline=timeline)
    path, counts = made.trial.reuse, made.trial.counted(made.trial.thresholds)
    crossed = 0
    for place in (0, 3, 12, 29, 35, 41):
        threshold = float(path.thresholds[place])
        rule = path.rule(threshold, epoch_s=4.0)
        losses, asked, escalated = frame_by_frame(stages, truth, timeline, rule, threshold)
        assert counts.lost[place] == np.count_nonzero(losses == 1)
        assert counts.gained[place] == np.count_nonzero(losses == -1)
        assert (counts.asked[place], counts.reached[0][place]) == (asked, escalated)
        assert np.array_equal(made.trial.at(threshold).loss, losses)
        frames = made.trial.at(threshold).frames
        crossed += int((truth[frames.of] != truth).sum())
    assert crossed > 20  # what is to be seen did change under answers that were repeated


def test_the_certificate_keeps_each_epochs_loss_in_the_order_that_was_drawn():
    stages, truth, timeline = world()
    found = [
        certify(stages, truth, max_drop_points=60, timeline=timeline, seed=seed).certificate
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0].evidence.value == "epochs"
    assert found[0].groups == 80
    assert found[0].steps[5].group_losses != found[2].steps[5].group_losses
    assert found[0].steps[5].still > 0
    for one in found:
        one.recompute()


def test_the_path_goes_from_nothing_reused_to_the_loosest():
    path = ReusePath.fixed()
    assert (np.diff(path.thresholds) < 0).all()
    assert (np.diff(path.still) >= 0).all()
    assert (np.diff(path.same) >= 0).all()
    first = path.rule(float(path.thresholds[0]), epoch_s=10.0)
    assert not first.reuses
    assert path.thresholds[-1] == 0
    with pytest.raises(InputError, match="not on the path"):
        path.rule(0.123, epoch_s=10.0)


def costs(stages):
    models = [
        ModelAnswers(name, one, macs)
        for name, one, macs in zip(("tiny", "big"), stages, (2e6, 1e7), strict=True)
    ]
    return CascadeCosts.of(*models).reusing(None)


@pytest.mark.arithmetic
def test_a_budget_is_broken_by_no_more_draws_of_epochs_than_the_risk_allows():
    stages, truth, timeline = world(epochs=120)
    whole = certify(stages, truth, max_drop_points=60, timeline=timeline).trial
    counts = whole.counted(whole.thresholds)
    true = (2e6 * counts.asked + 1e7 * counts.reached[0]) / whole.samples
    rng, broken, kept = np.random.default_rng(0), 0, 0
    for limit in (np.sort(true)[6] * 0.999, true[20]):
        for _ in range(40):
            drawn = rng.integers(120, size=80)
            rows = (timeline.starts[drawn][:, None] + np.arange(7)).ravel()
            part = replace(timeline.subset(rows), numbers=np.repeat(np.arange(80), 7))
            trial = certify(
                [one.subset(rows) for one in stages],
                truth[rows],
                max_drop_points=60,
                timeline=part,
            ).trial
            fits = trial.affordable(costs(stages), {"mean_macs": float(limit)})
            broken += bool((fits & (true > limit)).any())
            kept += bool(fits.any())
            assert fits.tolist() == sorted(fits.tolist())  # from a step on, up to the loosest
    assert kept > 40
    assert broken <= 0.1 * 80


def test_bounds_of_rates_lie_above_them_and_a_limit_above_all_is_kept():
    stages, truth, timeline = world()
    trial = certify(stages, truth, max_drop_points=60, timeline=timeline).trial
    counts = trial.counted(trial.thresholds)
    bounds = trial.upper_rates(trial.thresholds[[5, 30]])
    assert bounds.shape == (2, 2)
    for place, step in enumerate((5, 30)):
        measured = np.array([counts.asked[step], counts.reached[0][step]]) / trial.samples
        assert (bounds[:, place] > measured).all()
        assert (bounds[:, place] < measured + 0.4).all()
    assert trial.affordable(costs(stages), {"mean_macs": 1.2e7, "escalation_rate": 1.0}).all()
    assert not trial.affordable(costs(stages), {"mean_macs": 1.0}).any()


def test_three_stages_count_what_each_is_asked():
    stages, truth, timeline = world()
    three = [stages[0], Outputs.from_logits((stages[0].logits + stages[1].logits) / 2), stages[1]]
    trial = certify(three, truth, max_drop_points=60, timeline=timeline).trial
    counts = trial.counted(trial.thresholds)
    assert counts.reached.shape == (2, 42)
    assert (counts.asked >= counts.reached[0]).all()
    assert (counts.reached[0] >= counts.reached[1]).all()
    assert (counts.reached[0] > counts.reached[1]).any()
    ways = trial._ways(float(trial.thresholds[20]))
    assert ways.shape == (4, 80)
    assert np.allclose(ways.sum(axis=0), 1)


def test_what_a_frame_counts_by_the_way_that_it_goes_adds_up_to_what_the_budget_limits():
    stages, truth, timeline = world()
    trial = certify(stages, truth, max_drop_points=60, timeline=timeline).trial
    rng = np.random.default_rng(0)
    times = [LatencySamples(rng.gamma(9, scale, 400)) for scale in (0.3, 2.0)]
    models = [
        replace(one, latency=its, energy_mj=energy, memory_mb=5.0, sent_bytes=4000)
        for one, its, energy in zip(
            (costs(stages).saver, costs(stages).large), times, (3.0, 20.0), strict=True
        )
    ]
    made = CascadeCosts.of(*models).reusing(LatencySamples(np.full(50, 0.1)))
    threshold = float(trial.thresholds[20])
    shares, rates = trial._ways(threshold).mean(axis=1), trial._reached(threshold).mean(axis=1)
    for name in ("mean_macs", "escalation_rate", "mean_latency_ms", "mean_energy_mj", "memory_mb",
                 "uplink_kbit"):  # fmt: skip
        worth, bound = made.worth(name, 7.0)
        assert bound == 7.0
        assert shares @ worth == pytest.approx(made.at(name, *rates), rel=1e-6), name
    for name in ("p95_latency_ms", "p99_latency_ms"):
        at = made.at(name, *rates)
        for limit, kept in ((at * 1.001, True), (at * 0.98, False)):
            worth, bound = made.worth(name, limit)
            assert bool(shares @ worth <= bound + 1e-9) is kept
