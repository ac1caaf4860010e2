"""What is fed with mutants: everything here that reads what others have written.

Each target makes its samples in a folder and returns them with a function that is given a mutant.
That may raise a `TinySaverError`, which becomes one line on the command line, and nothing else.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.colours import LARGE, OUTPUT, PREPROCESS, colour_model
from tests.small_bundle import small_bundle
from tinysaver_edge.bundle import Bundle
from tinysaver_edge.calibrate.planning import plan_of
from tinysaver_edge.errors import TinySaverError

Feed = Callable[[bytes], object]
ROOT = Path(__file__).parents[2]


class Target(NamedTuple):
    """Samples that are read without complaint, and what reads a mutant of them."""

    seeds: list[bytes]
    feed: Feed


def manifest(folder: Path) -> Target:
    """`bundle.json` of a bundle in a folder, with a certificate."""
    made = small_bundle(folder / "bundle")
    file = made / "bundle.json"
    content = json.loads(file.read_text())
    with Bundle.load(made) as bundle:
        from tests.stream.telemetry.test_promise import certified

        signed = certified(bundle.manifest).model_dump(mode="json")

    def feed(data: bytes) -> None:
        from tinysaver_edge.bundle.covered import why_not_covered
        from tinysaver_edge.deciding.policy import Policy
        from tinysaver_edge.stream.telemetry.promise import Promise
        from tinysaver_edge.verify.golden import kept_answers

        file.write_bytes(data)
        with Bundle.load(made) as bundle:
            why_not_covered(bundle.manifest)
            Promise.of(bundle.manifest)
            Policy.from_manifest(bundle.manifest)
            if bundle.manifest.golden is not None:
                kept_answers(bundle, bundle.manifest.golden)

    return Target([json.dumps(content).encode(), json.dumps(signed).encode()], feed)


def bundle_zip(folder: Path) -> Target:
    """A bundle that came as a .zip."""
    made, file = small_bundle(folder / "bundle"), folder / "bundle.zip"
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for top in ("", "bundle/"):
            with zipfile.ZipFile(file, "w", method) as archive:
                for path in sorted(made.rglob("*")):
                    if path.is_file():
                        archive.write(path, top + path.relative_to(made).as_posix())
            seeds.append(file.read_bytes())

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        Bundle.load(file).close()

    return Target(seeds, feed)


def records(folder: Path) -> Target:
    """Records and what lies beside them."""
    from tinysaver_edge.records.records import load_record, read_labels

    rng = np.random.default_rng(0)
    file = folder / "model.npz"
    seeds = []
    for kind in (np.savez, np.savez_compressed):
        kind(file, logits=rng.normal(size=(20, 4)).astype(np.float32))
        seeds.append(file.read_bytes())
        order = np.argsort(rng.random((20, 4)))[:, :2]
        kind(file, top2_class=order, top2_prob=np.tile(np.array([0.7, 0.2]), (20, 1)))
        seeds.append(file.read_bytes())
    np.save(folder / "labels.npy", np.arange(20))
    seeds.append((folder / "labels.npy").read_bytes())

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(TinySaverError):
            load_record(folder, "model")
        with suppress(TinySaverError):
            read_labels(file)

    return Target(seeds, feed)


def sidecars(folder: Path) -> Target:
    """The .json beside a record."""
    from tinysaver_edge.records.records import RecordKey, load_record

    np.savez(folder / "model.npz", logits=np.eye(4, dtype=np.float32))
    key = asdict(RecordKey("0" * 64, {}, "onnxruntime", "cpu", "float32", "1" * 64))
    seeds = [json.dumps({"skipped": [1], "key": key}).encode(), b'{"skipped": []}']

    def feed(data: bytes) -> None:
        (folder / "model.json").write_bytes(data)
        load_record(folder, "model")

    return Target(seeds, feed)


def tables(folder: Path) -> Target:
    """Tables of labelled images, .csv and .jsonl."""
    from tinysaver_edge.data.files import open_data

    lines = [{"file": f"{place}.png", "label": "ab"[place % 2]} for place in range(4)]
    seeds = [
        b"file,label,clip\n0.png,a,x\n1.png,b,y\n",
        b"file;label\n0.png;a\n1.png;b\n",
        "\n".join(map(json.dumps, lines)).encode(),
    ]
    files = [folder / "table.csv", folder / "table.jsonl"]

    def feed(data: bytes) -> None:
        for file in files:
            file.write_bytes(data)
            with suppress(TinySaverError), open_data(file) as found:
                found.fingerprint()
                found.frame(0)

    return Target(seeds, feed)


def saved_frames(folder: Path) -> Target:
    """The table of a folder of saved frames."""
    from tinysaver_edge.stream.sinks.pictures import TABLE, PictureFolder

    (folder / "one.jpg").write_bytes(b"picture")
    row = {"file": "one.jpg", "answer": "a", "sequence": 1, "saved_at_s": 1.8e9}

    def feed(data: bytes) -> None:
        (folder / TABLE).write_bytes(data)
        pictures = PictureFolder(folder, suffix=".jpg", most=2)
        try:
            pictures.open()
        finally:
            pictures.close()

    return Target([json.dumps(row).encode() + b"\n" + json.dumps(row).encode()], feed)


def collections(folder: Path) -> Target:
    """What a collection of frames says of itself: summary, table and the journal of a kill."""
    from tests.collect.test_recordings import collected, recording, video
    from tinysaver_edge.collect.draw import Draw
    from tinysaver_edge.collect.store import JOURNAL, Store
    from tinysaver_edge.data.collection import MOMENTS, SUMMARY, Collection

    place = folder / "frames"
    collected(place, [recording(video(folder / "film.mp4", 5))], Draw(4, seed=0))
    kept = {name: (place / name).read_bytes() for name in (SUMMARY, MOMENTS)}
    row = {"name": Collection.read(place).moments[0].name, "missed": "no room"}
    collecting = kept[SUMMARY].replace(b'"finished"', b'"collecting"')

    def feed(data: bytes) -> None:
        for name in (SUMMARY, MOMENTS, JOURNAL):
            for other, content in {**kept, name: data}.items():
                (place / other).write_bytes(content)
            with suppress(TinySaverError):
                Collection.read(place).doubt(np.ones(3, np.uint64))
            (place / SUMMARY).write_bytes(data if name == SUMMARY else collecting)
            with suppress(TinySaverError), Store(place) as store:
                store.finish()

    return Target([*kept.values(), json.dumps(row).encode() + b"\n"], feed)


def addresses(folder: Path) -> Target:
    """Addresses of sources, hosts, brokers and of where to listen."""
    from tinysaver_edge._support.urls import ListenAddress
    from tinysaver_edge.engines.remote.model import Address as Host
    from tinysaver_edge.stream.sinks.mqtt import MqttAddress
    from tinysaver_edge.stream.sources.opening import open_source
    from tinysaver_edge.stream.sources.uri import parse_uri

    seeds = [
        b"rtsp://user:secret@10.0.0.7:554/stream/1?channel=2#threads=4",
        b"http://[fe80::1%25eth0]:8080/video.mjpg",
        b"camera:0?width=1280&height=720&fps=30",
        b"demo://?fps=30&seed=1&frames=300",
        b"door=gst:videotestsrc ! appsink",
        b"file:///tmp/none.mp4",
        b"grpcs://host.example:8001/large/3",
        b"mqtts://user:secret@broker:8883/factory/line-3?qos=1",
        b"[::1]:8080",
        b"127.0.0.1:8080",
    ]

    def opened(text: str) -> None:
        uri = parse_uri(text)
        with suppress(OSError, ValueError):
            if Path(uri.target).is_dir() or Path(text).is_dir():
                return  # all images below / are a source like any other, but take their time
        if not any(sign in uri.target for sign in "*?["):
            open_source(text).close()

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        readers: tuple[Callable[[str], object], ...] = (
            opened,
            Host.parse,
            MqttAddress.parse,
            lambda one: ListenAddress.parse(one, option="--metrics"),
        )
        for read in readers:
            with suppress(TinySaverError):
                read(text)

    return Target(seeds, feed)


def descriptions(folder: Path) -> Target:
    """Descriptions of models."""
    from tests.colours import DESCRIPTION
    from tinysaver_edge.models.description.description import read_description

    model = colour_model(folder / "model.onnx", LARGE)
    file = folder / "model.toml"
    more = """
