"""Two model files held against each other on the same pictures."""
