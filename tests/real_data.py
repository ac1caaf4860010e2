"""The real records that some tests and benchmarks read; they skip where these are absent."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tinysaver_edge.outputs import Outputs


def data_folder() -> Path:
    """Where the shared data lies: TINYSAVER_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("TINYSAVER_DATA", beside))


@dataclass(frozen=True)
class Records:
    """Outputs of some models on the same images, the true classes and the models' MACs."""

    outputs: dict[str, Outputs]
    labels: np.ndarray
    macs: dict[str, float]

    def correct(self, model: str) -> np.ndarray:
        return self.outputs[model].predictions == self.labels


def read_records(*models: str) -> Records:
    """Read the ImageNet records of these models; of all thirteen when none is named."""
    folder = data_folder() / "records"
    with (folder / "models.csv").open(newline="") as file:
        macs = {row["name"]: float(row["macs"]) for row in csv.DictReader(file)}
    outputs = {}
    for model in models or macs:
        with np.load(folder / f"{model}.npz") as arrays:
            outputs[model] = Outputs.from_topk(arrays["top5_class"], arrays["top5_prob"])
    return Records(outputs, np.load(folder / "labels.npy").astype(np.int64), macs)


needs_records = pytest.mark.skipif(
    not (data_folder() / "records" / "labels.npy").is_file(),
    reason="no records: set TINYSAVER_DATA or put the data into ../shared/data",
)
