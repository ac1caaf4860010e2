"""Every frame of epochs looked at once, in small, and kept beside the models' records.

And films held against each other, by what changes in them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write, read_arrays
from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.data.epochs import EpochData
from tinysaver_edge.data.looks import content_hash
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.reuse import SIDE, Thumbnailer

KEPT = "epochs.npz"
"""Holds thumbnails ``(n, 256)`` in 1/256 of a grey level, hashes, times and epochs."""


def read_timeline(
    data: EpochData,
    *,
    folder: Path | None = None,
    fingerprint: str = "",
    progress: Progress = SILENT,
) -> tuple[EpochTimeline, NDArray[np.uint64]]:
    """Look at every frame, or take what was kept of it.

    Args:
        data: the epochs.
        folder: where it is kept for the next time; None keeps nothing.
        fingerprint: of the data.
        progress: hears of each frame.

    Returns:
        The timeline, and ``(n,)`` hashes of what the frames look like; 0 of unreadable ones.
    """
    looked = None if folder is None else _kept(folder / KEPT, fingerprint, len(data))
    if looked is None:
        looked = _look(data, progress)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / KEPT) as file:
                np.savez_compressed(
                    file,
                    thumbnails=looked[0],
                    content=looked[1],
                    times_s=data.times_s,
                    numbers=data.numbers,
                    fingerprint=np.array(fingerprint),
                )
    thumbnails, content = looked
    names = tuple(one.name for one in data.epochs)
    timeline = EpochTimeline(data.numbers, data.times_s, thumbnails, data.epoch_s, names)
    return timeline, content


def _look(data: EpochData, progress: Progress) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    thumbnails = np.zeros((len(data), SIDE * SIDE), np.int32)
    content = np.zeros(len(data), np.uint64)
    mine = local()

    def look(index: int) -> None:
        if not hasattr(mine, "thumbnailer"):
            mine.thumbnailer = Thumbnailer()
        frame = data.frame(index)
        if frame is not None:
            thumbnails[index] = mine.thumbnailer(frame).ravel()
            content[index] = content_hash(thumbnails[index].tobytes())

    progress.start("looking at the frames", total=len(data))
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="look") as pool:
            for _ in pool.map(look, range(len(data))):
                progress.advance(1)
    finally:
        progress.finish()
    return thumbnails, content


def _kept(
    path: Path, fingerprint: str, frames: int
) -> tuple[NDArray[np.int32], NDArray[np.uint64]] | None:
    try:
        tables = read_arrays(path)
        if str(tables["fingerprint"]) != fingerprint or len(tables["content"]) != frames:
            return None
        thumbnails: NDArray[np.int32] = tables["thumbnails"].astype(np.int32)
        if thumbnails.shape != (frames, SIDE * SIDE):
            return None
        return thumbnails, tables["content"].astype(np.uint64)
    except (OSError, ValueError, KeyError):
        return None


LEAST_CHANGE = 1.0
"""Grey levels, root mean square, from which on a change is no noise of an encoder."""

FEWEST_CHANGES = 5
CHANGES_ALIKE = 0.8
"""Mean correlation of changes from which on two films show the same."""


def first_film_alike(films: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each film the first that shows the same, by what changes from moment to moment.

    A fixed camera shows the same place every day, and never the same movements. What hardly moves
    is not told.

    Args:
        films: ``(n, k, pixels)`` thumbnails of the same k moments, in grey levels.

    Returns:
        ``(n,)`` places; its own of a film that shows what none before it does.
    """
    changes = np.diff(films.astype(np.float32), axis=1)
    changes -= changes.mean(axis=2, keepdims=True)  # the light
    lengths = np.linalg.norm(changes, axis=2)
    moved = lengths >= LEAST_CHANGE * np.sqrt(films.shape[2])
    changes /= np.where(moved, lengths, np.inf)[..., None]
    flat, moves = changes.reshape(len(films), -1), moved.astype(np.float32)
    first = np.arange(len(films))
    for place in range(1, len(films)):
        both = moves[:place] @ moves[place]
        alike = flat[:place] @ flat[place] >= CHANGES_ALIKE * both
        found = np.flatnonzero(alike & (both >= FEWEST_CHANGES))
        if len(found):
            first[place] = found[0]
    return first
