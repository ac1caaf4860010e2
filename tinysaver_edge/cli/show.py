"""How calibrations and figures are shown to people: tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from tinysaver_edge._support import numbers
from tinysaver_edge.bundle.manifest import given_words
from tinysaver_edge.calibrate import Calibration
from tinysaver_edge.calibrate.calibration import Candidate, MethodRow, Milestone, QuestionPlan
from tinysaver_edge.calibrate.report.proof import drift_sentence
from tinysaver_edge.calibrate.report.tradeoff import rank_of
from tinysaver_edge.cli import terminal
from tinysaver_edge.deciding.figures import Figures
from tinysaver_edge.score import Score

_WIDE = 110
"""Columns from which all that is known of a candidate stands in its row."""


def show_calibration(result: Calibration, *, labelled: bool) -> None:
    """Write the candidates, the figures and the choice.

    Args:
        result: of a calibration.
        labelled: whether the samples had labels.
    """
    agreement = not labelled and _is_agreement([result.calibration])
    show_candidates(result.candidates, samples=result.calibration.samples, agreement=agreement)
    sets = [("calibration", result.calibration), ("hold-out", result.holdout)]
    given = [(name, figures) for name, figures in sets if figures is not None]
    show_figures(given, labelled=labelled)
    if result.methods:
        _show_methods(result.methods)
    _show_choice(result)


def show_question_plan(plan: QuestionPlan, *, seen: bool = False) -> None:
    """Say what is certified without labels, what questions buy, and what answers have proven.

    Args:
        plan: what can be had.
        seen: whether that was shown before, and only the last is new.
    """
    if not seen:
        _show_prospects(plan)
    _show_answered(plan)


def _show_prospects(plan: QuestionPlan) -> None:
    shared = f", shared by {plan.candidates} candidates" if plan.candidates > 1 else ""
    bound = (
        "no bound" if plan.max_drop_points is None else f"drop ≤ {plan.max_drop_points:g} points"
    )
    terminal.show_table(
        f"{plan.samples} samples without labels: what questions buy ({bound}, confidence "
        f"{100 * plan.confidence:g} %{shared})",
        ("cascade", "no question", "more and more of them"),
        [
            (
                f"{one.name} (asked about)" if one.chosen else one.name,
                *_bought(one.milestones),
            )
            for one in plan.prospects
        ],
    )
    terminal.explain(
        "cost, and about how many questions take the walk there: MACs a frame, where the large "
        "model alone takes 1. Expected is that people find half of the differing answers lost and "
        "a quarter gained; the certificate counts what they do find, so it may take more"
    )
    agreed = [f"≥ {100 * level:g} % at cost {cost:.3f}" for level, cost in plan.chosen.agreements]
    if agreed:
        terminal.tell(
            f"{plan.chosen.name} certified now, no labels: agreement with the large model "
            f"{', '.join(agreed)}"
        )


def _show_answered(plan: QuestionPlan) -> None:
    standing = plan.standing
    if standing.asked:
        who = "1 person" if standing.people == 1 else f"{standing.people} people"
        terminal.tell(
            f"answered: {standing.answered} of {standing.asked} questions asked, "
            f"{standing.unsure} unsure, {standing.disagreed} disputed, by {who}; {standing.repeats}"
        )
        terminal.tell(f"so far: {_so_far(plan)}")
    if plan.file is not None:
        beside = "" if plan.pictures is None else f", their pictures: {plan.pictures}"
        terminal.tell(f"questions: {plan.file}{beside}")


def _bought(milestones: Sequence[Milestone]) -> tuple[str, str]:
    """Write what is had without a question, and what with more and more of them."""
    free = [numbers.ratio(one.cost) for one in milestones if not one.questions]
    more = [
        f"{numbers.ratio(one.cost)}: {_rounded(one.questions)}"
        for one in milestones
        if one.questions
    ]
    return free[0] if free else "nothing", ", ".join(more) or "nothing is expected"


def _rounded(count: int) -> int:
    """Round up to two digits, which tell enough."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _so_far(plan: QuestionPlan) -> str:
    standing, drop = plan.standing, plan.max_drop_points
    found = (
        f"the drop is at most {standing.bound_points:g} points at cost "
        f"{numbers.ratio(standing.target_cost)}"
    )
    if drop is None:
        return found
    if standing.threshold is None:
        return f"nothing is certified; {found}"
    done = f"{standing.open} questions to the next step"
    if standing.over:
        done = "no further answer can lower it"
    at = f"drop ≤ {drop:g} points at cost {numbers.ratio(standing.cost)} is certified"
    return f"{at} ({done}); {found}"


