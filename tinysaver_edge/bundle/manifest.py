"""What `bundle.json` holds: the schema of a bundle, checked when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tinysaver_edge._support.files import combined
from tinysaver_edge.certificate.p_values import upper_rate
from tinysaver_edge.codec import Jpeg, check_carries
from tinysaver_edge.latency import settled_shares
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess
from tinysaver_edge.reuse import ReuseRule

if TYPE_CHECKING:
    from typing_extensions import Self

SCHEMA_VERSION = 3
"""Version of the schema that this release writes; it reads this one and all before it."""


def _inside(path: str) -> str:
    """Refuse a path that leaves the bundle's folder."""
    if not path.isprintable():  # NUL, halves of surrogate pairs, escape sequences
        raise ValueError(f"path {path!r} holds characters that no file of a bundle has")
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in parts[0]:
        raise ValueError(f"path {path!r} leaves the bundle")
    return path


InsidePath = Annotated[str, AfterValidator(_inside)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """One file of the bundle and what it must contain."""

    path: InsidePath
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Named(_Strict):
    """A score or a fusion: its name in the registry and its parameters."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class ModelEntry(_Strict):
    """One model of the cascade and how it is run.

    ``files`` is empty in a bundle made from records, which knows the models by name only. ``codec``
    is what frames pass on their way to it, null where it was calibrated on their pixels. Where
    ``elsewhere`` is true the files are not in the bundle, but on the hosts that serve the model.
    ``quantised`` ones compute with 8 bits: their answers depend on the kind of processor, and
    ``fitted_on`` are hashes of the images that their ranges were found on.
    """

    name: str
    files: list[FileEntry] = Field(default_factory=list)
    source_sha256: str | None = None
    engine: str | None = None
    device: str | None = None
    precision: str | None = None
    preprocess: Preprocess | None = None
    output: OutputFormat | None = None
    codec: Jpeg | None = None
    macs: float | None = None
    parameters: int | None = None
    elsewhere: bool = False
    quantised: bool = False
    fitted_on: list[str] = Field(default_factory=list)

    @property
    def sha256(self) -> str | None:
        """One hash of its files; None where it is known by name only."""
        return combined([file.sha256 for file in self.files]) if self.files else None

    @model_validator(mode="after")
    def _codec_carries_its_input(self) -> Self:
        if self.codec is not None and self.preprocess is not None:
            check_carries(self.preprocess, model=self.name)
        return self


class StageEntry(_Strict):
    """One stage: a model and, for all but the last, when its answer is accepted.

    A ``threshold`` of null accepts nothing.
    """

    model: ModelEntry
    score: Named | None = None
    threshold: float | None = None


class ReuseFiguresEntry(_Strict):
    """Who answered the frames of epochs; see `deciding.figures.ReuseFigures`."""

    epochs: int
    still: Fraction
    same: Fraction
    saver: Fraction
    large: Fraction
    drop_points_without: float | None
    cost_macs_ratio_without: float | None


class FiguresEntry(_Strict):
    """What a cascade did on a set of samples; see `deciding.figures.Figures`."""

    samples: int
    accuracy_saver: Fraction | None
    accuracy_large: Fraction | None
    accuracy_cascade: Fraction | None
    drop_points: float
    accept_rate: Fraction
    cost_macs_ratio: float | None
    drop_interval_points: tuple[float, float] | None = None
    saver_drop_interval_points: tuple[float, float] | None = None
    settled: tuple[Fraction, ...] | None = None
    reuse: ReuseFiguresEntry | None = None
    accuracy_local: Fraction | None = None


class RanEntry(_Strict):
    """What a model ran with while the golden samples were made, as the engine itself said.

    ``release`` is the engine's distribution and version, null where that is not known.
    """

    engine: str
    release: str | None
    device: str
    precision: str


class LatencyEntry(_Strict):
    """Limits of time that a cascade was calibrated for, null where there is none.

    ``escalation_rate`` is the highest share of frames that go on to the last stage that they were
    held against; ``reached`` has that of every stage but the first, where there are more than two,
    and ``asked`` that of the first, where answers are reused from frame to frame.
    """

    escalation_rate: Fraction
    reached: tuple[Fraction, ...] | None = None
    asked: Fraction | None = None
    mean_latency_ms: Positive | None = None
    p95_latency_ms: Positive | None = None
    p99_latency_ms: Positive | None = None

    def shares(self, stages: int) -> tuple[float, ...]:
        """Return the share of frames that each of so many stages settles, summing to 1.

        Where answers are reused, the share that is found still comes before them.
        """
        rates = self.reached
        if rates is None or len(rates) != stages - 1:  # of a bundle that tells the last one's only
            rates = (self.escalation_rate,) * (stages - 1)
        return settled_shares(rates if self.asked is None else (self.asked, *rates))

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are, by name."""
        rates = {"escalation_rate", "reached", "asked"}
        found = self.model_dump(exclude=rates, exclude_none=True)
        return {name: float(limit) for name, limit in found.items()}


class DisagreementEntry(_Strict):
    """How often an escalation would have changed an accepted answer, when it was calibrated.

    A device goes on measuring the same on the frames it audits; more than this is drift.

    Attributes:
        accepted: samples that a stage before the last settles; one of each group where there are
            groups.
        disagreed: those of them that would have been answered otherwise after an escalation.
        held_out: whether they were set aside when the cascade was chosen.
        choices: among how many thresholds it was chosen on these samples; a bound has to hold for
            all of them together. 1 where they were held out.
        confidence: of `upper`.
        upper: Clopper-Pearson upper bound on the rate, 0..1.
        stricter: scores that fewer and fewer of the samples reach that the first stage settles,
            rising: thresholds to change to when the field has changed.
    """

    accepted: int = Field(ge=1)
    disagreed: int = Field(ge=0)
    held_out: bool
    choices: int = Field(ge=1)
    confidence: Fraction
    upper: Fraction
    stricter: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.disagreed > self.accepted:
            raise ValueError(f"{self.disagreed} of {self.accepted} samples disagree")
        if self.stricter != sorted(self.stricter):
            raise ValueError("the stricter thresholds do not rise")
        return self

    def tested(self, level: float) -> float:
        """Return the rate, 0..1, beyond which a drift watch of a level sees drift.

        Half of the level pays for not knowing the true rate: what is tested is the upper bound on
        it at that risk, over all thresholds there were to choose from.
        """
        return upper_rate(self.disagreed, self.accepted, risk=level / 2 / self.choices)


class GoldenEntry(_Strict):
    """Samples whose answers are kept, so that another machine can show that it agrees.

    Attributes:
        frames: lossless pictures, in order.
        answers: ``.npz`` with, for stage i, ``input_i`` (resized frames, uint8) and ``logits_i``,
            and the final ``index`` and ``source``; the class names as ``labels``; of the image
            decoder, ``decoded`` (pixels of ``decoder``) and ``frame_sha256`` (of each frame's).
        tolerances: for each stage, the largest difference of a probability that counts as
            agreement.
        decoder: a JPEG that image decoders differ on.
        ran: what each stage's model ran with.
    """

    frames: list[FileEntry] = Field(min_length=1)
    answers: FileEntry
    tolerances: list[float]
    decoder: FileEntry | None = None
    ran: list[RanEntry] = Field(default_factory=list)


class MeasuredStageEntry(_Strict):
    """One stage as it was when its certificate was counted; see `ModelEntry`, `StageEntry`.

    ``sha256`` is the combined hash of its files.
    """

    model: str
    sha256: str | None
    engine: str | None
    device: str | None
    precision: str | None
    preprocess: Preprocess | None
    output: OutputFormat | None
    codec: Jpeg | None
    score: Named | None
    threshold: float | None


class MeasuredEntry(_Strict):
    """All that a certificate depends on; see `bundle.covered`.

    ``labels_sha256`` is of the class names in their order, null where there were
    none: names that are added later stand for the same numbers.
    """

    stages: list[MeasuredStageEntry]
    fusion: Named | None
    labels_sha256: str | None
    pool: list[Fraction] | None = None
    reuse: ReuseRule | None = None


class AskedEntry(_Strict):
    """What people were asked for a certificate, where nobody labelled the samples.

    A label is needed only where the cascade's answer differs from the large model's; there somebody
    was asked which of the two is right. What nobody could tell counts as the worst.

    Attributes:
        asked: how many questions somebody answered, if only by "can't tell".
        answered: those of them with an answer, the same from all who gave one.
        unsure: those that nobody could tell.
        disagreed: those that people answered differently.
        open: questions that bear on the certified threshold and that have no answer.
        repeats: how many questions somebody was asked twice, without being told.
        agreed: how many of them they answered alike.
        frames: how many frames of a stream the answers stand for: each question is about a run of
            them, one of which was shown. None where each was about one sample.
    """

    asked: int = Field(ge=0)
    answered: int = Field(ge=0)
    unsure: int = Field(ge=0)
    disagreed: int = Field(ge=0)
    open: int = Field(ge=0)
    people: int = Field(ge=0)
    repeats: int = Field(ge=0)
    agreed: int = Field(ge=0)
    frames: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.answered + self.unsure + self.disagreed != self.asked or self.agreed > self.repeats:
            raise ValueError("the numbers of questions do not add up")
        return self

    @property
    def words(self) -> str:
        """What was asked, in one line that follows a certificate's statement."""
        if not self.asked:
            return (
                "nobody was asked: every answer that differs from the large model's counts as lost"
            )
        who = "1 person" if self.people == 1 else f"{self.people} people"
        told = f"{self.answered} of {self.asked} questions answered by {who}"
        if self.frames is not None:
            told += (
                ", each about a run of frames on which the two answers stay the same, "
                f"{self.frames} in all: what was said of the one shown counts for the others"
            )
        worst = self.unsure + self.disagreed
        counted = f", {worst} unsure or disputed" if worst else ""
        left = f", {self.open} open: these count as lost" if self.open else ""
        again = "no question asked twice"
        if self.repeats:
            again = f"{self.agreed} of {self.repeats} repeats agreed"
        return f"{told}{counted}{left}; {again}"


class CertificateEntry(_Strict):
    """A certificate and the exact models that it speaks of.

    Attributes:
        statement: what is promised, in one line.
        counts: the certificate with all its counts; see `certificate.Certificate`.
        models: combined hash of each stage's model files, by model name; null in a bundle made
            from records.
        codec: what frames passed on their way to the large model, null where it saw their pixels.
        measured: all that it was counted with. A bundle that says otherwise beside it, or has none
            of it, is not certified.
        stated: what the user vouched for against what the samples look like, in words that follow
            "as the user states,"; the proof takes it as given.
        questions: what people were asked, where it rests on their answers in place of labels.
        cut: what was left out of each collected frame, in words, "" for nothing; null where the
            samples do not tell.
        figures_sha256: of all of the above and of all figures beside it, so that who edits one of
            them is found out; null in bundles that were made before it was kept.
    """

    statement: str
    counts: dict[str, Any]
    models: dict[str, str | None]
    codec: Jpeg | None = None
    measured: MeasuredEntry | None = None
    stated: list[str] = Field(default_factory=list)
    questions: AskedEntry | None = None
    cut: str | None = None
    figures_sha256: str | None = None

    @property
    def given(self) -> str:
        """What it takes for granted, to follow the statement; empty where that is nothing."""
        return given_words(self.stated, self.questions)


def given_words(stated: Sequence[str], questions: AskedEntry | None = None) -> str:
    """Return what a certificate takes for granted, in words that follow its statement."""
    asked = "" if questions is None else f", from answers to questions ({questions.words})"
    return asked + (f"; given, as the user states, {' and '.join(stated)}" if stated else "")


class SeenEntry(_Strict):
    """The images that a bundle was calibrated or its models quantised on, as hashes of their files.

    Attributes:
        file: ``.npy`` of uint64, rising; see `data.seen`.
        whole: whether these are all of them.
    """

    file: FileEntry
    whole: bool = True


class ReuseEntry(_Strict):
    """How a stream's frames are answered with what was found for earlier ones.

    Attributes:
        rule: when; see `reuse.Gate`.
        disagreement: how often an answer that did not come from the large model at once, accepted
            or repeated, differed from it on the frames of the epochs; null where it was not
            counted.
    """

    rule: ReuseRule
    disagreement: DisagreementEntry | None = None


class Manifest(_Strict):
    """All of `bundle.json`.

    ``pool`` has, for every stage but the first, the weight of what was answered before; null where
    answers are not pooled. See `deciding.policy.Policy`. ``processor`` is the kind that the models
    were measured on, null where they were not measured here; see `hardware.cpu.Cpu.family`.
    """

    schema_version: Literal[1, 2, 3] = 3
    created_by: str
    labels: list[str] | None
    stages: list[StageEntry] = Field(min_length=1)
    fusion: Named | None = None
    pool: list[Fraction] | None = None
    method: str
    max_drop_points: float | None = None
    seed: int
    calibration: FiguresEntry
    holdout: FiguresEntry | None = None
    certificate: CertificateEntry | None = None
    disagreement: DisagreementEntry | None = None
    golden: GoldenEntry | None = None
    latency: LatencyEntry | None = None
    seen: SeenEntry | None = None
    reuse: ReuseEntry | None = None
    processor: str | None = None

    @model_validator(mode="after")
    def _the_last_may_be_elsewhere(self) -> Self:
        early = [stage.model.name for stage in self.stages[:-1] if stage.model.elsewhere]
        if early or (self.stages[-1].model.elsewhere and not self.stages[-1].model.files):
            raise ValueError("only the last model may be elsewhere, and its files must be known")
        return self

    @model_validator(mode="after")
    def _no_model_is_asked_twice(self) -> Self:
        names = [stage.model.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"model {name} is two of its stages: each model is asked once")
        return self

    @model_validator(mode="after")
    def _pool_fits_the_stages(self) -> Self:
        if self.pool is None:
            return self
        if self.fusion is not None:
            raise ValueError("there are a fusion and a pool: a cascade has one of them")
        if len(self.pool) != len(self.stages) - 1:
            raise ValueError(
                f"pool has {len(self.pool)} weights for {len(self.stages)} stages: there is one "
                f"for each but the first"
            )
        for stage in self.stages[:-1]:
            if stage.threshold is not None and stage.score is None:
                raise ValueError(f"{stage.model.name} has a threshold and no score")
        if self.stages[-1].threshold is not None:
            raise ValueError(f"{self.stages[-1].model.name} is the last and has a threshold")
        return self

    @model_validator(mode="after")
    def _one_tolerance_a_stage(self) -> Self:
        if self.golden is not None and len(self.golden.tolerances) != len(self.stages):
            raise ValueError(
                f"golden.tolerances has {len(self.golden.tolerances)} values for "
                f"{len(self.stages)} stages"
            )
        if self.golden is not None and len(self.golden.ran) not in (0, len(self.stages)):
            raise ValueError(f"golden.ran has {len(self.golden.ran)} values")
        return self
