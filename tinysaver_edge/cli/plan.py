"""`tinysaver-edge plan`: how many hosts, how much uplink, for so many cameras."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click

from tinysaver_edge._support.files import check_file_target
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.calibrate.report import is_own_page
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import GroupedCommand, LocalPath, Number, json_option, options_of
from tinysaver_edge.errors import InputError
from tinysaver_edge.hardware.profile import load_profile
from tinysaver_edge.plan.escalating import Escalating, Traced, of_bundle, read_epochs, read_traces
from tinysaver_edge.plan.fleet import (
    LIMITS,
    MOST_REQUESTS,
    Fleet,
    FleetLimits,
    Times,
    parse_rate,
    read_times,
)
from tinysaver_edge.plan.forecast import Planner, WhatIf
from tinysaver_edge.plan.page import (
    FleetPlan,
    formula_words,
    lede,
    rows,
    simulated,
    write_page,
)
from tinysaver_edge.stream.options import LIVE_DEADLINE_MS, StreamOptions

_fleet = options_of("The fleet")
_known = options_of("What is known")
_asked = options_of("What is asked")


@click.command(cls=GroupedCommand)
@click.argument("bundle", type=LocalPath())
@_fleet("--cameras", type=int, required=True, help="How many cameras.")
@_fleet("--fps", type=Number(), required=True, help="Frames a second of each.")
@_fleet("--devices", type=int, help="Devices that they share.  [default: one each]")
@_fleet("--hosts", type=int, default=1, show_default=True, help="Hosts of the large model.")
@_fleet(
    "--uplink",
    default="none",
    show_default=True,
    metavar="RATE",
    help="What all devices share on their way to the hosts: 20mbit, 512kbit, …",
)
@_fleet(
    "--rtt-ms",
    type=Number(),
    help="What an answer takes besides sending, waiting and the model.  [default: as the trace has "
    "it, else 0]",
)
@_fleet(
    "--deadline-ms",
    type=Number(),
    default=LIVE_DEADLINE_MS,
    show_default=True,
    help="As for run.",
)
@_fleet(
    "--max-in-flight",
    type=int,
    default=StreamOptions().max_in_flight,
    show_default=True,
    help="As for run.",
)
@_fleet("--max-requests", type=int, default=MOST_REQUESTS, show_default=True, help="As for serve.")
@_known("--bench", type=LocalPath(), help="Report of bench on a device.")
@_known("--host-bench", type=LocalPath(), help="Report of bench on a host.")
@_known(
    "--trace",
    "traces",
    type=LocalPath(),
    multiple=True,
    help="JSON lines that run has written (--jsonl); repeat it.",
)
@_known(
    "--epochs",
    type=LocalPath(),
    help="Folder of records that calibrate --epochs has kept.",
)
@_known("--escalation-rate", type=Number(), help="Share of the frames, 0 to 1.")
@_known("--burst-s", type=Number(), help="How long bursts of escalations last; 0 for none.")
@_known("--frame-bytes", type=Number(min=1), help="What is sent of a frame.")
@_known("--device", help="Profile whose power stands for energy that no counter told.")
@_known("--host-device", help="The same for hosts.")
@_asked(
    "--budget",
    "budgets",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"A limit to keep; repeat it. Names: {', '.join(LIMITS)}.",
)
@_asked(
    "--hours",
    type=Number(min=0, min_open=True, max=24 * 31),
    default=1.0,
    show_default=True,
    help="Time to simulate.",
)
@_asked("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_asked("--out", type=LocalPath(), help="Page with what-if curves.")
@json_option
def plan(
    bundle: Path,
    cameras: int,
    fps: float,
    devices: int | None,
    hosts: int,
    uplink: str,
    rtt_ms: float | None,
    deadline_ms: float,
    max_in_flight: int,
    max_requests: int,
    bench: Path | None,
    host_bench: Path | None,
    traces: tuple[Path, ...],
    epochs: Path | None,
    escalation_rate: float | None,
    burst_s: float | None,
    frame_bytes: float | None,
    device: str | None,
    host_device: str | None,
    budgets: tuple[str, ...],
    hours: float,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what a fleet of cameras will see, and how many hosts and how much uplink it needs.

    The fleet is simulated with what bench has measured of the bundle: savers, uplink, hosts with
    their batches, deadlines and limits as run has them. Which frames are escalated, and in what
    bursts, comes from a trace or from epochs; without one it is assumed, and said.

    \b
        tinysaver-edge bench bundle/
        tinysaver-edge plan bundle/ --cameras 50 --fps 10 --uplink 20mbit
        tinysaver-edge plan bundle/ --cameras 50 --fps 10 --uplink 20mbit --trace run.jsonl \\
            --budget p95_latency_ms=300 --budget degraded=0.5% --out plan.html
    """
    limits = FleetLimits.parse(budgets)
    fleet = Fleet(
        cameras=cameras,
        fps=fps,
        devices=cameras if devices is None else devices,
        hosts=hosts,
        uplink_bps=parse_rate(uplink),
        rtt_ms=rtt_ms or 0.0,
        deadline_ms=deadline_ms,
        max_in_flight=max_in_flight,
        max_requests=max_requests,
    )
    if len({one.resolve() for one in traces}) < len(traces):
        raise InputError("--trace: a file is given twice, and would count as two cameras")
    if out is not None:
        check_file_target(out, ours=lambda page: is_own_page(page, "plan of a fleet"))
    with Bundle.load(bundle) as opened:
        times = read_times(opened, bench=bench, host_bench=host_bench, sent_bytes=frame_bytes)
        if sum((bool(traces), epochs is not None, escalation_rate is not None)) > 1:
            raise InputError("give one of --trace, --epochs and --escalation-rate")
        if (traces or epochs is not None) and burst_s is not None:
            raise InputError("--burst-s: a trace and epochs tell it themselves; leave one out")
        flow: Escalating
        if traces:
            flow = read_traces(traces, opened)
        elif epochs is not None:
            flow = read_epochs(epochs, opened)
        else:
            flow = of_bundle(opened, rate=escalation_rate, burst_s=burst_s)
        names = [stage.model.name for stage in opened.manifest.stages]
    counted = times.assumed
    times = _with_power(times, device, host_device)
    by_profile = times.assumed != counted
    limits.check(times)
    fleet, times, told = _as_traced(fleet, times, flow, rtt_ms)
    able, note = fleet.with_saver(times, flow.asked)
    planner = Planner(times, flow, seed)
    with terminal.progress() as progress:
        forecast = planner.forecast(able, seconds=3600 * hours, progress=progress)
        what_if = WhatIf(planner, fleet, limits, forecast, progress)
        remedies = tuple(what_if.remedies()) if limits.set else ()
        curves = [] if out is None else list(what_if.curves())
    found = FleetPlan(
        title=" → ".join(names),
        forecast=forecast,
        limits=limits,
        remedies=remedies,
        notes=tuple(one for one in (note, _window(able)) if one is not None),
        by_profile=by_profile,
        said=(*times.said, *told, *flow.said),
        assumed=(
            *times.assumed,
            *flow.assumed,
            *_ALWAYS,
            *(_REUSE if flow.asked < 1 else ()),
            *_no_energy(times),
        ),
    )
    _show(found)
    if out is not None:
        write_page(found, curves, out)
        terminal.say(f"\npage: {out}")
    else:
        terminal.next_step("--out plan.html draws what other hosts, uplinks and rates would do")
    if as_json:
        terminal.show_json(found.to_dict())


