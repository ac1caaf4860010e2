"""The real command, in a process of its own or in that of the tests, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from tinysaver_edge.cli import main; main()"


class Started:
    """Which command lines have been started, by the command and its options.

    On a Python that is not the one that everything ran on, a line's second start tells nothing new
    about that Python: what differs is what the command is given, not what starts it.
    """

    def __init__(self) -> None:
        self.once = False
        self._seen: set[tuple[str, ...]] = set()

    def tell(self, arguments: tuple[object, ...]) -> None:
        """Skip the test where each line is to be started once, and this one has been."""
        words = [str(one) for one in arguments]
        options = sorted({word.partition("=")[0] for word in words if word.startswith("--")})
        line = (*words[:1], *options)
        if self.once and line in self._seen:
            pytest.skip(f"{' '.join(line)}: started before on this Python")
        self._seen.add(line)


STARTED = Started()


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout; fails where there is anything else."""
        return json.loads(self.out, parse_constant=_refuse)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """A calibration's candidates by name."""
        return {row["saver"]: row for row in self.json["candidates"]}

    @property
    def complaint(self) -> str:
        """The one line of an error; stdout has at most the same, as an object."""
        lines = self.err.splitlines()
        table = self.code == 3 and "Candidates" in self.out  # what each saver would do
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tinysaver-edge: ")
        said = lines[0].removeprefix("tinysaver-edge: ")
        if self.out.startswith("{"):
            assert self.json["error"] == said
            assert self.json["exit_code"] == self.code
        else:
            assert self.out == "" or table
        return said


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def start(
    *arguments: object,
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start the command.

    Args:
        arguments: of the command.
        path: a folder that its Python finds packages in.
        environment: variables besides those of the tests.
        options: of the process; its streams are pipes unless these say otherwise.
    """
    STARTED.tell(arguments)
    paths = [str(one) for one in (path, ROOT) if one is not None]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
        # Tests in a shell's background ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def spawned(*arguments: object, **options: Any) -> Done:
    """Run the command to its end; see `start`."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


Command = Callable[..., Done]


def called(*arguments: object, environment: Mapping[str, str] | None = None) -> Done:
    """Run the entry point in this process; whatever reaches either stream is seen.

    Args:
        arguments: of the command.
        environment: variables besides those of the tests.
    """
    from tinysaver_edge.cli import main

    with (
        pytest.MonkeyPatch.context() as changed,
        _caught(1, "stdout", changed) as out,
        _caught(2, "stderr", changed) as err,
    ):
        for name, value in (environment or {}).items():
            changed.setenv(name, value)
        changed.setattr(sys, "argv", ["tinysaver-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = [_told(one) for one in (out, err)]
    code = ended.value.code
    assert isinstance(code, int)
    assert "Traceback" not in told[1], told[1]
    return Done(code, *told)


@contextmanager
def _caught(number: int, name: str, changed: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """Have a file in a stream's place, for Python and for libraries below it."""
    before = os.dup(number)
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
            changed.setattr(sys, name, file)
            yield file
    finally:
        os.dup2(before, number)
        os.close(before)


def _told(file: IO[str]) -> str:
    file.flush()
    file.seek(0)
    return file.read()
