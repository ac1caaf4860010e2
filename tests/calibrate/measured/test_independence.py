"""What is no independent sample is not certified as one, unless the user vouches for it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import Calibration, ImageInput, ModelFile, Plan, Targets, calibrate
from tinysaver_edge.calibrate.measured.independence import check_epochs, least_units, too_few
from tinysaver_edge.calibrate.targets import Method, Reference
from tinysaver_edge.certificate.p_values import EvidenceKind
from tinysaver_edge.data.epochs import open_epochs
from tinysaver_edge.errors import DataError, InfeasibleError
from tinysaver_edge.models.description.description import find_description
from tinysaver_edge.records.evaluation import evaluate_images
from tinysaver_edge.records.timeline import read_timeline
from tinysaver_edge.verify.run import verify

DROP = 20.0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, ten pictures a class, and thirty copies of each of five of them."""
    folder = tmp_path_factory.mktemp("independence")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "honest", each=20)
    for name in NAMES:
        (folder / "copies" / name).mkdir(parents=True)
        for place in range(60):
            few = folder / "honest" / name / f"{place % 5:04d}.png"
            shutil.copy(few, folder / "copies" / name / f"{place:04d}.png")
    return folder


def asked(
    work: Path, data: str | Path, *, method: Method = Method.CERTIFIED, **given: object
) -> Plan:
    paths = (work / "big.onnx", work / "tiny.onnx")
    models = [ModelFile(path, find_description(path)) for path in paths]
    images = ImageInput(
        data=work / data, large=models[0], savers=(models[1],), isolate=False, timing=False,
        **given,  # type: ignore[arg-type]
    )  # fmt: skip
    return Plan(images, Targets(method=method, max_drop_points=DROP))


@pytest.fixture(scope="module")
def vouched(work: Path) -> Calibration:
    """A calibration on copies that the user calls independent."""
    return calibrate(asked(work, "copies", independent=True), out=work / "vouched")


