import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.small_bundle import small_bundle
from tinysaver_edge.bench.timing import Effort
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle, file_entry
from tinysaver_edge.bundle.manifest import LatencyEntry
from tinysaver_edge.errors import BundleError, TooSlowError, VerificationError
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.latency import LatencySamples, pooled
from tinysaver_edge.verify.run import judge, verify

QUICK = Effort(warm_up=1, min_runs=10, min_seconds=0, max_seconds=5)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("verify") / "bundle")


@pytest.fixture
def folder(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def verified(folder):
    with Bundle.load(folder) as opened:
        return verify(opened)


def rewrite(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rehash(folder):
    """Make the manifest vouch for the files as they are now, as somebody who tampers would."""

    def entry(old):
        return json.loads(file_entry(folder / old["path"], old["path"]).model_dump_json())

    def change(manifest):
        golden = manifest["golden"]
        golden["answers"] = entry(golden["answers"])
        golden["frames"] = [entry(one) for one in golden["frames"]]
        for stage in manifest["stages"]:
            stage["model"]["files"] = [entry(one) for one in stage["model"]["files"]]

    rewrite(folder, change)


def change_answers(folder, change):
    path = folder / "golden" / "answers.npz"
    with np.load(path) as arrays:
        tables = {name: arrays[name] for name in arrays.files}
    change(tables)
    buffer = io.BytesIO()
    np.savez(buffer, **tables)
    path.write_bytes(buffer.getvalue())
    rehash(folder)


def failed(result):
    return [check.name for check in result.checks if check.passed is False]


def detail_of(result, name):
    return next(check.detail for check in result.checks if check.name == name)


@pytest.mark.parametrize("names", [("only",), ("saver", "large"), ("saver", "middle", "large")])
def test_a_bundle_agrees_with_itself(tmp_path, names):
    result = verified(small_bundle(tmp_path / "bundle", names=names))
    assert result.passed
    assert [check.name for check in result.checks] == [
        "files",
        "figures",
        "class names",
        *(f"engine of {name}" for name in names),
        "image decoder",
        *(f"{what} of {name}" for what in ("preprocessing", "answers") for name in names),
        "decisions",
        "latency",
    ]
    assert all(check.passed is True for check in result.checks[:-1])
    assert result.checks[-1].passed is None
    result.raise_if_failed()
    read = json.loads(json.dumps(result.to_dict()))
    assert read["passed"] is True
    assert len(read["checks"]) == len(result.checks)


def test_without_golden_samples_only_the_files_are_compared(tmp_path):
    result = verified(small_bundle(tmp_path / "bundle", golden=False))
    assert result.passed
    assert [(check.name, check.passed) for check in result.checks] == [
        ("files", True),
        ("figures", True),
        ("engine of saver", None),
        ("engine of large", None),
        ("golden samples", None),
        ("latency", None),
    ]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("cost_macs_ratio", 0.1, "say a cost of 0.1, by MACs and rates it is 0."),
        ("accept_rate", 0.7, "say that 70.0000 % are accepted, and 50.0000 %"),
        ("accept_rate", 0.77, "no whole number of 10 samples"),
        ("accuracy_cascade", 0.6, "say 0 points lost, by their accuracies -10"),
        ("drop_points", -1.0, "say -1 points lost, by their accuracies 0"),
        ("drop_interval_points", [1.0, 2.0], "say 0 points lost, within 1 to 2"),
        ("settled", [0.9, 0.5], "that they settle 140"),
        ("samples", 0, "are of 0 samples"),
        ("samples", 7, "no whole number of 7 samples"),
    ],
)
def test_edited_figures_are_noticed(folder, field, value, why):
    rewrite(folder, lambda manifest: manifest["calibration"].update({field: value}))
    result = verified(folder)
    assert failed(result)[0] == "figures"
    assert why in detail_of(result, "figures")


def test_another_resize_is_noticed(folder):
    """A threshold is valid for one exact preprocessing only."""

    def swap(manifest):
        manifest["stages"][0]["model"]["preprocess"]["resize"].update(
            policy="center_crop", crop_ratio=0.5
        )

    rewrite(folder, swap)
    result = verified(folder)
    assert failed(result)[0] == "preprocessing of saver"
    assert "preprocessing of large" not in failed(result)
    with pytest.raises(VerificationError, match="preprocessing of saver: pixels differ by up to"):
        result.raise_if_failed()


@pytest.mark.parametrize("change", [{"antialias": False}, {"policy": "letterbox"}])
def test_another_resize_is_noticed_where_golden_frames_need_none(folder, change):
    """These are of the model's own size: every policy leaves them as they are."""
    assert verified(folder).passed
    rewrite(
        folder,
        lambda manifest: manifest["stages"][0]["model"]["preprocess"]["resize"].update(change),
    )
    assert failed(verified(folder))[0] == "preprocessing of saver"


