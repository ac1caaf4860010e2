"""INT8 models, held against what they lose."""
