"""The plan of a calibration: which models, which samples, what is asked; as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysaver_edge.calibrate.targets import Method, Reference, Targets
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.data.collection import check_single_frames
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.data.store import Place
from tinysaver_edge.errors import InputError
from tinysaver_edge.questions.interview import REPEATED
from tinysaver_edge.records.measure import DEFAULT_SKIP_LIMIT, check_skip_limit

if TYPE_CHECKING:
    from tinysaver_edge.artefact import Artefact
    from tinysaver_edge.hardware.profile import DeviceProfile
    from tinysaver_edge.models.description.description import ModelDescription


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model to measure.

    Attributes:
        path: its file.
        description: what the file does not say of itself.
        engine: engine to run it with, before what the description says; None for neither,
            ``"auto"`` for the fastest of those that there are.
        variant: whether it is one of several forms of a file: where this one cannot be run, the
            others still can.
        shipped: the model as a bundle has it, to be run as it is; None has the file prepared.
    """

    path: Path
    description: ModelDescription
    engine: str | None = None
    variant: bool = False
    shipped: Artefact | None = None


EPOCH_S, EPOCHS = 10.0, 1200
"""How long an epoch is that is cut out of a recording, and how many there are, unless it is said
otherwise: a point of accuracy takes about 1,000."""


@dataclass(frozen=True, slots=True)
class CutEpochs:
    """Recordings to be cut into epochs, at independent moments drawn uniformly.

    Epochs may overlap and share frames: they are draws from the recordings' period, with
    replacement, and the certificate speaks of that period.

    Attributes:
        recordings: as `collect.recordings_of` takes them.
        folder: where the epochs are kept; one that is whole is taken as it is.
        epoch_s: length of an epoch.
        count: how many are drawn.
        fps: frames a second that are kept; None for all.
    """

    recordings: tuple[str, ...]
    folder: Path
    epoch_s: float = EPOCH_S
    count: int = EPOCHS
    fps: float | None = None


def beside(out: Path, ending: str) -> Path:
    """Return a folder or file beside a bundle, by its ending."""
    return out.with_name(f"{out.name.removesuffix('.zip')}.{ending}")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Models to run over labelled images.

    Attributes:
        data: folder, .zip, table or shards of labelled images, here or as a URL, or a source of
            one's own; folder of epochs with `epochs`.
        epochs: whether the data is epochs of a stream, within which answers may be reused.
        spans: with epochs, the table of their classes by time; None without labels.
        cut: recordings that the epochs are cut out of first; None where they are there.
        on: the cluster that runs the models over the images, ``"ray"`` or its address; None for
            this machine. Nothing is timed then: others work on its nodes as well.
        large: the large model.
        savers: the candidates.
        large_codec: what frames pass on their way to the large model, JPEG for one on another
            machine; None shows it their pixels.
        group_column: column of a table that names each file's clip or scene.
        independent: whether the user vouches that no image depends on another, whatever they look
            like.
        skip_limit: share of images that may be unreadable, and of files that may be none.
        records: folder for records; None puts them beside the bundle.
        embed: fold colour order, scale and layout into the models' graphs.
        labelled: whether the images' labels count; without, the large model is the reference.
        timing: time each model on this machine, for budgets and the report; not with `on`.
        retime: time the models anew, where earlier timings are kept.
        isolate: measure each model in a process of its own, so that a crash loses only it.
        time_budget_s: start no more savers, and stop the one under way, after so many seconds.
        golden_frames: put up to 16 of the images into the bundle, for `verify`.
        profile: of the device whose engines are tried for models of engine ``"auto"``; None tries
            those that this machine has.
        bench: reports of `bench`, perhaps from another device, whose latencies count; then nothing
            is timed here.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    data: Place | DataSource
    large: ModelFile
    savers: tuple[ModelFile, ...]
    large_codec: Jpeg | None = None
    group_column: str | None = None
    independent: bool = False
    skip_limit: float = DEFAULT_SKIP_LIMIT
    records: Path | None = None
    embed: bool = True
    labelled: bool = True
    timing: bool = True
    retime: bool = False
    isolate: bool = True
    time_budget_s: float | None = None
    golden_frames: bool = True
    profile: DeviceProfile | None = None
    bench: tuple[Path, ...] = ()
    epochs: bool = False
    spans: Path | None = None
    cut: CutEpochs | None = None
    on: str | None = None

    def __post_init__(self) -> None:
        check_skip_limit(self.skip_limit)
        if self.time_budget_s is not None and not self.time_budget_s >= 0:
            raise InputError(f"--time-budget {self.time_budget_s:g}: seconds, from 0 on")
        if self.on is not None and self.retime:
            raise InputError(
                "--retime times the models here, and with --on nothing is timed: leave one out"
            )
        if not self.epochs and isinstance(self.data, Path):
            check_single_frames(self.data)

    @property
    def times_here(self) -> bool:
        """Whether the models are timed on this machine."""
        return self.timing and self.on is None