name = "one"
labels = ["amber", "blue", "coral", "denim", "green", "lilac"]
macs = 1000.0
published_top1 = 71.5
[input]
layout = "NCHW"
dtype = "float32"
size = [16, 16]
color = "RGB"
scale = { kind = "mean_std", mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
resize = { policy = "center_crop", crop_ratio = 0.875, antialias = true }
[output]
kind = "probabilities"
class_offset = 1
"""

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        read_description(file, model)

    return Target([DESCRIPTION.encode(), more.encode()], feed)


def recipes(folder: Path) -> Target:
    """Recipes of calibrations."""
    from tinysaver_edge.calibrate.recipe import load_recipe

    file = folder / "recipe.toml"

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        read = load_recipe(str(file))
        with suppress(TinySaverError):  # its files are not here
            plan_of(read)

    return Target(_tomls(ROOT / "calibration"), feed)


def profiles(folder: Path) -> Target:
    """Profiles of devices."""
    from tinysaver_edge.hardware.profile import read_profile

    samples = {path.stem: path.read_bytes() for path in (ROOT / "devices").glob("*.toml")}

    def feed(data: bytes) -> None:
        name = next((one for one in samples if one.encode() in data), "device")
        file = folder / f"{name}.toml"
        file.write_bytes(data)
        read_profile(file)

    return Target([samples[name] for name in sorted(samples)], feed)


def _tomls(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.toml"))]


def models(folder: Path) -> Target:
    """Model files, before an engine opens them, and as onnx reads them."""
    import onnx

    from tinysaver_edge.engines.model_file import check_model_file, model_files, read_metadata
    from tinysaver_edge.models.graph.macs import count_macs

    file = colour_model(folder / "model.onnx", LARGE)
    seeds = [file.read_bytes()]
    onnx.save(
        onnx.load(file), file, save_as_external_data=True, location="model.bin", size_threshold=0
    )
    seeds.append(file.read_bytes())

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        check_model_file(file)
        model_files(file)
        read_metadata(file)
        count_macs(file, (16, 16))

    return Target(seeds, feed)


def tflite_models(folder: Path) -> Target:
    """Model files of TensorFlow Lite."""
    from tinysaver_edge.engines.model_file import check_model_file

    file = folder / "model.tflite"
    # A model of no parts, as its schema allows, before noise for mutants' offsets to lead into.
    noise = np.random.default_rng(0).integers(0, 64, 400, np.uint8).tobytes()
    seeds = [struct.pack("<I4sHHi", 12, b"TFL3", 4, 4, 4) + noise]

    def feed(data: bytes) -> None:
        file.write_bytes(data[:4] + b"TFL3" + data[8:])
        check_model_file(file)

    return Target(seeds, feed)


def videos(folder: Path) -> Target:
    """What a video file says of itself."""
    import cv2

    from tinysaver_edge.stream.sources.container import shown_frames, why_no_video

    file = folder / "video.mp4"
    film = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 25, (32, 32))
    for number in range(5):
        film.write(np.full((32, 32, 3), number, np.uint8))
    film.release()
    seeds = [file.read_bytes()]
    seeds.append(seeds[0].replace(b"edts", b"free", 1))

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        shown_frames(file)
        why_no_video(file)

    return Target(seeds, feed)


def bench_reports(folder: Path) -> Target:
    """Reports of `bench`, which `calibrate --bench` goes by."""
    from tinysaver_edge.bench.report import read_report
    from tinysaver_edge.latency import LatencySource

    file = folder / "report.json"
    runs = {"samples_ms": [1.0, 2.0], "source": LatencySource.MEASURED.value}
    stage = {"stage": runs, "loaded_mb": 3.0}
    told = {"sha256": "0" * 64, "engine": "onnxruntime", "device": "cpu", "precision": "float32"}
    report = {
        "schema_version": 1,
        "measured_at": "2026-01-31T12:00:00",
        "machine": {"processor": "x"},
        "stages": [{**told, **stage}],
        "end_to_end": {"accepted": runs, "escalated": runs},
    }

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        read_report(file)

    return Target([json.dumps(report).encode()], feed)


def http_answers(folder: Path) -> Target:
    """What a host answers over HTTP, to questions and to frames."""
    from tinysaver_edge.engines.remote.endpoint import open_transport
    from tinysaver_edge.engines.remote.facts import RequestError, Wanted, agree
    from tinysaver_edge.engines.remote.model import Address, remote_model

    tensor = {"name": "in", "datatype": "FP32", "shape": [-1, 3, 16, 16]}
    answer = {"name": "out", "datatype": "FP32", "shape": [-1, 6]}
    told = {"name": "m", "platform": "onnx", "inputs": [tensor], "outputs": [answer]}
    logits = np.zeros((1, 6), np.float32).tobytes()
    head = {
        "model_name": "m",
        "model_version": "1",
        "parameters": {"sha256": "0" * 64},
        "outputs": [{**answer, "shape": [1, 6], "parameters": {"binary_data_size": len(logits)}}],
    }
    text = json.dumps(head).encode()
    seeds = [
        _http(b"application/json", json.dumps(told).encode()),
        _http(b"application/json", json.dumps({**told, "max_batch_size": 4}).encode()),
        _http(b"application/octet-stream", text + logits, length=len(text)),
    ]
    host = _Answering()
    url = f"http://127.0.0.1:{host.port}/m"
    model = remote_model(url)
    batch = np.zeros(PREPROCESS.shape(1), np.float32)
    wanted = Wanted(PREPROCESS, OUTPUT, classes=6)

    def feed(data: bytes) -> None:
        host.answer = data
        transport = open_transport(Address.parse(url), model)
        try:
            with suppress(RequestError):
                agree(transport.describe(timeout_s=1.0), wanted)
            with suppress(RequestError):
                contract = agree(_facts(), wanted)
                transport.infer(batch, contract, datatype="FP32", timeout_s=1.0)
        finally:
            transport.close()

    return Target(seeds, feed)


def _facts() -> object:
    from tinysaver_edge.engines.remote.facts import ModelFacts, TensorFacts

    return ModelFacts(
        inputs=(TensorFacts("in", "FP32", (-1, 3, 16, 16)),),
        outputs=(TensorFacts("out", "FP32", (-1, 6)),),
        max_batch=None,
        sha256=None,
    )


def _http(kind: bytes, body: bytes, *, length: int | None = None) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
    if length is not None:
        head += b"Inference-Header-Content-Length: %d\r\n" % length
    return head + b"\r\n" + body


class _Answering:
    """A host that answers everything with the same bytes and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            line, _ = self._listening.accept()
            with line, suppress(OSError):
                line.settimeout(1.0)
                line.recv(1 << 16)
                line.sendall(self.answer)
                line.shutdown(socket.SHUT_WR)
                while line.recv(1 << 16):
                    pass


TARGETS: dict[str, Callable[[Path], Target]] = {
    one.__name__: one
    for one in (
        manifest, bundle_zip, records, sidecars, tables, saved_frames, collections, addresses,
        descriptions, recipes, profiles, models, tflite_models, videos, bench_reports, http_answers,
    )
}  # fmt: skip


def fresh(folder: Path) -> Path:
    """Return a new empty folder for a target."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
