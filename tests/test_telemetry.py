"""No command sends a packet, looks a name up or leaves a file of an engine's telemetry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from tests.colours import DESCRIPTION, LARGE, SAVER, colour_folders, colour_model
from tests.command import PROGRAM, ROOT
from tests.silent_network import Heard
from tinysaver_edge.cli import cli

pytestmark = pytest.mark.slow

TOLD_OPENLY = (
    "import sys, time; from tinysaver_edge._support.packages import import_engine\n"
    "engine = import_engine(sys.argv[1])\n"
    "if sys.argv[1] == 'onnxruntime': engine.InferenceSession(sys.argv[2])\n"
    "else: engine.Core()\n"
    "time.sleep(8)\n"
)


def why_not() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "no unshare or ip: apt install util-linux iproute2"
    made = subprocess.run(
        [*UNSHARE, "sh", "-c", "ip link set lo up && exec 3<>/dev/net/tun"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return None if made.returncode == 0 else f"no namespaces here: {made.stderr.strip()}"


UNSHARE = ("unshare", "--map-root-user", "--net", "--mount")


def listen(folder: Path, commands: list[tuple[list[str], dict[str, str]]]) -> list[Heard]:
    folder.mkdir(exist_ok=True)
    asked = [{"command": command, "more": more} for command, more in commands]
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.silent_network", folder],
        cwd=ROOT, input=json.dumps(asked), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Heard(**one) for one in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("silent")
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "images", each=20)
    return folder


def commands(at: Path) -> list[tuple[str, int]]:
    """Every command with a few arguments, and the code it ends with."""
    big, tiny, images, bundle = (at / one for one in ("big.onnx", "tiny.onnx", "images", "bundle"))
    (at / "names.txt").write_text("\n".join(path.name for path in sorted(images.iterdir())))
    return [
        (f"calibrate --data {images} --large {big} --saver {tiny} --method empirical"
         f" --max-drop 9 --independent --out {bundle}", 0),
        (f"measure --data {images} --large {big} --saver {tiny} --no-timing"
         f" --out {at / 'records'}", 0),
        (f"collect --source demo://?fps=30 --for 1s --frames 2 --out {at / 'frames'}", 0),
        (f"quickstart imagenet --wheels {at} --out {at / 'models'}", 2),
        (f"evaluate {bundle} --data {images}", 0),
        (f"run {bundle} --source {images} --quiet", 0),
        (f"compare {bundle}", 0),
        (f"verify {bundle}", 0),
        (f"bundle labels {bundle} {at / 'names.txt'}", 2),
        (f"bundle key {at / 'key.pem'}", 0),
        (f"bundle sign {bundle} --key {at / 'key.pem'}", 0),
        (f"bundle push {bundle} {at / 'shelf'}:stable", 0),
        (f"bundle pull {at / 'shelf'}:stable {at / 'pulled'}", 0),
        (f"bench {bundle} --runs 3 --seconds 0.1", 0),
        (f"plan {bundle} --cameras 2 --fps 5 --uplink 20mbit --hosts 1", 0),
        ("models list --max-gmacs 0.1", 0),
        (f"models describe {big}", 0),
        (f"models check {big}", 0),
        (f"models profile {big}", 0),
        (f"models quantize {big} --data {images} --out {at / 'int8.onnx'}"
            " --calibration-samples 60", 0),
        (f"models export resnet18 --out {at / 'made.onnx'}", 2),
        ("devices list", 0),
        ("devices show raspberry-pi-5", 0),
        (f"devices new mine --out {at / 'mine.toml'}", 0),
        ("devices probe", 0),
        (f"bench {big} --engine onnxruntime --runs 3 --seconds 0.1", 0),
        (f"bench {big} --engine openvino --runs 3 --seconds 0.1 --no-throughput", 0),
        (f"deploy {bundle} --target triton --out {at / 'triton'}", 0),
        (f"serve {bundle} --tls-cert {at / 'none.pem'} --tls-key {at / 'none.pem'}", 2),
        ("doctor", 0),
        (f"demo --seconds 1 --out {at / 'demo'}", 0),
    ]  # fmt: skip


def leaves(command: click.Command, context: click.Context, before: str = "") -> set[str]:
    if not isinstance(command, click.Group):
        return {before.strip()}
    return {
        leaf
        for name in command.list_commands(context)
        for leaf in leaves(command.get_command(context, name), context, f"{before} {name}")
    }


def test_the_table_has_every_command(folder: Path) -> None:
    told = leaves(cli, click.Context(cli))
    lines = [f"{line} " for line, _ in commands(folder)]
    absent = {one for one in told if not any(line.startswith(f"{one} ") for line in lines)}
    assert absent == set()


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[tuple[str, bool], Heard]:
    """What each engine reports where it is asked to and where not; they mostly wait: at once."""
    engines = [one for one in ("onnxruntime", "openvino") if find_spec(one) is not None]
    kinds = [(engine, openly) for engine in engines for openly in (True, False)]

    def one(kind: tuple[str, bool]) -> Heard:
        engine, openly = kind
        asked = ["-c", TOLD_OPENLY, engine, str(folder / "big.onnx")]
        more = {"TINYSAVER_ENGINE_TELEMETRY": "1"} if openly else {}
        return listen(folder / f"{engine}-{openly}", [(asked, more)])[0]

    with ThreadPoolExecutor(len(kinds)) as at_once:
        return dict(zip(kinds, at_once.map(one, kinds), strict=True))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_engines_report_would_be_heard(
    told: dict[tuple[str, bool], Heard], engine: str
) -> None:
    pytest.importorskip(engine)
    openly, silent = told[engine, True], told[engine, False]
    assert openly.names or openly.packets or openly.files
    assert (silent.code, silent.names, silent.packets, silent.files) == (0, [], [], [])


def test_no_command_reports_anything(folder: Path) -> None:
    table = commands(folder)
    more = {"TINYSAVER_KEY_PASSWORD": ""}
    heard = listen(folder, [(["-c", PROGRAM, *line.split()], more) for line, _ in table])
    pairs = list(zip(table, heard, strict=True))
    assert [(line, one) for (line, code), one in pairs if one.code != code] == []
    assert [(line, one) for (line, _), one in pairs if one.names or one.packets] == []
    ours = ".cache/tinysaver-edge/"  # the engines that were chosen, models that were compiled
    left = {file for one in heard for file in one.files if not file.startswith(ours)}
    assert left == set()
