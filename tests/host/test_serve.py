"""`tinysaver-edge serve`: the large model behind KServe's server, with our door before it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from tests.colours import NAMES, colour_picture
from tests.command import start
from tests.remote.certificates import Authority, needs_openssl
from tests.remote.hosts import remote
from tests.remote.kserve import VENV, Served, needs_kserve
from tests.remote.triton import ROOT
from tests.small_bundle import small_bundle
from tests.test_follow import Factory, wait_for
from tinysaver_edge.cascade import Cascade
from tinysaver_edge.engines.remote import Tls, Token
from tinysaver_edge.errors import EngineError
from tinysaver_edge.reuse import ReuseRule
from tinysaver_edge.stream.sources.source import Frame

pytestmark = [pytest.mark.slow, needs_kserve]

FRAMES = [colour_picture(number % len(NAMES), number) for number in range(60)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("serve") / "bundle")


@pytest.fixture(scope="module")
def host(bundle, tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("host"), bundle, "--max-request-mb", "0.1").start()
    yield served
    served.stop()


def told(decision):
    return (decision.index, decision.source, decision.stage, decision.confidence, decision.degraded)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_decisions_are_those_of_the_model_in_process(bundle, host, scheme, monkeypatch) -> None:
    monkeypatch.setattr("tinysaver_edge.bundle.covered.why_not_covered", lambda manifest, **_: None)
    large = remote(host.url(scheme=scheme), timeout_s=5.0)
    with Cascade.load(bundle, large=large) as there, Cascade.load(bundle) as here:
        answers = [there.decide(frame) for frame in FRAMES]
        assert [told(one) for one in answers] == [told(here.decide(frame)) for frame in FRAMES]
        assert sum(one.escalated for one in answers) > 10
        assert there.doubt is None  # it tells the hash with every answer
        assert "hash not told" not in str(there.stages[-1].engine.identity)
    identities = {one.identity for one in answers if one.escalated}
    assert {(one.host, one.version) for one in identities} == {(host.url(scheme=scheme), "1")}
    assert all(len(one.sha256) == 64 for one in identities)


def test_a_stream_that_repeats_answers_asks_the_host_about_each_look_once(bundle, host) -> None:
    with Cascade.load(bundle) as here:
        unsure = [frame for frame in FRAMES if here.decide(frame).escalated][:4]
        wanted = [here.decide(frame).index for frame in unsure]
    shown = [frame for frame in unsure for _ in range(15)]
    frames = [Frame(one, number / 15, number, "camera") for number, one in enumerate(shown)]
    rule = ReuseRule(still=0.5, same=0.0, epoch_s=100.0)
    with Cascade.load(bundle, large=remote(host.url(), timeout_s=5.0)) as there:
        engine = there.stages[-1].engine
        before = engine.traffic.requests
        decisions = list(there.stream(frames, reuse=rule))
        assert engine.traffic.requests - before == len(unsure)
    assert [one.index for one in decisions[::15]] == wanted
    assert [one.index for one in decisions] == [index for index in wanted for _ in range(15)]
    repeated = [one for one in decisions if one.reused is not None]
    assert len(repeated) == 14 * len(unsure)
    assert all(one.identity is not None for one in repeated)


def ask(host: Served, method: str, path: str, body: bytes = b"", **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", host.http_port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_health_and_metrics(bundle, host) -> None:
    assert ask(host, "GET", "/v2/health/live")[0] == 200
    assert ask(host, "GET", "/v2/health/ready")[0] == 200
    assert ask(host, "GET", "/v2/models/large/ready")[0] == 200
    status, text = ask(host, "GET", "/metrics")
    assert status == 200
    assert "request_predict_seconds" in text


@pytest.mark.parametrize(
    "path",
    ["/v2/repository/models/large/unload", "/v2/repository/models/large/load",
     "/v1/models/large:predict", "/openai/v1/models", "/docs", "/v2/models/other/infer"],
)  # fmt: skip
def test_nothing_else_is_to_be_had(host, path) -> None:
    assert ask(host, "POST", path, b"{}")[0] == 404


def test_nobody_unloads_the_model_over_grpc(bundle, host) -> None:
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{host.grpc_port}") as client:
        with pytest.raises(InferenceServerException):
            client.unload_model("large")
        assert client.is_model_ready("large")


def test_bad_requests_harm_nobody(bundle, host) -> None:
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{host.grpc_port}") as client:
        for array, datatype in (
            (np.zeros((1, 3, 16, 17), np.float32), "FP32"),
            (np.zeros((1, 3, 16, 16), np.uint8), "UINT8"),
            (np.zeros((0, 3, 16, 16), np.float32), "FP32"),
            (np.zeros((64, 3, 16, 16), np.float32), "FP32"),  # more than 0.1 MB
        ):
            given = tritonclient.grpc.InferInput("image", array.shape, datatype)
            given.set_data_from_numpy(array)
            with pytest.raises(InferenceServerException):
                client.infer("large", [given])
    assert ask(host, "POST", "/v2/models/large/infer", b"x" * 200_000)[0] == 413
    assert ask(host, "POST", "/v2/models/large/infer", b"{nonsense")[0] in (400, 422, 500)
    assert json.loads(ask(host, "GET", "/v2/models/large")[1])["name"] == "large"
    with Cascade.load(bundle, large=host.url()) as cascade:
        assert not any(cascade.decide(frame).degraded for frame in FRAMES)


@pytest.mark.parametrize(
    ("shape", "datatype", "size"),
    [
        ([1, 3, 16, 16], "FP32", 8),
        ([1, 3, 16, 16], "FP32", -8),
        ([1, 3, 16, 16], "FP32", "8"),
        ([-1], "FP32", 8),
        ([1, 2], "NONE", 8),
        ([2], "BYTES", 8),
        ([1, 2], "FP32", 9),
        ("x", "FP32", 8),
    ],
)
def test_bytes_behind_the_json_that_are_no_tensor_harm_nobody(host, shape, datatype, size) -> None:
    given = {"name": "image", "shape": shape, "datatype": datatype}
    given["parameters"] = {"binary_data_size": size}
    text = json.dumps({"inputs": [given]}).encode()
    for length in (len(text), 0, 10**9):
        headers = {"Inference-Header-Content-Length": str(length)}
        path = "/v2/models/large/infer"
        assert (
            ask(host, "POST", path, text + b"\xff\xff\xff\xff\xff\xff\xff\xff", **headers)[0] >= 400
        )
    assert ask(host, "GET", "/v2/models/large/ready")[0] == 200


@pytest.mark.parametrize(
    ("text", "length"),
    [(b"{}", "9" * 5000), (b"{}", "-1"), (b"{}", "\u00b2"),
     (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None)],
    ids=["digits", "below nothing", "no digit", "deep"],
)  # fmt: skip
def test_headers_and_json_out_of_all_measure_are_the_clients_mistake(host, text, length) -> None:
    for kind in ("application/json", "application/octet-stream"):
        headers = {
            "Content-Type": kind,
            "Inference-Header-Content-Length": length or str(len(text)),
        }
        status = ask(host, "POST", "/v2/models/large/infer", text + b"raw", **headers)[0]
        assert 400 <= status < 500


PICTURE = {"name": "image", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [0.5] * 768}
INFER = "/v2/models/large/infer"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"inputs": [{}] * 20_000}, "inputs: List should have at most 1 item"),
        ({"inputs": [PICTURE], "outputs": [{"name": "answer"}] * 3_000}, "outputs: List should"),
        ({"inputs": [{**PICTURE, "shape": [{}] * 20_000}]}, "inputs.0.shape: List should"),
        ({"inputs": [PICTURE], "outputs": [{"name": "answer", "parameters": 5}]}, "parameters"),
        ({"inputs": [PICTURE], "id": ["x"]}, "id: Input should be a valid string"),
        ({"inputs": [PICTURE], "outputs": [{"name": "other"}]}, "Unexpected inference output"),
        ({"inputs": [{**PICTURE, "data": [{}]}]}, "input image: "),
        ([1, 2], "the request: Input should be an object"),
    ],
    ids=lambda one: one[:24] if isinstance(one, str) else "",
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream"])
def test_of_json_that_is_no_request_the_first_fault_is_told_at_once(
    host, asked, says, kind
) -> None:
    """KServe's own reading of 300 kB of the first took half a minute and answered with 44 MB."""
    began_s = time.monotonic()
    status, text = ask(host, "POST", INFER, json.dumps(asked).encode(), **{"Content-Type": kind})
    assert status == 400
    assert says in json.loads(text)["error"]
    assert len(text) < 400
    assert time.monotonic() - began_s < 5
    assert "Traceback" not in host.log()


