"""The pages of the site that are made: metrics, errors, devices, benchmarks, `llms.txt`.

What the code knows is not written down a second time, and no figure is copied by hand.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

MADE = (
    "reference/python.md",
    "reference/metrics.md",
    "reference/errors.md",
    "reference/recipe.md",
    "reference/device-profile.md",
    "devices.md",
    "benchmarks.md",
)
"""They are written by every build, and not kept in the repository."""

PLACES = (
    "tinysaver_edge",
    "tinysaver_edge.stream",
    "tinysaver_edge.engines",
    "tinysaver_edge.calibrate",
    "tinysaver_edge.testing",
)


def write(docs: Path) -> None:
    """Write every page that is made."""
    root = docs.parent
    pages = dict(
        zip(
            MADE,
            (
                _python(),
                _metrics(),
                _errors(),
                _recipe(root),
                _profile(root),
                _devices(root),
                _benchmarks(root),
            ),
            strict=True,
        )
    )
    for name, text in pages.items():
        path = docs / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def copy_markdown(app: Any, error: Exception | None) -> None:  # noqa: ANN401 - Sphinx's
    """Lay every page beside its HTML as Markdown, and a list of them for machines that read."""
    if error is not None or app.builder.name != "html":
        return
    out, docs = Path(app.outdir), Path(app.srcdir)
    lines = ["# tinysaver-edge", "", f"> {_first_sentence(docs / 'index.md')}", ""]
    for name in sorted(app.env.found_docs):
        source = docs / f"{name}.md"
        target = out / f"{name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        lines.append(f"- [{_title(source)}]({name}.md): {_first_sentence(source)}")
        symptoms = re.findall(r"^### (.+)$", source.read_text(encoding="utf-8"), re.M)
        lines += [f"  - {one}" for one in symptoms if name == "troubleshooting"]
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.M)
    return found[1] if found else page.stem


def _first_sentence(page: Path) -> str:
    text = page.read_text(encoding="utf-8").split("\n# ", 1)[-1].split("\n", 1)[-1]
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    paragraph = next(
        (one for one in plain.split("\n\n") if re.match(r"\n*[A-Z*`]", one)), _title(page)
    )
    told = " ".join(re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", paragraph).split())
    return told.split(". ")[0].rstrip(".:") + "."


def _python() -> str:
    """Every public name, with its docstring."""
    parts = [
        "# Python\n",
        "What other programs may import, and all of it: five places, each with a list of names. "
        "Every other module is internal and may change in any release.\n",
    ]
    for place in PLACES:
        module = importlib.import_module(place)
        parts.append(f"## {place}\n\n{_opening(module)}\n")
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType) or name.startswith("__"):
                continue
            parts.append(_entry(place, name, value))
    return "\n".join(parts) + "\n"


def _opening(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _entry(place: str, name: str, value: object) -> str:
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    elif callable(value) and inspect.isfunction(value):
        kind = "autofunction"
    else:
        return f"```{{eval-rst}}\n.. py:data:: {place}.{name}\n\n   {_told_of(name)}\n```\n"
    return f"```{{eval-rst}}\n.. {kind}:: {place}.{name}\n```\n"


def _told_of(name: str) -> str:
    """Return what stands under a name's assignment, wherever in the package that is."""
    package = Path(importlib.import_module(PLACES[0]).__file__ or "").parent
    under = re.compile(rf'^{name}(?:: [^=]+)? = .*?\n"""(.+?)"""', re.M | re.S)
    for module in sorted(package.rglob("*.py")):
        if found := under.search(module.read_text(encoding="utf-8")):
            return " ".join(found[1].split())
    raise LookupError(f"{name} is public, and nothing says what it is")


def _metrics() -> str:
    """Every counter, level and time of a stream, as Prometheus gets them."""
    from tinysaver_edge.stream.telemetry.metrics import Counter, Gauge, Measure
    from tinysaver_edge.stream.telemetry.prometheus import DETAILS, HELP, PREFIX

    rows = []
    for one in (*Counter, *Gauge, *Measure):
        name = {
            Counter: f"{PREFIX}_{one.value}_total",
            Gauge: f"{PREFIX}_{one.value}",
            Measure: f"{PREFIX}_{one.value.removesuffix('_ms')}_seconds",
        }[type(one)]
        labels = ["source"]
        if one in DETAILS:
            labels.append(DETAILS[one])  # type: ignore[index]
        if isinstance(one, Measure):
            labels.append("answered_by")
        kind = {Counter: "counter", Gauge: "level", Measure: "histogram"}[type(one)]
        rows.append((f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), HELP[one]))
    return (
        "# Metrics\n\n"
        "`tinysaver-edge run --metrics HOST:PORT` serves these at `/metrics` for Prometheus, with "
        "`/healthz` and `/readyz` beside them. Where a bundle has a certificate, what is left of "
        "its promise is there too (`tinysaver_effective_drop_points` and its neighbours), and with "
        "`--large` each host's state (`tinysaver_large_host_…`). What each counter of energy that "
        "this process may read (label `counter`) has counted since the start is "
        "`tinysaver_energy_joules_total`; `run` says why where there is none. `/metrics` itself "
        "carries a line of help for each.\n\n"
        + _table(("name", "kind", "labels", "what it is"), rows)
    )


