"""Carries packets between two tun interfaces, late and not all of them.

A program of its own, `python relay.py NAME NAME`: it makes the interfaces, says "ready", and takes
lines "DELAY_MS LOSS" on its input, where LOSS is a share; each is answered with "set". It is what
netem does, for kernels that are built without it: real packets, and TCP sees what it would see.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
LONGEST_PACKET = 65536


def tun(name: str) -> int:
    """Make an interface that lives as long as this program; return what its packets go through."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return end


def carry(ends: tuple[int, int]) -> None:
    """Carry packets until the input ends."""
    others = {ends[0]: ends[1], ends[1]: ends[0]}
    delay_s, loss, chance = 0.0, 0.0, random.Random(0)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([0, *ends], [], [], timeout_s)
        for end in readable:
            if end == 0:
                line = os.read(0, 256).decode()
                if not line:
                    return
                delay_ms, loss = map(float, line.split())
                delay_s = delay_ms / 1e3
                print("set", flush=True)
                continue
            packet = os.read(end, LONGEST_PACKET)
            if chance.random() >= loss:
                number += 1
                due_s = time.monotonic() + delay_s
                heapq.heappush(waiting, (due_s, number, others[end], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # the interface is not up yet, or no more
                os.write(end, packet)


if __name__ == "__main__":
    made = (tun(sys.argv[1]), tun(sys.argv[2]))
    print("ready", flush=True)
    carry(made)
