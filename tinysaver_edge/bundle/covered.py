"""What a certificate was measured with, and whether the bundle beside it is still that.

A bundle states everything twice: once as what to run, once, within the certificate, as what was
measured. Who edits one of them alone, a threshold, a model file and its hash, the preprocessing, is
found out, and decisions are not certified. Who rewrites both is not: that takes a signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tinysaver_edge.bundle.manifest import (
    CertificateEntry,
    Manifest,
    MeasuredEntry,
    MeasuredStageEntry,
    Named,
    StageEntry,
)
from tinysaver_edge.certificate.certificate import Certificate
from tinysaver_edge.errors import InputError
from tinysaver_edge.reuse import ReuseRule


def measured_with(
    stages: Sequence[StageEntry],
    *,
    fusion: Named | None,
    pool: Sequence[float] | None = None,
    labels: Sequence[str] | None,
    reuse: ReuseRule | None = None,
) -> MeasuredEntry:
    """Return what a certificate of such a cascade speaks of."""
    return MeasuredEntry(
        stages=[_measured(stage) for stage in stages],
        fusion=fusion,
        pool=None if pool is None else list(pool),
        labels_sha256=None if labels is None else _sha256(list(labels)),
        reuse=reuse,
    )


def figures_sha256(manifest: Manifest) -> str:
    """Return the hash of a certificate and of the figures that were measured together with it."""
    # What is not there is left out: a field that is added later changes no earlier hash.
    told = manifest.model_dump(
        mode="json",
        include={"calibration", "holdout", "disagreement", "latency"},
        exclude_none=True,
    )
    if (entry := manifest.certificate) is not None:
        told["certificate"] = entry.model_dump(
            mode="json", exclude={"figures_sha256"}, exclude_none=True
        )
    macs = [stage.model.macs for stage in manifest.stages]
    return _sha256([json.dumps(told, sort_keys=True), macs])


def why_not_covered(manifest: Manifest, *, cut: str | None = None) -> str | None:
    """Say why a bundle's certificate does not speak of the cascade beside it; None if it does.

    The counts are not checked here: `verify` recomputes them.

    Args:
        manifest: the bundle's.
        cut: what is left out of each frame that is to be decided, in the words of `cut_sources`;
            None where nobody says.
    """
    entry, threshold = manifest.certificate, manifest.stages[0].threshold
    if entry is None:
        return "it has no certificate"
    if threshold is None:
        return "it accepts nothing"
    for stage in manifest.stages:
        name = stage.model.name
        if name not in entry.models or entry.models[name] != stage.model.sha256:
            return f"it was not made for this {name}: its hash differs"
    if len(entry.models) != len({stage.model.name for stage in manifest.stages}):
        return f"it was made for other models ({', '.join(entry.models)})"
    codec = manifest.stages[-1].model.codec
    if cut is not None and entry.cut not in (None, cut):
        made = f"with {entry.cut}" if entry.cut else "on whole frames"
        return f"it was made {made}, here they are {f'cut: {cut}' if cut else 'whole'}"
    if codec != entry.codec:
        made = f"was made on {entry.codec or 'pixels'}"
        return f"it {made}, the large model would see {codec or 'pixels'}"
    try:
        if not Certificate.from_json(entry.counts).covers(threshold):
            return f"it does not cover the threshold {threshold}"
    except InputError as error:
        return str(error)
    return _otherwise_measured(entry, manifest)


def _otherwise_measured(entry: CertificateEntry, manifest: Manifest) -> str | None:
    """Say in what the cascade differs from what was measured."""
    if entry.figures_sha256 not in (None, figures_sha256(manifest)):
        return "it, or a figure beside it, is not what was written when it was made"
    if entry.measured is None:  # version 1 knew the models' hashes, the threshold and the codec
        told = manifest.schema_version == 1
        return None if told else "it does not say what it was measured with: calibrate again"
    here = measured_with(
        manifest.stages,
        fusion=manifest.fusion,
        pool=manifest.pool,
        labels=manifest.labels,
        reuse=None if manifest.reuse is None else manifest.reuse.rule,
    )
    return next(_differences(_plain(entry.measured), _plain(here)), None)


def _differences(made: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    if len(made["stages"]) != len(here["stages"]):
        yield f"it was made for {len(made['stages'])} stages"
        return
    for before, now in zip(made["stages"], here["stages"], strict=True):
        for field, value in before.items():
            if value != now[field] and field == "sha256":
                yield f"it was not made for this {before['model']}: its hash differs"
            elif value != now[field]:
                yield _told(f"{field} of {before['model']}", value, now[field])
    for field in ("fusion", "pool", "reuse"):
        if made[field] != here[field]:
            yield _told(field, made[field], here[field])
    # Names that came later stand for the numbers that were measured; what these mean stays.
    if made["labels_sha256"] not in (None, here["labels_sha256"]):
        yield "it was made for other class names, or in another order"


def _told(what: str, made: object, here: object) -> str:
    return f"it was made with {what} {_short(made)}, the bundle says {_short(here)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else "otherwise"


def _plain(entry: MeasuredEntry) -> dict[str, Any]:
    """Return it as JSON gives it back, so that what was made and what was read compare."""
    plain: dict[str, Any] = json.loads(json.dumps(entry.model_dump(mode="json")))
    return plain


def _measured(stage: StageEntry) -> MeasuredStageEntry:
    model = stage.model
    return MeasuredStageEntry(
        model=model.name,
        sha256=model.sha256,
        engine=model.engine,
        device=model.device,
        precision=model.precision,
        preprocess=model.preprocess,
        output=model.output,
        codec=model.codec,
        score=stage.score,
        threshold=stage.threshold,
    )


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
