"""What is known of the samples before any model runs: are they independent, are they enough?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.files import atomic_write, parse_json, read_file
from tinysaver_edge.calibrate.problem import MeasuredProblem
from tinysaver_edge.calibrate.targets import Method, Reference, Targets
from tinysaver_edge.certificate.certificate import WalkStep, fewest, step_p_values
from tinysaver_edge.certificate.p_values import EvidenceKind, least_groups
from tinysaver_edge.data.alike import find_alike
from tinysaver_edge.data.collection import read_collected
from tinysaver_edge.data.epochs import EpochData
from tinysaver_edge.data.looks import Looks, Seen, content_hash, seen_from_text
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.deciding.epochs import EpochTimeline
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.errors import DataError
from tinysaver_edge.fusion import NoFusion
from tinysaver_edge.outputs import sample_hashes
from tinysaver_edge.records.timeline import first_film_alike
from tinysaver_edge.reuse import STEPS

MOST_UNITS = 1 << 24

MOST_TRIED = 20_000
"""Groups up to which the fewest that are enough are counted, and not taken from a formula."""

MOMENTS = 16
"""At which epochs are held against each other."""

WORTH_A_LINE = 0.001
"""Where images are independent, so large a share that look like others is told."""


@dataclass(frozen=True, slots=True)
class Independence:
    """What is known of the samples' independence.

    Attributes:
        stated: what the user vouches for although the images say otherwise; "" for nothing.
        cut: what was left out of each collected frame, in words; None where nobody says.
    """

    warnings: tuple[str, ...] = ()
    stated: str = ""
    cut: str | None = None


def check_independence(
    data: DataSource, looks: Looks, *, method: Method, stated: bool
) -> Independence:
    """Refuse to promise anything on copies, or on frames of one clip, taken for so many samples.

    Args:
        data: the images.
        looks: the same in small.
        method: how the threshold is found; one that promises nothing is only warned.
        stated: whether the user vouches for the samples' independence.

    Raises:
        DataError: the images are not independent, and nobody says that they are.
    """
    names = [sample.file for sample in data.samples]
    labels = [sample.label for sample in data.samples]
    alike = find_alike(looks, names, labels, data.groups)
    warnings = list(looks.lines)
    collected, doubts = read_collected(data.path, looks.content)
    warnings += doubts
    if alike is None and collected is None:
        return Independence(tuple(warnings))
    if alike is not None and alike.contradicting:
        warnings.append(
            f"{alike.contradicting} images are copies of others and labelled otherwise than those"
        )
    if collected is not None:
        told = (*warnings, *collected.warnings)
        return Independence(told, collected.statement, collected.file.cut)
    assert alike is not None
    said = alike.text(names)
    if alike.independent:
        if alike.copies or alike.repeats > WORTH_A_LINE * alike.units:
            warnings.append(f"{said}: few enough to count them all")
        return Independence(tuple(warnings))
    if stated:
        warnings.append(f"{said}; they count as independent, as --independent says")
        return Independence(
            tuple(warnings), f"that its samples are independent, although {alike.brief}"
        )
    if method in (Method.EMPIRICAL, Method.TINYSAVER):
        warnings.append(f"{said}: the figures rest on fewer samples than they seem to")
        return Independence(tuple(warnings))
    doubted = "".join(f"{one}; " for one in doubts)
    raise DataError(
        f"data {data.path}: {doubted}{said}. A certificate counts independent samples, and these "
        f"are not. Take copies out; name each image's clip or scene in a table, with "
        f"--group-column; or, where they were taken at moments drawn at random (`tinysaver-edge "
        f"collect` does) or show different things, say --independent: the certificate then states "
        f"that it is your word"
    )


def check_epochs(
    data: EpochData, timeline: EpochTimeline, content: NDArray[np.uint64], *, stated: bool
) -> Independence:
    """Refuse epochs that nobody says are independent: that they were drawn, or the user's word.

    Args:
        data: the epochs.
        timeline: of their frames.
        content: ``(n,)`` hashes of what their frames look like; 0 of unreadable ones.
        stated: whether the user vouches for it.

    Raises:
        DataError: they were not drawn by `collect`, and nobody vouches for them.
    """
    rate = f"about {timeline.frames_per_s or 0:g} frames a second"
    if data.collection is not None:
        word = f"{data.collection.statement} and for {rate}"
        return Independence(tuple(data.collection.warnings), word, data.collection.file.cut)
    copies = _copied(timeline, content)
    found = f"{copies} of {len(data.epochs)} epochs show the same as an earlier one" * bool(copies)
    if not stated:
        raise DataError(
            f"epochs {data.path}: {found + '; ' * bool(copies)}nobody says how these epochs were "
            "drawn. A certificate counts them as independent, which epochs at random moments are "
            "(`tinysaver-edge collect --epochs` draws them) and every k-th of a recording is not. "
            "Where they are, say --independent: the certificate then states that it is your word"
        )
    word = f"that its epochs, of {rate}, are independent of each other"
    lines = (f"{found}; they count as independent, as --independent says",) if copies else ()
    return Independence(lines, word + f", although {found}" * bool(copies))


def _copied(timeline: EpochTimeline, content: NDArray[np.uint64]) -> int:
    """Return how many epochs show what an earlier one does, frame by frame or encoded anew."""
    spans = [slice(*ends) for ends in pairwise([*timeline.starts.tolist(), len(content)])]
    moments = np.linspace(0, timeline.epoch_s, MOMENTS, endpoint=False) - 1e-6
    films = [
        timeline.thumbnails[span][np.searchsorted(at_s - at_s[0], moments).clip(0, len(at_s) - 1)]
        for span in spans
        for at_s in [timeline.times_s[span]]
    ]
    shown = [content[span].tobytes() for span in spans]
    first = first_film_alike(np.array(films) / np.float32(STEPS))
    return sum(
        place != alike or shown.index(one) != place
        for place, (one, alike) in enumerate(zip(shown, first, strict=True))
    )


_TUNED = "tuned.json"


def note_tuned(folder: Path, targets: Targets, policy: Policy, content: NDArray[np.uint64]) -> None:
    """Remember which images a search chose a score and a fusion on.

    Whoever names what it chose in a later run has looked at these images for it.

    Args:
        folder: of the records.
        targets: of this run; nothing is remembered where it searched for nothing.
        policy: what was chosen.
        content: hashes of the images that the search looked at.
    """
    score, fusion = policy.stages[0].score, policy.fusion
    if not targets.searches or score is None or not len(content):
        return
    fused = NoFusion.name if fusion is None else fusion.name
    row = {"score": score.name, "fusion": fused, "images": Seen.of(content).to_text()}
    with atomic_write(folder / _TUNED) as file:
        file.write(json.dumps([*_rows(folder / _TUNED), row]).encode())


def without_tuned(
    gathered: MeasuredProblem, targets: Targets, folder: Path | None
) -> MeasuredProblem:
    """Leave out the images on which an earlier search chose what is named now.

    Args:
        gathered: answers on all images.
        targets: of this run; one that promises nothing may use them all.
        folder: of the records; None where there is none.

    Raises:
        DataError: there are no others.
    """
    if folder is None or gathered.content is None or targets.method is not Method.CERTIFIED:
        return gathered
    content, tuned = gathered.content[gathered.sample_index], np.zeros(0, np.int64)
    for row in _rows_around(folder, _TUNED):
        if targets.score == row["score"] or targets.fusion == row["fusion"]:
            tuned = np.union1d(tuned, seen_from_text(row["images"]).places(content))
    if not len(tuned):
        return gathered
    said = (
        f"{len(tuned)} images are left out: an earlier run, kept in {folder} or beside it, chose "
        f"the score or the fusion on them that this one names"
    )
    kept = np.setdiff1d(np.arange(len(content)), tuned)
    if not len(kept):
        raise DataError(f"{said}. There are no others: add images")
    return replace(
        gathered,
        problem=gathered.problem.subset(kept),
        sample_index=gathered.sample_index[kept],
        warnings=(*gathered.warnings, said),
    )


def _rows_around(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read what runs have remembered in a folder of records, and in those beside it."""
    found = _rows(folder / name)
    for path in sorted(folder.absolute().parent.glob(f"*/{name}")):
        if path.parent.name != folder.absolute().name:
            found += _rows(path)
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read what was remembered; what cannot be read is not there, and is written anew."""
    fields = ("score", "fusion") if path.name == _TUNED else ("large", "question", "others")
    try:
        rows = parse_json(read_file(path))
        for row in rows:
            seen_from_text(row["images"])
            _ = [row[one] for one in fields], dict(row.get("savers", {}))
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return list(rows)


_TESTED, _TESTED_BEFORE = "tested.json", "looked.json"
"""What runs have held against which samples; the second is what earlier releases called it."""


def tested_before(
    gathered: MeasuredProblem, targets: Targets, folder: Path | None, *, drawn: tuple[object, ...]
) -> tuple[int | None, tuple[str, ...]]:
    """Return what else these images were asked in earlier runs, and remember what they are now.

    Whoever tries a saver, does not like it and tries another on the same images has tested twice,
    as if both had been named in one run, where they share the risk. So each run shares it with all
    that came before it. The first is not told of those to come, so the risk of k runs together is
    that of their shares: 1 + 1/2 + … + 1/k times δ with one saver each; one run that names them all
    has δ. Whoever runs the same again gets the same again: it is no new test.

    Args:
        gathered: all models' answers on the images.
        targets: of this run; one that promises nothing tests each of its savers, too.
        folder: of the records, which remembers; None where there is none.
        drawn: whatever else decides which images are asked what.

    Returns:
        How many other savers, or other questions of the same, share the risk, None where nobody
        remembers; and a line for it.
    """
    if folder is None or gathered.content is None:
        return None, ()
    problem, artefacts = gathered.problem, gathered.artefacts
    if artefacts:  # of those that were left out, too
        content = gathered.content[gathered.sample_index]
        models = {one.sha256: name for name, one in artefacts.items()}
        large = artefacts[problem.large.name].sha256
    else:
        answers = {
            one.name: sample_hashes([one.outputs]) for one in (problem.large, *problem.savers)
        }
        content = np.concatenate(list(answers.values()))
        models = {
            f"{name} {content_hash(one.tobytes()):016x}": name for name, one in answers.items()
        }
        large = next(iter(models))
    savers = {key: name for key, name in models.items() if key != large}
    test = test_of(content, large=large, savers=savers, targets=targets, drawn=drawn)
    others = shared_with(test, folder)
    mine, row = _rows(folder / _TESTED), {**test, "others": others}
    # Also where a folder beside it has it: that one may be deleted.
    if row not in mine and row not in _rows(folder / _TESTED_BEFORE):
        with atomic_write(folder / _TESTED) as file:
            file.write(json.dumps([*mine, row]).encode())
    if not others or test["question"] is None:
        return 0, ()
    named = sorted(set(others))
    return len(others), (
        f"earlier runs, kept in {folder} or beside it, have tested these samples: other savers or "
        f"limits ({len(others)}: {', '.join(named[:4])}{', …' * (len(named) > 4)}) share the "
        f"risk of this certificate. Savers named in one run share it better; on new samples it is "
        "whole",
    )


def test_of(
    content: NDArray[np.uint64],
    *,
    large: str,
    savers: Mapping[str, str],
    targets: Targets,
    drawn: tuple[object, ...],
) -> dict[str, Any]:
    """Return what is asked of some samples, as it is remembered for later runs.

    Args:
        content: hashes of the samples.
        large: hash of the large model.
        savers: names of the savers, by their hashes.
        targets: as for `tested_before`.
        drawn: likewise.
    """
    question = None
    if targets.method is Method.CERTIFIED:
        question = repr((*_asked_of(targets), *drawn))
    images = Seen.of(content).to_text()
    return {"large": large, "savers": dict(savers), "question": question, "images": images}


def shared_with(test: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the savers that were tested otherwise on the same samples, or had been the first time.

    Args:
        test: what is asked, of `test_of`.
        folder: of the records; those beside it count, too.
    """
    content = seen_from_text(test["images"])
    rows = [row for name in (_TESTED, _TESTED_BEFORE) for row in _rows_around(folder, name)]
    rows = [row for row in rows if content.count(seen_from_text(row["images"]).hashes)]
    for row in rows:
        if {**test, "others": row["others"]} == row:
            return list(row["others"])
    question = test["question"]
    tests = {key: name for row in rows for key, name in _tests_of(row, question)}
    mine = dict(_tests_of(test, question))
    return sorted(name for key, name in tests.items() if key not in mine)


