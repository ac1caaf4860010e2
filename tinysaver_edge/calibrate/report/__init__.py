"""The report: what a calibration found, as one HTML file that needs nothing else.

build             all that is shown, gathered into facts; write makes the page of it
facts             what a report shows, as plain values
tradeoff, curves  accuracy against cost
confidence        how far the models know when they are right
latency           the cascade beside the large model alone
proof             the certificate in words
origin            what a second run needs
pictures          the images worth a look
numbers           how numbers are printed
charts/           the drawings
"""

from tinysaver_edge.calibrate.report.build import build_facts
from tinysaver_edge.calibrate.report.facts import ReportFacts
from tinysaver_edge.calibrate.report.write import is_own_page, write_report

__all__ = [
    "ReportFacts",
    "build_facts",
    "is_own_page",
    "write_report",
]
