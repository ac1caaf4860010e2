"""A stream and a host under attack: idle clients, floods, liars and bombs, all from this machine.

    python benchmarks/bench_attack.py [--seconds 300] [--only ATTACK]... [--bundle demo-bundle]

`tinysaver-edge run` decides the simulated camera, its page and metrics open and its large model
behind a host of our own; where KServe is at hand (.venv-kserve), `tinysaver-edge serve` answers a
device. Each attack takes so many seconds. Meanwhile a supervisor asks for health and, with the
token, for the figures. What has to hold: the stream goes on, the 99th percentile of its answers
within twice that at peace, memory and descriptors bounded, nobody with a token turned away.

What an attack costs is what it costs through our code, not what the attacking programs take of a
small machine. So what is attacked has a core of its own, for all its threads and doors; attackers,
the large model's host and who asks share the others, the attackers niced. And beside the calm there
is a control: the same attackers against a server that does nothing, or, where the attacker is a
device that has the token, as many frames sent honestly. Calm, control and attack take turns in the
life of one process, a few seconds each, so that whatever else runs on the machine disturbs all
three alike. The calm is that of the process so far, of all its attacks together. Both ratios are
printed; the bound is held against the larger of calm and control, and with `--no-control` against
the calm alone, but for devices. Beside them stands the processor time of what is attacked, which no
neighbour disturbs.

On a machine that is never quiet times say little: there the benchmark goes before the neighbours,
as root. Linux counts niceness within a session only (`sched_autogroup_enabled`), so this is about
the session. Each attack is saved as it ends, in its place among those that are there. So all of
them take five minutes each, 85 in all:

    setsid sh -c 'echo -20 > /proc/self/autogroup; exec nice -n -15 \\
        python benchmarks/bench_attack.py --rounds 6 --peace 6'

The attackers: `attackers.py`.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from attackers import TOKEN, Asker, pictures  # noqa: E402
from imagenet import RESULTS, save, table  # noqa: E402

from tinysaver_edge._support.limits import DOOR_SHARE  # noqa: E402

ATTACKERS = ROOT / "benchmarks/attackers.py"
MEMORY_MB = 100
"""What an attack may add to the memory of the stream, or of `serve`."""

DESCRIPTORS = 300
"""What it may add to their descriptors: four times the connections that stay, for a moment."""

FACTOR = 2.0
"""By which the 99th percentile may grow."""

SETTLE_S = 0.25
"""What comes so soon after the beginning of calm or control counts for none."""

PROGRAM = "from tinysaver_edge.cli import main; main()"


@dataclass(slots=True)
class Part:
    """The calm, the controls or the attacks of all rounds.

    Attributes:
        seconds: they took.
        times_ms: of the stream's decisions, or of the host's answers to the device.
        cpu_s: processor time of what is attacked.
        knocks: how often the attackers came.
        asked_ms: how long answers took to who has a right to them.
        refused: those that had none.
    """

    seconds: float = 0.0
    times_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    knocks: int = 0
    asked_ms: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the times."""
        return float(np.percentile(self.times_ms or [1e9], 99))

    def told(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "seconds": self.seconds,
            "answers": len(self.times_ms),
            "p50_ms": float(np.percentile(self.times_ms or [1e9], 50)),
            "p99_ms": self.p99_ms,
            "p99_interval_ms": interval(self.times_ms),
            "cpu_percent": 100 * self.cpu_s / max(self.seconds, 1e-9),
            "knocks_per_s": self.knocks / max(self.seconds, 1e-9),
            "asked": len(self.asked_ms) + len(self.refused),
            "asked_p99_ms": float(np.percentile(self.asked_ms or [1e9], 99)),
            "refused": len(self.refused),
            "refusals": self.refused[:5],
        }


def interval(times_ms: Sequence[float]) -> tuple[float, float]:
    """Where the 99th percentile lies with 95 % confidence, by order statistics."""
    from scipy.stats import binom

    n, ordered = len(times_ms), sorted(times_ms)
    if n == 0:
        return 0.0, 1e9
    low, high = (int(rank) for rank in binom.ppf((0.025, 0.975), n, 0.99))
    return ordered[max(low - 1, 0)], ordered[min(high, n - 1)]


