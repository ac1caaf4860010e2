"""What `tinysaver-edge serve` answers to eight devices at once, with and without batches.

    make servers
    tinysaver-edge demo --out demo-bundle
    python benchmarks/bench_serve.py demo-bundle [--rounds 5] [--seconds 4]

The same bundle is served three times on this machine: one frame at a time, in batches of up to
four, and as the host finds to be quickest. Eight processes ask, one host after the other; frames a
second, medians of the rounds. Devices and host share the processor here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path

import numpy as np
from imagenet import save, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tests.remote.hosts import remote  # noqa: E402
from tests.remote.kserve import Served, why_not  # noqa: E402
from tinysaver_edge.bundle.bundle import Bundle  # noqa: E402
from tinysaver_edge.cascade import Cascade  # noqa: E402
from tinysaver_edge.host.served import served_by  # noqa: E402

DEVICES = 8
CHOSEN = "the host's choice"


def ask(bundle: str, url: str, seconds: float, ready: Semaphore, begin: Event, out: Queue) -> None:
    """One device: ask as often as the host answers."""
    with Cascade.load(bundle, large=remote(url, timeout_s=5.0), threads=1) as cascade:
        stage = cascade.stages[-1]
        batch = np.random.default_rng(0).integers(0, 256, stage.blank.shape)
        batch = batch.astype(stage.blank.dtype)
        stage.ask(batch)
        ready.release()
        begin.wait()
        answered, due = 0, time.monotonic() + seconds
        while time.monotonic() < due:
            stage.ask(batch)
            answered += 1
    out.put(answered / seconds)


def asked(bundle: Path, host: Served, model: str, seconds: float) -> float:
    """Return the frames a second of all devices."""
    spawn = multiprocessing.get_context("spawn")
    ready, begin, out = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    given = (str(bundle), host.url(model), seconds, ready, begin, out)
    devices = [spawn.Process(target=ask, args=given) for _ in range(DEVICES)]
    for device in devices:
        device.start()
    for _ in devices:
        ready.acquire()
    begin.set()
    answered = sum(out.get() for _ in devices)
    for device in devices:
        device.join()
    return answered


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 2
    with Bundle.load(options.bundle) as opened:
        model = served_by(opened).name
    ways = {"one frame at a time": ["--batch", "1"], "batches of 4": ["--batch", "4"], CHOSEN: []}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        hosts = {}
        for way, given in ways.items():
            folder = Path(scratch) / way.replace(" ", "-")
            folder.mkdir()
            hosts[way] = Served(folder, options.bundle, *given, http=False).start()
            stack.callback(hosts[way].stop)
        for _ in range(options.rounds):
            for way, host in hosts.items():
                rates[way].append(asked(options.bundle, host, model, options.seconds))
        said = [line for line in hosts[CHOSEN].log().splitlines() if "serving" in line]
    rows = [
        (way, f"{statistics.median(found):.0f}", f"{min(found):.0f} to {max(found):.0f}")
        for way, found in rates.items()
    ]
    text = table(("way", "frames/s", "of the rounds"), rows)
    text += f"\n\nThe host's choice: {said[-1].split(', ')[-1]}."
    save("bench_serve", title="Eight devices at one host", text=text, figures=rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
