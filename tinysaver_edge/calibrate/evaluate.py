"""Evaluate: a finished bundle's figures on samples it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysaver_edge.bundle import Bundle
from tinysaver_edge.calibrate.gather import read_labels
from tinysaver_edge.calibrate.measure import DEFAULT_SKIP_LIMIT
from tinysaver_edge.data import DataSource, class_indices, open_data
from tinysaver_edge.errors import BundleError, DataError, InputError
from tinysaver_edge.evaluation import Figures, figures
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.policy import Policy
from tinysaver_edge.progress import SILENT, Progress
from tinysaver_edge.records import load_record
