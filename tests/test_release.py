"""What a maintainer releases with: workflow, forms, images, version; read by linters if there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinysaver_edge

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
DEPLOY = ROOT / "examples" / "deploy"
IMAGES = sorted(DEPLOY.glob("Dockerfile*[!e]"))
FORMS = sorted(one for one in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if one.stem != "config")

pytestmark = pytest.mark.skipif(not GITHUB.is_dir(), reason="a source distribution has none of it")


def linter(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a linter of `[release]`; where it is not, skip."""
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip(f"no {name}: pip install '.[release]', or make release")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True)


def clean(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return True


SCHEMAS = [
    ("vendor.github-workflows", [GITHUB / "workflows" / "release.yml"]),
    ("custom.github-workflows-require-timeout", [GITHUB / "workflows" / "release.yml"]),
    ("vendor.github-issue-forms", FORMS),
    ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
]


@pytest.mark.parametrize(("schema", "files"), SCHEMAS, ids=[name for name, _ in SCHEMAS])
def test_files_for_the_forge_are_what_it_reads(schema, files):
    assert files
    assert clean(linter("check-jsonschema", "--builtin-schema", schema, *files))


def test_the_workflow_has_no_hole_that_is_known(tmp_path):
    workflow = GITHUB / "workflows" / "release.yml"
    assert clean(linter("zizmor", "--offline", "--no-progress", workflow))
    careless = tmp_path / "release.yml"
    text = workflow.read_text()
    careless.write_text(text.replace("make test", 'echo "${{ github.event.head_commit.message }}"'))
    assert linter("zizmor", "--offline", "--no-progress", careless).returncode != 0


def test_a_release_is_off_until_a_maintainer_says_so():
    text = (GITHUB / "workflows" / "release.yml").read_text()
    jobs = re.findall(r"^  (\w+):\n    name: .*\n    (?:if|needs): (.*)$", text, re.M)
    assert jobs == [("build", "vars.RELEASE == 'on'"), ("attest", "build"), ("publish", "attest")]
    assert re.search(r"^\s+- run: make release TAG=", text, re.M)


def test_the_version_is_told_alike_everywhere():
    version = tinysaver_edge.__version__
    told = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", told, re.M)
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    if tag := os.environ.get("RELEASE_TAG"):
        assert tag == f"v{version}"


def test_there_is_an_image_for_each_jetpack_that_the_profiles_name():
    named: dict[str, str] = {}
    for path in sorted((ROOT / "devices").glob("*.toml")):
        text = path.read_text()
        for major in re.findall(r'^description = ".*JetPack (\d)', text, re.M):
            (named[major],) = set(re.findall(r"https://pypi\.jetson-ai-lab\.io/\w+/\w+", text))
    assert set(named) == {"6", "7"}
    for major, index in named.items():
        told = (DEPLOY / f"Dockerfile.jetpack{major}").read_text()
        assert f"--index-url {index}\n" in told, "the profile says another"
        assert "NOT VERIFIED ON HARDWARE" in told


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_is_as_a_linter_wants_it(image):
    assert clean(linter("hadolint", "--config", ROOT / ".hadolint.yaml", image))
    ignored = image.with_name(f"{image.name}.dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "**/*.env"} <= set(ignored)


def test_the_linter_of_images_finds_something(tmp_path):
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM debian\nRUN cd /tmp && sudo apt-get install -y python3\n")
    assert linter("hadolint", "--config", ROOT / ".hadolint.yaml", careless).returncode != 0


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_images_command_has_options_and_extras_that_there_are(image):
    from tinysaver_edge.cli.run import run

    text = image.read_text()
    known = {name for one in run.params for name in one.opts}
    command = re.search(r"tinysaver-edge run (.*?)\n#\n", text, re.DOTALL).group(1)
    assert set(re.findall(r"(?<!\S)--[\w-]+", command)) <= known
    extras = set(re.search(r"/source\[(.*?)\]", text).group(1).split(","))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def has_docker() -> bool:
    """Whether there is a daemon, not only a client."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_the_image_for_the_processor_builds_and_answers():
    if not has_docker():
        pytest.skip("no Docker daemon here")
    file, name = "examples/deploy/Dockerfile", "tinysaver-edge-test"
    build = ["docker", "build", "-q", "-f", file, "-t", name, "."]
    subprocess.run(build, cwd=ROOT, check=True)
    ask = ["docker", "run", "--rm", name, "--version"]
    assert "tinysaver-edge" in subprocess.run(ask, capture_output=True, text=True).stdout
