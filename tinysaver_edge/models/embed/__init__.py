"""Preprocessing and postprocessing folded into a model's graph."""
