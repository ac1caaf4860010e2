"""What people read at the terminal: words explained, the next step told, and none for programs."""

import io
import json
import re
import shutil
from dataclasses import replace

import click
import numpy as np
import pytest
from rich.console import Console

from tests.cli.test_records import on, records  # noqa: F401 - a fixture
from tests.colours import DESCRIPTION, NAMES, SAVER, colour_model
from tests.model_zoo import CLASSES, tiny_classifier
from tests.small_bundle import small_bundle
from tinysaver_edge.calibrate.calibration import Candidate
from tinysaver_edge.cli import cli, terminal
from tinysaver_edge.cli.show import show_candidates
from tinysaver_edge.models.description.description import find_description


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("words") / "bundle")


@pytest.fixture(scope="module")
def certified(records, tmp_path_factory):  # noqa: F811
    """The folder of a certified bundle made from records, and what was said meanwhile."""
    from tests.command import start

    folder = tmp_path_factory.mktemp("certified")
    asked = on(records, "--max-drop", 2, "--compare-methods", "--out", folder / "bundle")
    process = start(*asked, environment={"COLUMNS": "300"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return folder / "bundle", out, err


def next_steps(done):
    return [line for line in done.err.splitlines() if line.startswith("Next: ")]


def test_calibrate_explains_its_tables_and_says_what_comes_next(certified):
    bundle, out, err = certified
    assert "cost: MACs a frame" in err
    assert "accepted: frames that the large model is not asked about" in err
    assert "drop: points of accuracy that the cascade loses" in err
    assert "margin (the probability of its likeliest class minus that of the second)" in out
    assert f"\nNext: tinysaver-edge evaluate {bundle} --records DIR" in err
    assert "Next: " not in out


def test_terminal_and_report_name_their_columns_alike(certified):
    bundle, out, _ = certified
    page = bundle.with_suffix(".report.html").read_text(encoding="utf-8")
    lines = out.splitlines()
    for title, label in (("Candidates", "Candidates"), ("The cascade", "Figures")):
        there = page[page.index(f'aria-label="{label}"') :]
        heads = re.findall(r"<th[^>]*>([^<]+)</th>", there[: there.index("</thead>")])
        here = lines[next(i for i, line in enumerate(lines) if line.startswith(title)) + 1]
        told = [
            one.partition(" (points)")[0] for one in heads if one != "score"
        ]  # where it differs
        assert re.split(r"\s{2,}", here.strip()) == told


def test_programs_get_none_of_it(command, records, bundle):  # noqa: F811
    for asked in (on(records, "--method", "empirical"), ("verify", bundle)):
        err = command(*asked, "--json").err
        assert "Next: " not in err
        assert "cost: MACs" not in err
        assert "drop: points" not in err


def always_sure(records, folder, name, *, wrong):  # noqa: F811
    """Records of other samples, whose saver is always sure, and wrong on a share of them."""
    others(records, folder, ...)
    labels = np.load(folder / "labels.npy")
    logits = np.zeros((len(labels), 10), np.float32)
    slips = np.arange(len(labels)) < wrong * len(labels)
    logits[np.arange(len(labels)), (labels + slips) % 10] = 50.0
    np.savez(folder / f"{name}.npz", logits=logits)
    return folder


def others(records, folder, some):  # noqa: F811
    """As many other samples as are named, on which models answer much the same."""
    shutil.copytree(records, folder)
    for path in folder.glob("*.npz"):
        np.savez(path, logits=np.load(path)["logits"][some] * np.float32(1.001))
    np.save(folder / "labels.npy", np.load(folder / "labels.npy")[some])
    return folder


def test_evaluate_says_what_is_promised_and_whether_it_is_kept(
    command,
    records,  # noqa: F811
    certified,
    tmp_path,
):
    bundle, out, _ = certified
    saver = re.search(r"^(\w+) answers where", out, re.MULTILINE)[1]

    def evaluated(folder):
        return command("evaluate", bundle, "--records", folder, "--labels", folder / "labels.npy")

    done = evaluated(always_sure(records, tmp_path / "right", saver, wrong=0.01))
    assert "certificate: drop ≤ 2 points with probability ≥ 90 %" in done.out
    assert "kept here: the whole interval of the drop lies within the bound\n" in done.out
    assert next_steps(done) == [f"Next: tinysaver-edge verify {bundle}"]
    done = evaluated(always_sure(records, tmp_path / "wrong", saver, wrong=0.3))
    assert "not kept here: the whole interval of the drop lies above the bound" in done.out
    assert "calibrate again on images like these" in next_steps(done)[0]
    assert (
        "cannot tell whether it is kept"
        in evaluated(others(records, tmp_path / "few", np.s_[:50])).out
    )
    done = evaluated(records)
    assert "samples are among those that the bundle was calibrated on" in done.err
    assert "kept here" not in done.out


def test_a_bundle_without_a_certificate_promises_nothing(command, records, tmp_path):  # noqa: F811
    bundle = tmp_path / "bundle"
    assert command(*on(records, "--method", "empirical", "--out", bundle)).code == 0
    done = command("evaluate", bundle, "--records", records, "--labels", records / "labels.npy")
    assert "certificate: none, nothing is promised about other images" in done.out
    assert "kept here" not in done.out
    # Labels, of which the large model gets these right: it is its accuracy all the same.
    right = np.load(records / "big.npz")["logits"].argmax(axis=1) == np.load(records / "labels.npy")
    few = others(records, tmp_path / "few", np.flatnonzero(right)[:20])
    done = command("evaluate", bundle, "--records", few, "--labels", few / "labels.npy")
    assert "large alone" in done.out + done.err
    assert "agree" not in done.out + done.err


def leaves(group, *before):
    """The words of every command that there is."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, *before, name)
        else:
            yield (*before, name)


ELSEWHERE = {
    ("calibrate",): "above",
    ("evaluate",): "above",
    ("measure",): "it takes models and pictures: tests/cli/test_measure.py",
    ("plan",): "it takes a bundle that was timed: tests/cli/test_plan.py",
    ("quickstart",): "it fetches models: tests/models/export/test_quickstart.py",
    ("models", "export"): "it takes torch: tests/models/export",
    ("models", "quantize"): "it takes nncf: tests/models/quantize",
    ("serve",): "it takes kserve, and goes on until it is told to stop: tests/remote",
    ("demo",): "`make demo`",
}


def test_every_command_ends_with_the_next_step(command, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TINYSAVER_KEY_PASSWORD", "")
    colour_model(tmp_path / "tiny.onnx", SAVER)
    (tmp_path / "tiny.toml").write_text(DESCRIPTION)
    (tmp_path / "names.txt").write_text("\n".join(f"part {name}" for name in NAMES))
    golden = bundle / "golden"
    report = tmp_path / "bench.json"
    named = small_bundle(tmp_path / "named", golden=False)
    manifest = json.loads((named / "bundle.json").read_text())
    (named / "bundle.json").write_text(json.dumps({**manifest, "labels": None}))
    table = [
        (("models", "list", "--max-gmacs", "0.1", "--pareto"), "models export "),
        (("models", "profile", tmp_path / "tiny.onnx"), f"bench {tmp_path / 'tiny.onnx'}"),
        (("devices", "list"), "devices show NAME"),
        (("devices", "show", "raspberry-pi-5"), "calibrate … --device raspberry-pi-5"),
        (("devices", "probe"), "devices show "),
        (("devices", "new", "my-box"), "devices show my-box"),
        (("doctor",), "tinysaver-edge "),
        (("compare", bundle), f"evaluate {bundle} --data images/"),
        (("bundle", "labels", named, tmp_path / "names.txt"), f"verify {named}"),
        (("bundle", "key", tmp_path / "key.pem"), f"sign BUNDLE --key {tmp_path / 'key.pem'}"),
        (
            ("bundle", "sign", named, "--key", tmp_path / "key.pem"),
            f"verify {named} --trusted KEYS",
        ),
        (
            ("bundle", "push", bundle, f"{tmp_path / 'shelf'}:stable"),
            f"pull {tmp_path / 'shelf'}:stable bundle/",
        ),
        (
            ("bundle", "pull", f"{tmp_path / 'shelf'}:stable", tmp_path / "pulled"),
            f"verify {tmp_path / 'pulled'}",
        ),
        (
            ("collect", "--from", golden, "--frames", "2", "--out", tmp_path / "frames"),
            f"calibrate --data {tmp_path / 'frames'}",
        ),
        (("verify", bundle), f"run {bundle} --source 0"),
        (("run", bundle, "--source", golden), f"run {bundle} --source 0 for a camera"),
        (
            ("bench", bundle, "--seconds", "0.01", "--runs", "1", "--out", report),
            f"calibrate with --bench {report}",
        ),
        (("models", "describe", tmp_path / "tiny.onnx"), "keep it with --out "),
        (("models", "check", tmp_path / "tiny.onnx"), f"--saver {tmp_path / 'tiny.onnx'}"),
        (
            ("deploy", bundle, "--target", "device", "--out", tmp_path / "device"),
            "run device --source 0 --large grpcs://HOST:8001/MODEL",
        ),
    ]
    for asked, step in table:
        done = command(*asked)
        assert done.code == 0 or asked == ("doctor",), done.err  # a machine may well be broken
        (told,) = next_steps(done)
        assert step in told, asked
        assert done.err.splitlines()[-1] == told
    tried = {tuple(map(str, asked)) for asked, _ in table}
    for words in leaves(cli):
        assert words in ELSEWHERE or any(one[: len(words)] == words for one in tried), words


def test_a_stream_that_others_read_or_that_was_told_to_be_quiet_says_none(command, bundle):
    for flag in ("--json", "--quiet", "--log-json"):
        done = command("run", bundle, "--source", bundle / "golden", flag)
        assert done.code == 0
        assert "Next: " not in done.err


def test_a_number_without_bounds_shows_none(command):
    told = command("calibrate", "--help").out
    assert "--max-drop" in told
    assert "None" not in told


def test_describe_names_class_names_from_where_the_user_stands(command, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    model = tiny_classifier(tmp_path / "models" / "tiny.onnx")
    (tmp_path / "names.txt").write_text("\n".join("abcde"))
    monkeypatch.chdir(tmp_path)
    answers = ("--color", "RGB", "--scale", "unit", "--out", "models/tiny.toml")
    done = command("models", "describe", "models/tiny.onnx", "--labels", "lost.txt", *answers)
    assert done.code == 2
    assert "--labels lost.txt: no such file, here, beside models/tiny.onnx" in done.err
    command("models", "describe", "models/tiny.onnx", "--labels", "names.txt", *answers)
    assert find_description(model).class_labels(CLASSES) == tuple("abcde")


def test_candidates_are_readable_at_eighty_columns(monkeypatch, capsys):
    row = Candidate(
        "efficientnet_lite0_int8",
        0.0992,
        accuracy_saver=0.8719,
        threshold=0.41,
        accept_rate=0.701,
        drop_points=-0.37,
        cost_macs_ratio=0.398,
        drop_interval_points=(-0.91, 0.63),
        accept_interval=(0.689, 0.712),
        cost_interval=(0.383, 0.412),
        accuracy_interval=(0.86, 0.88),
        chosen=True,
        why="chosen: the cheapest",
    )
    shown = io.StringIO()
    narrow = Console(file=shown, width=80, highlight=False)
    monkeypatch.setattr(terminal, "console", lambda **_: narrow)
    for one in (row, replace(row, mean_latency_ms=14.2, latency_spread_ms=(13.9, 15.2))):
        show_candidates([one, Candidate("crashed", 0.4, why="crashed")], samples=900)
        text = shown.getvalue()
        shown.seek(0)
        shown.truncate(0)
        assert max(map(len, text.splitlines())) <= 80
        for figure in ("0.383 to 0.412", "-0.91 to +0.63", "68.9 to 71.2", "gains 0.37 pt"):
            assert figure in text
    said = capsys.readouterr().out
    assert "efficientnet_lite0_int8 (threshold 0.4100): chosen: the cheapest" in said
