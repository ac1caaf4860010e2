"""`tinysaver-edge run --large`: the command, with a real host and with mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.colours import colour_folders
from tests.remote.hosts import repository
from tests.remote.triton import Triton, needs_triton
from tests.small_bundle import small_bundle

PROGRAM = "from tinysaver_edge.cli import main; main()"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    small_bundle(folder / "bundle")
    colour_folders(folder / "images", each=4)
    return folder


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--large", "grpc://10.0.0.1:1/large"], "plain text to another host"),
        (["--large", "nonsense"], "expected grpc://host:port/model"),
        (["--large", "grpc://u:geheim@h:1/m"], "no passwords in URLs"),
        (["--large", "grpc://127.0.0.1:9/large"], "127.0.0.1:9/large UNAVAILABLE"),
        (["--insecure"], "name one with --large"),
        (["--large-token-env", "NAME"], "name one with --large"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-cert", "a"], "give both"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-ca", "a"], "is not encrypted"),
        (["--large", "grpc://127.0.0.1:9/m"] * 2, "named twice"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-timeout-ms", "nan"], "nan is no number"),
        (["--large", "grpcs://127.0.0.1:9/m", "--large-ca", "/none.pem"], "/none.pem: No such"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-token-env", "NO_SUCH"], "holds no token"),
        (["--large", "grpc://127.0.0.1:9/m", "--large-worker"], "name one"),
    ],
)
def test_mistakes_are_one_clear_line(place, options, complaint) -> None:
    pytest.importorskip("tritonclient.grpc")
    done = run(place / "bundle", "--source", place / "images", *options)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert complaint in lines[0]
    assert "geheim" not in done.stderr


def test_frames_go_on_without_a_host_that_is_optional(place) -> None:
    pytest.importorskip("tritonclient.grpc")
    options = ("--large", "grpc://127.0.0.1:9/large", "--large-optional", "--json")
    done = run(place / "bundle", "--source", place / "images", *options)
    assert done.returncode == 0, done.stderr
    decisions = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(decisions) == 24
    assert all("UNAVAILABLE" in one["degraded"] for one in decisions if one["escalated"])
    assert "never reached" in done.stderr


@needs_triton
@pytest.mark.slow
def test_the_hosts_answers_are_those_of_the_model_here(tmp_path, place) -> None:
    served = repository(tmp_path)
    triton = Triton(tmp_path, served.path).start()
    try:
        arguments = (tmp_path / "bundle", "--source", place / "images", "--json")
        there = run(*arguments, "--large", triton.url("large"), "--large-timeout-ms", "5000")
    finally:
        triton.stop()
    here = run(*arguments)
    assert there.returncode == here.returncode == 0, there.stderr
    kept = ("label", "index", "source", "escalated", "degraded", "frame_id")
    tables = [
        [{name: json.loads(line)[name] for name in kept} for line in done.stdout.splitlines()]
        for done in (there, here)
    ]
    assert tables[0] == tables[1]
    assert "requests answered, 0 retries" in there.stderr
