"""Offline: measure candidate models and decide which may answer, and when."""
