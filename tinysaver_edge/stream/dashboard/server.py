"""Serves the dashboard from a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.doors import Doorkeeper, ListenAddress, WrongTokens, url_of
from tinysaver_edge._support.limits import ACCEPTED_AT_ONCE, MOST_CONNECTIONS, QUEUED
from tinysaver_edge.errors import InputError, MissingDependencyError
from tinysaver_edge.stream.dashboard.app import Access
from tinysaver_edge.stream.dashboard.state import DashboardState

if TYPE_CHECKING:
    from typing_extensions import Self

START_S = 10.0
STOP_S = 3.0


class Dashboard:
    """The page about a stream; a context manager.

    Args:
        state: what it shows.
        address: where to listen.
        token: what a browser must know; needed where others can reach the address.
        tries: judges tokens; one for all doors of a stream.

    Attributes:
        url: where it listens, once it has been entered.

    Raises:
        InputError: others can reach the address and there is no token, or it is too short.
        MissingDependencyError: Starlette or uvicorn is not installed.
    """

    def __init__(
        self,
        state: DashboardState,
        address: ListenAddress,
        *,
        token: str | None = None,
        tries: WrongTokens | None = None,
    ) -> None:
        self._access = Access(address, token)
        self._state = state
        self._tries = tries or WrongTokens()
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self.url = ""
        for package in ("starlette", "uvicorn"):
            _need(package)

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            InputError: the port cannot be had.
        """
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        from tinysaver_edge.stream.dashboard.app import make_app

        listening = self._access.address.bind()
        self.url = url_of(listening)
        settings = uvicorn.Config(
            make_app(self._state, self._access, self._tries),
            log_config=None,
            access_log=False,
            log_level="critical",
            lifespan="off",
            ws="none",
            loop="asyncio",
            http=Doorkeeper(MOST_CONNECTIONS).protocol(H11Protocol),
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="dashboard", daemon=True
        )
        self._thread.start()
        deadline_s = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive():
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.01)
        if not self._server.started:
            listening.close()
            raise InputError(f"{self._access.address}: the dashboard's server does not start")
        listening.listen(
            QUEUED
        )  # more than are taken in one go, or clients would wait for a second
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening. Legal in every state."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.should_exit = True
            self._thread.join(STOP_S)


def _need(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, extra="dashboard", purpose="The dashboard")
