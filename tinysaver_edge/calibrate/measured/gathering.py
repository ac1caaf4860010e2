"""A gathering under way: its time, and the savers that it goes on without."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tinysaver_edge._support.progress import Progress
from tinysaver_edge.bench.engine_choice import candidates
from tinysaver_edge.calibrate.measured.worker import WorkerLostError
from tinysaver_edge.calibrate.plan import ImageInput
from tinysaver_edge.cascade import Clock
from tinysaver_edge.data import DataSource
from tinysaver_edge.errors import EngineError
from tinysaver_edge.hardware.profile import EngineChoice


@dataclass(slots=True)
class Gathering:
    """Models being run over images.

    Attributes:
        given: models and options.
        data: the images, open.
        folder: where records and prepared models lie.
        progress: hears of the work.
        clock: seconds, for the time budget.
        started: what the clock said at the start.
        fingerprint: of the data.
        lost: savers that were lost or left out, and why.
    """

    given: ImageInput
    data: DataSource
    folder: Path
    progress: Progress
    clock: Clock
    started: float
    fingerprint: str
    lost: dict[str, str] = field(default_factory=dict)
    _ways: tuple[EngineChoice, ...] | None = None

    def ways(self) -> tuple[EngineChoice, ...]:
        """Return the ways to run a model that the device offers; this machine is asked once."""
        if self._ways is None:
            self._ways = candidates(self.given.profile)
        return self._ways

    def is_variant(self, name: str) -> bool:
        """Whether a saver is one of several forms of a file."""
        return any(one.variant and one.description.name == name for one in self.given.savers)

    def lose(self, name: str, error: EngineError) -> None:
        """Go on without a saver whose process died, or a variant that cannot be run.

        Raises:
            EngineError: the error, where the saver was asked for as it is.
        """
        if not isinstance(error, WorkerLostError) and not self.is_variant(name):
            raise error
        self.leave_out(name, str(error))

    def leave_out(self, name: str, why: str) -> None:
        """Go on without a saver."""
        self.lost[name] = why
        self.progress.note(f"{name}: {why}")

    @property
    def reasons(self) -> str:
        """Say why each saver was lost, each reason once."""
        named = {
            why: [name for name in self.lost if self.lost[name] == why]
            for why in self.lost.values()
        }
        return "; ".join(f"{', '.join(names)}: {why}" for why, names in named.items())

    @property
    def spent(self) -> str:
        """Say that there is no time left."""
        return f"the time budget of {self.given.time_budget_s:g} s is spent"

    @property
    def seconds_left(self) -> float | None:
        """What is left of the time budget, None where there is none."""
        if self.given.time_budget_s is None:
            return None
        return self.given.time_budget_s - (self.clock() - self.started)
