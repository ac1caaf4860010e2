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

from tinysaver_edge.data.files import (
    ANSWER_COLUMN,
    FolderData,
    ZipData,
    class_folder_samples,
    names_labels,
    open_data,
)
from tinysaver_edge.data.images import (
    IMAGE_SUFFIXES,
    LeftOut,
    check_left_out,
    dark_depth,
    decode_image,
    image_files,
    is_image,
    left_out_below,
    printable,
)
from tinysaver_edge.data.source import DataSource, Sample, class_indices
from tinysaver_edge.data.store import DataPlace, Place

__all__ = [
    "ANSWER_COLUMN",
    "IMAGE_SUFFIXES",
    "DataPlace",
    "DataSource",
    "FolderData",
    "LeftOut",
    "Place",
    "Sample",
    "ZipData",
    "check_left_out",
    "class_folder_samples",
    "class_indices",
    "dark_depth",
    "decode_image",
    "image_files",
    "is_image",
    "left_out_below",
    "names_labels",
    "open_data",
    "printable",
]
