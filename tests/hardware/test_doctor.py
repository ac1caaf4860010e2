"""The doctor: each ailment found on a system that has it, and none on one that has not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.hardware import systems
from tinysaver_edge.errors import install_command
from tinysaver_edge.hardware.doctor import Standing, examine
from tinysaver_edge.hardware.doctor.engines import (
    NO_GPU,
    device_checks,
    engine_checks,
    import_module,
    opencv_check,
    remedy,
)
from tinysaver_edge.hardware.doctor.system import (
    accelerator_checks,
    cache_check,
    camera_check,
    driver_check,
    owner_checks,
    python_check,
    throttling_check,
    version_checks,
)
from tinysaver_edge.hardware.engines import EngineDevice, Engines
from tinysaver_edge.hardware.nvidia import read_jetson
from tinysaver_edge.hardware.trial import Apart, Inventory, Listed, Trial

ROOT = Path(__file__).resolve().parents[2]

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


def engines_of(*, version: str | None = "1.31", why: str | None = None, **devices: str) -> Engines:
    """ONNX Runtime with devices that work ("") or do not, for the reason given."""
    return Engines(
        (
            Inventory("onnxruntime", version, tuple(map(Listed, devices)), why),
            Inventory("openvino", None, why="not installed: pip install …"),
        ),
        tuple(
            EngineDevice(
                "onnxruntime", Listed(name), Trial("onnxruntime", name, not reason, reason)
            )
            for name, reason in devices.items()
        ),
        (),
    )


def distribution(folder: Path, name: str, *files: str, version: str = "1.0") -> None:
    """Install a distribution by hand: its files, its metadata and its record."""
    record = [f"{file},," for file in files]
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("\n".join(record) + "\n")


def owners(folder: Path, *, has_nvidia: bool = True) -> dict[str, tuple[Standing, str, str]]:
    checks = owner_checks([str(folder)], has_nvidia=has_nvidia)
    return {one.name: (one.state, one.detail, one.mend) for one in checks}


def test_two_distributions_of_one_module_are_broken(tmp_path: Path) -> None:
    distribution(tmp_path, "onnxruntime", "onnxruntime/__init__.py")
    distribution(tmp_path, "onnxruntime-gpu", "onnxruntime/__init__.py")
    distribution(tmp_path, "opencv-python", "cv2/__init__.py")
    distribution(tmp_path, "opencv-python-headless", "cv2/__init__.py")
    found = owners(tmp_path)
    state, detail, mend = found["module onnxruntime"]
    assert state is Standing.BROKEN
    assert detail == "written by onnxruntime and onnxruntime-gpu, one over the other"
    assert mend == ("pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu")
    assert found["module cv2"][2].endswith("pip install opencv-python")
    assert owners(tmp_path, has_nvidia=False)["module onnxruntime"][2].endswith(
        "pip install onnxruntime"
    )


def test_one_distribution_a_module_is_well(tmp_path: Path) -> None:
    distribution(tmp_path, "onnxruntime", "onnxruntime/__init__.py", "onnxruntime/capi/x.so")
    distribution(tmp_path, "onnxruntime-extensions", "onnxruntime_extensions/__init__.py")
    found = owners(tmp_path)
    assert found["module onnxruntime"] == (Standing.OK, "brought by onnxruntime", "")
    assert found["module cv2"][0] is Standing.NOTE


def test_a_module_that_hides_the_systems_is_noted(tmp_path: Path) -> None:
    distribution(tmp_path / "venv", "opencv-python", "cv2/__init__.py")
    systems.write(tmp_path, {"system/cv2.cpython-310-aarch64-linux-gnu.so": ""})
    check = owner_checks([str(tmp_path / "venv"), str(tmp_path / "system")])[1]
    assert (check.name, check.state) == ("module cv2", Standing.NOTE)
    assert "hides" in check.detail
    alone = owner_checks([str(tmp_path / "system")])[1]
    assert (alone.state, alone.detail) == (
        Standing.OK,
        f"is in {tmp_path / 'system'}, not from pip",
    )


@pytest.mark.parametrize(
    ("version", "bits", "state"),
    [
        ((3, 9, 18), 64, Standing.BROKEN),
        ((3, 10, 0), 64, Standing.OK),
        ((3, 13, 1), 64, Standing.OK),
        ((3, 11, 2), 32, Standing.BROKEN),
    ],
)
def test_python(version: tuple[int, int, int], bits: int, state: Standing) -> None:
    assert python_check(version, bits=bits).state is state


def test_this_python_is_well() -> None:
    assert python_check().state is Standing.OK
    assert "64 bits" in python_check().detail


def test_a_package_that_is_too_old_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "some-project", version="2.0")
    info = tmp_path / "some_project-2.0.dist-info" / "METADATA"
    info.write_text(
        info.read_text() + "Requires-Dist: old-engine>=1.19; extra == 'cpu'\n"
        "Requires-Dist: new-engine>=2024.4; extra == 'cpu'\n"
        "Requires-Dist: never-installed>=1.0; extra == 'cpu'\n"
    )
    distribution(tmp_path, "old-engine", version="1.9.3")
    distribution(tmp_path, "new-engine", version="2024.10.0rc1")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = version_checks("some-project")
    assert (check.name, check.state) == ("version of old-engine", Standing.BROKEN)
    assert check.mend == "pip install --upgrade 'old-engine>=1.19'"
    assert version_checks("no-such-project")[0].state is Standing.NOTE


@pytest.mark.parametrize(
    ("said", "mends"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file: No such file", "libgl1"),
        ("ImportError: libgthread-2.0.so.0: cannot open shared object file", "libglib2.0-0"),
        ("ImportError: libgomp.so.1: cannot open shared object file", "libgomp1"),
        ("libcublasLt.so.13: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
        ("libcudnn.so.9: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
        ("libcudnn_adv.so.9: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
        ("libnvinfer.so.10: cannot open shared object file", "tensorrt"),
        ("/lib/libc.so.6: version `GLIBC_2.34' not found (required by x.so)", "newer system"),
        ("A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0.1", "'numpy<2'"),
        ("its process was ended by SIGILL", "instruction"),
        ("Failed to initialize NVML: Driver/library version mismatch", "start the machine anew"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime", "update NVIDIA"),
        ("cudaErrorNoKernelImageForDevice: no kernel image is available", "this very GPU"),
        ("CUDA failure 100: no CUDA-capable device is detected", "pip install onnxruntime"),
        ("libquaint.so.3: cannot open shared object file", "apt-file search libquaint.so.3"),
    ],
)
def test_what_a_loader_says_has_a_remedy(said: str, mends: str) -> None:
    assert mends in (remedy(said) or "")


def test_what_is_not_known_has_no_remedy() -> None:
    assert remedy("something else went wrong") is None


def test_opencv_without_its_library() -> None:
    said = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    check = opencv_check(installed=True, importing=lambda _: Apart(None, said, said))
    assert check.state is Standing.BROKEN
    assert "sudo apt install libgl1" in check.mend
    assert "opencv-python-headless" in check.mend
    assert opencv_check(installed=False).mend == "pip install opencv-python"
    assert opencv_check().state is Standing.OK


def test_a_python_that_opencv_has_no_wheels_for() -> None:
    """Another wheel of it would load no better, so none is proposed."""
    for installed in (False, True):
        check = opencv_check(
            installed=installed,
            importing=lambda _: Apart(None, "No module named 'cv2.cv2'", ""),
            free_threaded=True,
        )
        assert check.state is Standing.BROKEN
        assert check.detail.endswith("free-threaded, and OpenCV has no wheels for it")
        assert "pip" not in check.mend
    assert opencv_check(free_threaded=True).state is Standing.OK


def test_a_folder_that_an_uninstall_left_is_no_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_over" / "__pycache__").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    check = opencv_check(installed=True, importing=lambda _: import_module("left_over"))
    assert check.state is Standing.BROKEN
    assert check.detail.endswith(f"only an empty folder is left: {tmp_path / 'left_over'}")
    assert check.mend == "pip install --force-reinstall opencv-python"


def test_a_provider_that_cannot_load_is_broken() -> None:
    engines = engines_of(**{CUDA: "libcudnn.so.9: cannot open shared object file", CPU: ""})
    cuda, cpu = device_checks(engines)
    assert (cuda.state, cpu.state) == (Standing.BROKEN, Standing.OK)
    assert cuda.mend == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert "libcudnn.so.9" in cuda.detail


def test_a_gpu_build_without_a_gpu_is_better_replaced() -> None:
    engines = engines_of(**{TENSORRT: "libcublas.so.13: …", CUDA: "libcublas.so.13: …", CPU: ""})
    checks = device_checks(engines, has_nvidia=False)
    assert [one.mend for one in checks] == [NO_GPU, NO_GPU, ""]


def test_tensorrt_is_missed_only_where_cuda_fails_too() -> None:
    missing = "libnvinfer.so.10: cannot open shared object file"
    beside = device_checks(engines_of(**{TENSORRT: missing, CUDA: "", CPU: ""}))
    assert [one.state for one in beside] == [Standing.NOTE, Standing.OK, Standing.OK]
    alone = device_checks(engines_of(**{TENSORRT: missing, CUDA: missing, CPU: ""}))
    assert [one.state for one in alone] == [Standing.BROKEN, Standing.BROKEN, Standing.OK]


def test_a_processor_build_on_a_jetson_is_noted(tmp_path: Path) -> None:
    jetson = read_jetson(systems.jetson_orin_nano(tmp_path))
    (_cpu, noted) = device_checks(engines_of(**{CPU: ""}), jetson=jetson)
    assert noted.state is Standing.NOTE
    assert "pypi.jetson-ai-lab.io" in noted.mend
    assert len(device_checks(engines_of(**{CUDA: "", CPU: ""}), jetson=jetson)) == 2


def test_engines() -> None:
    assert [one.state for one in engine_checks(engines_of(**{CPU: ""}))] == [
        Standing.OK,
        Standing.NOTE,
    ]
    crashed = engine_checks(engines_of(version=None, why="its process was ended by SIGILL"))
    assert [one.state for one in crashed] == [Standing.BROKEN, Standing.NOTE, Standing.BROKEN]
    assert "older version" in crashed[0].mend
    assert crashed[2].mend == install_command("cpu")


def test_a_driver_that_was_updated_under_the_kernel(tmp_path: Path) -> None:
    check = driver_check(systems.gpu_server(tmp_path / "a"))
    assert (check.state, check.mend) == (Standing.BROKEN, "sudo reboot")
    assert "570.124.06" in check.detail
    assert "570.133.20" in check.detail
    assert (
        driver_check(systems.gpu_server(tmp_path / "b", libraries="570.124.06")).state
        is Standing.OK
    )
    assert driver_check(systems.intel_n100(tmp_path / "c")).state is Standing.OK


def test_devices_that_may_not_be_opened(tmp_path: Path) -> None:
    root = systems.intel_n100(tmp_path)
    systems.write(root, {"dev/video0": "", "dev/video1": "", "dev/accel/accel0": ""})
    shut = camera_check(root, access=lambda path: path.name != "video1")
    assert shut.state is Standing.BROKEN
    assert shut.detail == "this user may not open /dev/video1"
    assert "sudo usermod -aG " in shut.mend
    assert camera_check(root, access=lambda _: True).state is Standing.OK
    states = [one.state for one in accelerator_checks(root, access=lambda _: False)]
    assert states == [Standing.BROKEN, Standing.BROKEN]
    (root / "dev/video0").unlink()
    (root / "dev/video1").unlink()
    assert camera_check(root, access=lambda _: False).state is Standing.OK


@pytest.mark.skipif(os.getuid() == 0, reason="root may open everything")
def test_a_camera_whose_mode_shuts_this_user_out(tmp_path: Path) -> None:
    systems.write(tmp_path, {"dev/video0": ""})
    (tmp_path / "dev/video0").chmod(0)
    assert camera_check(tmp_path).state is Standing.BROKEN


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check = cache_check()
    assert check.state is Standing.BROKEN
    assert "XDG_CACHE_HOME" in check.mend
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "folder"))
    assert cache_check().state is Standing.OK


def test_throttling(tmp_path: Path) -> None:
    weak = throttling_check(systems.raspberry_pi_5(tmp_path / "pi"))
    assert (weak.state, weak.mend) == (Standing.NOTE, "a better supply or cable")
    hot = throttling_check(systems.intel_n100(tmp_path / "n100"))
    assert (hot.state, hot.mend) == (Standing.NOTE, "a heat sink or a fan")
    assert throttling_check(tmp_path).state is Standing.OK


def test_this_installation_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    diagnosis = examine(engines=engines_of(**{CPU: ""}))
    assert diagnosis.healthy, diagnosis.broken
    assert json.loads(json.dumps(diagnosis.to_dict())) == diagnosis.to_dict()
    sick = examine(engines=engines_of(**{CPU: "no"}))
    assert not sick.healthy
    assert {one.name for one in sick.broken} == {f"onnxruntime, {CPU}", "engines"}


def test_every_breakage_names_a_command(tmp_path: Path) -> None:
    root = systems.gpu_server(tmp_path)
    systems.write(root, {"dev/video0": "", "dev/accel/accel0": "", "dev/dri/renderD128": ""})
    engines = engines_of(version=None, why="ImportError: x", **{CUDA: "odd", CPU: "odd"})
    diagnosis = examine(root, engines=engines, access=lambda _: False)
    assert len(diagnosis.broken) >= 7
    assert all(check.mend for check in diagnosis.broken)
    assert sys.version.split()[0] in diagnosis.checks[0].detail


def run_doctor(folder: Path, home: Path) -> dict[str, dict[str, str]]:
    """What the real command finds where a folder's packages stand before all others."""
    done = subprocess.run(
        [sys.executable, "-c", "from tinysaver_edge.cli import main; main()", "doctor", "--json"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "XDG_CACHE_HOME": str(home),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def wheel(folder: Path, name: str, module: str, code: str) -> Path:
    """Build a wheel of one module, for pip to install."""
    path = folder / f"{name.replace('-', '_')}-9.0-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-9.0.dist-info"
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(file, text)
    return path


@pytest.mark.slow
def test_what_pip_made_of_two_distributions_and_a_library_that_is_not_there(
    tmp_path: Path,
) -> None:
    """Two owners of each module, installed by pip, and an import that the loader refuses."""
    missing = "import ctypes\n__version__ = '9.0'\nctypes.CDLL('libGL.so.77')\n"
    wheels = [
        wheel(tmp_path, name, module, code)
        for name, module, code in (
            ("opencv-python", "cv2", missing),
            ("opencv-python-headless", "cv2", missing),
            ("onnxruntime", "onnxruntime", missing),
            ("onnxruntime-gpu", "onnxruntime", missing),
        )
    ]
    site = tmp_path / "site"
    for one in wheels:  # one after the other, as users do
        command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target"]
        subprocess.run([*command, site, one], check=True, capture_output=True)
    found = run_doctor(site, tmp_path)
    cv2, ort = found["module cv2"], found["module onnxruntime"]
    assert (cv2["state"], ort["state"]) == ("broken", "broken")
    assert cv2["detail"].startswith("written by opencv-python and opencv-python-headless")
    assert ort["mend"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")
    assert "libGL.so.77: cannot open shared object file" in found["OpenCV"]["detail"]
    assert found["OpenCV"]["mend"].startswith("sudo apt install libgl1")
    assert "cannot be imported" in found["onnxruntime"]["detail"]
    assert found["onnxruntime"]["state"] == "broken"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_camera_that_another_user_may_not_open() -> None:
    """Asked as a user who is in no group: the kernel decides."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        systems.write(root, {"dev/video0": ""})
        (root / "dev").chmod(0o755)
        (root / "dev/video0").chmod(0o660)
        assert camera_check(root).state is Standing.OK
        camera_check(root, access=lambda _: False)  # imports what the other user may not read
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                check = camera_check(root)
                os.write(writing, f"{check.state.value} {check.mend}".encode())
            finally:
                os._exit(0)  # whatever happened: the child is no second pytest
        os.close(writing)
        with os.fdopen(reading) as answer:
            said = answer.read()
        os.waitpid(child, 0)
    assert said == "broken sudo usermod -aG video $USER, then log in again"
