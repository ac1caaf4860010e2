"""Golden samples: a few frames and their exact answers, so that a device can show it agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.packages import opencv
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bundle.bundle import file_entry
from tinysaver_edge.bundle.manifest import GoldenEntry
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.data import DataSource
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify import golden_answers
from tinysaver_edge.verify.engines import ran_by
from tinysaver_edge.verify.golden import decoded, write_decoder_sample

MOST_FRAMES = 16
"""Golden frames in a bundle, at most: it goes to devices, and the images are the user's."""

MOST_BYTES = 8 << 20
"""Golden frames end here once there are `FEWEST_FRAMES` of them."""

FEWEST_FRAMES = 4

LOOKED_AT = 128
"""Further frames that are decided to find one for each stage, at most."""

LONGEST_SIDE = 1280
"""Larger images are shrunk to this before they become golden frames, in pixels."""

FLOAT_TOLERANCE = 1e-3
"""Difference of probabilities between processors that rounding explains, for float models."""

INTEGER_TOLERANCE = 0.02
"""The same for quantised models, where one step of 256 may tip."""


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
    answers, decoder = folder / "answers.npz", folder / "decoder.jpg"
    write_decoder_sample(decoder)
    stages = [
        Stage.opened(artefact, stage)
        for artefact, stage in zip(artefacts, policy.stages, strict=True)
    ]
    with Cascade(stages, fusion=policy.fusion, pool=policy.pool) as cascade:
        entries, shown = [], []
        for number, (frame, png) in enumerate(_draw(data, pool, seed=seed, cascade=cascade)):
            place = f"golden/{number:02d}.png"
            files[place] = folder / f"{number:02d}.png"
            files[place].write_bytes(png)
            entries.append(file_entry(files[place], place))
            shown.append(frame)
        tables: dict[str, Any] = dict(golden_answers(cascade, shown))
        tables |= decoded(decoder.read_bytes(), shown)
        if labels is not None:
            tables["labels"] = np.array(labels)
        ran = [ran_by(stage.engine) for stage in stages]
        np.savez(answers, **tables)
    files |= {"golden/answers.npz": answers, "golden/decoder.jpg": decoder}
    return GoldenEntry(
        frames=entries,
        answers=file_entry(answers, "golden/answers.npz"),
        tolerances=[_tolerance(stage) for stage in stages],
        decoder=file_entry(decoder, "golden/decoder.jpg"),
        ran=ran,
    )


def _draw(
    data: DataSource, pool: NDArray[np.int64], *, seed: int, cascade: Cascade
) -> list[tuple[Frame, bytes]]:
    """Return frames in random order with their PNG, until there are enough.

    A stage that settles none of these has one of the next in the place of one of the commonest's.
    """
    frames = _frames(data, np.random.default_rng(seed).permutation(pool))
    drawn: list[tuple[Frame, bytes]] = []
    size = 0
    for frame, png in frames:
        drawn.append((frame, png))
        size += len(png)
        if len(drawn) == MOST_FRAMES or (size > MOST_BYTES and len(drawn) >= FEWEST_FRAMES):
            break
    settled = [_settles(cascade, frame) for frame, _ in drawn]
    missing = set(range(len(cascade.stages))) - set(settled)
    if len(drawn) < FEWEST_FRAMES or not missing:
        return drawn
    for frame, png in islice(frames, LOOKED_AT):
        stage = _settles(cascade, frame)
        if stage in missing:
            place = settled.index(max(settled, key=settled.count))
            drawn[place], settled[place] = (frame, png), stage
            missing.discard(stage)
        if not missing:
            break
    return drawn


def _settles(cascade: Cascade, frame: Frame) -> int:
    return cascade.decide(frame).stage.index


def _frames(data: DataSource, order: NDArray[np.int64]) -> Iterator[tuple[Frame, bytes]]:
    """Yield those that can be read, no larger than a bundle keeps them, with their PNG."""
    cv2 = opencv("Writing golden frames")
    for index in order:
        frame = data.frame(int(index))
        if frame is None:
            continue
        longest = max(frame.shape[:2])
        if longest > LONGEST_SIDE:
            shrink = LONGEST_SIDE / longest
            frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        yield frame, cv2.imencode(".png", frame)[1].tobytes()


def _tolerance(stage: Stage) -> float:
    quantised = stage.engine.signature.output_dtype.startswith(("int", "uint"))
    return INTEGER_TOLERANCE if quantised else FLOAT_TOLERANCE
