"""A model's outputs on labelled data: measured, kept on disk, evaluated."""