_ALWAYS = (
    "hosts and network do not fail, and what is under way shares the uplink evenly",
    "answers are so small that the way back is never full",
    "the days are like what was recorded: neither hours nor seasons are in it",
)


_REUSE = (
    "a frame that repeats an answer still on its way is not counted as degraded, if that one is",
)


def _window(fleet: Fleet) -> str | None:
    """Say that a stream holds fewer frames of a camera than its deadline lasts."""
    window, most = StreamOptions().window, fleet.fps * fleet.deadline_ms / 1e3
    if most <= window:
        return None
    return (
        f"up to {most:.0f} frames of a camera wait for one another within the deadline, and run "
        f"holds {window}: what is dropped at the camera beyond them is not in the figures"
    )


def _as_traced(
    fleet: Fleet, times: Times, flow: Escalating, rtt_ms: float | None
) -> tuple[Fleet, Times, list[str]]:
    """Take times of the field from a trace, where it has them."""
    told = []
    if isinstance(flow, Traced) and len(flow.device_ms) >= 100:
        times = replace(times, accepted_ms=flow.device_ms, escalated_ms=flow.device_ms)
        told.append("a frame's time on the device is the trace's")
    if rtt_ms is not None:
        told.append(f"round trip: {rtt_ms:g} ms, as given")
    elif isinstance(flow, Traced) and len(flow.large_ms) >= 30:
        beside = flow.beside_ms(times.batch_ms[1])
        if not math.isinf(fleet.uplink_bps):
            beside -= 8e3 * times.sent_bytes / fleet.uplink_bps
        fleet = replace(fleet, rtt_ms=max(0.0, beside))
        told.append(
            f"round trip: {fleet.rtt_ms:.3g} ms, what the quickest fifth of the large model's "
            "answers took in the trace beyond the model itself and sending"
        )
    else:
        assumed = "the round trip takes 0 ms: nobody said --rtt-ms, and no trace tells it"
        times = replace(times, assumed=(*times.assumed, assumed))
    return fleet, times, told