@pytest.mark.parametrize("path", [INFER, "/v2/models/large/versions/1/infer"])
@pytest.mark.parametrize("name", [{}, {"id": "7"}])
def test_a_request_in_json_is_answered_in_json_where_it_asks_for_that(host, path, name) -> None:
    asked = {"inputs": [PICTURE], "outputs": [{"name": "answer"}], **name}
    status, text = ask(host, "POST", path, json.dumps(asked).encode())
    assert status == 200, text
    (output,) = json.loads(text)["outputs"]
    assert output["shape"] == [1, len(NAMES)]
    assert len(output["data"]) == len(NAMES)


def test_another_version_is_not_there(host) -> None:
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{host.grpc_port}") as client:
        for ask_for in (client.get_model_metadata, client.is_model_ready):
            assert ask_for("large", "1")
            with pytest.raises(InferenceServerException, match="there is version 1 alone"):
                ask_for("large", "2")
        with pytest.raises(InferenceServerException, match="not unloaded from afar"):
            client.unload_model("large")
    assert ask(host, "POST", "/v2/models/large/versions/2/infer", b"{}")[0] == 404
    assert "Internal server error" not in host.log()


def test_a_port_that_is_taken_is_one_clear_line(bundle, host, tmp_path) -> None:
    served = Served(tmp_path, bundle)
    taken = {"gRPC": (host.grpc_port, served.http_port), "HTTP": (served.grpc_port, host.http_port)}
    for grpc_port, http_port in taken.values():
        done = subprocess.run(
            [
                str(VENV / "bin/python"), "-c", served.program, "serve", str(bundle),
                "--bind", f"127.0.0.1:{grpc_port}", "--http-port", str(http_port),
            ],
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "serving" not in done.stderr
        following, line = done.stderr.splitlines()
        assert following.startswith("Next: ")
        assert line.startswith("tinysaver-edge: cannot listen for ")
        assert line.endswith(": Address already in use")


def test_what_clients_do_wrong_is_no_traceback_in_the_log(bundle, tmp_path) -> None:
    served = Served(tmp_path, bundle).start()
    try:
        for scheme in ("grpc", "http"):
            with pytest.raises(EngineError, match="other"):
                Cascade.load(bundle, large=remote(served.url("other", scheme=scheme)))
        assert ask(served, "POST", "/v2/models/large/infer", b"{nonsense")[0] in (400, 422, 500)
    finally:
        served.stop()
    assert "other" in served.log()
    assert "Traceback" not in served.log()
    assert "Warning" not in served.log()


def test_it_drains_and_goes(bundle, tmp_path) -> None:
    served = Served(tmp_path, bundle).start()
    with Cascade.load(bundle, large=remote(served.url(), timeout_s=2.0)) as cascade:
        answers, over = [], threading.Event()

        def go_on() -> None:
            while not over.is_set():
                answers.extend(cascade.decide(frame) for frame in FRAMES[:10])

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(0.3)
        try:
            assert served.terminate() == 0
            time.sleep(0.2)
        finally:
            over.set()
            thread.join()
    assert "stopping" in served.log()
    assert "Traceback" not in served.log()
    reasons = {one.degraded for one in answers if one.degraded}
    assert reasons
    gone = ("UNAVAILABLE", "CANCELLED")
    assert all(any(code in why for code in gone) for why in reasons), reasons


@needs_openssl
def test_tls_and_a_token(bundle, tmp_path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.certificate("host")
    token, other = tmp_path / "token", tmp_path / "other"
    token.write_text("geheim")
    other.write_text("falsch")
    served = Served(
        tmp_path, bundle, "--tls-cert", str(certificate), "--tls-key", str(key),
        "--token-file", str(token),
    ).start()  # fmt: skip
    tls = Tls(ca=authority.ca)
    try:
        for scheme in ("grpcs", "https"):
            url = served.url(scheme=scheme, host="localhost")
            good = remote(url, tls=tls, token=Token(file=token), timeout_s=5.0)
            with Cascade.load(bundle, large=good) as cascade:
                assert not any(cascade.decide(frame).degraded for frame in FRAMES[:20])
            for wrong in (None, Token(file=other)):
                with pytest.raises(EngineError, match="token is not accepted"):
                    Cascade.load(bundle, large=remote(url, tls=tls, token=wrong))
        assert "geheim" not in served.log()
    finally:
        served.stop()


def _kept(history, bundle: str) -> bool:
    told = [json.loads(line) for line in history.read_text().splitlines()]
    return any(one["outcome"] == "kept" and bundle in one["bundle"] for one in told)


def test_a_device_follows_a_tag_while_the_host_answers(host, tmp_path) -> None:
    """A new bundle whose large model the host serves is proven there, tried and kept."""
    pytest.importorskip("cryptography")
    factory, store = Factory(tmp_path), tmp_path / "store"
    first = factory.change("first")
    factory.push(first)
    strict = small_bundle(tmp_path / "strict", thresholds=(0.999, 0.999))  # its frames are easy
    running = start(
        "run", first, "--source", "demo://", "--fps", "20", "--large", host.url(), "--json",
        "--trusted", factory.trust.keys, "--follow", f"{factory.shelf}:stable", "--store", store,
        "--poll-s", "0.2", "--trial-s", "2", "--large-timeout-ms", "5000",
    )  # fmt: skip
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(running.stdout), daemon=True)
    reading.start()
    try:
        due_s = time.monotonic() + 40
        while len(lines) < 20:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < due_s
            time.sleep(0.05)
        other = factory.push(factory.change("other", base=strict))
        wait_for(store / "history.jsonl", other[:12])
        while not _kept(store / "history.jsonl", other[:12]):  # not the one before it
            assert time.monotonic() < due_s + 40
            time.sleep(0.05)
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(20)
        reading.join(5)
    decisions = [json.loads(line) for line in lines]
    sequences = [one["frame_id"]["sequence"] for one in decisions]
    assert sequences == sorted(set(sequences))
    new = [one for one in decisions if one["bundle"]["sha256"] == other]
    assert any(one["stage"]["model"] == "large" and not one["degraded"] for one in new)