@dataclass(frozen=True, slots=True)
class RecordInput:
    """Records that are there already: a user's own, or those that `measure` made.

    Attributes:
        records: folder of ``NAME.npz``.
        labels: ``.npy`` of the true classes, in the records' order; None where the large model is
            the reference, or `measure` has them.
        macs: ``.csv`` with columns ``name`` and ``macs``; None where `measure` counted them.
        large: name of the large model; None for the one that `measure` was told of.
        savers: names of the candidates, or ``("all",)`` for every cheaper model of the folder; none
            for all that `measure` was told of.
        groups: ``.npy`` of each sample's clip or scene, or None where samples are independent.
        independent: whether the user vouches that no sample is another's copy, whatever the answers
            say.
        labelled: whether the labels count that `measure` has; without, the large model is the
            reference.
        golden_frames: put the samples that `measure` kept into the bundle, for `verify`.
    """

    records: Path
    labels: Path | None = None
    macs: Path | None = None
    large: str | None = None
    savers: tuple[str, ...] = ()
    groups: Path | None = None
    independent: bool = False
    labelled: bool = True
    golden_frames: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """How people are asked, where nobody has labelled the samples.

    Attributes:
        questions: table to write with what is to be asked; None writes none.
        answers: files of answers.
        page: ask on a page now.
        repeated: share of what is asked there that comes a second time, 0..1.
        book: file that keeps the answers given there; None puts it beside the bundle.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    questions: Path | None = None
    answers: tuple[Path, ...] = ()
    page: bool = False
    repeated: float = REPEATED
    book: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.repeated <= 1:
            raise InputError(f"--repeats {self.repeated:g}: a share of the questions, 0 to 1")
        if self.repeated != REPEATED and not self.page:
            raise InputError("--repeats is about the page that --ask shows: add --ask")

    def reference(
        self,
        said: Reference | None,
        *,
        labelled: Callable[[], bool],
        written: bool,
        certified: bool,
    ) -> Reference:
        """Return whose answer is right.

        Without labels it is people's where they are asked, or where no bundle is written: what
        asking would buy is told then. Else the large model's answers stand for labels.

        Args:
            said: what the user says, or None.
            labelled: tells whether there are labels.
            written: whether a bundle is written.
            certified: whether the method is the one that can do without labels.

        Raises:
            InputError: people are to be asked, and somebody else's answer is to be right.
        """
        flags = {
            "--questions": self.questions is not None,
            "--answers": bool(self.answers),
            "--ask": self.page,
        }
        asks = [flag for flag, is_said in flags.items() if is_said]
        if asks and said not in (None, Reference.QUESTIONS):
            raise InputError(
                f"{asks[0]} goes with --reference questions, which is meant without it"
            )
        if self.page and not written:
            raise InputError("--ask keeps the answers beside the bundle: name it with --out")
        if said is not None:
            return said
        if asks:
            return Reference.QUESTIONS
        if not certified or labelled():
            return Reference.LABELS
        return Reference.LARGE if written else Reference.QUESTIONS


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what a calibration finds.

    Attributes:
        input: models and images, or records.
        targets: limits, method and objective.
        holdout: share of the samples set aside to show what the choice does on others.
        seed: decides the hold-out and all else that is drawn.
        compare_methods: show what every method would have chosen.
        report: write a report beside the bundle.
        device: what the cascade is for, where that may be another machine; its published latencies
            count then.
        trust_labels: whether the user vouches for labels that do not look right.
        asked: how people are asked.
        outlook: say what questions would buy, where there are no labels.
        class_names: file with the classes' names, one a line, where nothing else tells them.

    Raises:
        InputError: a field is out of its range, or does not fit another; the message names it.
    """

    input: ImageInput | RecordInput
    targets: Targets = field(default_factory=Targets)
    holdout: float = 0.0
    seed: int = 0
    compare_methods: bool = False
    report: bool = True
    device: DeviceProfile | None = None
    trust_labels: bool = False
    asked: Asked = field(default_factory=Asked)
    outlook: bool = False
    class_names: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise InputError(
                f"--holdout {self.holdout}: a share from 0 up to but not including 1, as 0.3 for "
                "30 %"
            )
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or above")
        if isinstance(self.input, ImageInput) and self.input.epochs:
            _check_epochs(self.targets, compared=self.compare_methods)

    @property
    def only_plans(self) -> bool:
        """Whether nothing is chosen yet: people are to be told what to answer, or what it buys."""
        asked = self.asked
        answered = asked.questions is None and (asked.page or asked.answers)
        return self.targets.reference is Reference.QUESTIONS and not answered


def epochs_given(
    epochs: Path, labels: Path | None, given: Mapping[str, Any], targets: Targets
) -> dict[str, Any]:
    """Return what `ImageInput` takes of epochs.

    Args:
        epochs: their folder.
        labels: the table of their classes by time.
        given: what else `ImageInput` takes.
        targets: what is asked. The models are timed only where a limit is one of time or memory.

    Raises:
        InputError: they do not go together.
    """
    if (targets.reference is Reference.LABELS) == (labels is None):
        raise InputError(
            "--epochs takes either --labels, a .csv with columns epoch,from_s,to_s,class, or "
            "questions (--questions, --answers, --ask), or --reference large, which takes the "
            "large model's answers for right"
        )
    wanted = targets.needs_latency or targets.budgets.memory_mb is not None
    timing = given.get("timing", True) and wanted
    return {"data": epochs, "epochs": True, "spans": labels, "timing": timing}


def _check_epochs(targets: Targets, *, compared: bool) -> None:
    """Refuse what is not known of frames that are not independent.

    Raises:
        InputError: naming what to leave out.
    """
    if targets.method is not Method.CERTIFIED or compared:
        raise InputError("--epochs is certified, or not done: leave --method and the like out")
    if targets.searches:
        raise InputError("--epochs takes no --score or --fusion 'all': nothing is searched for")
