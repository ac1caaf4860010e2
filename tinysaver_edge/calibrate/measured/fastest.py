"""Fastest: the engine of a model of engine "auto", measured on some of the images."""

from __future__ import annotations

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.choice_cache import ChoiceCache
from tinysaver_edge.bench.engine_choice import Answered, TryStep, choose_engine, in_way
from tinysaver_edge.calibrate.measured.gathering import Gathering
from tinysaver_edge.calibrate.measured.steps import run_step
from tinysaver_edge.calibrate.measured.timing import TimingPlace
from tinysaver_edge.calibrate.plan import ModelFile


def fastest(run: Gathering, model: ModelFile, prepared: Artefact) -> Artefact:
    """Return a prepared model to be run in the fastest way that agrees with the others.

    What its description says of device and precision holds; see `choose_engine`.

    Raises:
        EngineError: it cannot be run in any.
        DataError: no image can be read.
    """

    def apart(step: TryStep, what: str) -> Answered:
        isolate = run.given.isolate
        return run_step(step, progress=run.progress, what=what, isolate=isolate)

    said = model.description
    place = TimingPlace(run.data, run.fingerprint, run.folder, alone=run.given.isolate)
    chosen = choose_engine(
        prepared,
        run.ways(),
        place.frames(),
        device=said.device,
        precision=said.precision,
        run=apart,
        cache=ChoiceCache.default(),
    )
    for line in chosen.lines():
        run.progress.note(line)
    return in_way(prepared, chosen.choice)
