"""Epochs through the command: calibrated, verified, evaluated, and run with the same decisions."""

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, MIDDLE, NAMES, SAVER, colour_picture
from tests.command import spawned
from tests.data.epoch_folders import epoch_folders
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import run
from tinysaver_edge.calibrate.methods import chains
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import load_recipe
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.cli.calibrate import _next_step
from tinysaver_edge.cli.evaluate import _Kept, _kept
from tinysaver_edge.data.epochs import open_epochs
from tinysaver_edge.deciding.epochs import reused
from tinysaver_edge.deciding.policy import Policy, replay
from tinysaver_edge.decision import AnswerSource, Likeness
from tinysaver_edge.records.evaluation import evaluate_epochs
from tinysaver_edge.records.records import load_record
from tinysaver_edge.records.timeline import read_timeline
from tinysaver_edge.stream.sources.source import Frame

COUNT = 90


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("epochs")
    recipe(folder, {"tiny": SAVER, "mid": MIDDLE, "big": LARGE})
    epoch_folders(folder / "clips", count=COUNT)
    epoch_folders(folder / "more", count=12, seed=5)
    return folder


def asked(work, *more, clips="clips"):
    return [
        "calibrate", work / "recipe.toml", "--root", work, "--epochs", work / clips,
        "--labels", work / f"{clips}.csv", "--max-drop", 4,
        "--independent", *([] if "--saver" in more else ["--saver", "tiny"]), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(work):
    return spawned(*asked(work, "--out", work / "bundle", "--json"))


@pytest.fixture
def bundle(work, made):
    assert made.code == 0, made.err
    return work / "bundle"


@pytest.fixture(autouse=True)
def nobody_tested_before(work):
    """Each test is a user of its own, who shares the models' answers alone with those before it."""
    (work / "bundle.records" / "tested.json").unlink(missing_ok=True)


def test_the_epoch_is_what_is_certified(made, bundle):
    result = made.json
    counts = Certificate.from_json(result["certificate"])
    assert counts.evidence.value == "epochs"
    assert (counts.groups, counts.samples) == (COUNT, COUNT * 8)
    assert "epochs of a stream (90 counted)" in result["statement"]
    assert any("independent of each other" in line for line in result["stated"])
    shares = result["calibration"]["reuse"]
    assert sum(shares[name] for name in ("still", "same", "saver", "large")) == pytest.approx(1)
    assert shares["still"] + shares["same"] > 0.2
    assert result["calibration"]["cost_macs_ratio"] < shares["cost_macs_ratio_without"]
    with Bundle.load(bundle) as opened:
        rule = opened.manifest.reuse.rule
        step = counts.steps[-1]
        assert (rule.still, rule.same, rule.epoch_s) == (step.still, step.same, 4.0)
        assert opened.manifest.certificate.measured.reuse == rule
    page = (bundle.parent / "bundle.report.html").read_text()
    assert "What is reused" in page
    assert "Who answered" in made.out + made.err
    told = page.replace("\N{NO-BREAK SPACE}", " ")
    again = shares["still"] + shares["same"]
    assert f"it answered {100 * shares['saver']:.1f} %, {100 * again:.1f} % repeated an" in told
    assert "keep the saver" not in page


def test_epochs_that_nobody_vouches_for_are_refused_and_copies_are_told(command, work):
    table = (work / "clips.csv").read_text().splitlines()
    for number in range(45, COUNT):
        copied = work / "copied" / f"e{number:03d}"
        shutil.copytree(work / "clips" / "e000", copied)
        about = json.loads((copied / "epoch.json").read_text())
        (copied / "epoch.json").write_text(json.dumps({**about, "moment_s": 60.0 * number}))
    for number in range(45):
        name = f"e{number:03d}"
        shutil.copytree(work / "clips" / name, work / "copied" / name)
    first = [line.partition(",")[2] for line in table if line.startswith("e000")]
    rows = [line for line in table[1:] if int(line[1:4]) < 45]
    rows += [f"e{number:03d},{line}" for number in range(45, COUNT) for line in first]
    (work / "copied.csv").write_text("\n".join([table[0], *rows]) + "\n")
    given = asked(work, "--out", work / "none", clips="copied")
    given.remove("--independent")
    refused = command(*given)
    assert refused.code == 2
    assert "45 of 90 epochs show the same as an earlier one; nobody says how" in refused.err
    assert "--independent" in refused.err
    assert not (work / "none").exists()


def test_a_camera_of_another_rate_is_not_certified(bundle):
    image = np.zeros((32, 32, 3), np.uint8)
    with Cascade.load(bundle) as cascade:
        assert cascade.reuse.frames_per_s == 2.0
        for rate, certified in ((2.0, True), (2.5, True), (5.0, False), (1.0, False)):
            camera = cascade.track()
            told = [camera.decide(image, timestamp_s=k / rate).certified for k in range(12)]
            assert set(told[1:]) == {certified}, rate
        camera = cascade.track()
        told = [camera.decide(image, timestamp_s=0.0).certified for _ in range(4)]
        assert not any(told[1:])


def test_run_tells_of_the_rate_and_of_frames_that_are_cut(command, work, bundle):
    words = ("run", bundle, "--source", work / "clips" / "e000" / "00000.png", "--quiet")
    told = command(*words).err
    assert "certified are cameras of about 2 frames a second" in told
    assert "frames are cut" not in told
    assert "frames are cut" in command(*words, "--region", "0,0,16,16").err


def test_another_limit_runs_no_model(command, work, bundle):
    done = command(*asked(work, "--max-drop", 6, "--out", bundle.with_name("other"),
                          "--work-dir", f"{bundle}.records", "--json"))  # fmt: skip
    assert done.code == 0, done.err
    assert "to go" not in done.err


def test_the_next_step_keeps_the_pace_that_is_certified(bundle):
    with Bundle.load(bundle) as opened:
        manifest = opened.manifest
    done = SimpleNamespace(policy=manifest, bundle=bundle, reuse=manifest.reuse)
    assert f"run {bundle} --source 0 --fps 2" in _next_step(done, SimpleNamespace(records=None))


def test_verify_proves_it_again_and_sees_another_rule(command, bundle):
    assert command("verify", bundle).code == 0
    place = bundle / "bundle.json"
    whole = place.read_text()
    content = json.loads(whole)
    content["reuse"]["rule"]["still"] += 1
    try:
        place.write_text(json.dumps(content))
        done = command("verify", bundle)
    finally:
        place.write_text(whole)
    assert done.code != 0
    assert "reuse" in done.out + done.err


def test_evaluate_measures_on_epochs_it_has_not_seen(command, work, bundle):
    done = command("evaluate", bundle, "--epochs", work / "more", "--labels", work / "more.csv",
                   "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["seen_samples"] == 0
    assert done.json["reuse"]["epochs"] == 12
    assert done.json["drop_interval_points"][0] < done.json["drop_points"]
    again = command("evaluate", bundle, "--epochs", work / "clips", "--labels",
                    work / "clips.csv", "--json")  # fmt: skip
    assert again.json["seen_samples"] == COUNT * 8
    assert (
        again.json["reuse"]
        == json.loads((bundle / "bundle.json").read_text())["calibration"]["reuse"]
    )


def test_evaluate_holds_a_certificate_against_nothing_that_it_is_not_about(
    command, work, bundle, tmp_path
):
    """Epochs of another rate, pictures alone, answers that differ from the large model's."""
    shutil.copytree(work / "more", tmp_path / "faster")
    for place in (tmp_path / "faster").glob("*/epoch.json"):
        about = json.loads(place.read_text())
        about["seconds"] = [at / 4 for at in about["seconds"]]
        place.write_text(json.dumps(about))
    faster = command("evaluate", bundle, "--epochs", tmp_path / "faster")
    assert "its certificate is not about them" in faster.err
    assert "kept here" not in faster.out
    for number, name in enumerate(NAMES):
        (tmp_path / "single" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "single" / name / "0.png"), colour_picture(number, 1))
    single = command("evaluate", bundle, "--data", tmp_path / "single")
    assert "these samples stand alone" in single.err
    assert "kept here" not in single.out
    assert "whether it is kept here" in command("evaluate", bundle, "--epochs", work / "more").out

    with Bundle.load(bundle) as opened:
        found = evaluate_epochs(opened, work / "more")
        for within, told in (((0.0, 3.0), _Kept.YES), ((30.0, 60.0), _Kept.UNTOLD)):
            figures = replace(found.figures, drop_interval_points=within)
            assert _kept(opened.manifest, replace(found, figures=figures)) is told
        labelled = replace(found, figures=figures, by_large=False)
        assert _kept(opened.manifest, labelled) is _Kept.NO


@pytest.fixture
def chain(work, made, monkeypatch):
    """A bundle of three stages, as if nothing else had been worth it."""
    monkeypatch.setattr(chains, "LEAST_EPOCHS", COUNT)
    propose = run.propose_all
    monkeypatch.setattr(
        run,
        "propose_all",
        lambda *given, **more: [one for one in propose(*given, **more) if one.costs.between],
    )
    asked = {
        "epochs": work / "clips", "labels": work / "clips.csv", "max_drop": 6.0,
        "independent": True, "savers": ("tiny", "mid"), "work_dir": work / "bundle.records",
        "out": work / "chain",
    }  # fmt: skip
    plan = plan_of(load_recipe(str(work / "recipe.toml"), root=work).overridden(asked))
    return run.calibrate(plan, out=work / "chain").bundle


@pytest.mark.parametrize("stages", [2, 3])
def test_calibrate_evaluate_and_run_decide_alike_on_the_same_frames(work, stages, request):
    """The gate is empty at each epoch's start in all three: one stream, epoch after epoch."""
    bundle = request.getfixturevalue("bundle" if stages == 2 else "chain")
    with open_epochs(work / "clips") as data, Bundle.load(bundle) as opened:
        policy, rule = Policy.from_manifest(opened.manifest), opened.manifest.reuse.rule
        shares = opened.manifest.calibration.reuse
        timeline, _ = read_timeline(data)
        records = [
            load_record(work / "bundle.records", stage.model.name).outputs
            for stage in opened.manifest.stages
        ]
        alone = replay(policy, records)
        frames = reused(rule, timeline, records[0], alone.stage == 0)
        expected = frames.applied(alone).predictions
        starts = data.times_s[timeline.starts]
        times = data.times_s - starts[data.numbers] + 4.0 * data.numbers
        pictures = [data.frame(index) for index in range(len(data))]

    with Cascade.load(bundle) as cascade:
        camera = cascade.track()
        tracked = [
            camera.decide(picture, timestamp_s=1000 + at)
            for picture, at in zip(pictures, times.tolist(), strict=True)
        ]
        shown = (
            Frame(picture, 1000 + at, place, "camera1")
            for place, (picture, at) in enumerate(zip(pictures, times.tolist(), strict=True))
        )
        streamed = list(cascade.stream(shown))
    assert [one.index for one in tracked] == expected.tolist()
    assert [one.index for one in streamed] == expected.tolist()
    for decisions in (tracked, streamed):
        who = Counter(
            one.reused.alike if one.source is AnswerSource.REUSED else one.stage.index
            for one in decisions
        )
        count = len(decisions)
        assert who[Likeness.STILL] / count == shares.still
        assert who[Likeness.SAME] / count == shares.same
        assert who[stages - 1] / count == pytest.approx(shares.large)
        assert all(one.certified for one in decisions)
    assert np.count_nonzero(frames.still) > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "mean_macs=1e3"), "would have to be"),
        (("--method", "empirical"), "--epochs is certified, or not done"),
        (("--score", "all"), "--score or --fusion 'all'"),
        (("--score", "entropy"), "over epochs the score is margin"),
        (("--data", "x.zip"), "--data and --epochs exclude each other"),
        (("--reference", "large"), "takes either --labels"),
        (("--max-drop", 1), "90 epochs"),
    ],
)
def test_what_epochs_do_not_take_is_said_in_one_line(command, work, made, more, words):
    done = command(*asked(work, *more, "--out", work / "none", "--work-dir",
                          work / "bundle.records"))  # fmt: skip
    assert done.code in (2, 3)
    assert words in done.err
    assert not (work / "none").exists()


