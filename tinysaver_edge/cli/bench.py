"""`tinysaver-edge bench`: what a model or a bundle takes on this device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tinysaver_edge._support import numbers
from tinysaver_edge._support.progress import SILENT
from tinysaver_edge.bench.engine_choice import CandidateAnswer, TryStep
from tinysaver_edge.bench.model import ModelBench, artefact_of
from tinysaver_edge.bench.report import BenchReport, check_report_target, report_path
from tinysaver_edge.bench.run import (
    BenchRequest,
    bench_bundle_file,
    bench_model_file,
    fastest_artefact,
)
from tinysaver_edge.bench.timing import DEFAULT_EFFORT, Effort
from tinysaver_edge.calibrate.measured.worker import run_isolated
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, Number, Threads, json_option, output_option
from tinysaver_edge.engines.base import Precision
from tinysaver_edge.engines.registry import AUTO
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.profile import load_profile
from tinysaver_edge.latency import LatencySamples


@click.command()
@click.argument("target", type=LocalPath())
@click.option("--image", type=LocalPath(), help="An image or a folder of images.")
@click.option("--descriptions", type=LocalPath(), help="Folder of descriptions.")
@click.option(
    "--engine", help="For a model: onnxruntime, openvino, …; 'auto' for the fastest that agrees."
)
@output_option
@click.option("--device", help="For a model: the engine's device, such as GPU.")
@click.option("--profile", help="Device whose engines 'auto' tries; else those of this machine.")
@click.option("--precision", type=click.Choice([one.value for one in Precision]))
@click.option("--threads", type=Threads(), help="Processor threads for one inference.")
@click.option("--runs", default=DEFAULT_EFFORT.min_runs, show_default=True, help="Least runs.")
@click.option(
    "--seconds",
    type=Number(),
    default=1.0,
    show_default=True,
    help="Least seconds of each measurement.",
)
@click.option("--fps", type=Number(min=0.01), help="Idle between frames.")
@click.option("--throughput/--no-throughput", default=True, show_default=True)
@click.option(
    "--sustained",
    type=Number(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Run on, and look for drift.",
)
@click.option("--out", type=LocalPath(), help="Report; a bundle's lies beside it.")
@json_option
def bench(
    target: Path,
    image: Path | None,
    descriptions: Path | None,
    engine: str | None,
    output: str | None,
    device: str | None,
    profile: str | None,
    precision: str | None,
    threads: int | None,
    runs: int,
    seconds: float,
    fps: float | None,
    throughput: bool,
    sustained: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a model or a bundle on this device.

    Cold load, first inference, warm latency, throughput, memory; for a bundle also from the encoded
    picture to the decision, and the report is kept beside it.

    Runs on the heels of each other are quicker than a camera's, between which the processor idles:
    --fps 30 waits a thirtieth of a second before each.

    \b
        tinysaver-edge bench bundle/ --image photos/ --sustained 600
        tinysaver-edge bench model.onnx --engine openvino --device GPU --precision float16
        tinysaver-edge bench model.onnx --engine auto --profile raspberry-pi-5
    """
    if profile is not None and engine != AUTO:
        raise InputError("--profile names the engines for --engine auto to try: add that")
    bundled = target.is_dir() or target.suffix == ".zip"
    out = report_path(target) if bundled and out is None else out
    if out is not None:
        check_report_target(out)
    wanted = BenchRequest(
        Effort(
            min_runs=runs,
            min_seconds=seconds,
            max_seconds=max(30.0, 4 * seconds),
            pause_s=0.0 if fps is None else 1 / fps,
        ),
        throughput_s=seconds if throughput else 0.0,
        sustained_s=sustained,
    )
    if bundled:
        if engine or output or device or precision or descriptions:
            raise InputError(
                f"bundle {target}: its threshold holds for the engines that it names; --engine, "
                "--output, --device, --precision and --descriptions are for model files"
            )
        report = bench_bundle_file(target, image=image, threads=threads, wanted=wanted)
    else:
        said: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "threads": threads,
            "output": output,
        }
        chosen = None
        if engine == AUTO:
            artefact, chosen = fastest_artefact(
                target,
                descriptions=descriptions,
                image=image,
                profile=None if profile is None else load_profile(profile),
                run=_apart,
                **said,
            )
            terminal.tell("\n".join(chosen.lines()) + "\n")
        else:
            artefact = artefact_of(target, descriptions=descriptions, engine=engine, **said)
        report = bench_model_file(artefact, image=image, wanted=wanted)
        report = replace(report, chosen=chosen)
    _show(report)
    if out is not None:
        report.write(out)
        terminal.say(f"\nreport: {out}")
    terminal.next_step(
        f"calibrate with --bench {out}: its choice goes by these latencies then"
        if out is not None
        else "keep it with --out FILE.json: calibrate --bench FILE.json goes by its latencies",
    )
    if as_json:
        terminal.show_json(report.to_dict())


