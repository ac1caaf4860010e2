"""`tinysaver-edge run` on live sources: signals, several sources, lost ones, escalation."""

import json
import re
import signal
import socket
import time

import cv2
import numpy as np
import pytest

from tests.command import start
from tests.small_bundle import small_bundle
from tinysaver_edge import Cascade


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_in_the_middle_ends_it_in_good_order(bundle, tmp_path, number, code):
    lines = tmp_path / "decisions.jsonl"
    with lines.open("w") as out:
        process = start("run", bundle, "--source", "demo://", "--json", stdout=out)
        deadline = time.monotonic() + 60
        while lines.read_text().count("\n") < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    text = lines.read_text()
    assert text.endswith("\n")
    decisions = [json.loads(line) for line in text.splitlines()]
    assert len(decisions) >= 5
    numbers = [one["frame_id"]["sequence"] for one in decisions]
    assert numbers == sorted(set(numbers))
    assert f"stopped by {signal.Signals(number).name}" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_signal_that_comes_twice_at_once_is_one(bundle, tmp_path):
    """`timeout` and other runners pass on what a terminal has sent to all already."""
    lines = tmp_path / "decisions.jsonl"
    with lines.open("w") as out:
        process = start(
            "run", bundle, "--source", "demo://", "--json",
            "--video", tmp_path / "v.mp4", stdout=out,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while lines.read_text().count("\n") < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "stopped by SIGTERM" in err.splitlines()[-1]
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert video.isOpened()
    assert video.read()[0]


def test_a_reader_that_has_enough_ends_it_quietly(bundle, tmp_path):
    process = start(
        "run", bundle, "--source", "demo://?fps=200", "--json", "--jsonl", tmp_path / "out.jsonl"
    )
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 141, err
    assert [line for line in err.splitlines() if "dropped" not in line] == []
    assert (tmp_path / "out.jsonl").read_text().endswith("}\n")


def test_an_interruption_before_the_stream_promises_nothing(bundle):
    for wait_s in (0.3, 0.6, 1.2, 2.4):  # Python and the models load
        process = start("run", bundle, "--source", "demo://")
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        if process.returncode != -signal.SIGINT:  # that was before Python's own handler
            break
    assert process.returncode == 130
    assert "is kept" not in err


def test_a_limit_gives_every_frame_its_last_word(command, bundle, tmp_path):
    """What was provisional is revised, on stdout as in the file; no frame beyond the limit."""
    done = command(
        "run", bundle, "--source", f"a={bundle / 'golden'}", "--source", f"b={bundle / 'golden'}",
        "--escalation", "revise", "--limit", 9, "--json", "--jsonl", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert done.code == 0
    decisions = [json.loads(line) for line in done.out.splitlines()]

    def frames(fits):
        names = (one["frame_id"] for one in decisions if fits(one))
        return [(name["source_id"], name["sequence"]) for name in names]

    firsts = frames(lambda one: not one["revision"])
    provisional = frames(lambda one: one["reason"] == "provisional")
    revised = frames(lambda one: one["revision"])
    assert len(firsts) == 9
    assert provisional
    assert set(provisional) == set(revised)
    assert [one for one in decisions if one["revision"] and one["degraded"]] == []
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert sorted(lines) == sorted(json.dumps(one, separators=(",", ":")) for one in decisions)


def test_the_rate_is_that_of_the_stream_without_the_loading(command, bundle, monkeypatch):
    loaded = Cascade.from_bundle.__func__

    def slow(cls, *arguments, **options):
        time.sleep(3)
        return loaded(cls, *arguments, **options)

    monkeypatch.setattr(Cascade, "from_bundle", classmethod(slow))
    done = command("run", bundle, "--source", bundle / "golden", "--quiet")
    rate = float(re.search(r"([\d.]+) frames/s", done.err)[1])
    assert rate > len(list((bundle / "golden").glob("*.png"))) / 3


def test_local_says_that_nobody_was_asked(command, bundle):
    done = command("run", bundle, "--source", bundle / "golden", "--escalation", "local")
    assert "escalated" not in done.err
    assert "not accepted, and nobody asked" in done.err


def test_an_audit_that_would_ask_nobody_is_refused(command, bundle):
    done = command(
        "run", bundle, "--source", "demo://", "--escalation", "local", "--audit-share", 0.5
    )
    assert done.code == 2
    assert "--audit-share asks the large model" in done.complaint


def test_a_source_that_fails_for_good_does_not_hide_what_the_others_gave(command, bundle, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    golden = bundle / "golden"
    done = command("run", bundle, "--source", golden, "--source", tmp_path / "broken.png")
    assert done.code == 2
    told = done.err.splitlines()
    assert told[-1].endswith("not a readable image")
    assert re.match(rf"{len(list(golden.glob('*.[pj]*g')))} frames, ", told[1])
    assert told[2] == "1 frame could not be decoded (broken.png 1)"


def test_with_log_json_every_line_of_the_log_is_json(command, bundle):
    done = command(
        "run", bundle, "--source", "demo://?frames=40&fps=200", "--log-json", "--quiet",
        "--metrics", "127.0.0.1:0", "--jsonl", "/dev/full", "--audit-share", "0",
    )  # fmt: skip
    assert done.code == 2  # the file takes no line
    told = [json.loads(line) for line in done.err.splitlines()]
    assert {"connected", "ended", "sink_failed"} <= {one.get("event") for one in told}
    said = [one["message"] for one in told if "event" not in one]
    assert said[0].startswith("metrics and health: http://127.0.0.1:")
    assert any("frames/s" in one for one in said)
    lost = next(one for one in told if "could not be written" in one["message"])
    assert lost["severity"] == "warning"


def test_several_sources_with_names(command, bundle):
    done = command(
        "run", bundle, "--source", "left=demo://?fps=60&frames=40&seed=1",
        "--source", "right=demo://?fps=60&frames=40&seed=2", "--json",
    )  # fmt: skip
    assert done.code == 0
    names = [json.loads(line)["frame_id"]["source_id"] for line in done.out.splitlines()]
    assert names.count("left") > 10
    assert names.count("right") > 10


def test_local_never_escalates_and_revise_revises(command, bundle):
    source = bundle / "golden"
    done = command("run", bundle, "--source", source, "--escalation", "local", "--json")
    local = [json.loads(line) for line in done.out.splitlines()]
    assert {one["source"] for one in local} == {"saver", "fallback"}
    unsure = sum(one["source"] == "fallback" for one in local)
    assert f"{unsure} answers degraded" in done.err
    done = command("run", bundle, "--source", source, "--escalation", "revise", "--json")
    revised = [json.loads(line) for line in done.out.splitlines()]
    assert sum(one["revision"] for one in revised) == unsure
    assert "degraded" not in done.err
    table = command("run", bundle, "--source", source, "--escalation", "revise")
    assert table.out.count("  revised") == unsure


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("rtsp://u:s3cr3t@127.0.0.1:{port}/x", "127.0.0.1:{port}: connection refused"),
        ("rtsp://u:s3cr3t@host:x/", "the address is malformed"),
        ("97", "there is no /dev/video97"),
        ("/dev/video97", "there is no /dev/video97"),
        ("ftp://x/y", "no such kind of source"),
        ("", "source: is empty"),
    ],
)
def test_sources_that_are_not_there_take_one_line(command, bundle, source, part):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = command("run", bundle, "--source", source.format(port=port), "--json")
    assert done.code == 2
    assert part.format(port=port) in done.complaint
    assert "s3cr3t" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("--escalation", "never"),
        ("--deadline-ms", "0"),
        ("--max-in-flight", "0"),
        ("--timeout-s", "-1"),
        ("--timeout-s", "inf"),
        ("--deadline-ms", "nan"),
        ("--jsonl-max-mb", "nan"),
        ("--jsonl-max-mb", "inf"),
        ("--audit-share", "nan"),
        ("--drift-level", "nan"),
        ("--video-fps", "nan"),
        ("--threads", "100000"),
    ],
)
def test_options_out_of_range(command, bundle, words):
    done = command("run", bundle, "--source", "demo://", *words)
    assert done.code == 2
    assert words[0] in done.complaint