@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        (("format", "multiply"), [0.005], "answers of large"),
        (("format", "color"), "BGR", "answers of large"),
    ],
)
def test_another_scale_or_colour_order_is_noticed(folder, field, value, check):
    def change(manifest):
        manifest["stages"][1]["model"]["preprocess"][field[0]][field[1]] = value

    rewrite(folder, change)
    assert check in failed(verified(folder))


def test_a_swapped_model_is_noticed_even_where_the_hashes_were_mended(folder):
    models = folder / "models"
    (models / "saver.onnx").write_bytes((models / "large.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"saver\.onnx is not what was calibrated"):
        verified(folder)
    rehash(folder)
    assert "answers of saver" in failed(verified(folder))


@pytest.mark.parametrize("stage", [0, 1])
def test_changed_answers_are_noticed(folder, stage):
    def change(tables):
        logits = tables[f"logits_{stage}"]
        row = least_sure_of(logits)
        logits[row, logits[row].argmax()] -= np.float32(0.2)

    change_answers(folder, change)
    name = ("saver", "large")[stage]
    result = verified(folder)
    assert failed(result)[0] == f"answers of {name}"
    with pytest.raises(VerificationError, match=f"answers of {name}: probabilities differ by"):
        result.raise_if_failed()


ELSEWHERE = "aarch64 with dot product"


def of_eight_bits(folder, processor):
    def change(manifest):
        manifest["processor"] = processor
        manifest["stages"][0]["model"]["quantised"] = True

    rewrite(folder, change)


def test_an_int8_model_that_answers_otherwise_is_told_by_the_processor(folder):
    def change(tables):
        tables["logits_0"][0, tables["logits_0"][0].argmax()] -= np.float32(0.2)

    change_answers(folder, change)
    of_eight_bits(folder, ELSEWHERE)
    result = verified(folder)
    here = read_cpu().family
    why = f"saver is INT8 and was measured on {ELSEWHERE}, this is {here}"
    assert detail_of(result, "processor").startswith(why)
    with pytest.raises(VerificationError, match=f"{why}.*: calibrate for this device"):
        result.raise_if_failed()
    of_eight_bits(folder, here)  # the answers are wrong, and not because of the processor
    assert "INT8" not in detail_of(verified(folder), "answers of saver")


def test_run_says_so_where_nobody_has_verified(folder, command):
    picture = next(folder.rglob("*.png"))
    words = ("run", folder, "--source", picture, "--quiet")
    of_eight_bits(folder, ELSEWHERE)
    assert f"warning: saver is INT8 and was measured on {ELSEWHERE}" in command(*words).err
    of_eight_bits(folder, read_cpu().family)
    assert "INT8" not in command(*words).err


def test_an_int8_model_is_held_against_the_processor_it_was_measured_on(folder):
    assert [check for check in verified(folder).checks if check.name == "processor"] == []
    for processor, passed, warning in ((ELSEWHERE, None, True), (read_cpu().family, True, False)):
        of_eight_bits(folder, processor)
        result = verified(folder)
        (check,) = [one for one in result.checks if one.name == "processor"]
        assert (check.passed, check.warning, result.passed) == (passed, warning, True)


def test_differences_within_the_tolerance_are_none(folder):
    def change(tables):
        tables["logits_0"] = tables["logits_0"] + np.float32(1e-4) * np.arange(6, dtype=np.float32)
        tables["logits_1"] = tables["logits_1"] + np.float32(7)  # the softmax is the same

    change_answers(folder, change)
    assert verified(folder).passed


@pytest.mark.parametrize("name", ["index", "source"])
def test_changed_decisions_are_noticed(folder, name):
    def change(tables):
        if name == "index":
            tables["index"][0] = (tables["index"][0] + 1) % 6
        else:
            tables["source"][0] = "fused"

    change_answers(folder, change)
    assert failed(verified(folder)) == ["decisions"]


def test_another_threshold_is_noticed(folder):
    rewrite(folder, lambda manifest: manifest["stages"][0].update(threshold=0.999))
    assert failed(verified(folder)) == ["decisions"]


def least_sure(folder):
    """Of the frames that the saver answers, the one with the lowest score."""
    with np.load(folder / "golden" / "answers.npz") as arrays:
        scores = np.where(arrays["source"] == "saver", arrays["score"], np.inf)
    return int(scores.argmin()), float(scores.min())


def least_sure_of(logits):
    """The frame of which the best two classes are closest."""
    best = np.sort(logits, axis=1)
    return int((best[:, -1] - best[:, -2]).argmin())


def test_a_decision_may_tip_over_the_threshold_with_the_answers(folder):
    """Rounding may bring a score that lies close to the threshold to its other side."""
    row, score = least_sure(folder)
    rewrite(folder, lambda manifest: manifest["stages"][0].update(threshold=score + 2e-5))

    def change(tables):
        tables["logits_0"][row, tables["logits_0"][row].argmax()] += np.float32(0.01)

    change_answers(folder, change)
    result = verified(folder)
    assert result.passed, result
    assert "1 tipped over" in detail_of(result, "decisions")


def test_a_decision_on_the_very_threshold_may_tip(folder):
    score = least_sure(folder)[1]
    rewrite(folder, lambda manifest: manifest["stages"][0].update(threshold=score + 1e-9))
    assert verified(folder).passed
    rewrite(folder, lambda manifest: manifest["stages"][0].update(threshold=score + 1e-4))
    assert failed(verified(folder)) == ["decisions"]


def test_an_answer_between_two_classes_may_tip(folder):
    """Two classes closer to each other than the tolerance may change places."""
    rewrite(folder, lambda manifest: manifest["golden"].update(tolerances=[1.0, 1.0]))

    def change(tables):
        row = int(np.flatnonzero(tables["source"] == "large")[0])
        first = int(tables["logits_1"][row].argmax())
        tables["logits_1"][row, first] -= np.float32(100)
        tables["index"][row] = tables["logits_1"][row].argmax()

    change_answers(folder, change)
    assert verified(folder).passed
    change_answers(folder, lambda tables: tables.update(index=(tables["index"] + 1) % 6))
    assert failed(verified(folder)) == ["decisions"]


@pytest.mark.parametrize("missing", ["input_1", "logits_0", "index", "source", "score"])
def test_missing_answers_are_noticed(folder, missing):
    change_answers(folder, lambda tables: tables.pop(missing))
    result = verified(folder)
    assert failed(result) == ["golden samples"]
    assert f"lack {missing}, here" in detail_of(result, "golden samples")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(index=t["index"][:3]),
        lambda t: t.update(score=t["score"][:3]),
        lambda t: t.update(source=t["source"][:, None]),
        lambda t: t.update(index=np.array(["x"] * len(t["index"]))),
        lambda t: t.update(score=np.array(["x"] * len(t["score"]))),
        lambda t: t.update(logits_0=t["logits_0"][:, :3]),
        lambda t: t.update(logits_0=t["logits_0"].astype("U9")),
        lambda t: t.update(logits_0=np.full_like(t["logits_0"], np.nan)),
        lambda t: t.update(input_0=t["input_0"][:3]),
        lambda t: t.update(input_0=t["input_0"].astype("U9")),
        lambda t: t.update(logits_0=np.float32(1)),
    ],
)
def test_answers_of_another_form_are_noticed(folder, change):
    change_answers(folder, change)
    assert not verified(folder).passed


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"text", b"\x93NUMPY"])
def test_answers_that_are_no_npz_are_damaged(folder, data):
    (folder / "golden" / "answers.npz").write_bytes(data)
    rehash(folder)
    with pytest.raises(BundleError, match="golden answers are damaged"):
        verified(folder)