def test_without_labels_the_large_model_is_the_reference(command, work, made, tmp_path):
    done = command(
        "calibrate", work / "recipe.toml", "--root", work, "--epochs", work / "clips",
        "--reference", "large", "--max-drop", 6, "--saver", "tiny", "--independent",
        "--work-dir", work / "bundle.records",
        "--out", tmp_path / "bundle", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["certificate"]["evidence"] == "consistency-epochs"
    assert "from consistency" in done.json["statement"]


def test_answers_to_questions_about_runs_give_the_certificate_of_the_labels(
    command, work, made, tmp_path
):
    """Without fusion, which nobody's answers can choose."""
    kept = ("--fusion", "none", "--work-dir", work / "bundle.records", "--json")
    words = [
        "calibrate", work / "recipe.toml", "--root", work, "--epochs", work / "clips",
        "--saver", "tiny", "--max-drop", 4, "--independent", *kept,
    ]  # fmt: skip
    labelled = command(*asked(work, *kept))
    (work / "bundle.records" / "tested.json").unlink()  # another user, who has no labels
    planned = command(*words)
    assert planned.code == 0, planned.err
    assert "what questions buy" in planned.err
    table = tmp_path / "ask.csv"
    assert command(*words, "--questions", table).code == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(int(row["frames"]) for row in rows) > 1
    assert all((tmp_path / "ask.pictures" / f"{row['id']}.png").is_file() for row in rows)
    with open_epochs(work / "clips", spans=work / "clips.csv") as data:
        right = [NAMES.index(sample.label) for sample in data.samples]
    for row in rows:
        truth = right[int(row["sample"])]
        row["answer"] = {int(row["a"]): "a", int(row["b"]): "b"}.get(truth, "neither")
    with table.open("w", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)
    done = command(*words, "--answers", table, "--out", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert done.json["certificate"] == labelled.json["certificate"]
    assert done.json["certificate"]["candidates"] == 1
    told = done.json["questions"]
    assert told["answered"] == len(rows) < told["frames"]
    assert "each about a run of frames" in done.err
    assert done.json["calibration"]["reuse"]["drop_points_without"] is None
    assert command("verify", tmp_path / "bundle").code == 0


def recording(place, *, seconds=150, fps=2, seed=0):
    """Write a video of colours, each for some seconds, and its table of spans."""
    rng, rows, at = np.random.default_rng(seed), ["recording,from_s,to_s,class"], 0
    out = cv2.VideoWriter(str(place), cv2.VideoWriter_fourcc(*"MJPG"), fps, (128, 128))
    while at < seconds * fps:
        label, frames = int(rng.integers(len(NAMES))), int(rng.integers(4, 30))
        scene = cv2.resize(colour_picture(label, at), (128, 128)).astype(np.float64)
        for _ in range(frames):
            out.write(np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8))
        rows.append(f"{place.stem},{at / fps},{(at + frames) / fps},{NAMES[label]}")
        at += frames
    out.release()
    place.with_suffix(".csv").write_text("\n".join(rows) + "\n")


def test_a_recording_is_cut_at_drawn_moments_that_the_certificate_states(command, work, tmp_path):
    video = tmp_path / "door.avi"
    recording(video)
    words = [
        "calibrate", work / "recipe.toml", "--root", work, "--from", f"door={video}",
        "--epoch", "4s", "--number", 60, "--labels", video.with_suffix(".csv"),
        "--trust-labels", "--saver", "tiny", "--out", tmp_path / "bundle", "--json",
    ]  # fmt: skip
    done = command(*words, "--max-drop", 5)
    assert done.code == 0, done.err
    assert done.json["certificate"]["evidence"] == "epochs"
    stated = " ".join(done.json["stated"])
    assert "its epochs of 4 s began at independent random moments of recordings 2" in stated
    assert "drawn with seed 0 (all)" in stated
    clips = tmp_path / "bundle.epochs"
    with open_epochs(clips, spans=video.with_suffix(".csv")) as data:
        assert len(data.epochs) == 60
        assert len(set(data.times_s[data.numbers == 0])) == 8
    # Epochs overlap; a frame that several have lies there once.
    files = [one.stat() for one in clips.glob("*/*.png")]
    assert len({one.st_ino for one in files}) < len(files) / 1.5
    again = command(*words, "--max-drop", 6)
    assert again.code == 0, again.err
    assert "to go" not in again.err
    assert "cutting" not in again.err
    ran = ("run", tmp_path / "bundle", "--source", video, "--limit", 2, "--quiet")
    assert "not certified" not in command(*ran).err
    assert "it was made on whole frames" in command(*ran, "--region", "0,0,64,64").err
    other = command(*words, "--max-drop", 5, "--seed", 1)
    assert other.code == 2
    assert "drawn otherwise (seed 0, 4 s)" in other.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--epoch", "4s", "--epochs", "clips"), "--epoch is about recordings"),
        (("--from", "a.avi", "--epochs", "clips"), "--epochs and --from exclude each other"),
        (("--from", "a.avi", "--epoch", "soon"), "'soon' is no length of time"),
        (("--from", "a.avi"), "a.avi"),
    ],
)
def test_what_cannot_be_cut_is_one_line(command, work, tmp_path, more, words):
    done = command("calibrate", work / "recipe.toml", "--root", work, "--saver", "tiny",
                   "--reference", "large", "--out", tmp_path / "bundle", *more)  # fmt: skip
    assert done.code == 2
    assert words in done.err
    assert not list(tmp_path.iterdir())


