import http.client
import json
import socket
import threading
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from tests.stream.dashboard.world import World, five_minutes
from tinysaver_edge._support.limits import PAGE_THREADS
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge._support.web import site
from tinysaver_edge.errors import InputError, MissingDependencyError
from tinysaver_edge.stream.dashboard import Dashboard
from tinysaver_edge.stream.telemetry.metrics import Counter

TOKEN = "correct horse"


def dashboard(state, text="127.0.0.1:0", **options):
    return Dashboard(state, ListenAddress.parse(text, option="--dashboard"), **options)


@pytest.fixture(scope="module")
def world():
    return five_minutes()


@pytest.fixture(scope="module")
def served(world):
    with dashboard(world.state) as one:
        yield one


@pytest.fixture(scope="module")
def guarded(world):
    with dashboard(world.state, token=TOKEN) as one:
        yield one


def ask(one, path, *, method="GET", body=None, **headers):
    """Return status, headers and body of one request."""
    connection = http.client.HTTPConnection(one.url.removeprefix("http://"), timeout=10)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=fields)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/charts.js", "text/javascript"),
        ("/base.css", "text/css"),
        ("/drawing.js", "text/javascript"),
        ("/icon.svg", "image/svg"),
        ("/state.json", "application/json"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
    ],
)
def test_everything_is_served_from_here_and_nothing_else_may_be_loaded(served, path, kind):
    status, headers, body = ask(served, path)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in body


def test_the_state_is_json_that_every_browser_reads(served, world):
    told = json.loads(ask(served, "/state.json")[2], parse_constant=lambda what: pytest.fail(what))
    assert told == json.loads(json.dumps(world.state.snapshot()))


def test_a_picture_and_what_was_decided_about_it(served, world):
    status, headers, body = ask(served, "/frame.jpg?source=door")
    shown = world.state.picture("door", after=0)
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert status == 200
    assert np.abs(picture.astype(int) - shown.picture).mean() < 4
    assert json.loads(unquote(headers["x-decision"])) == shown.decision.to_dict()
    assert ask(served, f"/frame.jpg?source=door&after={headers['x-number']}")[0] == 204
    assert ask(served, "/frame.jpg?source=nobody")[0] == 204
    assert ask(served, "/frame.jpg?source=door&after=x")[0] == 200


def test_escalated_frames_have_small_pictures(served, world):
    number = world.state.snapshot()["escalated"][0]["number"]
    status, headers, body = ask(served, f"/escalated/{number}.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert len(body) < 40_000
    assert ask(served, "/escalated/0.jpg")[0] == 404
    assert ask(served, "/escalated/../page.html")[0] == 404


def test_without_a_token_only_this_machines_own_names_are_answered(served):
    for host in ("127.0.0.1:8080", "localhost", "localhost:1", "[::1]:8080"):
        assert ask(served, "/state.json", Host=host)[0] == 200
    for host in ("evil.example", "evil.example:8080", "192.168.1.7:8080", ""):
        assert ask(served, "/state.json", Host=host)[0] in (400, 421)


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(guarded, sent):
    form = {"Content_Type": "application/x-www-form-urlencoded", **sent}
    status, headers, _ = ask(guarded, "/login", method="POST", body="token=correct+horse", **form)
    assert (status, "set-cookie" in headers) == (403, False)
    own = {**form, "Origin": guarded.url, "Sec_Fetch_Site": "same-origin"}
    assert ask(guarded, "/login", method="POST", body="token=correct+horse", **own)[0] == 303


@pytest.mark.parametrize("path", ["/state.json", "/frame.jpg?source=door", "/page.js", "/"])
def test_without_the_token_there_is_nothing_to_see(guarded, path):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"tinysaver_edge={TOKEN}"},
    ):
        status, answered, body = ask(guarded, path, **headers)
        assert (status, answered["www-authenticate"]) == (401, "Bearer")
        assert b"door" not in body
    assert ask(guarded, path, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_browser_shows_the_token_once(guarded):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, headers, body = ask(guarded, "/login")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"started with (TINYSAVER_TOKEN)" in body
    assert b"not the token" not in body
    status, headers, body = ask(guarded, "/login", method="POST", body="token=wrong+one", **form)
    assert (status, b"not the token" in body) == (401, True)
    assert "set-cookie" not in headers
    body = "token=correct+horse"
    status, headers, _ = ask(guarded, "/login", method="POST", body=body, **form)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "horse" not in cookie
    assert ask(guarded, "/state.json", Cookie=cookie.partition(";")[0])[0] == 200
    assert ask(guarded, "/login", method="POST", body="x" * 100_000, **form)[0] == 401


def test_health_needs_no_token_and_tells_no_names(guarded):
    status, _, body = ask(guarded, "/readyz")
    assert (status, b"door" in body) == (200, False)
    assert ask(guarded, "/healthz")[0] == 200


def test_a_stall_is_unhealthy():
    world = five_minutes()
    with dashboard(world.state) as one:
        assert ask(one, "/readyz")[0] == 200
        world.metrics.count(Counter.FRAMES, "door")
        world.clock.advance(60)
        assert ask(one, "/healthz")[0] == ask(one, "/readyz")[0] == 503


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "192.168.1.4:8080", "edge.local:8080"])
def test_beyond_loopback_without_a_token_is_refused(text):
    with pytest.raises(InputError, match="needs a token: set TINYSAVER_TOKEN"):
        dashboard(World().state, text)


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(InputError, match="at least 8 characters") as refusal:
        dashboard(World().state, "0.0.0.0:0", token="1234567")
    assert "1234567" not in str(refusal.value)


def test_with_a_token_others_may_ask(world):
    with dashboard(world.state, "0.0.0.0:0", token=TOKEN) as one:
        port = one.url.rpartition(":")[2]
        one.url = f"http://127.0.0.1:{port}"
        assert ask(one, "/state.json")[0] == 401
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "edge.local"}
        assert ask(one, "/state.json", **headers)[0] == 200


def test_a_port_that_is_taken_is_one_line(served):
    text = served.url.removeprefix("http://")
    with (
        pytest.raises(InputError, match=f"^--dashboard {text}: the port is taken by another"),
        dashboard(World().state, text),
    ):
        pass


def test_what_is_missing_is_named_with_what_mends_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"starlette.*\[dashboard\]"):
        dashboard(World().state)


def test_clients_that_say_nothing_do_not_keep_others_out(world):
    with dashboard(world.state) as one:
        host, port = one.url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(16)]
        assert ask(one, "/state.json")[0] == 200
        for each in idle:
            each.close()


def test_leaving_is_legal_in_every_state_and_leaves_no_thread(world):
    before = threading.active_count()
    one = dashboard(world.state)
    one.__exit__(None, None, None)
    with one:
        ask(one, "/state.json")
        one.__exit__(None, None, None)
    assert threading.active_count() <= before
    assert site.STOP_S < 10


def test_pictures_are_made_for_few_at_a_time(served, monkeypatch) -> None:
    from tinysaver_edge.stream.dashboard import site as pages

    at_once, most, lock = [0], [0], threading.Lock()
    jpeg = pages.jpeg

    def slowly(picture, *, quality):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.03)
        with lock:
            at_once[0] -= 1
        return jpeg(picture, quality=quality)

    monkeypatch.setattr(pages, "jpeg", slowly)
    answers = []
    path = "/frame.jpg?source=door"
    asking = [
        threading.Thread(target=lambda: answers.append(ask(served, path)[0])) for _ in range(12)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert answers == [200] * 12
    assert most == [PAGE_THREADS]
