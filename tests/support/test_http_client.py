"""What an HTTP server says that is none, or says nothing that can be read."""

import socket
import threading

import pytest

from tinysaver_edge._support.http_client import HttpConnection, challenge_of
from tinysaver_edge.bundle.target import open_target
from tinysaver_edge.errors import TransferError


@pytest.fixture
def answering():
    """Answers the first request on a port with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(said):
            def answer():
                while True:
                    try:
                        connection, _ = listening.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(65536)
                        connection.sendall(said)

            threading.Thread(target=answer, daemon=True).start()
            return f"127.0.0.1:{listening.getsockname()[1]}"

        yield serve
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("wanted", ["realm=,,,==", "", "x", 'realm="', "realm=", "a=b, c", "\x1b"])
def test_a_challenge_that_is_none_asks_for_nothing(wanted):
    assert isinstance(challenge_of(wanted), dict)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"\xff\xfe garbage\r\n\r\n", "speaks no HTTP on this port"),
        (b"HTTP/9.9 200\r\n\r\n", "speaks no HTTP on this port"),
        (b"", "hangs up without an answer"),
        (
            b"HTTP/1.1 401 U\r\nWWW-Authenticate: Bearer realm=,,==\r\nContent-Length: 0\r\n\r\n",
            "wants a user and password",
        ),
    ],
)
def test_a_registry_that_is_none_is_told_of_in_a_line(said, message, answering):
    target = open_target(f"oci://{answering(said)}/belt")
    with pytest.raises(TransferError, match=message):
        target.find("stable")
    target.close()


def test_names_and_logins_of_any_script_go_over_the_wire():
    asking = HttpConnection("bücher.example", 80)
    head = asking._head("GET", "/", {"Authorization": 'Digest username="пароль"'}, 0)
    assert b"Host: xn--bcher-kva.example:80\r\n" in head
    assert 'username="пароль"'.encode() in head
