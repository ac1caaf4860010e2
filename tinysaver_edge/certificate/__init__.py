"""What can be promised about a cascade's drop, and the arithmetic that proves it.

certificate  the statement, thresholds from strict to loose, every count that proves it
p_values     what counts are worth, and the walk along the thresholds
"""

from tinysaver_edge.certificate.certificate import (
    Certificate,
    WalkStep,
    fewest,
    least_certifiable_points,
    runs_of,
    samples_needed,
    step_p_values,
)
from tinysaver_edge.certificate.p_values import (
    Bets,
    EvidenceKind,
    consistency_p_value,
    count_p_values,
    group_p_value,
    group_p_values,
    least_groups,
    lower_tail,
    p_value,
    upper_rate,
    upper_rates,
    walk,
)

__all__ = [
    "Bets",
    "Certificate",
    "EvidenceKind",
    "WalkStep",
    "consistency_p_value",
    "count_p_values",
    "fewest",
    "group_p_value",
    "group_p_values",
    "least_certifiable_points",
    "least_groups",
    "lower_tail",
    "p_value",
    "runs_of",
    "samples_needed",
    "step_p_values",
    "upper_rate",
    "upper_rates",
    "walk",
]
