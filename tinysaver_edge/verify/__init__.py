"""Verify: does a bundle keep on this machine what was promised where it was calibrated?"""

from tinysaver_edge.verify.check import Check, Verification
from tinysaver_edge.verify.golden import golden_answers
from tinysaver_edge.verify.run import verify

__all__ = ["Check", "Verification", "golden_answers", "verify"]
