"""What goes to stdout, what to stderr, and which exit code tells that something is missing."""

import fcntl
import json
import os
import resource
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.colours import colour_picture
from tests.command import PROGRAM, ROOT, start
from tests.small_bundle import small_bundle
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("streams") / "bundle")


@pytest.mark.parametrize("words", [("devices", "list"), ("verify",), ("models", "list")])
def test_a_table_that_was_asked_for_goes_to_stdout(command, bundle, words):
    done = command(*words, *([bundle] if words == ("verify",) else []))
    assert len(done.out.splitlines()) > 3
    assert done.code == 0


def test_beside_json_it_does_not(command, bundle):
    done = command("verify", bundle, "--json")
    assert json.loads(done.out)["passed"]
    assert "certificate" in done.err or "golden" in done.err or "decisions" in done.err


@pytest.mark.parametrize(
    "words",
    [
        *(("evaluate", "none", "--data", "none"), ("verify", "none"), ("bench", "none")),
        *(("compare", "none"), ("run", "none", "--source", "demo://"), ("demo", "--seconds", "x")),
        *(("models", one, "none.onnx") for one in ("check", "describe", "profile", "quantize")),
        *(("models", "list", "--near", "x"), ("devices", "show", "none"), ("models", "--foo")),
        *(("devices", one, "--devices", "none") for one in ("list", "probe")),
        *(("calibrate", "--foo"), ("calibrate", "--method", "foo"), ("nothing",)),
    ],
    ids=" ".join,
)
def test_a_failure_is_one_object_where_json_was_asked_for(command, words):
    done = command(*words, "--json")
    (line,) = done.err.splitlines()
    said = {"error": line.removeprefix("tinysaver-edge: "), "exit_code": 2}
    if words[0] == "calibrate":
        said["candidates"] = []
    if words[0] == "run":  # a line like those before it, and about no frame
        said["frame_id"] = None
    assert done.code == 2
    assert done.json == said
    assert command(*words).out == ""  # nobody asked


def test_where_stdout_fails_the_line_on_stderr_has_to_do():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "verify", "none", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("tinysaver-edge: ")
    assert "none" in line


@pytest.mark.parametrize("words", [(), ("models",), ("devices",)])
def test_a_group_alone_shows_its_help(command, words):
    done = command(*words)
    assert done.code in (0, 2)
    text = done.out + done.err
    assert "\nCommands:\n" in text
    assert text.startswith("Usage:")


def test_decisions_that_could_not_be_written_are_no_success(bundle, tmp_path):
    lines = tmp_path / "out.jsonl"
    limit = 2048
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", bundle, "--source", "demo://?frames=40&fps=200",
         "--quiet", "--jsonl", lines],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert all(json.loads(line) for line in lines.read_text().splitlines())


def test_decisions_for_a_pipe_that_nobody_reads_are_no_success(command, bundle, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for number in range(5):  # files, of which a busy machine drops none
        cv2.imwrite(str(tmp_path / f"{number}.png"), colour_picture(number, number))
    source = ("--source", tmp_path / "*.png")
    done = command("run", bundle, *source, "--quiet", "--jsonl", tmp_path / "pipe")
    assert done.code == 2
    assert "sink jsonl pipe: 5 decisions could not be written" in done.err


def test_decisions_that_were_lost_are_told_in_json_too(command, bundle):
    done = command(
        "run", bundle, "--source", "demo://?frames=3&fps=50", "--json", "--jsonl", "/dev/full"
    )
    assert done.code == 2
    *decisions, last = map(json.loads, done.out.splitlines())
    assert [one["frame_id"]["sequence"] for one in decisions] == [0, 1, 2]
    lost = "sink jsonl full: 3 decisions could not be written"
    assert last == {"error": lost, "exit_code": 2, "frame_id": None}


@pytest.mark.parametrize(
    ("option", "address"),
    [("--mqtt", "mqtt:/broker"), ("--metrics", "nowhere"), ("--dashboard", "127.0.0.1:x"),
     ("--source", "nowhere.mp4"), ("--source", "camera:0?fps=x")],
)  # fmt: skip
def test_addresses_are_looked_at_before_a_bundle_is(command, tmp_path, option, address):
    done = command("run", tmp_path / "none", "--source", "demo://?frames=1", option, address)
    assert done.code == 2
    assert "none" not in done.complaint.split(": ")[0]
    assert "no such bundle" not in done.complaint


@pytest.mark.parametrize(
    "words", [("models", "describe", "{model}", "--force"), ("bench", "{model}")]
)
def test_no_report_takes_the_place_of_a_socket(command, bundle, tmp_path, words):
    import socket

    place = tmp_path / "node"
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(place))
        model = bundle / "models" / "large.onnx"
        done = command(*(word.format(model=model) for word in words), "--out", place)
    assert done.code == 2
    assert "a socket of this name is there" in done.complaint
    assert stat.S_ISSOCK(place.lstat().st_mode)


def test_a_report_for_a_place_that_takes_none_is_one_line_with_its_name(command, bundle, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path / "pipe", tmp_path / "loop", Path("/dev/full")):
        model = bundle / "models" / "large.onnx"
        done = command("models", "describe", model, "--out", place)
        assert done.code == 2
        assert str(place) in done.complaint
    assert (tmp_path / "loop").is_symlink()


def test_who_is_told_to_stop_waits_for_no_reader(bundle):
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    words = ("run", bundle, "--source", "demo://?fps=100", "--json")
    process = start(*words, stdout=write, stderr=subprocess.DEVNULL)
    wait_until(lambda: not select.select([], [write], [], 0)[1], seconds=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(("words", "code"), [(("devices", "list"), 0), (("verify", "none"), 2)])
def test_where_nobody_takes_stderr_the_answer_and_the_exit_code_are_the_same(words, code):
    with Path("/dev/full").open("w") as full:
        process = start(*words, stderr=full)
    assert process.communicate(timeout=60)[0].strip() or code
    assert process.returncode == code