def show_candidates(
    rows: Sequence[Candidate], *, samples: int | None = None, agreement: bool = False
) -> None:
    """Write a row for each saver: what it would do, and why it was chosen or not.

    Args:
        rows: the savers.
        samples: how many samples the figures were counted on; None where nobody says.
        agreement: whether the large model's answers stand for the truth.
    """
    if not rows:
        return
    rows = sorted(rows, key=rank_of)
    timed = any(row.mean_latency_ms is not None for row in rows)
    searched = any(row.tried for row in rows)
    columns: dict[str, list[str]] = {
        "saver": [f"{row.saver}\nκ {numbers.ratio(row.kappa)}" for row in rows],
        "cost": [_within(numbers.ratio(row.cost_macs_ratio), row.cost_interval) for row in rows],
        "drop": [_drop(row) for row in rows],
        "accepted": [_share(row.accept_rate, row.accept_interval) for row in rows],
    }
    if timed:
        columns["mean latency"] = [_latency(row) for row in rows]
    wide = terminal.columns() >= _WIDE
    if wide:
        columns["threshold"] = [numbers.score(row.threshold) for row in rows]
        if searched:
            for place, name in enumerate(("score", "fusion", "tried", "estimate")):
                columns[name] = [_found(row)[place] for row in rows]
    if wide or not timed:
        alone = "saver agrees" if agreement else "saver alone"
        columns[alone] = [_share(row.accuracy_saver, row.accuracy_interval) for row in rows]
    if wide:
        columns["why"] = [row.why for row in rows]
    terminal.show_table(
        f"Candidates, on these {'' if samples is None else f'{samples} '}samples",
        list(columns),
        list(zip(*columns.values(), strict=True)),
    )
    if not wide:
        for row in rows:
            at = "" if row.threshold is None else f" (threshold {numbers.score(row.threshold)})"
            terminal.tell(f"{row.saver}{at}: {row.why}")
    terminal.explain(
        "cost: MACs a frame, where the large model alone takes 1: κ, the saver's share, for each "
        "frame that it is asked about, plus the share of frames escalated; accepted: frames that "
        "the large model is not asked about; all counted on these samples, which promises "
        f"nothing of others{_below(rows)}"
        f"{'; below a latency its quickest and slowest round of timing' if timed else ''}"
    )


def _below(rows: Sequence[Candidate]) -> str:
    """Say what stands below the figures of a table."""
    if any(row.drop_interval_points or row.accuracy_interval for row in rows):
        return "; below each its 95 % interval on other samples like these, - for a gain"
    if any(row.accept_rate for row in rows):
        return "; of samples in groups, and where questions are open, no interval is told"
    return ""


def _within(figure: str, interval: tuple[float, float] | None, form: str = ".3f") -> str:
    """Write a figure, and below it its interval."""
    if interval is None:
        return figure
    return f"{figure}\n{interval[0]:{form}} to {interval[1]:{form}}"


def _share(share: float | None, interval: tuple[float, float] | None) -> str:
    ends = None if interval is None else (100 * interval[0], 100 * interval[1])
    return _within(numbers.percent(share), ends, ".1f")


def _drop(found: Candidate | Figures) -> str:
    """Write a drop, and below it within what it may lie on other samples like these."""
    return _within(numbers.points(found.drop_points), found.drop_interval_points, "+.2f")


