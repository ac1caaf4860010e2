"""What the site says to type that takes cameras, brokers, hosts or days: `make test-docs`.

Blocks that begin with ```sh are run line by line, each page in a folder of its own, with something
real in place of what a reader has: a camera over HTTP, a mosquitto, seconds for days.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest

from tests.colours import NAMES, colour_picture
from tests.data.epoch_folders import epoch_folders
from tests.docs.test_pages import NAMED, begun, finished, with_blocks, workshop  # noqa: F401 - fixtures
from tests.remote.certificates import Authority
from tests.remote.kserve import VENV, Served, why_not
from tests.remote.triton import free_ports
from tests.stream.sinks.test_mqtt import BROKER, Broker
from tests.stream.sources.mjpeg import mjpeg_camera

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import generated  # noqa: E402

RUN = re.compile(r"^```(sh|bash)\n(.*?\n)```", re.M | re.S)
SHELL = re.compile(r"^```sh\n(.*?\n)```", re.M | re.S)

NOT_RUN = {
    r"make demo": "a step of .ci/run",
    r"tinysaver-edge quickstart": "it takes torch and the package index: make test-export",
    r"tinysaver-edge models (export|quantize)": "it takes torch or nncf: make test-export",
    r"ray start|tinysaver-edge calibrate .*--on ray": "make test-servers",
    r"tinysaver-edge plan .*--epochs": "it takes the records of epochs: tests/plan",
    r"tinysaver-edge calibrate --from": "it takes hours of film: tests/cli/test_epochs.py",
    r"tinysaver-edge calibrate --epochs .*(--questions|--answers)": "tests/cli/test_epochs.py",
    r"cat line-3": "it takes a day's frames",
    r"pipx |uv tool ": "tried by hand in November 2026, with pipx 1.18 and uv 0.13",
}
"""Commands that are not run here, and where they are."""

PATIENCE_S = 300.0
LIVE = "timeout --signal=INT 5 "
"""A camera never ends; whoever has seen enough presses Ctrl-C."""


class World:
    """What stands for a reader's camera, broker and host, and how commands change by it."""

    def __init__(self, stack: ExitStack, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch, self._stack = folder, scratch, stack
        self.camera = f"127.0.0.1:{stack.enter_context(mjpeg_camera())}"
        self._hosts: dict[bool, str] = {}
        ports = free_ports(2)
        self._changes = [
            (r"rtsp://\S*?/\w+", f"http://{self.camera}/stream.mjpg"),
            (r"(--source (?:\w+=)?)(?:0|/dev/video\d)(?=\s|$)", rf"\1http://{self.camera}/s.mjpg"),
            (r"http://camera/", f"http://{self.camera}/"),
            (r"--for \d+d", "--for 6s"),
            (r"--frames \d+", "--frames 24"),
            (r"--number \d+", "--number 2"),
            (r"--epochs \d+s", "--epochs 1s"),
            (r"--sustained \d+", "--sustained 2"),
            (r"127\.0\.0\.1:8080", f"127.0.0.1:{ports[0]}"),
            (r"127\.0\.0\.1:9464", f"127.0.0.1:{ports[1]}"),
            (r"(?<=calibrate )(.*)--data (frames|field)/", r"\1--data ready/"),
            (r"--epochs (epochs|clips)/", "--independent --epochs ready-epochs/"),
            (r"--epochs more/", "--epochs more-epochs/"),
            (r"spans\.csv", "ready-epochs.csv"),
            (r"more\.csv", "more-epochs.csv"),
            (r"0\.0\.0\.0:8077|127\.0\.0\.1:8077", "127.0.0.1:0"),
            (r"'?s3://bucket/(images|train-\S+)", "images"),
            (r"https://collect.example/", "forwarded/"),
            (r"https://files.example/belt:stable", "shelf/belt:canary"),
            (r"/var/lib/belt", "belt"),
            (r"/etc/tinysaver/token", str(scratch / "token")),
            (r"--max-drop \S+", "--max-drop 10"),
            (r"pip install", f"{sys.executable} -m pip install --quiet --dry-run"),
            (r"(?<=')\.\[|tinysaver-edge\[", f"{ROOT}["),
        ]
        (scratch / "token").write_text("secret\n")
        (scratch / "token").chmod(0o600)

    def command(self, line: str) -> str:
        """Return a line as it is run here."""
        if "mqtt://" in line:
            broker = _broker(self.scratch)
            self._stack.callback(broker.process.kill)
            line = line.replace("mqtt://broker", f"mqtt://127.0.0.1:{broker.port}")
        if "--large grpc" in line:
            line = re.sub(r"grpcs?://\S+", self._host(tls="grpcs" in line), line)
            line = line.replace("--large-ca ca.pem", f"--large-ca {self.scratch}/ca/ca.pem")
        for old, new in self._changes:
            line = re.sub(old, new, line)
        if "tinysaver-edge calibrate" in line and "max-drop" not in line:
            line += " --max-drop 10"
        asks = "--ask" in line.split()
        line = re.sub(r"^(TINYSAVER_\w+=\S+ )", r"env \1", line)
        return f"{LIVE}{line}" if asks or self._never_ends(line) else line

    def _never_ends(self, line: str) -> bool:
        return "tinysaver-edge run " in line and (self.camera in line or "demo://" in line)

    def _host(self, *, tls: bool) -> str:
        if tls in self._hosts:
            return self._hosts[tls]
        if (reason := why_not()) is not None:
            pytest.skip(reason)
        options: tuple[object, ...] = ()
        if tls:
            authority = Authority(self.scratch / "ca")
            certificate, key = authority.certificate("host", "localhost")
            options = ("--tls-cert", certificate, "--tls-key", key)
        folder = self.scratch / f"host{tls:d}"
        folder.mkdir()
        served = Served(
            folder, self.folder / "bundle", "--name", "large", *map(str, options), http=False
        )
        self._stack.callback(served.stop)
        served.start()
        scheme, name = ("grpcs", "localhost") if tls else ("grpc", "127.0.0.1")
        return self._hosts.setdefault(tls, served.url(scheme=scheme, host=name))


def _broker(folder: Path) -> Broker:
    if BROKER is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    return Broker(folder)


@pytest.fixture
def world(page, finished, tmp_path) -> Iterator[World]:  # noqa: F811
    folder = begun(page, finished, tmp_path / "folder")
    (folder / "ready").mkdir()
    for number in range(600):
        name = f"{NAMES[number % len(NAMES)]}-{number:04d}.png"
        cv2.imwrite(str(folder / "ready" / name), colour_picture(number % len(NAMES), 9 + number))
    epoch_folders(folder / "ready-epochs", count=90)
    epoch_folders(folder / "more-epochs", count=12, seed=5)
    for name in ("video", "monday", "tuesday"):
        film(folder / f"{name}.mp4")
    table(folder)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "tinysaver-edge"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tinysaver_edge "$@"\n')
    program.chmod(0o755)
    with ExitStack() as stack:
        yield World(stack, folder, tmp_path)


def film(path: Path) -> None:
    """Write a short video."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for number in range(100):
        writer.write(colour_picture(number // 25, number, size=64)[:48])
    writer.release()


def table(folder: Path) -> None:
    """Write a table of images that names the clip of each: two frames a clip."""
    rows = []
    for label, name in enumerate(NAMES):
        rows += [
            (one.relative_to(folder).as_posix(), label, f"{name}{number // 2}")
            for number, one in enumerate(sorted((folder / "images" / name).iterdir()))
        ]
    with (folder / "frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "clip"), *rows])


def answer(path: Path) -> None:
    """Fill in a table of questions as somebody does who knows the classes."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        truth = Path(row["file"]).name.split("-")[0]
        row["answer"] = next((side for side in "ab" if row[side] == truth), "neither")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def lines(page: str) -> list[tuple[str, str]]:
    """Each line of a page's blocks, joined where it ends with a backslash, and its block's kind."""
    found = []
    for kind, block in RUN.findall(NAMED[page].read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            told = re.split(r"\s{2,}#|^#", line)[0].strip()
            if told:
                found.append((kind, re.sub(r"\s+", " ", told)))
    return found


@pytest.mark.slow
@pytest.mark.skipif("TINYSAVER_ALL_PAGES" not in os.environ, reason="make test-docs runs these")
@pytest.mark.parametrize("page", with_blocks(SHELL))
def test_what_a_page_says_to_type_runs_with_stand_ins(page, world):
    path = os.pathsep.join([str(world.scratch / "bin"), os.environ["PATH"]])
    if recipe := re.search(r"^```toml\n(.*?)^```", NAMED[page].read_text("utf-8"), re.M | re.S):
        (world.folder / "line.toml").write_text(recipe[1])
    for _, line in lines(page):
        if any(re.match(pattern, line) for pattern in NOT_RUN):
            continue
        if line.startswith("tinysaver-edge serve"):
            assert why_not() is None or VENV, line  # `_host` serves the same bundle
            continue
        asked = world.command(line)
        done = subprocess.run(
            ["bash", "-c", asked], cwd=world.folder, capture_output=True, text=True,
            timeout=PATIENCE_S, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        ended = {0, 124, 130} if asked.startswith(LIVE) else {0}
        if "--trace" in line and "record longer" in done.stderr:
            ended = {2}  # seconds stand for days here
        assert done.returncode in ended, f"{line}\nas {asked}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        if "--questions ask.csv" in line:
            answer(world.folder / "ask.csv")


def test_no_command_is_left_in_a_block_that_nothing_runs():
    """A command stands in a fenced block, ```bash or ```sh, or in the middle of a sentence."""
    for page, path in NAMED.items():
        text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
        stray = [line for line in text.splitlines() if re.match(r" {4}(tinysaver-edge|pip) ", line)]
        assert stray == [] or page in (*generated.MADE, "howto/use-ros-2.md"), f"{page}: {stray}"
