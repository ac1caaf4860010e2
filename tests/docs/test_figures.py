"""Figures of README and pages are what `benchmarks/results` shows, and fail where it does not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import generated  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FIGURE = re.compile(r"(?<![\w.,-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)")
BENCHMARK = re.compile(r"\bbench_\w+")
PROSE = [
    path
    for path in [ROOT / "devices" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts and path.name != "benchmarks.md"
]
OURS = {  # figures of a benchmark's settings, or of the rules, which no result prints
    "docs/certificate.md": {"5", "20", "10", "40000", "15", "18", "8", "3", "0.2"},
    "docs/questions.md": {"5", "0.1"},
    "docs/howto/millions-of-pictures.md": {"8"},
    "docs/reuse.md": {"1", "0.1", "300", "40", "0.25", "12"},
    "docs/security.md": {"250", "300"},
}


def plain(text: str) -> list[str]:
    """The figures of a text, without commas."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv \S+", " ", text)
    return [one.replace(",", "") for one in FIGURE.findall(text)]


def lines_and_columns(name: str) -> Iterator[set[str]]:
    """What each line of a benchmark's result shows, and each column of its tables."""
    told = RESULTS / f"{name}.md"
    if not told.is_file():
        yield {str(one) for one in _numbers(json.loads((RESULTS / f"{name}.json").read_text()))}
        return
    columns: list[set[str]] = []
    for line in told.read_text("utf-8").splitlines():
        cells = [set(plain(cell)) for cell in line.split("|")]
        yield set().union(*cells)
        if not line.startswith("|"):
            yield from columns
            columns = []
            continue
        columns += [set() for _ in range(len(cells) - len(columns))]
        for column, cell in zip(columns, cells, strict=False):
            column |= cell
    yield from columns


def _numbers(value: object) -> Iterator[float | int]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value


def measured_rows(readme: str) -> list[tuple[str, str, str]]:
    """What is measured, the figures, and the benchmark, of each row of the README's table."""
    section = readme.partition("## What was measured")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if "bench_" in line]
    return [(what, figures, BENCHMARK.search(by)[0]) for what, figures, by in rows]


def unfounded(figures: str, name: str) -> list[str]:
    """The groups of figures, parted by semicolons, that no line and no column shows."""
    shown = list(lines_and_columns(name))
    return [
        group
        for group in figures.split(";")
        if not any(set(plain(group)) <= one for one in shown) or not plain(group)
    ]


README = measured_rows((ROOT / "README.md").read_text("utf-8"))


def test_the_readme_fits_on_a_screen_and_a_half():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(program.splitlines()) == 10
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 3
    for name in pictures:
        assert (ROOT / name).stat().st_size <= 150_000
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / link).exists(), link


def test_the_readme_shows_six_things_that_were_measured():
    assert len(README) == 6


@pytest.mark.parametrize(("what", "figures", "name"), README, ids=[row[2] for row in README])
def test_a_figure_of_the_readme_is_one_that_was_measured(what, figures, name):
    assert unfounded(figures, name) == []
    for one in plain(figures):  # and none that was not: any other last digit is found out
        wrong = one[:-1] + str((int(one[-1]) + 5) % 10)
        pattern = re.sub(r"(?<=\d)(?=(?:\d{3})+$)", ",?", re.escape(one))
        assert unfounded(re.sub(pattern, wrong, figures, count=1), name), (one, wrong)


def test_a_figure_of_a_page_that_names_its_benchmark_is_in_its_result():
    stray = []
    for path in PROSE:
        text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
        for block in re.split(r"\n\s*\n|\n(?=[-|] )", text):
            names = {
                name for name in BENCHMARK.findall(block) if (RESULTS / f"{name}.json").is_file()
            }
            if not names:
                continue
            known = set().union(*(shown for name in names for shown in lines_and_columns(name)))
            ours = OURS.get(path.relative_to(ROOT).as_posix(), set())
            stray += [
                f"{path.relative_to(ROOT)}: {one}"
                for one in plain(block)
                if one not in ours and not any(rounds(known_one, one) for known_one in known)
            ]
    assert stray == []


def rounds(known: str, shown: str) -> bool:
    """Whether a figure is another one, or that as a percentage, or what it leaves of 1, rounded."""
    places, value = len(shown.partition(".")[2]), float(known)
    said = (value, 100 * value, 100 * (1 - value), 100 * (value - 1))
    return any(f"{one:.{places}f}" == shown for one in said)


def test_the_page_of_benchmarks_is_made_of_the_results_alone():
    page = generated._benchmarks(ROOT)
    for path in RESULTS.rglob("*.md"):
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("|"):
                assert line in page, path.name
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"/docs/{name}" for name in generated.MADE} <= set(ignored)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.md")), ids=lambda path: path.stem)
def test_the_command_of_a_result_is_one_that_there_is(path):
    named = re.findall(r"`(?:chrt -r \d+ )?python (benchmarks/\S+\.py)", path.read_text("utf-8"))
    assert [one for one in named if not (ROOT / one).is_file()] == []
