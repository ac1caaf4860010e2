"""The real command, in this process and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tinysaver_edge.cli import main

ROOT = Path(__file__).resolve().parents[2]


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
    def complaint(self) -> str:
        """The one line of an error; fails where there is anything else on either stream."""
        lines = self.err.splitlines()
        assert self.out == ""
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tinysaver-edge: ")
        return lines[0].removeprefix("tinysaver-edge: ")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


Command = Callable[..., Done]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the entry point with arguments; whatever reaches either stream is seen."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["tinysaver-edge", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in err
        return Done(code, out, err)

    return run


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from tinysaver_edge.cli import main; main()", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def spawned(*arguments: object) -> Done:
    """Run the command in a process of its own."""
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)