def _found(row: Candidate) -> tuple[str, ...]:
    """Say what a search found for a saver, and in how many it did."""
    fitted = row.tried[0].fitted if row.tried else ()
    score, fusion = row.score or "?", row.fusion or "none"
    return (
        f"{score}, fitted" if "score" in fitted else score,
        f"{fusion}, fitted" if "fusion" in fitted else fusion,
        str(sum(one.estimate is not None for one in row.tried)),
        _estimate(row),
    )


def _latency(row: Candidate) -> str:
    """Write a mean latency and how far the rounds of timing lay apart."""
    return _within(numbers.milliseconds(row.mean_latency_ms), row.latency_spread_ms, ".2f")


def _estimate(row: Candidate) -> str:
    """Write what a search expected, with its interval; nothing where there is none."""
    if row.estimate is None or row.estimate_interval is None:
        return ""
    return _within(f"{row.estimate:.3f}", row.estimate_interval)


def _show_choice(result: Calibration) -> None:
    """Say in words what was chosen and what is promised."""
    stage, large = result.policy.stages[0], result.policy.stages[-1]
    after = f"{large.model} is asked"
    if result.policy.fusion is not None and result.policy.fusion.changes_answers:
        after += " and both models' probabilities give the answer (fused)"
    if result.policy.pool is not None:
        after += " and the probabilities of all models asked give the answer (pooled)"
    between = "".join(
        f", else {one.model} is asked, whose answer pooled with that counts from "
        f"{numbers.score(one.threshold)} on"
        for one in result.policy.stages[1:-1]
    )
    if stage.threshold is not None and stage.score is not None:
        terminal.tell(
            f"{stage.model} answers where its {stage.score.name}{_meaning(stage.score)} is at "
            f"least {numbers.score(stage.threshold)}{between}, else {after}; "
            f"method: {result.method.value}"
        )
    if result.reuse is not None:
        rule = result.reuse.rule
        terminal.tell(
            f"reused within {rule.epoch_s:g} s: an answer while the picture differs by less than "
            f"{rule.still:g} grey levels, the large model's while the saver's probabilities differ "
            f"by less than {rule.same:g}"
        )
    if result.calibration.settled is not None and len(result.policy.stages) > 2:
        ends = zip(result.policy.stages, result.calibration.settled, strict=True)
        flow = ", ".join(f"{100 * share:.1f} at {one.model}" for one, share in ends)
        terminal.tell(f"of 100 frames so many end: {flow}")
    if result.large_codec is not None:
        cost = "" if result.codec_cost is None else f", which costs it {result.codec_cost}"
        terminal.tell(
            f"{large.model} sees {result.large_codec}{cost}; the drop counts from its accuracy on "
            f"that"
        )
    if result.certificate is not None:
        given = given_words(result.stated, result.questions)
        terminal.tell(f"certificate: {result.certificate.statement}{given}")
    if result.promised is not None:
        told = drift_sentence(result.promised, repeated=result.reuse is not None)
        terminal.tell(f"drift watch: {told}".replace("\u00a0", " "))
    for chosen in (one for one in result.candidates if one.chosen):
        for name, unit, figure in (
            ("energy", "mJ", chosen.energy_mj),
            ("uplink", "kbit", chosen.uplink_kbit),
        ):
            if figure is not None:
                terminal.tell(
                    f"{name}: {figure[0]:.3g} {unit} a frame on average; limits are held against "
                    f"{figure[1]:.3g} {unit}"
                )
    certified, budget = result.interval
    if certified is not None and budget is not None:
        terminal.tell(
            f"thresholds that keep every limit: {numbers.score(certified)} (drop) "
            f"to {numbers.score(budget)} (budget)"
        )
    if result.bundle is not None:
        terminal.tell(f"bundle: {result.bundle}")
    if result.report is not None:
        terminal.tell(f"report: {result.report}")


def _meaning(score: Score) -> str:
    return f" ({score.meaning})" if score.meaning else ""


def _show_methods(rows: Sequence[MethodRow]) -> None:
    """Write what every method would have chosen."""
    terminal.show_table(
        "Methods on the same samples",
        ("method", "saver", "cost", "drop", "hold-out drop", "threshold", "promise"),
        [_method_row(row) for row in rows],
    )