def _with_power(times: Times, device: str | None, host_device: str | None) -> Times:
    """Take profiles' power for as long as a frame takes, where no counter was read."""
    known = (
        (device, times.saver_mj, times.accepted_ms),
        (host_device, times.large_mj, times.batch_ms[1]),
    )
    said: list[str] = []
    found: list[float | None] = []
    for profile, mj, ms in known:
        if profile is not None and mj is None:
            power_w = load_profile(profile).power_w
            if power_w is None:
                raise InputError(f"device {profile}: its profile has no power_w")
            mj = power_w * float(ms.mean())
            said.append(
                f"energy: {power_w:g} W, the most that {profile} draws by its profile, for as long "
                "as a frame takes by the report of bench, which has to be of it; no counter was "
                "read"
            )
        found.append(mj)
    assumed = (*times.assumed, *dict.fromkeys(said))
    return replace(times, saver_mj=found[0], large_mj=found[1], assumed=assumed)


def _no_energy(times: Times) -> list[str]:
    if times.counts_energy:
        return [
            "energy is that of frames run one by one, what idles meanwhile included; what devices "
            "and hosts draw while they have nothing to do is not in it"
        ]
    return [
        "energy is left out: bench found no counter of it; --device and --host-device name power"
    ]


def _show(found: FleetPlan) -> None:
    terminal.tell(lede(found.forecast.fleet) + "\n")
    limited = bool(found.limits.set)
    columns = ("figure", "value", "95 % interval", *(("limit", "kept") if limited else ()))
    terminal.show_table(
        "",
        columns,
        [
            (
                row.name,
                row.value,
                row.interval,
                *((row.limit, _kept(row.limit, row.broken)) if limited else ()),
            )
            for row in rows(found)
        ],
    )
    terminal.tell("")
    terminal.explain(simulated(found.forecast))
    for remedy in found.remedies:
        terminal.tell(f"{remedy.what}: {remedy.said}")
    terminal.explain(formula_words(found.forecast))
    for one in found.said:
        terminal.explain(f"known: {one}")
    for one in found.assumed:
        terminal.explain(f"assumed: {one}")
    terminal.warn(found.notes)


def _kept(limit: str, broken: bool) -> str:
    return "" if not limit else "no" if broken else "yes"
