"""The `[cpu]` extra installs on 64-bit Arm from wheels alone: nothing is compiled on a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# Wheels that a system with glibc 2.35 takes: Ubuntu 22.04, JetPack 6; Debian 12 has 2.36.
GLIBC_MINORS = (17, *range(24, 36))

pytestmark = pytest.mark.slow


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def resolve(
    *requirements: str, machine: str, python: str, target: Path
) -> subprocess.CompletedProcess[str]:
    """Let pip find wheels that fit together for a machine, installing nothing."""
    tags = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in GLIBC_MINORS))
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]
    pip = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed")
    quick = ("--retries", "1", "--timeout", "30", "--disable-pip-version-check")
    where = ("--target", str(target), "--only-binary=:all:", "--python-version", python)
    command = [*pip, *quick, *where, *platforms, *requirements]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module", autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no package registry with wheels for Arm answers."""
    target = tmp_path_factory.mktemp("probe")
    done = resolve("--no-deps", "numpy", machine="aarch64", python="3.11", target=target)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        pytest.skip(f"no package registry with wheels for aarch64 answers: {reason}")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.13"])
def test_cpu_extra_resolves_for_arm(python: str, tmp_path: Path) -> None:
    wanted = project()
    requirements = [*wanted["dependencies"], *wanted["optional-dependencies"]["cpu"]]
    done = resolve(*requirements, machine="aarch64", python=python, target=tmp_path)
    assert done.returncode == 0, done.stderr
    chosen = done.stdout.partition("Would install")[2]
    assert "onnxruntime-" in chosen
    assert "openvino-" in chosen


def test_a_package_without_wheels_for_arm_does_not_resolve(tmp_path: Path) -> None:
    """The check above can fail: openvino 2023.0.0 has wheels for x86 alone."""
    old = ("--no-deps", "openvino==2023.0.0")
    assert resolve(*old, machine="x86_64", python="3.11", target=tmp_path).returncode == 0
    assert resolve(*old, machine="aarch64", python="3.11", target=tmp_path).returncode != 0
