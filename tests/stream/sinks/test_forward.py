"""Store and forward: through outages, kills and poisoned items, within its bytes, all accounted."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.bundle.servers import serving
from tests.stream.decisions import decision, escalated, frame
from tests.waiting import wait_until
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream.sinks.forward import Forwarder, Forwarding, ForwardOptions, receiver_of
from tinysaver_edge.stream.sinks.queued import DiskQueue
from tinysaver_edge.stream.telemetry.events import SinkFailed, SinkRecovered


def balanced(queue: DiskQueue) -> bool:
    counts = queue.counts
    gone = counts.sent + counts.dropped + counts.aside
    on_disk = len(list(queue.folder.glob("*.item")))
    return counts.found + counts.queued == gone + queue.waiting and on_disk == queue.waiting


def forwarding(target, folder: Path, **options) -> Forwarding:
    settings = {"share": 1.0, "pause_s": 0.0, **options}
    return Forwarding(
        ForwardOptions(str(target), folder, **settings), clock=time.monotonic, wall=time.time
    )


def item(queue: DiskQueue, name: str, size: int = 1000) -> None:
    import hashlib

    picture = bytes(size)
    row = {"file": f"{name}.jpg", "sha256": hashlib.sha256(picture).hexdigest()}
    queue.add(name, json.dumps(row).encode() + b"\n" + picture)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "www").mkdir()
    with serving(tmp_path / "www") as one:
        yield one


@pytest.mark.parametrize("kind", ["web", "folder"])
def test_hard_frames_arrive_with_their_rows_and_others_do_not(kind, server, tmp_path):
    place = f"{server.url}/field" if kind == "web" else tmp_path / "www/field"
    (tmp_path / "www/field").mkdir()
    around = forwarding(place, tmp_path / "queue")
    with around, around.sink as sink:
        sink.write(decision(0), frame(0))
        sink.write(escalated(1), frame(1))
        around.keep(decision(2, label="cat"), decision(2, label="dog"), frame(2))
        wait_until(lambda: around.counts.sent == 2, "two are sent")
    rows = [json.loads(path.read_text()) for path in (tmp_path / "www/field").glob("*.json")]
    rows.sort(key=lambda row: row["sequence"])
    assert [row["kind"] for row in rows] == ["hard", "audited"]
    assert (rows[1]["answer"], rows[1]["large_answer"]) == ("cat", "dog")
    for row in rows:
        assert (tmp_path / "www/field" / row["file"]).read_bytes()[:2] == b"\xff\xd8"
    assert around.waiting == 0


def test_an_outage_is_waited_through_and_the_oldest_give_way(server, tmp_path):
    events = []
    server.dead = True
    queue = DiskQueue(tmp_path / "queue", most_bytes=10_000)
    sender = Forwarder(queue, receiver_of(server.url), share=1.0, clock=time.monotonic,
                       listener=events.append)  # fmt: skip
    with sender:
        for number in range(30):
            item(queue, f"{number:03d}")
            assert queue.bytes <= 10_000
        wait_until(lambda: events and sender._failures)
        assert balanced(queue)
        server.dead = False
        sender._failures = 1
        wait_until(lambda: queue.waiting == 0, "drained")
        assert balanced(queue)
    assert queue.counts.dropped + queue.counts.sent == 30
    sent = sorted(path.stem for path in (tmp_path / "www").glob("*.jpg"))
    assert sent[-1] == "029"  # the oldest gave way, not the newest
    assert len(sent) == queue.counts.sent >= 8
    assert [type(one) for one in events] == [SinkFailed, SinkRecovered]


@pytest.mark.parametrize("how", ["status", "hangs up", "damaged"])
def test_an_item_that_keeps_failing_goes_aside_and_holds_up_nothing(how, server, tmp_path):
    queue = DiskQueue(tmp_path / "queue", most_bytes=100_000)
    target = receiver_of(server.url)
    take = target.take

    def poisoned(name: str, content: bytes) -> None:
        if name.startswith("000"):
            if how == "status":
                server.puts = False  # 405 to this one, as a whole target that is away would
                try:
                    take(name, content)
                finally:
                    server.puts = True
            server.dead = True
            try:
                take(name, content)
            finally:
                server.dead = False
        take(name, content)

    target.take = poisoned
    with Forwarder(queue, target, share=1.0, clock=time.monotonic) as sender:
        sender._stopping = Impatient()
        item(queue, "000")
        if how == "damaged":
            path = tmp_path / "queue/000.item"
            path.write_bytes(path.read_bytes()[:-5])
        for number in range(1, 15):
            item(queue, f"{number:03d}")
        wait_until(lambda: queue.counts.aside == 1 and queue.counts.sent == 14)
        assert balanced(queue)
    assert [path.name for path in (tmp_path / "queue/aside").iterdir()] == ["000.item"]


class Impatient(threading.Event):
    """Waits a hundredth of what it is told to."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else timeout / 100)


