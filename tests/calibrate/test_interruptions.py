"""A time budget, Ctrl-C and crashing models, through the real command."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from tests.calibrate.recipes import plug_in, recipe
from tests.colours import LARGE, SAVER, colour_folders
from tests.command import spawned, start
from tests.waiting import wait_until

CHUNK = 128
QUICK = ("--method", "empirical", "--max-drop", "0", "--no-timing", "--no-report", "--json")

# ONNX Runtime, but for what a file beside the models tells one to do once it has answered some
# pictures. Its prepared copy lies elsewhere, so the file's place is an environment variable.
STRANGE = """
import json, os, signal, time
from pathlib import Path
from tinysaver_edge.engines.onnxruntime import OnnxRuntimeEngine

class Strange(OnnxRuntimeEngine):
    name = "strange"
    answered = 0

    def _run(self, batch):
        orders = json.loads(Path(os.environ["STRANGE"]).read_text())
        what, after = orders[self.model.stem]
        if self.answered >= after:
            {"hang": lambda: time.sleep(600), "abort": os.abort,
             "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}[what]()
        self.answered += len(batch)
        return super()._run(batch)
"""


class Workshop:
    """Models, savers with those in the middle strange, and what these are to do."""

    def __init__(self, folder: Path, pictures: Path, *, strange=("strange",)) -> None:
        self.folder, self.pictures = folder, pictures
        self.packages = plug_in(folder / "packages", STRANGE)
        self.orders = folder / "orders"
        fields = dict.fromkeys(strange, 'engine = "strange"\nmacs = 18')
        fields |= {"quick": "macs = 17", "last": "macs = 19"}
        savers = dict.fromkeys(("quick", *strange, "last"), SAVER)
        self.recipe = recipe(folder, {**savers, "large": LARGE}, fields)

    def order(self, what: str, *, after: int) -> None:
        self.orders.write_text(json.dumps({"strange": (what, after)}))

    def arguments(self, *more: object) -> tuple[object, ...]:
        out = ("--data", self.pictures, "--out", self.folder / "bundle", "--no-golden-frames")
        return ("calibrate", self.recipe, *out, *QUICK, *more)

    @property
    def options(self) -> dict[str, object]:
        return {"path": self.packages, "environment": {"STRANGE": str(self.orders)}}

    def run(self, *more: object):
        return spawned(*self.arguments(*more), **self.options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three chunks of them, the last one short."""
    return colour_folders(tmp_path_factory.mktemp("pictures") / "data", each=50)


@pytest.fixture
def workshop(tmp_path, pictures):
    return Workshop(tmp_path, pictures)


def test_a_crash_loses_one_candidate(tmp_path, pictures):
    """While it is measured, or prepared: three of five, each by itself."""
    orders = {"killed": ("kill", CHUNK), "aborted": ("abort", CHUNK), "unready": ("kill", 0)}
    workshop = Workshop(tmp_path, pictures, strange=tuple(orders))
    workshop.orders.write_text(json.dumps(orders))
    done = workshop.run()
    assert done.code == 0, done.err
    rows = done.rows
    died = {
        "killed": "measuring killed: its process died (SIGKILL, perhaps out of memory)",
        "aborted": "measuring aborted: its process died (SIGABRT)",
        "unready": "preparing unready.onnx: its process died (SIGKILL, perhaps out of memory)",
    }
    assert {name: rows[name]["why"] for name in orders} == died
    assert [rows[name]["kappa"] for name in orders] == [pytest.approx(18 / 23_058)] * 2 + [None]
    assert all(rows[name]["accuracy_saver"] is not None for name in ("quick", "last"))
    assert done.json["saver"] in ("quick", "last")
    assert all(f"{name}: {why}" in done.out + done.err for name, why in died.items())


@pytest.mark.slow
def test_a_spent_time_budget_chooses_among_what_is_measured(workshop):
    workshop.order("hang", after=CHUNK)
    none = workshop.run("--time-budget", "0.001")
    assert none.code == 2
    assert none.err.splitlines()[-1].startswith(
        "tinysaver-edge: no saver could be measured: quick, "
    )
    assert workshop.run("--saver", "quick").code == 0

    done = workshop.run("--time-budget", "8")
    assert done.code == 0, done.err
    rows = done.rows
    assert rows["quick"]["chosen"]  # it is on record, and takes no time
    assert rows["strange"]["why"] == (
        "not measured to the end: the time budget of 8 s is spent; another run goes on from here"
    )
    assert rows["last"]["why"] == "not measured: the time budget of 8 s is spent"

    workshop.order("hang", after=10 * CHUNK)
    again = workshop.run()
    assert again.code == 0, again.err
    assert f"strange (strange, CPU): {300 - CHUNK} of 300 to go" in again.err
    assert all(row["accuracy_saver"] is not None for row in again.rows.values())


def test_ctrl_c_keeps_what_was_measured(workshop):
    workshop.order("hang", after=CHUNK)
    process = start(*workshop.arguments(), **workshop.options)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    reader.start()
    folder = workshop.folder / "bundle.records"
    wait_until(lambda: any("strange" in line and "300 of 300 to go" in line for line in said))
    wait_until((folder / "strange.partial" / "000000000.npz").is_file)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    reader.join(timeout=10)
    line = "tinysaver-edge: interrupted; what was measured is kept and the next run goes on from"
    assert [one for one in said if one.startswith("tinysaver-edge:")] == [f"{line} there\n"]
    assert said[-1].startswith(line)
    assert not any("Traceback" in one for one in said)
    told = json.loads(process.stdout.read())
    assert told["exit_code"] == 130
    assert f"tinysaver-edge: {told['error']}" == said[-1].rstrip()
    assert [(one["saver"], one["why"]) for one in told["candidates"]] == [
        ("quick", "measured; interrupted before anything was chosen")
    ]  # what strange has answered is kept, and says nothing yet
    assert 0 < told["candidates"][0]["accuracy_saver"] <= 1
    assert not (workshop.folder / "bundle").exists()

    workshop.order("hang", after=10 * CHUNK)
    again = workshop.run()
    assert again.code == 0, again.err
    assert "quick (" not in again.err  # it is on record
    assert f"strange (strange, CPU): {300 - CHUNK} of 300 to go" in again.err
