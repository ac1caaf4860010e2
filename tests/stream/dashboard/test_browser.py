"""The dashboard in a real browser: alive, without a complaint, nothing asked of anyone else."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from tests.chromium import OVERFLOWING, WORDS_OVER_WORDS, Chromium, needs_chromium
from tests.stream.dashboard.world import ALARM, CALM, Hosts, five_minutes
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge.stream.dashboard import Dashboard
from tinysaver_edge.stream.telemetry.events import Lost, Reconnected

pytestmark = [needs_chromium, pytest.mark.slow]

TOKEN = "a long enough token"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@contextmanager
def served(world, **options):
    address = ListenAddress.parse("127.0.0.1:0", option="--dashboard")
    with Dashboard(world.state, address, **options) as one:
        yield one


def text(browser, selector):
    return browser.value(f"document.querySelector('{selector}').innerText")


def opened(browser, url, *, width=1280, dark=False):
    browser.open("about:blank", width=width)  # the page before goes on asking its server
    browser.console.clear()
    browser.requests.clear()
    browser.open(url, width=width, dark=dark)
    browser.until("document.querySelector('#answers svg') && !picture.hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_it_fits_every_screen_and_asks_nobody_else(browser, width, dark):
    with served(five_minutes(drift=ALARM, hosts=Hosts())) as one:
        opened(browser, one.url, width=width, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(OVERFLOWING) == []
        assert browser.value(WORDS_OVER_WORDS) == []
        browser.until("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        assert browser.console == []
        hosts = {one.split("/")[2] for one in browser.requests if not one.startswith("blob:")}
        assert hosts == {one.url.removeprefix("http://")}


def test_it_says_what_the_stream_says(browser):
    world = five_minutes(drift=CALM)
    with served(world) as one:
        opened(browser, one.url)
        told = world.state.snapshot()
        share = told["totals"]["accepted"] / sum(told["totals"].values())
        assert text(browser, "#accepted") == f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
        assert text(browser, "#state") == "2 sources give frames"
        assert "5 of 214 audited answers differed (2.3\N{NO-BREAK SPACE}%)" in text(
            browser, "#drift"
        )
        assert "No alarm" in text(browser, "#drift")
        assert text(browser, "#latency tr:first-child td:last-child") == "2000"
        assert browser.value("document.querySelectorAll('#thumbnails img').length") == 12
        assert "yard: back after 12.0 s" in text(browser, "#events")
        assert browser.value("document.querySelectorAll('#answers rect.accepted').length") > 100


def test_an_alarm_is_seen(browser):
    with served(five_minutes(drift=ALARM)) as one:
        opened(browser, one.url)
        assert "Alarm: 12 of 40 audited answers of yard differed" in text(browser, "#drift")
        assert "All in all 31 of 1259 audited answers differed" in text(browser, "#drift")
        assert "Threshold raised to 0.9125" in text(browser, "#drift")
        assert browser.value("document.querySelector('#drift .meter').className") == "meter alarm"


def test_what_is_left_of_the_promise_is_told_and_by_whom_it_is_kept(browser):
    world = five_minutes(hosts=Hosts())
    space = "\N{NO-BREAK SPACE}"
    with served(world) as one:
        opened(browser, one.url)
        kept = world.state.snapshot()["promise"]["all"]
        bound = kept["effective_drop_points"]
        said = text(browser, "#promise")
        assert f"At most {bound:.2f}{space}points" in said
        low, high = kept["expected_low_points"], kept["expected_high_points"]
        assert (low is None) == ("expected" not in said)
        if low is not None:
            assert f"between {low:.2f} and {high:.2f}{space}points expected" in said
        assert f"Certified: at most 0.50{space}points" in said
        assert "Last five minutes" not in said  # it runs for less than that
        world.run(20)
        browser.until("promise.innerText.includes('Last five minutes: at most')")
        rows = [text(browser, f"#hosts tr:nth-child({row})") for row in (1, 2)]
        assert "in use" in rows[0]
        assert "asked" in rows[0]
        assert "left alone" in rows[1]
        assert f"9 retries, 181.0{space}MB up" in text(browser, "#traffic")
    with served(five_minutes()) as one:
        opened(browser, one.url)
        assert browser.value("remote.hidden && !promised.hidden")


def test_a_stream_without_a_watch_says_so(browser):
    with served(five_minutes(drift=None)) as one:
        opened(browser, one.url)
        assert text(browser, "#drift") == "Not watched."


def test_the_picture_lives_and_goes_with_its_answer(browser):
    world = five_minutes()
    with served(world) as one:
        opened(browser, one.url)
        shown = []
        for _ in range(3):
            world.run(1.0)
            number = world.state.picture("door", after=0).decision.frame_id.sequence
            browser.until(f"frame.textContent.startsWith('frame {number} ')")
            shown.append(browser.value("picture.src"))
        assert len(set(shown)) == 3
        decision = world.state.picture("door", after=0).decision
        assert text(browser, "#label") == decision.label


def test_another_source_is_a_click_away(browser):
    world = five_minutes()
    with served(world) as one:
        opened(browser, one.url)
        browser.value("document.querySelectorAll('#sources button')[1].click()")
        number = world.state.picture("yard", after=0).decision.frame_id.sequence
        browser.until(f"!picture.hidden && frame.textContent.startsWith('frame {number} ')")
        pressed = "document.querySelector('#sources [aria-pressed=true]').textContent"
        assert browser.value(pressed) == "yard"


def test_the_last_picture_of_a_lost_source_is_not_taken_for_a_live_one(browser):
    world = five_minutes()
    with served(world) as one:
        opened(browser, one.url)
        assert browser.value("stale.hidden") is True
        world.tell(Lost("door", world.clock.now_s, "no frame for 3 s"))
        browser.until("!stale.hidden")
        assert browser.value("Number(getComputedStyle(picture).opacity) < 0.5")
        world.tell(Reconnected("door", world.clock.now_s, 1.0, 1))
        browser.until("stale.hidden")
        assert browser.value("Number(getComputedStyle(picture).opacity)") == 1


def test_a_device_that_goes_away_is_told_and_comes_back(browser):
    world = five_minutes()
    with served(world) as one:
        opened(browser, one.url)
        port = one.url.rpartition(":")[2]
    browser.until("state.textContent === 'no answer from the device'")
    address = ListenAddress.parse(f"127.0.0.1:{port}", option="--dashboard")
    with Dashboard(world.state, address):
        browser.until("state.textContent === '2 sources give frames'")


def test_names_are_text_and_never_markup(browser):
    world = five_minutes()
    evil = "<img src=x onerror=alert(1)>"
    world.numbers[evil] = 0
    world.run(1)
    with served(world) as one:
        opened(browser, one.url)
        browser.until("document.querySelectorAll('#sources button').length === 3")
        assert browser.value("document.querySelector('#sources').innerText").count(evil) == 1
        assert browser.value("document.querySelectorAll('img[src=x]').length") == 0


def test_the_token_is_asked_for_and_opens_the_page(browser):
    with served(five_minutes(), token=TOKEN) as one:
        browser.open(one.url, width=390)
        assert "needs its token" in text(browser, "h1")
        fill = "token.value = '{}'; document.querySelector('button').click()"
        browser.value(fill.format("the wrong one"))
        browser.until("document.body.innerText.includes('not the token')")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        browser.value(fill.format(TOKEN))
        browser.until("document.querySelector('#answers svg')")
        assert "token" not in browser.value("location.href")


def test_many_viewers_do_not_trouble_the_stream():
    world = five_minutes()
    failed = []
    with served(world) as one:
        import urllib.request

        def look():
            try:
                for _ in range(10):
                    for path in ("state.json", "frame.jpg?source=door"):
                        urllib.request.urlopen(f"{one.url}/{path}", timeout=10).read()
            except OSError as error:
                failed.append(error)

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        world.run(2)
        for thread in threads:
            thread.join()
    assert failed == []
