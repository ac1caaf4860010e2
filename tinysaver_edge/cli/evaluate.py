"""`tinysaver-edge evaluate`: measure a bundle on labelled samples it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import click

from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.covered import why_not_covered
from tinysaver_edge.bundle.manifest import Manifest
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import DataPath, LocalPath, json_option
from tinysaver_edge.cli.show import show_figures
from tinysaver_edge.data.store import Place
from tinysaver_edge.errors import InputError
from tinysaver_edge.records.evaluation import (
    Evaluation,
    evaluate_epochs,
    evaluate_images,
    evaluate_records,
)


@click.command()
@click.argument("bundle", type=LocalPath())
@click.option(
    "--data",
    type=DataPath(),
    help="Labelled images: folder of class folders, .zip, .csv, .jsonl, .tar or Parquet.",
)
@click.option(
    "--records",
    type=LocalPath(),
    help="Folder of records (NAME.npz), instead of images.",
)
@click.option(
    "--epochs",
    type=LocalPath(),
    help="Epochs of a stream, instead of images: one folder or video each. Without --labels the "
    "large model's answers are taken for right.",
)
@click.option(
    "--labels",
    type=LocalPath(),
    help="True classes of the records, .npy; of epochs a .csv: epoch,from_s,to_s,class.",
)
@click.option(
    "--skip-limit",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of images that may be unreadable.",
)
@json_option
def evaluate(
    bundle: Path,
    data: Place | None,
    records: Path | None,
    epochs: Path | None,
    labels: Path | None,
    skip_limit: float,
    as_json: bool,
) -> None:
    """Measure a bundle on labelled images it has not seen.

    Besides the figures it says what the certificate promises, and whether it is kept here: where
    the 95 % interval of the drop lies on one side of the bound.

    \b
        tinysaver-edge evaluate bundle/ --data more.zip
        tinysaver-edge evaluate bundle/ --epochs clips/ --labels spans.csv
        tinysaver-edge evaluate bundle/ --records DIR --labels labels.npy --json
    """
    with Bundle.load(bundle) as opened:
        if epochs is not None and data is None and records is None:
            with terminal.progress() as progress:
                result = evaluate_epochs(
                    opened, epochs, spans=labels, skip_limit=skip_limit, progress=progress
                )
        elif data is not None and epochs is None and records is None and labels is None:
            with terminal.progress() as progress:
                result = evaluate_images(opened, data, skip_limit=skip_limit, progress=progress)
        elif records is not None and labels is not None and data is None and epochs is None:
            result = evaluate_records(opened, records, labels)
        else:
            raise InputError("give either --data, or --epochs, or --records together with --labels")
        manifest = opened.manifest
    terminal.warn(result.warnings)
    seen = f" ({result.seen} seen before)" if result.seen else ""
    sets = [(f"{data or epochs or records}{seen}", result.figures)]
    show_figures(sets, labelled=not result.by_large)
    terminal.tell(_promise(manifest))
    kept = _kept(manifest, result)
    if kept is not None:
        terminal.tell(_HOW_KEPT[kept] + _IF_UNSEEN[result.seen is None and kept is _Kept.YES])
    terminal.next_step(_AGAIN if kept is _Kept.NO else terminal.command_line("verify", bundle))
    if as_json:
        terminal.show_json(result.to_dict())


class _Kept(Enum):
    """Whether the drop on some samples keeps a certified bound."""

    YES = "yes"
    NO = "no"
    UNTOLD = "untold"


_HOW_KEPT: Mapping[_Kept, str] = MappingProxyType(
    {
        _Kept.YES: "kept here: the whole interval of the drop lies within the bound",
        _Kept.NO: "not kept here: the whole interval of the drop lies above the bound, so these "
        "samples differ from those calibrated on, or are labelled otherwise",
        _Kept.UNTOLD: "these samples cannot tell whether it is kept here: the bound lies within "
        "the interval of the drop",
    }
)
_IF_UNSEEN = ("", ", if the bundle was not calibrated on these samples")
_AGAIN = "calibrate again on images like these, then verify the new bundle on the device"


def _promise(manifest: Manifest) -> str:
    """Say what the bundle promises about images that it has not seen."""
    entry = manifest.certificate
    if entry is None:
        return "certificate: none, nothing is promised about other images"
    if (why := why_not_covered(manifest)) is not None:
        return f"certificate: does not count, {why}"
    return f"certificate: {entry.statement}{entry.given}"


def _kept(manifest: Manifest, result: Evaluation) -> _Kept | None:
    """Hold the drop against the certificate; None where nothing follows, or is promised."""
    entry, within = manifest.certificate, result.figures.drop_interval_points
    if entry is None or within is None or result.seen or result.doubted:
        return None
    if why_not_covered(manifest) is not None:
        return None
    counts = Certificate.from_json(entry.counts)
    if within[1] <= counts.max_drop_points:
        return _Kept.YES
    # Where people say what is right, an answer that differs from the large model's may be it.
    known = counts.evidence.from_consistency or not result.by_large
    return _Kept.NO if within[0] > counts.max_drop_points and known else _Kept.UNTOLD
