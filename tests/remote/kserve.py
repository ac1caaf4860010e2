"""`tinysaver-edge serve` as a process of its own, in the environment that has KServe."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.remote.triton import ROOT, free_ports, site_packages

VENV = Path(os.environ.get("TINYSAVER_KSERVE_VENV", ROOT / ".venv-kserve"))
STARTS_WITHIN_S = 60.0


def why_not() -> str | None:
    """Why KServe cannot be started here; None where it can."""
    site = site_packages(VENV)
    if site is None or not (site / "kserve").is_dir():
        return f"no KServe in {VENV.name}: make test-servers sets it up"
    return None


needs_kserve = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

SLOW = """
import time
from tinysaver_edge.host.kserve_model import Answerer
run = Answerer.run
def slowly(self, batch):
    with open({path!r}, "a") as file:
        file.write("begun\\n")
    time.sleep({seconds})
    return run(self, batch)
Answerer.run = slowly
"""
"""Makes each batch take so long, and keeps count of those that were begun in a file."""


class Served:
    """A bundle's large model, served. Ports stay the same over restarts.

    Args:
        folder: for its log.
        bundle: what it serves.
        options: further ones of `serve`.
        http: whether it listens for HTTP as well.
        before: Python that is run before the command.
    """

    def __init__(
        self, folder: Path, bundle: Path, *options: str, http: bool = True, before: str = ""
    ) -> None:
        self.program = f"{before}\nfrom tinysaver_edge.cli import main; main()"
        self.folder, self.bundle, self.options = folder, bundle, options
        self.grpc_port, self.http_port = free_ports(2)
        self.http = http
        self.process: subprocess.Popen[str] | None = None

    def url(self, model: str = "large", *, scheme: str = "grpc", host: str = "127.0.0.1") -> str:
        port = self.grpc_port if scheme.startswith("grpc") else self.http_port
        return f"{scheme}://{host}:{port}/{model}"

    def start(self) -> Served:
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    str(VENV / "bin/python"), "-c", self.program, "serve", str(self.bundle),
                    "--bind", f"127.0.0.1:{self.grpc_port}",
                    *(("--http-port", str(self.http_port)) if self.http else ()),
                    *self.options,
                ],
                stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )  # fmt: skip
        due_s = time.monotonic() + STARTS_WITHIN_S
        ports = [self.grpc_port, *([self.http_port] if self.http else [])]
        while ports and time.monotonic() < due_s and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports[0]), 0.2):
                ports.pop(0)
            time.sleep(0.02)
        assert not ports, self.log()
        return self

    def log(self) -> str:
        return (self.folder / "serve.log").read_text()[-4000:]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def terminate(self) -> int:
        """Ask it to stop and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
