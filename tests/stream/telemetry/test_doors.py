"""The stream's own doors under clients that say nothing, hardly anything, or too much."""

from __future__ import annotations

import asyncio
import gc
import http.client
import socket
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.stream.dashboard.world import five_minutes
from tinysaver_edge._support import doors
from tinysaver_edge._support.doors import (
    TELL_EVERY_S,
    TOO_LONG,
    TokenSeen,
    WrongTokens,
    place_of,
)
from tinysaver_edge._support.limits import (
    KNOCKS_AT_ONCE,
    MOST_CONNECTIONS,
    MOST_PIECES,
    WRONG_TOKENS_AT_ONCE,
    WRONG_TOKENS_OF_ALL,
)
from tinysaver_edge._support.urls import ListenAddress, is_own_name
from tinysaver_edge.stream.dashboard import Dashboard
from tinysaver_edge.stream.telemetry.health import Health
from tinysaver_edge.stream.telemetry.monitor import Monitor
from tinysaver_edge.stream.telemetry.prometheus import PrometheusMetrics
from tinysaver_edge.testing import FakeClock

TOKEN = "correct horse battery"
KINDS = ["dashboard", "metrics"]
GUARDED = {"dashboard": "/state.json", "metrics": "/metrics"}


@contextmanager
def door(kind, *, token=None, tries=None):
    """A server of a stream; yields its port."""
    if kind == "dashboard":
        address = ListenAddress.parse("127.0.0.1:0", option="--dashboard")
        made = Dashboard(five_minutes().state, address, token=token, tries=tries)
    else:
        address = ListenAddress.parse("127.0.0.1:0", option="--metrics")
        health = Health(clock=FakeClock())
        made = Monitor(address, health, PrometheusMetrics(), token=token, tries=tries)
    with made:
        yield int(made.url.rpartition(":")[2])


def ask(port, path="/healthz", source="127.0.0.1", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, 5, source_address=(source, 0))
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=fields)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def crowd(stack, port, number, says=b""):
    held = []
    for _ in range(number):
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with suppress(OSError):
            one.sendall(says)
        held.append(one)
    return held


@pytest.mark.parametrize("says", [b"", b"GET /healthz HTTP/1.1\r\nX: "], ids=["silent", "dripping"])
@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_is_answered_however_many_only_sit_there(kind, says) -> None:
    with door(kind) as port, ExitStack() as stack:
        before = descriptors()
        held = crowd(stack, port, 5 * MOST_CONNECTIONS, says)
        for _ in range(4):
            assert ask(port) == 200
            for one in held:
                with suppress(OSError):
                    one.sendall(b"a" if says else b"")
            time.sleep(0.2)
        ours = descriptors() - before - len(held)
        assert ours <= MOST_CONNECTIONS + 8


def test_who_takes_too_long_is_cut_off(monkeypatch) -> None:
    monkeypatch.setattr(doors, "REQUEST_S", 0.4)
    with door("dashboard", token=TOKEN) as port, ExitStack() as stack:
        silent, head, body = crowd(stack, port, 3)
        head.sendall(b"GET / HTTP/1.1\r\n")
        body.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nto")
        for one in (silent, head, body):
            one.settimeout(3)
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
        assert ask(port) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_without_end_is_cut_off(kind) -> None:
    with door(kind) as port, ExitStack() as stack:
        (one,) = crowd(stack, port, 1, b"GET / HTTP/1.1\r\n")
        one.settimeout(3)
        with pytest.raises(OSError):
            one.sendall((b"X-A: " + b"a" * 60_000 + b"\r\n") * 1000)
        assert ask(port) == 200


