"""The thirteen ImageNet records and the pairs among them, for the benchmarks."""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinysaver_edge.outputs import BoolArray, IntArray, Outputs

DATA = Path(os.environ.get("TINYSAVER_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results"

FOUR_PAIRS = (
    ("mobilenetV2", "xception"),
    ("mobilenetV2", "inceptionresnetv2"),
    ("nasnetmobile", "nasnetlarge"),
    ("densenet121", "nasnetlarge"),
)


@dataclass(frozen=True)
class Records:
    """What each model answered on the 50,000 validation images.

    Attributes:
        outputs: by model name.
        labels: (50000,), the true classes.
        macs: multiply-accumulates of one image, by model name.
    """

    outputs: dict[str, Outputs]
    labels: IntArray
    macs: dict[str, float]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every saver with every large model that takes more MACs: 78 pairs."""
        by_cost = sorted(self.macs, key=lambda model: self.macs[model])
        return [(s, m) for i, s in enumerate(by_cost) for m in by_cost[i + 1 :]]

    def kappa(self, saver: str, large: str) -> float:
        """Cost of the saver relative to the large model."""
        return self.macs[saver] / self.macs[large]

    def correct(self, model: str) -> BoolArray:
        """Which images the model gets right, (50000,)."""
        return np.equal(self.outputs[model].predictions, self.labels)


def read_records() -> Records:
    """Read all thirteen records, or end the benchmark with what to set."""
    folder = DATA / "records"
    if not (folder / "models.csv").is_file():
        print(f"no records in {folder}: set TINYSAVER_DATA", file=sys.stderr)
        raise SystemExit(2)
    with (folder / "models.csv").open(newline="") as file:
        macs = {row["name"]: float(row["macs"]) for row in csv.DictReader(file)}
    outputs = {}
    for model in macs:
        with np.load(folder / f"{model}.npz") as arrays:
            outputs[model] = Outputs.from_topk(arrays["top5_class"], arrays["top5_prob"])
    return Records(outputs, np.load(folder / "labels.npy").astype(np.int64), macs)


def called_with(doc: str | None, *, most: int = 0, names: Collection[str] = ()) -> list[str]:
    """Return what follows a script's name; where it takes no such thing, say what it is, and end.

    Args:
        doc: what the script is, and how it is called.
        most: how many words it takes.
        names: the words that it takes, where not any will do.
    """
    words = sys.argv[1:]
    wrong = [one for one in words if one.startswith("-") or (names and one not in names)]
    if not wrong and len(words) <= (most or len(names)):
        return words
    print((doc or "").strip())
    sys.exit(0 if words in (["-h"], ["--help"]) else 2)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def save(name: str, *, title: str, text: str, figures: dict[str, Any]) -> None:
    """Print the text, and write it and the figures into the results folder."""
    command = f"python benchmarks/{Path(sys.argv[0]).stem}.py"
    machine = f"numpy {np.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"
    page = f"# {title}\n\n`{command}` ({machine})\n\n{text}\n"
    print(page)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    values = {"command": command, "machine": machine} | figures
    (RESULTS / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