def test_copies_are_not_certified(work: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"330 of 360 images are copies.*--independent"):
        calibrate(asked(work, "copies"), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_all_missing_images_are_counted_before_any_model_runs(work: Path, tmp_path: Path) -> None:
    folder = work / "honest"
    files = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.png"))
    gone = [f"{NAMES[0]}/gone{place}.png" for place in range(30)]
    rows = "".join(f"{folder / file},{file.split('/')[0]}\n" for file in (*files, *gone))
    (tmp_path / "table.csv").write_text("file,label\n" + rows)
    with pytest.raises(DataError, match=rf"30 of {len(files) + 30} images cannot be read"):
        calibrate(asked(work, tmp_path / "table.csv"), out=tmp_path / "bundle")
    assert not list((tmp_path / "bundle.records").rglob("big*.npz"))


def test_where_nothing_is_promised_copies_are_told(work: Path, tmp_path: Path) -> None:
    found = calibrate(asked(work, "copies", method=Method.EMPIRICAL), out=tmp_path / "bundle")
    assert any("330 of 360 images are copies" in line for line in found.warnings)
    assert found.stated == ()


def test_the_users_word_is_in_the_certificate(work: Path, vouched: Calibration) -> None:
    said = "that its samples are independent, although 330 of 360 images are copies of others"
    assert vouched.stated == (said,)
    assert vouched.to_dict()["stated"] == [said]
    assert vouched.report is not None
    assert f"given, as the user states, {said}" in " ".join(vouched.report.read_text().split())
    with Bundle.load(work / "vouched") as bundle:
        assert bundle.manifest.certificate is not None
        assert bundle.manifest.certificate.stated == [said]
        (check,) = (one for one in verify(bundle).checks if one.name == "certificate")
    assert check.passed
    assert said in check.detail


def test_images_that_it_was_calibrated_on_are_not_called_unseen(
    work: Path, vouched: Calibration
) -> None:
    assert vouched.bundle is not None
    with Bundle.load(work / "vouched") as bundle:
        found = evaluate_images(bundle, work / "honest")
        assert found.seen == 30
        assert any("30 of 120 samples are among those" in line for line in found.warnings)
        assert found.to_dict()["seen_samples"] == 30
        colour_folders(work / "others", each=5, seed=7)
        others = evaluate_images(bundle, work / "others")
    assert others.seen == 0
    assert others.warnings == ()


def test_the_bundle_holds_hashes_of_what_was_not_set_aside(work: Path, tmp_path: Path) -> None:
    plan = replace(asked(work, "honest"), holdout=0.5)
    calibrate(plan, out=tmp_path / "bundle.zip")
    with Bundle.load(tmp_path / "bundle.zip") as bundle:
        assert bundle.manifest.seen is not None
        assert len(np.load(bundle.file(bundle.manifest.seen.file))) == 60
        assert evaluate_images(bundle, work / "honest").seen == 60


def test_independent_images_are_certified_without_a_word(work: Path, tmp_path: Path) -> None:
    found = calibrate(asked(work, "honest"), out=tmp_path / "bundle")
    assert found.certificate is not None
    assert found.stated == ()
    assert not any("look" in line or "copies" in line for line in found.warnings)


def test_images_that_a_model_was_quantised_on_are_left_out(work: Path, tmp_path: Path) -> None:
    from tinysaver_edge.data.files import open_data
    from tinysaver_edge.data.looks import Seen, read_looks

    with open_data(work / "honest") as data:
        content = read_looks(data).content
    plan = asked(work, "honest")
    assert isinstance(plan.input, ImageInput)
    (saver,) = plan.input.savers
    fitted = replace(saver.description, fitted_on=tuple(Seen.of(content[1::2][:50]).to_text()))
    changed = replace(plan.input, savers=(replace(saver, description=fitted),))
    found = calibrate(replace(plan, input=changed), out=tmp_path / "bundle")
    assert "50 images are left out: tiny was quantised on them" in found.warnings
    assert found.calibration.samples == 70
    with Bundle.load(tmp_path / "bundle") as bundle:  # they are no images that it has not seen
        assert evaluate_images(bundle, work / "honest").seen == 120
    every = replace(saver.description, fitted_on=tuple(Seen.of(content).to_text()))
    changed = replace(plan.input, savers=(replace(saver, description=every),))
    with pytest.raises(DataError, match="quantised on every image"):
        calibrate(replace(plan, input=changed), out=tmp_path / "other")


def test_images_on_which_an_earlier_search_chose_prove_nothing_of_what_it_chose(
    work: Path, tmp_path: Path
) -> None:
    plan = asked(work, "honest")
    out = tmp_path / "bundle"

    def run(**targets: object) -> Calibration:
        return calibrate(replace(plan, targets=replace(plan.targets, **targets)), out=out)

    searched = run(score="all", fusion="all")
    looked_at = 120 - searched.calibration.samples
    assert looked_at > 0
    chosen = searched.policy.stages[0].score
    assert chosen is not None
    named = run(score=chosen.name)
    assert named.calibration.samples == 120 - looked_at
    assert any(f"{looked_at} images are left out: an earlier run" in one for one in named.warnings)
    other = next(one for one in ("msp", "entropy") if one != chosen.name)
    for more in ({"score": other}, {}):  # what nobody chose on them is proved on all
        assert run(**more).calibration.samples == 120
    (out.with_name("bundle.records") / "tuned.json").write_text("[{]")
    assert run(score=chosen.name).calibration.samples == 120


def test_frames_of_one_clip_count_once_it_is_named(work: Path, tmp_path: Path) -> None:
    rows = ["file,label,clip"]
    for number in range(120):
        name = NAMES[number % len(NAMES)]
        source = cv2.imread(str(work / "honest" / name / f"{number // 6:04d}.png"))
        for frame in range(4):
            noise = np.random.default_rng(1000 * number + frame).normal(0, 1, source.shape)
            file = f"{number}-{frame}.png"
            cv2.imwrite(str(tmp_path / file), np.clip(source + noise, 0, 255).astype(np.uint8))
            rows.append(f"{file},{name},{number}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"look like an earlier one.*--group-column"):
        calibrate(asked(work, tmp_path / "list.csv"), out=tmp_path / "bundle")
    grouped = asked(work, tmp_path / "list.csv", group_column="clip")
    found = calibrate(grouped, out=tmp_path / "bundle")
    assert found.certificate is not None
    assert found.certificate.groups == 120
    assert (
        json.loads((tmp_path / "bundle" / "bundle.json").read_text())["certificate"]["stated"] == []
    )


@pytest.mark.parametrize(
    ("evidence", "units"),
    [
        (EvidenceKind.LABELS, 644),
        (EvidenceKind.CONSISTENCY, 460),
        (EvidenceKind.GROUPS, 495),
    ],
)
def test_how_many_are_needed_where_no_answer_differs(evidence: EvidenceKind, units: int) -> None:
    assert least_units(0.5, evidence=evidence, risk=0.1) == units
    assert least_units(0.0, evidence=evidence, risk=0.1) is None


def test_too_few_is_said_with_what_is_needed() -> None:
    asked = Targets(max_drop_points=0.5)
    said = too_few(asked, units=300, candidates=3, unit="samples")
    assert said is not None
    assert "300 samples are too few" in said
    assert "shared by 3 savers takes at least 916, 644 with one saver" in said
    assert too_few(asked, units=644, candidates=1, unit="samples") is None
    assert "--method empirical" in said
    epochs = too_few(asked, units=300, candidates=1, unit="epochs")
    assert epochs is not None
    assert "--method" not in epochs
    empirical = Targets(method=Method.EMPIRICAL, max_drop_points=0.5)
    assert too_few(empirical, units=3, candidates=1, unit="samples") is None
    unlabelled = Targets(max_drop_points=0.5, reference=Reference.LARGE)
    assert too_few(unlabelled, units=460, candidates=1, unit="samples") is None


class Notes:
    """A progress that keeps what it hears, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def start(self, what: str, *, total: int, done: int = 0) -> None:
        self.heard.append(what)

    def advance(self, steps: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def note(self, message: str) -> None:
        self.heard.append(message)


def test_too_few_is_the_first_thing_said(work: Path, tmp_path: Path) -> None:
    notes = Notes()
    plan = replace(asked(work, "honest"), targets=Targets(max_drop_points=0.5))
    with pytest.raises(InfeasibleError, match="at least 644 are needed"):
        calibrate(plan, out=tmp_path / "bundle", progress=notes)
    assert "120 samples are too few" in notes.heard[0]
    assert any(one.startswith("big") for one in notes.heard[1:])


def test_savers_tried_one_after_the_other_share_the_risk_as_if_named_together(
    work: Path, tmp_path: Path
) -> None:
    plan = asked(work, "honest")
    out = tmp_path / "bundle"
    for name, layers in (("second", 1), ("third", 2)):
        colour_model(work / f"{name}.onnx", replace(SAVER, layers=layers))
        (work / f"{name}.toml").write_text(DESCRIPTION)

    def run(*savers: str, drop: float = DROP, method: Method = Method.CERTIFIED) -> Calibration:
        assert isinstance(plan.input, ImageInput)
        paths = [work / f"{saver}.onnx" for saver in savers]
        models = tuple(ModelFile(path, find_description(path)) for path in paths)
        targets = Targets(method=method, max_drop_points=drop)
        return calibrate(
            replace(plan, input=replace(plan.input, savers=models), targets=targets), out=out
        )

    def candidates(found: Calibration) -> int:
        assert found.certificate is not None
        return found.certificate.candidates

    first = run("tiny")
    assert candidates(first) == 1
    other = run("second")
    assert candidates(other) == 2
    (line,) = (one for one in other.warnings if "earlier runs" in one)
    assert "other savers or limits (1: tiny) share the risk of this certificate" in line
    again = run("tiny")  # the same once more is the same once more
    assert again.certificate == first.certificate
    assert run("second").certificate == other.certificate
    assert candidates(run("tiny", drop=DROP + 5)) == 3  # another limit is another question
    run("third", method=Method.EMPIRICAL)  # nothing is promised, but everything is tested
    assert candidates(run("second", drop=DROP + 5)) == 5
    with Bundle.load(out) as bundle:
        assert bundle.manifest.certificate is not None
    kept = out.with_name("bundle.records") / "tested.json"
    kept.rename(earlier := kept.with_name("looked.json"))  # as earlier releases called it
    assert run("second").certificate == other.certificate
    assert candidates(run("second", drop=DROP + 5)) == 5
    assert not kept.exists()  # nothing new was tested
    earlier.unlink()
    kept.write_text("[{]")
    assert candidates(run("second")) == 1


def moving_epoch(folder: Path, number: int, seed: int, *, suffix: str) -> None:
    """Write 16 frames of a fixed place that something moves in."""
    place = np.random.default_rng(0).integers(60, 180, (36, 64, 3)).astype(np.uint8)
    rng = np.random.default_rng(seed)
    target = folder / f"e{number:02}"
    target.mkdir(parents=True)
    files = [f"{frame}{suffix}" for frame in range(16)]
    for name in files:
        shown, (x, y) = place.copy(), rng.integers(0, (44, 20))
        shown[y : y + 16, x : x + 20] = rng.integers(0, 255)
        cv2.imwrite(str(target / name), shown)
    about = {"files": files, "seconds": [one / 4 for one in range(16)], "length_s": 4.0}
    (target / "epoch.json").write_text(json.dumps(about))


def test_epochs_that_are_there_twice_are_told_though_encoded_anew(tmp_path: Path) -> None:
    for number in range(20):
        moving_epoch(tmp_path, number, number % 15, suffix=".png" if number < 15 else ".jpg")
    data = open_epochs(tmp_path)
    found = check_epochs(data, *read_timeline(data), stated=True)
    assert "although 5 of 20 epochs show the same as an earlier one" in found.stated
    for number in range(15, 20):
        shutil.rmtree(tmp_path / f"e{number}")
    data = open_epochs(tmp_path)
    assert check_epochs(data, *read_timeline(data), stated=True).warnings == ()