@dataclass(slots=True)
class Phase:
    """One attack.

    Attributes:
        attack: its name.
        share: of a core that what is attacked may give to strangers; None where it may all.
        calm: nobody attacks.
        control: the attackers attack nothing of ours; None where there is none.
        attacked: they attack us.
        grown_mb: memory at its most, beyond that of the beginning.
        descriptors: at their most, beyond the beginning.
    """

    attack: str
    share: float | None = None
    calm: Part = field(default_factory=Part)
    control: Part | None = None
    attacked: Part = field(default_factory=Part)
    grown_mb: float = 0.0
    descriptors: int = 0

    @property
    def peace_ms(self) -> float:
        """The 99th percentile that the attack's is held against."""
        return max(one.p99_ms for one in (self.calm, self.control or self.calm))

    def missed(
        self,
        *,
        rate: float = 0.9,
        factor: float = FACTOR,
        least_ms: float = 5.0,
        slack_s: float = 0.2,
    ) -> list[str]:
        """What did not hold.

        Args:
            rate: of the answers in calm that there must be.
            factor: by which the 99th percentile may grow.
            least_ms: below which it counts as this: a turn of the processor's scheduler.
            slack_s: processor time beyond the share.
        """
        found = []
        found_rate, calm = (len(one.times_ms) / one.seconds for one in (self.attacked, self.calm))
        if found_rate < rate * calm:
            found.append(f"{found_rate:.1f} answers a second, calm {calm:.1f}")
        if self.attacked.p99_ms > factor * max(self.peace_ms, least_ms):
            found.append(f"p99 {self.attacked.p99_ms:.1f} ms, at peace {self.peace_ms:.1f} ms")
        if self.grown_mb > MEMORY_MB or self.descriptors > DESCRIPTORS:
            found.append(f"+{self.grown_mb:.0f} MB, +{self.descriptors} descriptors")
        if self.share is not None:
            calm_s = self.calm.cpu_s / self.calm.seconds * self.attacked.seconds
            cost = (self.attacked.cpu_s - calm_s - slack_s) / self.attacked.seconds
            if cost > self.share:
                found.append(
                    f"{100 * cost:.0f} % of a core beyond the calm, {100 * self.share:.0f}"
                )
        refused, answered = self.attacked.refused, len(self.attacked.asked_ms)
        if len(refused) > 0.01 * answered:
            found.append(f"{len(refused)} of {len(refused) + answered} refused, {refused[:3]}")
        return [f"{self.attack}: {one}" for one in found]

    def told(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "attack": self.attack,
            "date": time.strftime("%Y-%m-%d"),
            "load": os.getloadavg()[0],
            "calm": self.calm.told(),
            "control": None if self.control is None else self.control.told(),
            "attacked": self.attacked.told(),
            "grown_mb": self.grown_mb,
            "descriptors": self.descriptors,
            "missed": self.missed(),
        }


# Processes


@cache
def cores() -> tuple[set[int], set[int]]:
    """The core of what is attacked, and those of all others."""
    there = sorted(os.sched_getaffinity(0))
    return {there[0]}, set(there[1:]) or {there[0]}


