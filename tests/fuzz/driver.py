"""Feeds a target with mutants: python -m tests.fuzz.driver TARGET [--mutants 10000] [--seed 0]

A mutant that raises anything but a `TinySaverError`, takes longer than 5 s or more than 500 MB is a
finding: it is written to --keep, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS, Target, fresh
from tinysaver_edge.errors import TinySaverError

LONGEST_S = 5
MOST_MB = 500
MOST_FINDINGS = 20


class TooSlow(BaseException):
    """A mutant took too long; nothing that catches exceptions may swallow it."""


@dataclass
class Findings:
    """What went wrong, once for each place in the code."""

    keep: Path
    mutants: int = 0
    slowest_s: float = 0.0
    told: dict[str, str] = field(default_factory=dict)

    def add(self, data: bytes, place: str, text: str) -> None:
        """Keep a mutant that found something new."""
        if place in self.told:
            return
        self.keep.mkdir(parents=True, exist_ok=True)
        file = self.keep / hashlib.sha256(data).hexdigest()[:16]
        file.write_bytes(data)
        self.told[place] = f"{file}: {text}"


def feed(target: Target, data: bytes, findings: Findings) -> None:
    """Feed one mutant."""
    started_s = time.monotonic()
    signal.alarm(LONGEST_S)
    try:
        target.feed(data)
    except TinySaverError:
        pass
    except TooSlow:
        findings.add(data, "slow", f"took longer than {LONGEST_S} s")
    except BaseException as error:
        passed = traceback.extract_tb(error.__traceback__)
        where = [passed[-1], *(one for one in passed if "tinysaver_edge" in one.filename)][-1]
        place = f"{type(error).__name__} {where.filename}:{where.lineno}"
        findings.add(data, place, f"{place}: {error!s:.200}")
    finally:
        signal.alarm(0)
    findings.mutants += 1
    findings.slowest_s = max(findings.slowest_s, time.monotonic() - started_s)


def run(name: str, *, mutants: int, seed: int, keep: Path) -> Findings:
    """Feed a target with so many mutants."""
    findings = Findings(keep / name)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = fresh(Path(scratch) / name)
        target = TARGETS[name](folder)
        for data in target.seeds:  # readable; and whatever is imported or kept is so by now
            target.feed(data)
        before_mb = _most_mb()
        mutator = Mutator(seed)
        for _ in range(mutants):
            data = mutator.mutant(target.seeds)
            feed(target, data, findings)
            if _most_mb() - before_mb > MOST_MB:
                findings.add(data, "memory", f"took more than {MOST_MB} MB")
                break
            if len(findings.told) >= MOST_FINDINGS:
                break
    return findings


def _most_mb() -> float:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def main() -> int:
    """Run one target, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    names = asked.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}: there are {', '.join(TARGETS)}")
    failed = False
    for name in names:
        started_s = time.monotonic()
        pid = os.fork() if len(names) > 1 else 0
        if pid:  # each in a process of its own, so that memory is counted from nothing
            failed |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
            continue
        findings = run(name, mutants=asked.mutants, seed=asked.seed, keep=asked.keep)
        for line in findings.told.values():
            print(f"{name}: {line}")
        print(
            f"{name}: {findings.mutants} mutants in {time.monotonic() - started_s:.0f} s, "
            f"slowest {findings.slowest_s:.2f} s, {len(findings.told)} findings",
            flush=True,
        )
        sys.stdout.flush()
        if len(names) > 1:
            os._exit(bool(findings.told))
        failed = bool(findings.told)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
