"""Draws the picture of the page of questions anew: the demo's models, frames of its camera.

python .ci/screenshot.py [docs/_static/questions.jpg]
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402

from tests.chromium import Chromium  # noqa: E402
from tests.command import start  # noqa: E402
from tests.questions.asking import AskingCommand, truthful  # noqa: E402
from tinysaver_edge.demo.parts import CLASS_NAMES  # noqa: E402
from tinysaver_edge.demo.show import CameraData, demo_model_paths  # noqa: E402

FRAMES, ANSWERED, SEED = 2000, 24, 11
WIDTH, HEIGHT = 1280, 860
READY = "!picture.hidden && picture.naturalWidth && !document.querySelector('.class').disabled"


def main(place: Path) -> None:
    """Collect, measure, ask, answer some, take the picture."""
    camera = CameraData(FRAMES, seed=SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "frames").mkdir()
        truth = {f"{number:04d}.png": one.label for number, one in enumerate(camera.samples)}
        for number, file in enumerate(truth):
            cv2.imwrite(str(folder / "frames" / file), camera.frame(number))
        (folder / "names.txt").write_text("\n".join(CLASS_NAMES))
        *savers, large = demo_model_paths()
        process = start(
            "calibrate", "--data", folder / "frames", "--large", large,
            *(word for saver in savers for word in ("--saver", saver)),
            "--max-drop", "1", "--no-timing", "--out", folder / "bundle",
            "--ask", "--ask-at", "127.0.0.1:0", "--as", "Anna",
        )  # fmt: skip
        try:
            page = AskingCommand(process)
            truthful(page, truth, ANSWERED)
            with Chromium(folder / "profile") as browser:
                browser.open(page.url, width=WIDTH, height=HEIGHT)
                browser.until(READY)
                shot = browser.call("Page.captureScreenshot", format="jpeg", quality=82)
        finally:
            process.kill()
            process.communicate()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(base64.b64decode(shot["data"]))
    print(f"{place}: {place.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs/_static/questions.jpg")
