"""Measure: run a model over labelled images and keep what it answers as a record."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.progress import SILENT, Progress
from tinysaver_edge.artefact import Artefact
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.engines.base import Engine
from tinysaver_edge.errors import DataError, InputError, ModelError
from tinysaver_edge.output_format import OutputFormat, OutputKind
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Batch, Preprocessor
from tinysaver_edge.records.records import (
    Record,
    RecordKey,
    RecordWriter,
    finished_record,
    is_finished,
)
from tinysaver_edge.score import Margin

BATCH = 32
"""Samples that a model of any batch size is given at a time."""

CHUNK_SAMPLES = 128
"""At most this many samples are lost when a run is killed."""

CHUNK_BYTES = 64 << 20
"""About how much model input is held in memory at a time; twice that while decoding ahead."""

DEFAULT_SKIP_LIMIT = 0.01
"""Share of images that may be unreadable before a run fails."""


TOP = 5
"""Classes kept of each answer where not all logits are: as many as fusions and pools look at."""

MOST_LOGITS_BYTES = 2 << 30
"""Of more logits than this, of one model on all samples, only the best classes are kept."""


def check_skip_limit(limit: float) -> None:
    """Refuse a limit that is no share.

    Raises:
        InputError: it is below 0, above 1 or NaN.
    """
    if not 0 <= limit <= 1:
        raise InputError(f"--skip-limit {limit}: a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model answers on one chunk.

    Attributes:
        start: the chunk's first sample.
        outputs: ``(chunk, …)``; rows of unreadable samples mean nothing.
        unreadable: samples, counted from 0 over the whole data, that could not be read.
    """

    start: int
    outputs: Outputs
    unreadable: list[int]


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """One model to be run over a data source, some chunks at a time; can be pickled.

    What it answers on a chunk depends on nothing but the chunk: it does not matter who does it.

    Attributes:
        chunk: samples in a chunk.
        top: so many of the best classes are kept of each answer; None keeps all logits.
    """

    artefact: Artefact
    data: DataSource
    chunk: int
    top: int | None = None

    @property
    def what(self) -> str:
        """What is done, for messages."""
        return f"measuring {self.artefact.name}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The model's files: whoever does the job needs them."""
        return self.artefact.files

    @property
    def engine(self) -> str | None:
        """Name of the engine that is needed."""
        return self.artefact.engine

    @property
    def device(self) -> str | None:
        """What it is to run on; None for the engine's own choice."""
        return self.artefact.options.device

    @property
    def quantised(self) -> bool:
        """Whether answers differ between kinds of processors by more than the last digits."""
        return self.artefact.quantised

    def size_of(self, start: int) -> int:
        """Return how many samples the chunk has that begins there."""
        return min(self.chunk, len(self.data) - start)

    def begun(
        self, files: tuple[Path, ...], threads: int
    ) -> Callable[[Sequence[int], Progress], Iterator[Answered]]:
        """Open the model, its files being elsewhere; return what answers on some chunks."""
        artefact = replace(self.artefact, files=files).with_threads(threads)
        return partial(replace(self, artefact=artefact).answers, artefact.open())

    def __call__(self, starts: Sequence[int], progress: Progress) -> Iterator[Answered]:
        """Open the model and answer on some chunks, in their order.

        Raises:
            ModelError: an answer is NaN; names the image.
            EngineError: the engine or device cannot be had.
        """
        with self.artefact.open() as engine:
            yield from self.answers(engine, starts, progress)

    def answers(
        self, engine: Engine, starts: Sequence[int], progress: Progress
    ) -> Iterator[Answered]:
        """Answer on some chunks with the model, open already."""
        for start, batch, unreadable in _decoded(starts, self.chunk, self.artefact, self.data):
            logits = _answer(engine, batch, progress)
            _check_finite(logits, start, unreadable, self.artefact, self.data)
            _check_kind(logits, start, unreadable, self.artefact)
            logits[[index - start for index in unreadable]] = 0
            yield Answered(start, self._kept(logits), unreadable)

    def _kept(self, logits: NDArray[np.float32]) -> Outputs:
        whole = Outputs(logits=logits)
        return whole if self.top is None else whole.narrowed(self.top, margin=Margin()(whole))


