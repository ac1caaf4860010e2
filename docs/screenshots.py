"""Draws the pictures of the pages anew: a report, the page of questions, the dashboard.

python docs/screenshots.py [FOLDER]: the demo's models and frames of its camera, in a headless
Chromium (on Debian: apt-get install chromium). Without a folder, into docs/_static.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402

from tests.chromium import Chromium  # noqa: E402
from tests.command import start  # noqa: E402
from tests.questions.asking import AskingCommand, truthful  # noqa: E402
from tinysaver_edge.demo.parts import CLASS_NAMES  # noqa: E402
from tinysaver_edge.demo.show import CameraData, calibrate_demo, demo_model_paths  # noqa: E402

FRAMES, ANSWERED, SEED = 2000, 24, 11
WIDTH, HEIGHT = 1280, 860
ASKS = "!picture.hidden && picture.naturalWidth && !document.querySelector('.class').disabled"
WATCHED_S = 20.0
MOST_BYTES = 150_000


def main(folder: Path) -> None:
    """Draw all three."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, Chromium(Path(name) / "profile") as browser:
        work = Path(name)
        calibrate_demo(work / "bundle", seed=0)
        browser.open((work / "bundle.report.html").as_uri(), width=WIDTH, height=HEIGHT)
        picture(browser, folder / "report.webp")
        questions(browser, work, folder / "questions.webp")
        dashboard(browser, work / "bundle", folder / "dashboard.webp")


def picture(browser: Chromium, place: Path) -> None:
    """Save what the window shows, small enough for a repository."""
    shot = browser.call("Page.captureScreenshot", format="webp", quality=80)
    place.write_bytes(base64.b64decode(shot["data"]))
    if place.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{place}: {place.stat().st_size} bytes, more than {MOST_BYTES}")
    print(f"{place}: {place.stat().st_size >> 10} KiB")


def questions(browser: Chromium, work: Path, place: Path) -> None:
    """Collect, measure, ask, answer some."""
    camera = CameraData(FRAMES, seed=SEED)
    (work / "frames").mkdir()
    truth = {f"{number:04d}.png": one.label for number, one in enumerate(camera.samples)}
    for number, file in enumerate(truth):
        cv2.imwrite(str(work / "frames" / file), camera.frame(number))
    (work / "names.txt").write_text("\n".join(CLASS_NAMES))
    *savers, large = demo_model_paths()
    process = start(
        "calibrate", "--data", work / "frames", "--large", large,
        *(word for saver in savers for word in ("--saver", saver)),
        "--max-drop", "1", "--no-timing", "--out", work / "asked",
        "--ask", "--ask-at", "127.0.0.1:0", "--as", "Anna",
    )  # fmt: skip
    try:
        page = AskingCommand(process)
        truthful(page, truth, ANSWERED)
        browser.open(page.url, width=WIDTH, height=HEIGHT)
        browser.until(ASKS)
        picture(browser, place)
    finally:
        process.kill()
        process.communicate()


def dashboard(browser: Chromium, bundle: Path, place: Path) -> None:
    """Watch two simulated cameras for a while."""
    process = start(
        "run", bundle, "--source", "line-1=demo://?fps=10&seed=1",
        "--source", "line-2=demo://?fps=10&seed=2", "--quiet", "--dashboard", "127.0.0.1:0",
    )  # fmt: skip
    try:
        assert process.stderr is not None
        url = next(line.split()[1] for line in process.stderr if line.startswith("dashboard: http"))
        browser.open(url, width=WIDTH, height=HEIGHT)
        time.sleep(WATCHED_S)
        picture(browser, place)
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs/_static")
