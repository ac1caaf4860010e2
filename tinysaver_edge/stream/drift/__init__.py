"""Whether the field still looks like the calibration set.

watch  the contract `Watch`, and the one that watches nothing
drift  audits a few accepted frames, bets on the disagreement, raises the alarm
"""
