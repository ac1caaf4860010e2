"""The real command: killed at any moment, in front of a real network camera, with bad values."""

import json
import signal
import time

import cv2
import numpy as np
import pytest

from tests.command import start
from tests.stream.sources.test_rtsp import SECRET, server, shown_ms
from tests.waiting import wait_until
from tinysaver_edge.collect.store import AWAY, STOPPED
from tinysaver_edge.data.collection import Collection, read_moments

__all__ = ["server"]


def pictures(folder):
    return sorted(one.name for one in folder.glob("*.png"))


def test_a_kill_at_any_moment_loses_nothing_and_the_same_call_goes_on(tmp_path):
    out = tmp_path / "frames"
    source = ("--source", "belt=demo://?fps=30")
    words = ("collect", *source, "--for", "5m", "--frames", 3000, "--out", out)
    kept = {}
    for wanted in (1, 10, 25):
        process = start(*words)
        wait_until(lambda wanted=wanted: len(pictures(out)) >= wanted)
        process.kill()
        process.communicate()
        moments = read_moments(out / "moments.csv")
        assert len(moments) == 3000
        for name in pictures(out):  # each is whole, and what was taken before is as it was
            assert cv2.imread(str(out / name)) is not None
        now = {name: (out / name).read_bytes() for name in pictures(out)}
        assert kept.items() <= now.items()
        kept = now
    process = start("collect", *source, "--out", out, "--json")
    wait_until(lambda: len(pictures(out)) >= len(kept) + 5)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    told = json.loads(printed)
    assert told["state"] == "stopped"
    assert told["drawn"] == told["written"] + sum(told["missed"].values())
    assert told["missed"].keys() == {STOPPED}
    assert f"missed {told['missed'][STOPPED]} of {told['drawn']}" in err
    collection = Collection.read(out)
    assert [one.name for one in collection.moments] == [one.name for one in moments]
    assert sorted(one.file for one in collection.written) == pictures(out)
    for one in collection.moments:
        assert one.settled == (one.moment_s <= (collection.file.end - collection.file.start)
                               .total_seconds())  # fmt: skip
    assert kept.items() <= {name: (out / name).read_bytes() for name in pictures(out)}.items()
    others = {one.name for one in out.iterdir()} - set(pictures(out))
    assert others == {".lock", "collection.json", "moments.csv"}
    assert {(out / name).stat().st_mode & 0o777 for name in pictures(out)} == {0o600}


