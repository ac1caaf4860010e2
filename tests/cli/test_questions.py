"""The command without labels: a plan, questions, answers part by part, a bundle that says so."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from tests.collect.test_recordings import video
from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model

CLASSES = 10
SAMPLES = 3000


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two models that are surest where they are right, the true classes, and a folder for both."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SAMPLES)
    hardness = rng.exponential(size=(SAMPLES, 1))
    for name, noise in (("big", 0.6), ("tiny", 0.95)):
        logits = 3 * np.eye(CLASSES)[labels] + noise * hardness * rng.normal(
            size=(SAMPLES, CLASSES)
        )
        np.savez(folder / f"{name}.npz", logits=logits.astype(np.float32))
    np.save(folder / "labels.npy", labels)
    (folder / "models.csv").write_text("name,macs\nbig,2e9\ntiny,1e8\n")
    return folder


def on(folder, *more, drop=("--max-drop", "2")):
    return [
        "calibrate", "--records", folder, "--macs", folder / "models.csv", "--large", "big",
        "--saver", "tiny", *drop, *more,
    ]  # fmt: skip


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answer(path, rows, truth):
    """Write what somebody says who knows the true class of each sample."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "answer"))
        for row in rows:
            words = {int(row["a"]): "a", int(row["b"]): "b"}
            writer.writerow((row["id"], words.get(truth[int(row["sample"])], "neither")))
    return path


def test_records_without_labels_a_plan_questions_answers_and_the_labels_certificate(
    command, records, tmp_path
):
    labels = np.load(records / "labels.npy")
    planned = command(*on(records, "--json"))
    assert planned.code == 0
    plan = planned.json
    first, *_, last = plan["prospects"][0]["milestones"]
    assert first["questions"] < last["questions"]
    assert first["cost"] > last["cost"]
    assert plan["prospects"][0]["agreements"]
    done = command(*on(records, "--questions", tmp_path / "q.csv", "--json"))
    assert (done.code, done.json["file"]) == (0, str(tmp_path / "q.csv"))
    rows = rows_of(tmp_path / "q.csv")
    assert list(rows[0]) == ["id", "sample", "file", "a", "b"]
    assert len(rows) >= last["questions"]
    # Part by part, the later part first; what is left is asked for again.
    half = len(rows) // 3
    one = answer(tmp_path / "1.csv", rows[half:], labels)
    left = command(*on(records, "--answers", one, "--questions", tmp_path / "left.csv"))
    assert left.code == 0
    assert [row["id"] for row in rows_of(tmp_path / "left.csv")[:half]] == [
        row["id"] for row in rows[:half]
    ]
    two = answer(tmp_path / "2.csv", rows[:half][::-1], labels)
    bundle = tmp_path / "bundle"
    asked = command(*on(records, "--answers", one, "--answers", two, "--out", bundle, "--json"))
    assert asked.code == 0, asked.err
    labelled = command(
        *on(records, "--labels", records / "labels.npy", "--fusion", "none", "--json")
    )
    found, same = asked.json, labelled.json
    assert found["certificate"] == same["certificate"]
    assert found["calibration"]["drop_points"] == same["calibration"]["drop_points"]
    assert found["calibration"]["accuracy_large"] is None
    assert found["questions"]["answered"] == len(rows)
    assert (found["questions"]["open"], found["questions"]["people"]) == (0, 1)
    checked = command("verify", bundle)
    assert checked.code == 0
    words = f"from answers to questions ({len(rows)} of {len(rows)} questions answered by 1 person"
    told = command("evaluate", bundle, "--records", records, "--labels", records / "labels.npy")
    page = bundle.with_name("bundle.report.html").read_text()
    for text in (asked.err, checked.err + checked.out, told.err + told.out, page):
        assert words in " ".join(text.split())


