"""What other programs may import: exactly these names, each from one place, each loading."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.test_import import run
from tinysaver_edge import errors
from tinysaver_edge.stream.telemetry import events

ROOT = Path(__file__).resolve().parents[1]

ERRORS = """BundleError DataError DescriptionError EngineError InfeasibleError InputError
MissingDependencyError ModelError RecipeError RecordError SourceError TinySaverError TooSlowError
TransferError VerificationError"""

PUBLIC = {
    "tinysaver_edge": f"""AnswerSource Bundle BundleIdentity Cascade Decision Escalation FrameId
        Fusion Likeness LoadOptions Manifest ModelDescription ModelIdentity Outputs Reason
        ReuseRegion RemoteModel ReuseRule Reused Score Stage StagePolicy StageRef Tls Token Track
        Trust {ERRORS} __version__ calibrate engines find_description get_fusion get_score stream
        testing""",
    "tinysaver_edge.stream": """Action AllMetrics AnySource BundleNews CalibrationSetSink
        CallbackSink ChangeSink Changed Connected Connection Context Corrupt Counter
        DecisionFuture Denied Device DeviceError DisagreementEntry Doubtful Drift DriftOptions
        DriftState DriftWatch Dropped Ended Event ForwardOptions Frame Frozen Gauge
        HardFramesSink IterableSource JsonlSink Kept Listener Listeners LiveOptions LiveSource
        Lost Measure Metrics MqttAddress MqttSink PreviewSink PrometheusMetrics Queued
        RandomShare Reading Reconnected Retrying Service ServiceOptions Sink SinkFailed
        SinkRecovered Source SourceUri Stream StreamOptions Tally Undecided VideoSink Watch
        calibrated_disagreement open_sink open_source""",
    "tinysaver_edge.engines": """Batch ColorOrder Engine EngineOptions InputFormat Layout
        ModelSignature OutputFormat OutputKind Precision Preprocess Resize ResizePolicy Seal
        TensorInfo create_engine engine_names inspect signature_of""",
    "tinysaver_edge.calibrate": """AnswerWord Asked Bets Budgets Calibration Candidate Certificate
        CodecCost CutEpochs DataSource DeviceProfile EvidenceKind Figures ImageInput Interview Jpeg
        LeftOut Method MethodRow ModelFile Objective Plan Policy PredictedLatency Progress
        Question QuestionPlan RecordInput Reference ReuseFigures Sample Targets
        TriedCombination WalkStep calibrate load_profile plan_questions""",
    "tinysaver_edge.testing": """FAKE_PREPROCESS MOST_FRAMES FakeClock FakeEngine FakeSource
        frame_numbers numbered_frame""",
}
LAZY = ("tinysaver_edge", "tinysaver_edge.stream", "tinysaver_edge.engines")


@pytest.mark.parametrize("place", PUBLIC)
def test_a_place_offers_exactly_this(place: str) -> None:
    module = importlib.import_module(place)
    assert sorted(module.__all__) == sorted(PUBLIC[place].split())
    for name in module.__all__:
        assert getattr(module, name) is not None
    if place in LAZY:
        assert dir(module) == sorted(module.__all__)
        with pytest.raises(AttributeError, match=f"'{place}' has no attribute 'nonsense'"):
            module.nonsense  # noqa: B018


def test_every_name_has_one_place() -> None:
    names = [name for listed in PUBLIC.values() for name in listed.split()]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {"calibrate"}  # the package, and the function in it


def test_every_error_is_public() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TinySaverError)
    }
    assert raised == set(ERRORS.split())


def wanted(thing: type | Callable[..., object]) -> Iterator[str]:
    """Yield the types that a public class or function wants to be given, as they are written."""
    for name, one in vars(thing).items() if isinstance(thing, type) else [("", thing)]:
        if name == "__init__" or not name.startswith("_"):
            marks = getattr(getattr(one, "__func__", one), "__annotations__", {})
            yield from (str(form) for given, form in marks.items() if given != "return")


READ_ONLY = {
    "Bundle",
    "Calibration",
    "Candidate",
    "DeviceProfile",
    "Interview",
    "Manifest",
    "PredictedLatency",
    "QuestionPlan",
}
"""Values that users get and never make."""

HANDED_THROUGH = {"Address", "Artefact", "Calls", "CameraMemory", "Decider", "RemoteEngine"}
"""Values that users get of one public name and give to another."""


def test_types_that_users_must_give_are_public() -> None:
    ours = {
        node.name
        for path in (ROOT / "tinysaver_edge").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    } - {"Path", "Picture"}  # the standard library's, and a picture's array
    public = {name: place for place, listed in PUBLIC.items() for name in listed.split()}
    named = {
        word
        for name, place in public.items()
        if name not in READ_ONLY
        for form in wanted(getattr(importlib.import_module(place), name))
        for word in re.findall(r"\b[A-Z]\w+", form)
    }
    # A type that is new here is either exported by one of these places, or handed through.
    assert (named & ours) - public.keys() == HANDED_THROUGH


def test_every_event_is_public() -> None:
    told = {one.__name__ for one in events.Event.__subclasses__()}
    assert {"Lost", "SinkFailed"} < told
    assert told <= set(PUBLIC["tinysaver_edge.stream"].split())


def test_calibrate_is_the_package_whichever_way_it_is_imported() -> None:
    program = (
        "import json, types, tinysaver_edge\n"
        "before = tinysaver_edge.calibrate\n"
        "import tinysaver_edge.calibrate\n"
        "from tinysaver_edge import calibrate\n"
        "assert before is calibrate is tinysaver_edge.calibrate\n"
        "assert isinstance(calibrate, types.ModuleType) and callable(calibrate.calibrate)\n"
        "print(json.dumps('good'))\n"
    )
    assert json.loads(run(program)) == "good"


@pytest.mark.parametrize("place", LAZY)
def test_type_checkers_are_told_what_is_loaded(place: str) -> None:
    file = importlib.import_module(place).__file__
    assert file is not None
    (choice,) = [
        node for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.If)
    ]
    told = {
        (imported.module, name.name)
        for imported in choice.body
        if isinstance(imported, ast.ImportFrom)
        for name in imported.names
    }
    (loaded,) = [node for node in ast.walk(choice) if isinstance(node, ast.Dict)]
    places = ast.literal_eval(loaded)
    inside = {key: key if key.startswith("tinysaver_edge.") else f"{place}.{key}" for key in places}
    expected = {(inside[key], name) for key, names in places.items() for name in names}
    expected |= {(place, key) for key, names in places.items() if not names}
    assert told == expected


def imports(program: str) -> set[tuple[str, str]]:
    return {
        (node.module, name.name)
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinysaver_edge")
        for name in node.names
    }


def shown() -> dict[str, str]:
    """Programs that users are shown: the examples, and what the documents print."""
    programs = {path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")}
    for document in ("README.md", "CONTRIBUTING.md"):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
        programs |= {f"{document} {count}": block for count, block in enumerate(blocks)}
    return programs


@pytest.mark.parametrize("name", shown())
def test_what_users_are_shown_imports_only_what_is_public(name: str) -> None:
    allowed = {(place, one) for place, listed in PUBLIC.items() for one in listed.split()}
    if name == "train_demo_models.py":  # makes a part of the package
        allowed |= {("tinysaver_edge.demo", "TRAINING_SEEDS_FROM")}
        allowed |= {("tinysaver_edge.demo.camera", one) for one in CAMERA}
    assert imports(shown()[name]) - allowed == set()


CAMERA = ("CLASS_NAMES", "FRAME_HEIGHT", "FRAME_WIDTH", "SimulatedCamera")


def test_modules_that_the_documents_name_are_there() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        for dotted in set(re.findall(r"tinysaver_edge(?:\.\w+)+", text)):
            resolve(dotted)


def test_files_that_contributors_are_sent_to_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([\w./]+(?:\.py|\.toml|/))`", text))
    named |= set(re.findall(r"^    ([\w/]+(?:\.py|/)) ", text, re.MULTILINE))
    assert {"cascade.py", "stream/sinks/", "stream/pipeline.py", "deciding/"} <= named
    folders = (
        "tinysaver_edge",
        "devices",
        "calibration",
        "examples",
        "tests",
        "benchmarks",
        "docs",
    )
    held = [path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.*")]
    held.append((ROOT / "pyproject.toml").as_posix())
    absent = {one for one in named if not any(f"/{one}" in path for path in held)}
    assert absent == {"devices/NAME.toml", "calibration/NAME.toml", "images/"}


def resolve(dotted: str) -> object:
    """Return what a dotted name stands for; a group of entry points needs no module."""
    if dotted in {"tinysaver_edge.scores", "tinysaver_edge.sources", "tinysaver_edge.sinks"}:
        return None
    found: object = importlib.import_module("tinysaver_edge")
    parts = dotted.split(".")
    for count, part in enumerate(parts[1:], start=2):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found
