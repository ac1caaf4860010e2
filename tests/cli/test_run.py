"""`tinysaver-edge run` on live sources: signals, several sources, lost ones, escalation."""

import json
import signal
import socket
import time

import pytest

from tests.command import start
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_in_the_middle_ends_it_in_good_order(bundle, tmp_path, number, code):
    lines = tmp_path / "decisions.jsonl"
    with lines.open("w") as out:
        process = start("run", bundle, "--source", "demo://", "--json", stdout=out)
        deadline = time.monotonic() + 60
        while lines.read_text().count("\n") < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    text = lines.read_text()
    assert text.endswith("\n")
    decisions = [json.loads(line) for line in text.splitlines()]
    assert len(decisions) >= 5
    numbers = [one["frame_id"]["sequence"] for one in decisions]
    assert numbers == sorted(set(numbers))
    assert f"stopped by {signal.Signals(number).name}" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_several_sources_with_names(command, bundle):
    done = command(
        "run", bundle, "--source", "left=demo://?fps=60&frames=40&seed=1",
        "--source", "right=demo://?fps=60&frames=40&seed=2", "--json",
    )  # fmt: skip
    assert done.code == 0
    names = [json.loads(line)["frame_id"]["source_id"] for line in done.out.splitlines()]
    assert names.count("left") > 10
    assert names.count("right") > 10


def test_local_never_escalates_and_revise_revises(command, bundle):
    source = bundle / "golden"
    done = command("run", bundle, "--source", source, "--escalation", "local", "--json")
    local = [json.loads(line) for line in done.out.splitlines()]
    assert {one["source"] for one in local} == {"saver", "fallback"}
    unsure = sum(one["source"] == "fallback" for one in local)
    assert f"{unsure} answers degraded" in done.err
    done = command("run", bundle, "--source", source, "--escalation", "revise", "--json")
    revised = [json.loads(line) for line in done.out.splitlines()]
    assert sum(one["revision"] for one in revised) == unsure
    assert "degraded" not in done.err
    table = command("run", bundle, "--source", source, "--escalation", "revise")
    assert table.out.count("  revised") == unsure


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("rtsp://u:s3cr3t@127.0.0.1:{port}/x", "127.0.0.1:{port}: connection refused"),
        ("rtsp://u:s3cr3t@host:x/", "the address is malformed"),
        ("97", "there is no /dev/video97"),
        ("/dev/video97", "there is no /dev/video97"),
        ("ftp://x/y", "no such kind of source"),
    ],
)
def test_sources_that_are_not_there_take_one_line(command, bundle, source, part):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = command("run", bundle, "--source", source.format(port=port), "--json")
    assert done.code == 2
    assert part.format(port=port) in done.complaint
    assert "s3cr3t" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("--escalation", "never"),
        ("--deadline-ms", "0"),
        ("--max-in-flight", "0"),
        ("--timeout-s", "-1"),
    ],
)
def test_options_out_of_range(command, bundle, words):
    done = command("run", bundle, "--source", "demo://", *words)
    assert done.code == 2
    assert words[0] in done.complaint
