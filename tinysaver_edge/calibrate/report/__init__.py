"""The report: what a calibration found, as one HTML file that needs nothing else."""

from tinysaver_edge.calibrate.chosen.choose import single_model_better
from tinysaver_edge.calibrate.report.build import build_facts
from tinysaver_edge.calibrate.report.facts import ReportFacts
from tinysaver_edge.calibrate.report.write import write_report

__all__ = [
    "ReportFacts",
    "build_facts",
    "single_model_better",
    "write_report",
]
