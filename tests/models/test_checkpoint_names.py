"""Published names of weights become timm's, and what only training reads is filled in."""

from __future__ import annotations

from tinysaver_edge.models.export.checkpoint import fitted, is_published_efficientnet

OWN = {
    "conv_stem.weight": 0,
    "bn1.weight": 0,
    "bn1.num_batches_tracked": 7,
    "blocks.0.0.conv_dw.weight": 0,
    "blocks.0.0.bn1.weight": 0,
    "blocks.0.0.conv_pw.weight": 0,
    "blocks.0.0.bn2.weight": 0,
    "blocks.1.0.conv_pw.weight": 0,
    "blocks.1.0.bn1.weight": 0,
    "blocks.1.0.conv_dw.weight": 0,
    "blocks.1.0.bn2.weight": 0,
    "blocks.1.0.se.conv_reduce.bias": 0,
    "blocks.1.0.conv_pwl.weight": 0,
    "blocks.1.0.bn3.weight": 0,
    "conv_head.weight": 0,
    "bn2.weight": 0,
    "classifier.bias": 0,
}
PUBLISHED = {
    "_conv_stem.weight": "stem",
    "_bn0.weight": "bn0",
    "_blocks.0._depthwise_conv.weight": "dw0",
    "_blocks.0._bn1.weight": "bn1 of 0",
    "_blocks.0._project_conv.weight": "project0",
    "_blocks.0._bn2.weight": "bn2 of 0",
    "_blocks.1._expand_conv.weight": "expand1",
    "_blocks.1._bn0.weight": "bn0 of 1",
    "_blocks.1._depthwise_conv.weight": "dw1",
    "_blocks.1._bn1.weight": "bn1 of 1",
    "_blocks.1._se_reduce.bias": "se1",
    "_blocks.1._project_conv.weight": "project1",
    "_blocks.1._bn2.weight": "bn2 of 1",
    "_conv_head.weight": "head",
    "_bn1.weight": "bn1",
    "_fc.bias": "fc",
}


def test_published_efficientnets_get_timms_names() -> None:
    assert is_published_efficientnet(PUBLISHED)
    found = fitted(PUBLISHED, OWN)
    assert found.keys() == OWN.keys()
    assert found["blocks.0.0.conv_pw.weight"] == "project0"
    assert found["blocks.0.0.bn1.weight"] == "bn1 of 0"
    assert found["blocks.1.0.conv_pw.weight"] == "expand1"
    assert found["blocks.1.0.bn3.weight"] == "bn2 of 1"
    assert found["blocks.1.0.se.conv_reduce.bias"] == "se1"
    assert (found["bn1.weight"], found["bn2.weight"]) == ("bn0", "bn1")
    assert found["classifier.bias"] == "fc"
    assert found["bn1.num_batches_tracked"] == 7


def test_other_weights_keep_their_names() -> None:
    given = {name: "given" for name in OWN if name != "bn1.num_batches_tracked"}
    assert fitted(given, OWN) == {**given, "bn1.num_batches_tracked": 7}
    odd = {**PUBLISHED, "_blocks.x.weight": "odd", "_blocks.9._bn2.weight": "far"}
    assert {"_blocks.x.weight", "_blocks.9._bn2.weight"} <= fitted(odd, OWN).keys()
