"""Every error the SDK raises on purpose: one root, and what to do about each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = "tinysaver-edge"
"""What a checkout's ``pyproject.toml`` names."""

PACKAGE = Path(__file__).resolve().parent

_WRITTEN = re.compile(rf"'{PROJECT}\[([a-z0-9,-]+)\]'")
"""How device profiles and messages write it."""


_NAMED = re.compile(rf"^\[project\]\s*$(?:\n(?!\[).*)*?\nname\s*=\s*[\"']{PROJECT}[\"']", re.M)
"""Where `pyproject.toml` does so; read as text, since errors import nothing of this package."""


def install_command(extra: str | None = None, *, package: Path = PACKAGE) -> str:
    """Return the command that installs this package, with an extra where one is named.

    Args:
        extra: for example ``"cpu"``.
        package: folder of the installed package; for tests.
    """
    return f"pip install {_requirement(extra, package)}"


def from_here(text: str, *, package: Path = PACKAGE) -> str:
    """Return a text in which every ``'tinysaver-edge[extra]'`` works from where the user stands."""
    return _WRITTEN.sub(lambda found: _requirement(found[1], package), text)


def is_checkout(root: Path) -> bool:
    """Tell a source checkout from a site-packages that happens to hold such folders."""
    try:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return _NAMED.search(text) is not None


def _requirement(extra: str | None, package: Path) -> str:
    extras = "" if extra is None else f"[{extra}]"
    place = package.parent if is_checkout(package.parent) else _installed_from()
    if isinstance(place, Path):
        here = Path.cwd()
        return f"'{'.' if place == here else place}{extras}'"
    return f"'{PROJECT}{extras}{'' if place is None else f' @ {place}'}'"


def _installed_from() -> Path | str | None:
    """Return the folder, file or address that pip took this package from; None: an index."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        said = json.loads(distribution(PROJECT).read_text("direct_url.json") or "{}")
        url = str(said.get("url", ""))
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    if "vcs_info" in said:
        return f"git+{url}"
    if url.startswith("file://"):
        place = Path(unquote(urlsplit(url).path))
        return place if place.exists() else None
    return url or None


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


class TransferError(TinySaverError):
    """Something could not be fetched or sent now; the same may work later."""


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
            f"{purpose} needs {package}, which is not installed: {install_command(extra)}"
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
