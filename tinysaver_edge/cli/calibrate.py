"""`tinysaver-edge calibrate`: choose a saver and a threshold, and write a bundle."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinysaver_edge._support.text import for_people
from tinysaver_edge._support.urls import ListenAddress
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate import Calibration, Plan, QuestionPlan, plan_questions
from tinysaver_edge.calibrate import calibrate as run_calibration
from tinysaver_edge.calibrate.options import Group, Option
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.calibrate.recipe import check_place, load_recipe
from tinysaver_edge.calibrate.settings import OPTIONS, Settings
from tinysaver_edge.calibrate.targets import Reference
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import (
    Command,
    DataPath,
    GroupedCommand,
    LocalPath,
    Number,
    json_option,
    options_of,
)
from tinysaver_edge.cli.show import show_calibration, show_candidates, show_question_plan
from tinysaver_edge.data.store import DataPlace
from tinysaver_edge.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from tinysaver_edge.questions.interview import Interview

ASK_AT = "127.0.0.1:8077"
"""Where the page of questions listens. Always there, if it is free: a page that was left open then
goes on when the calibration is started again."""


def calibrate_options(names: Collection[str]) -> Callable[[Command], Command]:
    """Return what gives a command these of a calibration's options."""
    return lambda command: _with_options(command, names)


def _with_options(command: Command, names: Collection[str]) -> Command:
    for name, option in reversed(list(OPTIONS.items())):
        if name not in names:
            continue
        flag = option.flag or f"--{name.replace('_', '-')}"
        made = options_of(option.group.value)(
            flag,
            name,
            type=_type(option),
            is_flag=option.kind is bool or None,  # False lets a value be left out
            multiple=option.many,
            metavar=option.metavar,
            help=option.help,
        )
        command = made(command)
    return command


def _type(option: Option) -> Any:  # noqa: ANN401
    """Return what reads a value, in click's terms."""
    if option.span is not None:
        return click.IntRange(*option.span)
    if option.kind is DataPlace:
        return DataPath()
    if issubclass(option.kind, Path):
        return LocalPath()
    if issubclass(option.kind, Enum):
        return click.Choice([str(one.value) for one in option.kind])
    return Number() if option.kind is float else option.kind