def test_frames_that_cannot_be_decoded_are_damaged(folder):
    frame = next((folder / "golden").glob("*.png"))
    frame.write_bytes(b"no picture")
    rehash(folder)
    with pytest.raises(BundleError, match="golden frame cannot be decoded"):
        verified(folder)


def test_a_missing_frame_is_noticed(folder):
    rewrite(folder, lambda manifest: manifest["golden"]["frames"].pop())
    assert not verified(folder).passed


def test_a_bundle_made_from_records_has_only_its_policy(folder):
    with Bundle.load(folder) as opened:
        stages = [
            stage.model_copy(update={"model": stage.model.model_copy(update={"files": []})})
            for stage in opened.manifest.stages
        ]
        opened.manifest = opened.manifest.model_copy(update={"stages": stages})
        result = verify(opened)
    assert result.passed
    assert "made from records" in result.checks[-1].detail


def test_another_engine_is_noticed(folder):
    rewrite(folder, lambda manifest: manifest["stages"][1]["model"].update(engine="openvino"))
    result = verified(folder)
    assert failed(result)[0] == "engine of large"
    assert "calibrated with onnxruntime, would run with openvino here" in detail_of(
        result, "engine of large"
    )


def test_another_release_of_an_engine_is_told_but_is_no_failure(folder):
    def older(manifest):
        for one in manifest["golden"]["ran"]:
            one["release"] = "onnxruntime 1.19.0"

    rewrite(folder, older)
    result = verified(folder)
    assert result.passed
    assert "calibrated with onnxruntime 1.19.0" in detail_of(result, "engine of saver")