def test_a_keeper_of_many_requests_is_not_cut_off(monkeypatch) -> None:
    monkeypatch.setattr(doors, "REQUEST_S", 0.4)
    with door("dashboard") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        end_s = time.monotonic() + 1.2
        while time.monotonic() < end_s:
            connection.request("GET", "/healthz")
            held = connection.sock
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert connection.sock is held
            time.sleep(0.1)
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_tokens_take_their_time_and_the_right_one_does_not(kind) -> None:
    told, answers = [], []
    tries = WrongTokens(lambda count, address: told.append((count, address)))
    with door(kind, token=TOKEN, tries=tries) as port:
        end_s = time.monotonic() + 1.5

        def guess(number):
            while time.monotonic() < end_s:
                answers.append(ask(port, GUARDED[kind], **bearer(f"guess {number}")))

        guessing = [threading.Thread(target=guess, args=(one,)) for one in range(4)]
        for one in guessing:
            one.start()
        started_s = time.monotonic()
        for _ in range(5):
            assert ask(port, GUARDED[kind], **bearer(TOKEN)) == 200
        assert time.monotonic() - started_s < 0.5
        for one in guessing:
            one.join()
    assert set(answers) == {401}
    assert len(answers) / 2 < 20
    assert told == [(1, "127.0.0.1")]
    assert tries.count == len(answers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_of_wrong_tokens_does_not_reach_other_addresses(kind) -> None:
    answers = []
    with door(kind, token=TOKEN) as port:

        def guess(number):
            with suppress(OSError):
                answers.append(ask(port, GUARDED[kind], "127.0.0.2", **bearer(f"guess {number}")))

        guessing = [threading.Thread(target=guess, args=(one,)) for one in range(20)]
        for one in guessing:
            one.start()
        time.sleep(0.1)
        assert ask(port, GUARDED[kind], **bearer(TOKEN)) == 200
        for one in guessing:
            one.join()
    assert answers.count(401) == WRONG_TOKENS_AT_ONCE
    assert set(answers) == {401, 429}


def test_another_address_written_down_by_the_client_buys_no_patience() -> None:
    answers, told = [], []
    tries = WrongTokens(lambda count, address: told.append(address))
    with door("dashboard", token=TOKEN, tries=tries) as port:

        def guess(number):
            spoofed = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
            answers.append(ask(port, "/state.json", **bearer(f"guess {number}"), **spoofed))

        guessing = [threading.Thread(target=guess, args=(one,)) for one in range(15)]
        for one in guessing:
            one.start()
        for one in guessing:
            one.join()
    assert answers.count(401) == WRONG_TOKENS_AT_ONCE
    assert told == ["127.0.0.1"]


def test_no_token_at_all_is_no_guess() -> None:
    tries = WrongTokens()
    with door("metrics", token=TOKEN, tries=tries) as port:
        started_s = time.monotonic()
        assert ask(port, "/metrics") == 401
        assert time.monotonic() - started_s < 0.4
    assert tries.count == 0


def test_wrong_tokens_are_judged_by_where_they_come_from() -> None:
    clock, told = FakeClock(), []
    tries = WrongTokens(lambda count, address: told.append((count, address)), clock=clock)

    def show(address, connection, right):
        return tries.show(address, connection, is_right=lambda: right)

    assert show("a", "known", True) is TokenSeen.RIGHT
    shown = [show("a", number, False) for number in range(WRONG_TOKENS_AT_ONCE + 2)]
    assert shown == [TokenSeen.WRONG] * WRONG_TOKENS_AT_ONCE + [TokenSeen.UNSEEN] * 2
    assert show("a", "new", True) is TokenSeen.UNSEEN  # the answer must not tell
    assert show("a", "known", True) is TokenSeen.RIGHT
    assert show("b", "new", True) is TokenSeen.RIGHT
    assert show("a", "known", False) is TokenSeen.WRONG
    assert show("a", "known", True) is TokenSeen.UNSEEN  # it has lost its credit
    others = [show(f"c{number}", number, False) for number in range(WRONG_TOKENS_OF_ALL)]
    assert TokenSeen.UNSEEN in others
    for _ in range(WRONG_TOKENS_AT_ONCE + 1):
        tries.waited("a")
    assert show("a", "new", True) is TokenSeen.RIGHT
    assert told == [(1, "a")]
    clock.advance(TELL_EVERY_S)
    show("d", 1, False)
    assert told[1:] == [(tries.count - 1, "d")]


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost:80", True), ("127.0.0.1", True), ("[::1]:80", True), ("10.0.0.7:9464", True),
     ("edge-7:9464", True), ("edge-7.local", True), ("edge.plant.internal:1", True), ("", True),
     ("attacker.example", False), ("attacker.example:9464", False), ("LOCALHOST.evil.org", False),
     ("127.0.0.1.nip.io", False), ("edge.example", True)],
)  # fmt: skip
def test_names_that_other_sites_can_have_are_not_ours(host, own) -> None:
    assert is_own_name(host, "edge.example") is own


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_not_for_pages_of_other_sites(kind) -> None:
    with door(kind) as port:
        assert ask(port, GUARDED[kind], Host="attacker.example") == 421
        assert ask(port, GUARDED[kind], Host=f"localhost:{port}") == 200
    with door(kind, token=TOKEN) as port:
        assert ask(port, GUARDED[kind], Host="edge.example", **bearer(TOKEN)) == 200


