"""A certificate covers exactly what it was measured with."""

import json
import shutil

import pytest

from tests.colours import NAMES
from tests.small_bundle import small_bundle
from tests.stream.telemetry.test_promise import certified
from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.bundle.covered import figures_sha256, why_not_covered
from tinysaver_edge.bundle.manifest import Manifest
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.deciding.naming import name_classes
from tinysaver_edge.decision import AnswerSource
from tinysaver_edge.errors import BundleError
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.testing import numbered_frame


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A bundle with a certificate that covers it."""
    folder = small_bundle(tmp_path_factory.mktemp("covered") / "bundle")
    with Bundle.load(folder) as bundle:
        made = certified(bundle.manifest)
    assert made.certificate is not None
    told = made.certificate.model_copy(update={"figures_sha256": figures_sha256(made)})
    made = made.model_copy(update={"certificate": told})
    (folder / "bundle.json").write_text(json.dumps(made.model_dump(mode="json")))
    return folder


@pytest.fixture
def folder(signed, tmp_path):
    shutil.copytree(signed, tmp_path / "bundle")
    return tmp_path / "bundle"


def edited(folder, change):
    content = json.loads((folder / "bundle.json").read_text())
    change(content)
    (folder / "bundle.json").write_text(json.dumps(content))
    return folder


def stage(content, place=0):
    return content["stages"][place]


def test_what_was_measured_is_certified(folder):
    with Cascade.load(folder) as cascade:
        assert cascade.doubt is None
        assert cascade.decide(numbered_frame(7)).certified


def test_frames_cut_otherwise_than_those_that_were_collected_are_not_certified(folder):
    region = "--region 0,0,8,8"

    def told(content):
        content["certificate"]["cut"] = region
        content["certificate"]["figures_sha256"] = figures_sha256(Manifest.model_validate(content))

    for cut, why in (
        (None, None),
        (region, None),
        ("", "it was made with --region 0,0,8,8, here they are whole"),
        ("--region 0,0,9,8", "here they are cut: --region 0,0,9,8"),
    ):
        with Bundle.load(edited(folder, told)) as bundle, Cascade.from_bundle(bundle, cut=cut) as c:
            assert c.decide(numbered_frame(7)).certified is (why is None)
            assert (c.doubt is None) if why is None else (why in c.doubt)


def test_names_that_are_added_later_leave_it_certified_and_others_do_not(folder, tmp_path):
    def nameless(content):
        content["labels"] = content["certificate"]["measured"]["labels_sha256"] = None
        content["certificate"]["figures_sha256"] = figures_sha256(Manifest.model_validate(content))

    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES) + "\n")
    assert name_classes(edited(folder, nameless), names) == NAMES
    with Cascade.load(folder) as cascade:
        decision = cascade.decide(numbered_frame(7))
        assert cascade.doubt is None
        assert decision.certified
        assert decision.label in NAMES


def test_names_that_are_taken_away_are_not_certified(folder):
    with Cascade.load(edited(folder, lambda content: content.update(labels=None))) as cascade:
        assert "other class names" in cascade.doubt


CHANGES = {
    "engine": lambda c: stage(c)["model"].update(engine="openvino"),
    "precision": lambda c: stage(c, 1)["model"].update(precision="float16"),
    "device": lambda c: stage(c)["model"].update(device="GPU"),
    "preprocess": lambda c: stage(c)["model"]["preprocess"]["resize"].update(antialias=False),
    "output": lambda c: stage(c, 1)["model"]["output"].update(kind="probabilities"),
    "score": lambda c: stage(c).update(score={"name": "msp", "parameters": {}}),
    "threshold": lambda c: stage(c).update(threshold=0.1),
    "fusion": lambda c: c.update(fusion={"name": "linear", "parameters": {"weight": 0.9}}),
    "pool": lambda c: c.update(pool=[0.4]),
    "reuse": lambda c: c.update(reuse={"rule": {"still": 2.0, "same": 0.1}}),
    "labels": lambda c: c["labels"].reverse(),
    "no block": lambda c: c["certificate"].update(measured=None),
    "no saver": lambda c: (c["stages"].pop(0), c.update(golden=None)),
    "accuracy": lambda c: c["calibration"].update(accuracy_large=0.999),
    "cost": lambda c: c["calibration"].update(cost_macs_ratio=0.01),
    "hold-out": lambda c: c.update(holdout={**c["calibration"], "drop_points": -3.0}),
    "disagreement": lambda c: c["disagreement"].update(disagreed=0),
    "bound": lambda c: c["certificate"]["counts"].update(max_drop_points=0.1),
    "risk": lambda c: c["certificate"]["counts"].update(risk=0.001),
    "statement": lambda c: c["certificate"].update(statement="drop ≤ 0 points"),
    "what was vouched for": lambda c: c["certificate"].update(stated=["they are independent"]),
    "MACs": lambda c: stage(c)["model"].update(macs=1.0),
    "limit": lambda c: c.update(latency={"escalation_rate": 0.1, "mean_latency_ms": 1e6}),
    "model's hash": lambda c: c["certificate"]["models"].update(saver="0" * 64),
    "measured hash": lambda c: c["certificate"]["measured"]["stages"][0].update(sha256="0" * 64),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_edited_manifest_is_not_certified(folder, what):
    before = json.loads((folder / "bundle.json").read_text())
    assert why_not_covered(Manifest.model_validate(before)) is None
    edited(folder, CHANGES[what])
    after = Manifest.model_validate(json.loads((folder / "bundle.json").read_text()))
    assert why_not_covered(after)


def with_reuse(content, *, measured=2.0):
    rule = {"still": 2.0, "same": 0.1, "epoch_s": 10.0, "max_age_s": None, "region": None}
    content["reuse"] = {"rule": rule}
    certificate = content["certificate"]
    certificate["measured"]["reuse"] = {**rule, "still": measured}
    certificate["figures_sha256"] = figures_sha256(Manifest.model_validate(content))


def test_a_certificate_that_was_counted_with_reuse_covers_cameras_and_no_frame_alone(folder):
    edited(folder, with_reuse)
    with Cascade.load(folder) as cascade:
        assert cascade.doubt is None
        assert cascade.reuse == ReuseRule(2.0, 0.1)
        assert not cascade.decide(numbered_frame(7)).certified
        camera = cascade.track()
        decisions = [camera.decide(numbered_frame(7), timestamp_s=n / 25) for n in range(3)]
    assert [one.source is AnswerSource.REUSED for one in decisions] == [False, True, True]
    assert all(one.certified for one in decisions)


def test_reuse_with_other_limits_than_measured_is_not_certified(folder):
    edited(folder, lambda content: with_reuse(content, measured=1.0))
    with Cascade.load(folder) as cascade:
        assert "reuse" in cascade.doubt
        assert not cascade.track().decide(numbered_frame(7)).certified


@pytest.mark.parametrize(
    "rule", [{"still": -1, "same": 0}, {"still": 1}, {"still": 1, "same": 0, "more": 1}, "always"]
)
def test_a_rule_that_makes_no_sense_is_refused(folder, rule):
    edited(folder, lambda content: content.update(reuse={"rule": rule}))
    with pytest.raises(BundleError, match=r"reuse|still"):
        Cascade.load(folder)


def test_a_swapped_model_with_its_hash_corrected_answers_uncertified(folder):
    model = folder / "models" / "saver.onnx"
    shutil.copyfile(folder / "models" / "large.onnx", model)

    def corrected(content):
        entry = stage(content)["model"]["files"][0]
        entry.update(sha256=sha256_of(model), size_bytes=model.stat().st_size)

    with Cascade.load(edited(folder, corrected)) as cascade:
        assert "saver: its hash differs" in cascade.doubt
        assert not cascade.decide(numbered_frame(7)).certified


def first_version(content):
    content["schema_version"] = 1
    content["certificate"].pop("measured")
    content["certificate"].pop("figures_sha256")


def test_a_certificate_of_the_first_version_covers_the_models_whose_hashes_it_names(folder):
    content = json.loads((folder / "bundle.json").read_text())
    first_version(content)
    assert why_not_covered(Manifest.model_validate(content)) is None
    content["certificate"]["models"]["saver"] = "0" * 64
    assert "its hash differs" in why_not_covered(Manifest.model_validate(content))