def test_a_model_whose_classes_come_in_another_order(folder):
    """The same probabilities, for other classes: the order is the reason, not the numbers."""

    def turn(manifest):
        manifest["stages"][1]["model"]["output"]["class_order"] = [1, 0, 2, 3, 4, 5]

    rewrite(folder, turn)
    result = verified(folder)
    assert failed(result)[0] == "answers of large"
    assert "only in their order" in detail_of(result, "answers of large")


@pytest.mark.parametrize(
    "labels", [None, ["amber"], ["amber", "blue", "coral", "x", "y", "z", "v"]]
)
def test_fewer_or_more_class_names_are_noticed(folder, labels):
    def change(tables):
        tables["labels"] = np.array(labels or [])

    change_answers(folder, change)
    assert failed(verified(folder)) == ["class names"]


def test_a_bundle_of_an_older_release_lacks_some_samples(folder):
    """Engines, decoder and class names were not kept before: nothing to compare, no failure."""

    def forget(manifest):
        del manifest["golden"]["ran"], manifest["golden"]["decoder"]

    change_answers(folder, lambda tables: [tables.pop(name) for name in ("labels", "decoded")])
    rewrite(folder, forget)
    result = verified(folder)
    assert result.passed
    assert [check.name for check in result.checks if check.passed is None] == [
        "engine of saver",
        "engine of large",
        "image decoder",
        "latency",
    ]


def test_golden_frames_with_other_pixels_are_the_decoders(folder):
    change_answers(folder, lambda tables: tables.update(frame_sha256=tables["frame_sha256"][::-1]))
    assert failed(verified(folder)) == ["image decoder"]


def pooled_latency(samples_ms):
    return pooled(((LatencySamples(np.array(samples_ms, float)), 1.0),))


@pytest.mark.parametrize(
    ("limits", "passed", "warning", "says"),
    [
        ({"mean_latency_ms": 2.0}, True, False, "mean_latency_ms 2.00 of 2, kept"),
        ({"mean_latency_ms": 1.9}, None, True, "over by 5 %"),
        ({"mean_latency_ms": 1.8}, False, False, "over by 11 %"),
        ({"p95_latency_ms": 3.0, "p99_latency_ms": 1.0}, False, False, "p95_latency_ms 3.00 of 3,"),
        ({"mean_latency_ms": 9.0, "p99_latency_ms": 2.9}, None, True, "p99_latency_ms 3.00 of 2.9"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_time_is_held_against_each_limit(limits, passed, warning, says):
    check = judge(LatencyEntry(escalation_rate=0.25, **limits), pooled_latency([1, 2, 3]))
    assert (check.passed, check.warning) == (passed, warning)
    assert says in check.detail


@pytest.mark.parametrize(("limit", "passed"), [(1e6, True), (1e-6, False)])
@pytest.mark.parametrize("names", [("only",), ("saver", "large"), ("saver", "middle", "large")])
def test_a_promised_time_is_measured(tmp_path, names, limit, passed):
    folder = small_bundle(tmp_path / "bundle", names=names)
    promise = {"escalation_rate": 0.5, "p95_latency_ms": limit}
    if len(names) == 3:
        promise["reached"] = [0.7, 0.5]
    rewrite(folder, lambda manifest: manifest.update(latency=promise))
    with Bundle.load(folder) as opened:
        result = verify(opened, effort=QUICK)
    check = result.checks[-1]
    assert check.name == "latency"
    assert check.passed is passed, check
    if len(names) == 3:
        assert check.detail.endswith("(70.0 %, 50.0 % of frames go on to the later stages)")
    if not passed:
        with pytest.raises(TooSlowError, match=r"latency: p95_latency_ms .* over by") as caught:
            result.raise_if_failed()
        assert caught.value.exit_code == 3


def test_wrong_answers_come_before_too_slow_ones(folder):
    def change(manifest):
        manifest["latency"] = {"escalation_rate": 0.5, "mean_latency_ms": 1e-6}
        manifest["stages"][0]["threshold"] = 0.999

    rewrite(folder, change)
    with Bundle.load(folder) as opened:
        result = verify(opened, effort=QUICK)
    assert failed(result) == ["decisions", "latency"]
    with pytest.raises(VerificationError) as caught:
        result.raise_if_failed()
    assert caught.value.exit_code == 2


def test_checks_are_values():
    from tinysaver_edge.verify.check import Check, Verification

    good = Check("a", True, "x")
    assert Verification("b", (good, replace(good, passed=None))).passed
    assert not Verification("b", (good, replace(good, passed=False))).passed
