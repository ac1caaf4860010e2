"""Multiply-accumulates counted by torch against those that timm publishes."""

from __future__ import annotations

import pytest

REASON = "needs pip install 'tinysaver-edge[timm]'"
torch = pytest.importorskip("torch", reason=REASON)
timm = pytest.importorskip("timm", reason=REASON)

from tinysaver_edge.models.export.catalogue import published  # noqa: E402
from tinysaver_edge.models.graph.macs import count_module_macs  # noqa: E402

# Of at least 0.5 GMACs, since two decimals are published; `benchmarks/bench_macs.py` has them all.
NAMES = """
    caformer_s18 convnextv2_atto convnextv2_tiny convnextv2_large davit_tiny deit_tiny_patch16_224
    densenet121 efficientformerv2_l efficientformerv2_s2 efficientvit_b1 levit_384
    maxvit_tiny_tf_224 mobilenetv4_conv_medium nasnetalarge pvt_v2_b0 regnety_008 repvit_m0_9
    resnet18 resnet50 resnet152 swin_small_patch4_window7_224 swin_large_patch4_window7_224
    tiny_vit_5m_224 vit_small_patch16_224
""".split()  # noqa: SIM905 - one name a line otherwise


@pytest.mark.parametrize("name", NAMES)
def test_within_two_percent_of_what_is_published(name: str) -> None:
    fact = published(name)
    assert fact is not None
    assert fact.gmacs >= 0.5
    with torch.device("meta"):
        module = timm.create_model(name).eval()
        macs = count_module_macs(module, (1, 3, fact.image_size, fact.image_size))
    assert macs / 1e9 == pytest.approx(fact.gmacs, rel=0.02)
