"""A real Triton for tests, from the nvidia-pytriton wheel, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = Path(os.environ.get("TINYSAVER_TRITON_VENV", ROOT / ".venv-triton"))
STARTS_WITHIN_S = 60.0


def site_packages(venv: Path) -> Path | None:
    found = sorted(venv.glob("lib/python3.*/site-packages"))
    return found[0] if found else None


def why_not() -> str | None:
    """Why Triton cannot be started here; None where it can."""
    site = site_packages(VENV)
    if site is None or not (site / "pytriton/tritonserver/bin/tritonserver").is_file():
        return f"no Triton in {VENV.name}: make test-servers sets it up"
    return None


needs_triton = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def backends(folder: Path) -> Path:
    """Put the Python backend and its stub for the environment's Python into one folder."""
    site = site_packages(VENV)
    assert site is not None
    version = site.parent.name.removeprefix("python")
    server = site / "pytriton/tritonserver"
    target = folder / "backends" / "python"
    if not target.exists():
        shutil.copytree(server / "backends/python", target)
        stub = server / f"python_backend_stubs/{version}/triton_python_backend_stub"
        shutil.copy(stub, target)
    return target.parent


def token_options(secret: str) -> list[str]:
    """Options with which answers and the model's configuration want a token."""
    return [
        f"--grpc-restricted-protocol={protocol}:authorization=Bearer {secret}"
        for protocol in ("inference", "model-config")
    ]


class Triton:
    """A Triton over a model repository. Ports stay the same over restarts.

    Args:
        folder: for its log.
        repository: what it serves.
        options: further ones of its own.
        address: where it listens.
        inside: what its command begins with, to run in another network namespace.
    """

    def __init__(
        self,
        folder: Path,
        repository: Path,
        *options: str,
        address: str = "127.0.0.1",
        inside: Sequence[str] = (),
    ) -> None:
        self.folder, self.repository, self.options = folder, repository, options
        self.address, self.inside = address, inside
        self.grpc_port, self.http_port, self.metrics_port = free_ports(3)
        self.shared_memory = f"tinysaver_test_{os.getpid()}_{self.grpc_port}_"
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, model: str, *, scheme: str = "grpc") -> str:
        port = self.grpc_port if scheme.startswith("grpc") else self.http_port
        return f"{scheme}://{self.address}:{port}/{model}"

    def start(self, *, wait: bool = True) -> Triton:
        """Start it, once more where it dies of a lock of its own, as on a busy machine it may."""
        for further in (True, True, False):
            self._begin()
            if not wait:
                break
            try:
                self.wait()
                break
            except AssertionError as error:
                if not further or "lock_exception" not in str(error)[-300:]:
                    raise
        return self

    def _begin(self) -> None:
        site = site_packages(VENV)
        assert site is not None
        ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
        asked = subprocess.run(
            [VENV / "bin/python", "-c", ask], capture_output=True, text=True, check=True
        )
        home = asked.stdout.strip()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PYTHONPATH": str(site),
            "LD_LIBRARY_PATH": f"{site}/nvidia_pytriton.libs:{home}",
            "PATH": f"{VENV}/bin:{os.environ['PATH']}",
        }
        with (self.folder / "triton.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.inside,
                    str(site / "pytriton/tritonserver/bin/tritonserver"),
                    f"--model-repository={self.repository}",
                    f"--backend-directory={backends(self.folder)}",
                    f"--backend-config=python,shm-region-prefix-name={self.shared_memory}",
                    "--disable-auto-complete-config",
                    *(f"--{name}-address={self.address}" for name in ("http", "grpc", "metrics")),
                    f"--http-port={self.http_port}",
                    f"--grpc-port={self.grpc_port}",
                    f"--metrics-port={self.metrics_port}",
                    "--exit-timeout-secs=5",
                    *self.options,
                ],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _connected(self, port: int) -> socket.socket:
        return socket.create_connection((self.address, port), 0.2)

    def wait(self) -> None:
        import tritonclient.grpc

        due = time.monotonic() + STARTS_WITHIN_S
        headers = getattr(self, "headers", None)
        while time.monotonic() < due:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            with (
                suppress(Exception),
                self._connected(self.grpc_port),
                self._connected(self.http_port),
            ):
                if self.options:  # TLS or tokens: the socket is all that can be asked here
                    time.sleep(1.0)
                    return
                client = tritonclient.grpc.InferenceServerClient(f"{self.address}:{self.grpc_port}")
                with client:
                    if client.is_server_ready(headers=headers, client_timeout=0.5):
                        return
            time.sleep(0.05)
        raise AssertionError((self.folder / "triton.log").read_text()[-3000:])

    def signal(self, number: int, *, children: bool = True) -> None:
        """Send a signal to the server, and to the processes that run its models."""
        assert self.process is not None
        if children:
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)
        for left in Path("/dev/shm").glob(f"{self.shared_memory}*"):  # nobody else will
            left.unlink(missing_ok=True)

    def terminate(self) -> None:
        """Ask it to drain; it ends by itself."""
        self.signal(signal.SIGTERM, children=False)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            self.thaw()
            self.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
