"""A calibration that is killed at any moment resumes, and nothing is ever half-written."""

import os
import re
import signal
import time

import numpy as np
import pytest

from tests.cli.test_images import asked
from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, colour_folders, colour_model
from tests.command import start
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.records.measure import CHUNK_SAMPLES
from tinysaver_edge.records.records import load_record

TIMES = 24
EACH = 10
COUNT = TIMES * EACH * len(NAMES)
DEADLINE_S = 900


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Two models, and a table that names few pictures many times: decoding them takes a while."""
    folder = tmp_path_factory.mktemp("kill")
    (folder / "descriptions").mkdir()
    for name, kind in (("big", LARGE), ("tiny", SAVER)):
        colour_model(folder / f"{name}.onnx", kind)
        (folder / "descriptions" / f"{name}.toml").write_text(DESCRIPTION)
    colour_folders(folder / "data", each=EACH, size=144)
    files = [path.relative_to(folder) for path in sorted((folder / "data").rglob("*.png"))]
    rows = [f"{path},{path.parent.name}" for _ in range(TIMES) for path in files]
    (folder / "list.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder


def started(work, bundle):
    words = asked(work, "--no-report", "--out", bundle, data="list.csv", savers=("tiny",))
    return start(*words)


def chunks(records, model):
    return len(list((records / f"{model}.partial").glob("[0-9]*.npz")))


MOMENTS = {
    "before anything": lambda records: True,
    "while models are prepared": lambda records: records.exists(),
    "in the large model's record": lambda records: chunks(records, "big") >= 3,
    "between the models": lambda records: (records / "big.npz").exists(),
    "in the saver's record": lambda records: chunks(records, "tiny") >= 5,
    "while the bundle is made": lambda records: (records / "tiny.npz").exists(),
}


def killed_when(work, bundle, records, moment):
    """Start a calibration, kill it without a warning at a moment, and say whether it was in time.

    Only the process that was started is killed, as the kernel does when memory is short: what it
    had started itself must find out alone.
    """
    process = started(work, bundle)
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and not moment(records):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    in_time = process.poll() is None
    if in_time:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)
    wait_for_the_worker(records)
    return in_time


def wait_for_the_worker(records):
    """Wait until nothing has changed for a second: a worker hears late that nobody listens."""
    seen, since = None, time.monotonic()
    while time.monotonic() < since + 1:
        now = sorted(records.rglob("*"))
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)


def check_whole(records):
    """Whatever is there under its own name can be read, to the last number."""
    for path in records.glob("*.npz"):
        assert load_record(records, path.stem).outputs.samples == COUNT
    for path in records.glob("*.partial/[0-9]*.npz"):
        with np.load(path) as arrays:
            assert np.isfinite(arrays["logits"]).all()
            assert 0 < len(arrays["logits"]) <= CHUNK_SAMPLES


@pytest.mark.slow
def test_killed_at_several_moments_it_goes_on_where_it_was(work, tmp_path):
    bundle = small_bundle(tmp_path / "bundle", golden=False)
    old = (bundle / "bundle.json").read_bytes()
    records = tmp_path / "bundle.records"
    in_time, kept = [], 0
    for moment in MOMENTS.values():
        in_time.append(killed_when(work, bundle, records, moment))
        with Bundle.load(bundle):
            pass
        if in_time[-1] and moment is not MOMENTS["while the bundle is made"]:
            assert (bundle / "bundle.json").read_bytes() == old
        check_whole(records)
        now = sum(
            COUNT
            if (records / f"{name}.npz").exists()
            else min(COUNT, chunks(records, name) * CHUNK_SAMPLES)
            for name in ("big", "tiny")
        )
        assert now >= kept  # no work is ever lost again
        kept = now
    assert sum(in_time) >= 5
    out, err = started(work, bundle).communicate(timeout=DEADLINE_S)
    assert "Candidates" in out
    left = [int(number) for number in re.findall(rf": (\d+) of {COUNT} to go", err)]
    assert sum(left) <= 2 * COUNT - kept
    with Bundle.load(bundle) as opened:
        assert [stage.model.name for stage in opened.manifest.stages] == ["tiny", "big"]
        assert opened.manifest.calibration.samples == COUNT


@pytest.mark.slow
def test_what_is_left_to_measure_is_less_by_what_was_measured(work, tmp_path):
    records = tmp_path / "bundle.records"
    moment = MOMENTS["in the large model's record"]
    assert killed_when(work, tmp_path / "bundle", records, moment)
    assert not (tmp_path / "bundle").exists()
    done = chunks(records, "big")
    assert 0 < done < COUNT // CHUNK_SAMPLES
    process = started(work, tmp_path / "bundle")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert f": {COUNT - done * CHUNK_SAMPLES} of {COUNT} to go" in err
    for name in ("big", "tiny"):
        assert load_record(records, name).outputs.samples == COUNT
    assert not list(records.glob("*.partial"))
