"""Times and energies that were not measured here: from `bench` on the device, or its profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tinysaver_edge.artefact import Artefact
from tinysaver_edge.bench.report import MeasuredReport, read_report, runs_as
from tinysaver_edge.calibrate.measured.measuring import MeasuringRun
from tinysaver_edge.calibrate.problem import ModelAnswers, PairTiming, Problem
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.hardware.nvidia import read_board
from tinysaver_edge.hardware.profile import DeviceProfile
from tinysaver_edge.latency import CascadeLatency


def is_this_machine(profile: DeviceProfile) -> bool:
    """Whether this machine is one that a profile is about, by its board's and processor's names."""
    cpu = read_cpu()
    return profile.fits(read_board(), None if cpu is None else cpu.model)


def for_device(problem: Problem, profile: DeviceProfile) -> tuple[Problem, tuple[str, ...]]:
    """Take a device's published latencies where its profile has them.

    Latencies of two machines cannot be compared: where models were timed here, the published ones
    take their place only if there is one of every model. Memory stays as it was measured.

    Returns:
        The problem, and what the user should know.
    """
    models = (problem.large, *problem.savers)
    found = {one.name: profile.latency_of(one.name) for one in models}
    missing = [name for name, latency in found.items() if latency is None]
    timed = problem.large.latency is not None
    if timed and missing:
        return problem, (
            f"device {profile.name}: its profile has no latency of {', '.join(missing)}, so all "
            f"latencies are this machine's",
        )
    if len(missing) == len(models):
        return problem, ()

    def published(model: ModelAnswers) -> ModelAnswers:
        return replace(model, latency=found[model.name] or model.latency)

    large = published(problem.large)
    savers = tuple(_paired(published(one), large) for one in problem.savers)
    return replace(problem, large=large, savers=savers), (
        f"device {profile.name}: latencies are published means, not measured; quantiles are taken "
        f"to be no higher",
    )


def energy_of_profile(problem: Problem, profile: DeviceProfile) -> tuple[Problem, tuple[str, ...]]:
    """Take a device's power for as long as a frame takes, where no counter was read.

    What a profile has is the most that the device draws, so that this is the most it can be.

    Returns:
        The problem, and what the user should know.
    """
    power_w = profile.power_w
    models = (problem.large, *problem.savers)
    if power_w is None or all(one.energy_mj is not None for one in models):
        return problem, ()

    def made(model: ModelAnswers) -> ModelAnswers:
        if model.alone is None:
            return model
        return replace(model, energy_mj=power_w * model.alone.mean_ms)

    savers = tuple(made(one) for one in problem.savers)
    return replace(problem, large=made(problem.large), savers=savers), (
        f"device {profile.name}: energy is its {power_w:g} W, the most that it draws by its "
        "profile, for as long as a frame takes; no counter was read",
    )


def _paired(saver: ModelAnswers, large: ModelAnswers) -> ModelAnswers:
    """Return a saver whose cascade takes what the two are published to take apart."""
    if saver.with_large is None or saver.latency is None or large.latency is None:
        return saver
    latency = CascadeLatency.of(saver.latency, large.latency)
    return replace(saver, with_large=PairTiming(latency, saver.with_large.memory_mb))


def check_reports(paths: Sequence[Path]) -> None:
    """Refuse reports that cannot be used, before anything is measured.

    Raises:
        InputError: one cannot be read, or they are of two machines.
    """
    _check_one_machine([read_report(path) for path in paths])


def timed_by_reports(
    run: MeasuringRun, problem: Problem, large: Artefact, artefacts: Mapping[str, Artefact]
) -> tuple[Problem, str]:
    """Return the problem with what the reports say of its models, and whose word that is.

    Savers that no report has together with the large model are left out, and say so: latencies of
    two machines cannot be compared.

    Raises:
        InputError: a report cannot be read, they are of two machines, or do not have the large
            model or any saver.
    """
    reports = [read_report(path) for path in run.given.bench]
    _check_one_machine(reports)
    report = _joined(reports)
    whole = report.stages.get(runs_as(large))
    if whole is None:
        raise InputError(
            f"bench report {report.path}: has no latency of {large.name} as it is run here "
            f"({' '.join(runs_as(large)[1:])}): bench the bundle, or the model, on the device"
        )
    savers = []
    for saver in problem.savers:
        latency = report.pair_of(artefacts[saver.name], large)
        if latency is None:
            run.leave_out(saver.name, f"bench report {report.path} does not have it: bench it too")
            continue
        parts = [report.stages[runs_as(one)] for one in (artefacts[saver.name], large)]
        taken = [one.loaded_mb for one in parts if one.loaded_mb is not None]
        memory_mb = sum(taken) if len(taken) == len(parts) else None
        paired = PairTiming(latency, memory_mb)
        savers.append(replace(saver, with_large=paired, energy_mj=parts[0].energy_mj))
    if not savers:
        raise InputError(f"bench report {report.path}: has none of the savers: bench them as well")
    timed = replace(
        problem,
        large=replace(problem.large, latency=whole.latency, energy_mj=whole.energy_mj),
        savers=tuple(savers),
    )
    said = f"latencies are from {report.path}: {report.processor}, {report.measured_at}"
    return timed, said


def _check_one_machine(reports: Sequence[MeasuredReport]) -> None:
    names = sorted({report.processor for report in reports})
    if len(names) > 1:
        raise InputError(
            f"--bench: the reports are of different processors ({', '.join(names)}): latencies of "
            "two machines cannot be compared"
        )


def _joined(reports: Sequence[MeasuredReport]) -> MeasuredReport:
    """Return several reports of one machine as one; a cascade's own is kept where it is alone."""
    if len(reports) == 1:
        return reports[0]
    stages = {key: stage for report in reports for key, stage in report.stages.items()}
    return replace(reports[0], stages=stages, pair=None)
