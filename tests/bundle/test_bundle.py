import gc
import json
import os
import shutil
import socket
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.colours import NAMES
from tests.small_bundle import small_bundle
from tinysaver_edge._support.files import new_beside, sha256_of
from tinysaver_edge.bundle import bundle as bundle_module
from tinysaver_edge.bundle.bundle import (
    MANIFEST,
    Bundle,
    check_target,
    exchange,
    file_entry,
    write_bundle,
)
from tinysaver_edge.bundle.signature import SIGNATURE
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.errors import BundleError, TinySaverError
from tinysaver_edge.testing import numbered_frame


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def folder(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def packed(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def content(folder):
    return json.loads((folder / MANIFEST).read_text())


def rewrite(folder, change):
    manifest = content(folder)
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestLoading:
    @pytest.mark.parametrize("kind", ["folder", "zip"])
    def test_a_whole_bundle(self, folder, tmp_path, kind):
        path = packed(folder, tmp_path / "b.zip") if kind == "zip" else folder
        with Bundle.load(str(path)) as opened:
            assert opened.path == path
            assert opened.has_models
            assert [stage.model.name for stage in opened.manifest.stages] == ["saver", "large"]
            model = opened.manifest.stages[0].model.files[0]
            assert sha256_of(opened.file(model)) == model.sha256
            root = opened.root
        opened.close()
        assert root.exists() == (kind == "folder")

    def test_what_is_loaded_is_what_was_written(self, pristine, tmp_path):
        with Bundle.load(pristine) as opened:
            files = {
                entry.path: opened.file(entry) for entry in bundle_module.files_of(opened.manifest)
            }
            write_bundle(tmp_path / "again", opened.manifest, files)
        assert tree(tmp_path / "again") == tree(pristine)

    def test_a_cascade_runs_from_a_zip_that_is_gone(self, folder, tmp_path):
        path = packed(folder, tmp_path / "b.zip")
        with Cascade.load(path) as cascade:
            path.unlink()
            decision = cascade.decide(numbered_frame(3))
        assert decision.label in NAMES

    def test_an_option_that_there_is_not_is_told(self, folder):
        with pytest.raises(TypeError, match="no such option: thread; there are threads, "):
            Cascade.load(folder, thread=2)

    def test_files_that_the_manifest_does_not_name_are_let_be(self, folder):
        (folder / "notes.txt").write_text("mine")
        with Bundle.load(folder):
            pass


class TestDamage:
    @pytest.mark.parametrize("kind", ["models", "golden"])
    @pytest.mark.parametrize("how", ["flipped", "cut", "longer", "missing", "folder", "swapped"])
    def test_of_a_file_is_noticed(self, folder, kind, how):
        path = next(file for file in sorted((folder / kind).iterdir()))
        data = bytearray(path.read_bytes())
        path.unlink()
        if how == "flipped":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        elif how == "cut":
            path.write_bytes(data[:-1])
        elif how == "longer":
            path.write_bytes(data + b"\0")
        elif how == "folder":
            path.mkdir()
        elif how == "swapped":
            shutil.copyfile(folder / MANIFEST, path)
        with pytest.raises(BundleError, match=f"{kind}/{path.name} is .*copy the bundle again"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "bundle.json is damaged"),
            ("{", "bundle.json is damaged"),
            ("[]", "the whole"),
            ("null", "the whole"),
            ("3", "the whole"),
            ("{}", "Field required"),
            ('{"schema_version": "1"}', "schema_version"),
            ("[" * 100_000, "bundle.json is damaged"),
        ],
    )
    def test_of_the_manifest_is_said(self, folder, text, message):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(BundleError, match=message):
            Bundle.load(folder)

    def test_of_the_manifests_encoding(self, folder):
        (folder / MANIFEST).write_bytes(b'{"a": "\xff\xfe"}')
        with pytest.raises(BundleError, match="damaged"):
            Bundle.load(folder)

    def test_no_bundle_at_all(self, tmp_path):
        with pytest.raises(BundleError, match="no such bundle; make one"):
            Bundle.load(tmp_path / "nowhere")
        with pytest.raises(BundleError, match=r"has no bundle\.json; make one"):
            Bundle.load(tmp_path)
        (tmp_path / "text.txt").write_text("no bundle")
        with pytest.raises(BundleError, match="neither a folder nor a readable"):
            Bundle.load(tmp_path / "text.txt")

    def test_every_cut_of_a_zip_is_one_error_and_leaves_nothing_behind(
        self, folder, tmp_path, monkeypatch
    ):
        unpacked = tmp_path / "unpacked"
        unpacked.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
        path = packed(folder, tmp_path / "b.zip")
        whole = path.read_bytes()
        for length in range(0, len(whole), len(whole) // 25):
            path.write_bytes(whole[:length])
            with pytest.raises(BundleError):
                Bundle.load(path)
        flipped = bytearray(whole)
        flipped[len(whole) // 3] ^= 0xFF
        path.write_bytes(flipped)
        with pytest.raises(BundleError):
            Bundle.load(path)
        assert list(unpacked.iterdir()) == []

    def test_the_first_fault_is_named_with_its_place(self, folder):
        rewrite(folder, lambda m: m["stages"][0].update(threshold="high"))
        with pytest.raises(BundleError, match=r"stages\.0\.threshold"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        "place",
        [
            (),
            ("stages", 0),
            ("stages", 0, "model"),
            ("stages", 0, "model", "files", 0),
            ("stages", 0, "model", "preprocess"),
            ("stages", 0, "model", "preprocess", "resize"),
            ("stages", 0, "model", "preprocess", "format"),
            ("stages", 0, "model", "output"),
            ("calibration",),
            ("golden",),
        ],
        ids=lambda place: ".".join(map(str, place)) or "top",
    )
    def test_extra_keys_are_refused(self, folder, place):
        def add(manifest):
            for step in place:
                manifest = manifest[step]
            manifest["surprise"] = 1

        rewrite(folder, add)
        with pytest.raises(BundleError, match="surprise"):
            Bundle.load(folder)


def leaves(value, place=()):
    """Every place of nested JSON and what lies there."""
    yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            yield from leaves(inner, (*place, index))


JUNK = [None, -1, 0, 1e308, "", "../x", [], [0, 1, 2, 99], {"a": 1}]


@pytest.mark.arithmetic
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, over factors such as 1e308
def test_whatever_stands_in_the_manifest_it_loads_or_is_refused_in_one_line(pristine, tmp_path):
    """One value after the other is replaced by junk; nothing but our own errors may come of it."""
    original = content(pristine)
    folder = Path(shutil.copytree(pristine, tmp_path / "bundle"))
    refused, wrong = [], []
    for place, value in list(leaves(original))[1:]:
        for junk in JUNK:
            if junk == value:
                continue
            (folder / MANIFEST).write_text(json.dumps(replaced(original, place, junk)))
            try:
                with Bundle.load(folder) as opened:
                    if place[0] in ("stages", "labels", "fusion", "golden"):
                        exercise(opened)
            except TinySaverError as error:
                refused.append(str(error))
            except Exception as error:
                wrong.append(f"{place} = {junk!r}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert [message for message in refused if "\n" in message] == []
    assert len(refused) > 300


def replaced(original, place, value):
    """A copy of nested JSON with one value replaced."""
    copy = json.loads(json.dumps(original))
    inner = copy
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return copy


def exercise(opened):
    from tinysaver_edge.verify.run import verify

    with Cascade.from_bundle(opened, threads=1) as cascade:
        for number in (0, 100_000):
            cascade.decide(numbered_frame(number))
    verify(opened)


class TestVersions:
    def test_a_newer_one_is_refused_with_what_is_needed(self, folder):
        def age(manifest):
            manifest.update(schema_version=4, created_by="tinysaver-edge 9.0", novelty={"x": 1})

        rewrite(folder, age)
        with pytest.raises(
            BundleError, match=r"version 4 was written by tinysaver-edge 9\.0.*reads up to 3.*pip"
        ):
            Bundle.load(folder)

    def test_this_one_is_written(self, folder):
        assert content(folder)["schema_version"] == 3


OUTSIDE = ["../secret", "/etc/hostname", "models/../../secret", "..\\secret", "C:/secret", "", "."]


class TestPaths:
    @pytest.mark.parametrize("place", OUTSIDE)
    def test_that_leave_the_folder_are_refused(self, folder, place):
        (folder.parent / "secret").write_text("private")

        def lead_out(manifest):
            manifest["stages"][0]["model"]["files"][0]["path"] = place

        rewrite(folder, lead_out)
        with pytest.raises(BundleError, match="leaves the bundle"):
            Bundle.load(folder)

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_links_that_leave_the_folder_are_refused(self, folder, tmp_path, what):
        inside = folder / "models" / ("saver.onnx" if what == "file" else "")
        outside = tmp_path / "outside"
        inside.rename(outside)
        inside.symlink_to(outside)
        with pytest.raises(BundleError, match="is a link that leaves the bundle"):
            Bundle.load(folder)

    def test_links_within_the_folder_are_none_of_our_business(self, folder):
        file = folder / "models" / "saver.onnx"
        file.rename(folder / "models" / "real.onnx")
        file.symlink_to("real.onnx")
        with Bundle.load(folder):
            pass

    @pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "models/../../evil", "a\\..\\evil"])
    def test_members_of_a_zip_that_leave_it_are_refused_unwritten(self, folder, tmp_path, name):
        path = packed(folder, tmp_path / "b.zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, "evil")
        with pytest.raises(BundleError, match="leaves the bundle"):
            Bundle.load(path)
        assert not list(tmp_path.rglob("evil"))

    def test_links_in_a_zip_are_not_followed(self, folder, tmp_path):
        path = tmp_path / "b.zip"
        link = zipfile.ZipInfo("models/saver.onnx")
        link.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(link, str(folder / "models" / "saver.onnx"))
            for file in sorted(folder.rglob("*")):
                name = file.relative_to(folder).as_posix()
                if file.is_file() and name != link.filename:
                    archive.write(file, name)
        with pytest.raises(BundleError, match=r"saver\.onnx has \d+ bytes, not the"):
            Bundle.load(path)


class TestWriting:
    @pytest.fixture
    def parts(self, pristine):
        with Bundle.load(pristine) as opened:
            files = bundle_module.files_of(opened.manifest)
            return opened.manifest, {entry.path: opened.file(entry) for entry in files}

    @pytest.mark.parametrize("name", ["new", "deep/er/new", "new.zip", "deep/new.zip"])
    def test_makes_a_bundle_and_nothing_else(self, parts, tmp_path, name):
        target = tmp_path / name
        write_bundle(target, *parts)
        with Bundle.load(target):
            pass
        assert [path.name for path in target.parent.iterdir()] == [target.name]
        assert target.stat().st_mode & 0o777 in (0o755, 0o644)

    @pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
    def test_replaces_an_old_one(self, parts, folder, tmp_path, name):
        manifest, files = parts
        target = tmp_path / name
        if name.endswith(".zip"):
            packed(folder, target)
        stale = next((folder / "models").rglob("*.onnx"))
        shutil.copyfile(stale, folder / "models/stale.onnx")
        rewrite(folder, lambda told: told.update(former={"path": "models/stale.onnx"}))
        write_bundle(target, manifest.model_copy(update={"seed": 99}), files)
        with Bundle.load(target) as opened:
            assert opened.manifest.seed == 99
        if target == folder:
            assert not (folder / "models/stale.onnx").exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("name", ["bundle", "bundle.zip", "new", "new.zip"])
    def test_that_fails_leaves_what_was_there(self, parts, folder, tmp_path, name):
        manifest, files = parts
        packed(folder, tmp_path / "bundle.zip")
        before = tree(tmp_path)
        missing = {**files, "models/lost.onnx": tmp_path / "lost.onnx"}
        with pytest.raises(BundleError, match="cannot be written"):
            write_bundle(tmp_path / name, manifest, missing)
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
    def test_that_fails_at_the_last_step_leaves_what_was_there(
        self, parts, folder, tmp_path, name, monkeypatch
    ):
        packed(folder, tmp_path / "bundle.zip")
        before = tree(tmp_path)
        rename = os.rename

        def fail_on_new(source, target, **options):
            if Path(target).name == name and not str(source).endswith(".old"):
                raise OSError(5, "Input/output error")
            rename(source, target, **options)

        # Of Path, not of os: pathlib of Python 3.10 keeps its own reference to what os had.
        monkeypatch.setattr(Path, "rename", fail_on_new)
        monkeypatch.setattr(Path, "replace", fail_on_new)
        monkeypatch.setattr(bundle_module, "exchange", lambda *_: False)
        with pytest.raises(BundleError, match="cannot be written"):
            write_bundle(tmp_path / name, *parts)
        monkeypatch.undo()
        assert tree(tmp_path) == before

    def test_never_leaves_the_target_without_a_bundle(self, parts, folder, monkeypatch):
        """Whatever the step at which the process is killed, one of both bundles is there."""
        other = folder.parent / "other"
        other.mkdir()
        if not exchange(folder, other):
            pytest.skip("this system cannot exchange folders in one step")
        exchange(folder, other)
        seen = []
        for name in ("rename", "replace", "rmdir", "unlink"):
            original = getattr(os, name)

            def watched(*args, _original=original, **options):
                seen.append((folder / MANIFEST).is_file())
                done = _original(*args, **options)
                seen.append((folder / MANIFEST).is_file())
                return done

            monkeypatch.setattr(os, name, watched)
        write_bundle(folder, *parts)
        assert seen
        assert all(seen)

    def test_refuses_to_replace_what_is_no_bundle(self, parts, tmp_path):
        precious = tmp_path / "photos"
        precious.mkdir()
        (precious / "1.jpg").write_bytes(b"mine")
        (tmp_path / "file").write_text("mine")
        (tmp_path / "folder.zip").mkdir()
        for name, message in [
            ("photos", "holds something else"),
            ("file", "a file of this name"),
            ("folder.zip", "a folder of this name"),
        ]:
            for write in (check_target, lambda target: write_bundle(target, *parts)):
                with pytest.raises(BundleError, match=message):
                    write(tmp_path / name)
        assert tree(tmp_path) == {"photos/1.jpg": b"mine", "file": b"mine"}

    @pytest.mark.parametrize("content", ['{"name": "an app"}', "[]"])
    def test_a_bundle_json_of_others_is_none(self, parts, tmp_path, content):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(BundleError, match=r"holds bundle\.json, which is no"):
            write_bundle(tmp_path, *parts)

    @pytest.mark.parametrize(
        "stranger", ["notes.txt", "models/mine.onnx", ".git/HEAD", "frames/1.png"]
    )
    def test_refuses_to_replace_a_bundle_that_holds_something_of_the_users(
        self, parts, folder, stranger
    ):
        (folder / ".DS_Store").write_text("a system's")
        write_bundle(folder, *parts)
        (folder / stranger).parent.mkdir(exist_ok=True)
        (folder / stranger).write_text("mine")
        for write in (check_target, lambda target: write_bundle(target, *parts)):
            with pytest.raises(
                BundleError, match=f"holds {stranger}, which is no file of the bundle"
            ):
                write(folder)

    def test_a_damaged_bundle_is_replaced_and_what_never_was_of_one_is_not(self, parts, folder):
        (folder / MANIFEST).write_text("damaged")
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(BundleError, match=r"holds notes\.txt"):
            write_bundle(folder, *parts)
        (folder / "notes.txt").unlink()
        write_bundle(folder, *parts)
        with Bundle.load(folder):
            pass

    def test_what_a_kill_left_of_signing_is_nobody_elses(self, parts, folder):
        write_bundle(folder, *parts)
        new_beside(folder / SIGNATURE).write_text("half")
        check_target(folder)
        new_beside(folder / "notes.txt").write_text("mine")
        with pytest.raises(BundleError, match=r"holds notes\.txt"):
            check_target(folder)

    @pytest.mark.parametrize("within", ['[{"path": ["a"]}]', "[" * 900 + "]" * 900])
    def test_a_manifest_of_whatever_else_is_looked_through(self, folder, within):
        (folder / MANIFEST).write_text(f'{{"schema_version": 1, "x": {within}}}')
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(BundleError, match=r"holds notes\.txt"):
            check_target(folder)

    def test_refuses_to_replace_a_zip_of_something_else(self, parts, tmp_path):
        """The images that it was to be calibrated on, say."""
        images, empty = tmp_path / "images.zip", tmp_path / "new.zip"
        with zipfile.ZipFile(images, "w") as archive:
            archive.writestr("cat/1.png", b"mine")
        empty.touch()
        with pytest.raises(BundleError, match="that is no bundle; name a new one"):
            write_bundle(images, *parts)
        assert zipfile.ZipFile(images).namelist() == ["cat/1.png"]
        for _ in range(2):
            write_bundle(empty, *parts)

    def test_an_empty_folder_may_be_filled(self, parts, tmp_path):
        (tmp_path / "empty").mkdir()
        write_bundle(tmp_path / "empty", *parts)
        with Bundle.load(tmp_path / "empty"):
            pass

    def test_below_a_file_it_is_one_error(self, parts, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(BundleError, match="cannot be written"):
            write_bundle(tmp_path / "file" / "bundle", *parts)


def test_an_entry_tells_a_files_hash_and_size(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    entry = file_entry(tmp_path / "file", "models/file")
    assert (entry.path, entry.size_bytes) == ("models/file", 3)
    assert entry.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestPacked:
    """What may come as a .zip, and what of it is unpacked."""

    def test_bzip2_is_refused_before_anything_is_unpacked(self, folder, tmp_path):
        path = self.repacked(folder, tmp_path / "b.zip", method=zipfile.ZIP_BZIP2)
        with pytest.raises(
            BundleError, match="packed by bzip2, which is not unpacked here: zip it"
        ):
            Bundle.load(path)

    @pytest.fixture
    def scratch(self, tmp_path, monkeypatch):
        """The folder that bundles are unpacked into."""
        folder = tmp_path / "scratch"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    def repacked(self, folder, path, *, top="", more=(), method=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, top + file.relative_to(folder).as_posix())
            for name, data in more:
                archive.writestr(name, data)
        return path

    def test_the_one_folder_of_a_zip_may_be_the_bundle(self, folder, tmp_path):
        path = self.repacked(folder, tmp_path / "b.zip", top="some bundle/")
        with Bundle.load(path) as opened:
            assert tree(opened.root) == tree(folder)

    def test_of_two_bundles_neither_is_chosen(self, folder, tmp_path):
        path = self.repacked(folder, tmp_path / "b.zip", top="a/", more=[("b/bundle.json", "{}")])
        with pytest.raises(BundleError, match=r"holds 2 bundles \(a/, b/\)"):
            Bundle.load(path)

    def test_a_folder_above_a_bundle_is_told_where_it_lies(self, folder):
        with pytest.raises(BundleError, match=r"lies in .*bundle: name that folder"):
            Bundle.load(folder.parent)

    def test_only_what_is_listed_is_unpacked(self, folder, tmp_path, scratch):
        zeros = bytes(80 << 20)
        path = self.repacked(folder, tmp_path / "b.zip", more=[("models/other.bin", zeros)])
        del zeros
        with Bundle.load(path) as opened:
            assert tree(opened.root) == tree(folder)
        assert list(scratch.iterdir()) == []

    def test_a_listed_bomb_is_not_unpacked(self, folder, tmp_path, scratch):
        with (folder / "models" / "saver.onnx").open("wb") as file:
            file.truncate(80 << 20)

        def corrected(manifest):
            entry = manifest["stages"][0]["model"]["files"][0]
            entry.update(size_bytes=80 << 20, sha256="0" * 64)

        rewrite(folder, corrected)
        path = self.repacked(folder, tmp_path / "b.zip")
        with pytest.raises(BundleError, match="no bundle does"):
            Bundle.load(path)
        assert list(scratch.iterdir()) == []

    def test_what_is_longer_than_listed_is_not_unpacked(self, folder, tmp_path, scratch):
        with (folder / "models" / "saver.onnx").open("ab") as file:
            file.write(bytes(1 << 20))
        path = self.repacked(folder, tmp_path / "b.zip")
        with pytest.raises(BundleError, match=r"saver\.onnx has \d+ bytes, not the \d+"):
            Bundle.load(path)
        assert list(scratch.iterdir()) == []

    def test_no_list_of_members_is_read_without_end(self, folder, tmp_path):
        path = tmp_path / "b.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(80):
                archive.writestr(f"{number:060000}", b"")
        with pytest.raises(BundleError, match="bytes of list of members"):
            Bundle.load(path)

    @pytest.mark.parametrize("cut", [30, 50, 200, 0.5, 0.9])
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_cut_zip_ends_early(self, folder, tmp_path, cut, method):
        path = self.repacked(folder, tmp_path / "b.zip", method=method)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * cut) if cut < 1 else -cut])
        with pytest.raises(BundleError, match=r"ends early or is damaged .*fetch it again"):
            Bundle.load(path)

    def test_an_empty_file_is_called_so(self, tmp_path):
        (tmp_path / "b.zip").touch()
        with pytest.raises(BundleError, match="the file is empty"):
            Bundle.load(tmp_path / "b.zip")

    def test_a_full_disk_is_called_so(self, folder, tiny_disk, tmp_path, monkeypatch):
        path = self.repacked(
            folder, tmp_path / "b.zip", more=[("x", b"")], method=zipfile.ZIP_STORED
        )
        (tiny_disk / "full").write_bytes(bytes(shutil.disk_usage(tiny_disk).free - 4096))
        monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
        with pytest.raises(BundleError, match="free some, or set TMPDIR"):
            Bundle.load(path)
        assert [one.name for one in tiny_disk.iterdir()] == ["full"]

    @pytest.mark.parametrize("place", ["a\0b", "\ud800", "a\nb", "x" * 5000])
    def test_a_path_that_no_file_has_is_refused(self, folder, place):
        rewrite(folder, lambda manifest: manifest["golden"]["frames"][0].update(path=place))
        with pytest.raises(BundleError):
            Bundle.load(folder)

    def test_what_was_unpacked_goes_with_its_bundle(self, folder, tmp_path, scratch):
        path = self.repacked(folder, tmp_path / "b.zip")
        opened = Bundle.load(path)
        assert opened.root.stat().st_mode & 0o077 == 0
        child = os.fork()
        if not child:
            opened.close()  # it is not this process's
            os._exit(0)
        os.waitpid(child, 0)
        assert opened.root.is_dir()
        del opened
        gc.collect()
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["node", "node.zip"])
def test_no_bundle_takes_the_place_of_a_socket(tmp_path, name):
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(tmp_path / name))
        with pytest.raises(BundleError, match="a socket of this name is there"):
            check_target(tmp_path / name)


def test_no_bundle_takes_the_place_of_a_link_to_nothing(tmp_path):
    (tmp_path / "bundle").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(BundleError, match="a link to what is not there: name a new one"):
        check_target(tmp_path / "bundle")


def test_no_bundle_takes_the_place_of_a_link_to_itself(tmp_path):
    (tmp_path / "bundle").symlink_to(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"bundle: .*name a new one"):
        check_target(tmp_path / "bundle")
