"""The table of published models: its facts, its filters, its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinysaver_edge.errors import InputError
from tinysaver_edge.models.export.catalogue import nearest, published, read_catalogue, select

HEADER = "model,image_size,top1_percent,gmacs,params_millions\n"


def test_the_table_is_complete_and_in_its_ranges() -> None:
    models = read_catalogue()
    assert len(models) >= 300
    assert len({(one.model, one.image_size) for one in models}) == len(models)
    for one in models:
        assert "." in one.model
        assert 50 < one.top1_percent < 91
        assert 0.02 < one.gmacs < 610
        assert 1 < one.params_millions < 700
        assert 96 <= one.image_size <= 512


@pytest.mark.parametrize(
    ("name", "size", "top1", "gmacs", "params"),
    [
        ("mobilenetv3_small_050.lamb_in1k", 224, 57.924, 0.03, 1.59),
        ("efficientvit_b0.r224_in1k", 224, 71.404, 0.1, 3.41),
        ("mobilenetv4_conv_small.e2400_r224_in1k", 256, 74.644, 0.25, 3.77),
        ("swin_large_patch4_window7_224.ms_in22k_ft_in1k", 224, 86.33, 34.53, 196.53),
        ("convnextv2_huge.fcmae_ft_in1k", 224, 86.26, 115.0, 660.29),
    ],
)
def test_facts(name: str, size: int, top1: float, gmacs: float, params: float) -> None:
    found = published(name, size)
    assert found is not None
    assert (found.top1_percent, found.gmacs, found.params_millions) == (top1, gmacs, params)


def test_an_architecture_alone_finds_its_first_weights() -> None:
    found = published("lcnet_050")
    assert found is not None
    assert found.model == "lcnet_050.ra2_in1k"
    assert published("lcnet") is None
    assert published("lcnet_050", 128) is None


def test_limits_hold_together() -> None:
    found = select(read_catalogue(), max_gmacs=0.3, min_top1_percent=70, max_params_millions=5)
    assert 10 < len(found) < 100
    assert all(one.gmacs <= 0.3 for one in found)
    assert all(one.top1_percent >= 70 for one in found)
    assert all(one.params_millions <= 5 for one in found)
    costs = [one.gmacs for one in found]
    assert costs == sorted(costs)


def test_a_pattern_chooses_by_name() -> None:
    found = select(read_catalogue(), pattern="mobilenetv4*")
    assert found
    assert all(one.model.startswith("mobilenetv4") for one in found)


def test_nothing_beats_what_stands_on_the_frontier() -> None:
    everything = read_catalogue()
    frontier = select(everything, pareto=True)
    assert 10 < len(frontier) < len(everything)
    for one in frontier:
        better = [
            other
            for other in everything
            if (other.gmacs <= one.gmacs and other.top1_percent > one.top1_percent)
            or (other.gmacs < one.gmacs and other.top1_percent >= one.top1_percent)
        ]
        assert better == []
    for one in set(everything) - set(frontier):
        assert any(
            other.gmacs <= one.gmacs and other.top1_percent >= one.top1_percent
            for other in frontier
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "its columns must be model, image_size"),
        ("model,top1\n", "its columns must be model, image_size"),
        ("# source\n" + HEADER + "a.b,224,70,0.3,5\n\nc.d,224,x,0.3,5\n", "line 4"),
        (HEADER + "a.b,224,x,0.3,5\n", "line 2: 'a.b,224,x,0.3,5' is no row"),
        (HEADER + "a.b,224\n", "line 2"),
    ],
)
def test_a_damaged_table_names_the_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "timm.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_catalogue(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("mobilnetv3_small_050", "mobilenetv3_small_050.lamb_in1k"),
        ("efficientvit-b0", "efficientvit_b0.r224_in1k"),
        ("ConvNeXtV2_huge", "convnextv2_huge.fcmae_ft_in1k"),
    ],
)
def test_nearest_names(wrong: str, right: str) -> None:
    assert right in nearest(wrong, [one.model for one in read_catalogue()], count=4)


def test_nothing_is_near_to_nonsense() -> None:
    assert nearest("qqqqqqqq", [one.model for one in read_catalogue()]) == ()
