"""Settings: every option of a calibration, named once; flags, recipe and plan come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinysaver_edge.calibrate.options import Group, Option, is_said, setting
from tinysaver_edge.calibrate.targets import (
    BUDGET_UNITS,
    MOST_STAGES,
    Method,
    Objective,
    Reference,
)
from tinysaver_edge.data.source import DataSource
from tinysaver_edge.data.store import DataPlace, Place
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Settings:
    """What a recipe and flags ask for, before any file is looked at; None: nothing is said.

    Attributes:
        models: descriptions by model name, each with its ``file``.
        source: the recipe, for messages.
        at_home: whether the data is to lie beside the recipe, nobody having said otherwise.
    """

    root: Path = setting(
        Group.INPUT, Path, "Folder that a recipe's paths start at.", default=Path()
    )
    data: Place | DataSource | None = setting(
        Group.INPUT,
        DataPlace,
        "Images, labelled or not: folder (of class folders), .zip of it, .csv, .jsonl, "
        "WebDataset's .tar or Parquet; here or as a URL (s3://, gs://, https://).",
        recipe="data",
        plan="images.data",
    )
    epochs: Path | None = setting(
        Group.INPUT,
        Path,
        "Epochs of a stream, in place of images: a folder with one folder of frames, or one video, "
        "for each, as collect --epochs writes it. Answers are then reused from frame to frame.",
        recipe="epochs",
    )
    recordings: tuple[str, ...] = setting(
        Group.INPUT,
        str,
        "Epochs that are cut out of a recording, a video, at random moments; repeat it. They are "
        "kept in OUT.epochs; labels may name a recording in place of an epoch.",
        flag="--from",
        many=True,
        metavar="[NAME=]FILE",
    )
    epoch: str | None = setting(
        Group.INPUT, str, "With --from: length of an epoch; 10s by default.", metavar="LENGTH"
    )
    number: int | None = setting(
        Group.INPUT,
        int,
        "With --from: how many epochs are drawn; 1200 by default.",
        span=(1, 10_000_000),
    )
    fps: float | None = setting(
        Group.INPUT,
        float,
        "With --from: frames a second that are kept, all by default; the certificate speaks of "
        "cameras about as fast.",
    )
    large: str | None = setting(
        Group.INPUT,
        str,
        "The large model: a file, or a name with a recipe or records.",
        recipe="large",
    )
    large_jpeg: int | None = setting(
        Group.INPUT,
        int,
        "Show the large model frames as JPEG of this quality, as a device sends them to another "
        "machine: threshold and certificate then hold for that. It is measured on pixels as well, "
        "to say what JPEG costs it.",
        span=(1, 100),
        metavar="QUALITY",
        recipe="large_jpeg",
    )
    savers: tuple[str, ...] = setting(
        Group.INPUT,
        str,
        "A candidate saver; repeat it. 'all' with records: every cheaper model.",
        flag="--saver",
        many=True,
        recipe="savers",
    )
    descriptions: Path | None = setting(
        Group.INPUT, Path, "Folder of model descriptions (NAME.toml)."
    )
    engine: str | None = setting(
        Group.INPUT,
        str,
        "Engine for every model, before what its description says. 'auto' measures those that "
        "the --device lists, or this machine has, and takes the fastest that agrees.",
    )
    output: str | None = setting(
        Group.INPUT,
        str,
        "Output that holds the classes, in each of the models; where they call it differently, "
        "output.name in their descriptions tells.",
        metavar="NAME",
    )
    sizes: tuple[str, ...] = setting(
        Group.INPUT,
        str,
        "Try the savers at this input size, as 160 or 120x160 (height, width); repeat it.",
        flag="--size",
        many=True,
        metavar="PIXELS",
    )
    precisions: tuple[str, ...] = setting(
        Group.INPUT,
        Precision,
        "Try the savers in this arithmetic; repeat it.",
        flag="--precision",
        many=True,
    )
    class_names: Path | None = setting(
        Group.INPUT,
        Path,
        "Names of the classes, one a line as the outputs go, where nothing else tells them.",
        metavar="FILE",
        plan="plan.class_names",
    )
    records: Path | None = setting(
        Group.RECORDS,
        Path,
        "Folder of records (NAME.npz) to calibrate on: your own, or those that measure made.",
        recipe="records",
        plan="records.records",
    )
    labels: Path | None = setting(
        Group.RECORDS,
        Path,
        "True classes of the records, .npy; of epochs a .csv: epoch,from_s,to_s,class.",
        recipe="labels",
        plan="records.labels",
    )
    groups: Path | None = setting(
        Group.RECORDS,
        Path,
        "Clip or scene of each of the records' samples, .npy.",
        recipe="groups",
        plan="records.groups",
    )
    macs: Path | None = setting(
        Group.RECORDS,
        Path,
        "Table with columns name and macs, for records.",
        recipe="macs",
        plan="records.macs",
    )
    max_drop: float | None = setting(
        Group.ASKED,
        float,
        "Points of accuracy that may be lost; 0.5 by default, with budgets as well.",
        recipe="targets.max_drop",
        plan="targets.max_drop_points",
    )
    no_max_drop: bool = setting(
        Group.ASKED,
        bool,
        "No limit on the drop: budgets alone decide, the certificate states what can be signed "
        "there.",
    )
    confidence: float | None = setting(
        Group.ASKED,
        float,
        "How surely the drop keeps its bound; 0.9 by default.",
        recipe="targets.confidence",
        plan="targets.confidence",
    )
    budgets: tuple[str, ...] = setting(
        Group.ASKED,
        str,
        f"A limit; repeat it. Names: {', '.join(BUDGET_UNITS)} (= 2 × MACs).",
        flag="--budget",
        many=True,
        metavar="NAME=NUMBER",
    )
    device: str | None = setting(
        Group.ASKED,
        str,
        "Device profile, by name or path; its limits hold as well.",
        recipe="targets.device",
    )
    objective: str | None = setting(
        Group.ASKED,
        Objective,
        "What is best among those that keep the limits; macs by default, accuracy with "
        "--no-max-drop.",
        recipe="targets.objective",
        plan="targets.objective",
    )
    method: str | None = setting(
        Group.ASKED,
        Method,
        "How the threshold is found; certified by default.",
        recipe="targets.method",
        plan="targets.method",
    )
    reference: str | None = setting(
        Group.ASKED,
        Reference,
        "Whose answer is right: the labels'; the large model's, where there are none; or people's, "
        "who are asked only where answers differ.",
        recipe="targets.reference",
        plan="targets.reference",
    )
    questions: Path | None = setting(
        Group.ASKED,
        Path,
        "Without labels: write a table of what is to be asked (id, sample, file, a, b), the "
        "pictures beside it, and end with the plan.",
        metavar="FILE.csv",
        plan="asked.questions",
    )
    answers: tuple[Path, ...] = setting(
        Group.ASKED,
        Path,
        "Without labels: answers to those questions (id, answer: a, b, neither or unsure), in any "
        "order, part by part; repeat it.",
        many=True,
        metavar="FILE.csv",
        plan="asked.answers",
    )
    ask: bool = setting(
        Group.ASKED, bool, "Without labels: ask on a page in the browser, now.", plan="asked.page"
    )
    repeats: float | None = setting(
        Group.ASKED,
        float,
        "With --ask: share of the questions that come twice, hidden; 0.05 by default. Of 300 with "
        "0.2, a rate of errors of 5 % is mostly found within a factor of two.",
        plan="asked.repeated",
    )
    score: str | None = setting(
        Group.ASKED,
        str,
        "Deferral score, by default the method's (margin); 'all' tries every one.",
        recipe="targets.score",
        plan="targets.score",
    )
    fusion: str | None = setting(
        Group.ASKED,
        str,
        "Fusion after an escalation; 'none' for the large model's answer alone, 'all' tries "
        "every one.",
        recipe="targets.fusion",
        plan="targets.fusion",
    )
    max_stages: int | None = setting(
        Group.ASKED,
        int,
        "Most models of a cascade: 3 by default, two savers in turn before the large one.",
        span=(2, MOST_STAGES),
        recipe="targets.max_stages",
        plan="targets.max_stages",
    )
    compare_methods: bool = setting(
        Group.ASKED, bool, "Show what every method would have chosen.", plan="plan.compare_methods"
    )
    holdout: float | None = setting(
        Group.ASKED,
        float,
        "Share of the samples to set aside, 0..1.",
        recipe="holdout",
        plan="plan.holdout",
    )
    seed: int | None = setting(
        Group.ASKED, int, "Decides everything that is drawn.", recipe="seed", plan="plan.seed"
    )
    group_column: str | None = setting(
        Group.INPUT,
        str,
        "Column of a table that names each file's clip or scene.",
        recipe="group_column",
        plan="images.group_column",
    )
    independent: bool = setting(
        Group.ASKED,
        bool,
        "Vouch that no sample depends on another, though some look like others: taken at moments "
        "drawn at random, say. The certificate states that it is your word.",
        recipe="independent",
        plan="images.independent",
    )
    trust_labels: bool = setting(
        Group.ASKED,
        bool,
        "Vouch for labels that do not look right: of other classes than the large model's, or its "
        "own answers. The certificate states that it is your word.",
        recipe="trust_labels",
        plan="plan.trust_labels",
    )
    skip_limit: float | None = setting(
        Group.INPUT,
        float,
        "Share of images that may be unreadable, or left out for an ending that is not read; 0.01 "
        "by default.",
        recipe="skip_limit",
        plan="images.skip_limit",
    )
    time_budget: float | None = setting(
        Group.MEASURING,
        float,
        "After so many seconds start no more savers, and stop the one under way. The large model "
        "is measured first, whatever it takes.",
        plan="images.time_budget_s",
    )
    work_dir: Path | None = setting(
        Group.MEASURING,
        Path,
        "Where measured records are kept; OUT.records by default.",
        plan="images.records",
    )
    on: str | None = setting(
        Group.MEASURING,
        str,
        "Cluster whose nodes run the models: ray, which RAY_ADDRESS names or this machine is part "
        "of, or ray://HOST:10001. Nothing is timed there: latencies come from --bench.",
        metavar="ray",
        plan="images.on",
    )
    bench: tuple[Path, ...] = setting(
        Group.MEASURING,
        Path,
        "Report of bench, perhaps from the device: its latencies count; repeat it.",
        many=True,
        plan="images.bench",
    )
    no_timing: bool = setting(
        Group.MEASURING,
        bool,
        "Do not time the models on this machine.",
        plan="images.timing",
        negative=True,
    )
    retime: bool = setting(
        Group.MEASURING,
        bool,
        "Time the models anew, whatever earlier runs have kept.",
        plan="images.retime",
    )
    no_golden_frames: bool = setting(
        Group.WRITTEN,
        bool,
        "Put none of the images into the bundle.",
        plan="images.golden_frames",
        negative=True,
    )
    no_embed: bool = setting(
        Group.WRITTEN,
        bool,
        "Leave the models' graphs as they are; scale in numpy.",
        plan="images.embed",
        negative=True,
    )
    no_report: bool = setting(
        Group.WRITTEN,
        bool,
        "Write no report.html beside the bundle.",
        plan="plan.report",
        negative=True,
    )
    out: Path | None = setting(Group.WRITTEN, Path, "Folder or .zip for the bundle.")
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = "the command line"
    at_home: bool = False

    def overridden(self, flags: Mapping[str, Any]) -> Settings:
        """Return the settings with every flag that was given put over them.

        Naming records takes the recipe's images out, and the other way round.

        Raises:
            InputError: two that exclude each other are named.
        """
        given = {
            name: value
            for name, value in flags.items()
            if name in OPTIONS and name != "root" and is_said(value)
        }
        if "no_max_drop" in given:
            if "max_drop" in given:
                raise InputError("--max-drop and --no-max-drop exclude each other")
            given["max_drop"] = None
        flags_of = {"data": "--data", "epochs": "--epochs", "recordings": "--from"}
        flags_of["records"] = "--records"
        if len(named := [flag for one, flag in flags_of.items() if one in given]) > 1:
            raise InputError(f"{' and '.join(named)} exclude each other: name one of them")
        if "data" in given:
            given["at_home"] = False
            given["records"] = given["epochs"] = None
        elif "epochs" in given or "recordings" in given:
            none = dict.fromkeys({"records", "data", "group_column", "epochs"} - given.keys())
            given |= {"at_home": False, **none}
        elif "records" in given:
            of_images = {"group_column": None, "independent": False, "large_jpeg": None}
            given = {**of_images, **given, "data": None, "epochs": None}
        return replace(self, **given)


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {one.name: one.metadata["option"] for one in fields(Settings) if "option" in one.metadata}
)
"""Every option by its setting's name, in the order that the help has."""
