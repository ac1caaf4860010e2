"""Calibration: from models and labelled samples to a saver, a threshold and a bundle."""

from tinysaver_edge.calibrate.calibration import Calibration
from tinysaver_edge.calibrate.plan import ImageInput, ModelFile, Plan, RecordInput
from tinysaver_edge.calibrate.run import calibrate
from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Targets

__all__ = [
    "Budgets",
    "Calibration",
    "ImageInput",
    "Method",
    "ModelFile",
    "Objective",
    "Plan",
    "RecordInput",
    "Targets",
    "calibrate",
]
