"""What can be promised about a cascade's drop, and the arithmetic that proves it."""

from tinysaver_edge.certificate.certificate import (
    Certificate,
    least_certifiable_points,
    samples_needed,
)
from tinysaver_edge.certificate.steps import (
    Evidence,
    Step,
    consistency_p_value,
    group_p_value,
    step_p_values,
    upper_rate,
    walk,
)
from tinysaver_edge.certificate.trinomial import lower_tail, p_value

__all__ = [
    "Certificate",
    "Evidence",
    "Step",
    "consistency_p_value",
    "group_p_value",
    "least_certifiable_points",
    "lower_tail",
    "p_value",
    "samples_needed",
    "step_p_values",
    "upper_rate",
    "walk",
]
