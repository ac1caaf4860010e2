"""Golden samples: a few frames and their exact answers, so that a device can show it agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write, read_arrays
from tinysaver_edge._support.packages import opencv
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.bundle import file_entry
from tinysaver_edge.bundle.manifest import GoldenEntry
from tinysaver_edge.calibrate.problem import GoldenModel, GoldenSamples
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.errors import RecordError
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify.check import ran_by
from tinysaver_edge.verify.golden import (
    decided,
    decoder_answers,
    golden_answers,
    stage_answers,
    told_of,
    write_decoder_sample,
)

MOST_FRAMES = 16
"""Golden frames in a bundle, at most: it goes to devices, and the images are the user's."""

MOST_BYTES = 8 << 20
"""Golden frames end here once there are `FEWEST_FRAMES` of them."""

FEWEST_FRAMES = 4

LOOKED_AT = 128
"""Further frames that are decided to find one for each stage, at most."""

MOST_KEPT = 2 * MOST_FRAMES
"""Frames kept ahead, at most: among them one for each stage, whatever is chosen."""

LONGEST_SIDE = 1280
"""Larger images are shrunk to this before they become golden frames, in pixels."""

FLOAT_TOLERANCE = 1e-3
"""Difference of probabilities between processors that rounding explains, for float models."""

INTEGER_TOLERANCE = 0.02
"""The same for quantised models, where one step of 256 may tip."""

_ANSWERS, _DECODER = "answers.npz", "decoder.jpg"

Shown = TypeVar("Shown")


def keep_golden(
    artefacts: Sequence[Artefact],
    data: DataSource,
    *,
    pool: NDArray[np.int64],
    seed: int,
    folder: Path,
) -> GoldenSamples:
    """Draw frames, run every model on them and keep what each answers, whatever is chosen later."""
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[int] = []
    frames: list[Frame] = []
    for index, frame, png in islice(_frames(data, _shuffled(pool, seed)), MOST_KEPT):
        (folder / f"{len(samples):02d}.png").write_bytes(png)
        samples.append(index)
        frames.append(frame)
    write_decoder_sample(folder / _DECODER)
    tables = decoder_answers((folder / _DECODER).read_bytes(), frames)
    models = {}
    for artefact in artefacts:
        stage = Stage.opened(artefact, StagePolicy(artefact.name))
        try:
            answers = stage_answers(stage, frames)
            models[artefact.name] = GoldenModel(ran_by(stage.engine), _tolerance(stage))
        finally:
            stage.close()
        tables |= {f"{name}_{artefact.name}": one for name, one in answers.items()}
    with atomic_write(folder / _ANSWERS) as file:
        np.savez(file, **tables)  # type: ignore[arg-type]
    return GoldenSamples(folder, tuple(samples), models)


def golden_from(
    kept: GoldenSamples,
    policy: Policy,
    *,
    pool: NDArray[np.int64],
    folder: Path,
    files: dict[str, Path],
    labels: Sequence[str] | None = None,
) -> GoldenEntry:
    """Make the golden samples of a bundle of those that were kept where its models were measured.

    Args:
        kept: frames and all models' answers.
        policy: the stages that were chosen.
        pool: positions in the data to take frames from, where any of those kept is among them.
        folder: where the files are made.
        files: receives them by their place in the bundle.
        labels: the classes' names.

    Raises:
        RecordError: what was kept is damaged.
    """
    names = [stage.model for stage in policy.stages]
    try:
        tables = read_arrays(kept.folder / _ANSWERS)
        logits = [tables[f"logits_{name}"] for name in names]
        decisions = decided(policy, logits)
        order = [int(n) for n in np.flatnonzero(np.isin(kept.samples, pool))]
        shown = [
            (n, (kept.folder / f"{n:02d}.png").read_bytes())
            for n in order or range(len(kept.samples))
        ]
        chosen = [n for n, _ in _draw(iter(shown), lambda n: decisions[n].stage.index, len(names))]
        answers = {"decoded": tables["decoded"], "frame_sha256": tables["frame_sha256"][chosen]}
        for position, name in enumerate(names):
            answers[f"probe_{position}"] = tables[f"probe_{name}"]
            answers[f"input_{position}"] = tables[f"input_{name}"][chosen]
            answers[f"logits_{position}"] = tables[f"logits_{name}"][chosen]
        models = [kept.models[name] for name in names]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RecordError(
            f"records {kept.folder}: the samples kept there are damaged ({error!r}): measure again"
        ) from error
    answers |= told_of([decisions[n] for n in chosen])
    return _entry(
        [kept.folder / f"{n:02d}.png" for n in chosen],
        answers,
        kept.folder / _DECODER,
        models,
        folder=folder,
        files=files,
        labels=labels,
    )


