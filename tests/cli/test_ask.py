"""`calibrate --ask` as a user has it: the real command, people on its page, and its end."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from tests.calibrate.recipes import recipe
from tests.colours import LARGE, NAMES, SAVER, colour_picture
from tests.command import spawned, start
from tests.questions.asking import AskingCommand, say, truthful

PICTURES = 900


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder of frames that nobody has labelled, models, and what only a person knows."""
    folder = tmp_path_factory.mktemp("asking")
    (folder / "frames").mkdir()
    truth = {}
    rng = np.random.default_rng(5)
    for number in range(PICTURES):
        label = int(rng.integers(len(NAMES)))
        good, data = cv2.imencode(".png", colour_picture(label, 50_000 + number))
        assert good
        (folder / "frames" / f"{number:04d}.png").write_bytes(data.tobytes())
        truth[f"{number:04d}.png"] = NAMES[label]
    (folder / "names.txt").write_text("\n".join(NAMES))
    models = recipe(folder, {"quick": SAVER, "large": LARGE})
    lines = models.read_text().splitlines()
    models.write_text("\n".join(line for line in lines if not line.startswith("labels")) + "\n")
    return folder, models, truth


def arguments(workshop, out, *more):
    folder, models, _ = workshop
    given = ("--data", folder / "frames", "--work-dir", folder / "records", "--max-stages", 2)
    asked = ("--max-drop", 4, "--class-names", folder / "names.txt", "--no-timing", "--json")
    return ("calibrate", models, *given, *asked, "--out", out, *more)


@contextmanager
def page_of(workshop, out, *more, **options):
    process = start(*arguments(workshop, out, "--ask", "--ask-at", "127.0.0.1:0", *more), **options)
    try:
        yield AskingCommand(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_goes_on_to_certify_what_was_answered(workshop, tmp_path, number):
    out = tmp_path / "bundle"
    with page_of(workshop, out, "--as", "Anna") as page:
        assert f"{PICTURES} samples without labels: what questions buy" in page.said
        assert "Finish there, or press Ctrl-C once" in page.process.stderr.readline()
        seen = truthful(page, workshop[2], 12)
        page.process.send_signal(number)
        err, told = page.end()
    assert f"{number.name}: going on with what was answered" in err
    assert (out / "bundle.json").is_file()
    assert told["questions"]["asked"] == seen["asked"]
    assert told["plan"]["standing"]["cost"] == pytest.approx(seen["cost"])
    book = tmp_path / "bundle.answers.jsonl"
    assert len(book.read_text().splitlines()) == 12
    assert {json.loads(one)["by"] for one in book.read_text().splitlines()} == {"Anna"}


@pytest.mark.slow
def test_killed_it_goes_on_from_there_and_the_button_finishes(workshop, tmp_path):
    out = tmp_path / "bundle"
    with page_of(workshop, out) as page:
        before = truthful(page, workshop[2], 6)
        os.kill(page.process.pid, signal.SIGKILL)
        page.process.wait()
    assert not out.exists()
    with page_of(workshop, out) as page:
        assert say(page, "/seen")["seen"]["asked"] == before["asked"]
        after = truthful(page, workshop[2], 200, by="Ben")
        say(page, "/finish")
        _, told = page.end()
    assert after["over"] is True
    assert after["bound_points"] <= before["bound_points"]
    assert told["questions"]["people"] == 2
    again = spawned(*arguments(workshop, out, "--ask"))  # nothing is left to ask
    assert "nobody is asked" in again.err
    assert again.json["certificate"] == told["certificate"]


@pytest.mark.slow
def test_two_commands_do_not_ask_into_one_book(workshop, tmp_path):
    out = tmp_path / "bundle"
    with page_of(workshop, out):
        done = spawned(*arguments(workshop, out, "--ask"))
    assert done.code == 2
    assert "another calibration writes there" in done.complaint


@pytest.mark.slow
def test_classes_without_names_and_other_machines_are_told_of(workshop, tmp_path):
    given = list(arguments(workshop, tmp_path / "b", "--ask", "--ask-at", "127.0.0.1:0"))
    place = given.index("--class-names")
    del given[place : place + 2]
    process = start(*given, environment={"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"})
    try:
        page = AskingCommand(process)
        assert "people are asked about numbers: --class-names FILE" in page.said
        port = page.url.rpartition(":")[2]
        assert f"ssh -L {port}:127.0.0.1:{port}" in page.said
        assert say(page, "/turn")["turn"]["first"].startswith("class ")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--ask", "--ask-at", "0.0.0.0:0"), "others can reach this address, so the page of"),
        (("--ask", "--ask-at", "here"), "--ask-at here: give HOST:PORT"),
        (("--ask", "--token", "short"), "the token is too short"),
        (("--ask-at", "127.0.0.1:0"), "--ask-at is about the page that --ask shows: add --ask"),
        (("--as", "Anna"), "--as is about the page that --ask shows: add --ask"),
        (("--ask", "--as", "\x1b[2J"), "up to 64 printable signs"),
        (("--ask", "--class-names", "nowhere.txt"), "--class-names nowhere.txt: there is no such"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_measured(
    workshop, tmp_path, command, more, complaint
):
    done = command(*arguments(workshop, tmp_path / "bundle", *more))
    assert done.code == 2
    assert complaint in done.complaint


def test_names_that_are_not_one_a_class_are_refused(workshop, tmp_path, command):
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    more = ("--class-names", tmp_path / "few.txt")
    done = command(*arguments(workshop, tmp_path / "bundle", *more))
    assert done.code == 2
    assert f"2 names for {len(NAMES)} classes" in done.err
