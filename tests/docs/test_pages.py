"""What the site tells people to type works: every ```bash block runs, every option exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from tests.colours import LARGE, MIDDLE, NAMES, SAVER, colour_folders, colour_model, colour_picture
from tests.colours import macs as macs_of
from tests.command import called
from tinysaver_edge.bundle.manifest import CertificateEntry, Manifest
from tinysaver_edge.calibrate import Certificate, WalkStep
from tinysaver_edge.cli import cli
from tinysaver_edge.decision import Decision

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
NAMED = {path.relative_to(DOCS).as_posix(): path for path in PAGES}
RUN = re.compile(r"^```bash\n(.*?\n)```", re.M | re.S)
PYTHON = re.compile(r"^```python\n(.*?\n)```", re.M | re.S)


def with_blocks(pattern: re.Pattern[str]) -> list[str]:
    return [name for name, path in NAMED.items() if pattern.search(path.read_text("utf-8"))]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """What a reader has in the folder: models, images, names, and answers of these models."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, kind in (("big", LARGE), ("tiny", SAVER), ("middle", MIDDLE)):
        colour_model(folder / f"{name}.onnx", kind)
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    colour_folders(folder / "images", each=120)
    colour_folders(folder / "other-images", each=20, seed=7)
    cv2.imwrite(str(folder / "photo.png"), colour_picture(0, 1))
    return folder


@pytest.fixture(scope="module")
def finished(workshop) -> Path:
    """The same after the tutorial's second step, for pages that begin there."""
    for model in ("big", "tiny", "middle"):
        command(
            workshop, "models", "describe", f"{model}.onnx", "--color", "RGB", "--scale", "unit",
            "--labels", "names.txt", "--out", f"{model}.toml",
        )  # fmt: skip
    command(
        workshop, "calibrate", "--data", "images/", "--large", "big.onnx", "--saver", "tiny.onnx",
        "--max-drop", "2", "--out", "bundle/", "--no-timing", "--no-report",
    )  # fmt: skip
    records(workshop)
    return workshop


def records(folder: Path) -> None:
    """Lay the measured answers out as a reader's own: logits, labels, a table of MACs."""
    (folder / "records").mkdir()
    for name in ("big", "tiny"):
        with np.load(folder / "bundle.records" / f"{name}.npz") as kept:
            np.savez(folder / "records" / f"{name}.npz", logits=kept["logits"])
    np.save(folder / "labels.npy", np.repeat(np.arange(len(NAMES)), 120))
    table = f"name,macs\nbig,{macs_of(LARGE)}\ntiny,{macs_of(SAVER)}\n"
    (folder / "models.csv").write_text(table)


def begun(page: str, finished: Path, folder: Path) -> Path:
    """Copy what a reader of a page has when he comes to it."""
    shutil.copytree(finished, folder)
    if page == "tutorials/two-models.md":  # models and images alone
        for left in ("bundle", "bundle.records", "records"):
            shutil.rmtree(folder / left)
        for description in folder.glob("*.toml"):
            description.unlink()
    if page == "tutorials/demo.md":
        shutil.copytree(folder / "bundle", folder / "demo-bundle")
    return folder


def command(folder: Path, *arguments: str) -> None:
    """Run one command as a reader would; what it says is shown where it fails."""
    with pytest.MonkeyPatch.context() as there:
        there.chdir(folder)
        done = called(*arguments)
    assert done.code == 0, f"{shlex.join(arguments)}\n{done.out}{done.err}"


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a text, lines that end with a backslash joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("tinysaver-edge "):
            yield shlex.split(line.split("   #")[0], comments=True)[1:]


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("page", with_blocks(RUN))
def test_what_a_page_says_to_type_runs(page, finished, tmp_path):
    folder = begun(page, finished, tmp_path / "folder")
    told = "".join(RUN.findall(NAMED[page].read_text("utf-8")))
    lines = list(commands(told))
    assert len(lines) == len(told.splitlines()), "a block holds more than commands"
    for words in lines:
        command(folder, *words)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks(PYTHON))
def test_the_programs_of_a_page_run(page, finished, monkeypatch):
    monkeypatch.chdir(finished)
    for program in PYTHON.findall(NAMED[page].read_text("utf-8")):
        names = {"frame": colour_picture(2, 5)}
        exec(compile(program, page, "exec"), names)


@pytest.mark.slow
def test_the_programs_have_their_types(tmp_path):
    begin = "import numpy as np\nfrom numpy.typing import NDArray\n\nframe: NDArray[np.uint8]\n"
    for number, page in enumerate(with_blocks(PYTHON)):
        for place, program in enumerate(PYTHON.findall(NAMED[page].read_text("utf-8"))):
            (tmp_path / f"page{number}_{place}.py").write_text(begin + program)
    (shown,) = PYTHON.findall((DOCS.parent / "README.md").read_text("utf-8"))
    (tmp_path / "readme.py").write_text(shown)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, tmp_path.glob("*.py"))],
        cwd=DOCS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", NAMED)
def test_every_command_and_option_of_a_page_exists(page):
    text = NAMED[page].read_text("utf-8")
    inline = re.findall(r"`(tinysaver-edge [^`]+)`", text)
    indented = "\n".join(
        line.strip() for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")
    )
    for words in commands("\n".join([*inline, indented, *RUN.findall(text)])):
        found: click.Command = cli
        context = click.Context(cli)
        while isinstance(found, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            inner = found.get_command(context, name)
            assert inner is not None, f"{page}: there is no command {name!r}"
            found = inner
        known = {flag for one in found.params for flag in (*one.opts, *one.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                flag = word.split("=")[0].rstrip("…,;.")
                assert flag in known | {"--help"}, f"{page}: {found.name} has no {flag}"


def fields_of(page: str) -> set[str]:
    """What the first column of a page's tables names."""
    cells = re.findall(r"^\| (`[^|]+) \|", NAMED[page].read_text("utf-8"), re.M)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("reference/certificate-format.md", (CertificateEntry, Certificate, WalkStep)),
        ("reference/decision.md", (Decision,)),
        ("reference/bundle.md", (Manifest,)),
    ],
    ids=["certificate", "decision", "bundle"],
)
def test_a_page_has_every_field_and_no_other(page, kinds):
    known = {
        name
        for kind in kinds
        for name in (getattr(kind, "model_fields", None) or kind.__dataclass_fields__)
    }
    text = NAMED[page].read_text("utf-8")
    assert [name for name in sorted(known) if f"`{name}`" not in text] == []
    packed = {"order", "taken_at"}  # as they are written, not as they are kept
    files = {"bundle.json", "seen.npy", "bundle.sig.json"}
    assert fields_of(page) - known - packed - files == set()