@pytest.mark.parametrize(
    ("text", "token", "warned"),
    [("0.0.0.0:0", None, True), ("0.0.0.0:0", TOKEN, False), ("127.0.0.1:0", None, False)],
)
def test_who_else_can_read_the_figures_is_told(text, token, warned) -> None:
    address = ListenAddress.parse(text, option="--metrics")
    one = Monitor(address, Health(clock=FakeClock()), PrometheusMetrics(), token=token)
    assert ("TINYSAVER_TOKEN" in " ".join(one.warnings)) is warned


def test_a_browsers_cookie_is_of_no_use_to_find_the_token() -> None:
    cookies = []
    for _ in range(2):
        with door("dashboard", token=TOKEN) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", "/login", "token=correct+horse+battery")
            answer = connection.getresponse()
            answer.read()
            cookies.append(answer.headers["set-cookie"].partition(";")[0])
            assert ask(port, "/state.json", Cookie=cookies[-1]) == 200
            assert ask(port, "/state.json", Cookie=cookies[0] + "0") == 401
            connection.close()
    assert cookies[0] != cookies[1]


def talk(port, *pieces, pause_s=0.0):
    """Send pieces over one connection; return all that comes back until it is quiet."""
    got = b""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.settimeout(1.5)
        with suppress(OSError):
            for piece in pieces:
                one.sendall(piece)
                time.sleep(pause_s)
            while more := one.recv(1 << 16):
                got += more
    return got


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = HEALTH.replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ((HEALTH, LAST), 2),
        ((HEALTH + HEALTH + LAST,), 3),
        ((HEALTH[:9], HEALTH[9:] + LAST[:-1], LAST[-1:]), 2),
        ((b"\r\n\r\n" + LAST,), 1),
        ((LAST.replace(b"\r\n", b"\n"),), 1),
        ((LAST.replace(b"GET", b"HEAD"),), 1),
        ((b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH + LAST,), 3),
    ],
    ids=["two", "at once", "in pieces", "empty lines", "bare lines", "head", "others between"],
)
def test_each_request_of_a_connection_is_answered_in_its_turn(kind, pieces, answers) -> None:
    with door(kind) as port:
        got = talk(port, *pieces, pause_s=0.02)
    assert got.count(b"HTTP/1.1 ") == answers
    assert got.count(b"HTTP/1.1 200") == answers - (b"nothing" in pieces[0])
    assert (b'"good"' in got) is (b"HEAD" not in pieces[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "pieces",
    [[b"GET / HTTP/1.1\r\n", *[b"x"] * (2 * MOST_PIECES)], [b"GET / HTTP/1.1\r\n" + b"a" * 20_000]],
    ids=["drops", "flood"],
)  # fmt: skip
def test_heads_in_drops_and_floods_are_not_taken(kind, pieces, monkeypatch) -> None:
    monkeypatch.setattr(doors, "_PIECE_S", 0.001)
    with door(kind) as port:
        began_s = time.monotonic()
        got = talk(port, *pieces, pause_s=0.02 if len(pieces) > 9 else 0.0)
        assert got in (b"", TOO_LONG)
        assert time.monotonic() - began_s < 1.4
        assert ask(port) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_in_drops_is_read_less_and_less_often(kind, monkeypatch) -> None:
    reads = []
    monkeypatch.setattr(doors.Doorkeeper, "rest", lambda keeper: reads.append(1))
    with door(kind) as port, socket.create_connection(("127.0.0.1", port)) as one:
        one.settimeout(5)
        one.sendall(LAST[:-2] + b"X: ")
        end_s = time.monotonic() + 0.6
        drops = 0
        while time.monotonic() < end_s:
            one.sendall(b"a")
            drops += 1
            time.sleep(0.002)
        assert len(reads) < 20 < drops / 3
        one.sendall(b"\r\n\r\n")
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kind", KINDS)
def test_who_does_not_read_its_answers_is_cut_off(kind) -> None:
    with door(kind) as port, socket.create_connection(("127.0.0.1", port)) as one:
        one.settimeout(5)
        with pytest.raises(OSError):
            one.sendall(HEALTH * 2_000_000)
        assert ask(port) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_is_anything_but_a_request(kind) -> None:
    with door(kind) as port:
        for text in (b"\x16\x03\x01\n\n", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            assert b" 200 " not in talk(port, text)
        assert ask(port) == 200


def test_a_door_takes_no_more_than_its_share_of_the_processor(monkeypatch) -> None:
    now_s, used_s, slept = [100.0], [5.0], []

    def sleep(seconds):
        slept.append(seconds)
        now_s[0] += seconds

    monkeypatch.setattr(doors.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(doors.time, "thread_time", lambda: used_s[0])
    monkeypatch.setattr(doors.time, "sleep", sleep)
    keeper = doors.Doorkeeper(32, share=0.2)
    keeper.rest()
    assert slept == []
    for _ in range(1000):  # it is asked for more than it may do
        used_s[0] += 0.001
        now_s[0] += 0.001
        keeper.rest()
    assert 0.15 < 1.0 / (now_s[0] - 100.0) < 0.25
    assert max(slept) <= 0.05
    doors.Doorkeeper(32).rest()


def test_of_one_address_so_much_is_read_and_ours_are_not_held_up() -> None:
    ours = ("10.0.0.7", 1)
    keeper = doors.Doorkeeper(32, trusts=lambda client: client == ours)
    waits = [keeper.knock(("10.0.0.9", port)) for port in range(10 * KNOCKS_AT_ONCE)]
    assert waits[: KNOCKS_AT_ONCE // 2] == [0.0] * (KNOCKS_AT_ONCE // 2)
    assert waits[-1] > 1.0
    assert keeper.knock(("10.0.0.8", 1)) == keeper.knock(ours) == 0.0
    assert doors.Doorkeeper(32).knock(("10.0.0.9", 1)) == 0.0
    for number in range(5000):
        keeper.knock((f"10.1.{number >> 8}.{number & 255}", 1))
    assert len(keeper._knocks) <= 1024


def test_of_who_is_cut_off_nothing_is_kept() -> None:
    made = weakref.WeakSet()

    class Base(asyncio.Protocol):
        cycle = None

        def __init__(self) -> None:
            made.add(self)

        def connection_made(self, transport) -> None:
            self.transport = transport

    async def drown(port):
        for _ in range(3 * KNOCKS_AT_ONCE):  # the last would be read on after two seconds
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000)
                await writer.drain()
                writer.close()

    async def measured():
        keeper = doors.Doorkeeper(256, trusts=lambda client: False)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(keeper.protocol(Base), "127.0.0.1", 0)
        await drown(server.sockets[0].getsockname()[1])
        await asyncio.sleep(0.5)
        server.close()
        gc.collect()
        return sum(len(one._sent) for one in made)

    assert asyncio.run(measured()) < 100_000


@pytest.mark.parametrize(
    ("address", "place"),
    [("10.0.0.7", "10.0.0.7"), ("", ""), ("::1", "::/64"), ("::ffff:10.0.0.7", "10.0.0.7"),
     ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
     ("unix:", "unix:")],
)  # fmt: skip
def test_who_has_a_whole_network_counts_as_one(address, place) -> None:
    assert place_of(address) == place


def test_a_network_guesses_no_faster_than_an_address() -> None:
    tries = WrongTokens()
    shown = [
        tries.show(f"2001:db8::{number:x}", number, is_right=lambda: False)
        for number in range(2 * WRONG_TOKENS_AT_ONCE)
    ]
    assert shown.count(TokenSeen.WRONG) == WRONG_TOKENS_AT_ONCE
    assert tries.passed_over("2001:db8::ffff", "new")
    assert not tries.passed_over("2001:db8:1::1", "new")
    for number in range(WRONG_TOKENS_AT_ONCE):
        tries.waited(f"2001:db8::{number:x}")
    assert not tries.passed_over("2001:db8::ffff", "new")
