"""Bundles, repositories and cascades for tests against real hosts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.engines.remote.model import Address
from tinysaver_edge.host.deploy import write_triton
from tinysaver_edge.host.served import served_by

DELAY = """
        import time
        begun_s = time.monotonic()
        while True:
            with open({path!r}) as file:
                left_s = begun_s + float(file.read()) - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(left_s, 0.02))
"""


class Repository:
    """What Triton serves of a bundle, with a delay that a test may set while it runs.

    A request that is being delayed heeds a new delay at once.
    """

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle
        folder.mkdir(parents=True, exist_ok=True)
        with Bundle.load(bundle) as opened:
            self.served = served_by(opened, name="large")
            write_triton(self.served, folder, python_backend=True)
        self.path = folder / "model_repository"
        self._delay = folder / "delay_s"
        self.delay(0)
        model = self.path / "large/1/model.py"
        marker = "        batches, errors = [], []\n"
        text = model.read_text()
        assert marker in text
        model.write_text(text.replace(marker, DELAY.format(path=str(self._delay)) + marker))

    def delay(self, seconds: float) -> None:
        new = self._delay.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._delay)

    def edit(self, name: str, before: str, after: str) -> None:
        """Change one of the model's files."""
        path = self.path / "large" / name
        text = path.read_text()
        assert before in text, text
        path.write_text(text.replace(before, after))

    def copy(self, folder: Path) -> Path:
        """Return a copy of what is served, for another host."""
        return Path(shutil.copytree(self.path, folder))


def repository(folder: Path, *, names: tuple[str, ...] = ("saver", "large")) -> Repository:
    return Repository(folder / "served", small_bundle(folder / "bundle", names=names))


def remote(url: str | list[str], **limits) -> RemoteModel:
    urls = [url] if isinstance(url, str) else url
    return RemoteModel(tuple(map(Address.parse, urls)), **limits)
