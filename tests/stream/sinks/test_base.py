"""Sinks of other packages: found by name, refused in one line."""

import pytest

from tests.plug_ins import install
from tinysaver_edge.errors import InputError
from tinysaver_edge.stream import CallbackSink, open_sink
from tinysaver_edge.stream.sinks.base import PLUG_INS

MODULE = """
from tinysaver_edge.stream import CallbackSink
def keep(argument):
    return CallbackSink(print, name=f"keep {argument}")
def half(argument):
    return lambda decision, frame: None
def strict(argument):
    return CallbackSink(print, name=f"{1 / len(argument)}")
"""


@pytest.fixture
def brought(tmp_path, monkeypatch):
    (tmp_path / "keeping.py").write_text(MODULE)
    names = {name: f"keeping:{name}" for name in ("keep", "half", "strict", "gone")}
    install(tmp_path, monkeypatch, "sinks", {**names, "nothing": "keeping:__name__"})


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("text", "name"),
    [("keep", "keep "), ("keep:a.csv", "keep a.csv"), ("keep:tcp://host:1", "keep tcp://host:1")],
)
def test_a_sink_gets_what_stands_behind_its_name(text, name):
    sink = open_sink(text)
    assert isinstance(sink, CallbackSink)
    assert sink.name == name


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("other", "sink 'other': no such sink; there are gone, half, keep, nothing, strict"),
        ("", "sink '': no such sink"),
        ("half:x", "sink plug-in 'half' of others .* made no tinysaver_edge.stream.Sink: .* name"),
        ("strict:", r"plug-in 'strict' of others .* failed \(ZeroDivisionError"),
        ("gone:x", r"plug-in 'gone' of others .* cannot be loaded \(AttributeError"),
        ("nothing:x", r"plug-in 'nothing' of others .* failed \(TypeError"),
    ],
)
def test_what_is_no_sink_is_refused(text, why):
    with pytest.raises(InputError, match=why) as caught:
        open_sink(text)
    assert "\n" not in str(caught.value)


def test_where_no_package_brings_any():
    with pytest.raises(InputError, match="sink 'csv': no such sink; no installed package brings"):
        open_sink("csv:a.csv")


@pytest.mark.usefixtures("brought")
def test_two_packages_of_one_name(tmp_path, monkeypatch):
    install(tmp_path / "x", monkeypatch, "sinks", {"keep": "keeping:keep"}, package="rivals")
    with pytest.raises(InputError, match=r"sink 'keep' is claimed more than once, by .*rivals"):
        open_sink("keep")
    assert PLUG_INS.distribution("half") == "others 1.0"
    assert PLUG_INS.distribution("nobody") is None
