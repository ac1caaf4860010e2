"""A network namespace for a host, and a wire to it whose delay and loss a test sets.

The wire is a veth pair with netem at both ends. Where the kernel has no netem, it is two tun
interfaces and a program that carries the packets between them (`relay.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NETWORK = "198.18"
"""What addresses begin with: a network that is set aside for benchmarks (RFC 2544)."""


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


def _must(*arguments: str) -> None:
    done = _ip(*arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def why_not() -> str | None:
    """Why there can be no namespace here; None where there can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "no ip or tc: apt install iproute2"
    name = f"tinysaver-try-{os.getpid()}"
    made = _ip("netns", "add", name)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    try:
        if not has_netem(name) and not os.access("/dev/net/tun", os.W_OK):
            return "the kernel has neither netem nor tun"
    finally:
        _ip("netns", "del", name)
    return None


def has_netem(namespace: str) -> bool:
    """Whether the kernel has netem; tried on a namespace's loopback."""
    done = _ip("netns", "exec", namespace, "tc", "qdisc", "add", "dev", "lo", "root", "netem")
    if done.returncode == 0:
        _ip("netns", "exec", namespace, "tc", "qdisc", "del", "dev", "lo", "root")
    return done.returncode == 0


class Wire:
    """A namespace, both ends of the wire, and whatever worsens it.

    Attributes:
        namespace: its name.
        here: this end's address.
        there: the other's.
    """

    def __init__(self) -> None:
        self.namespace = f"tinysaver-{os.getpid()}"
        self.here, self.there = (f"{NETWORK}.{os.getpid() % 256}.{end}" for end in (1, 2))
        self._ends = (f"tsa{os.getpid()}", f"tsb{os.getpid()}")
        self._relay: subprocess.Popen[str] | None = None

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to run at the other end."""
        return ("ip", "netns", "exec", self.namespace)

    def lay(self) -> None:
        here, there = self._ends
        _must("netns", "add", self.namespace)
        if has_netem(self.namespace):
            _must("link", "add", here, "type", "veth", "peer", "name", there)
        else:
            self._relay = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("relay.py")), here, there],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self._heard("ready")
        print(f"wire: {'netem' if self._relay is None else 'relay, since there is no netem'}")
        _must("link", "set", there, "netns", self.namespace)
        _must("addr", "add", f"{self.here}/30", "dev", here)
        _must("link", "set", here, "up")
        for command in (
            f"addr add {self.there}/30 dev {there}",
            f"link set {there} up",
            "link set lo up",
        ):
            _must("netns", "exec", self.namespace, "ip", *command.split())

    def worsen(self, *, delay_ms: float = 0.0, loss: float = 0.0) -> None:
        """Delay packets by so much each way, and lose that share of them; mends it by default."""
        if self._relay is not None:
            assert self._relay.stdin is not None
            self._relay.stdin.write(f"{delay_ms} {loss}\n")
            self._relay.stdin.flush()
            self._heard("set")
            return
        here, there = self._ends
        for before, end in ((("tc",), here), ((*self.inside, "tc"), there)):
            netem = f"qdisc replace dev {end} root netem delay {delay_ms}ms loss {100 * loss}%"
            subprocess.run([*before, *netem.split()], check=True)

    def _heard(self, word: str) -> None:
        assert self._relay is not None
        assert self._relay.stdout is not None
        assert self._relay.stdout.readline().strip() == word

    def take_away(self) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait(10)
        _ip("link", "del", self._ends[0])
        _ip("netns", "del", self.namespace)
