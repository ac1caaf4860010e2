"""Published latencies: what a device's profile says of the models, in place of this machine's."""

from __future__ import annotations

from dataclasses import replace

from tinysaver_edge.calibrate.problem import Answers, PairTiming, Problem
from tinysaver_edge.hardware.cpu import read_cpu
from tinysaver_edge.hardware.jetson import read_board
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

    Args:
        problem: models with what was measured on this machine, which is another one.
        profile: the device's.

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

    def published(model: Answers) -> Answers:
        return replace(model, latency=found[model.name] or model.latency)

    large = published(problem.large)
    savers = tuple(_paired(published(one), large) for one in problem.savers)
    return replace(problem, large=large, savers=savers), (
        f"device {profile.name}: latencies are published means, not measured; quantiles are taken "
        f"to be no higher",
    )


def _paired(saver: Answers, large: Answers) -> Answers:
    """Return a saver whose cascade takes what the two are published to take apart."""
    if saver.with_large is None or saver.latency is None or large.latency is None:
        return saver
    latency = CascadeLatency.of(saver.latency, large.latency)
    return replace(saver, with_large=PairTiming(latency, saver.with_large.memory_mb))
