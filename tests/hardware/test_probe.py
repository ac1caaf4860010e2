"""The probe on the files of four systems, and on the machine at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hardware import systems
from tests.hardware.trial_model import build
from tinysaver_edge.errors import InputError, RecipeError
from tinysaver_edge.hardware.cpu import read_cpu, temperatures_c, throttling
from tinysaver_edge.hardware.engines import EngineDevice, Engines, probe_engines
from tinysaver_edge.hardware.nvidia import read_board, read_jetson, read_nvidia
from tinysaver_edge.hardware.probe import Probe, draft_profile, probe, read_memory
from tinysaver_edge.hardware.profile import read_profile
from tinysaver_edge.hardware.trial import (
    MODEL,
    Inventory,
    Listed,
    Trial,
    run_apart,
    run_here,
    try_engine,
)

NONE = Engines((), (), ())


def cpu_only() -> Engines:
    """What a machine with OpenVINO alone reports."""
    listed = Listed("CPU", "Intel(R) N100", ("FP32", "INT8"))
    missing = Inventory("onnxruntime", None, why="not installed: pip install …")
    return Engines(
        (missing, Inventory("openvino", "2026.1", (listed,))),
        (EngineDevice("openvino", listed, Trial("openvino", "CPU", True, "runs as CPU")),),
        (),
    )


def values(found: Probe) -> dict[str, str | None]:
    return {one.name: one.value for section in found.sections for one in section.findings}


def reasons(found: Probe) -> dict[str, str | None]:
    return {one.name: one.reason for section in found.sections for one in section.findings}


@pytest.mark.parametrize(
    ("system", "model", "cores", "threads", "sets", "lacking"),
    [
        (systems.intel_n100, "Intel(R) N100", 4, 4, {"AVX2", "AVX-VNNI"}, {"AVX-512", "AMX INT8"}),
        (systems.raspberry_pi_5, "4 x Cortex-A76", 4, 4, {"NEON", "dot product"}, {"i8mm", "SVE"}),
        (systems.jetson_orin_nano, "6 x Cortex-A78AE", None, 6, {"NEON FP16"}, {"BF16", "i8mm"}),
        (systems.gpu_server, "Intel(R) Xeon(R) 6 Test", 8, 16, {"AMX BF16", "AVX-512 VNNI"}, set()),
    ],
    ids=["N100", "Pi 5", "Orin Nano", "server"],
)
def test_processor(
    tmp_path: Path,
    system: Callable[[Path], Path],
    model: str,
    cores: int | None,
    threads: int,
    sets: set[str],
    lacking: set[str],
) -> None:
    cpu = read_cpu(system(tmp_path))
    assert cpu is not None
    assert (cpu.model, cpu.cores, cpu.threads) == (model, cores, threads)
    assert sets <= set(cpu.instruction_sets)
    assert lacking <= set(cpu.lacking)
    assert not set(cpu.lacking) & set(cpu.instruction_sets)


@pytest.mark.parametrize(
    ("system", "family"),
    [
        (systems.intel_n100, "x86_64 with AVX-VNNI"),
        (systems.raspberry_pi_5, "aarch64 with dot product"),
        (systems.gpu_server, "x86_64 with AMX INT8"),
    ],
    ids=["N100", "Pi 5", "server"],
)
def test_processors_that_answer_alike_in_int8(
    tmp_path: Path, system: Callable[[Path], Path], family: str
) -> None:
    cpu = read_cpu(system(tmp_path))
    assert cpu is not None
    assert cpu.family == family


def test_a_container_may_use_less(tmp_path: Path) -> None:
    root = systems.gpu_server(tmp_path)
    cpu, memory = read_cpu(root), read_memory(root)
    assert cpu is not None
    assert memory is not None
    assert cpu.usable == 4
    assert (memory.total_mb, memory.usable_mb) == (128_000, 16 << 10)
    assert "may use 4" in (cpu.findings()[1].value or "")
    assert "16384 MiB" in (memory.findings()[0].value or "")


def test_without_a_limit_all_may_be_used(tmp_path: Path) -> None:
    root = systems.intel_n100(tmp_path)
    systems.write(
        root, {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
    )
    cpu, memory = read_cpu(root), read_memory(root)
    assert cpu is not None
    assert memory is not None
    assert cpu.usable == cpu.threads == 4
    assert memory.usable_mb == memory.total_mb == 16_270_928 // 1024


def test_jetson(tmp_path: Path) -> None:
    root = systems.jetson_orin_nano(tmp_path)
    jetson = read_jetson(root)
    assert jetson is not None
    assert (jetson.release, jetson.jetpack, jetson.power_mode) == ("36.4.3", "6.2+b77", "25W")
    assert (jetson.cuda, jetson.cudnn, jetson.tensorrt) == ("12.6.68", "9.3.0.75", "10.3.0.30")
    assert read_board(root) == systems.ORIN_NANO
    found = probe(root, engines=NONE)
    assert "Jetson" in [section.title for section in found.sections]
    assert "NVIDIA" not in [section.title for section in found.sections]


def test_a_jetson_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    root = systems.jetson_orin_nano(tmp_path)
    (root / "var/lib/dpkg/status").unlink()
    (root / "var/lib/nvpmodel/status").unlink()
    found = probe(root, engines=NONE)
    assert values(found)["JetPack"] == "6 (its package nvidia-jetpack is not installed)"
    assert reasons(found)["TensorRT"] == "not installed: sudo apt install nvidia-jetpack"
    assert reasons(found)["power mode"] == "nvpmodel has left no status"


def test_others_are_no_jetson(tmp_path: Path) -> None:
    assert read_jetson(systems.raspberry_pi_5(tmp_path / "pi")) is None
    assert read_jetson(systems.gpu_server(tmp_path / "server")) is None


def test_heat_and_power(tmp_path: Path) -> None:
    n100 = systems.intel_n100(tmp_path / "n100")
    assert temperatures_c(n100) == {"acpitz": 27.8, "x86_pkg_temp": 61.0}
    assert throttling(n100) == "12 times since it started"
    found = values(probe(n100, engines=NONE))
    assert found["clock governor"] == "powersave"
    assert found["platform profile"] == "balanced"
    pi = systems.raspberry_pi_5(tmp_path / "pi")
    assert throttling(pi) == "too little voltage since it started, throttled since it started"
    orin = systems.jetson_orin_nano(tmp_path / "orin")
    assert temperatures_c(orin) == {"cpu-thermal": 52.125}  # the other zone is switched off
    assert throttling(orin) is None


def test_nvidia_driver(tmp_path: Path) -> None:
    driver = read_nvidia(systems.gpu_server(tmp_path / "a", libraries="570.124.06"))
    assert driver is not None
    assert (driver.version, driver.gpus) == ("570.124.06", ("NVIDIA L4", "NVIDIA L4"))
    assert not driver.mismatched
    updated = read_nvidia(systems.gpu_server(tmp_path / "b"))
    assert updated is not None
    assert updated.mismatched
    assert read_nvidia(systems.intel_n100(tmp_path / "c")) is None


def test_a_gpu_without_driver_says_which_is_missing(tmp_path: Path) -> None:
    found = probe(systems.intel_n100(tmp_path), engines=cpu_only())
    assert "intel-opencl-icd" in (reasons(found)["openvino, GPU"] or "")
    assert "/dev/dri/renderD128" in (reasons(found)["openvino, GPU"] or "")
    assert "the kernel shows no such device" in (reasons(found)["openvino, NPU"] or "")
    assert reasons(found)["onnxruntime"] == "not installed: pip install …"
    assert "FP32 INT8" in (values(found)["openvino, CPU"] or "")


def test_a_gpu_of_another_maker_is_none_for_openvino(tmp_path: Path) -> None:
    root = systems.intel_n100(tmp_path)
    systems.write(root, {"sys/class/drm/renderD128/device/vendor": "0x1002\n"})
    reason = reasons(probe(root, engines=cpu_only()))["openvino, GPU"]
    assert "shows no such device" in (reason or "")


def test_a_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    found = probe(tmp_path, engines=NONE)
    assert not any(values(found)[name] for name in ("board", "processor", "memory", "temperature"))
    assert all(one.there or one.reason for section in found.sections for one in section.findings)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_the_model_for_trials_is_what_the_tests_build() -> None:
    assert MODEL.read_bytes() == build()


@pytest.mark.parametrize(
    ("engine", "device", "says"),
    [("onnxruntime", "CPUExecutionProvider", "CPUExecutionProvider"), ("openvino", "CPU", "CPU")],
)
def test_a_working_device_passes_its_trial(engine: str, device: str, says: str) -> None:
    assert run_here(engine, device) == Trial(engine, device, True, f"runs as {says}")
    assert try_engine(engine, device) == run_here(engine, device)


@pytest.mark.parametrize(
    ("engine", "device", "why"),
    [
        ("onnxruntime", "MIGraphXExecutionProvider", "has no MIGraphXExecutionProvider here"),
        ("openvino", "GPU.7", "has no device GPU.7 here"),
        ("nonsense", "CPU", "no engine 'nonsense'"),
    ],
)
def test_a_device_that_is_not_there_fails_its_trial(engine: str, device: str, why: str) -> None:
    trial = try_engine(engine, device)
    assert not trial.works
    assert why in trial.detail


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)", "its process was ended by SIGSEGV"),
        ("import time; time.sleep(60)", "no answer within 2 s"),
        ("raise ImportError('libGL.so.1: gone')", "ImportError: libGL.so.1: gone"),
        ("import sys; sys.exit(3)", "its process ended with code 3"),
        ("pass", "its process ended with code 0"),
    ],
    ids=["crash", "hang", "exception", "exit", "silence"],
)
def test_what_takes_its_process_down_is_told(program: str, why: str) -> None:
    import sys

    result = run_apart([sys.executable, "-c", program], timeout_s=2)
    assert result.answer is None
    assert result.why == why


def test_a_library_that_does_not_load_is_named() -> None:
    """What onnxruntime-gpu 1.31.1 says on a computer without CUDA, word for word."""
    from tinysaver_edge.hardware.trial import _cause

    said = (
        "2026-11-22 21:52:28 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
        "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load "
        "library /v/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot "
        "open shared object file: No such file or directory\n"
        "[W:onnxruntime:Default] Failed to create CUDAExecutionProvider. Require cuDNN 9.*\n"
    )
    expected = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    assert _cause(said) == expected
    assert _cause("all is well") is None


def test_engines_here_are_listed_and_tried() -> None:
    found = probe_engines()
    ran = {(one.engine, one.listed.device) for one in found.working}
    assert ("onnxruntime", "CPUExecutionProvider") in ran
    assert ("openvino", "CPU") in ran
    assert "AzureExecutionProvider" not in {one.listed.device for one in found.devices}
    assert all(inventory.version for inventory in found.inventories)


def test_an_engine_that_lists_what_does_not_run_is_found_out() -> None:
    listed = (Listed("CUDAExecutionProvider"), Listed("CPUExecutionProvider"))
    asked: list[tuple[str, str]] = []

    def trial(engine: str, device: str) -> Trial:
        asked.append((engine, device))
        return Trial(engine, device, device.startswith("CPU"), "why")

    found = probe_engines(
        inventory=lambda engine: Inventory(engine, "1", listed if engine == "onnxruntime" else ()),
        trial=trial,
    )
    assert asked == [("onnxruntime", one.device) for one in listed]
    assert [one.listed.device for one in found.working] == ["CPUExecutionProvider"]
    told = {one.name: one for one in found.findings()}
    assert told["onnxruntime, CUDAExecutionProvider"].reason == "listed, but does not run: why"


def test_a_drafted_profile_can_be_read(tmp_path: Path) -> None:
    found = probe(systems.intel_n100(tmp_path / "root"), engines=cpu_only())
    path = tmp_path / "my-box.toml"
    path.write_text(draft_profile("my-box", found))
    profile = read_profile(path)
    assert [(one.engine, one.device) for one in profile.engines] == [("openvino", "CPU")]
    assert profile.memory_mb == 16_270_928 // 1024
    assert "Intel(R) N100" in profile.description
    assert profile.verified.on_hardware


def test_a_draft_needs_a_name_and_an_engine(tmp_path: Path) -> None:
    root = systems.intel_n100(tmp_path)
    with pytest.raises(InputError, match="small letters"):
        draft_profile("My Box", probe(root, engines=cpu_only()))
    with pytest.raises(InputError, match="doctor"):
        draft_profile("my-box", probe(root, engines=NONE))
    with pytest.raises(RecipeError):
        read_profile(root / "nothing.toml")