def _tests_of(
    row: Mapping[str, Any], question: str | None
) -> Iterator[tuple[tuple[str, str, str | None], str]]:
    """Yield what was tested, and the saver's name; a run that promised nothing tested this, too."""
    for one, name in row["savers"].items():
        yield (one, row["large"], row["question"] or question), name


def _asked_of(targets: Targets) -> tuple[object, ...]:
    """Return what is tested; how one is chosen among what passes costs no risk."""
    return (
        targets.allowed_drop_points,
        targets.confidence,
        targets.reference.value,
        targets.score,
        targets.fusion,
        targets.max_stages,
    )


def too_few(targets: Targets, *, units: int, candidates: int, unit: str) -> str | None:
    """Say that nothing can be certified on so few samples, whatever the models answer.

    Args:
        targets: limit, confidence and reference.
        units: samples, or groups of them, that the certificate may rest on.
        candidates: how many savers share the risk.
        unit: what they are: "samples", "groups" or "epochs".

    Returns:
        One line, or None where they may be enough.
    """
    drop = targets.allowed_drop_points
    if targets.method is not Method.CERTIFIED or drop is None:
        return None
    labelled = targets.reference is Reference.LABELS
    evidence = EvidenceKind.of(labelled=labelled, unit=unit)
    share = targets.risk / max(1, candidates)
    needed = least_units(drop, evidence=evidence, risk=share)
    if needed is not None and units >= needed:
        return None
    unit = "groups of samples" if unit == "groups" else unit
    wish = f"a drop of {drop:g} points at confidence {targets.confidence:g}"
    if candidates > 1:
        wish += f" shared by {candidates} savers"
        alone = least_units(drop, evidence=evidence, risk=targets.risk)
        fewer = "" if alone is None else f", {alone} with one saver"
    else:
        fewer = ""
    if needed is None:
        return None
    better = "" if not labelled else ", unless the cascade proves better than the large model"
    # Over epochs no method promises nothing.
    ways = "" if unit == "epochs" else ", or use --method empirical, which promises nothing"
    return (
        f"{units} {unit} are too few: {wish} takes at least {needed}{fewer}{better}. Add {unit}, "
        f"{'or ' * (not ways)}allow a larger drop (--max-drop){ways}"
    )


def least_units(max_drop_points: float, *, evidence: EvidenceKind, risk: float) -> int | None:
    """Return the fewest samples, or groups, that can certify a drop where no answer differs.

    Args:
        max_drop_points: the limit.
        evidence: what the samples are.
        risk: of this one certificate.
    """

    def enough(units: int) -> bool:
        losses = ((0.0, units),) if evidence.grouped else ()
        step = WalkStep(threshold=0.0, accepted=units, lost=0, gained=0, group_losses=losses)
        p = step_p_values(
            [step], evidence=evidence, samples=units, max_drop_points=max_drop_points, risk=risk
        )
        return p[0] <= risk

    if not 0 < max_drop_points < math.inf:
        return None
    if evidence.grouped and max_drop_points < 100:
        units = least_groups(max_drop_points / 100, risk=risk)
        while units < MOST_TRIED and not enough(units):
            units += 1
        return units
    return fewest(enough, most=MOST_UNITS)
