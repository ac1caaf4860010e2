"""What the files of four systems hold, so that the probe can be shown each of them.

The lines are those that such systems have, as people have published them: Intel N100 /proc/cpuinfo,
L4T release line and nvpmodel files of an Orin Nano with JetPack 6.2, Raspberry Pi 5 with an
undervoltage that is over, an x86 server whose NVIDIA driver was updated under it. None of these
machines was at hand.
"""

from __future__ import annotations

from pathlib import Path

N100_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts acpi mmx "
    "fxsr sse sse2 ss ht tm pbe syscall nx pdpe1gb rdtscp lm constant_tsc art arch_perfmon pebs "
    "bts rep_good nopl xtopology nonstop_tsc cpuid aperfmperf tsc_known_freq pni pclmulqdq dtes64 "
    "monitor ds_cpl vmx est tm2 ssse3 sdbg fma cx16 xtpr pdcm sse4_1 sse4_2 x2apic movbe popcnt "
    "tsc_deadline_timer aes xsave avx f16c rdrand lahf_lm abm 3dnowprefetch bmi1 avx2 smep bmi2 "
    "erms invpcid rdseed adx smap clflushopt clwb intel_pt sha_ni xsaveopt xsavec xgetbv1 xsaves "
    "split_lock_detect user_shstk avx_vnni dtherm ida arat pln pts hwp hwp_notify"
)
ORIN_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"
A76_FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
A78AE_FEATURES = f"{A76_FEATURES} uscat ilrcpc flagm paca pacg"


def _x86(name: str, flags: str, *, cores: int, siblings: int = 1) -> str:
    blocks = [
        f"processor\t: {core * siblings + thread}\nvendor_id\t: GenuineIntel\n"
        f"model name\t: {name}\nphysical id\t: 0\ncore id\t\t: {core}\nflags\t\t: {flags}\n"
        for core in range(cores)
        for thread in range(siblings)
    ]
    return "\n".join(blocks) + "\n"


def _arm(part: str, features: str, *, cores: int, tail: str = "") -> str:
    blocks = [
        f"processor\t: {core}\nBogoMIPS\t: 62.50\nFeatures\t: {features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\n"
        for core in range(cores)
    ]
    return "\n".join(blocks) + "\n" + tail


def _meminfo(total_kb: int, available_kb: int, swap_kb: int = 0) -> str:
    return (
        f"MemTotal:       {total_kb} kB\nMemFree:         1000000 kB\n"
        f"MemAvailable:   {available_kb} kB\nSwapTotal:      {swap_kb} kB\n"
    )


def _package(name: str, version: str, status: str = "install ok installed") -> str:
    return (
        f"Package: {name}\nStatus: {status}\nVersion: {version}\n"
        f"Description: a package\n of several lines: with colons\n"
    )


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder that stands for ``/``."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def intel_n100(root: Path) -> Path:
    """A mini computer with its integrated GPU, whose driver for OpenVINO is missing."""
    return write(
        root,
        {
            "proc/cpuinfo": _x86("Intel(R) N100", N100_FLAGS, cores=4),
            "proc/meminfo": _meminfo(16_270_928, 14_000_000, 2_097_148),
            "proc/sys/kernel/osrelease": "6.8.0-49-generic\n",
            "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\n',
            "sys/class/dmi/id/sys_vendor": "AZW\n",
            "sys/class/dmi/id/product_name": "EQ12\n",
            "dev/dri/renderD128": "",
            "sys/class/drm/renderD128/device/vendor": "0x8086\n",
            "sys/class/thermal/thermal_zone0/type": "acpitz\n",
            "sys/class/thermal/thermal_zone0/temp": "27800\n",
            "sys/class/thermal/thermal_zone10/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone10/temp": "61000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "12\n",
            "sys/firmware/acpi/platform_profile": "balanced\n",
        },
    )


def raspberry_pi_5(root: Path) -> Path:
    """A Raspberry Pi 5 whose supply was too weak once."""
    topology = {
        f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": f"{core}\n"
        for core in range(4)
    }
    tail = "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    return write(
        root,
        {
            "proc/cpuinfo": _arm("0xd0b", A76_FEATURES, cores=4, tail=tail),
            "proc/meminfo": _meminfo(8_245_824, 7_000_000),
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48750\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            **topology,
        },
    )


def jetson_orin_nano(root: Path) -> Path:
    """An Orin Nano with JetPack 6.2 in its 25 W mode."""
    packages = "\n".join(
        (
            _package("nvidia-jetpack", "6.2+b77"),
            _package("cuda-cudart-12-6", "12.6.68-1"),
            _package("libcudnn9-cuda-12", "9.3.0.75-1"),
            _package("libnvinfer10", "10.3.0.30-1+cuda12.5"),
            _package("libnvinfer8", "8.6.2.3-1", status="deinstall ok config-files"),
        )
    )
    modes = (
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
        "< PM_CONFIG DEFAULT=1 >\n"
    )
    return write(
        root,
        {
            "proc/cpuinfo": _arm("0xd42", A78AE_FEATURES, cores=6),
            "proc/meminfo": _meminfo(7_800_000, 5_000_000, 3_900_000),
            "proc/device-tree/model": f"{ORIN_NANO}\0",
            "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "etc/nv_tegra_release": (
                "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
                "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
            ),
            "etc/nvpmodel.conf": modes,
            "var/lib/nvpmodel/status": "pmode:0001",
            "var/lib/dpkg/status": packages,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "52125\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
        },
    )


def gpu_server(root: Path, *, libraries: str = "570.133.20") -> Path:
    """A server with two GPUs; its driver's libraries may be newer than the kernel's module."""
    flags = f"{N100_FLAGS} avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16"
    gpu = "Model: \t\t NVIDIA L4\nIRQ:   \t\t 110\n"
    version = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:04:05 UTC 2025\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    return write(
        root,
        {
            "proc/cpuinfo": _x86("Intel(R) Xeon(R) 6 Test", flags, cores=8, siblings=2),
            "proc/meminfo": _meminfo(131_072_000, 120_000_000),
            "proc/driver/nvidia/version": version,
            "proc/driver/nvidia/gpus/0000:17:00.0/information": gpu,
            "proc/driver/nvidia/gpus/0000:65:00.0/information": gpu,
            f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{libraries}": "",
            "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": "",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.3"}}',
            "var/lib/dpkg/status": _package("libnvinfer10", "10.3.0.26-1+cuda12.5"),
            "sys/fs/cgroup/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/memory.max": str(16 << 30),
        },
    )
