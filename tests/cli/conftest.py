"""The real command in the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.command import Done
from tinysaver_edge.cli import main

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