def make_golden(
    policy: Policy,
    artefacts: Sequence[Artefact],
    data: DataSource,
    *,
    pool: NDArray[np.int64],
    seed: int,
    folder: Path,
    files: dict[str, Path],
    labels: Sequence[str] | None = None,
) -> GoldenEntry:
    """Draw frames, run every stage on them and keep what it answers.

    Args:
        policy: the stages.
        artefacts: their models.
        data: the images.
        pool: positions in the data to draw from.
        seed: decides the draw.
        folder: where the files are made.
        files: receives them by their place in the bundle.
        labels: the classes' names.
    """
    decoder = folder / _DECODER
    write_decoder_sample(decoder)
    stages = [
        Stage.opened(artefact, stage)
        for artefact, stage in zip(artefacts, policy.stages, strict=True)
    ]
    with Cascade(stages, fusion=policy.fusion, pool=policy.pool) as cascade:
        found = ((frame, png) for _, frame, png in _frames(data, _shuffled(pool, seed)))
        drawn = _draw(found, lambda frame: cascade.decide(frame).stage.index, len(stages))
        places = []
        for number, (_, png) in enumerate(drawn):
            places.append(folder / f"{number:02d}.png")
            places[-1].write_bytes(png)
        frames = [frame for frame, _ in drawn]
        answers = golden_answers(cascade, frames)
        answers |= decoder_answers(decoder.read_bytes(), frames)
        models = [GoldenModel(ran_by(stage.engine), _tolerance(stage)) for stage in stages]
    return _entry(places, answers, decoder, models, folder=folder, files=files, labels=labels)


def _entry(
    pictures: Sequence[Path],
    answers: Mapping[str, NDArray[Any]],
    decoder: Path,
    models: Sequence[GoldenModel],
    *,
    folder: Path,
    files: dict[str, Path],
    labels: Sequence[str] | None,
) -> GoldenEntry:
    """Write the answers, and name every file by its place in the bundle."""
    named = {} if labels is None else {"labels": np.array(labels)}
    np.savez(folder / _ANSWERS, **answers, **named)  # type: ignore[arg-type]
    placed = {f"golden/{number:02d}.png": file for number, file in enumerate(pictures)}
    files |= placed
    files |= {f"golden/{_ANSWERS}": folder / _ANSWERS, f"golden/{_DECODER}": decoder}
    return GoldenEntry(
        frames=[file_entry(file, place) for place, file in placed.items()],
        answers=file_entry(folder / _ANSWERS, f"golden/{_ANSWERS}"),
        tolerances=[model.tolerance for model in models],
        decoder=file_entry(decoder, f"golden/{_DECODER}"),
        ran=[model.ran for model in models],
    )


def _draw(
    found: Iterator[tuple[Shown, bytes]], settles: Callable[[Shown], int], stages: int
) -> list[tuple[Shown, bytes]]:
    """Return frames with their PNG, from the first on, until there are enough.

    A stage that settles none of these has one of the next in the place of one of the commonest's.
    """
    drawn: list[tuple[Shown, bytes]] = []
    size = 0
    for shown, png in found:
        drawn.append((shown, png))
        size += len(png)
        if len(drawn) == MOST_FRAMES or (size > MOST_BYTES and len(drawn) >= FEWEST_FRAMES):
            break
    settled = [settles(shown) for shown, _ in drawn]
    missing = set(range(stages)) - set(settled)
    if len(drawn) < FEWEST_FRAMES or not missing:
        return drawn
    for shown, png in islice(found, LOOKED_AT):
        stage = settles(shown)
        if stage in missing:
            place = settled.index(max(settled, key=settled.count))
            drawn[place], settled[place] = (shown, png), stage
            missing.discard(stage)
        if not missing:
            break
    return drawn


def _shuffled(pool: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(pool)


def _frames(data: DataSource, order: NDArray[np.int64]) -> Iterator[tuple[int, Frame, bytes]]:
    """Yield those that can be read, no larger than a bundle keeps them, with position and PNG."""
    cv2 = opencv("Writing golden frames")
    for index in order:
        frame = data.frame(int(index))
        if frame is None:
            continue
        longest = max(frame.shape[:2])
        if longest > LONGEST_SIDE:
            shrink = LONGEST_SIDE / longest
            frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        yield int(index), frame, cv2.imencode(".png", frame)[1].tobytes()


def _tolerance(stage: Stage) -> float:
    quantised = stage.engine.signature.output_dtype.startswith(("int", "uint"))
    return INTEGER_TOLERANCE if quantised else FLOAT_TOLERANCE
