"""Measured on this machine: one call, one stage, two models in turns, a whole model or bundle."""

from tinysaver_edge.bench.pair import measure_alone, measure_pair
from tinysaver_edge.bench.timing import Effort, measure, measure_stage, measure_stages, measure_with

__all__ = [
    "Effort",
    "measure",
    "measure_alone",
    "measure_pair",
    "measure_stage",
    "measure_stages",
    "measure_with",
]
