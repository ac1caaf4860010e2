"""Export timm architectures with random weights and hold every file against the torch model.

    python -m benchmarks.bench_export --data ../shared/data/imagenet/labels.csv

Each architecture is exported to .onnx and OpenVINO's .xml in a process of its own; what it gave is
added to results/export.jsonl, and the report is written of that file, so that a run that was
stopped goes on. Weights are random, but such that every layer matters (`benchmarks.lively`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tinysaver_edge.models.export.catalogue import published

RESULTS = Path(__file__).parent / "results"
LARGE_MACS = 8e9
LIMIT_S = 5400
LEAST_MACS = 0.5e9

NAMES = """
    mobilenetv3_small_050 mobilenetv3_small_100 lcnet_050 tinynet_e efficientnet_lite0
    efficientvit_b0 efficientvit_m2 repghostnet_050 mobileone_s0 repvit_m0_9 fastvit_t8
    edgenext_xx_small efficientformerv2_s0 efficientformerv2_s2 convnextv2_atto convnextv2_tiny
    swin_small_patch4_window7_224 resnet18 resnet50 resnet152 deit_tiny_patch16_224
    vit_small_patch16_224 maxvit_tiny_tf_224 davit_tiny mobilenetv4_conv_small
    mobilenetv4_conv_medium mobilenetv4_hybrid_medium hgnetv2_b0 ghostnet_100 levit_128s
    tiny_vit_5m_224 densenet121 regnety_002 mobilevit_xxs rexnet_100 pvt_v2_b0 caformer_s18
    mobilenetv2_100 efficientnet_b0 efficientformerv2_l nasnetalarge
    swin_large_patch4_window7_224 convnextv2_large convnextv2_huge
