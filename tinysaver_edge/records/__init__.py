"""A model's outputs on labelled data.

measure     runs a model over labelled images
records     keeps on disk what it answered
timeline    looks at every frame of epochs, and keeps what it saw
evaluation  what a cascade does on labelled samples
"""
