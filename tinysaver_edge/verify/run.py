"""Verify: does a bundle keep here, in answers and in time, what was promised at calibration?"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge._support.numbers import percent
from tinysaver_edge.bench.bundle import measure_alone, measure_look, measure_pair, measure_ways
from tinysaver_edge.bench.frames import made_up_frame
from tinysaver_edge.bench.timing import Effort
from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.bundle.covered import why_not_covered
from tinysaver_edge.bundle.manifest import CertificateEntry, LatencyEntry, Manifest
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.deciding.figures import interval_of, why_figures_disagree
from tinysaver_edge.deciding.policy import Policy
from tinysaver_edge.engines.remote import RemoteModel
from tinysaver_edge.errors import (
    EngineError,
    InputError,
    MissingDependencyError,
    TinySaverError,
    TransferError,
    VerificationError,
)
from tinysaver_edge.latency import PooledLatency, pooled
from tinysaver_edge.preprocess import Frame
from tinysaver_edge.verify.check import (
    LATENCY,
    Check,
    Verification,
    check_engines,
    hosts_of,
    why_not_open,
)
from tinysaver_edge.verify.golden import (
    check_decoder,
    compare_golden,
    golden_answers,
    kept_answers,
    kept_frames,
    other_processor,
)

EFFORT = Effort(warm_up=20, min_runs=200, min_seconds=2.0, max_seconds=20.0)

SLACK = 0.1
"""How far over a limit may be chance: two runs on one machine differ by about as much."""


def check_latency(
    promised: LatencyEntry | None,
    cascade: Cascade,
    frames: Sequence[Frame],
    *,
    effort: Effort = EFFORT,
) -> Check:
    """Time every way that a frame can take and hold mean and quantiles against the limits.

    The ways are weighted as they were for the budget: by the highest shares of frames that go on
    to each stage that the calibration expects, not by those of the few golden frames.

    Args:
        promised: the limits, None where there were none.
        cascade: open, of this bundle.
        frames: ``(height, width, 3)`` BGR uint8, at least one, that take turns.
        effort: how long to time.
    """
    if promised is None or not promised.limits:
        return Check(LATENCY, None, "the bundle was calibrated without a limit of time")
    stages, policy = cascade.stages, cascade.policy
    if promised.asked is not None:
        found = _with_reuse(promised, cascade, frames, effort=effort)
    elif len(stages) == 1:
        found = pooled(((measure_alone(stages[0], frames, effort=effort), 1.0),))
    elif len(stages) == 2 and policy.pool is None:
        pair = measure_pair(*stages, frames, fusion=policy.fusion, effort=effort)
        found = pair.at(promised.escalation_rate)
    else:
        shares = promised.shares(len(stages))
        ways = measure_ways(
            stages,
            frames,
            shares=shares,
            pool=policy.pool,
            fusion=policy.fusion,
            effort=effort,
        )
        found = pooled(tuple(zip(ways, shares, strict=True)))
    return judge(promised, found)


def _with_reuse(
    promised: LatencyEntry, cascade: Cascade, frames: Sequence[Frame], *, effort: Effort
) -> PooledLatency:
    """Time frames that are found still as well, and weigh all ways."""
    stages, policy = cascade.stages, cascade.policy
    still, *shares = promised.shares(len(stages))
    settled = [one / max(sum(shares), 1e-9) for one in shares]
    if len(stages) == 2 and policy.pool is None:
        pair = measure_pair(*stages, frames, fusion=policy.fusion, effort=effort)
        ways = [pair.saver, pair.escalated]
    else:
        ways = list(
            measure_ways(
                stages,
                frames,
                shares=settled,
                pool=policy.pool,
                fusion=policy.fusion,
                effort=effort,
            )
        )
    look = measure_look(frames, effort=effort)
    return pooled(tuple(zip((look, *ways), (still, *shares), strict=True)))


def judge(promised: LatencyEntry, found: PooledLatency) -> Check:
    """Hold what was measured against the limits: kept, perhaps over by chance, or broken."""
    measured = {
        "mean_latency_ms": found.mean_ms,
        "p95_latency_ms": found.quantile_ms(0.95),
        "p99_latency_ms": found.quantile_ms(0.99),
    }
    told, worst = [], 0.0
    for name, limit in promised.limits.items():
        over = measured[name] / limit - 1
        worst = max(worst, over)
        how = f"over by {100 * over:.0f} %" if over > 0 else "kept"
        told.append(f"{name} {measured[name]:.2f} of {limit:g}, {how}")
    detail = f"{'; '.join(told)} ({_reached(promised)})"
    if worst > SLACK:
        return Check(LATENCY, False, detail)
    if worst > 0:
        return Check(LATENCY, None, f"{detail}: no more than runs differ by", warning=True)
    return Check(LATENCY, True, detail)


def _reached(promised: LatencyEntry) -> str:
    """Say how many frames go on to which stage."""
    if promised.asked is not None:
        later = promised.reached or (promised.escalation_rate,)
        each = ", ".join(f"{100 * one:.1f} %" for one in later)
        return f"a model is asked about {100 * promised.asked:.1f} % of frames, later ones {each}"
    if promised.reached is None:
        return f"{100 * promised.escalation_rate:.1f} % of frames escalated"
    each = ", ".join(f"{100 * one:.1f} %" for one in promised.reached)
    return f"{each} of frames go on to the later stages"


_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CERTIFIED = "certified"
"""The method that never leaves a bundle without a certificate."""


def verify(
    bundle: Bundle, *, large: RemoteModel | None = None, effort: Effort | None = EFFORT
) -> Verification:
    """Compare a bundle with itself on this machine.

    In this order, so that the first that fails is the cause: files, figures, certificate, class
    names, engines and hosts, image decoder, preprocessing, answers, decisions, latency.

    Args:
        bundle: an open bundle; opening it has compared the files with their hashes already.
        large: hosts that serve the large model, which is then asked there; None runs it here.
        effort: how long to time it, where a limit of time was promised; None times nothing.

    Raises:
        BundleError: the golden samples are damaged.
        InputError: a file that is needed to ask the hosts cannot be read.
    """
    return Verification(str(bundle.path), tuple(_checks(bundle, large, effort)))


def _checks(bundle: Bundle, large: RemoteModel | None, effort: Effort | None) -> Iterator[Check]:
    manifest = bundle.manifest
    models = [stage.model for stage in manifest.stages]
    count = sum(len(model.files) for model in models if not model.elsewhere)
    if count:
        yield Check("files", True, f"{count} model files are those that were calibrated")
    yield _check_figures(manifest)
    if manifest.certificate is not None:
        yield _check_certificate(bundle, manifest.certificate)
    elif manifest.method == CERTIFIED:
        yield Check("certificate", False, "is missing, although the method is certified")
    if not bundle.has_models:
        yield Check("golden samples", None, "made from records: there are no models")
        return
    golden = manifest.golden
    kept = None if golden is None else kept_answers(bundle, golden)
    if kept is not None:
        yield from _check_labels(manifest.labels, kept.get("labels"))
    try:
        cascade = Cascade.from_bundle(bundle, large=large)
    except (EngineError, MissingDependencyError) as error:
        yield why_not_open(bundle, error, elsewhere=large is not None)
        return
    with cascade:
        yield from check_engines(list(cascade.stages), golden)
        yield from _check_processor(manifest)
        if golden is None or kept is None:
            yield Check("golden samples", None, "the bundle was made without any")
            frames = [made_up_frame().decode()]
        else:
            frames = kept_frames(bundle, golden)
            yield check_decoder(bundle, golden, kept, frames)
            yield from compare_golden(kept, golden_answers(cascade, frames), bundle, golden)
        if effort is not None:
            yield check_latency(manifest.latency, cascade, frames, effort=effort)


def why_unproven(path: Path, settings: Mapping[str, Any], *, timeout_s: float) -> str | None:
    """Verify a bundle, but for its times, in a process of its own; return what speaks against it.

    A bundle that crashes or hangs takes nothing with it. Its times are not looked at: it may run
    beside another that is at work.

    Args:
        path: the bundle's folder.
        settings: ``large`` as for `verify`; ``absent`` where a bundle that has not the large
            model's file is to be loaded only, as for `LoadOptions`.
        timeout_s: how long it may take.

    Raises:
        TransferError: the hosts of the large model cannot be had, or serve another, or somebody
            stopped the process: that may be otherwise later, with the same bundle.
    """
    child = [sys.executable, "-c", f"from {__name__} import _prove; _prove()"]
    paths = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            child,
            input=pickle.dumps((path, dict(settings))),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return f"it was not loaded and proven within {timeout_s:g} s"
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        failure, hosts = told["failure"], told["hosts"]
    except (ValueError, IndexError, KeyError, TypeError):
        if -done.returncode in _STOPS:  # a supervisor stops all processes of a service
            raise TransferError("the process that proved it was stopped") from None
        how = f"signal {-done.returncode}" if done.returncode < 0 else "without an answer"
        return f"the process that loaded it crashed ({how})"
    if failure is not None and hosts:
        raise TransferError(str(failure))
    return None if failure is None else str(failure)


def _prove() -> None:
    """Verify what is named on stdin, and write what fails to stdout."""
    with suppress(OSError):
        os.nice(5)
    path, settings = pickle.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries write to stdout
    absent, hosts = settings.pop("absent", False), False
    try:
        with Bundle.load_untrusted(path) as bundle:
            if absent and bundle.manifest.stages[-1].model.elsewhere:
                Cascade.from_bundle(bundle, allow_absent=True).close()
                failed = None
            else:
                found = verify(bundle, effort=None, **settings)
                failed = next((one for one in found.checks if one.passed is False), None)
            failure = None if failed is None else f"{failed.name}: {failed.detail}"
            hosts = failed is not None and failed.name == hosts_of(
                bundle.manifest.stages[-1].model.name
            )
            if failure is None and not bundle.has_models:
                failure = "it holds no models"
    except TinySaverError as error:
        failure = str(error)
        hosts = settings.get("large") is not None and isinstance(error, EngineError)
    os.write(answer, json.dumps({"failure": failure, "hosts": hosts}).encode() + b"\n")


def _check_processor(manifest: Manifest) -> Iterator[Check]:
    """Hold the kind of processor against that which quantised models were measured on."""
    eight = [stage.model for stage in manifest.stages if stage.model.quantised]
    if not eight or manifest.processor is None:
        return
    why = [said for model in eight if (said := other_processor(manifest, model)) is not None]
    if why:
        yield Check("processor", None, "; ".join(why), warning=True)
    else:
        yield Check("processor", True, f"INT8 was measured on its kind, {manifest.processor}")


def _check_figures(manifest: Manifest) -> Check:
    """Recompute what follows from other figures: drop, rates, cost."""
    policy = Policy.from_manifest(manifest)
    for name, told in (("calibration", manifest.calibration), ("holdout", manifest.holdout)):
        why = None if told is None else why_figures_disagree(policy, told)
        if why is not None:
            return Check("figures", False, f"those of the {name} {why}")
    return Check("figures", True, "accuracies, drop, rates and cost follow from each other")


def _check_certificate(bundle: Bundle, entry: CertificateEntry) -> Check:
    """Recompute a certificate from its counts and hold it against models and threshold."""
    try:
        certificate = Certificate.from_json(entry.counts)
        certificate.recompute()
    except (InputError, VerificationError) as error:
        return Check("certificate", False, str(error))
    threshold = bundle.manifest.stages[0].threshold
    # What differs by how much is told first: that something does, a hash knows as well.
    if threshold is not None and certificate.covers(threshold):
        differs = _differs(certificate.stopping_at(threshold), bundle.manifest)
        if differs is not None:
            return Check("certificate", False, differs)
    if (why := why_not_covered(bundle.manifest)) is not None:
        return Check("certificate", False, why.removeprefix("it "))
    codec = bundle.manifest.stages[-1].model.codec
    counted = f", counted from the large model on {codec}" if codec else ""
    said = f"{certificate.statement}{counted}{entry.given}"
    return Check(
        "certificate",
        True,
        f"{said} (p = {certificate.p_value:.2g}, recomputed)",
    )


def _differs(certificate: Certificate, manifest: Manifest) -> str | None:
    """Say where a certificate's counts are not those of the figures beside it; None where nowhere.

    Both are of the same samples, so whoever changes one alone is found out.
    """
    promised = manifest.max_drop_points
    if promised is not None and abs(promised - certificate.max_drop_points) > 1e-9:
        return f"is for {certificate.max_drop_points:g} points, the bundle says {promised:g}"
    n, figures = certificate.samples, manifest.calibration
    if n != figures.samples:
        return f"counts {n} samples, the bundle was calibrated on {figures.samples}"
    accepted, kept = certificate.steps[-1].accepted / n, figures.accept_rate
    if abs(accepted - kept) > 1e-9:
        return f"counts {percent(accepted, 4)} accepted, the calibration {percent(kept, 4)}"
    rule = None if manifest.reuse is None else manifest.reuse.rule
    step = certificate.steps[-1]
    here = (0.0, 0.0) if rule is None else (rule.still, rule.same)
    if (step.still, step.same) != here:
        return (
            f"counts still {step.still:g} and same {step.same:g}, the bundle reuses at {here[0]:g} "
            f"and {here[1]:g}"
        )
    drop_points = 100 * (certificate.lost - certificate.gained) / n
    if abs(drop_points - figures.drop_points) > 1e-9:
        return f"counts {drop_points:.4f} points lost, the calibration {figures.drop_points:.4f}"
    told = figures.drop_interval_points
    if told is not None and not certificate.evidence.grouped:
        counted = interval_of(certificate.lost, certificate.gained, n)
        if counted is None or max(abs(a - b) for a, b in zip(told, counted, strict=True)) > 1e-6:
            return f"counts another interval of the drop than {told[0]:.3f} to {told[1]:.3f}"
    return None


def _check_labels(labels: Sequence[str] | None, kept: NDArray[Any] | None) -> Iterator[Check]:
    """Compare the classes' names and their order with those that were kept, where any were."""
    if kept is None:
        return
    here = np.array(labels or [], kept.dtype if kept.dtype.kind == "U" else None)
    if kept.shape != here.shape:
        yield Check("class names", False, f"{len(here)} here, {len(kept)} were calibrated")
        return
    moved = np.flatnonzero(kept != here)
    if not len(moved):
        yield Check("class names", True, f"{len(here)}, in the order that was calibrated")
        return
    place = int(moved[0])
    yield Check(
        "class names",
        False,
        f"{len(moved)} of {len(here)} are in another place: class {place} was "
        f"{str(kept[place])!r}, here it is {str(here[place])!r}",
    )