""".split()  # noqa: SIM905 - forty-four lines otherwise


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Real images.")
@click.option("--one", is_flag=True, hidden=True)
def main(names: tuple[str, ...], data: Path, one: bool) -> None:
    """Export the architectures named, else all that are not in the results yet."""
    if one:
        click.echo(json.dumps(_export(names[0], data)))
        return
    log = RESULTS / "export.jsonl"
    rows = _read(log)
    for name in names or [name for name in NAMES if name not in rows]:
        click.echo(f"{name} …", err=True)
        rows[name] = _in_own_process(name, data)
        log.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
        (RESULTS / "export.md").write_text(_report(list(rows.values())))
        click.echo(f"    {rows[name].get('error', 'ok')}", err=True)


def _read(log: Path) -> dict[str, dict[str, Any]]:
    if not log.is_file():
        return {}
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row["name"]: row for row in rows}


def _in_own_process(name: str, data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_export", name, "--one", "--data", str(data)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"not done after {LIMIT_S} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"name": name, "error": lines[-1][:300]}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _export(name: str, data: Path) -> dict[str, Any]:
    import torch

    from benchmarks.lively import enliven
    from tinysaver_edge.models.compare.compare import read_pictures
    from tinysaver_edge.models.export.export import export
    from tinysaver_edge.models.export.timm_model import TimmSource, load_timm
    from tinysaver_edge.models.graph.macs import count_macs, count_module_macs

    torch.set_num_threads(1)
    model = load_timm(TimmSource(name, random_seed=0))
    macs = count_module_macs(model.module, model.preprocess.shape(1))
    pictures = read_pictures(data, count=4 if macs > LARGE_MACS else 16)
    enliven(model, pictures.frames, seed=0)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{name}{suffix}" for suffix in (".onnx", ".xml")]
        result = export(model, outs, pictures=pictures)
        seconds = time.monotonic() - start
        counted = [count_macs(one.path) for one in result.exported]
        sizes = [sum(file.stat().st_size for file in one.files) for one in result.exported]
    return {
        "name": name,
        "image_size": model.preprocess.resize.height,
        "max_difference": [one.comparison.max_difference for one in result.exported],
        "largest_logit": result.exported[0].comparison.largest_logit,
        "top1_agreement": [one.comparison.top1_agreement for one in result.exported],
        "pictures": result.pictures,
        "macs_as_trained": result.macs_as_trained,
        "macs_torch": result.macs,
        "macs_files": [one.macs for one in counted],
        "parameters_torch": result.parameters,
        "size_bytes": sizes,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino")
    return {name: version(name) for name in names}


def _report(rows: Sequence[dict[str, Any]]) -> str:
    done = [row for row in rows if "error" not in row]
    failed = [row for row in rows if "error" in row]
    worst = max((max(row["max_difference"]) for row in done), default=float("nan"))
    apart = [_spread_percent(row) for row in done]
    known = [percent for row in done if (percent := _published_percent(row)) is not None]
    telling = [
        percent
        for row in done
        if row["macs_as_trained"] >= LEAST_MACS and (percent := _published_percent(row)) is not None
    ]
    versions = done[-1]["versions"] if done else {}
    lines = [
        "# Exported timm architectures against torch",
        "",
        "`python -m benchmarks.bench_export --data ../shared/data/imagenet/labels.csv`, with "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "; one thread of a shared machine for torch.",
        "",
        "Random weights under which every layer matters (`benchmarks/lively.py`), photographs of "
        "ImageNet's validation set. The torch model runs unmerged on pictures scaled in numpy; the "
        "files take uint8 NHWC BGR frames. Difference: the largest of any logit on any picture.",
        "",
        f"- {len(done)} architectures exported, {len(failed)} not; the largest difference is "
        f"{worst:.1e} (an export is refused above 1e-3).",
        f"- MACs of torch, .onnx and .xml lie at most {max(apart, default=0):.2f} % apart.",
        f"- {sum(abs(one) <= 2 for one in known)} of {len(known)} with published GMACs lie within "
        f"2 % of them, {sum(abs(one) <= 2 for one in telling)} of {len(telling)} that take at "
        "least 0.5. What is published has two decimals and counts normalisations: "
        "`bench_macs.md` tells them apart.",
        "",
        "| architecture | picture | difference .onnx | .xml | largest logit | same class | "
        "MMACs as trained | merged | torch/.onnx/.xml apart | published GMACs | off by | "
        ".onnx MB | s | peak GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(row) for row in done]
    if failed:
        lines += ["", "Not exported:", ""]
        lines += [f"- `{row['name']}`: {row['error']}" for row in failed]
    return "\n".join([*lines, ""])


def _row(row: dict[str, Any]) -> str:
    fact = published(row["name"], row["image_size"])
    off = _published_percent(row)
    merged = row["macs_torch"] != row["macs_as_trained"]
    cells = [
        row["name"],
        str(row["image_size"]),
        *(f"{one:.1e}" for one in row["max_difference"]),
        f"{row['largest_logit']:.3g}",
        f"{100 * min(row['top1_agreement']):.0f} % of {row['pictures'].split()[0]}",
        f"{row['macs_as_trained'] / 1e6:,.1f}",
        f"{row['macs_torch'] / 1e6:,.1f}" if merged else "",
        f"{_spread_percent(row):.2f} %",
        "" if fact is None else f"{fact.gmacs:g}",
        "" if off is None else f"{off:+.1f} %",
        f"{row['size_bytes'][0] / 1e6:.1f}",
        f"{row['seconds']:.0f}",
        f"{row['peak_bytes'] / 1e9:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread_percent(row: dict[str, Any]) -> float:
    counts = [row["macs_torch"], *row["macs_files"]]
    return 100 * (max(counts) / min(counts) - 1)


def _published_percent(row: dict[str, Any]) -> float | None:
    fact = published(row["name"], row["image_size"])
    return None if fact is None else 100 * (row["macs_as_trained"] / 1e9 / fact.gmacs - 1)


if __name__ == "__main__":
    run: Callable[[], None] = main
    run()
