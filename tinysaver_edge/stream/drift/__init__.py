"""Whether the field still looks like the calibration set."""
