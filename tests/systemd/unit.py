"""Drives the unit of examples/deploy with a real systemd, as root, in a machine made for it.

`.ci/vm systemd` runs this with nothing but the standard library. The last line is the exit code.
"""

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

UNIT = "tinysaver-edge"
DECISIONS = Path("/var/lib/tinysaver-edge/decisions.jsonl")
MODEL = Path("/opt/tinysaver-edge/bundle/models/saver.onnx")
READY = "http://127.0.0.1:9464/readyz"
PATIENCE_S = 240
BEGUN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


def systemctl(*words, check=True):
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (words, done.stderr, journal())
    return done


def shown(name):
    return systemctl("show", "--property", name, "--value", UNIT).stdout.strip()


def journal():
    words = ["journalctl", "--unit", UNIT, "--no-pager", "--output", "cat"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout[-3000:]


def ready():
    try:
        with urllib.request.urlopen(READY, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def until(condition, what):
    end, told = time.monotonic() + PATIENCE_S, time.monotonic()
    while not condition():
        assert time.monotonic() < end, f"no {what} in {PATIENCE_S} s\n{journal()}"
        time.sleep(1)
        if time.monotonic() > told + 20:
            told = time.monotonic()
            last = journal().splitlines()[-1:] or [""]
            say(f"  … {shown('ActiveState')}, {shown('SubState')}: {last[0][:120]}")
    say(what)


def decided():
    """Every line is whole, also those before a kill."""
    lines = DECISIONS.read_text().splitlines() if DECISIONS.exists() else []
    return [json.loads(line) for line in lines]


def started():
    systemctl("start", "--no-block", UNIT)
    until(ready, "started: verified, and ready")
    until(lambda: len(decided()) > 3, "decides what the camera shows")
    assert shown("NRestarts") == "0"


def killed():
    systemctl("kill", "--signal", "KILL", "--kill-whom", "main", UNIT)
    until(lambda: shown("NRestarts") == "1", "killed, and started again")
    before = len(decided())
    until(lambda: ready() and len(decided()) > before + 3, "ready again, and deciding")


def stopped():
    begun = time.monotonic()
    systemctl("stop", UNIT)
    seconds = time.monotonic() - begun
    assert shown("Result") == "success", shown("Result")
    assert shown("ExecMainStatus") == "143", shown("ExecMainStatus")
    assert seconds < 20, seconds
    say(f"stopped in {seconds:.1f} s with 143, which counts as success; {len(decided())} decisions")


def tampered():
    with MODEL.open("ab") as file:
        file.write(b"x")
    systemctl("start", UNIT, check=False)
    assert shown("ActiveState") != "active"
    assert not ready()
    said = [line for line in journal().splitlines() if line.startswith("tinysaver-edge: bundle")]
    assert said, journal()
    say(f"does not start with a model that was tampered with: {said[-1]}")
    systemctl("stop", UNIT)


def exposed():
    words = ["systemd-analyze", "security", "--no-pager", UNIT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    say(done.stdout.strip().splitlines()[-1].strip())


if __name__ == "__main__":
    code = 1
    say("systemd runs this")
    try:
        for step in (started, killed, stopped, tampered, exposed):
            step()
        code = 0
    finally:
        print(f"exit code {code}", flush=True)
        Path("/proc/sysrq-trigger").write_text("o")
