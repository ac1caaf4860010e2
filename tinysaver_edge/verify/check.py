"""Check: one promise of a bundle that was looked at, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tinysaver_edge.errors import TooSlowError, VerificationError

LATENCY = "latency"
"""Name of the check that a device fails by being too slow, not by answering otherwise."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: what it was.
        passed: whether it agrees; None where there was nothing to compare with, or too little lies
            between the two to tell.
        detail: the figures, or why not.
        warning: whether a user should be told although nothing failed.
    """

    name: str
    passed: bool | None
    detail: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was compared, in order."""

    bundle: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing disagrees."""
        return all(check.passed is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
        }

    def raise_if_failed(self) -> None:
        """Refuse a bundle that disagrees.

        Raises:
            VerificationError: names the first thing that does.
            TooSlowError: the answers are right, but they take longer than was promised.
        """
        for check in self.checks:
            if check.passed is False:
                kind = TooSlowError if check.name == LATENCY else VerificationError
                raise kind(f"bundle {self.bundle}: {check.name}: {check.detail}")