class Program:
    """One of `attackers.py`, which ends with its standard input. A context manager.

    Args:
        arguments: of it.
        niceness: beyond that of this program.

    Attributes:
        said: its first line.
    """

    def __init__(self, *arguments: str, niceness: int = 19) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ATTACKERS), *arguments], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        os.sched_setaffinity(self._process.pid, cores()[1])
        os.setpriority(os.PRIO_PROCESS, self._process.pid, os.nice(0) + niceness)
        self.said = self._line()

    def attack(self, ports: Sequence[int]) -> None:
        """Have it attack."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(ports)) + "\n")
        self._process.stdin.flush()

    def hold(self) -> int:
        """Have it hold on; returns how often it knocked."""
        self.attack(())
        return int(self._line())

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate(timeout=20)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Watched:
    """What is attacked: a command of ours, on a core of its own. A context manager."""

    def __init__(self, command: Sequence[str], python: Path | str, folder: Path) -> None:
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(python), "-c", PROGRAM, *command], stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TINYSAVER_TOKEN": TOKEN},
            )  # fmt: skip
        os.sched_setaffinity(self.process.pid, cores()[0])

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait for it."""
        due_s = time.monotonic() + 60
        while time.monotonic() < due_s and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if ready():
                    return
            time.sleep(0.1)
        raise SystemExit(f"it does not start:\n{self.log.read_text()[-2000:]}")

    def memory_mb(self) -> float:
        """What it holds of the machine's memory."""
        status = self._proc("status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self) -> int:
        """How many files and connections it holds."""
        return sum(1 for _ in self._proc("fd").iterdir())

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")


@dataclass(frozen=True, slots=True)
class Turns:
    """How calm, control and attack take turns.

    Attributes:
        seconds: of all turns of the attack together.
        rounds: so many turns each.
        peace_s: of all turns of the calm together, and of the control.
        control: whether strangers are measured against a control; devices always are.
    """

    seconds: float = 300.0
    rounds: int = 20
    peace_s: float = 30.0
    control: bool = True


Side: TypeAlias = "tuple[Program, tuple[int, ...]]"
"""Attackers, and the ports that they attack."""


@dataclass(slots=True)
class Siege:
    """What is attacked, and who has a right to its answers.

    Attributes:
        watched: the process.
        question: asks a question; raises where there is no answer.
        fresh: times of what was done since it was called last, ms.
        pause_s: from one question to the next.
        share: of a core that the process may give to strangers.
        calm: that of the process so far.
    """

    watched: Watched
    question: Callable[[], None]
    fresh: Callable[[], list[float]]
    pause_s: float
    share: float | None = None
    calm: Part = field(default_factory=Part)

    def lay(self, name: str, attack: Side, control: Side | None, turns: Turns) -> Phase:
        """Take calm, control and attack in turns.

        Args:
            name: of the attack.
            attack: attackers, and the ports that they attack.
            control: the same for the control, or None.
            turns: how long, and how often.
        """
        phase = Phase(name, self.share, self.calm, None if control is None else Part())
        peace_s = turns.peace_s / turns.rounds
        if not self.calm.seconds:  # for the first there would be little of it
            self._part(self.calm, None, 2 * turns.peace_s)
        memory_mb, descriptors = self.watched.memory_mb(), self.watched.descriptors()
        for _ in range(turns.rounds):
            self._part(phase.calm, None, peace_s, settle_s=SETTLE_S)
            if phase.control is not None:
                self._part(phase.control, control, peace_s, settle_s=SETTLE_S)
            most_mb, most = self._part(phase.attacked, attack, turns.seconds / turns.rounds)
            phase.grown_mb = max(phase.grown_mb, most_mb - memory_mb)
            phase.descriptors = max(phase.descriptors, most - descriptors)
        return phase

    def _part(
        self, part: Part, side: Side | None, seconds: float, *, settle_s: float = 0.0
    ) -> tuple[float, int]:
        """Measure for a while; returns memory and descriptors at their most."""
        if side is not None:
            side[0].attack(side[1])
        time.sleep(settle_s)
        self.fresh()
        memory_mb, descriptors = 0.0, 0
        began_s, cpu_s = time.monotonic(), self.watched.cpu_s()
        while (now_s := time.monotonic()) - began_s < seconds:
            try:
                self.question()
                part.asked_ms.append(1e3 * (time.monotonic() - now_s))
            except Exception as error:  # whatever it is, somebody has had no answer
                part.refused.append(f"{type(error).__name__} {error}"[:120])
            memory_mb = max(memory_mb, self.watched.memory_mb())
            descriptors = max(descriptors, self.watched.descriptors())
            time.sleep(max(0.0, now_s + self.pause_s - time.monotonic()))
        part.seconds += time.monotonic() - began_s
        part.cpu_s += self.watched.cpu_s() - cpu_s
        part.times_ms += self.fresh()
        if side is not None:
            part.knocks += side[0].hold()
        return memory_mb, descriptors


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def ask(port: int, path: str, token: str | None = None) -> int:
    """Return the status that a new connection is answered with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


Attacks: TypeAlias = "dict[str, Callable[[Turns], Phase]]"
"""What can be laid."""


# A stream, its doors, and its large model's host

DOORS = (
    "silent clients",
    "dripping clients",
    "wrong tokens",
    "headers without end",
    "connections that hang up",
    "floods of what is free",
)
LIES = "a large model's host that lies"


@contextmanager
def stream_attacks(bundle: Path) -> Iterator[Attacks]:
    """Start a stream; give what attacks it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        liar = stack.enter_context(Program("liar", str(bundle), niceness=0))
        idle = int(stack.enter_context(Program("nothing")).said)
        page, metrics = free_port(), free_port()
        command = ["run", str(bundle), "--source", "demo://?fps=25", "--quiet", "--threads", "1",
                   "--jsonl", str(folder / "out"), "--dashboard", f"127.0.0.1:{page}",
                   "--metrics", f"127.0.0.1:{metrics}",
                   "--large", f"http://127.0.0.1:{int(liar.said)}/large"]  # fmt: skip
        watched = stack.enter_context(Watched(command, sys.executable, folder))
        watched.until(lambda: ask(page, "/readyz") == ask(metrics, "/readyz") == 200)
        lines = stack.enter_context((folder / "out").open())
        turns = itertools.cycle(
            [(page, "/healthz", None), (metrics, "/healthz", None),
             (page, "/state.json", TOKEN), (metrics, "/metrics", TOKEN)]
        )  # fmt: skip

        def question() -> None:
            port, path, token = next(turns)
            if (status := ask(port, path, token)) != 200:
                raise OSError(f"{path} {status}")

        def fresh() -> list[float]:
            told = [json.loads(line) for line in lines if line.endswith("\n")]
            return [one["timings_ms"]["total"] for one in told if not one["revision"]]

        siege = Siege(watched, question, fresh, pause_s=0.08, share=2 * DOOR_SHARE)
        for _ in range(8):  # what is loaded once is loaded
            question()
            time.sleep(0.1)

        def at_the_doors(name: str, turns: Turns) -> Phase:
            with Program(name) as they:
                control = (they, (idle,)) if turns.control else None
                return siege.lay(name, (they, (page, metrics)), control, turns)

        def lies(turns: Turns) -> Phase:
            return siege.lay(LIES, (liar, (1,)), None, turns)

        yield {**{name: partial(at_the_doors, name) for name in DOORS}, LIES: lies}


# A host of `serve` that a device asks

STRANGERS = {
    "silent clients": False,
    "dripping clients": False,
    "wrong tokens": False,
    "headers without end": False,
    "floods of what is free": False,
    "half-open gRPC": True,
    "wrong tokens over gRPC": True,
}
"""Whether they come by gRPC."""

DEVICES = {
    "a device that sends bombs": "pairs of pictures",
    "a device that sends 400 frames at once": "eight pictures at once",
}
"""And what the same device sends for the control."""


@contextmanager
def host_attacks(bundle: Path, python: Path) -> Iterator[Attacks]:
    """Start `serve`; give what attacks it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        idle = int(stack.enter_context(Program("nothing")).said)
        (folder / "token").write_text(TOKEN)
        grpc, web = free_port(), free_port()
        command = ["serve", str(bundle), "--bind", f"127.0.0.1:{grpc}", "--http-port", str(web),
                   "--name", "large", "--jpeg", "--threads", "1",
                   "--token-file", str(folder / "token")]  # fmt: skip
        watched = stack.enter_context(Watched(command, python, folder))
        watched.until(lambda: ask(web, "/v2/health/live") == 200)
        device = Asker(grpc)
        stack.callback(device.close)
        picture, _ = pictures(bundle)
        times_ms: list[float] = []

        def question() -> None:
            began_s = time.monotonic()
            device.infer([picture], timeout_s=2.0)
            times_ms.append(1e3 * (time.monotonic() - began_s))
            if (status := ask(web, "/v2/health/live")) != 200:
                raise OSError(f"health {status}")

        def fresh() -> list[float]:
            found = times_ms[:]
            times_ms.clear()
            return found

        siege = Siege(watched, question, fresh, pause_s=0.05)
        for _ in range(20):  # what is loaded once is loaded
            question()

        def strangers(name: str, port: int, turns: Turns) -> Phase:
            with Program(name) as they:
                control = (they, (idle,)) if turns.control else None
                return siege.lay(f"serve: {name}", (they, (port,)), control, turns)

        def devices(name: str, honest: str, turns: Turns) -> Phase:
            with Program(name, str(bundle)) as bad, Program(honest, str(bundle)) as good:
                return siege.lay(f"serve: {name}", (bad, (grpc,)), (good, (grpc,)), turns)

        yield {
            **{f"serve: {name}": partial(strangers, name, grpc if by_grpc else web)
               for name, by_grpc in STRANGERS.items()},
            **{f"serve: {name}": partial(devices, name, honest)
               for name, honest in DEVICES.items()},
        }  # fmt: skip


# What is told


def merged(fresh: list[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """Put results among those that are there."""
    there = RESULTS / "bench_attack.json"
    old = json.loads(there.read_text())["attacks"] if there.is_file() else []
    kept = {one["attack"]: one for one in [*old, *fresh]}
    return [kept[name] for name in order if name in kept]


def row(one: dict[str, Any]) -> list[str]:
    calm, control, attacked = one["calm"], one["control"] or one["calm"], one["attacked"]
    low, high = attacked["p99_interval_ms"]
    return [
        one["attack"],
        f"{attacked['seconds']:.0f}",
        f"{attacked['answers'] / attacked['seconds']:.1f}",
        f"{calm['p50_ms']:.1f} → {attacked['p50_ms']:.1f}",
        f"{calm['p99_ms']:.1f}",
        "–" if one["control"] is None else f"{control['p99_ms']:.1f}",
        f"{attacked['p99_ms']:.1f} ({low:.1f} to {high:.1f})",
        f"{attacked['p99_ms'] / calm['p99_ms']:.2f}",
        "–" if one["control"] is None else f"{attacked['p99_ms'] / control['p99_ms']:.2f}",
        f"{calm['cpu_percent']:.0f} → {attacked['cpu_percent']:.0f}",
        f"{attacked['knocks_per_s']:.0f}",
        f"{one['grown_mb']:+.0f}",
        f"{one['descriptors']:+d}",
        f"{attacked['refused']} of {attacked['asked']}",
        f"{attacked['asked_p99_ms']:.0f}",
        f"{one['load']:.1f}",
    ]


HEAD = ["attack", "s", "answers/s", "p50 ms, calm → attacked", "calm p99 ms", "control p99 ms",
        "attacked p99 ms (95 %)", "÷ calm", "÷ control", "processor %", "knocks/s", "MB",
        "descriptors", "turned away", "their p99 ms", "load"]  # fmt: skip


def tell(told: Sequence[dict[str, Any]], *, dry: bool) -> list[str]:
    """Print what there is, or save it; returns what did not hold."""
    wrong = [line for one in told for line in one["missed"]]
    text = table(HEAD, [row(one) for one in told])
    text += "\n\n" + ("\n".join(wrong) or "All of it holds.")
    if dry:
        print(text, flush=True)
    else:
        text += f"\n\nThe last one with `{' '.join(sys.argv[1:])}`."
        save("bench_attack", title="Under attack", text=text, figures={"attacks": told})
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = Turns()
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each attack")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="so many turns each")
    parser.add_argument("--peace", type=float, default=usual.peace_s, help="seconds of calm each")
    parser.add_argument("--no-control", action="store_true", help="hold strangers against calm")
    parser.add_argument("--only", action="append", help="an attack's name; may be repeated")
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo-bundle")
    parser.add_argument("--dry", action="store_true", help="print, and keep no results")
    chosen = parser.parse_args()
    turns = Turns(chosen.seconds, chosen.rounds, chosen.peace, not chosen.no_control)
    python = Path(os.environ.get("TINYSAVER_KSERVE_VENV", ROOT / ".venv-kserve")) / "bin/python"
    order = [*DOORS, LIES, *(f"serve: {name}" for name in (*STRANGERS, *DEVICES))]
    wanted = chosen.only or [one for one in order if python.exists() or "serve: " not in one]
    if unknown := set(wanted) - set(order):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; there are {', '.join(order)}")
    if not (chosen.bundle / "bundle.json").is_file():
        parser.error(f"{chosen.bundle}: no bundle is there; `make demo` makes one, or --bundle")
    hosts = [one for one in wanted if "serve: " in one]
    if hosts and not python.exists():
        parser.error(f"{python}: KServe is not there; `make servers` installs it")
    os.sched_setaffinity(0, cores()[1])
    told: list[dict[str, Any]] = []
    for names, opened in (
        ([one for one in wanted if one not in hosts], partial(stream_attacks, chosen.bundle)),
        (hosts, partial(host_attacks, chosen.bundle, python)),
    ):
        if names:
            with opened() as attacks:
                for name in names:
                    told.append(attacks[name](turns).told())
                    tell(told[-1:] if chosen.dry else merged(told, order), dry=chosen.dry)
    return 1 if any(one["missed"] for one in told) else 0


if __name__ == "__main__":
    sys.exit(main())
