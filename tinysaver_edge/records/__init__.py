"""A model's outputs on labelled data.

measure     runs a model over labelled images
records     keeps on disk what it answered
evaluation  what a cascade does on labelled samples
"""
