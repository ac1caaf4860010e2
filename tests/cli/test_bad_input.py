"""Bad input to the real command: one clear line, exit code 2, nothing lost, no traceback."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.cli.test_images import asked, work  # noqa: F401 - a fixture
from tests.cli.test_records import on, records  # noqa: F401 - a fixture
from tests.colours import DESCRIPTION, LARGE, NAMES, SAVER, Kind, colour_folders, colour_model
from tests.command import PROGRAM, ROOT, spawned
from tests.pictures import encoded
from tests.small_bundle import small_bundle


def refused(done, *parts):
    """Check that there is one line, with all of these in it, and that the exit code is 2."""
    assert done.code == 2, done.err
    for part in parts:
        assert part in done.complaint
    return done.complaint


class TestCalibrateOnImages:
    """Each case spoils one thing of a calibration that would work; see `asked`."""

    @pytest.fixture
    def failing(self, command, work, tmp_path):  # noqa: F811
        def run(*more, **spoilt):
            limits = ("--work-dir", work / "shared", "--out", tmp_path / "bundle")
            done = command(*asked(work, *limits, *more, **{"savers": ("tiny",), **spoilt}))
            assert not (tmp_path / "bundle").exists()
            return done

        return run

    @pytest.fixture
    def spoilt(self, tmp_path):
        """Makes another kind of saver and says where, as `savers` wants it."""

        def make(kind):
            colour_model(tmp_path / "tiny.onnx", kind)
            return (tmp_path / "tiny",)

        return make

    def test_missing_data(self, failing, tmp_path):
        refused(failing(data=tmp_path / "none.zip"), "none.zip: no such file or folder")

    @pytest.mark.parametrize(
        ("more", "parts"),
        [
            (["--score", "margn"], ["no score is called 'margn': did you mean margin? There are"]),
            (["--fusion", "linea"], ["no fusion is called 'linea': did you mean linear? There"]),
            (["--score", "all", "--method", "tinysaver"], ["--method tinysaver goes with one"]),
            (["--budget", "p95_latency_ms=5"], ["--no-timing leaves nothing to hold a limit"]),
            (["--budget", "memory_mb=50"], ["--no-timing leaves nothing to hold a limit"]),
            (["--objective", "latency"], ["--no-timing leaves nothing to hold a limit"]),
            (["--budget", "p95_latency=5"], ["did you mean p95_latency_ms?"]),
            (["--bench", "none.json"], ["none.json"]),
        ],
    )
    def test_what_needs_no_image_is_refused_before_one_is_looked_at(
        self, failing, tmp_path, more, parts
    ):
        """The pictures and the models are none: whoever looked at one would say so."""
        for name in ("big", "tiny"):
            (tmp_path / f"{name}.onnx").write_bytes(b"no model")
        (tmp_path / "test.zip").write_bytes(b"no pictures")
        spoilt = {} if "--bench" in more else {"data": tmp_path / "test.zip"}
        refused(failing(*more, **spoilt), *parts)

    def test_missing_model(self, failing, tmp_path):
        missing = f"model {tmp_path / 'tiny'}.onnx: no such file"
        refused(failing(savers=(tmp_path / "tiny",)), missing)
        refused(failing(large=tmp_path / "tiny"), missing)

    def test_missing_description(self, failing, tmp_path):
        done = failing(descriptions=tmp_path)
        refused(done, "has no description", "tinysaver-edge models describe")

    @pytest.mark.parametrize("label", ["turquoise", "blue2"])
    def test_wrong_labels(self, failing, tmp_path, label):
        colour_folders(tmp_path / "data", each=2)
        (tmp_path / "data" / "coral").rename(tmp_path / "data" / label)
        names = ", ".join(f'"{name}"' for name in NAMES)
        (tmp_path / "descriptions").mkdir()
        for name in ("big", "tiny"):
            text = f"labels = [{names}]\n{DESCRIPTION}"
            (tmp_path / "descriptions" / f"{name}.toml").write_text(text)
        done = failing(data=tmp_path / "data", descriptions=tmp_path / "descriptions")
        refused(done, f"label '{label}' (1 such) is none of the model's 6 labels")

    def test_too_many_labels(self, failing, tmp_path):
        colour_folders(tmp_path / "data", each=1)
        (tmp_path / "data" / "zinc").mkdir()
        (tmp_path / "data" / "zinc" / "1.png").write_bytes(encoded(1))
        done = failing(data=tmp_path / "data")
        refused(done, "7 classes (amber, blue, coral, …), but the model has 6")

    def test_labels_out_of_range(self, failing, tmp_path):
        (tmp_path / "1.png").write_bytes(encoded(1))
        (tmp_path / "list.csv").write_text("file,label\n1.png,6\n")
        refused(failing(data=tmp_path / "list.csv"), "label 6, but the model has 6 classes")

    def test_no_images(self, failing, tmp_path):
        (tmp_path / "empty").mkdir()
        refused(failing(data=tmp_path / "empty"), "no images; expected one folder a class")
        with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
            pass
        refused(failing(data=tmp_path / "empty.zip"), "no images")

    def test_a_table_without_labels(self, failing, tmp_path):
        (tmp_path / "list.csv").write_text("file\n1.png\n")
        refused(failing(data=tmp_path / "list.csv"), "line 2: no label")

    def test_a_damaged_archive(self, failing, work, tmp_path):  # noqa: F811
        data = (work / "test.zip").read_bytes()
        (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
        done = failing(data=tmp_path / "cut.zip")
        refused(done, f"data {tmp_path / 'cut.zip'}: not a readable .zip")

    def test_too_many_unreadable_images(self, failing, tmp_path):
        colour_folders(tmp_path / "data", each=4)
        (tmp_path / "data" / "blue" / "0001.png").write_bytes(b"no image")
        done = failing(data=tmp_path / "data")
        assert done.code == 2
        assert "1 of 24 images cannot be read (blue/0001.png)" in done.err.splitlines()[-1]

    @pytest.mark.parametrize("kept", [0, 10, 200, -1])
    def test_truncated_model(self, failing, work, tmp_path, kept):  # noqa: F811
        for name in ("big", "tiny"):
            path = tmp_path / f"{name}.onnx"
            path.write_bytes((work / path.name).read_bytes()[:kept])
        refused(failing(large=tmp_path / "big"), str(tmp_path / "big.onnx"))
        refused(failing(savers=(tmp_path / "tiny",)), str(tmp_path / "tiny.onnx"))

    @pytest.mark.parametrize(
        "content",
        [b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x08" * 40],
        ids=["a web page", "a Git LFS pointer", "noise"],
    )
    def test_no_model_at_all(self, failing, tmp_path, content):
        (tmp_path / "tiny.onnx").write_bytes(content)
        refused(failing(savers=(tmp_path / "tiny",)), f"model {tmp_path / 'tiny.onnx'}")

    def test_model_of_another_size(self, failing, spoilt, tmp_path):
        done = failing(savers=spoilt(Kind(size=32)))
        refused(
            done,
            f"model {tmp_path / 'tiny.onnx'}: its description makes float32 (n, 3, 16, 16)",
            "the file takes float32 (n, 3, 32, 32)",
        )
        refused(
            failing("--no-embed", savers=spoilt(Kind(size=32))),
            f"model {tmp_path / 'tiny.onnx'}: its description makes float32 (n, 3, 16, 16)",
        )

    def test_nan_on_every_image(self, failing, spoilt):
        done = failing(savers=spoilt(Kind(nan_below=0.25)))
        refused(done, "model tiny answered NaN or infinity on a black frame")

    def test_nan_on_some_images(self, failing, spoilt):
        """Bright pictures only: found while measuring, with the image's name."""
        done = failing(savers=spoilt(Kind(nan_above=0.5)))
        assert done.code == 2
        assert re.search(
            r"\ntinysaver-edge: model tiny answers NaN or infinity on test/\w+/\d+\.png", done.err
        )

    def test_mismatched_class_counts(self, failing, spoilt):
        done = failing(savers=spoilt(Kind(classes=5)))
        refused(done, "model tiny has 5 classes, the large model big 6")

    def test_a_saver_dearer_than_the_large_model(self, failing, spoilt):
        done = failing(savers=spoilt(Kind(layers=20)))
        refused(done, "saver tiny takes", "the large model big", "must be the cheaper one")

    def test_the_same_model_twice(self, failing):
        refused(failing(savers=("tiny", "tiny")), "tiny")
        refused(failing(savers=("big",)), "big")

    def test_an_engine_that_there_is_none_of(self, failing):
        refused(failing("--engine", "abacus"), "no engine 'abacus'", "onnxruntime")

    def test_an_incomplete_description(self, failing, tmp_path):
        for name in ("big", "tiny"):
            (tmp_path / f"{name}.toml").write_text(DESCRIPTION.replace('"unit"', '"?"'))
        refused(failing(descriptions=tmp_path), "big.toml", "input.scale")
        (tmp_path / "big.toml").write_text("input = 3\n[")
        refused(failing(descriptions=tmp_path), "big.toml", "no valid TOML")

    @pytest.mark.parametrize(
        ("more", "part"),
        [
            (("--max-drop", "-1"), "--max-drop -1.0"),
            (("--max-drop", "nan"), "'--max-drop': nan is no number"),
            (("--max-drop", "0,5"), "'0,5' is no number: digits with a decimal point"),
            (("--max-drop", "0.5%"), "no unit, as 0.5"),
            (("--confidence", "90"), "as 0.9 for 90 %"),
            (("--holdout", "1"), "--holdout 1.0"),
            (("--seed", "-1"), "--seed -1"),
            (("--budget", "speed=9"), "budget 'speed' is unknown"),
            (("--budget", "mean_macs=fast"), "expected NAME=NUMBER"),
            (("--skip-limit", "2"), "--skip-limit 2.0"),
            (("--skip-limit", "-1"), "--skip-limit -1.0"),
            (("--time-budget", "-3"), "--time-budget -3"),
            (("--confidence", "1"), "--confidence 1.0"),
            (("--group-column", "clip"), "a group column needs a .csv, .jsonl or Parquet table"),
            (("--method", "guess"), "'guess' is not one of"),
            (("--nonsense",), "--nonsense"),
            (("--seed", "x"), "'x' is not a valid integer"),
            (("--records", "r"), "--data and --records exclude each other"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_options_that_make_no_sense(self, failing, more, part):
        refused(failing(*more), part)


class TestTargets:
    """Where the bundle is to go: what is there already is never lost."""

    def test_a_folder_of_something_else(self, command, work, tmp_path):  # noqa: F811
        precious = tmp_path / "photos"
        precious.mkdir()
        (precious / "1.jpg").write_bytes(b"mine")
        refused(command(*asked(work, "--out", precious)), "holds something else")
        assert [path.read_bytes() for path in precious.iterdir()] == [b"mine"]
        assert not (tmp_path / "photos.records").exists()

    @pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
    def test_a_video_that_is_read_is_not_written_over(self, command, tmp_path, link):
        small_bundle(tmp_path / "bundle")
        film, out = tmp_path / "film.mp4", tmp_path / "out.mp4"
        film.write_bytes(b"mine")
        if link is not None:
            getattr(out, link)(film)
        words = ("--source", film, "--video", film if link is None else out)
        refused(command("run", tmp_path / "bundle", *words), "would be lost: name another file")
        assert film.read_bytes() == b"mine"

    def test_a_page_beside_the_bundle(self, command, work, tmp_path):  # noqa: F811
        page = tmp_path / "b.report.html"
        page.write_text("<!doctype html><title>mine: a report</title>")
        refused(
            command(*asked(work, "--out", tmp_path / "b")), "this command did not write; move it"
        )
        assert "mine" in page.read_text()
        assert list(tmp_path.iterdir()) == [page]

    def test_a_folder_of_records_to_which_nothing_came(self, command, work, tmp_path):  # noqa: F811
        away = command(*asked(work, "--out", tmp_path / "b", "--on", "ray://127.0.0.1:1"))
        assert away.code == 2
        assert not list(tmp_path.iterdir())

    def test_a_video_for_each_source_is_written_over_none_of_them(self, command, tmp_path):
        small_bundle(tmp_path / "bundle")
        for name in "ab":
            (tmp_path / f"film.{name}.mp4").write_bytes(b"mine")
        words = [f"--source={name}={tmp_path}/film.{name}.mp4" for name in "ab"]
        done = command("run", tmp_path / "bundle", *words, "--video", tmp_path / "film.mp4")
        refused(done, "film.a.mp4, which source a reads and would be lost: name another file")
        assert (tmp_path / "film.a.mp4").read_bytes() == b"mine"

    def test_one_place_for_two_outputs(self, command, tmp_path):
        small_bundle(tmp_path / "bundle")
        words = ("run", tmp_path / "bundle", "--source", "demo://?frames=1")
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "there")
        for one, other, names in [
            ("--jsonl", "--video", ("a.avi", "a.avi")),
            ("--hard-frames", "--field-frames", ("there", "link")),
            ("--forward-queue", "--forward", ("there", "./there")),
        ]:
            places = (f"{one}={tmp_path}/{names[0]}", f"{other}={tmp_path}/{names[1]}")
            refused(command(*words, *places), f"{one} and {other}: both name")

    def test_among_the_images(self, command, work, tmp_path):  # noqa: F811
        colour_folders(tmp_path / "data", each=1)
        data, out = tmp_path / "data", tmp_path / "data" / "bundle"
        refused(command(*asked(work, "--out", out, data=data)), "lies in --data", "outside")
        assert not out.exists()

    def test_below_a_file(self, command, work, tmp_path):  # noqa: F811
        (tmp_path / "file").write_text("mine")
        done = command(*asked(work, "--out", tmp_path / "file" / "bundle"))
        refused(done, str(tmp_path / "file"))
        assert (tmp_path / "file").read_text() == "mine"

    def test_where_nobody_may_write(self, command, work):  # noqa: F811
        refused(command(*asked(work, "--out", "/proc/bundle")), "/proc")

    def test_an_old_bundle_survives_a_failure(self, command, work, tmp_path):  # noqa: F811
        bundle = small_bundle(tmp_path / "bundle")
        before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        colour_model(tmp_path / "tiny.onnx", Kind(classes=5))
        savers = (tmp_path / "tiny",)
        done = command(*asked(work, "--work-dir", work / "shared", "--out", bundle, savers=savers))
        refused(done, "tiny has 5 classes")
        assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before


class TestCalibrateOnRecords:
    @pytest.fixture
    def folder(self, records, tmp_path):  # noqa: F811
        for path in records.iterdir():
            shutil.copy(path, tmp_path)
        return tmp_path

    def test_missing_files(self, command, folder):
        for name, part in [
            ("tiny.npz", "tiny.npz: no such file; records there: big, mid"),
            ("labels.npy", "labels.npy: cannot be read (No such file"),
            ("models.csv", "models.csv: not readable"),
        ]:
            content = (folder / name).read_bytes()
            (folder / name).unlink()
            savers = ("tiny",) if name == "tiny.npz" else ("all",)
            refused(command(*on(folder, savers=savers)), part)
            (folder / name).write_bytes(content)
        refused(command(*on(folder / "nowhere")), "nowhere")

    def test_a_damaged_record(self, command, folder):
        data = (folder / "tiny.npz").read_bytes()
        (folder / "tiny.npz").write_bytes(data[: len(data) // 2])
        refused(command(*on(folder)), "tiny.npz: damaged or not an .npz file")

    def test_labels_of_other_classes(self, command, folder):
        labels = np.load(folder / "labels.npy")
        np.save(folder / "labels.npy", labels + 1)  # counted from 1
        refused(command(*on(folder)), "label 10 of sample", "has 10 classes")
        np.save(folder / "labels.npy", labels[:-1])
        refused(command(*on(folder)), "holds 4000 samples, the labels 3999")
        np.save(folder / "labels.npy", labels + 0.5)
        refused(command(*on(folder)), "expected whole numbers")

    def test_nan(self, command, folder):
        logits = np.load(folder / "tiny.npz")["logits"]
        logits[7, 3] = np.nan
        np.savez(folder / "tiny.npz", logits=logits)
        refused(command(*on(folder)), "tiny.npz: logits of sample 7 hold NaN")

    def test_mismatched_class_counts(self, command, folder):
        np.savez(folder / "tiny.npz", logits=np.load(folder / "tiny.npz")["logits"][:, :9])
        refused(command(*on(folder)), "tiny has 9 classes, the large model big 10")

    def test_a_saver_dearer_than_the_large_model(self, command, folder):
        done = command(*on(folder, large="mid", savers=("big",)))
        refused(done, "saver big takes 2e+09 MACs", "mid 6e+08", "must be the cheaper one")
        refused(command(*on(folder, large="tiny")), "fewer MACs than tiny")

    def test_models_that_make_no_longer_cascade(self, command, folder):
        both = ("tiny", "mid")
        refused(command(*on(folder, savers=(*both, "tiny"))), "tiny is named twice")
        for number in ("1", "5", "many"):
            refused(command(*on(folder, savers=both), "--max-stages", number), "--max-stages")
        text = 'records="."\nlabels="labels.npy"\nmacs="models.csv"\nlarge="big"\nsavers=["all"]\n'
        (folder / "r.toml").write_text(f"{text}[targets]\nmax_stages = 9\n")
        refused(command("calibrate", folder / "r.toml"), "9")
        refused(
            command(*on(folder, large="mid", savers=("tiny", "big"))), "must be the cheaper one"
        )
        logits = np.load(folder / "mid.npz")["logits"]
        np.savez(folder / "mid.npz", logits=logits[:, :9])
        refused(command(*on(folder, savers=both)), "mid has 9 classes, the large model big 10")
        np.savez(folder / "mid.npz", logits=logits[:-1])
        refused(command(*on(folder, savers=both)), "record mid holds 3999 samples, the labels 4000")

    def test_what_is_not_named(self, command, folder):
        refused(command("calibrate", "--records", folder), "records need --macs and --large")
        wanted = "nothing to calibrate on: name --data, --epochs, --records or a recipe"
        refused(command("calibrate"), wanted)
        refused(command("calibrate", "--data", folder), "name its file with --large")
        done = command("calibrate", "--data", folder, "--large", "big.onnx")
        refused(done, "no saver to try", "--saver")
        refused(command("calibrate", "none-such"), "recipe 'none-such'", "cifar10")
        refused(command("calibrate", folder / "none.toml"), "none.toml: no such file")
        refused(command("calibrate", "cifar10", "--root", folder / "none"), "no such folder")

    def test_a_recipe_with_a_slip(self, command, folder):
        for text, part in [
            ("savrs = []", "savrs"),
            ("large = 3", "large"),
            ("large = ", "recipe"),
            ("[targets]\nmax_drop = 'much'", "targets.max_drop"),
            ("[targets.budgets]\nspeed = 3", "speed"),
        ]:
            (folder / "r.toml").write_text(text)
            refused(command("calibrate", folder / "r.toml"), part)
        (folder / "r.toml").write_text('data="d"\nlarge="a"\nsavers=["b"]\n[models.a]\nname="a"\n')
        refused(command("calibrate", folder / "r.toml"), "its data d does not lie beside", "--root")
        (folder / "d").mkdir()
        refused(command("calibrate", folder / "r.toml"), "models.a names no file")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bad") / "bundle")


class TestBundles:
    @pytest.fixture
    def bundle(self, pristine, tmp_path):
        return shutil.copytree(pristine, tmp_path / "bundle")

    COMMANDS = (
        ("verify",),
        ("run", "--source", "demo://?frames=1"),
        ("evaluate", "--data", "{}"),
    )

    @staticmethod
    def use(command, words, bundle):
        name, *rest = words
        return command(name, bundle, *(word.format(bundle) for word in rest))

    @pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
    def test_damaged(self, command, bundle, words):
        model = bundle / "models" / "saver.onnx"
        content = model.read_bytes()
        model.write_bytes(content[:-1])
        refused(self.use(command, words, bundle), "saver.onnx is not what was calibrated")
        model.unlink()
        refused(self.use(command, words, bundle), "saver.onnx is missing")
        model.write_bytes(content)
        manifest = (bundle / "bundle.json").read_text()
        (bundle / "bundle.json").write_text(manifest[: len(manifest) // 2])
        refused(self.use(command, words, bundle), "bundle.json is damaged")
        (bundle / "bundle.json").unlink()
        refused(self.use(command, words, bundle), "has no bundle.json")
        refused(self.use(command, words, bundle / "none"), "no such bundle")

    @pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
    @pytest.mark.parametrize("place", ["../secret.onnx", "/etc/passwd"])
    def test_path_outside(self, command, bundle, words, place):
        shutil.copy(bundle / "models" / "saver.onnx", bundle.parent / "secret.onnx")
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["stages"][0]["model"]["files"][0]["path"] = place
        (bundle / "bundle.json").write_text(json.dumps(manifest))
        refused(self.use(command, words, bundle), f"path '{place}' leaves the bundle")

    def test_newer(self, command, bundle):
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["schema_version"] = 99
        (bundle / "bundle.json").write_text(json.dumps(manifest))
        refused(command("verify", bundle), "schema version 99", "upgrade with", "pip install ")

    def test_sources_that_cannot_be_run(self, command, bundle, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "clip.mp4").write_bytes(b"no video")
        (tmp_path / "1.png").write_bytes(b"no image")
        for name, part in [
            ("none.mp4", "no such file or folder"),
            ("empty", "no images in this folder"),
            ("clip.mp4", "no video but text"),
            ("1.png", "not a readable image"),
        ]:
            done = command("run", bundle, "--source", tmp_path / name, "--json")
            assert done.code == 2
            assert done.json["exit_code"] == 2
            assert part in done.json["error"]
            assert part in done.err.splitlines()[-1]

    def test_what_evaluate_needs(self, command, bundle):
        part = "give either --data, or --epochs, or --records together with --labels"
        refused(command("evaluate", bundle), part)
        refused(command("evaluate", bundle, "--records", bundle), part)
        refused(command("evaluate", bundle, "--data", bundle, "--labels", bundle), part)
        refused(command("evaluate", bundle, "--data", bundle / "none"), "no such file or folder")

    def test_what_the_system_refuses(self, command, bundle, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        refused(command("verify", tmp_path / "loop" / "bundle"), str(tmp_path / "loop"))
        refused(command("run", bundle, "--source", tmp_path / ("x" * 300)), "too long")

    def test_unknown_commands(self, command):
        refused(command("calibate"), "No such command 'calibate'")
        refused(command("verify"), "Missing argument 'BUNDLE'")


class TestNames:
    """Names of files that are no UTF-8 text: OpenCV ends the process over them."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
        return folder

    def test_of_a_current_folder_that_is_gone(self, command, folder, monkeypatch, tmp_path):
        monkeypatch.chdir(folder)
        folder.rmdir()
        refused(command("bundle", "pull", f"{tmp_path}:x", "b"), "the current folder is gone")

    def test_of_bundles(self, command, folder):
        small_bundle(folder / "bundle")
        done = command("verify", folder / "bundle")  # whose name heads a table
        assert (done.code, done.err.count("no UTF-8 text")) == (2, 1)
        assert command("compare", folder / "bundle", "--json").code == 0

    @pytest.mark.parametrize("words", [("--source", "{}/a.mp4"), ("--video", "{}/b.mp4")])
    def test_of_videos(self, command, folder, tmp_path, words):
        small_bundle(tmp_path / "bundle")
        (folder / "a.mp4").write_bytes(b"no matter what")
        words = [word.format(folder) for word in words]
        source = () if words[0] == "--source" else ("--source", "demo://?frames=1")
        refused(command("run", tmp_path / "bundle", *words, *source), "no UTF-8 text", "rename it")


class TestSlips:
    """A newcomer's: what was meant is near, and the message says so."""

    def test_of_commands(self, command):
        refused(command("verfy", "b"), "Did you mean 'verify'?")
        refused(command("models", "quantise", "m.onnx"), "Did you mean 'quantize'?")

    def test_of_model_files(self, command, work, tmp_path):  # noqa: F811
        done = command("models", "describe", work / "big.onx")
        refused(done, "big.onx: no such file; did you mean", "big.onnx?")
        refused(command("models", "describe", work), "a folder: name the model's file in it")
        lost = tmp_path / "none" / "big.onnx"
        refused(command("models", "describe", lost), f"there is no folder {lost.parent}")
        refused(command("bench", tmp_path / "none.onnx"), "none.onnx: no such file")

    def test_of_bundles(self, command, pristine):
        source = ("--source", pristine / "golden")
        done = command("run", pristine / "bundle.json", *source)
        refused(done, f"name the folder that it lies in, {pristine}")
        done = command("run", pristine / "golden", *source)
        refused(done, f"has no bundle.json, but {pristine} has: name that folder")

    def test_of_sources_and_recipes(self, command, pristine, tmp_path):
        done = command("run", pristine, "--source", "rstp://10.0.0.1/1")
        refused(done, "source rstp", "did you mean rtsp?")
        refused(command("calibrate", "cifar"), "did you mean cifar10?")
        refused(command("calibrate", tmp_path), "images are named with --data")

    def test_of_tables(self, command, records, tmp_path):  # noqa: F811
        wrong = records / "labels.npy"
        done = command(*on(records), "--macs", wrong)
        refused(done, "no text; expected CSV with columns name, macs")

    def test_of_paths_of_windows(self, command):
        done = command("run", "C:\\Users\\me\\bundle", "--source", "0")
        refused(done, "no such bundle", "a path of Windows means nothing here")

    def test_names_that_do_not_fit_are_told_before_anything_is_measured(
        self,
        command,
        pristine,
        tmp_path,
    ):
        manifest = json.loads((pristine / "bundle.json").read_text())
        assert manifest["labels"]
        (tmp_path / "data" / "no such class").mkdir(parents=True)
        (tmp_path / "data" / "no such class" / "1.png").write_bytes(encoded(1))
        done = command("evaluate", pristine, "--data", tmp_path / "data")
        refused(done, "label 'no such class'")


@pytest.mark.parametrize(
    "words", [(), ("calibrate",), ("evaluate",), ("run",), ("verify",)], ids=lambda w: " ".join(w)
)
def test_help_shows_an_example(command, words):
    done = command(*words, "--help")
    assert done.code == 0
    assert "tinysaver-edge " in done.out.partition("\n")[2]
    assert done.err == ""


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        (
            "run",
            [
                "Sources",
                "Escalation",
                "What holds still",
                "The large model's hosts",
                "What is written",
                "Drift",
                "Metrics and page",
                "The bundle",
            ],
        ),
        (
            "calibrate",
            [
                "Images and models",
                "Records, in place of images",
                "What is asked",
                "How it is measured",
                "What is written",
            ],
        ),
    ],
)
def test_help_comes_in_groups(command, name, headings):
    """Every option of the command stands in one of them, and only what all commands have, last."""
    lines = command(name, "--help").out.splitlines()
    found = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert found == [*headings, "Other options"]
    last = lines[lines.index("Other options:") + 1 :]
    assert {line.split()[0] for line in last} <= {"-h,", "--json"}


def test_in_a_process_of_its_own_it_is_one_line_as_well(work, tmp_path):  # noqa: F811
    colour_model(tmp_path / "tiny.onnx", SAVER)
    colour_model(tmp_path / "big.onnx", LARGE)
    (tmp_path / "descriptions").mkdir()
    for name in ("tiny", "big"):
        (tmp_path / "descriptions" / f"{name}.toml").write_text(DESCRIPTION)
    (tmp_path / "tiny.onnx").write_bytes((tmp_path / "tiny.onnx").read_bytes()[:300])
    shutil.copy(work / "test.zip", tmp_path)
    done = spawned(*asked(tmp_path, "--out", tmp_path / "b", savers=("tiny",)))
    refused(done, f"model {tmp_path / 'tiny.onnx'}")


@pytest.mark.parametrize("words", ["devices list --json", "--help", "models list"])
def test_an_answer_that_a_closed_stdout_keeps_is_no_success(words, tmp_path):
    shell = f'"$0" -c "{PROGRAM}" {words} >&-'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "tinysaver-edge: stdout is closed: Bad file descriptor"


class TestServe:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--max-request-mb", "nan"], "'--max-request-mb': nan is"),
            (["--max-request-mb", "inf"], "'--max-request-mb': inf is"),
            (["--max-request-mb", "4096"], "'--max-request-mb': 4096.0 is not in the range"),
            (["--drain-s", "nan"], "'--drain-s': nan is"),
            (["--drain-s", "1e6"], "'--drain-s': 1000000.0 is not in the range"),
            (["--name", "a/b"], "--name 'a/b': a model's name on a host"),
            (["--name", ""], "--name '': a model's name on a host"),
        ],
    )
    def test_options_out_of_range(self, command, tmp_path, options, complaint):
        bundle = small_bundle(tmp_path / "bundle")
        done = command("serve", bundle, *options)
        assert done.code == 2
        assert complaint in done.complaint
