"""What a bundle promises to the drift watch, in words."""

from __future__ import annotations

from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate.report import numbers

USUAL_LEVEL = 0.05
"""The level of a drift watch that is not told another."""


def drift_sentence(promised: DisagreementEntry) -> str:
    """Say how often an escalation would have changed an accepted answer, and what drift is."""
    where = "hold-out" if promised.held_out else "calibration"
    return (
        f"of {numbers.count(promised.accepted)} accepted {where} samples an escalation would have "
        f"answered {numbers.count(promised.disagreed)} otherwise "
        f"({numbers.percent(promised.disagreed / promised.accepted)}); in the field, more than "
        f"{numbers.percent(promised.tested(USUAL_LEVEL))} is drift"
    )
