"""The report in a real browser: no complaint, no request, no sideways scrolling, words that fit."""

from __future__ import annotations

import functools
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.report.world import finished, problem
from tests.chromium import Chromium, needs_chromium
from tests.pictures import class_folders
from tinysaver_edge.calibrate.report import write_report
from tinysaver_edge.calibrate.targets import Targets
from tinysaver_edge.data.files import open_data
from tinysaver_edge.latency import LatencySamples

pytestmark = [needs_chromium, pytest.mark.slow]

LONG = "a class whose name_goes_on_and_on_without_a_place_to_break_it_anywhere_at_all"

MODEL = "saver_patch4_window7_224.with_weights_of_a_long_name_in22k_ft_in1k"

WORDS_OUTSIDE = """
[...document.querySelectorAll('svg.chart')].filter(one => one.getClientRects().length).flatMap(
  chart => { const box = chart.getBoundingClientRect();
    return [...chart.querySelectorAll('text')].filter(text => {
      const words = text.getBoundingClientRect();
      return words.left < box.left - 2 || words.right > box.right + 2 || words.top < box.top - 2
        || words.bottom > box.bottom + 2; }).map(text => text.textContent); })
"""

WORDS_OVER_WORDS = """
[...document.querySelectorAll('svg.chart')].filter(one => one.getClientRects().length).flatMap(
  chart => { const words = [...chart.querySelectorAll('text')].map(
      text => [text.textContent, text.getBoundingClientRect()]);
    return words.flatMap(([one, a], index) => words.slice(index + 1).filter(([other, b]) =>
      a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom
    ).map(([other]) => one + ' / ' + other)); })
"""

SMALLEST_WORDS = """
Math.min(...[...document.querySelectorAll('svg.chart text')]
  .filter(one => one.getClientRects().length)
  .map(one => parseFloat(getComputedStyle(one).fontSize)
     * one.ownerSVGElement.getBoundingClientRect().width
     / one.ownerSVGElement.viewBox.baseVal.width))
"""


def renamed(given):
    """The same models with names such as people give them."""
    savers = (replace(one, name=f"{one.name}_{MODEL}") for one in given.savers)
    return replace(given, savers=tuple(savers))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    names = ["a", "b", "c"]
    with open_data(class_folders(folder / "data", classes=names, each=1000)) as data:
        facts = finished(
            renamed(problem(3000, classes=30)),
            holdout=renamed(problem(500, seed=4)),
            targets=Targets(max_drop_points=3),
        ).facts(
            data=data,
            sample_index=np.arange(3000),
            label_names=[f"{LONG} {number}" for number in range(30)],
            command=f"tinysaver-edge calibrate --data {LONG} --max-drop 3",
        )
    assert facts.proof is not None
    assert len(facts.pictures) == 24
    write_report(facts, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 800, 1200])
def test_it_loads_without_a_word_and_fits(browser, report, width, dark):
    browser.console.clear()
    browser.requests.clear()
    browser.open(report.as_uri(), width=width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(WORDS_OUTSIDE) == []
    assert browser.value(WORDS_OVER_WORDS) == []
    assert browser.value(SMALLEST_WORDS) >= 10
    pictures = "[...document.images].every(one => one.complete && one.naturalWidth > 0)"
    assert browser.value(pictures) is True
    assert browser.console == []
    assert [one for one in browser.requests if not one.startswith("data:")] == [report.as_uri()]


TOO_WIDE_TABLES = """
[...document.querySelectorAll('.scroll')]
  .filter(one => one.querySelector('table.cards') && one.scrollWidth > one.clientWidth)
  .map(one => one.getAttribute('aria-label'))
"""

CELLS_OVER_THEIR_EDGE = """
[...document.querySelectorAll('table.cards td')]
  .filter(one => one.getClientRects().length && one.scrollWidth > one.clientWidth + 1)
  .map(one => one.textContent)
"""

OUT_OF_SIGHT = """
[...document.querySelectorAll('section:last-of-type dl.words dd')]
  .filter(one => !one.getClientRects().length).length
"""


@pytest.mark.parametrize("width", [400, 1200])
def test_twelve_timed_candidates_are_read_without_scrolling(browser, tmp_path, width):
    given = problem(600)
    savers = tuple(
        replace(
            given.savers[place % 3],
            name=f"candidate_{place}_{MODEL}",
            macs=1e7 * (place + 1),
            latency=LatencySamples(np.array([100.0])),
        )
        for place in range(12)
    )
    large = replace(given.large, latency=LatencySamples(np.array([1000.0])))
    done = finished(replace(given, large=large, savers=savers), methods=True)
    write_report(done.facts(), tmp_path / "report.html")
    browser.open((tmp_path / "report.html").as_uri(), width=width)
    assert browser.value("document.querySelectorAll('table.cards td.name').length") == 12
    assert browser.value(TOO_WIDE_TABLES) == []
    assert browser.value(OUT_OF_SIGHT) == 0
    assert browser.value(CELLS_OVER_THEIR_EDGE) == []


def test_on_paper_no_table_is_cut_and_every_word_is_explained(browser, report):
    browser.open(report.as_uri(), width=718)  # A4 within its margins
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("document.documentElement.scrollWidth") <= 718
        assert browser.value(OUT_OF_SIGHT) == 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_one_width_of_each_chart_is_shown(browser, report):
    charts = "[...document.querySelectorAll('svg.chart.%s')]"
    count = f"{charts}.filter(one => one.getClientRects().length).length"
    for width, there, hidden in ((390, "narrow", "wide"), (1200, "wide", "narrow")):
        browser.open(report.as_uri(), width=width)
        assert browser.value(count % there) == 8
        assert browser.value(count % hidden) == 0


def test_dark_is_dark(browser, report):
    colours = []
    for dark in (False, True):
        browser.open(report.as_uri(), width=390, dark=dark)
        colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    light, dark = ([int(part) for part in c[4:-1].split(",")] for c in colours)
    assert min(light) > 200 > 60 > max(dark)


def test_served_over_http_it_asks_for_nothing_else(browser, report):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(report.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_port}/report.html", width=390)
        browser.value("new Promise(done => setTimeout(done, 300))")
        server.shutdown()
    assert asked == ["/report.html"]


def test_the_check_sees_a_page_that_does_ask(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<img src='other.png'><script>console.error('no')</script><svg class='chart'></svg>"
    )
    browser.console.clear()
    browser.requests.clear()
    browser.open((tmp_path / "bad.html").as_uri(), width=390)
    assert any(one.endswith("other.png") for one in browser.requests)
    assert any("no" in one for one in browser.console)
