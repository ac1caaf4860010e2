"""Calibration: from models and labelled samples to a saver, a threshold and a bundle.

settings, options  every option: its flag, its place in a recipe and in the plan
recipe             settings in a TOML file
plan, targets      what is measured, and what is asked of it
variants           one model file at several sizes and precisions
run                from a plan to a bundle, through all that follows
measured/          every model's outputs and times on the user's data
problem            all models' answers on the same samples: what there is to choose from
methods/           thresholds proposed and proven
chosen/            the best that keeps every limit, written as a bundle
calibration        the result
report/            the page about it
"""

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
