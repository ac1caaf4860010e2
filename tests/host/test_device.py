"""`deploy --target device`: a bundle without the large model, and what can be done with it."""

from __future__ import annotations

import json

import pytest

from tests.colours import NAMES, colour_folders, colour_picture
from tests.command import spawned
from tests.remote.device_bundle import jpeg_bundle
from tests.remote.hosts import remote
from tests.remote.kserve import Served, needs_kserve
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import MANIFEST, Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import BundleError, InputError
from tinysaver_edge.host.deploy import write_device_bundle

FRAMES = [colour_picture(number % len(NAMES), number) for number in range(40)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    small_bundle(folder / "bundle")
    slim(folder / "bundle", folder / "slim")
    colour_folders(folder / "images", each=4)
    return folder


def slim(bundle, out) -> int:
    with Bundle.load(bundle) as opened:
        return write_device_bundle(opened, out)


def test_only_the_large_models_file_is_missing(place) -> None:
    whole, light = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (place / "bundle", place / "slim")
    )
    assert whole - light == {"models/large.onnx"}
    manifests = [json.loads((place / one / MANIFEST).read_text()) for one in ("bundle", "slim")]
    manifests[0]["stages"][1]["model"]["elsewhere"] = True
    assert manifests[0] == manifests[1]


def test_the_command_says_how_much_lighter_it_is(place, tmp_path) -> None:
    done = spawned("deploy", place / "bundle", "--target", "device", "--out", tmp_path / "b.zip")
    assert done.code == 0, done.err
    size = (place / "bundle/models/large.onnx").stat().st_size
    assert f"{size / 1e6:.2f} MB lighter" in done.err
    assert "tinysaver-edge run b.zip --source 0 --large" in done.err
    with Bundle.load(tmp_path / "b.zip") as opened:
        assert opened.manifest.stages[-1].model.elsewhere


@pytest.mark.parametrize(
    "command",
    [("run", "--source", "images"), ("verify",), ("evaluate", "--data", "images"), ("bench",),
     ("serve",), ("deploy", "--target", "triton", "--out", "none"),
     ("run", "--source", "images", "--large-worker")],
)  # fmt: skip
def test_without_a_host_one_line_says_what_to_do(place, command) -> None:
    name, *options = command
    named = [place / one if one in ("images", "none") else one for one in options]
    done = spawned(name, place / "slim", *named)
    assert done.code == 2
    assert done.complaint.endswith(
        "slim: holds no file of large, which other hosts serve: name one with --large URL, run "
        "with --escalation local, or take the whole bundle"
    )
    assert not (place / "none").exists()


def test_without_a_host_the_saver_answers_where_nothing_escalates(place) -> None:
    arguments = ("--source", place / "images", "--escalation", "local", "--json")
    done, whole = (spawned("run", place / one, *arguments) for one in ("slim", "bundle"))
    assert done.code == whole.code == 0, done.err
    kept = ("label", "source", "escalated", "degraded", "frame_id")
    tables = [
        [{name: json.loads(line)[name] for name in kept} for line in one.out.splitlines()]
        for one in (done, whole)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 24


def test_a_program_that_asks_the_large_model_gets_the_savers_answer(place) -> None:
    with Cascade.load(place / "slim", allow_absent=True) as cascade:
        decisions = [cascade.decide(frame) for frame in FRAMES]
    asked = [one for one in decisions if one.escalated]
    assert asked
    assert all("does not hold its file, and no host is named" in str(one.degraded) for one in asked)


@needs_kserve
@pytest.mark.slow
def test_with_a_host_it_decides_as_the_whole_bundle_does(tmp_path) -> None:
    bundle = jpeg_bundle(tmp_path / "bundle", Jpeg(30))
    slim(bundle, tmp_path / "slim")
    served = Served(tmp_path, bundle).start()
    try:
        large = remote(served.url(), timeout_s=5.0)
        with Cascade.load(tmp_path / "slim", large=large) as there, Cascade.load(bundle) as here:
            for frame in FRAMES:
                one, other = there.decide(frame), here.decide(frame)
                assert (one.label, one.source, one.certified) == (
                    other.label, other.source, True,
                )  # fmt: skip
            assert there.doubt is None
        done = spawned(
            "verify", tmp_path / "slim", "--large", served.url(), "--large-timeout-ms", 5000
        )
        assert done.code == 0, done.err
    finally:
        served.stop()


@needs_kserve
@pytest.mark.slow
def test_a_host_of_another_model_is_found_out_without_the_file(place, tmp_path) -> None:
    served = Served(tmp_path, small_bundle(tmp_path / "other", names=("saver", "middle"))).start()
    try:
        done = spawned("run", place / "slim", "--source", place / "images",
                       "--large", served.url("middle"))  # fmt: skip
    finally:
        served.stop()
    assert done.code == 2
    assert "the bundle was calibrated with" in done.complaint


def test_what_cannot_be_left_out_is_one_clear_line(place, tmp_path) -> None:
    with pytest.raises(BundleError, match="holds no file of large already"):
        slim(place / "slim", tmp_path / "again")
    with pytest.raises(BundleError, match="only has no saver beside it"):
        slim(small_bundle(tmp_path / "one", names=("only",)), tmp_path / "two")
    with pytest.raises(InputError, match="there is something already"):
        slim(place / "bundle", place / "slim")
    done = spawned("deploy", place / "bundle", "--target", "device", "--out", tmp_path / "x",
                   "--jpeg")  # fmt: skip
    assert "--name, --jpeg and --python-backend are about servers" in done.complaint


@pytest.mark.parametrize("stage", [0, 1])
def test_only_the_last_model_may_be_elsewhere(place, tmp_path, stage) -> None:
    content = json.loads((place / "slim" / MANIFEST).read_text())
    if stage == 1:
        content["stages"][1]["model"]["files"] = []
    content["stages"][stage]["model"]["elsewhere"] = True
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="only the last model may be elsewhere"):
        Bundle.load(tmp_path)
