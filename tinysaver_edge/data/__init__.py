"""Labelled images for calibration: where they lie, how they decode, what their labels mean."""

from tinysaver_edge.data.files import FolderData, ZipData, class_folder_samples, open_data
from tinysaver_edge.data.images import IMAGE_SUFFIXES, decode_image
from tinysaver_edge.data.labels import class_indices
from tinysaver_edge.data.source import DataSource, Sample

__all__ = [
    "IMAGE_SUFFIXES",
    "DataSource",
    "FolderData",
    "Sample",
    "ZipData",
    "class_folder_samples",
    "class_indices",
    "decode_image",
    "open_data",
]
