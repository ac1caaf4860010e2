"""The deployment examples: what they say is what the command takes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.command import start
from tests.small_bundle import small_bundle

DEPLOY = Path(__file__).parents[1] / "examples" / "deploy"
PLACE = "/opt/tinysaver-edge"


def unit_command(key: str) -> list[str]:
    """The words of a command in the unit, its lines joined."""
    text = (DEPLOY / "tinysaver-edge.service").read_text().replace("\\\n", " ")
    return shlex.split(re.search(rf"^{key}=(.*)$", text, re.MULTILINE).group(1))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_reads_the_unit(tmp_path):
    """Its program and user are not there; nothing else may be complained of."""
    text = (DEPLOY / "tinysaver-edge.service").read_text()
    unit = tmp_path / "tinysaver-edge.service"
    unit.write_text(text.replace(f"{PLACE}/bin/tinysaver-edge", shutil.which("true")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "tinysaver-edge.service" in line]
    assert said == []


def test_the_units_commands_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYSAVER_SOURCE", "one=demo://?frames=120&fps=120 two=demo://?frames=9")
    bundle = small_bundle(tmp_path / "bundle")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {
        f"{PLACE}/bundle": str(bundle),
        "${DASHBOARD}": "127.0.0.1:0",
        "/var/lib/tinysaver-edge": str(tmp_path / "state"),
        "127.0.0.1:9464": f"127.0.0.1:{port}",
    }

    def words(key: str) -> list[str]:
        found = unit_command(key)
        if found[0] == "/bin/sh":
            found = shlex.split(found[2].partition("||")[0])
        assert found.pop(0) == f"{PLACE}/bin/tinysaver-edge"
        for old, new in places.items():
            found = [one.replace(old, new) for one in found]
        return found

    verified = start(*words("ExecStartPre"))
    assert verified.wait(60) == 0
    process = start(*words("ExecStart"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == ""
    lines = (tmp_path / "state" / "decisions.jsonl").read_text().splitlines()
    assert {json.loads(line)["frame_id"]["source_id"] for line in lines} == {"one", "two"}
    events = [json.loads(line).get("event") for line in err.splitlines()]
    assert "connected" in events


@pytest.mark.parametrize(("code", "starts"), [(0, True), (2, False), (3, True)])
def test_a_device_that_is_slow_while_it_boots_starts_all_the_same(code, starts):
    shell, option, line = unit_command("ExecStartPre")
    check, _, rest = line.partition("||")
    assert check.split()[1] == "verify"
    asked = f"(exit {code}) ||{rest.replace('$$', '$')}"  # what systemd makes of $$
    assert (subprocess.run([shell, option, asked]).returncode == 0) is starts


def test_every_secret_of_the_settings_is_one_that_is_read():
    named = set(
        re.findall(r"^#?(TINYSAVER_\w+)=", (DEPLOY / "tinysaver-edge.env").read_text(), re.M)
    )
    from tinysaver_edge.cli.run import run

    read = {one.envvar for one in run.params if one.envvar}
    names = {"SOURCE", "TOKEN", "MQTT", "SINK", "FORWARD"}
    assert named == read == {f"TINYSAVER_{name}" for name in names}


def test_no_password_is_on_the_units_command_line():
    """A service's command line is in the journal, in each line's _CMDLINE."""
    given = re.findall(r"\$\{(\w+)\}", " ".join(unit_command("ExecStart")))
    assert given == ["DASHBOARD"]
