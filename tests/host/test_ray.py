"""The Ray Serve application that `deploy` writes, run on one node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.colours import NAMES, colour_picture
from tests.remote.device_bundle import jpeg_bundle
from tests.remote.hosts import remote
from tests.remote.triton import ROOT, free_ports, site_packages
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.codec import Jpeg
from tinysaver_edge.errors import EngineError
from tinysaver_edge.host.deploy import Target, deploy

VENV = Path(os.environ.get("TINYSAVER_RAY_VENV", ROOT / ".venv-ray"))
STARTS_WITHIN_S = 150.0  # on a busy machine it takes its time


def _absent() -> bool:
    site = site_packages(VENV)
    return site is None or not (site / "ray/serve").is_dir()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_absent(), reason=f"no Ray in {VENV.name}: make .venv-ray/.installed"),
]


@pytest.mark.parametrize(
    "make", [small_bundle, lambda path: jpeg_bundle(path, Jpeg(20))], ids=["pixels", "jpeg"]
)
def test_decisions_are_those_of_the_model_in_process(tmp_path, make) -> None:
    bundle = make(tmp_path / "bundle")
    with Bundle.load(bundle) as opened:
        deploy(opened, Target.RAY, tmp_path / "ray")
    grpc_port, http_port = free_ports(2)
    settings = tmp_path / "ray/serve.yaml"
    text = settings.read_text().replace("port: 9000", f"port: {grpc_port}")
    settings.write_text(text.replace("port: 8000", f"port: {http_port}"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "ray"),
        "PATH": f"{VENV}/bin:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    with (tmp_path / "ray.log").open("ab") as log:
        process = subprocess.Popen(
            [VENV / "bin/serve", "run", "serve.yaml"],
            cwd=tmp_path / "ray", stdout=log, stderr=log, start_new_session=True,
            env=environment,
        )  # fmt: skip
    try:
        large = remote(f"grpc://127.0.0.1:{grpc_port}/large", timeout_s=10.0)
        due_s = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                there = Cascade.load(bundle, large=large)
                break
            except EngineError as error:
                if time.monotonic() > due_s or process.poll() is not None:
                    log_end = (tmp_path / "ray.log").read_text()[-2000:]
                    raise AssertionError(f"{error}\n{log_end}") from None
                time.sleep(0.5)
        frames = [colour_picture(number % len(NAMES), number) for number in range(40)]
        with there, Cascade.load(bundle) as here:
            answers = [there.decide(frame) for frame in frames]
            expected = [here.decide(frame) for frame in frames]
            engine = there.stages[-1].engine
            assert engine.doubt is None
        assert [(one.index, one.source, one.degraded) for one in answers] == [
            (one.index, one.source, one.degraded) for one in expected
        ]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