@click.command(cls=GroupedCommand)
@click.argument("recipe", required=False)
@calibrate_options(OPTIONS)
@options_of(Group.ASKED.value)(
    "--as",
    "ask_as",
    metavar="NAME",
    help="With --ask: who answers, where the page is not told another name.",
)
@options_of(Group.ASKED.value)(
    "--ask-at",
    metavar="HOST:PORT",
    help=f"With --ask: where the page listens.  [default: {ASK_AT}]",
)
@options_of(Group.ASKED.value)(
    "--token",
    envvar="TINYSAVER_TOKEN",
    show_envvar=True,
    help="With --ask: what the page must be asked with; needed where other machines can reach it.",
)
@json_option
def calibrate(
    recipe: str | None,
    as_json: bool,
    ask_as: str | None,
    ask_at: str | None,
    token: str | None,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Choose a saver and a threshold on images, labelled or not, and write a bundle.

    \b
    Two models and a folder of class folders:
        tinysaver-edge calibrate --data images/ --large resnet56.onnx \\
            --saver resnet8.tflite --saver resnet20.onnx --max-drop 0.5 --out bundle/
    A recipe, by name or path; flags override it:
        tinysaver-edge calibrate cifar10 --root ../data/cifar10 --out bundle/
    A folder of frames that nobody has labelled: what asking people a few questions would buy, then
    the questions, then a bundle from the answers (or --ask, on a page):
        tinysaver-edge calibrate --data frames/ --large L.onnx --saver S.onnx
        tinysaver-edge calibrate ... --questions ask.csv
        tinysaver-edge calibrate ... --answers answers.csv --out bundle/
    Records that are there already:
        tinysaver-edge calibrate --records DIR --labels labels.npy --macs models.csv \\
            --large NAME --saver all --out bundle/
    The most accurate cascade that fits:
        tinysaver-edge calibrate cifar10 --no-max-drop --budget p95_latency_ms=5 --out bundle/
    """
    settings = Settings() if recipe is None else load_recipe(recipe, root=flags["root"])
    settings = settings.overridden(flags)
    check_place(settings)
    plan = plan_of(settings)
    labelled = plan.targets.reference is Reference.LABELS
    page = _Page.of(plan, ask_at, token, ask_as)
    if plan.only_plans:
        _tell_plan(plan, settings, as_json=as_json)
        return
    try:
        result = _calibrated(plan, settings, page)
    except InfeasibleError as error:  # what each saver would do, before the line that says why
        terminal.warn(error.warnings)
        show_candidates(error.candidates, agreement=not labelled)
        raise
    terminal.warn(result.warnings)
    show_calibration(result, labelled=labelled)
    if result.plan is not None:
        show_question_plan(result.plan, seen=page is not None)
    terminal.next_step(_next_step(result, settings))
    if as_json:
        terminal.show_json(result.to_dict())


def _tell_plan(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Say what can be had without labels, and what questions would buy."""
    with terminal.progress() as progress:
        found = plan_questions(plan, out=settings.out, progress=progress)
    terminal.warn(found.warnings)
    show_question_plan(found)
    if found.standing.asked and found.standing.over:
        worth = "no further answer can lower the cost: --answers with --out certifies what was said"
    elif found.file is not None and not found.standing.over:
        worth = (
            f"answer {found.file} in a column called answer (a, b, neither or unsure), as many as "
            "you like from the top; then the same command with --answers in place of --questions"
        )
    elif any(one.questions for one in found.chosen.milestones):
        worth = (
            "write the questions with --questions FILE.csv, or ask on a page with --ask and --out"
        )
    else:
        worth = (
            "no number of answers is expected to certify more: more frames, a larger --max-drop "
            "or another saver may"
        )
    terminal.next_step(worth)
    if as_json:
        terminal.show_json(found.to_dict())


@dataclass(frozen=True, slots=True)
class _Page:
    """Where people are asked on a page.

    Attributes:
        address: where it listens.
        elsewhere: whether it may listen on another port, where this one is taken.
        token: what a browser must know.
        by: who answers there, or None.
        confidence: 1 - δ of what is to be proven.
    """

    address: ListenAddress
    elsewhere: bool
    token: str | None
    by: str | None
    confidence: float

    @classmethod
    def of(cls, plan: Plan, ask_at: str | None, token: str | None, by: str | None) -> _Page | None:
        """Return it as flags have it; None where nobody is asked there.

        Raises:
            InputError: the address or the name cannot be one, or others can reach the page without
                a token.
        """
        if not plan.asked.page:
            if ask_at is not None or by is not None:
                flag = "--as" if ask_at is None else "--ask-at"
                raise InputError(f"{flag} is about the page that --ask shows: add --ask")
            return None
        from tinysaver_edge.questions.book import check_name
        from tinysaver_edge.questions.page import QuestionPage

        address = ListenAddress.parse(ask_at or ASK_AT, option="--ask-at")
        QuestionPage.check(address, token)
        name = None if by is None else check_name(by)
        return cls(address, ask_at is None, token, name, plan.targets.confidence)

    def ask(self, plan: QuestionPlan, interview: Interview) -> None:
        """Show the page until somebody finishes on it, or a signal says that it is enough."""
        from tinysaver_edge.questions.page import QuestionPage

        show_question_plan(plan)
        if plan.standing.over:
            terminal.say("No answer could bring the certificate any further: nobody is asked")
            return
        terminal.warn(_for_people_hard(interview))
        page = QuestionPage(
            interview,
            self._free(),
            token=self.token,
            by=self.by,
            confidence=self.confidence,
        )
        with page, terminal.stopping_on_signals(page.finish) as stop:
            terminal.say(f"Questions: {page.url}{self._way(page.url)}")
            terminal.say("Finish there, or press Ctrl-C once: then what was answered is certified")
            page.wait()
        if stop.signal is not None:
            terminal.say(f"{stop.signal.name}: going on with what was answered")

    def _free(self) -> ListenAddress:
        if not self.elsewhere:
            return self.address
        try:
            self.address.bind().close()
        except InputError:
            return replace(self.address, port=0)
        return self.address

    def _way(self, url: str) -> str:
        """Say how a browser elsewhere gets there, for whoever is here over SSH."""
        if "SSH_CONNECTION" not in os.environ or not self.address.is_loopback:
            everywhere = self.address.host in ("0.0.0.0", "::")
            where = "any address of this machine; " if everywhere else ""
            return f" ({where}it asks for the token)" if self.token is not None else ""
        port = url.rpartition(":")[2]
        return f" (from your own machine: ssh -L {port}:127.0.0.1:{port} HOST, then open it)"


def _for_people_hard(interview: Interview) -> Iterator[str]:
    """Say what makes the questions hard to answer."""
    if interview.names is None:
        yield (
            "the classes have no names, so people are asked about numbers: --class-names FILE "
            "names them, one a line"
        )
    if not interview.has_pictures:
        yield (
            "records hold no pictures, so people are asked about numbers of samples: --questions "
            "FILE.csv writes them for whoever has the pictures"
        )


def _calibrated(plan: Plan, settings: Settings, page: _Page | None) -> Calibration:
    with terminal.progress() as progress:
        return run_calibration(
            plan,
            out=settings.out,
            progress=progress,
            command=_own_words(sys.argv[1:]),
            created=datetime.now(timezone.utc),
            ask=None if page is None else page.ask,
        )


def _own_words(words: list[str]) -> str:
    """Return the command line as a report may show it: without the page's token, and logins."""
    joined = shlex.join(["tinysaver-edge", *words])
    return for_people(re.sub(r"(--tok\w*[= ])('[^']*'(?:\"'\"'[^']*')*|\S+)", r"\1…", joined), None)


def _next_step(result: Calibration, settings: Settings) -> str:
    if result.policy.stages[0].threshold is None:
        return (
            "try other savers, more labelled samples or a larger --max-drop: here every frame "
            "goes to the large model"
        )
    if result.bundle is None:
        return "add --out bundle/, which writes what a device needs"
    if settings.records is not None and not _has_models(result.bundle):
        return (
            f"{terminal.command_line('evaluate', result.bundle)} --records DIR --labels FILE.npy, "
            "on samples that it has not seen; to run, a bundle needs models: calibrate --data"
        )
    rate = None if result.reuse is None else result.reuse.rule.frames_per_s
    pace = () if rate is None else ("--fps", f"{rate:.3g}")  # certified are cameras about as fast
    return (
        f"on the device {terminal.command_line('verify', result.bundle)}, then "
        f"{terminal.command_line('run', result.bundle, '--source', '0', *pace)}"
    )


def _has_models(bundle: Path) -> bool:
    with Bundle.load(bundle) as opened:
        return opened.has_models