def test_half_of_the_answers_certify_less_and_the_bundle_says_so(command, records, tmp_path):
    labels = np.load(records / "labels.npy")
    command(*on(records, "--questions", tmp_path / "q.csv"))
    rows = rows_of(tmp_path / "q.csv")
    part = answer(tmp_path / "a.csv", rows[: len(rows) // 4], labels)
    some = command(*on(records, "--answers", part, "--json")).json
    whole = answer(tmp_path / "w.csv", rows, labels)
    every = command(*on(records, "--answers", whole, "--json")).json
    assert some["threshold"] > every["threshold"]
    assert some["certificate"]["steps"][-1]["lost"] >= some["questions"]["open"] > 0
    assert some["plan"]["standing"]["open"] > 0


def test_without_labels_a_bundle_rests_on_consistency_and_says_what_questions_would_buy(
    command, records, tmp_path
):
    done = command(*on(records, "--out", tmp_path / "b", "--json"))
    assert done.code == 0
    assert "from consistency" in done.json["statement"]
    assert "large alone  " not in done.err  # nobody's accuracy is told, but agreement with it
    assert "saver agrees" in done.err
    assert "cascade agrees" in done.err
    assert done.json["questions"] is None
    assert done.json["plan"]["prospects"][0]["milestones"][-1]["questions"] > 0
    assert command("verify", tmp_path / "b").code == 0


@pytest.mark.parametrize("kind", ["groups", "budget", "fusion"])
def test_groups_budgets_and_fusion_are_asked_about_as_well(command, records, tmp_path, kind):
    labels = np.load(records / "labels.npy")
    np.save(tmp_path / "groups.npy", np.char.add("clip", (np.arange(SAMPLES) // 2).astype(str)))
    drop, more = {
        "groups": (("--max-drop", "6"), ("--groups", tmp_path / "groups.npy")),
        "budget": (("--no-max-drop",), ("--budget", "escalation_rate=0.5")),
        "fusion": (("--max-drop", "2"), ("--fusion", "conditional_logit")),
    }[kind]
    words = on(records, *more, drop=drop)
    assert command(*words, "--questions", tmp_path / "q.csv").code == 0
    part = answer(tmp_path / "a.csv", rows_of(tmp_path / "q.csv"), labels)
    done = command(*words, "--answers", part, "--json")
    assert done.code == 0, done.err
    assert done.json["questions"]["open"] == 0
    if kind == "fusion":  # with labels a fusion that is named is fitted
        assert done.json["fusion"] == "conditional_logit"
        return
    by_labels = ("--labels", records / "labels.npy", "--fusion", "none", "--json")
    same = command(*words, *by_labels).json
    assert done.json["certificate"]["steps"] == same["certificate"]["steps"]


def test_both_fusions_can_be_looked_at_and_are_paid_for(command, records):
    found = command(*on(records, "--fusion", "all", "--json")).json
    assert [one["fusion"] for one in found["prospects"]] == [None, "conditional_logit"]
    assert found["candidates"] == 2


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Pictures in one folder, without a word on their classes, and two models."""
    folder = tmp_path_factory.mktemp("frames")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "labelled", each=80)
    (folder / "flat").mkdir()
    truth = {}
    for number, path in enumerate(sorted((folder / "labelled").rglob("*.png"))):
        name = f"{(number * 7919) % 480:04}.png"
        shutil.copy(path, folder / "flat" / name)
        truth[name] = NAMES.index(path.parent.name)
    return folder, truth


def test_a_folder_of_frames_is_asked_about_with_its_pictures(command, frames, tmp_path):
    folder, truth = frames
    words = [
        "calibrate", "--data", folder / "flat", "--descriptions", folder, "--large",
        folder / "big.onnx", "--saver", folder / "tiny.onnx", "--max-drop", "8", "--no-timing",
        "--work-dir", tmp_path / "work", "--independent",
    ]  # fmt: skip
    done = command(*words, "--questions", tmp_path / "q.csv", "--json")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "q.csv")
    for row in rows:
        picture = tmp_path / "q.pictures" / f"{row['id']}.png"
        assert picture.read_bytes() == (folder / "flat" / row["file"]).read_bytes()
    known = {int(row["sample"]): truth[row["file"]] for row in rows}
    part = answer(tmp_path / "a.csv", rows, known)
    done = command(*words, "--answers", part, "--out", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    assert done.json["questions"]["answered"] == len(rows)
    assert command("verify", tmp_path / "bundle").code == 0
    # The same pictures under other names: the answers are theirs still.
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (folder / "flat").iterdir():
        shutil.copy(path, moved / f"x{999 - int(path.stem)}.png")
    again = [moved if word == folder / "flat" else word for word in words]
    again[again.index(tmp_path / "work")] = tmp_path / "other"
    done = command(*again, "--answers", part, "--json")
    assert done.json["questions"]["answered"] == len(rows)


def test_epochs_as_data_are_refused_before_anything_is_looked_at(command, frames, tmp_path):
    folder, _ = frames
    film, epochs = video(tmp_path / "film.mp4", 100), tmp_path / "epochs"
    done = command("collect", "--from", film, "--epochs", "1s", "--number", 4, "--out", epochs)
    assert done.code == 0, done.err
    done = command(
        "calibrate", "--data", epochs, "--descriptions", folder, "--large", folder / "big.onnx",
        "--saver", folder / "tiny.onnx", "--work-dir", tmp_path / "work",
    )  # fmt: skip
    assert done.code == 2
    line = f"tinysaver-edge: data {epochs}: holds epochs, not single frames: name it with --epochs"
    assert done.err.strip() == line
    assert not (tmp_path / "work").exists()


def test_when_no_answer_can_help_any_more_none_is_asked_for(command, records, tmp_path):
    labels, table, parts = np.load(records / "labels.npy"), tmp_path / "q.csv", []
    for number in range(9):
        given = [word for part in parts for word in ("--answers", part)]
        done = command(*on(records, *given, "--questions", table))
        assert done.code == 0, done.err
        rows = rows_of(table)
        if not rows:
            break
        parts.append(answer(tmp_path / f"{number}.csv", rows, labels))
    else:
        pytest.fail("there is always one more question")
    assert "no further answer can lower the cost: --answers with --out" in done.err


def test_repeats_are_of_the_page(command, records):
    done = command(*on(records, "--repeats", "0.2"))
    assert done.code == 2
    assert "--repeats is about the page" in done.err
    assert command(*on(records, "--repeats", "20", "--ask", "--out", "x")).code == 2


def test_what_no_answer_would_buy_is_not_advised(command, records):
    done = command(*on(records, drop=("--max-drop", "0.05")))
    assert done.code == 3
    assert "are needed; more frames, or a larger --max-drop, may help" in done.err
    assert "Candidates" not in done.out + done.err
