"""What can be promised about a cascade's drop, and the arithmetic that proves it.

certificate  the statement, thresholds from strict to loose, every count that proves it
p_values     what counts are worth, and the walk along the thresholds
"""
