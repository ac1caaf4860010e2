"""What a calibration measures: every model's outputs and times on the user's own data."""
