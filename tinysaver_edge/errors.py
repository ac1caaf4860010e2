"""Every error the SDK raises on purpose: one root, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TinySaverError(Exception):
    """Root of all errors raised by this package.

    The message says what was wrong, where, and what to do about it, in one line.

    Attributes:
        exit_code: what the command line exits with when this error ends it.
    """

    exit_code = 2


class InputError(TinySaverError):
    """An argument, option or file given by the user cannot be used."""


class DataError(InputError):
    """Labelled images or labels are missing, unreadable or contradict each other."""


class RecordError(InputError):
    """A record is missing, damaged or does not fit the labels or the other records."""


class DescriptionError(InputError):
    """A model has no description, or its description contradicts the model."""


class BundleError(InputError):
    """A bundle is damaged, incomplete, unsafe or of a version this release cannot read."""


class RecipeError(InputError):
    """A recipe or a device profile has a field that is unknown or wrong."""


class EngineError(TinySaverError):
    """An engine cannot do what was asked: a provider, device or precision, or the run itself."""


class ModelError(EngineError):
    """A model file cannot be read or run: truncated, of another format, or with NaN outputs."""


class MissingDependencyError(TinySaverError):
    """An optional package is not installed; the message carries the command that mends it.

    Args:
        package: what could not be imported, for example ``"openvino"``.
        extra: the extra of this package that brings it, for example ``"openvino"``.
        purpose: what it is needed for, in a few words.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: "
            f"pip install 'tinysaver-edge[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the error pass between processes."""
        return _missing_dependency, (self.package, self.extra, self.purpose)


def _missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    return MissingDependencyError(package, extra=extra, purpose=purpose)


class SourceError(TinySaverError):
    """A source of frames cannot be opened, is lost for good or has been closed."""


class VerificationError(TinySaverError):
    """A bundle does not behave on this machine as it did when it was calibrated."""


class TooSlowError(VerificationError):
    """A bundle answers as it did when it was calibrated, but not within the time promised."""

    exit_code = 3


class InfeasibleError(TinySaverError):
    """No choice meets every limit that was asked for; the message says how far off each is.

    Attributes:
        candidates: what each saver would do, a row of `calibrate.calibration.Candidate` each.
        warnings: what the user should know besides.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, candidates: Sequence[Any] = (), warnings: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)
        self.warnings = tuple(warnings)
