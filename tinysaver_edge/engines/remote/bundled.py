"""What a bundle knows of its large model's answers, to prove a host with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinysaver_edge._support.files import read_arrays
from tinysaver_edge.engines.remote.samples import Golden
from tinysaver_edge.errors import BundleError
from tinysaver_edge.preprocess import Preprocess, Preprocessor, Resize

if TYPE_CHECKING:
    from tinysaver_edge.bundle.bundle import Bundle


def golden_of(bundle: Bundle, preprocess: Preprocess) -> Golden | None:
    """Return the last stage's golden samples, or None where the bundle has none.

    Args:
        bundle: an open bundle.
        preprocess: what the last stage's input is made with.

    Raises:
        BundleError: they are damaged.
    """
    entry = bundle.manifest.golden
    if entry is None:
        return None
    last = len(bundle.manifest.stages) - 1
    try:
        kept = read_arrays(bundle.file(entry.answers))
        frames, logits = kept[f"input_{last}"], kept[f"logits_{last}"]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"bundle {bundle.path}: golden answers are damaged ({error})") from error
    # They were kept at the model's size: nothing is left to crop or to shrink.
    size = preprocess.resize
    convert = Preprocessor(replace(preprocess, resize=Resize(size.height, size.width)))
    return Golden(convert.batch(list(frames)), logits, entry.tolerances[last])
