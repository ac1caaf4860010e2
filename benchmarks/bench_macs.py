"""MACs counted of timm's architectures against those that timm publishes.

    python benchmarks/bench_macs.py

Needs the extra `timm`; no weights are made and nothing is exported: torch runs each architecture on
its meta device, which knows shapes only. Published figures have two decimals, so that they say
something to 2 % from 0.5 GMACs on. They count 2 for each element of a batch normalisation and 5 for
each of a layer normalisation, which are no MACs: they are counted besides, to see whether that is
all the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from imagenet import called_with, save, table

from tinysaver_edge.models.export.catalogue import PublishedModel, read_catalogue
from tinysaver_edge.models.graph.macs import count_module_macs

LEAST_GMACS = 0.5
WITHIN_PERCENT = 2.0
WANTED = 20


def main() -> int:
    """Count all that are published; exit 1 when fewer than twenty agree."""
    called_with(__doc__)
    import timm
    import torch

    torch.set_num_threads(1)
    once = {(one.model.partition(".")[0], one.image_size): one for one in read_catalogue()}
    rows = [count(one) for one in once.values()]
    return report(rows, f"torch {torch.__version__}, timm {timm.__version__}")


def report(rows: Sequence[dict[str, Any]], versions: str) -> int:
    """Write the results; return 1 when fewer than twenty agree."""
    telling = [row for row in rows if row["published"] >= LEAST_GMACS]
    close = [row for row in telling if abs(row["percent"]) <= WITHIN_PERCENT]
    explained = [row for row in telling if abs(row["percent_with_norms"]) <= WITHIN_PERCENT]
    small = [row for row in rows if row["published"] < LEAST_GMACS]
    exact = [row for row in small if rounds_to(row["published"], row["counted"] + row["norms"])]
    shown = sorted(telling, key=lambda row: -abs(row["percent"]))
    text = (
        f"{versions}. {len(rows)} architectures and image "
        f"sizes; {len(telling)} of at least {LEAST_GMACS} GMACs, where two decimals say something. "
        f"Of these, {len(close)} lie within {WITHIN_PERCENT:g} % of what is published (wanted: "
        f"{WANTED}), and {len(explained)} do once normalisations are counted as timm counts them. "
        f"Of the {len(small)} smaller ones {len(exact)} then agree to the last decimal, give or "
        "take one.\n\n"
        + table(
            ("architecture", "picture", "published GMACs", "counted", "off by", "with norms"),
            [
                (
                    row["name"],
                    row["image_size"],
                    f"{row['published']:g}",
                    f"{row['counted']:.3f}",
                    f"{row['percent']:+.1f} %",
                    f"{row['percent_with_norms']:+.1f} %",
                )
                for row in shown
            ],
        )
    )
    save(
        "bench_macs",
        title="Counted against published MACs",
        text=text,
        figures={"models": list(rows)},
    )
    return int(len(close) < WANTED)


def rounds_to(published: float, gmacs: float) -> bool:
    """Whether a figure of two decimals is, but for one in the last, another one rounded."""
    return abs(round(gmacs, 2) - published) < 0.015


def count(one: PublishedModel) -> dict[str, Any]:
    """Count one architecture at its published image size."""
    import torch

    shape = (1, 3, one.image_size, one.image_size)
    with torch.device("meta"):
        module = build(one)
        macs = count_module_macs(module, shape) / 1e9
        norms = count_norms(module, shape) / 1e9
    return {
        "name": one.model.partition(".")[0],
        "image_size": one.image_size,
        "published": one.gmacs,
        "counted": macs,
        "norms": norms,
        "percent": 100 * (macs / one.gmacs - 1),
        "percent_with_norms": 100 * ((macs + norms) / one.gmacs - 1),
    }


def build(one: PublishedModel) -> Any:  # noqa: ANN401 - torch.nn.Module
    """Build it for its image size, where that is part of the architecture."""
    import timm

    name = one.model.partition(".")[0]
    try:
        return timm.create_model(name, img_size=one.image_size).eval()
    except TypeError:  # convolutional networks take any
        return timm.create_model(name).eval()


def count_norms(module: Any, shape: tuple[int, ...]) -> int:  # noqa: ANN401
    """Count what timm's figures hold of normalisations."""
    import torch

    found = 0

    def add(factor: int) -> Any:  # noqa: ANN401 - a hook
        def hook(_layer: object, _inputs: object, output: torch.Tensor) -> None:
            nonlocal found
            found += factor * output.numel()

        return hook

    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.register_forward_hook(add(2))
        elif isinstance(layer, torch.nn.LayerNorm):
            layer.register_forward_hook(add(5))
    with torch.no_grad():
        module(torch.zeros(shape))
    return found


if __name__ == "__main__":
    sys.exit(main())
