"""Labelled images for calibration: where they lie, how they decode, what their labels mean.

source  the contract `DataSource`; labels as class indices
files   class folders, a .zip of them, or a table
shards  many samples in few files: WebDataset's .tar, Parquet
store   where the bytes lie: on this machine, or wherever fsspec reaches
images  which files count as images, and how one is decoded
collection  frames that were drawn at random moments, and who may be believed
epochs  frames of a stream, epoch by epoch
looks   what pictures look like, in small, and which files hold several; alike finds copies and
        clips by it
"""
