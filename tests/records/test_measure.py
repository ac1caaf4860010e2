import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.colours import NAMES, Kind, colour_folders, colour_model
from tests.pictures import encoded
from tests.small_bundle import artefact
from tinysaver_edge import fusion as fusion_module
from tinysaver_edge.artefact import combined_sha256
from tinysaver_edge.data.files import open_data
from tinysaver_edge.errors import DataError, ModelError
from tinysaver_edge.fusion import ConditionalLogit, LinearFusion
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.preprocess import Preprocessor, Resize
from tinysaver_edge.records import measure as measure_module
from tinysaver_edge.records.measure import measure
from tinysaver_edge.score import Margin

EACH = 50
COUNT = EACH * len(NAMES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folders(tmp_path_factory.mktemp("measure") / "images", each=EACH)


@pytest.fixture
def data(images):
    with open_data(images) as source:
        yield source


@pytest.fixture
def saver(tmp_path):
    (tmp_path / "models").mkdir()
    return artefact(tmp_path / "models", "saver")


class Heard:
    """Counts what a measurement tells of its progress."""

    def __init__(self):
        self.started, self.steps, self.notes, self.finished = [], 0, [], 0

    def start(self, what, *, total, done=0):
        self.started.append((total, done))

    def advance(self, steps):
        self.steps += steps

    def finish(self):
        self.finished += 1

    def note(self, message):
        self.notes.append(message)


def run(saver, data, folder, *, fingerprint="f", **options):
    heard = Heard()
    record = measure(saver, data, folder, fingerprint=fingerprint, progress=heard, **options)
    return record, heard


def test_a_record_is_what_the_model_answers_frame_by_frame(saver, data, tmp_path):
    record, heard = run(saver, data, tmp_path)
    preprocessor = Preprocessor(saver.preprocess)
    with saver.open() as engine:
        expected = np.concatenate(
            [engine.infer(preprocessor(data.frame(i))).copy() for i in range(len(data))]
        )
    np.testing.assert_allclose(record.outputs.logits, expected, atol=1e-3)
    assert record.skipped == ()
    assert heard.started == [(COUNT, 0)]
    assert (heard.steps, heard.finished) == (COUNT, 1)


def test_a_record_is_reused_while_nothing_has_changed(saver, data, tmp_path):
    first, _ = run(saver, data, tmp_path)
    second, heard = run(saver, data, tmp_path)
    assert (second.outputs.logits == first.outputs.logits).all()
    assert heard.started == []
    assert heard.notes == ["saver: record reused"]


@pytest.mark.parametrize("what", ["data", "model", "resize", "precision", "engine"])
def test_a_record_is_made_anew_when_something_has(saver, data, tmp_path, what):
    run(saver, data, tmp_path)
    fingerprint, changed = "f", saver
    if what == "data":
        fingerprint = "g"
    elif what == "model":
        path = colour_model(tmp_path / "other.onnx", Kind(blur=0.1))
        changed = replace(saver, files=(path,), sha256=combined_sha256((path,)))
    elif what == "resize":
        size = saver.preprocess.resize
        resize = Resize(size.height, size.width, antialias=False)
        changed = replace(saver, preprocess=replace(saver.preprocess, resize=resize))
    elif what == "precision":
        content = json.loads((tmp_path / "saver.json").read_text())
        content["key"]["precision"] = "bfloat16"
        (tmp_path / "saver.json").write_text(json.dumps(content))
    else:
        changed = replace(saver, engine="openvino")
    _, heard = run(changed, data, tmp_path, fingerprint=fingerprint)
    assert heard.started == [(COUNT, 0)]


class Stop(Exception):
    """Ends a measurement as a kill would, but for the clean-up."""


def test_a_stopped_run_goes_on_at_its_last_chunk(saver, data, tmp_path):
    class Stopping(Heard):
        def advance(self, steps):
            super().advance(steps)
            if self.steps >= 200:
                raise Stop

    with pytest.raises(Stop):
        measure(saver, data, tmp_path, fingerprint="f", progress=Stopping())
    assert not (tmp_path / "saver.npz").exists()
    record, heard = run(saver, data, tmp_path)
    chunk = measure_module.CHUNK_SAMPLES
    assert heard.started == [(COUNT, chunk)]
    assert heard.steps == COUNT - chunk
    whole, _ = run(saver, data, tmp_path / "elsewhere")
    assert (record.outputs.logits == whole.outputs.logits).all()


def damaged(folder, *, count, first=0):
    """A copy of the pictures in which some cannot be read."""
    colour_folders(folder, each=EACH)
    files = sorted(folder.rglob("*.png"))[first : first + count]
    for path in files:
        path.write_bytes(path.read_bytes()[:60])
    return [path.relative_to(folder).as_posix() for path in files]


def test_unreadable_images_are_skipped_up_to_a_limit(saver, tmp_path):
    names = damaged(tmp_path / "images", count=3, first=148)
    with open_data(tmp_path / "images") as data:
        record, heard = run(saver, data, tmp_path / "records")
        assert record.skipped == (148, 149, 150)
        assert heard.steps == COUNT
        again, heard = run(saver, data, tmp_path / "records")
        assert again.skipped == record.skipped
        with pytest.raises(DataError) as caught:
            run(saver, data, tmp_path / "records", skip_limit=0.005)
    assert f"3 of {COUNT} images cannot be read ({', '.join(names)}), more than the 0.5 %" in str(
        caught.value
    )
    assert "--skip-limit" in str(caught.value)


def test_the_limit_counts_all_images_however_often_a_run_is_resumed(saver, tmp_path):
    """Some unreadable images in each chunk: never too many in what one run sees."""
    colour_folders(tmp_path / "images", each=EACH)
    files = sorted((tmp_path / "images").rglob("*.png"))
    for place in (5, 6, 130, 131, 260, 261):
        files[place].write_bytes(b"no image")
    with open_data(tmp_path / "images") as data:
        for _ in range(4):
            with pytest.raises(DataError, match="images cannot be read"):
                run(saver, data, tmp_path / "records")
        record, _ = run(saver, data, tmp_path / "records", skip_limit=0.02)
    assert record.skipped == (5, 6, 130, 131, 260, 261)


def test_nan_answers_name_the_image(tmp_path, data):
    (tmp_path / "models").mkdir()
    path = colour_model(tmp_path / "models" / "dark.onnx", Kind(nan_below=0.25))
    model = replace(
        artefact(tmp_path / "models", "saver"),
        name="dark",
        files=(path,),
        sha256=combined_sha256((path,)),
    )
    with pytest.raises(ModelError, match=r"model dark answers NaN or infinity on \w+/\d+\.png"):
        run(model, data, tmp_path)
    assert not (tmp_path / "dark.npz").exists()


def test_what_stands_in_for_an_unreadable_image_may_be_answered_with_nan(tmp_path):
    """A skipped image's place is black; what a model makes of that is of no interest."""
    (tmp_path / "models").mkdir()
    path = colour_model(tmp_path / "models" / "dark.onnx", Kind(nan_below=0.25))
    model = replace(
        artefact(tmp_path / "models", "saver"), files=(path,), sha256=combined_sha256((path,))
    )
    bright = tmp_path / "images" / NAMES[0]
    bright.mkdir(parents=True)
    for index in range(5):
        (bright / f"{index}.png").write_bytes(encoded_bright(index))
    (bright / "3.png").write_bytes(b"no image")
    with open_data(tmp_path / "images") as data:
        record, _ = run(model, data, tmp_path, skip_limit=0.5)
        assert record.skipped == (3,)
        again, heard = run(model, data, tmp_path, skip_limit=0.5)
    assert heard.started == []
    for one in (record, again):
        assert one.outputs.samples == 5
        assert math.isfinite(float(one.outputs.subset([0, 1, 2, 4]).confidences.sum()))


def encoded_bright(seed):
    import cv2

    value = np.full((16, 16, 3), 200 + seed, np.uint8)
    return cv2.imencode(".png", value)[1].tobytes()


def test_any_batch_size_of_the_file_will_do(tmp_path, data):
    from tests.model_zoo import Form, tiny_classifier

    form = Form(batch=3)
    (tmp_path / "models").mkdir()
    path = tiny_classifier(tmp_path / "models" / "three.onnx", form)
    model = replace(
        artefact(tmp_path / "models", "saver"),
        files=(path,),
        sha256=combined_sha256((path,)),
        preprocess=form.preprocess,
        output=form.output,
        labels=None,
        classes=5,
    )
    record, _ = run(model, data, tmp_path)
    free = tiny_classifier(tmp_path / "models" / "free.onnx", Form())
    other = replace(model, name="free", files=(free,), sha256=combined_sha256((free,)))
    expected, _ = run(other, data, tmp_path)
    np.testing.assert_allclose(record.outputs.logits, expected.outputs.logits, atol=1e-4)


def test_pictures_of_many_sizes_go_into_one_record(saver, tmp_path):
    folder = tmp_path / "images" / NAMES[0]
    folder.mkdir(parents=True)
    for size in (4, 16, 40, 200):
        (folder / f"{size:03d}.png").write_bytes(encoded(size, size=size))
    with open_data(tmp_path / "images") as data:
        record, _ = run(saver, data, tmp_path)
    assert record.outputs.samples == 4


def test_of_very_many_answers_the_best_classes_are_kept_and_scores_are_the_same(
    saver, data, tmp_path, monkeypatch
):
    saver = replace(saver, classes=len(NAMES))
    whole, _ = run(saver, data, tmp_path / "whole")
    monkeypatch.setattr(measure_module, "MOST_LOGITS_BYTES", 4 * len(NAMES) * COUNT - 1)
    kept, heard = run(saver, data, tmp_path / "kept")
    assert heard.started == [(COUNT, 0)]
    assert kept.outputs.truncated
    assert kept.outputs.width == 5
    assert kept.key != whole.key
    assert (kept.outputs.predictions == whole.outputs.predictions).all()
    margins = Margin()(whole.outputs)
    assert (Margin()(kept.outputs) == margins).all()
    best = kept.outputs.top(2)[1].astype(np.float64)
    assert (margins != best[:, 0] - best[:, 1]).any()  # float32 does not hold them
    for fusion in (ConditionalLogit(), LinearFusion()):
        for one, other in zip(
            fusion.fuse(kept.outputs, kept.outputs), fusion.fuse(whole.outputs, whole.outputs),
            strict=True,
        ):  # fmt: skip
            assert (one == other).all()
    some = kept.outputs.subset(np.arange(0, COUNT, 7))
    assert (Margin()(some) == margins[::7]).all()


def test_fusing_part_by_part_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    one, other = (Outputs(logits=rng.normal(size=(100, 8)).astype(np.float32)) for _ in range(2))
    wanted = ConditionalLogit().fuse(one, other), LinearFusion().pooled(one, other)
    monkeypatch.setattr(fusion_module, "ROWS", 7)
    found = ConditionalLogit().fuse(one, other), LinearFusion().pooled(one, other)
    assert all((a == b).all() for a, b in zip(wanted[0], found[0], strict=True))
    assert (wanted[1].top_class == found[1].top_class).all()
    assert (wanted[1].top_prob == found[1].top_prob).all()
