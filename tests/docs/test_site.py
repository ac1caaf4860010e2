"""The site as it is built: links, a phone, no network, and the questions of a stranger."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urlparse

import pytest

from tests.chromium import Chromium, needs_chromium

ROOT = Path(__file__).resolve().parents[2]
PHONE, DESK = 390, 1280
BUILT_WITHIN_S = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("furo") is None, reason="no furo: make docs installs it"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built strictly as `make docs` does, from nothing."""
    folder: Path = tmp_path_factory.mktemp("site")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
         "-d", folder / "trees", ROOT / "docs", folder / "html"],
        capture_output=True, text=True,
    )  # fmt: skip
    taken_s = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert taken_s <= BUILT_WITHIN_S * float(os.environ.get("TINYSAVER_PATIENCE", "1"))
    return folder / "html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


class Page(HTMLParser):
    """What a page links to, what it can be linked at, and its headings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.places.update(value for key in ("id", "name") if (value := told.get(key)))
        for key in ("href", "src"):
            if (value := told.get(key)) and tag != "link":
                self.links.append(value)


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_somewhere_and_every_page_is_led_to(site, pages):
    reached: set[Path] = {site / name for name in ("search.html", "genindex.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if urlparse(link).scheme:
                continue
            target, anchor = urldefrag(link)
            file = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            if not file.exists():
                broken.append(f"{path.name}: {link}")
            elif anchor and file in pages and unquote(anchor) not in pages[file].places:
                broken.append(f"{path.name}: no such place {link}")
            elif file != path:
                reached.add(file)
    assert broken == []
    assert set(pages) - reached == set()


def test_every_page_is_there_as_markdown_and_listed(site, pages):
    listed = (site / "llms.txt").read_text("utf-8")
    for path in pages:
        name = path.relative_to(site).with_suffix(".md").as_posix()
        if name not in ("search.md", "genindex.md"):
            assert (site / name).is_file()
            assert f"({name})" in listed
    assert "- The large model's accuracy is far too low" in listed  # what one sees, too


def test_examples_of_the_command_line_can_be_copied(site, pages):
    cli = (site / "reference" / "cli.html").read_text("utf-8")
    shown = re.findall(r"<pre>(.*?)</pre>", cli, re.S)
    programs = [html.unescape(re.sub(r"<[^>]+>", "", one)) for one in shown]
    assert any("tinysaver-edge run bundle/ --source video.mp4 --json" in one for one in programs)
    for path in pages:  # two dashes made one: what is copied is no option any more
        assert not re.search(r"[\s(>]–\w", path.read_text("utf-8")), path.name


@needs_chromium
def test_pages_are_readable_on_a_phone_and_ask_for_nothing(site, pages, browser):
    for path in pages:
        browser.open(path.as_uri(), width=PHONE, height=844)
        width = browser.value("document.documentElement.scrollWidth")
        assert width <= PHONE, f"{path.name} is {width} wide"
        size = browser.value(
            "parseFloat(getComputedStyle(document.querySelector('article p') || document.body)"
            ".fontSize)"
        )
        assert size >= 14, path.name
    assert browser.console == []
    assert [one for one in browser.requests if not one.startswith(("file:", "data:"))] == []


QUESTIONS = [
    (
        "It says exit code 3 and something about 644. How many images do I need?",
        "how many images", "troubleshooting.html",
        "exit-code-3-at-best-644-too-few-images", "some thousands",
    ),
    (
        "My large model was at 80 % in training; here it is at 11 %. What is wrong?",
        "large model accuracy low", "troubleshooting.html",
        "the-large-model-s-accuracy-is-far-too-low", "models check big.onnx --data images/",
    ),
    (
        "The dashboard shows what happened seconds ago. Why?",
        "frames seconds old", "troubleshooting.html",
        "frames-are-seconds-old", "#threads=1",
    ),
    (
        "No answer is certified, though calibrate signed it.",
        "certified false", "troubleshooting.html",
        "certified-is-false-everywhere", "verify bundle/",
    ),
    (
        "What do my cameras get when the network to the GPU box is down?",
        "network dies", "howto/survive-outages.html",
        "decide-what-happens-when-the-network-dies", "effective drop",
    ),
    (
        "I have a camera and nobody who labels anything.",
        "camera without labels", "tutorials/camera-without-labels.html",
        "collect", "tinysaver-edge collect",
    ),
    (
        "The camera's password has an @ in it and the address is refused.",
        "password with @", "troubleshooting.html",
        "an-address-in-which-it-is-not-clear-where-the-host-begins-a-password-with-or", "%40",
    ),
    (
        "verify says DIFFERS on the device.",
        "verify differs", "troubleshooting.html",
        "verify-decoder-or-pixels-differs", "same OpenCV",
    ),
    (
        "It has to answer within 20 ms.",
        "limit time", "howto/keep-a-budget.html",
        "keep-a-limit-of-time-work-memory-energy-or-uplink", "p95_latency_ms",
    ),
    (
        "There was a drift alarm over night. What now?",
        "drift alarm", "howto/answer-a-drift-alarm.html",
        "answer-a-drift-alarm", "--reference large",
    ),
    (
        "Which models could I start with? I have none.",
        "no models", "troubleshooting.html",
        "i-have-no-models", "quickstart imagenet",
    ),
]  # fmt: skip
"""What a stranger asks, types into the search, and must find among its first three results."""

FOUND = """
[...document.querySelectorAll('#search-results li a')].slice(0, 3).map(a => a.getAttribute('href'))
"""
DONE = "/^Search finished/.test(document.querySelector('.search-summary')?.textContent)"


@needs_chromium
@pytest.mark.parametrize(
    ("typed", "page", "place", "answer"), [one[1:] for one in QUESTIONS], ids=lambda x: x[:20]
)
def test_a_stranger_finds_the_answer(site, pages, browser, typed, page, place, answer):
    browser.open(f"{(site / 'search.html').as_uri()}?q={quote(typed)}", width=DESK)
    browser.until(DONE)
    first = browser.value(FOUND)
    assert page in [urldefrag(one)[0].partition("?")[0] for one in first], first
    assert place in pages[site / page].places
    browser.open(f"{(site / page).as_uri()}#{place}", width=DESK)
    told = browser.value(f"document.getElementById({place!r}).innerText")
    assert answer in told
    assert page.replace(".html", ".md") in (site / "llms.txt").read_text("utf-8")