class TestReuse:
    """Answers repeated over a video of two scenes, each at rest."""

    @staticmethod
    def still_video(folder):
        path = str(folder / "still.avi")
        video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for number in [3] * 12 + [200] * 12:
            video.write(np.full((48, 64, 3), number, np.uint8))
        video.release()
        return path

    def run(self, bundle, video, *options):
        process = start("run", bundle, "--source", video, "--json", *options)
        out, err = process.communicate(timeout=60)
        return process.returncode, [json.loads(line) for line in out.splitlines()], err

    def test_answers_are_repeated_where_limits_are_given(self, bundle, tmp_path):
        video = self.still_video(tmp_path)
        code, before, _ = self.run(bundle, video)
        assert code == 0
        code, lines, err = self.run(bundle, video, "--reuse", "still=2,same=0.1", "--hold", "2")
        assert code == 0
        assert [one["index"] for one in lines] == [one["index"] for one in before]
        assert {one["reused"] for one in before if one["reused"] is not None} == set()
        repeated = [one for one in lines if one["source"] == "reused"]
        assert len(repeated) == 22
        assert {one["reused"]["frame_id"]["sequence"] for one in repeated} == {0, 12}
        assert not any(one["certified"] for one in repeated)
        assert "91.67 % still, 0.00 % same, 8.33 % the saver's" in err
        assert "not certified" in err
        assert [line for line in err.splitlines() if "still.avi: now" in line]

    def test_a_preset_and_what_overrides_it(self, bundle, tmp_path):
        video = self.still_video(tmp_path)
        _, lines, _ = self.run(bundle, video, "--for", "static-camera")
        assert sum(one["source"] == "reused" for one in lines) == 22
        _, lines, _ = self.run(bundle, video, "--for", "static-camera", "--reuse", "off")
        assert sum(one["source"] == "reused" for one in lines) == 0

    @pytest.mark.parametrize(
        ("option", "value", "told"),
        [
            ("--reuse", "still=lots", "still=lots"),
            ("--reuse", "always", "always"),
            ("--for", "drone", "static-camera"),
            ("--hold", "0", "--hold"),
            ("--escalations-per-minute", "0", "--escalations-per-minute"),
            ("--min-time-between-escalations-s", "-1", "--min-time-between-escalations-s"),
        ],
    )
    def test_what_makes_no_sense_is_one_line(self, bundle, tmp_path, option, value, told):
        code, lines, err = self.run(bundle, "demo://", option, value)
        assert code == 2
        assert [set(one) for one in lines] == [{"error", "exit_code", "frame_id"}]
        assert told in err.splitlines()[-1]
        assert "Traceback" not in err
