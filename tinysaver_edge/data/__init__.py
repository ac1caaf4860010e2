"""Labelled images for calibration: where they lie, how they decode, what their labels mean.

source  the contract `DataSource`
files   class folders, a .zip of them, or a table; table reads those
found   which files count as images
images  how one is decoded
labels  labels as class indices
collection  frames that were drawn at random moments, and who may be believed
looks   what pictures look like, in small; alike finds copies and clips by it
"""

from tinysaver_edge.data.files import FolderData, ZipData, class_folder_samples, open_data
from tinysaver_edge.data.found import (
    LeftOut,
    check_left_out,
    image_files,
    is_image,
    left_out_below,
    printable,
)
from tinysaver_edge.data.images import IMAGE_SUFFIXES, dark_depth, decode_image
from tinysaver_edge.data.labels import class_indices
from tinysaver_edge.data.source import DataSource, Sample
from tinysaver_edge.data.table import ANSWER_COLUMN

__all__ = [
    "ANSWER_COLUMN",
    "IMAGE_SUFFIXES",
    "DataSource",
    "FolderData",
    "LeftOut",
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
    "open_data",
    "printable",
]