def test_ctrl_c_ends_it_for_the_part_that_was(tmp_path):
    out = tmp_path / "frames"
    words = ("collect", "--source", "demo://?fps=30", "--for", "1h", "--frames", 20_000)
    process = start(*words, "--out", out)
    wait_until(lambda: len(pictures(out)) >= 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    collection = Collection.read(out)
    assert collection.file.written >= 5
    assert collection.file.drawn < 200
    assert "of 1 h: it holds for that part" in err


def test_two_may_not_write_into_one_folder(tmp_path, command):
    out = tmp_path / "frames"
    words = ("collect", "--source", "demo://", "--for", "60s", "--frames", 1000, "--out", out)
    process = start(*words)
    wait_until(lambda: pictures(out))
    assert "another process collects into it" in command(*words).complaint
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_network_camera_that_is_killed_and_comes_back(server, tmp_path):
    """Each frame of this camera shows when it was made: that is the moment it stands for."""
    out = tmp_path / "frames"
    process = start("collect", "--source", server.address, "--for", "10s", "--frames", 120,
                    "--timeout-s", 2, "--out", out, "--json")  # fmt: skip
    wait_until(lambda: len(pictures(out)) >= 10)
    server.stop()
    stopped_s = time.time()
    time.sleep(1)
    server.start()
    started_s = time.time()
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    told = json.loads(printed)
    collection = Collection.read(out)
    start_s = collection.file.start.timestamp()
    assert told["missed"].keys() == {AWAY}
    late = []
    for one in collection.moments:
        at_s = start_s + one.moment_s
        if one.missed:
            assert stopped_s - 1 < at_s < started_s + 12
            continue
        assert not stopped_s + 0.5 < at_s < started_s
        shown = shown_ms(cv2.imread(str(out / one.file)))
        if shown is not None:
            late.append(shown / 1e3 - at_s)
    assert len(late) > 20
    assert np.abs(np.median(late)) < 0.5
    everything = b"".join(path.read_bytes() for path in out.iterdir() if path.suffix != ".png")
    for word in (SECRET, "127.0.0.1", "rtsp", "camera/"):
        assert word.encode() not in everything
    assert SECRET not in err


BAD = {
    "no source": ((), "give cameras with --source"),
    "both": (("--source", "demo://", "--from", "x.mp4"), "not both"),
    "half": (("--source", "demo://", "--for", "5s"), "belong together"),
    "other half": (("--source", "demo://", "--frames", 5), "belong together"),
    "nothing to go on with": (("--source", "demo://"), "holds no collection to go on with"),
    "length": (("--source", "demo://", "--for", "3x", "--frames", 5), "no length of time"),
    "nan": (("--source", "demo://", "--for", "nan", "--frames", 5), "no length of time"),
    "zero": (("--source", "demo://", "--for", "0s", "--frames", 5), "no length of time"),
    "ages": (("--source", "demo://", "--for", "99999d", "--frames", 5), "at most ten years"),
    "none": (("--source", "demo://", "--for", "5s", "--frames", 0), "0 is not in the range"),
    "formats": (
        ("--source", "demo://", "--for", "5s", "--frames", 5, "--jpeg", "--webp"),
        "one of them",
    ),
    "fps": (("--source", "demo://", "--for", "5s", "--frames", 5, "--fps", 3), "of epochs only"),
    "epochs": (
        ("--source", "demo://", "--for", "5s", "--number", 5, "--epochs", "6s"),
        "do not fit",
    ),
    "region": (
        ("--source", "demo://", "--for", "5s", "--frames", 5, "--region", "0,0,9999,9"),
        "reaches beyond the picture",
    ),
    "mask": (
        ("--source", "demo://", "--for", "5s", "--frames", 5, "--mask", "shed=0,0,9,9"),
        "no source is called shed",
    ),
    "names": (
        ("--source", "a=demo://", "--source", "a=demo://", "--for", "5s", "--frames", 5),
        "two sources are called a",
    ),
    "camera": (("--from", "demo://", "--frames", 5), "a camera, no recording"),
    "period": (("--from", "nothing.mp4", "--frames", 5, "--for", "3s"), "leave it out"),
    "gone": (("--from", "nothing.mp4", "--frames", 5), "no such file"),
    "seed": (("--source", "demo://", "--for", "5s", "--frames", 5, "--seed", -1), "'--seed'"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_bad_values_are_one_line_and_leave_nothing(words, said, command, tmp_path):
    out = tmp_path / "frames"
    done = command("collect", *words, "--out", out)
    assert done.code == 2
    assert said in done.err.splitlines()[-1]
    assert len([line for line in done.err.splitlines() if "recording1: read" not in line]) <= 2
    assert not out.exists()


def test_a_folder_of_something_else_is_left_alone(command, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    words = ("collect", "--source", "demo://", "--for", "5s", "--frames", 5, "--out", tmp_path)
    assert "holds other files" in command(*words).complaint
    (tmp_path / "file").touch()
    words = (*words[:-1], tmp_path / "file" / "below")
    assert "not a directory" in command(*words).complaint


def test_jpeg_warns_and_webp_loses_nothing(command, tmp_path):
    film = cv2.VideoWriter(
        str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)
    )
    for number in range(5):
        film.write(np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8))
    film.release()
    found = {}
    for flag in ("--jpeg", "--webp", "--timeout-s=5"):
        out = tmp_path / flag.strip("-")
        words = ("collect", "--from", tmp_path / "film.avi", "--frames", 9, "--seed", 1)
        done = command(*words, "--out", out, flag)
        assert done.code == 0, done.err
        assert ("warning: JPEG changes pixels" in done.err) == (flag == "--jpeg")
        found[flag] = [cv2.imread(str(out / one.file)) for one in Collection.read(out).written]
    lossless, png = found["--webp"], found["--timeout-s=5"]
    assert all((one == other).all() for one, other in zip(lossless, png, strict=True))
