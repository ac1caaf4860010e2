"""What others wrote into a model's file: labels, scale, colours, resize."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from tests.model_zoo import CLASSES, Form, tiny_classifier
from tests.real_data import data_folder
from tinysaver_edge.models.description.carried import _told, read_carried, write_metadata
from tinysaver_edge.models.description.describe import describe
from tinysaver_edge.models.description.description import parse_description
from tinysaver_edge.preprocess import ColorOrder, ResizePolicy

NAMES = tuple(f"class {number} of ten" for number in range(10))


class Buffer:
    """Writes a FlatBuffer front to back: a table, then what its fields point at."""

    def __init__(self) -> None:
        self.data = bytearray(4)

    def table(self, fields: dict[int, bytes | int]) -> int:
        """Write a table; bytes are numbers as they are, an int a place to point at, patched later.

        Returns its place.
        """
        slots = max(fields, default=-1) + 1
        sizes = {
            number: len(value) if isinstance(value, bytes) else 4
            for number, value in fields.items()
        }
        offsets, at = {}, 4
        for number in fields:
            offsets[number] = at
            at += sizes[number]
        layout = len(self.data)
        self.data += struct.pack("<HH", 4 + 2 * slots, at)
        self.data += b"".join(struct.pack("<H", offsets.get(one, 0)) for one in range(slots))
        place = len(self.data)
        self.data += struct.pack("<i", place - layout)
        for value in fields.values():
            self.data += value if isinstance(value, bytes) else b"\0\0\0\0"
        self.places = {number: place + offset for number, offset in offsets.items()}
        return place

    def point(self, at: int, to: int) -> None:
        struct.pack_into("<I", self.data, at, to - at)

    def vector(self, content: bytes, count: int) -> int:
        place = len(self.data)
        self.data += struct.pack("<I", count) + content
        return place

    def tables(self, count: int) -> tuple[int, list[int]]:
        """Write a vector of offsets; returns its place and those of the offsets."""
        place = self.vector(bytes(4 * count), count)
        return place, [place + 4 + 4 * number for number in range(count)]


def metadata(mean: list[float], std: list[float], label_file: str) -> bytes:
    """Metadata of one input with a normalisation and a colour space, one output with labels."""
    buffer = Buffer()
    root = buffer.table({3: 0})
    buffer.point(0, root)
    graphs_at = buffer.places[3]
    graphs, (first,) = buffer.tables(1)
    buffer.point(graphs_at, graphs)
    buffer.point(first, buffer.table({2: 0, 3: 0}))
    inputs_at, outputs_at = buffer.places[2], buffer.places[3]
    inputs, (first,) = buffer.tables(1)
    buffer.point(inputs_at, inputs)
    buffer.point(first, buffer.table({3: 0, 4: 0}))
    content_at, units_at = buffer.places[3], buffer.places[4]
    buffer.point(content_at, buffer.table({0: b"\x02", 1: 0}))
    image_at = buffer.places[1]
    buffer.point(image_at, buffer.table({0: b"\x01"}))
    units, (first,) = buffer.tables(1)
    buffer.point(units_at, units)
    buffer.point(first, buffer.table({0: b"\x01", 1: 0}))
    options_at = buffer.places[1]
    buffer.point(options_at, buffer.table({0: 0, 1: 0}))
    for field, values in ((0, mean), (1, std)):
        at = buffer.places[field]
        buffer.point(at, buffer.vector(struct.pack(f"<{len(values)}f", *values), len(values)))
    outputs, (first,) = buffer.tables(1)
    buffer.point(outputs_at, outputs)
    buffer.point(first, buffer.table({6: 0}))
    files_at = buffer.places[6]
    files, (first,) = buffer.tables(1)
    buffer.point(files_at, files)
    buffer.point(first, buffer.table({0: 0, 2: b"\x02"}))
    name_at = buffer.places[0]
    buffer.point(name_at, buffer.vector(label_file.encode() + b"\0", len(label_file)))
    return bytes(buffer.data)


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [
        ([127.5], [127.5], '"half"'),
        ([0.0], [255.0], '"unit"'),
        ([0.0], [1.0], '"raw"'),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], '"imagenet"'),
        ([127.0], [128.0], '{ kind = "affine"'),
    ],
)
def test_the_metadata_of_tensorflow_lite_tells_scale_colours_and_labels(mean, std, scale) -> None:
    found, color, name = _told(metadata(mean, std, "labels.txt"))
    assert found is not None
    assert found.startswith(scale)
    assert (color, name) == (ColorOrder.RGB, "labels.txt")


def test_damaged_metadata_is_no_obstacle(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    whole = (data_folder() / "cifar10" / "resnet8.tflite").read_bytes()
    model.write_bytes(whole + b"PK\x05\x06" + b"\xff" * 40)
    assert read_carried(model, 10) is None


def test_labels_within_a_tflite_are_read(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes((data_folder() / "cifar10" / "resnet8.tflite").read_bytes())
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("about.txt", "a model")
        archive.writestr("labels.txt", "\n".join(NAMES))
    assert parse_description(describe(model), "test")["labels"] == list(NAMES)


def test_model_api_and_ultralytics_are_read(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "a.onnx")
    write_metadata(
        model,
        {
            "model_info labels": "a b_c d e f",
            "model_info reverse_input_channels": "True",
            "model_info mean_values": "123.675 116.28 103.53",
            "model_info scale_values": "58.395 57.12 57.375",
            "model_info resize_type": "crop",
        },
    )
    said = parse_description(describe(model), "test")
    assert said["labels"] == ["a", "b c", "d", "e", "f"]
    assert (said["input"]["color"], said["input"]["scale"]) == ("RGB", "imagenet")
    assert said["input"]["resize"]["policy"] == ResizePolicy.CENTER_CROP.value
    other = tiny_classifier(tmp_path / "b.onnx", Form(softmax=True))
    names = {place: f"n{place}" for place in range(CLASSES)}
    write_metadata(other, {"task": "classify", "names": str(names)})
    said = parse_description(describe(other), "test")
    assert said["labels"] == list(names.values())
    assert (said["input"]["color"], said["input"]["scale"]) == ("RGB", "unit")
    write_metadata(other, {"names": "__import__('os').getcwd()"})
    assert "labels" not in parse_description(describe(other), "test")