def test_a_budget_is_held_by_epochs(command, work, made, tmp_path):
    done = command(*asked(work, "--budget", "mean_macs=40000", "--max-drop", 6, "--work-dir",
                          work / "bundle.records", "--json"))  # fmt: skip
    assert done.code == 0, done.err
    interval = done.json["interval"]
    assert interval["t_certified"] <= interval["t_budget"] <= 1
    assert "thresholds that keep every limit" in done.err


def test_two_savers_compete_and_no_longer_cascade_is_tried(command, work, made, tmp_path):
    done = command(*asked(work, "--saver", "tiny", "--saver", "mid", "--max-drop", 6, "--work-dir",
                          work / "bundle.records", "--json"))  # fmt: skip
    assert done.code == 0, done.err
    assert [row["saver"] for row in done.json["candidates"]] == ["tiny", "mid"]
    assert done.json["certificate"]["candidates"] == 2


def test_too_few_epochs_are_told_before_any_model_runs(command, work, made, tmp_path):
    kept = work / "bundle.records"  # with the models as they were prepared
    done = command(*asked(work, "--out", tmp_path / "no", "--work-dir", kept, clips="more"))
    assert done.code == 3
    first = done.err.index("12 epochs are too few")
    assert first < done.err.index("to go")


def test_a_folder_that_says_when_its_frames_were_taken_is_a_recording(command, work, tmp_path):
    """It runs with its times, so that answers are reused, and epochs are cut out of it."""
    folder, one = tmp_path / "yard", work / "clips"
    folder.mkdir()
    seconds = []
    for number in range(20):
        for frame in range(8):
            name = f"{8 * number + frame:05d}.png"
            shutil.copy(one / f"e{number:03d}" / f"{frame:05d}.png", folder / name)
            seconds.append((8 * number + frame) / 2)
    files = [f"{number:05d}.png" for number in range(160)]
    (folder / "epoch.json").write_text(json.dumps({"files": files, "seconds": seconds}))
    done = command("collect", "--from", folder, "--epochs", "4s", "--number", 5, "--out",
                   tmp_path / "cut")  # fmt: skip
    assert done.code == 0, done.err
    with open_epochs(tmp_path / "cut") as data:
        assert len(data.epochs) == 5
        assert set(np.diff(data.times_s[data.numbers == 0]).round(6)) == {0.5}


def test_an_epoch_that_is_run_repeats_answers_as_it_was_calibrated(command, work, bundle, tmp_path):
    lines, source = tmp_path / "d.jsonl", work / "clips" / "e000"
    done = command("run", bundle, "--source", source, "--jsonl", lines, "--quiet")
    assert done.code == 0, done.err
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(told) == 8
    assert {one["source"] for one in told[1:]} & {"reused"}
    assert all(one["certified"] for one in told)
    bound = r"certified, if the frames are like those calibrated on, of which .* escalated, which "
    assert re.search(bound + "no drift watch checked\n", done.err)
    watched = command(
        "run", bundle, "--source", "demo://?frames=6", "--quiet", "--audit-share", "0.5"
    ).err
    assert re.search(bound + r"the drift watch checked on \d frames?\n", watched), watched