def _apart(step: TryStep, what: str) -> CandidateAnswer:
    return run_isolated(step, progress=SILENT, what=what)


def _show(report: BenchReport) -> None:
    terminal.tell(f"{report.subject}, with {report.frames}\n")
    columns = ("latency in ms", "mean", "p50", "p90", "p95", "p99", "runs")
    terminal.show_table("", columns, _latencies(report))
    terminal.tell("")
    detail = (
        "model",
        "load",
        "first inference",
        "throughput",
        "in parallel",
        "memory",
        "energy",
        "detail",
    )
    terminal.show_table("", detail, [_model(one) for one in report.stages])
    if any(one.throughput is not None for one in report.stages):
        terminal.explain("throughput: the most frames a second, with so many calls in parallel")
    energies = {one.energy.source: one.energy for one in report.stages if one.energy is not None}
    for source, energy in energies.items():
        terminal.explain(
            f"energy: a frame with its resize, by {source}; what idling takes "
            f"({energy.idle_w:.2f} W) is in it"
        )
    if report.no_energy is not None:
        terminal.explain(f"energy: no counter tells: {report.no_energy}")
    whole, sustained = report.bundle, report.sustained
    if whole is not None:
        ran = whole.end_to_end
        terminal.tell(
            f"\n{numbers.rate(1e3 / ran.total.mean_ms)} from picture to decision, "
            f"{_settled(report)}; loaded in {whole.load_s:.2f} s"
        )
    if sustained is not None:
        heat = ", no zone tells the temperature"
        if sustained.start_c is not None and sustained.end_c is not None:
            heat = f", {sustained.start_c:.0f} to {sustained.end_c:.0f} °C"
        terminal.tell(
            f"\nafter {sustained.seconds:.0f} s a run takes {100 * sustained.drift:+.1f} % "
            f"({sustained.first.median_ms:.2f} to {sustained.last.median_ms:.2f} ms{heat})"
        )


def _settled(report: BenchReport) -> str:
    """Say which stage settled how many of the pictures."""
    assert report.bundle is not None
    ran = report.bundle.end_to_end
    if len(ran.settled) <= 2:
        return f"{numbers.percent(ran.escalation_rate)} escalated"
    each = zip(report.stages, ran.settled, strict=True)
    return "settled by " + ", ".join(f"{one.name} {numbers.percent(share)}" for one, share in each)


def _latencies(report: BenchReport) -> Iterator[tuple[str, ...]]:
    for one in report.stages:
        yield _latency(f"{one.name}: inference", one.inference)
        yield _latency(f"{one.name}: with resize and score", one.stage)
    if report.bundle is not None:
        ran = report.bundle.end_to_end
        yield _latency("cascade: decode", ran.decode)
        if len(ran.ways) > 2:
            for stage, way in zip(report.stages, ran.ways, strict=True):
                if way is not None:
                    yield _latency(f"cascade: decide, settled by {stage.name}", way)
        else:
            if ran.accepted is not None:
                yield _latency("cascade: decide, accepted", ran.accepted)
            if ran.escalated is not None:
                yield _latency("cascade: decide, escalated", ran.escalated)
        yield _latency("cascade: decode to decision", ran.total)


def _latency(name: str, found: LatencySamples) -> tuple[str, ...]:
    values = (found.mean_ms, found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms)
    return (name, *(f"{value:.3f}" for value in values), str(len(found)))


def _model(one: ModelBench) -> tuple[str, ...]:
    busy, at_once = "?", "?"
    if one.throughput is not None:
        busy, at_once = numbers.rate(one.throughput.frames_per_s), str(one.throughput.parallel)
    threads = "" if one.threads is None else f", {one.threads} threads"
    return (
        one.name,
        f"{one.load_s:.2f} s",
        f"{one.first_ms:.1f} ms",
        busy,
        at_once,
        "?" if one.loaded_mb is None else f"{one.loaded_mb:.0f} MiB",
        "?" if one.energy is None else f"{one.energy.mj:.3g} mJ",
        f"{one.engine} on {one.device}, {one.precision}{threads}",
    )
