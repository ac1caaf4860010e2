"""Relaxations: when nothing keeps every limit, how far off each is and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinysaver_edge.calibrate.methods.costs import limits_of
from tinysaver_edge.calibrate.methods.proposal import Proposal
from tinysaver_edge.calibrate.targets import Budgets, Targets


def how_far_off(proposals: Sequence[Proposal], targets: Targets) -> str:
    """Say what each limit would have to be, the others kept, for some saver to keep them all.

    Args:
        proposals: none of which keeps every limit.
        targets: the limits.
    """
    hints: list[str] = []
    drop, limits = targets.allowed_drop_points, limits_of(targets.budgets)
    if drop is not None:
        hints.extend(_drop_hints(proposals, drop))
    hints.extend(_budget_hints(proposals, limits, others=targets.budgets))
    why = "; or ".join(hints) or "; and ".join(_joint_hints(proposals, limits))
    return f"no cascade keeps every limit: {why or 'each can be kept, but not all at once'}"


def _budget_hints(
    proposals: Sequence[Proposal], limits: Mapping[str, float], *, others: Budgets
) -> Iterator[str]:
    """Yield what each budget would have to be, the others kept."""
    for name, limit in limits.items():
        kept = replace(others, **{name: None})
        reach = [value for one in proposals if (value := _least(one, name, kept)) is not None]
        if reach and min(reach) > limit:
            yield _budget_hint(name, limit, min(reach))


def _joint_hints(proposals: Sequence[Proposal], limits: Mapping[str, float]) -> Iterator[str]:
    """Yield what several budgets would have to be together, where raising one is not enough.

    One after the other is raised as far as it must be with those before it kept as they then are.
    """
    kept = Budgets()
    for name, limit in limits.items():
        reach = [value for one in proposals if (value := _least(one, name, kept)) is not None]
        if reach and min(reach) > limit:
            yield _budget_hint(name, limit, min(reach))
            limit = float(_up(min(reach)))
        kept = replace(kept, **{name: limit})


def _budget_hint(name: str, limit: float, needed: float) -> str:
    return f"{name} {limit:.4g} would have to be {_up(needed)}{_over(needed, limit)}"


def _drop_hints(proposals: Sequence[Proposal], drop: float) -> Iterator[str]:
    """Yield what the drop would have to be for some affordable threshold, and what else helps."""
    reach = [value for one in proposals if (value := one.relaxed_drop()) is not None]
    if reach and (needed := min(reach)) > drop:
        yield f"max drop {drop:g} would have to be {_up(needed)} points{_over(needed, drop)}"
    if not any(one.allowed.any() for one in proposals):
        # Each saver lacks something of its own: what the first lacks is an example.
        yield from [one.why for one in proposals if one.why][:1]


def _least(proposal: Proposal, name: str, kept: Budgets) -> float | None:
    """Return the least of a quantity over the thresholds that method and other budgets allow."""
    allowed = proposal.allowed
    if not allowed.any() and len(allowed):
        allowed = np.arange(len(allowed)) == len(allowed) - 1
    places = np.flatnonzero(allowed & proposal.within(kept))
    if not len(places):
        return None
    # The last is the loosest: it escalates least. The first may ask the saver nothing.
    return min(proposal.quantity(name, int(i), budgeted=True) for i in (places[0], places[-1]))


def _up(value: float) -> str:
    """Write a number with four digits, rounded up, so that asking for it is enough."""
    step = 10.0 ** (np.floor(np.log10(value)) - 3)
    return f"{np.ceil(value / step - 1e-9) * step:.4g}"


def _over(needed: float, limit: float) -> str:
    """Say by how much a limit would have to give; nothing of a limit of 0."""
    if limit == 0:
        return ""
    percent = 100 * (float(_up(needed)) / limit - 1)
    return f" (over by {percent:.0f} %)" if percent >= 1 else f" (over by {percent:.1g} %)"
