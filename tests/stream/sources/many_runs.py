"""Runs `tinysaver-edge run` once for each of many addresses, and keeps all that comes out of it.

python -m tests.stream.sources.many_runs FOLDER BUNDLE HOST:PORT

FOLDER/runs.json has a kind and an address for each run, whose 127.0.0.1:9 becomes HOST:PORT;
FOLDER/out/NUMBER gets what it writes. Each is a fork of this process, which has imported everything
already: a program started anew would take a second each time.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

LONGEST_S = 20
AT_ONCE = 8
"""They mostly wait, each for a second, for what does not answer."""


def watch_metrics(port: int, file: Path) -> None:
    """Write down what /metrics says, for as long as it answers."""
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as said:
            file.write_bytes(said.read())
        time.sleep(0.02)


def run(kind: str, address: str, bundle: str, folder: Path, port: int) -> None:
    """Be the command, once."""
    from tinysaver_edge.cli import main

    folder.mkdir(parents=True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    threading.Thread(target=watch_metrics, args=(port, folder / "metrics"), daemon=True).start()
    source = "demo://?frames=3&fps=100"
    more = ["--limit", "2"]
    if kind in ("rtsp", "http"):
        source = address
    elif kind == "mqtt":
        os.environ["TINYSAVER_MQTT"] = address
    else:
        more += ["--large", address]
    os.environ["TINYSAVER_SOURCE"] = source
    sys.argv = [
        "tinysaver-edge", "run", bundle, "--log-json", "--timeout-s", "1", "--json", *more,
        "--metrics", f"127.0.0.1:{port}", "--jsonl", str(folder / "out.jsonl"),
        "--video", str(folder / "video.avi"), "--hard-frames", str(folder / "hard"),
        "--field-frames", str(folder / "field"), "--audit-share", "1",
    ]  # fmt: skip
    main()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def start(number: int, kind: str, address: str, bundle: str, folder: Path) -> int:
    """Fork, and run in the fork."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(LONGEST_S)
    try:
        run(kind, address, bundle, folder / str(number), free_port())
    except SystemExit:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main() -> int:
    """Run them all; 1 where one did not end."""
    folder, bundle, place = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    import cv2
    import onnxruntime  # noqa: F401

    import tinysaver_edge.cli.run  # noqa: F401

    cv2.setNumThreads(0)
    waiting = list(enumerate(json.loads((folder / "runs.json").read_text())))
    running: dict[int, int] = {}
    hung = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, (kind, address) = waiting.pop()
            address = address.replace("127.0.0.1:9", place)
            running[start(number, kind, address, bundle, folder / "out")] = number
        pid, status = os.wait()
        number = running.pop(pid)
        if os.WIFSIGNALED(status):
            hung.append(f"{number}: signal {os.WTERMSIG(status)}")
    print("\n".join(hung))
    return bool(hung)


if __name__ == "__main__":
    sys.exit(main())
