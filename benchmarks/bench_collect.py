"""Collect, ask, certify: is the promise kept on a camera whose frames depend on each other?

    python benchmarks/bench_collect.py [WORK_DIR]

A long film of the 300 ImageNet photos, each shown for a random time, some for an hour and some for
a blink: what it shows at one moment it mostly shows at the next. Each collection draws moments as
`collect` does, asks about the frames whose answers differ, a person who is right answers, and the
certificate from these answers chooses a threshold. The promise is broken where the drop over the
whole film, each photo weighing as long as it is shown, exceeds ε. Beside it what is no such sample,
taken for one: as many frames in a row from a random moment on.

That the moments that are drawn are the frames that end up in the folder is checked on a real film:
each photo in a collection of it is recognised by its pixels and held against its moment.
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from imagenet import DATA, called_with, save, table
from pair import LARGE, SAVER, artefacts
from scipy import stats

from tinysaver_edge.calibrate.methods.certify import CertifiedChoice, certify
from tinysaver_edge.collect.draw import Draw
from tinysaver_edge.collect.recordings import Recording, collect_recorded
from tinysaver_edge.collect.store import Store
from tinysaver_edge.data.collection import Collection
from tinysaver_edge.data.files import open_data
from tinysaver_edge.outputs import IntArray, Outputs
from tinysaver_edge.questions.known import Known
from tinysaver_edge.records.measure import measure
from tinysaver_edge.score import Margin
from tinysaver_edge.stream.sources.opening import open_source

COLLECTIONS, RISK = 300, 0.1
CELLS = tuple((n, points) for n in (1000, 3000) for points in (1.0, 2.0))
FILMS = (1, 2, 3)
DAY_S = 86400.0
FPS, MEAN_FRAMES = 5, 4
"""Of the real film."""


def answers(work: Path) -> tuple[Outputs, Outputs, IntArray]:
    """What both models answer on each photo, and the true classes."""
    made = artefacts(work / "models")
    with open_data(DATA / "imagenet" / "labels.csv") as data:
        labels = np.array([int(sample.label) for sample in data.samples], np.int64)
        found = {name: measure(one, data, work, fingerprint="photos") for name, one in made.items()}
    return found[SAVER].outputs, found[LARGE].outputs, labels


@dataclass(frozen=True)
class Film:
    """A day in front of a camera.

    Attributes:
        photo: (k,), which photo each scene shows.
        ends_s: (k,), when it ends.
    """

    photo: IntArray
    ends_s: np.ndarray

    @classmethod
    def of(cls, photos: int, seed: int) -> Film:
        """Show each photo once, in random order, for times that differ by orders of magnitude."""
        rng = np.random.default_rng(seed)
        shown = rng.lognormal(0.0, 1.2, photos)
        return cls(rng.permutation(photos), np.cumsum(shown) / shown.sum() * DAY_S)

    def at(self, moments_s: np.ndarray) -> IntArray:
        """Which photo is shown at some moments."""
        place = np.searchsorted(self.ends_s, moments_s, side="right")
        return self.photo[np.minimum(place, len(self.photo) - 1)]

    @property
    def weights(self) -> np.ndarray:
        """Share of the day that each photo is shown, by its number."""
        shares = np.zeros(len(self.photo))
        shares[self.photo] = np.diff(self.ends_s, prepend=0.0) / DAY_S
        return shares


@dataclass(frozen=True)
class Certified:
    """What one collection led to.

    Attributes:
        threshold: or infinity where nothing was certified.
        questions: how many were answered.
    """

    threshold: float
    questions: int


def asked(
    saver: Outputs, large: Outputs, truth: IntArray, drawn: IntArray, points: float, seed: int
) -> Certified:
    """Certify from the answers of a person who is right."""
    outputs = (saver.subset(drawn), large.subset(drawn))
    common = {"max_drop_points": points, "confidence": 1 - RISK, "fusion": "none", "seed": seed}
    known = Known.nothing(len(drawn))
    nothing: CertifiedChoice = certify(outputs, known, **common)
    pairs = nothing.trial.pairs()
    place = nothing.certify_index[pairs.sample]
    right = truth[drawn[place]]
    told = (right == pairs.answer) | (right == pairs.large)
    known.truth[place[told]] = right[told]
    known.large_wrong[place[~told]] = True
    found = certify(outputs, known, **common)
    threshold = math.inf if found.threshold is None else found.threshold
    labelled = certify(outputs, truth[drawn], **common)
    if labelled.threshold != found.threshold:
        raise SystemExit("answers and labels certify different thresholds")
    return Certified(threshold, len(np.unique(place[pairs.first <= _number(nothing, threshold)])))


def _number(choice: CertifiedChoice, threshold: float) -> int:
    """Number of a threshold on the walk."""
    return int(np.searchsorted(-choice.trial.thresholds, -threshold))


def true_drop(
    saver: Outputs, large: Outputs, truth: IntArray, weights: np.ndarray, threshold: float
) -> tuple[float, float]:
    """Return drop in points and accepted share over the whole film, at a threshold of margin."""
    kept = Margin()(saver) >= threshold
    cascade = np.where(kept, saver.predictions, large.predictions) == truth
    alone = large.predictions == truth
    return 100 * float(weights @ (alone.astype(float) - cascade)), float(weights @ kept)


def in_a_row(film: Film, count: int, rng: np.random.Generator) -> IntArray:
    """Which photos a camera gives in a row, ten frames a second, from a random moment on."""
    start_s = rng.random() * (DAY_S - count / 10)
    return film.at(start_s + np.arange(count) / 10)


def real_film(work: Path, photos: list[np.ndarray]) -> dict[str, float]:
    """Collect from a real file, and hold each picture against its moment."""
    rng = np.random.default_rng(0)
    lengths = 1 + rng.poisson(MEAN_FRAMES - 1, len(photos))
    order = rng.permutation(len(photos))
    path = work / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (227, 227))
    for photo in order:
        for _ in range(lengths[photo]):
            writer.write(photos[photo])
    writer.release()
    shown = np.repeat(order, lengths[order])
    small = np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA) for one in photos])
    small = small.reshape(len(photos), -1).astype(float)
    started = time.perf_counter()
    with Store(work / "collected") as store:
        collect_recorded(
            [Recording("film", lambda: open_source(path))],
            store,
            Draw(1000, seed=0),
            wall=time.time,
            stop=threading.Event(),
        )
    spent_s = time.perf_counter() - started
    right = 0
    collection = Collection.read(work / "collected")
    for one in collection.written:
        picture = cv2.imread(str(collection.folder / one.file))
        look = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA).ravel().astype(float)
        found = int(np.argmin(((small - look) ** 2).sum(axis=1)))
        right += int(found == shown[min(int(one.moment_s * FPS), len(shown) - 1)])
    return {"frames": len(shown), "collected": len(collection.written), "right": right,
            "seconds": spent_s}  # fmt: skip


def lower_limit(broken: int) -> float:
    """One-sided lower 95 % limit (Clopper-Pearson) of the share of broken promises."""
    return float(stats.beta.ppf(0.05, broken, COLLECTIONS - broken + 1)) if broken else 0.0


def main() -> int:
    """Print the table; exit 1 where the promise is not kept."""
    words = called_with(__doc__, most=1)
    if not (DATA / "imagenet" / "labels.csv").is_file():
        print(f"no photos in {DATA}: set TINYSAVER_DATA", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(*words or [scratch])
        saver, large, truth = answers(work)
        with (DATA / "imagenet" / "labels.csv").open(newline="") as file:
            names = [row["file"] for row in csv.DictReader(file)]
        photos = [cv2.imread(str(DATA / "imagenet" / name)) for name in names]
        film = real_film(Path(scratch), photos)
    rows, figures, broken_of_all, worst = [], [], 0, 0.0
    for cell, (n, points) in enumerate(CELLS):
        broken = {"collect": 0, "in a row": 0}
        certified, questions, accepted = 0, [], []
        for number in range(COLLECTIONS):
            day = Film.of(len(truth), FILMS[number % len(FILMS)])
            seed = 10_000 * cell + number
            moments = Draw(n, seed=seed, period_s=DAY_S).moments(["door"], [DAY_S])
            drawn = day.at(np.array([one.moment_s for one in moments]))
            found = asked(saver, large, truth, drawn, points, seed)
            drop, share = true_drop(saver, large, truth, day.weights, found.threshold)
            broken["collect"] += int(drop > points)
            certified += math.isfinite(found.threshold)
            questions.append(found.questions)
            accepted.append(share)
            row = in_a_row(day, n, np.random.default_rng(seed))
            wrongly = asked(saver, large, truth, row, points, seed)
            drop, _ = true_drop(saver, large, truth, day.weights, wrongly.threshold)
            broken["in a row"] += int(drop > points)
        lower = lower_limit(broken["collect"])
        worst, broken_of_all = max(worst, lower), broken_of_all + broken["collect"]
        shares = [f"{one / COLLECTIONS:.3f}" for one in broken.values()]
        rows.append((n, points, *shares, f"{certified / COLLECTIONS:.2f}",
                     f"{np.mean(accepted):.3f}", f"{np.mean(questions):.0f}"))  # fmt: skip
        figures.append({"samples": n, "max_drop_points": points, "broken": broken["collect"],
                        "broken_in_a_row": broken["in a row"], "certified": certified,
                        "accepted": float(np.mean(accepted)),
                        "questions": float(np.mean(questions))})  # fmt: skip
    pooled = broken_of_all / COLLECTIONS / len(CELLS)
    head = ("n", "ε, points", "broken: random moments", "broken: n in a row", "certified any",
            "accepted", "questions")  # fmt: skip
    text = (
        f"mobilenet_v1_0.25 → mobilenet_v2 (int8) on 300 photos; {COLLECTIONS} collections a cell, "
        f"of {len(FILMS)} films by turns, δ = {RISK}, no fusion. Share of collections whose drop "
        "over the whole film exceeds ε; share in which anything was certified; mean share of the "
        "film that keeps the saver's answer, and mean number of questions.\n\n"
        + table(head, rows)
        + f"\n\nA real film of {film['frames']} frames: {film['right']} of {film['collected']} "
        f"collected pictures are the photo shown at their moment ({film['seconds']:.1f} s)."
        f"\n\nTargets: random moments ≤ {RISK} pooled ({pooled:.3f}); no cell's lower 95 % limit "
        f"above {RISK} (the highest is {worst:.3f}); every picture that of its moment."
    )
    save("bench_collect", title="Collect, ask, certify", text=text,
         figures={"collections": COLLECTIONS, "risk": RISK, "cells": figures, "pooled": pooled,
                  "highest_lower_limit": worst, "film": film})  # fmt: skip
    return int(pooled > RISK or worst > RISK or film["right"] != film["collected"])


if __name__ == "__main__":
    sys.exit(main())
