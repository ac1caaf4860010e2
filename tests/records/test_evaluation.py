import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.colours import NAMES, colour_folders
from tests.pictures import class_folders, encoded
from tests.small_bundle import THRESHOLD, small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.files import open_data
from tinysaver_edge.deciding.figures import figures
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.errors import BundleError, DataError, InputError, RecordError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.records.evaluation import evaluate_images, evaluate_records
from tinysaver_edge.score import Margin


def policy(*thresholds, macs=(1.0, 10.0, 100.0)):
    """Stages of these thresholds, and a last one."""
    stages = [
        StagePolicy(f"m{i}", macs=macs[i], score=Margin(), threshold=threshold)
        for i, threshold in enumerate(thresholds)
    ]
    return Policy((*stages, StagePolicy("last", macs=macs[len(thresholds)])))


def answers(*classes, margin=0.5):
    """Top-2 outputs of these classes."""
    margins = np.broadcast_to(margin, len(classes))
    best = (1 + margins) / 2
    return Outputs.from_topk(
        [[c, (c + 1) % 5] for c in classes], np.stack([best, 1 - best], axis=1)
    )


class TestFigures:
    def test_of_two_stages(self):
        saver = answers(0, 1, 0, 3, margin=[0.9, 0.9, 0.1, 0.1])
        large = answers(0, 2, 2, 3)
        found = figures(policy(0.5), [saver, large], np.array([0, 2, 2, 4]))
        low, high = found.drop_interval_points
        assert low < found.drop_points < high
        within = {"drop_interval_points", "saver_drop_interval_points", "settled"}
        told = found.to_dict()
        assert within <= told.keys()
        assert {key: value for key, value in told.items() if key not in within} == {
            "samples": 4,
            "accuracy_saver": 0.25,
            "accuracy_large": 0.75,
            "accuracy_cascade": 0.5,
            "drop_points": 25.0,
            "accept_rate": 0.5,
            "cost_macs_ratio": pytest.approx((1 + 0.5 * 10) / 10),
            "accuracy_local": 0.25,
            "reuse": None,
        }

    def test_of_one_stage(self):
        found = figures(policy(macs=(10.0,)), [answers(0, 1)], np.array([0, 0]))
        assert (found.accept_rate, found.cost_macs_ratio, found.drop_points) == (1.0, 1.0, 0.0)
        assert found.accuracy_saver == found.accuracy_large == found.accuracy_cascade == 0.5

    def test_of_three_stages(self):
        margins = [[0.9, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]]
        outputs = [answers(0, 1, 2, 3, margin=one) for one in margins]
        found = figures(policy(0.5, 0.5), [*outputs, answers(0, 1, 2, 3)], np.arange(4))
        assert found.accept_rate == 0.5  # by the first stage or the second
        assert found.settled == (0.25, 0.25, 0.5)
        assert found.cost_macs_ratio == pytest.approx((1 + 0.75 * 10 + 0.5 * 100) / 100)

    def test_where_the_saver_is_not_asked_it_costs_nothing(self):
        found = figures(policy(None), [answers(1, 1), answers(0, 1)], np.array([0, 1]))
        assert (found.accept_rate, found.cost_macs_ratio) == (0.0, 1.0)
        assert found.accuracy_saver == 0.5

    def test_a_saver_that_is_asked_in_vain_costs_more_than_none(self):
        found = figures(policy(2.0), [answers(1), answers(0)], np.array([0]))
        assert found.cost_macs_ratio == pytest.approx(1.1)

    def test_without_macs_there_is_no_cost(self):
        for macs in ((None, 10.0), (1.0, None)):
            found = figures(policy(0.5, macs=macs), [answers(1), answers(0)], np.array([0]))
            assert found.cost_macs_ratio is None
        unasked = figures(policy(None, macs=(None, 10.0)), [answers(1), answers(0)], np.array([0]))
        assert unasked.cost_macs_ratio == 1.0

    def test_a_gain_is_a_negative_drop(self):
        found = figures(policy(0.1), [answers(0), answers(1)], np.array([0]))
        assert found.drop_points == -100.0

    def test_drops_are_counted_not_subtracted(self):
        large = answers(*[0] * 1000)
        saver = answers(*[1] * 3, *[0] * 997)
        found = figures(policy(0.1), [saver, large], np.zeros(1000, np.int64))
        assert found.drop_points == 0.3

    @given(st.integers(0, 10_000), st.floats(-0.1, 1.1), st.integers(1, 60))
    @settings(max_examples=60)
    def test_costs_and_rates_follow_from_each_other(self, seed, threshold, samples):
        rng = np.random.default_rng(seed)
        outputs = [Outputs.from_logits(rng.normal(0, 2, (samples, 5))) for _ in range(2)]
        found = figures(policy(threshold), outputs, rng.integers(0, 5, samples))
        assert found.cost_macs_ratio == pytest.approx(0.1 + 1 - found.accept_rate)
        drop = 100 * (found.accuracy_large - found.accuracy_cascade)
        assert found.drop_points == pytest.approx(drop)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = small_bundle(tmp_path_factory.mktemp("evaluation") / "bundle", golden=False)
    with Bundle.load(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folders(tmp_path_factory.mktemp("images"), each=20)


class TestOnImages:
    def test_the_figures_are_what_the_cascade_does(self, bundle, images):
        found = evaluate_images(bundle, images)
        with open_data(images) as data, Cascade.from_bundle(bundle) as cascade:
            decisions = [cascade.decide(data.frame(index)) for index in range(len(data))]
            right = [d.label == s.label for d, s in zip(decisions, data.samples, strict=True)]
        assert found.warnings == ()
        assert found.figures.samples == 120
        accepted = [decision.source is AnswerSource.SAVER for decision in decisions]
        assert 0.1 < found.figures.accept_rate < 0.9
        assert found.figures.accept_rate == pytest.approx(np.mean(accepted))
        assert found.figures.accuracy_cascade == pytest.approx(np.mean(right))
        saver, large = (stage.model.macs for stage in bundle.manifest.stages)
        cost = saver / large + 1 - found.figures.accept_rate
        assert found.figures.cost_macs_ratio == pytest.approx(cost)

    def test_unreadable_images_are_left_out_and_told_of(self, bundle, images, tmp_path):
        colour_folders(tmp_path / "data", each=12)
        (tmp_path / "data" / "coral" / "0003.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"1 of 72 images cannot be read \(coral/0003\.png\)"):
            evaluate_images(bundle, tmp_path / "data")
        found = evaluate_images(bundle, tmp_path / "data", skip_limit=0.02)
        assert found.figures.samples == 71
        assert found.warnings == ("1 images could not be read and were left out",)

    def test_without_one_readable_image_there_is_nothing_to_say(self, bundle, tmp_path):
        (tmp_path / "blue").mkdir()
        (tmp_path / "blue" / "1.png").write_bytes(encoded(1)[:50])
        with pytest.raises(DataError, match="no readable images are left"):
            evaluate_images(bundle, tmp_path, skip_limit=1.0)

    def test_labels_that_the_models_do_not_know_are_refused(self, bundle, tmp_path):
        class_folders(tmp_path / "data", classes=["blue", "zebra"], each=1)
        with pytest.raises(DataError, match="'zebra'"):
            evaluate_images(bundle, tmp_path / "data")


class TestOnRecords:
    @pytest.fixture
    def records(self, tmp_path):
        rng = np.random.default_rng(0)
        for name in ("saver", "large"):
            logits = rng.normal(0, 2, (50, len(NAMES))).astype(np.float32)
            np.savez(tmp_path / f"{name}.npz", logits=logits)
        np.save(tmp_path / "labels.npy", rng.integers(0, len(NAMES), 50))
        return tmp_path

    def test_the_figures_are_those_of_the_policy(self, bundle, records):
        found = evaluate_records(bundle, records, records / "labels.npy")
        outputs = [
            Outputs.from_logits(np.load(records / f"{name}.npz")["logits"])
            for name in ("saver", "large")
        ]
        macs = tuple(stage.model.macs for stage in bundle.manifest.stages)
        expected = figures(policy(THRESHOLD, macs=macs), outputs, np.load(records / "labels.npy"))
        assert found.figures == expected
        assert found.warnings == ()

    @pytest.mark.parametrize(
        ("author", "said"),
        [
            ("large", "the labels are large's own answers on all 400 samples"),
            ("saver", "the labels are saver's own answers on all 400 samples"),
            (None, r"of large's answers fit the labels, at the calibration \d"),
        ],
    )
    def test_of_labels_that_do_not_look_right_nothing_follows(self, bundle, tmp_path, author, said):
        rng = np.random.default_rng(0)
        logits = {one: rng.normal(0, 2, (400, len(NAMES))) for one in ("saver", "large")}
        for name, values in logits.items():
            np.savez(tmp_path / f"{name}.npz", logits=values.astype(np.float32))
        chance = rng.integers(0, len(NAMES), 400)
        labels = chance if author is None else logits[author].argmax(1)
        np.save(tmp_path / "labels.npy", labels)
        found = evaluate_records(bundle, tmp_path, tmp_path / "labels.npy")
        assert found.doubted
        assert any(re.search(said, one) for one in found.warnings), found.warnings

    def test_skipped_samples_are_left_out_and_told_of(self, bundle, records):
        (records / "saver.json").write_text(json.dumps({"skipped": [1, 2]}))
        (records / "large.json").write_text(json.dumps({"skipped": [2, 3]}))
        found = evaluate_records(bundle, records, records / "labels.npy")
        assert found.figures.samples == 47
        assert found.warnings == ("3 images could not be read and were left out",)

    def test_records_that_do_not_fit_are_refused(self, bundle, records):
        labels = records / "labels.npy"
        np.save(labels, np.zeros(49, np.int64))
        with pytest.raises(RecordError, match=r"saver holds 50 samples.*49"):
            evaluate_records(bundle, records, labels)
        np.save(labels, np.full(50, len(NAMES)))
        with pytest.raises(InputError, match="label 6 of sample 0, but model saver has 6 classes"):
            evaluate_records(bundle, records, labels)
        (records / "large.npz").unlink()
        with pytest.raises(RecordError, match=r"large\.npz: no such file; records there: saver"):
            evaluate_records(bundle, records, labels)


def test_a_bundle_without_models_cannot_be_run(bundle, images):
    stages = [
        stage.model_copy(update={"model": stage.model.model_copy(update={"files": []})})
        for stage in bundle.manifest.stages
    ]
    manifest = bundle.manifest.model_copy(update={"stages": stages})
    hollow = Bundle(bundle.path, bundle.root, manifest, unpacked=False)
    with pytest.raises(BundleError, match=r"made from records, it names models \(saver, large\)"):
        evaluate_images(hollow, images)
