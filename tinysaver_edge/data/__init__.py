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

from __future__ import annotations

from typing import TYPE_CHECKING

from tinysaver_edge._support.packages import lazy_exports

__all__ = ["DataSource", "Sample", "class_indices", "decode_image", "open_data"]
"""What a data source of another package's making needs."""

if TYPE_CHECKING:
    from tinysaver_edge.data.files import open_data
    from tinysaver_edge.data.images import decode_image
    from tinysaver_edge.data.source import DataSource, Sample, class_indices
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "files": ("open_data",),
            "images": ("decode_image",),
            "source": ("DataSource", "Sample", "class_indices"),
        },
    )
