"""Golden samples: a few frames and their exact answers, so that a device can show it agrees."""

from __future__ import annotations

from collections.abc import Sequence
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
"""Golden frames end here once there are four of them."""

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
    frames = _draw(data, pool, seed=seed)
    entries = []
    for number, (_, png) in enumerate(frames):
        place = f"golden/{number:02d}.png"
        files[place] = folder / f"{number:02d}.png"
        files[place].write_bytes(png)
        entries.append(file_entry(files[place], place))
    answers, decoder = folder / "answers.npz", folder / "decoder.jpg"
    write_decoder_sample(decoder)
    stages = [
        Stage.opened(artefact, stage)
        for artefact, stage in zip(artefacts, policy.stages, strict=True)
    ]
    with Cascade(stages, fusion=policy.fusion) as cascade:
        shown = [frame for frame, _ in frames]
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


def _draw(data: DataSource, pool: NDArray[np.int64], *, seed: int) -> list[tuple[Frame, bytes]]:
    """Return frames in random order with their PNG, until there are enough."""
    cv2 = opencv("Writing golden frames")
    drawn: list[tuple[Frame, bytes]] = []
    size = 0
    for index in np.random.default_rng(seed).permutation(pool):
        frame = data.frame(int(index))
        if frame is None:
            continue
        longest = max(frame.shape[:2])
        if longest > LONGEST_SIDE:
            shrink = LONGEST_SIDE / longest
            frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        png = cv2.imencode(".png", frame)[1].tobytes()
        drawn.append((frame, png))
        size += len(png)
        if len(drawn) == MOST_FRAMES or (size > MOST_BYTES and len(drawn) >= 4):
            break
    return drawn


def _tolerance(stage: Stage) -> float:
    quantised = stage.engine.signature.output_dtype.startswith(("int", "uint"))
    return INTEGER_TOLERANCE if quantised else FLOAT_TOLERANCE