def test_a_page_is_no_sign_that_a_frame_was_taken(server, tmp_path):
    """As the log-in page of a network in between answers, to whatever it is asked."""
    server.page = b"<html>Log in to the network</html>"
    queue = DiskQueue(tmp_path / "queue", most_bytes=100_000)
    events = []
    with Forwarder(
        queue, receiver_of(server.url), share=1.0, clock=time.monotonic, listener=events.append
    ) as sender:
        sender._stopping = Impatient()
        item(queue, "000")
        wait_until(lambda: bool(events))
        assert "answers with a page" in events[0].reason
        assert queue.counts.sent == 0
        server.page = None
        wait_until(lambda: queue.counts.sent == 1)
        assert balanced(queue)
    assert (tmp_path / "www/000.jpg").exists()


def test_share_leaves_the_uplink_alone(tmp_path):
    queue = DiskQueue(tmp_path / "queue", most_bytes=100_000)
    times = []

    class Slow:
        shown = "slow"

        def take(self, name, content):
            if name.endswith(".jpg"):
                times.append(time.monotonic())
                time.sleep(0.02)

    with Forwarder(queue, Slow(), share=0.25, clock=time.monotonic):
        for number in range(6):
            item(queue, f"{number}")
        wait_until(lambda: queue.counts.sent == 6)
    gaps = [later - one for one, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.079


def test_a_kill_loses_no_item_that_was_taken_in(tmp_path):
    code = (
        "import sys, hashlib, json\n"
        "from pathlib import Path\n"
        "from tinysaver_edge.stream.sinks.queued import DiskQueue\n"
        "queue = DiskQueue(Path(sys.argv[1]), most_bytes=10**9)\n"
        "queue.open()\n"
        "picture = bytes(20000)\n"
        "row = {'file': 'x.jpg', 'sha256': hashlib.sha256(picture).hexdigest()}\n"
        "for number in range(10**6):\n"
        "    queue.add(f'{number:07d}', json.dumps(row).encode() + b'\\n' + picture)\n"
        "    print(number, flush=True)\n"
    )
    folder = tmp_path / "queue"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    last = b""
    for _ in range(40):
        last = process.stdout.readline()
    process.kill()
    last = (process.communicate()[0].split() or [last])[-1]
    queue = DiskQueue(folder, most_bytes=10**9)
    queue.open()
    try:
        assert queue.counts.found >= int(last) + 1
        assert balanced(queue)
        for _ in range(queue.waiting):
            name = queue.next()
            queue.content(name)
            queue.sent(name)
        assert not list(folder.glob(".*"))
    finally:
        queue.close()


def test_a_queue_that_has_shrunk_keeps_the_newest(tmp_path):
    for most, kept in ((100_000, 9), (5_000, 4)):
        queue = DiskQueue(tmp_path / "queue", most_bytes=most)
        queue.open()
        if most == 100_000:
            for number in range(9):
                item(queue, f"{number}")
        assert (queue.waiting, balanced(queue)) == (kept, True)
        if most == 5_000:
            assert queue.next() == "5.item"
            item(queue, "huge", size=6_000)
            assert queue.counts.dropped == 6
            assert balanced(queue)
        queue.close()


def test_on_a_full_disk_the_oldest_give_way_as_well(tiny_disk):
    queue = DiskQueue(tiny_disk / "queue", most_bytes=10**9)
    queue.open()
    room = shutil.disk_usage(tiny_disk).free
    for number in range(12):
        item(queue, f"{number:02d}", size=room // 5)
        assert balanced(queue)
    assert queue.counts.queued == 12
    assert 0 < queue.waiting < 6
    assert queue.next() == f"{12 - queue.waiting:02d}.item"
    (tiny_disk / "full").write_bytes(bytes(shutil.disk_usage(tiny_disk).free))
    for _ in range(queue.waiting):
        queue.sent(queue.next())
    (tiny_disk / "fuller").write_bytes(bytes(shutil.disk_usage(tiny_disk).free))
    with pytest.raises(OSError, match="No space left"):  # nothing there is ours to drop
        item(queue, "last", size=room // 5)
    assert balanced(queue)
    queue.close()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("ftp://host/x", "give a folder"),
        ("http://user:secret@far.example/x", "plain text"),
        ("http://far.example/x", "plain text"),
        ("", "give a folder"),
        ("rtsp://user:secret@host/x", "give a folder"),
        ("/dev/null", "is a device, no folder"),
        (__file__, "is a file, no folder"),
    ],
)
def test_a_target_that_is_none_is_refused_without_its_password(target, said):
    with pytest.raises(InputError, match=said) as refused:
        receiver_of(target)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"most_bytes": 0}, {"pause_s": -1.0}])
def test_options_out_of_range_are_refused(options, tmp_path):
    with pytest.raises(InputError, match="forward"):
        forwarding(tmp_path, tmp_path / "queue", **options)


def test_a_queue_in_a_folder_of_ones_own_takes_nothing_from_it(tmp_path):
    own = [".env", ".gitignore", ".notes.0123456789ab", "photo.jpg"]
    for name in (*own, ".frame.item.0123456789ab"):
        (tmp_path / name).write_text("mine")
    queue = DiskQueue(tmp_path, most_bytes=1000)
    queue.open()
    queue.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*own, "aside"])
