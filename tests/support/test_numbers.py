import pytest

from tinysaver_edge._support import numbers
from tinysaver_edge.calibrate.report import numbers as in_report


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (numbers.percent(0.9338), "93.38 %"),
        (numbers.percent(0.9338, 0), "93 %"),
        (numbers.percent(None), "?"),
        (numbers.points(0.371), "0.37 pt"),
        (numbers.points(-0.371), "gains 0.37 pt"),
        (numbers.gain(0.371), "+0.37 pt"),
        (numbers.gain(-68.75), "-68.75 pt"),
        (numbers.gain(-0.001), "0.00 pt"),
        (numbers.ratio(0.51666), "0.517"),
        (numbers.macs(12.5e6), "12.5 MMACs"),
        (numbers.macs(999), "999 MACs"),
        (numbers.macs(None), "?"),
        (numbers.milliseconds(4.2066), "4.21 ms"),
        (numbers.score(0.5), "0.5000"),
        (numbers.score(None), "none"),
        (numbers.rate(9.96), "10.0 frames/s"),
        (numbers.rate(1234.5), "1234 frames/s"),
    ],
)
def test_in_plain_text(told, text):
    assert told == text


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (in_report.percent(0.9338), "93.38\u00a0%"),
        (in_report.percent(-0.0121, 1), "\u22121.2\u00a0%"),
        (in_report.percent(-0.00001), "0.00\u00a0%"),
        (in_report.percent(None), ""),
        (in_report.points(-0.371), "\u22120.37\u00a0points"),
        (in_report.points(-0.001), "0.00\u00a0points"),
        (in_report.short_points(0.371), "+0.37"),
        (in_report.short_points(None), ""),
        (in_report.ratio(None), "?"),
        (in_report.score(-0.12345), "\u22120.1235"),
        (in_report.score(float("inf")), "none"),
        (in_report.count(50_000), "50,000"),
        (in_report.macs(12.5e6), "12.5\u00a0MMACs"),
        (in_report.macs(None), "?"),
        (in_report.milliseconds(4.2066), "4.21\u00a0ms"),
        (in_report.milliseconds(0.0), "0.00\u00a0ms"),
    ],
)
def test_in_the_report(told, text):
    assert told == text
