"""The command `plan`, run as a user runs it, on a bundle that `bench` has measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_devices import run
from tests.plan.test_escalating import line, trace
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import NOT_OURS
from tinysaver_edge.bench.report import report_path
from tinysaver_edge.bench.run import BenchRequest, bench_bundle_file
from tinysaver_edge.bench.timing import Effort

FLEET = ("--cameras", "6", "--fps", "5", "--hours", "0.1")


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    bundle = small_bundle(folder / "bundle")
    effort = Effort(warm_up=1, min_runs=5, min_seconds=0)
    report = bench_bundle_file(bundle, wanted=BenchRequest(effort, throughput_s=0.05))
    report.write(report_path(bundle))
    return folder


def test_a_page_is_written_over_nothing_but_a_page(
    benched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(benched)
    before = (benched / "bundle" / "bundle.json").read_bytes()
    (benched / "site.html").write_text("<!doctype html>\n<title>My own page</title>")
    (benched / "report.html").write_text(
        '<link rel="icon" href="data:,">\n<title>big: calibration report</title>'
    )
    for mine in ("bundle/bundle.json", "site.html", "report.html"):
        done = run(benched, "plan", "bundle", *FLEET, "--out", mine)
        assert (done.code, f"--out {mine}: {NOT_OURS}" in done.err) == (2, True)
    assert (benched / "bundle" / "bundle.json").read_bytes() == before
    assert (benched / "site.html").read_text().endswith("My own page</title>")


def test_a_plan_and_its_page(benched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(benched)
    trace(benched / "run.jsonl", *(line(k, escalated=k % 20 < 5) for k in range(600)))
    done = run(
        benched, "plan", "bundle", *FLEET, "--uplink", "1mbit", "--trace", "run.jsonl",
        "--device", "jetson-orin-nano", "--host-device", "core-ultra-cpu",
        "--budget", "degraded=0.5%", "--budget", "mean_energy_mj=1e6", "--out", "plan.html",
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["fleet"]["uplink_bps"] == 1e6
    assert told["figures"]["escalations_per_s"]["value"] == pytest.approx(7.5, rel=0.2)
    # 16 x 16 pixels of three float32, at a quarter of thirty frames a second.
    assert told["figures"]["uplink_bps"]["value"] == pytest.approx(7.5 * 8 * 3072, rel=0.2)
    assert told["kept"]
    assert {one["what"] for one in told["remedies"]} == {"hosts", "uplink", "deadline", "threshold"}
    assert told["figures"]["energy_wh_day"]["value"] > 0
    assert told["limits"]["mean_energy_mj"] == 1e6
    free = run(benched, "plan", "bundle", *FLEET, "--budget", "uplink_load=80%")
    assert free.code == 0
    assert "none: it is unlimited" in free.out
    never = run(benched, "plan", "bundle", *FLEET, "--escalation-rate", "0")
    assert never.code == 0
    assert "the large model's answer" not in never.out
    assert "(simulated: none came)" in never.err
    counted = json.loads((benched / "bundle.bench.json").read_text())["no_energy"] is None
    assert any("hosts are as fast as the device" in one for one in told["assumed"])
    assert counted or told["energy_by_profile"]
    assert counted or any("W, the most that jetson-orin-nano" in one for one in told["assumed"])
    assert counted or "energy a day, by profiles' power" in done.err
    page = (benched / "plan.html").read_text()
    assert page.count("<svg") >= 8
    for word in (
        "By hosts",
        "By uplink",
        "By threshold",
        "By frames a second",
        "M/G/c",
        "run.jsonl",
    ):
        assert word in page
    assert "src=" not in page.replace("data:", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cameras", "0", "--fps", "10"], "--cameras 0"),
        ([*FLEET, "--uplink", "20mbps"], "--uplink '20mbps': a number and one of bit, kbit"),
        ([*FLEET, "--bench", "none.json"], "bench report none.json"),
        ([*FLEET, "--trace", "none.jsonl"], "none.jsonl"),
        ([*FLEET, "--trace", "a", "--epochs", "."], "one of --trace, --epochs"),
        ([*FLEET, "--trace", "a", "--trace", "./a"], "--trace: a file is given twice"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_what_cannot_be_planned_is_one_line(
    benched: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(benched)
    done = run(benched, "plan", "bundle", *arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert says in done.err


def test_a_bundle_without_latencies_is_one_line(benched: Path, tmp_path: Path) -> None:
    shutil.copytree(benched / "bundle", tmp_path / "bundle")
    done = run(tmp_path, "plan", str(tmp_path / "bundle"), *FLEET)
    assert done.code == 2
    assert "nobody has measured how long its models take: run tinysaver-edge bench" in done.err
