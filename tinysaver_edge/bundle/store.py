"""A device's bundles on its disk: which one decides, which is on trial, what became of each.

    STORE/bundles/…      a folder for each bundle that is still needed
    STORE/state.json     which of them decides, replaced in one step
    STORE/history.jsonl  a line for whatever became of one, and why

A bundle on trial is noted before it decides its first frame. A process that ends without saying so,
killed or by a power cut, therefore comes up with the bundle of before, and what was on trial is not
tried again until it has changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge._support.files import atomic_write, claim, parse_json, read_file
from tinysaver_edge._support.numbers import time_of_day
from tinysaver_edge.bundle.bundle import put_in_place, sync_folder
from tinysaver_edge.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

HISTORY_BYTES = 1 << 20
"""Size at which the history is set aside as `history.jsonl.1`, one of which stays."""

_OWN = re.compile(r"[0-9a-f]{16}-\d+|incoming")
"""What its folders are called: a folder of a user's own bundles may be the store's as well."""

MOST_REFUSED = 64
"""So many that were refused are remembered."""

DIED = "the process ended during its trial and did not say why: killed, crashed, or a power cut"


@dataclass(frozen=True, slots=True)
class Held:
    """A bundle in the store.

    Attributes:
        folder: its folder's name below `bundles`.
        sha256: of its `bundle.json`.
        name: what it was signed as; None where nobody looked.
        version: which of that name; None as well.
    """

    folder: str
    sha256: str
    name: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        known = "" if self.name is None else f"{self.name} version {self.version}, "
        return f"{known}{self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the store knows.

    Attributes:
        current: what decides and has passed its trial; None where nothing of the store does.
        previous: what decided before.
        refused: why each was refused or rolled back, by the hash of its `bundle.json` or of what
            lay at the target.
    """

    current: Held | None = None
    trial: Held | None = None
    previous: Held | None = None
    refused: dict[str, str] = field(default_factory=dict)


class BundleStore:
    """The bundles of one device. A context manager: one process at a time has it.

    Args:
        folder: where; made where it is missing.
        wall: seconds since 1970, for the history.

    Attributes:
        untold: outcome, bundle and reason of what came to light before anybody listened.
    """

    def __init__(self, folder: Path, *, wall: Callable[[], float]) -> None:
        self.folder = folder
        self.state = StoreState()
        self.untold: list[tuple[str, str, str]] = []
        self._wall = wall
        self._held: int | None = None

    def __enter__(self) -> Self:
        """Open it; roll back what was on trial when a process ended.

        Raises:
            InputError: it cannot be made or read, or another process has it.
        """
        try:
            (self.folder / "bundles").mkdir(parents=True, exist_ok=True)
            self._held = claim(self.folder)
            self.state = self._read()
            if self.state.trial is not None:
                self.untold.append(("rolled_back", str(self.state.trial), DIED))
                self.roll_back(DIED)
            self._tidy()
        except OSError as error:
            self.__exit__()
            raise InputError(f"store {self.folder}: {error.strerror or error}") from error
        except InputError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    # What is where

    def path(self, kept: Held) -> Path:
        """Return a bundle's folder."""
        return self.folder / "bundles" / kept.folder

    @property
    def incoming(self) -> Path:
        """Where the next one is pulled to."""
        return self.folder / "bundles" / "incoming"

    @property
    def paths(self) -> list[Path]:
        """The folders of all bundles that are here."""
        return [path for path in (self.folder / "bundles").iterdir() if path.is_dir()]

    def refusal(self, key: str) -> str | None:
        """Return why a bundle is not tried again; None where it may be."""
        return self.state.refused.get(key)

    # What becomes of one

    def admit(self, sha256: str, *, name: str | None, version: int | None) -> Held:
        """Give what was pulled to `incoming` its place; it decides nothing yet.

        Raises:
            OSError: it cannot be moved.
        """
        kept = Held(f"{sha256[:16]}-{version or 0}", sha256, name, version)
        put_in_place(self.incoming, self.path(kept))
        sync_folder(self.folder / "bundles")
        return kept

    def begin_trial(self, kept: Held) -> None:
        """A bundle is about to decide."""
        self._write(replace(self.state, trial=kept))
        self.note("trial", str(kept))

    def keep(self) -> Held:
        """What is on trial has passed: it is the current one from now on."""
        kept = self.state.trial
        assert kept is not None
        self._write(replace(self.state, current=kept, previous=self.state.current, trial=None))
        self.note("kept", str(kept))
        self._tidy()
        return kept

    def roll_back(self, reason: str) -> None:
        """What is on trial has failed: the current one decides, and this is not tried again."""
        kept = self.state.trial
        assert kept is not None
        self._write(replace(self._refusing(reason, kept.sha256), trial=None))
        self.note("rolled_back", str(kept), reason)
        self._tidy()

    def pause(self) -> None:
        """The process ends in good order during a trial: it is tried anew at the next start."""
        kept = self.state.trial
        if kept is not None:
            self._write(replace(self.state, trial=None))
            self.note("paused", str(kept), "the run was stopped")

    def refuse(self, shown: str, reason: str, *keys: str) -> None:
        """A bundle is not to decide, and not to be fetched again under these keys."""
        self._write(self._refusing(reason, *keys))
        self.note("refused", shown, reason)
        self._tidy()

    def forgive(self) -> None:
        """Let everything that was refused be tried again."""
        self._write(replace(self.state, refused={}))

    def note(self, outcome: str, bundle: str, reason: str = "") -> None:
        """Add a line to the history, unless its disk fails: what is decided does not hang on it."""
        line = {"at": time_of_day(self._wall()), "outcome": outcome, "bundle": bundle}
        text = json.dumps({**line, "reason": reason}) + "\n"
        path = self.folder / "history.jsonl"
        with suppress(OSError):
            if path.exists() and path.stat().st_size > HISTORY_BYTES:
                path.replace(path.with_suffix(".jsonl.1"))
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

    # On disk

    def _refusing(self, reason: str, *keys: str) -> StoreState:
        refused = {**self.state.refused, **dict.fromkeys(keys, reason)}
        return replace(self.state, refused=dict(list(refused.items())[-MOST_REFUSED:]))

    def _write(self, state: StoreState) -> None:
        with atomic_write(self.folder / "state.json") as file:
            file.write(json.dumps(asdict(state), indent=1).encode() + b"\n")
        sync_folder(self.folder)
        self.state = state

    def _read(self) -> StoreState:
        path = self.folder / "state.json"
        try:
            told = parse_json(read_file(path))
            held = {name: _held_from(told[name]) for name in ("current", "trial", "previous")}
            refused = {str(key): str(why) for key, why in told["refused"].items()}
        except FileNotFoundError:
            return StoreState()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"store {self.folder}: state.json is damaged: remove it to begin anew"
            ) from error
        return StoreState(**held, refused=refused)

    def _tidy(self) -> None:
        """Remove its folders that nobody needs; not what was being fetched, and no others."""
        state = self.state
        needed = {one.folder for one in (state.current, state.trial, state.previous) if one}
        for path in self.paths:
            if path.name not in needed and _OWN.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _held_from(told: Any) -> Held | None:  # noqa: ANN401 - of a file
    if told is None:
        return None
    kept = Held(**told)
    if not isinstance(kept.folder, str) or kept.folder != Path(kept.folder).name:
        raise ValueError("a folder outside the store")
    return kept
