"""Ask an engine what it lists, and try it on a device, each in a process of its own.

ONNX Runtime lists what it was compiled with, not what works: a provider may lack its libraries, its
driver, or the kernels for this very GPU, and a driver that does not fit may take the whole process
down. Only a run tells.

    python -m tinysaver_edge.hardware.trial openvino
    python -m tinysaver_edge.hardware.trial onnxruntime CUDAExecutionProvider
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tinysaver_edge._support.packages import import_engine, python_command

MODEL = Path(__file__).with_name("trial.onnx")
"""A convolution, a pooling and a matrix product; `tests/hardware/trial_model.py` builds it."""

SIZE = 16
"""Height and width of the model's picture."""

TIMEOUT_S = 120.0
"""TensorRT takes tens of seconds to build even a small engine on a small board."""

LISTING_TIMEOUT_S = 60.0
"""Importing an engine from a slow card takes several seconds."""

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a trial.

    Attributes:
        works: whether the model ran there and answered rightly.
        detail: what the engine calls itself, or why it does not work, in one line.
    """

    engine: str
    device: str
    works: bool
    detail: str


def try_engine(engine: str, device: str, *, timeout_s: float = TIMEOUT_S) -> Trial:
    """Run the tiny model with an engine on a device, in a process of its own."""
    command = python_command(f"from {__name__} import main; main()", engine, device)
    result = run_apart(command, timeout_s=timeout_s)
    if result.answer is None:
        return Trial(engine, device, False, result.why or "it said nothing")
    answer = json.loads(result.answer)
    works, detail = bool(answer["works"]), str(answer["detail"])
    if not works and (cause := _cause(result.said)) is not None and cause not in detail:
        detail = f"{cause} ({detail})"
    return Trial(engine, device, works, detail)


def _cause(said: str) -> str | None:
    """Return why a library did not load, which ONNX Runtime tells to its log alone."""
    patterns = (r"with error: (.+)", r"([^\s:]+\.so[.\d]*: cannot open shared object file.*)")
    for pattern in patterns:
        if match := re.search(pattern, said):
            return shorter(match[1])
    return None


@dataclass(frozen=True, slots=True)
class Apart:
    """What a process of its own came to.

    Attributes:
        answer: the last line that it printed, or None where it ended badly.
        why: how it ended, where it ended badly.
        said: everything it wrote to stderr.
    """

    answer: str | None
    why: str | None
    said: str


def run_apart(command: list[str], *, timeout_s: float) -> Apart:
    """Run a Python program that sees the modules that this one sees; never raises."""
    paths = [str(_PACKAGE_ROOT), *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Apart(None, f"no answer within {timeout_s:g} s", "")
    except OSError as error:
        return Apart(None, f"could not be started: {error}", "")
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return Apart(lines[-1], None, done.stderr)
    return Apart(None, _ending(done.returncode, done.stderr), done.stderr)


def _ending(code: int, said: str) -> str:
    """Say how a process ended: by a signal's name, or by the last line that it wrote."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its process was ended by {name}"
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"its process ended with code {code}"


def run_here(engine: str, device: str) -> Trial:
    """Run the tiny model with an engine on a device, in this process."""
    import numpy as np

    from tinysaver_edge.engines.base import EngineOptions
    from tinysaver_edge.engines.registry import create_engine
    from tinysaver_edge.errors import TinySaverError
    from tinysaver_edge.output_format import OutputFormat
    from tinysaver_edge.preprocess import InputFormat, Layout, Preprocess, Resize

    preprocess = Preprocess(Resize(SIZE, SIZE), InputFormat(Layout.NCHW, "float32"))
    try:
        with create_engine(
            engine,
            MODEL,
            preprocess=preprocess,
            output=OutputFormat(),
            options=EngineOptions(device=device),
        ) as opened:
            answer = opened.infer(np.ones(preprocess.shape(1), np.float32))
            # A mean of ones through ones, less what the zero padding takes at the border.
            inner = ((SIZE - 2) ** 2 + 4 * (SIZE - 2) * 2 / 3 + 4 * 4 / 9) / SIZE**2
            if not np.allclose(answer, inner, atol=1e-2):
                return Trial(engine, device, False, f"it answers {answer[0]}, not {inner:.3f}")
            return Trial(engine, device, True, f"runs as {opened.device}")
    except TinySaverError as error:
        return Trial(engine, device, False, shorter(str(error)))


def shorter(message: str) -> str:
    """Return a message in one line, without this package's own file and what is too long."""
    message = " ".join(message.replace(str(MODEL), MODEL.name).split())
    message = re.sub(r"^model trial\.onnx: ", "", message)
    return message if len(message) <= 300 else f"{message[:299]}…"


@dataclass(frozen=True, slots=True)
class Listed:
    """A device as an engine lists it."""

    device: str
    title: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """An engine's package and the devices that it lists, be they of use or not.

    Attributes:
        version: of the package, or None where it cannot be imported.
        why: why it cannot be imported, or None.
    """

    engine: str
    version: str | None
    devices: tuple[Listed, ...] = field(default_factory=tuple)
    why: str | None = None


def take_inventory(engine: str) -> Inventory:
    """Ask ``onnxruntime`` or ``openvino`` what it lists."""
    command = python_command(f"from {__name__} import main; main()", engine)
    result = run_apart(command, timeout_s=LISTING_TIMEOUT_S)
    if result.answer is None:
        return Inventory(engine, None, why=result.why)
    found = json.loads(result.answer)
    devices = tuple(
        Listed(one["device"], one["title"], tuple(one["capabilities"])) for one in found["devices"]
    )
    return Inventory(engine, found["version"], devices)


def _onnxruntime() -> tuple[str, list[Listed]]:
    onnxruntime = import_engine("onnxruntime")

    return onnxruntime.__version__, [
        Listed(provider) for provider in onnxruntime.get_available_providers()
    ]


def _openvino() -> tuple[str, list[Listed]]:
    openvino = import_engine("openvino")

    core = openvino.Core()
    devices = [
        Listed(
            device,
            str(core.get_property(device, "FULL_DEVICE_NAME")).strip(),
            tuple(sorted(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES")))),
        )
        for device in core.available_devices
    ]
    return openvino.__version__, devices


def main() -> None:
    """Print as JSON what an engine lists, or what came of its trial on a device."""
    if len(sys.argv) == 2:
        version, devices = {"onnxruntime": _onnxruntime, "openvino": _openvino}[sys.argv[1]]()
        print(json.dumps({"version": version, "devices": [asdict(one) for one in devices]}))
        return
    trial = run_here(sys.argv[1], sys.argv[2])
    print(json.dumps({"works": trial.works, "detail": trial.detail}))


if __name__ == "__main__":
    main()
