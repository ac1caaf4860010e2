"""A network of the tests' own, in which whatever a program sends or looks up is seen.

A program of its own, run in namespaces of network and mounts by `unshare`: it is the only name
server there is, and everything that leaves the machine goes into an interface that it reads.

    unshare -rnm python -m tests.silent_network FOLDER < commands.json
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.command import ROOT

SERVER = "10.255.255.53"
_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_ICMP_V6 = 58  # what the kernel says to a network by itself
_LINKS = (
    "link set lo up",
    f"addr add {SERVER}/32 dev lo",
    "addr add 10.254.0.1/24 dev out0",
    "link set out0 up",
    "route add default via 10.254.0.2",
)
SPOKEN = ("CI", "ORT_DISABLE_TELEMETRY", "TINYSAVER_ENGINE_TELEMETRY")
"""Variables by which engines, or we, decide whether to report; tests run without them."""


@dataclass(frozen=True)
class Heard:
    """What a command left.

    Attributes:
        code: its exit code.
        names: what it, or what it started, looked up.
        packets: how many it sent to elsewhere, by number of the protocol.
        files: what lies below its HOME, which was empty.
        err: the end of what it wrote to stderr.
    """

    code: int
    names: list[str]
    packets: list[int]
    files: list[str]
    err: str


class Network:
    """The interface, the name server, and the thread that listens to both."""

    def __init__(self, folder: Path) -> None:
        self._tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self._tun, _TUNSETIFF, struct.pack("16sH", b"out0", _TUN_WITHOUT_HEADER))
        for link in _LINKS:
            subprocess.run(["ip", *link.split()], check=True, capture_output=True)
        said = folder / "resolv.conf"
        said.write_text(f"nameserver {SERVER}\n")
        subprocess.run(["mount", "--bind", said, "/etc/resolv.conf"], check=True)
        self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._names.bind((SERVER, 53))
        self.names: list[str] = []
        self.packets: list[int] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            for one in select.select([self._tun, self._names], [], [])[0]:
                if one is self._names:
                    query, sender = self._names.recvfrom(512)
                    self.names.append(_asked(query))
                    refusal = query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:]
                    self._names.sendto(refusal, sender)
                else:
                    packet = os.read(self._tun, 65536)
                    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
                    if protocol not in (0, _ICMP_V6):  # 0: hop by hop, the kernel's greetings
                        self.packets.append(protocol)


def _asked(query: bytes) -> str:
    labels, place = [], 12
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode(errors="replace"))
        place += length + 1
    return ".".join(labels)


def hear(network: Network, command: list[str], home: Path, more: dict[str, str]) -> Heard:
    """Run a command with an empty HOME and say what it left and sent."""
    network.names.clear()
    network.packets.clear()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in SPOKEN and not name.startswith("XDG_")
    }
    done = subprocess.run(
        [sys.executable, *command],
        env={**clean, "HOME": str(home), "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        timeout=300,
    )
    time.sleep(0.2)  # what was sent last is read by then
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    return Heard(
        done.returncode, network.names[:], network.packets[:], sorted(files), done.stderr[-500:]
    )


def main() -> None:
    """Run the commands that stdin lists and print what was heard of each."""
    folder = Path(sys.argv[1])
    network = Network(folder)
    asked = json.load(sys.stdin)
    heard = [asdict(hear(network, one["command"], folder / "home", one["more"])) for one in asked]
    print(json.dumps(heard))


if __name__ == "__main__":
    main()