Doing = Callable[[MeasureJob, Sequence[int], Progress, Callable[[Answered], None]], None]
"""Does some chunks of a job, in any order, and hands over each once."""


def do_here(
    job: MeasureJob, starts: Sequence[int], progress: Progress, keep: Callable[[Answered], None]
) -> None:
    """Do some chunks in this process."""
    for answered in job(starts, progress):
        keep(answered)


def measure(
    artefact: Artefact,
    data: DataSource,
    folder: Path,
    *,
    fingerprint: str,
    skip_limit: float = DEFAULT_SKIP_LIMIT,
    progress: Progress = SILENT,
    do: Doing = do_here,
) -> Record:
    """Return what a model answers on every image, from the record where nothing has changed.

    A run that is killed goes on where it stopped, to the nearest chunk.

    Args:
        artefact: the model as it will ship.
        data: the images.
        folder: where records lie.
        fingerprint: of the data.
        skip_limit: share of unreadable images above which the run fails.
        progress: hears of each image.
        do: runs the model; in this process where nothing else is said.

    Raises:
        DataError: too many images cannot be read; names the first.
        ModelError: an answer is NaN; names the image.
        EngineError: the engine or device cannot be had.
    """
    top = kept_of(artefact, len(data))
    key = record_key(artefact, fingerprint, top=top)
    name = record_name(artefact.name, artefact.codec)
    known = finished_record(folder, name, key)
    if known is not None:
        progress.note(f"{artefact.name}: record reused")
        check_skipped(known.skipped, data, skip_limit)
        return replace(known, name=artefact.name)
    sample_bytes = int(np.prod(artefact.preprocess.shape(1))) * 4
    chunk = min(CHUNK_SAMPLES, max(BATCH, CHUNK_BYTES // sample_bytes // BATCH * BATCH))
    writer = RecordWriter(folder, name, key, samples=len(data), chunk=chunk)
    _fill(writer, MeasureJob(artefact, data, chunk, top), skip_limit, progress, do)
    record = writer.finish()
    check_skipped(record.skipped, data, skip_limit)  # what an earlier run skipped counts as well
    return replace(record, name=artefact.name)


def kept_of(artefact: Artefact, samples: int) -> int | None:
    """Return how many classes are kept of each answer; None where all logits are.

    The best classes, their probabilities and the exact margin are all that the default and every
    fusion look at; ten million rows of a thousand logits would be 40 GB.
    """
    whole = 4 * (artefact.classes or 0) * samples
    return TOP if whole > MOST_LOGITS_BYTES and (artefact.classes or 0) > TOP else None


def is_measured(artefact: Artefact, data: DataSource, folder: Path, *, fingerprint: str) -> bool:
    """Whether there is a record already, so that nothing needs to be run."""
    key = record_key(artefact, fingerprint, top=kept_of(artefact, len(data)))
    return is_finished(folder, record_name(artefact.name, artefact.codec), key)


def record_name(model: str, codec: Jpeg | None) -> str:
    """Return the name of a model's record; those of its codecs lie beside that on pixels."""
    return model if codec is None else f"{model}.jpeg{codec.quality}"


def record_key(artefact: Artefact, fingerprint: str, *, top: int | None = None) -> RecordKey:
    """Return all that a record of this model on these images depends on."""
    return RecordKey(
        model_sha256=artefact.sha256,
        preprocess={
            "preprocess": _plain(asdict(artefact.preprocess)),
            "output": _output(artefact.output),
            # Records that were made before there was a codec keep their keys.
            **({} if artefact.codec is None else {"codec": asdict(artefact.codec)}),
            **({} if top is None else {"kept": f"top{top}"}),
        },
        engine=artefact.engine,
        device=artefact.options.device or "",
        precision=artefact.options.precision.value,
        data=fingerprint,
    )


def _output(output: OutputFormat) -> object:
    """Records that were made before outputs could be named keep their keys."""
    said = asdict(output)
    return _plain({key: said[key] for key in said if key != "name" or said[key] is not None})


def _plain(values: object) -> object:
    """Return nested values as JSON would give them back, so that keys compare equal."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        return [_plain(value) for value in values]
    return getattr(values, "value", values)


def _fill(
    writer: RecordWriter, job: MeasureJob, skip_limit: float, progress: Progress, do: Doing
) -> None:
    missing = [start for start in writer.starts if not writer.has(start)]
    done = len(job.data) - sum(map(job.size_of, missing))
    artefact, skipped = job.artefact, list[int]()

    def keep(answered: Answered) -> None:
        skipped.extend(answered.unreadable)
        check_skipped(skipped, job.data, skip_limit)
        writer.put(answered.start, answered.outputs, answered.unreadable)

    where = f"{artefact.engine}, {artefact.options.device or 'CPU'}"
    progress.start(f"{artefact.name} ({where})", total=len(job.data), done=done)
    try:
        do(job, missing, progress, keep)
    finally:
        progress.finish()


def _answer(engine: Engine, batch: Batch, progress: Progress) -> NDArray[np.float32]:
    step = engine.signature.batch_size or BATCH
    parts = []
    for place in range(0, len(batch), step):
        parts.append(engine.infer(batch[place : place + step]).copy())
        progress.advance(len(parts[-1]))
    return np.concatenate(parts)


def _decoded(
    starts: Sequence[int], chunk: int, artefact: Artefact, data: DataSource
) -> Iterator[tuple[int, Batch, list[int]]]:
    """Yield each chunk's model input, the next one being decoded meanwhile."""
    local = threading.local()

    def prepare(index: int, place: Batch) -> bool:
        if not hasattr(local, "preprocessor"):
            local.preprocessor = Preprocessor(artefact.preprocess)
        frame = data.frame(index)
        if frame is None:
            place[...] = 0
            return False
        local.preprocessor.into(frame, place)
        if artefact.codec is not None:
            place[...] = artefact.codec.through(place[None])[0]
        return True

    def submit(start: int) -> tuple[int, Batch, list[Future[bool]]]:
        samples = range(start, min(start + chunk, len(data)))
        batch = np.empty(
            artefact.preprocess.shape(len(samples)), np.dtype(artefact.preprocess.format.dtype)
        )
        return (
            start,
            batch,
            [pool.submit(prepare, i, place) for i, place in zip(samples, batch, strict=True)],
        )

    threads = artefact.options.threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        ahead = submit(starts[0]) if starts else None
        for following in [*starts[1:], None]:
            assert ahead is not None
            start, batch, futures = ahead
            ahead = None if following is None else submit(following)
            readable = [future.result() for future in futures]
            yield start, batch, [start + i for i, good in enumerate(readable) if not good]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_skipped(skipped: Sequence[int], data: DataSource, limit: float) -> None:
    """Refuse data of which too much cannot be read.

    Raises:
        DataError: they are more; names the first.
    """
    if len(skipped) > limit * len(data):
        names = ", ".join(data.samples[index].file for index in skipped[:3])
        more = ", …" if len(skipped) > 3 else ""
        raise DataError(
            f"data {data.path}: {len(skipped)} of {len(data)} images cannot be read "
            f"({names}{more}), more than the {100 * limit:g} % allowed; mend or remove them, "
            f"or raise --skip-limit"
        )


def _check_finite(
    logits: NDArray[np.float32],
    start: int,
    unreadable: Sequence[int],
    artefact: Artefact,
    data: DataSource,
) -> None:
    bad = ~np.asarray(np.isfinite(logits).all(axis=1))
    bad[[index - start for index in unreadable]] = False
    if bad.any():
        file = data.samples[start + int(bad.argmax())].file
        raise ModelError(
            f"model {artefact.name} answers NaN or infinity on {file}: "
            f"check its export, its description's scale and its precision"
        )


def _check_kind(
    logits: NDArray[np.float32], start: int, unreadable: Sequence[int], artefact: Artefact
) -> None:
    """Refuse answers that are described as probabilities and are none."""
    read = np.ones(len(logits), bool)
    read[[index - start for index in unreadable]] = False
    if artefact.output.kind is not OutputKind.PROBABILITIES or not read.any():
        return
    why = artefact.output.why_no_probabilities(logits[read])
    if why is not None:
        raise ModelError(
            f"model {artefact.name}: described as answering probabilities, but it answers {why}"
        )
