"""A sink of one's own: a table of decisions that any spreadsheet opens.

    python examples/custom_sink.py BUNDLE SOURCE decisions.csv

A sink may wait for a disk or a network and raise what goes wrong: `Queued` gives it a thread and a
bounded queue, and counts what it drops. In a package of your own, one line of `pyproject.toml`
makes it a sink of `tinysaver-edge run BUNDLE --source 0 --sink csv:decisions.csv`:

    [project.entry-points."tinysaver_edge.sinks"]
    csv = "my_package.custom_sink:open_csv"
"""

import csv
import sys
import time
from pathlib import Path
from typing import IO

from tinysaver_edge import Cascade, Decision, InputError
from tinysaver_edge.stream import Frame, Queued, Sink


class CsvSink:
    """Writes a row a decision."""

    wants_frames = False  # the pictures themselves are of no use to a table
    _file: IO[str]

    def __init__(self, path: Path) -> None:
        self.name = f"csv {path.name}"  # what events and metrics call it
        self._path = path

    def __enter__(self) -> "CsvSink":
        """Open the file; what is raised here keeps the stream from starting."""
        try:
            self._file = self._path.open("w", newline="")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        self._row("source", "frame", "revision", "label", "confidence", "answered by", "certified")
        return self

    def write(self, decision: Decision, frame: Frame | None) -> None:
        """Write a row; what is raised here is told as an event, and the stream goes on."""
        self._row(
            decision.frame_id.source_id,
            decision.frame_id.sequence,
            decision.revision,
            decision.label,
            f"{decision.confidence:.4f}",
            decision.source.value,
            decision.certified,
        )

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _row(self, *cells: object) -> None:
        csv.writer(self._file).writerow(cells)


def open_csv(argument: str) -> Sink:
    """Make the sink of what stands behind `--sink csv:`."""
    if not argument:
        raise InputError("sink csv: names no file; expected csv:FILE")
    return CsvSink(Path(argument))


def main(bundle: str | Path, source: str, table: str) -> None:
    """Decide a source into a table."""
    sink = Queued(open_csv(table), clock=time.monotonic)
    with Cascade.load(bundle) as cascade:
        for _ in cascade.stream(source, sinks=[sink]):
            pass


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
