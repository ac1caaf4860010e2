"""ModelIdentity: which model a host says it answered with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a host says it answered with.

    Attributes:
        host: the host's URL.
        version: the model's version there; None where the host does not tell.
        sha256: hash of the model's files; None where the host does not tell.
    """

    host: str
    version: str | None
    sha256: str | None

    def __str__(self) -> str:
        return f"version {self.version or '?'}, hash {(self.sha256 or 'not told')[:12]}"
