"""The command `verify`: each promise that a device can break, refused with its own reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.command import Command
from tests.small_bundle import small_bundle
from tests.test_verify import change_answers, rewrite
from tinysaver_edge.engines.base import Precision


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("verify") / "bundle")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def refusal(command: Command, bundle: Path, *, code: int = 2) -> str:
    """The one line with which a bundle is refused, after the table of what was compared."""
    done = command("verify", bundle)
    assert done.code == code, done.err
    last = done.err.splitlines()[-1]
    return last.removeprefix(f"tinysaver-edge: bundle {bundle}: ")


def test_a_bundle_that_keeps_its_promises(command: Command, bundle: Path) -> None:
    done = command("verify", bundle, "--json")
    assert done.code == 0, done.err
    assert done.json["passed"] is True
    assert "DIFFERS" not in (done.out + done.err)


def test_a_difference_is_an_error_in_json_too(command: Command, bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["calibration"]["cost_macs_ratio"] = 0.01
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    done = command("verify", bundle, "--json")
    assert done.code == done.json["exit_code"] == 2
    assert done.json["passed"] is False
    said = done.err.splitlines()[-1].removeprefix("tinysaver-edge: ")
    assert done.json["error"] == said
    assert "figures: those of the calibration say a cost of 0.01" in said


def has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize(
    ("made_in", "run_in"),
    [
        (Precision.BFLOAT16, Precision.FLOAT32),
        (Precision.FLOAT32, Precision.BFLOAT16),
    ],
)
def test_another_precision(
    command: Command, tmp_path: Path, made_in: Precision, run_in: Precision
) -> None:
    """Calibrated in one precision with OpenVINO, and run in another: really run in both."""
    folder = small_bundle(tmp_path / "bundle", engine="openvino", precision=made_in)
    assert command("verify", folder).code == 0
    rewrite(folder, lambda manifest: manifest["stages"][0]["model"].update(precision=run_in.value))
    assert refusal(command, folder) == (
        f"engine of saver: was calibrated in {made_in.value}, would run in {run_in.value} here: "
        f"its threshold does not hold for that; calibrate in {run_in.value}"
    )


def test_a_precision_that_cannot_be_had_here(command: Command, bundle: Path) -> None:
    """ONNX Runtime's processor provider has no bfloat16, as an older processor has none."""
    rewrite(bundle, lambda manifest: manifest["stages"][1]["model"].update(precision="bfloat16"))
    said = refusal(command, bundle)
    assert said.startswith(
        "engine of large: was calibrated with onnxruntime on CPU in bfloat16, which cannot be had "
        "here: CPUExecutionProvider computes in float32"
    )


def test_a_swapped_resize(command: Command, bundle: Path) -> None:
    def swap(manifest: dict) -> None:
        resize = manifest["stages"][0]["model"]["preprocess"]["resize"]
        resize.update(policy="center_crop", crop_ratio=0.5)

    rewrite(bundle, swap)
    said = refusal(command, bundle)
    assert said.startswith("preprocessing of saver: pixels differ by up to")
    assert said.endswith("another resize")


def test_another_image_decoder(command: Command, bundle: Path, tmp_path: Path) -> None:
    """Calibrated where pictures come out of FFmpeg's decoder, verified where OpenCV's is."""
    video = cv2.VideoCapture(str(bundle / "golden" / "decoder.jpg"), cv2.CAP_FFMPEG)
    good, pixels = video.read()
    assert good
    change_answers(bundle, lambda tables: tables.update(decoded=pixels))
    said = refusal(command, bundle)
    assert said.startswith("image decoder: pixels of a JPEG differ by up to")
    assert said.endswith("another decoder")


def test_another_label_order(command: Command, bundle: Path) -> None:
    def swap(manifest: dict) -> None:
        labels = manifest["labels"]
        labels[1], labels[4] = labels[4], labels[1]

    rewrite(bundle, swap)
    assert refusal(command, bundle) == (
        "class names: 2 of 6 are in another place: class 1 was 'blue', here it is 'green'"
    )


def test_outputs_in_another_order(command: Command, bundle: Path) -> None:
    def swap(manifest: dict) -> None:
        manifest["stages"][0]["model"]["output"]["class_order"] = [0, 4, 2, 3, 1, 5]

    rewrite(bundle, swap)
    said = refusal(command, bundle)
    assert said.startswith("answers of saver: probabilities differ by up to")
    assert said.endswith("only in their order: its classes come in another one")


def test_too_slow_is_another_exit_code(command: Command, bundle: Path) -> None:
    promise = {"escalation_rate": 0.2, "mean_latency_ms": 1e-6, "p99_latency_ms": 1e6}
    rewrite(bundle, lambda manifest: manifest.update(latency=promise))
    said = refusal(command, bundle, code=3)
    assert said.startswith("latency: mean_latency_ms ")
    assert "over by" in said
    assert "p99_latency_ms" in said
    assert said.endswith("(20.0 % of frames escalated)")


def test_a_changed_pixel_of_a_golden_frame_is_a_changed_file(
    command: Command, bundle: Path
) -> None:
    path = bundle / "golden" / "00.png"
    frame = cv2.imread(str(path))
    assert frame is not None
    cv2.imwrite(str(path), np.ascontiguousarray(frame[:, ::-1]))
    assert "00.png is not what was calibrated" in command("verify", bundle).complaint