def _errors() -> str:
    """Every error, what it means and what a command exits with."""
    from tinysaver_edge import errors

    found = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.TinySaverError)
    ]
    rows = [
        (
            f"`{one.__name__}`",
            f"`{one.__mro__[1].__name__}`",
            str(one.exit_code),
            " ".join((one.__doc__ or "").split("\n\n")[0].split()),
        )
        for one in found
    ]
    return (
        "# Errors and exit codes\n\n"
        "Every error that is raised on purpose is a `TinySaverError`; its message is one line that "
        "says what was wrong, where, and what to do. A command ends with\n\n"
        "| exit code | when |\n|---|---|\n"
        "| 0 | it did all it was asked to |\n"
        "| 2 | bad input, an engine or device that is not to be had, or an answer that could not "
        "be written |\n"
        "| 3 | nothing fits what was asked for, or `verify` finds it only too slow |\n"
        "| 130, 143 | ended by Ctrl-C, by SIGTERM; what was under way is written out |\n\n"
        "With `--json`, a failure is one object too: `error`, `exit_code`, and of `calibrate` "
        "the `candidates`. `run` writes it as the last line, with a `frame_id` of null: it is "
        "about no frame.\n\n" + _table(("error", "is a", "exit code", "meaning"), rows)
    )


def _recipe(root: Path) -> str:
    """The keys of a recipe, from the page that stands beside the recipes."""
    text = (root / "calibration" / "README.md").read_text(encoding="utf-8")
    return text.replace("# Calibration", "# Recipes", 1)


def _profile(root: Path) -> str:
    """The fields of a device's profile, from the page that stands beside the profiles."""
    text = (root / "devices" / "README.md").read_text(encoding="utf-8")
    return text.replace("# Devices", "# Device profiles", 1)


def _devices(root: Path) -> str:
    """Every device and engine: what a model takes there, who ran it, when; and who has not."""
    from tinysaver_edge.hardware.profile import load_profile

    profiles = [load_profile(str(path)) for path in sorted((root / "devices").glob("*.toml"))]
    measured, unmeasured = [], []

    def short(device: str) -> str:
        return device.removesuffix("ExecutionProvider")

    for profile in profiles:
        ran = profile.verified.measured
        measured += [
            (
                f"`{profile.name}`", one.model, f"{one.latency_ms:g}",
                f"{one.engine} {one.version} on {short(one.device)}, {one.precision}",
                f"{one.who}, on {one.machine}", f"{one.when}",
            )
            for one in ran
        ]  # fmt: skip
        known = {(one.engine, one.device) for one in ran}
        unmeasured += [
            (f"`{profile.name}`", one.engine, short(one.device), one.precision, "nobody has")
            for one in profile.engines
            if (one.engine, one.device) not in known
        ]
    heads = ("device", "model", "ms a frame", "engine", "who ran it", "when")
    lacking = ("device", "engine", "on", "precision", "who ran it")
    told = [
        (
            f"`{one.name}`",
            one.description,
            "yes" if one.verified.on_hardware else "nobody has run it",
            "; ".join(one.verified.ran) or "-",
        )
        for one in profiles
    ]
    return (
        "# Devices\n\n"
        "What a model takes on a device, one frame at a time. Yours is one command, "
        "`tinysaver-edge bench MODEL`, and a few lines in a [profile](reference/device-profile.md)."
        "\n\n"
        + _table(heads, measured)
        + "\n## Not measured\n\n"
        + _table(lacking, unmeasured)
        + "\n## Profiles\n\n"
        "Profiles size a fleet: engines, budgets, set-up, and where each figure is from. "
        "`tinysaver-edge devices show NAME` prints one whole, `devices new NAME` writes one of "
        "your own, and `devices probe` says what the machine at hand has.\n\n"
        + _table(("profile", "what it is", "run on hardware", "what was run"), told)
    )


def _benchmarks(root: Path) -> str:
    """Every committed result, as its benchmark wrote it."""
    parts = [
        "# Benchmarks\n",
        "Each table is what a command in the repository wrote, unchanged. Machines were shared "
        "and noisy unless a page says otherwise: ratios and spreads tell more than times.\n",
    ]
    for path in sorted((root / "benchmarks" / "results").rglob("*.md")):
        text = path.read_text(encoding="utf-8").strip()
        name = path.relative_to(root / "benchmarks" / "results").with_suffix("").as_posix()
        body = re.sub(r"^(#+) ", lambda found: f"{found[1]}## ", text, flags=re.M)
        parts.append(f"## {name}\n\n{_apart(body)}\n")
    return "\n".join(parts)


def _apart(body: str) -> str:
    """Leave out headings of a result: the page has its own."""
    return re.sub(r"^#+ .*\n+", "", body, flags=re.M)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
