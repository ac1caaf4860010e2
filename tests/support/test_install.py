import sys
from pathlib import Path

import pytest

from tinysaver_edge import errors as install
from tinysaver_edge.cli.options import as_typed_here
from tinysaver_edge.errors import from_here, install_command


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tinysaver-edge"\n')
    return tmp_path


def test_a_checkout_is_installed_from_where_it_lies(checkout, monkeypatch):
    package = checkout / "tinysaver_edge"
    monkeypatch.chdir(checkout)
    assert install_command("cpu", package=package) == "pip install '.[cpu]'"
    monkeypatch.chdir(checkout.parent)
    assert install_command("cpu", package=package) == f"pip install '{checkout}[cpu]'"
    assert install_command(package=package) == f"pip install '{checkout}'"


@pytest.mark.parametrize(
    ("came_from", "said"),
    [
        (None, "pip install 'tinysaver-edge[cpu]'"),
        (Path("/src/one.whl"), "pip install '/src/one.whl[cpu]'"),
        ("git+https://host/one", "pip install 'tinysaver-edge[cpu] @ git+https://host/one'"),
    ],
)
def test_elsewhere_it_comes_from_where_it_came(tmp_path, monkeypatch, came_from, said):
    monkeypatch.setattr(install, "_installed_from", lambda: came_from)
    assert install_command("cpu", package=tmp_path / "tinysaver_edge") == said


def test_a_text_is_made_true_for_this_place(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    text = "pip install 'tinysaver-edge[jetson]' 'numpy<2'"
    package = checkout / "tinysaver_edge"
    assert from_here(text, package=package) == "pip install '.[jetson]' 'numpy<2'"
    assert from_here("pip install numpy", package=package) == "pip install numpy"


def test_who_has_not_activated_the_environment_is_told_what_to_type(tmp_path, monkeypatch):
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("pip", "tinysaver-edge"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "argv", [str(programs / "tinysaver-edge"), "run"])
    text = "Next: tinysaver-edge run x; pip install '.[cpu]'; tinysaver-edge did it; a/pip install"
    monkeypatch.setenv("PATH", str(programs))
    assert as_typed_here(text) == text
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    told = as_typed_here(text)
    assert told.startswith("Next: .venv/bin/tinysaver-edge run x; .venv/bin/pip install '.[cpu]'; ")
    assert told.endswith("; tinysaver-edge did it; a/pip install")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert as_typed_here("pip install x") == f"{programs / 'pip'} install x"