def _method_row(row: MethodRow) -> tuple[str, ...]:
    here, there = row.calibration, row.holdout
    return (
        row.method.value,
        row.saver or "none",
        numbers.ratio(None if here is None else here.cost_macs_ratio),
        "?" if here is None else _drop(here),
        "?" if there is None else _drop(there),
        numbers.score(row.threshold),
        f"{row.promise}; {row.why}" if row.why else row.promise,
    )


def _is_agreement(sets: Sequence[Figures]) -> bool:
    """Whether, of samples without labels, nobody was asked: the large model's answers are right."""
    return all(one.accuracy_large == 1.0 for one in sets)


def show_figures(sets: Sequence[tuple[str, Figures]], *, labelled: bool) -> None:
    """Write the figures of one or more sets of samples.

    Args:
        sets: each by its name.
        labelled: whether they had labels.
    """
    agreement = not labelled and _is_agreement([figures for _, figures in sets])
    columns: dict[str, list[str]] = {
        "samples": [name for name, _ in sets],
        "number": [str(one.samples) for _, one in sets],
        "saver agrees" if agreement else "saver alone": [
            numbers.percent(one.accuracy_saver) for _, one in sets
        ],
    }
    if not agreement:
        columns["large alone"] = [numbers.percent(one.accuracy_large) for _, one in sets]
    columns |= {
        "cascade agrees" if agreement else "cascade": [
            numbers.percent(one.accuracy_cascade) for _, one in sets
        ],
        "drop": [_drop(one) for _, one in sets],
        "accepted": [numbers.percent(one.accept_rate) for _, one in sets],
        "cost": [numbers.ratio(one.cost_macs_ratio) for _, one in sets],
    }
    rows = list(zip(*columns.values(), strict=True))
    terminal.show_table("The cascade", list(columns), rows)
    _explain_drop([figures for _, figures in sets], agreement=agreement)
    _show_reuse(sets)


def _show_reuse(sets: Sequence[tuple[str, Figures]]) -> None:
    """Write who answered the frames of epochs, and what reusing answers saved and cost."""
    rows = [(name, found, found.reuse) for name, found in sets if found.reuse is not None]
    if not rows:
        return
    terminal.show_table(
        "Who answered",
        ("samples", "epochs", "still", "same", "saver", "large", "cost", "without", "drop without"),
        [
            (
                name,
                str(reuse.epochs),
                *(numbers.percent(one, 1) for one in (reuse.still, reuse.same)),
                *(numbers.percent(one, 1) for one in (reuse.saver, reuse.large)),
                numbers.ratio(found.cost_macs_ratio),
                numbers.ratio(reuse.cost_macs_ratio_without),
                "" if (one := reuse.drop_points_without) is None else numbers.points(one),
            )
            for name, found, reuse in rows
        ],
    )
    terminal.explain(
        "of the frames: still, no model asked; same, the saver asked and an earlier escalation's "
        "answer kept; without: the same threshold where nothing is reused"
    )


def _explain_drop(sets: Sequence[Figures], *, agreement: bool) -> None:
    """Say what a drop is, and the interval behind it."""
    within = ""
    if any(one.drop_interval_points is not None for one in sets):
        within = "; below it its 95 % interval on other samples like these, - for a gain"
    loses = "points of accuracy that the cascade loses against the large model alone, 1 pt for"
    if not agreement:
        terminal.explain(f"drop: {loses} 1 % of the frames{within}")
        return
    pairs = [(one.accuracy_cascade, one.drop_points) for one in sets]
    asked = any(a is None or b is None or abs(100 * (1 - a) - b) > 1e-6 for a, b in pairs)
    counted = f"{loses} 1 % of the frames"
    if not asked:  # else people said what is lost
        counted = "1 pt for 1 % of frames that it answers otherwise; of accuracy it loses no more"
    terminal.explain(
        "agrees: answers as the large model does, whose answers stand for the truth where there "
        f"are no labels; drop: {counted}{within}"
    )
