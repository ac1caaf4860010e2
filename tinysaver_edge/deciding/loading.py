"""Loads the stages of a bundle: each model here, in a process of its own, or on other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from numpy.typing import NDArray

from tinysaver_edge._support.resources import default_cache_dir
from tinysaver_edge.artefact import Artefact, bundled_artefacts
from tinysaver_edge.deciding.policy import Policy, StagePolicy
from tinysaver_edge.deciding.stage import Stage
from tinysaver_edge.engines.base import Engine, EngineOptions, ModelSignature, signature_for
from tinysaver_edge.engines.remote import RemoteModel, remote_model
from tinysaver_edge.errors import BundleError, EngineError, InputError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Batch, Preprocess

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tinysaver_edge.bundle.bundle import Bundle


class AbsentEngine(Engine):
    """Fails whenever it is asked, for streams that never ask it."""

    name: ClassVar[str] = "absent"
    suffixes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: str, *, preprocess: Preprocess) -> None:
        self._signature = signature_for(preprocess)
        super().__init__(Path(model), preprocess=preprocess, output=OutputFormat())

    def _check_model(self) -> None:
        """Nothing: there is no file."""

    def _load(self) -> tuple[str, ModelSignature]:
        return "nowhere", self._signature

    def _run(self, batch: Batch) -> NDArray[Any]:
        raise EngineError(f"{self.model}: this bundle does not hold its file, and no host is named")


class LoadOptions(TypedDict, total=False):
    """How the models of a bundle are opened; each may be left out.

    Attributes:
        threads: processor threads for one inference; None leaves it to the engines.
        cache_dir: folder for compiled models; None takes the user's cache folder.
        allow_fallback: where a device is missing, run on the CPU. Decisions then say so in
            ``degraded`` and are not certified.
        large: hosts that serve the large model, as ``"grpc://host:port/model"``, several of them,
            or a `RemoteModel` with all else; None runs it here. The certificate covers their
            answers where they tell the hash of the calibrated model, or the user vouches for them;
            else `Cascade.doubt` says why not.
        large_worker: run the large model in a process of its own. When that dies or hangs its
            frames are ``degraded``, and it is started again.
        allow_absent: load a bundle without the large model's file although no host is named, for
            streams of escalation ``"local"``; asked, the large model is an error then.
    """

    threads: int | None
    cache_dir: Path | None
    allow_fallback: bool
    large: RemoteModel | str | Sequence[str] | None
    large_worker: bool
    allow_absent: bool


def load_stages(bundle: Bundle, **options: Unpack[LoadOptions]) -> list[Stage]:
    """Build every stage of a bundle and run each once.

    Raises:
        BundleError: it holds no models, or not all that are needed; or models and labels differ.
        EngineError: an engine, device or precision is not to be had here.
        InputError: a URL cannot be understood, or hosts and a worker are to run one model.
        MissingDependencyError: an engine's package is not installed.
        TypeError: there is no such option.
    """
    known = LoadOptions.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(known)}")
    large, large_worker = options.get("large"), options.get("large_worker", False)
    if large is not None and large_worker:
        raise InputError("the large model is answered by other hosts or by a worker: name one")
    hosts = None if large is None else remote_model(large)
    artefacts = bundled_artefacts(
        bundle,
        EngineOptions(
            threads=options.get("threads"),
            cache_dir=options.get("cache_dir") or default_cache_dir(),
            allow_fallback=options.get("allow_fallback", False),
        ),
        elsewhere=hosts is not None or options.get("allow_absent", False),
    )
    stages: list[Stage] = []
    try:
        for artefact, policy in zip(
            artefacts, Policy.from_manifest(bundle.manifest).stages, strict=True
        ):
            if hosts is not None and artefact is artefacts[-1]:
                # It was warmed up, and its classes counted, when its hosts were proven.
                engine = _elsewhere(artefact, hosts, bundle)
                stages.append(Stage(engine, preprocess=artefact.preprocess, policy=policy))
                continue
            if not artefact.files:
                stages.append(_absent(artefact, policy))
                continue
            apart = large_worker and artefact is artefacts[-1]
            stages.append(_apart(artefact, policy) if apart else Stage.opened(artefact, policy))
            classes = stages[-1].warm_up()
            if artefact.classes is not None and classes != artefact.classes:
                raise BundleError(
                    f"bundle {bundle.path}: {artefact.name} answers with {classes} classes, but "
                    f"there are {artefact.classes} labels"
                )
    except BaseException:
        for stage in stages:
            stage.close()
        raise
    return stages


def _elsewhere(artefact: Artefact, hosts: RemoteModel, bundle: Bundle) -> Engine:
    """Open the last stage's model where others serve it."""
    from tinysaver_edge.engines.remote.engine import RemoteEngine
    from tinysaver_edge.engines.remote.facts import golden_of

    return RemoteEngine(
        hosts,
        preprocess=artefact.preprocess,
        output=artefact.output,
        classes=artefact.classes,
        sha256=artefact.sha256,
        codec=artefact.codec,
        golden=golden_of(bundle, artefact.preprocess),
        options=artefact.options,
    )


def _absent(artefact: Artefact, policy: StagePolicy) -> Stage:
    """Hold the place of a model that is not here and that nobody is going to ask."""
    engine = AbsentEngine(artefact.name, preprocess=artefact.preprocess)
    return Stage(engine, preprocess=artefact.preprocess, policy=policy)


def _apart(artefact: Artefact, policy: StagePolicy) -> Stage:
    """Open a model in a process of its own."""
    from tinysaver_edge.engines.worker import Setup, WorkerEngine

    engine = WorkerEngine(
        Setup(
            artefact.engine,
            artefact.files[0],
            artefact.preprocess,
            artefact.output,
            artefact.options,
        )
    )
    return Stage(engine, preprocess=artefact.preprocess, policy=policy, codec=artefact.codec)
