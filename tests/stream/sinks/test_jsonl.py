import errno
import json
import os
import time
from pathlib import Path

import pytest

from tests.stream.decisions import Events, decision
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream import JsonlSink, Queued
from tinysaver_edge.stream.telemetry.metrics import Counter, Tally

LINE = len(json.dumps(decision(100).to_dict(), separators=(",", ":"))) + 1


def sequences(path):
    return [json.loads(line)["frame_id"]["sequence"] for line in path.read_text().splitlines()]


def write(sink, numbers):
    with sink as one:
        for number in numbers:
            one.write(decision(number), None)


def test_one_line_a_decision_and_a_file_that_is_there_goes_on(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    write(JsonlSink(path), range(3))
    write(JsonlSink(path), range(3, 5))
    assert sequences(path) == [0, 1, 2, 3, 4]
    assert json.loads(path.read_text().splitlines()[0]) == decision(0).to_dict()


def test_files_rotate_and_the_oldest_goes(tmp_path):
    path = tmp_path / "out.jsonl"
    write(JsonlSink(path, max_bytes=10 * LINE, keep=2), range(100, 145))
    assert sequences(path) == list(range(140, 145))
    assert sequences(tmp_path / "out.jsonl.1") == list(range(130, 140))
    assert sequences(tmp_path / "out.jsonl.2") == list(range(120, 130))
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "out.jsonl",
        "out.jsonl.1",
        "out.jsonl.2",
    ]


def test_without_older_files_it_starts_anew(tmp_path):
    path = tmp_path / "out.jsonl"
    write(JsonlSink(path, max_bytes=10 * LINE, keep=0), range(100, 115))
    assert sequences(path) == list(range(110, 115))
    assert len(list(tmp_path.iterdir())) == 1


def test_two_at_once_would_cut_off_each_others_lines(tmp_path):
    sink = JsonlSink(tmp_path / "out", max_bytes=2 * LINE)
    with sink as one:
        for number in range(100, 105):  # through rotations
            one.write(decision(number), None)
        with pytest.raises(InputError, match="another run writes there"):
            write(JsonlSink(tmp_path / "out"), [1])
    write(JsonlSink(tmp_path / "out"), [105])
    assert sequences(tmp_path / "out")[-1] == 105


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"label": "ca')
    write(JsonlSink(path), [7])
    torn, whole = path.read_text().splitlines()
    assert torn == '{"label": "ca'
    assert json.loads(whole)["frame_id"]["sequence"] == 7


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n", b'{\n  "schema_version": 1\n}\n', b"[1, 2]\n", b"a,b\n1,2\n"]
)
def test_nothing_is_appended_to_what_is_no_file_of_decisions(content, tmp_path):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(InputError, match="holds something else than decisions"):
        write(JsonlSink(path), [0])
    assert path.read_bytes() == content


def test_dev_full_fails_each_decision_and_nothing_else():
    events, tally = Events(), Tally()
    sink = JsonlSink(Path("/dev/full"))
    wrapped = Queued(sink, clock=time.monotonic, listener=events, metrics=tally)
    write(wrapped, range(50))
    assert tally.total(Counter.SINK_FAILED) == 50
    assert [event.reason for event in events.all] == ["No space left on device"]


def test_a_disk_that_fills_and_is_cleared_leaves_only_whole_lines(tiny_disk):
    (tiny_disk / "other").write_bytes(b"x" * 40_000)
    path = tiny_disk / "out.jsonl"
    failed = 0
    with JsonlSink(path) as sink:
        for number in range(200):
            try:
                sink.write(decision(number), None)
            except OSError as error:
                failed += error.errno == errno.ENOSPC
        assert failed > 50
        assert sequences(path) == list(range(200 - failed))
        (tiny_disk / "other").unlink()
        for number in range(200, 220):
            sink.write(decision(number), None)
    assert sequences(path) == [*range(200 - failed), *range(200, 220)]


def test_a_file_that_was_removed_is_made_anew_and_a_folder_is_missed(tmp_path):
    path = tmp_path / "here" / "out.jsonl"
    with JsonlSink(path) as sink:
        sink.write(decision(0), None)
        path.unlink()
        sink.write(decision(1), None)
        assert sequences(path) == [1]
        path.unlink()
        path.parent.rmdir()
        with pytest.raises(FileNotFoundError):
            sink.write(decision(2), None)
        path.parent.mkdir()
        sink.write(decision(3), None)
    assert sequences(path) == [3]


def test_what_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), JsonlSink(tmp_path / "file" / "x"):
        pass
    with pytest.raises(InputError, match="cannot be written"), JsonlSink(tmp_path):
        pass


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"keep": -1}], ids=str)
def test_limits_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(InputError, match="cannot rotate"):
        JsonlSink(tmp_path / "x", **options)


def test_a_pipe_is_not_rotated(tmp_path):
    place = tmp_path / "pipe"
    os.mkfifo(place)
    reading = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    with JsonlSink(place, max_bytes=10) as sink:
        for number in range(3):
            sink.write(decision(number), None)
    assert os.read(reading, 1 << 16).count(b"\n") == 3
    os.close(reading)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_nobody_reads_fails_each_decision_and_nothing_else(tmp_path):
    place = tmp_path / "pipe"
    os.mkfifo(place)
    events, tally = Events(), Tally()
    sink = JsonlSink(place)
    wrapped = Queued(sink, clock=time.monotonic, listener=events, metrics=tally)
    write(wrapped, range(5))
    assert tally.total(Counter.SINK_FAILED) == 5
    assert [event.reason for event in events.all] == ["nobody reads this pipe"]


def test_a_pipe_s_reader_may_come_late_and_go(tmp_path):
    place = tmp_path / "pipe"
    os.mkfifo(place)
    with JsonlSink(place) as sink:
        with pytest.raises(OSError, match="nobody reads this pipe"):
            sink.write(decision(0), None)
        reading = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        sink.write(decision(1), None)
        assert json.loads(os.read(reading, 1 << 16))["frame_id"]["sequence"] == 1
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            sink.write(decision(2), None)
        with pytest.raises(OSError, match="nobody reads this pipe"):
            sink.write(decision(3), None)


def test_a_link_stays_when_its_file_rotates(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "out.jsonl").touch()
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "logs" / "out.jsonl")
    with JsonlSink(tmp_path / "out.jsonl", max_bytes=10) as sink:
        for number in range(3):
            sink.write(decision(number), None)
    assert (tmp_path / "out.jsonl").is_symlink()
    assert {one.name for one in (tmp_path / "logs").iterdir()} == {
        "out.jsonl", "out.jsonl.1", "out.jsonl.2",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["out", "out.1", "out.3"])
def test_nothing_of_another_kind_is_written_to_or_rotated_over(tmp_path, place):
    (tmp_path / place).write_bytes(b"my photo")
    with pytest.raises(InputError, match=f"{place}: holds something else"):
        write(JsonlSink(tmp_path / "out", max_bytes=LINE), range(9))
    assert (tmp_path / place).read_bytes() == b"my photo"
    assert len(list(tmp_path.iterdir())) == 1
