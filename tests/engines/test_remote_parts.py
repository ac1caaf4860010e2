"""The remote engine's parts that need no host: URLs, limits, secrets, breaker, budget, facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinysaver_edge.codec import Jpeg
from tinysaver_edge.engines.remote import RemoteModel, Tls, Token, remote_model
from tinysaver_edge.engines.remote.engine import to_tensor
from tinysaver_edge.engines.remote.facts import (
    ModelFacts,
    RequestError,
    TensorFacts,
    Wanted,
    agree,
    check_values,
)
from tinysaver_edge.engines.remote.model import Address, Scheme
from tinysaver_edge.engines.remote.traffic import SAVED, Breaker, RetryBudget, State
from tinysaver_edge.errors import EngineError, InputError
from tinysaver_edge.output_format import OutputFormat
from tinysaver_edge.preprocess import Preprocess, Resize
from tinysaver_edge.testing import FakeClock


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("grpc://host:8001/large", Address(Scheme.GRPC, "host", 8001, "large")),
        ("grpcs://10.0.0.7:1/m/3", Address(Scheme.GRPCS, "10.0.0.7", 1, "m", "3")),
        ("http://[::1]:8000/large/", Address(Scheme.HTTP, "::1", 8000, "large")),
        ("https://h.example:443/a.b-c_1", Address(Scheme.HTTPS, "h.example", 443, "a.b-c_1")),
    ],
)
def test_urls_are_read(url: str, address: Address) -> None:
    assert Address.parse(url) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "url",
    ["", "host:8001/large", "ftp://h:1/m", "grpc://h/m", "grpc://h:0/m", "grpc://h:99999/m",
     "grpc://h:x/m", "grpc://h:1", "grpc://h:1/", "grpc://h:1/m/1/2", "grpc://:1/m",
     "grpc://h:1/m n", "grpc://a b:1/m", "grpc://[1.2.3]:1/m", "grpc://-h:1/m",
     "grpc://h:1/m?token=geheim", "grpc://u:geheim@h:1/m", "ftp://u:geheim@h:1/m", "grpc://h:1/m#geheim"],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Address.parse(url)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.9", True), ("[::1]", True), ("10.0.0.1", False),
     ("localhost.example", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_plain_text_leaves_this_machine_only_where_it_is_allowed(host: str, loopback: bool) -> None:
    url = f"grpc://{host}:8001/large"
    if loopback:
        assert remote_model(url).warnings == ()
        return
    with pytest.raises(InputError, match="grpcs://, or allow it with --insecure"):
        remote_model(url)
    allowed = RemoteModel((Address.parse(url),), insecure=True, token=Token(env="NAME"))
    assert "the token cross the network in plain text" in allowed.warnings[0]
    assert remote_model(url.replace("grpc", "grpcs")).warnings == ()


def test_urls_become_addresses() -> None:
    url = "http://127.0.0.1:8080/large"
    for given in (url, [url], (Address.parse(url),)):
        assert RemoteModel(given) == remote_model(url)
    with pytest.raises(InputError, match="no host or port"):
        RemoteModel("http://large")


def test_what_would_do_nothing_is_refused() -> None:
    plain, other = map(Address.parse, ("grpc://127.0.0.1:1/m", "grpcs://127.0.0.1:2/m"))
    with pytest.raises(InputError, match=r"grpc://127\.0\.0\.1:1/m: named twice"):
        RemoteModel((plain, other, plain))
    for tls in (Tls(ca=Path("ca.pem")), Tls(server_name="host")):
        with pytest.raises(InputError, match="is not encrypted, so certificates"):
            RemoteModel((plain,), tls=tls)
        assert RemoteModel((plain, other), tls=tls)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"timeout_s": float("inf")}, {"connect_s": -1}, {"probe_s": 0},
     {"max_in_flight": 0}, {"failures_to_open": 0}, {"retry_share": 2}, {"jpeg_quality": 0},
     {"jpeg_quality": 101}],
)  # fmt: skip
def test_limits_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RemoteModel((Address.parse("grpc://localhost:1/m"),), **wrong)


def test_tokens_come_from_files_and_the_environment_and_are_never_shown(
    tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "token"
    file.write_text("geheim\n")
    token = Token(file=file)
    assert token.headers(grpc=False) == {"authorization": "Bearer geheim"}
    assert token.headers(grpc=True) == {
        "authorization": "Bearer geheim",
        "triton-grpc-protocol-authorization": "Bearer geheim",
    }
    assert "geheim" not in repr(token)
    file.write_text("another")  # a token that was renewed
    assert token.headers(grpc=False) == {"authorization": "Bearer another"}
    monkeypatch.setenv("EDGE_TOKEN", "geheim")
    assert Token(env="EDGE_TOKEN").headers(grpc=False) == {"authorization": "Bearer geheim"}


@pytest.mark.parametrize("content", ["", "  \n", "two words", "line\nline", "höher"])
def test_what_is_no_token_is_refused_without_repeating_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(InputError, match="token file") as caught:
        Token(file=file).headers(grpc=True)
    assert "höher" not in str(caught.value)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("secret", ["Kr4nich2Kr4nich2", "Kr4n/ich+/x==", "eyJ" + "Kr4nich." * 30])
def test_a_token_in_place_of_the_name_of_its_file_is_not_repeated(secret: str) -> None:
    for token in (Token(file=Path(secret)), Token(env=secret)):
        with pytest.raises(InputError, match="that holds the token, not the token") as caught:
            token.headers(grpc=True)
        assert secret[:7] not in str(caught.value)


def test_tokens_and_certificates_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Token(file=tmp_path / "none").headers(grpc=True)
    with pytest.raises(InputError, match="holds no token"):
        Token(env="SURELY_NOT_SET").headers(grpc=True)
    with pytest.raises(InputError, match="name one"):
        Token()
    with pytest.raises(InputError, match="name one"):
        Token(file=tmp_path, env="A")
    with pytest.raises(InputError, match="give both"):
        Tls(key=tmp_path / "key.pem")
    with pytest.raises(InputError, match="No such file"):
        Tls(ca=tmp_path / "ca.pem").read()
    (tmp_path / "ca.pem").write_bytes(b"\x30\x82")
    with pytest.raises(InputError, match="no PEM file"):
        Tls(ca=tmp_path / "ca.pem").read()


def test_a_breaker_opens_after_failures_in_a_row_and_closes_after_a_good_probe() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=3, pause_s=0.5)
    for failed in (True, True, False, True, True):
        breaker.failed() if failed else breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert breaker.wait_s() is None
    assert not breaker.begin_probe()
    assert breaker.failed()
    assert breaker.state is State.OPEN
    assert not breaker.failed()  # another request that was under way
    breaker.succeeded()  # and one that came back late: not what a probe asked
    assert breaker.state is State.OPEN
    assert breaker.wait_s() == 0.5
    assert not breaker.begin_probe()
    clock.advance(0.5)
    assert breaker.begin_probe()
    assert breaker.state is State.HALF_OPEN
    assert not breaker.begin_probe()  # one at a time
    breaker.end_probe(good=False)
    assert breaker.state is State.OPEN
    assert not breaker.begin_probe()
    clock.advance(0.5)
    assert breaker.begin_probe()
    breaker.end_probe(good=True)
    assert breaker.state is State.CLOSED
    assert not breaker.failed()  # it counts from nought again


def test_a_lasting_failure_opens_a_breaker_at_once() -> None:
    breaker = Breaker(FakeClock(), failures=100)
    assert breaker.failed(lasting=True)
    assert breaker.state is State.OPEN


def test_retries_are_a_share_of_the_requests() -> None:
    budget = RetryBudget(0.1)
    assert sum(budget.spend() for _ in range(100)) == SAVED
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == SAVED
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 99 <= spent <= 100
    assert not RetryBudget(0.0).spend()


WANTED = Wanted(Preprocess(Resize(8, 6)), OutputFormat(), classes=5, sha256="a" * 64)
IMAGE = TensorFacts("image", "UINT8", (-1, 8, 6, 3))
SCORES = TensorFacts("scores", "FP32", (-1, 5))


def facts(image=IMAGE, *outputs, **more) -> ModelFacts:
    return ModelFacts((image,), outputs or (SCORES,), **more)


def test_a_host_that_serves_what_is_wanted_is_agreed_with() -> None:
    contract = agree(facts(max_batch=8, sha256="a" * 64), WANTED)
    assert (contract.input, contract.output, contract.max_batch) == ("image", "scores", 8)
    assert contract.input_shape == (8, 6, 3)
    assert agree(facts(), WANTED).max_batch is None
    assert agree(facts(TensorFacts("x", "UINT8", (1, 8, 6, 3))), WANTED).max_batch == 1
    open_shape = facts(
        TensorFacts("x", "UINT8", (-1, -1, -1, 3)), TensorFacts("y", "FP32", (-1, -1))
    )
    assert agree(open_shape, WANTED).output == "y"
    other = TensorFacts("features", "FP32", (-1, 512))
    assert agree(facts(IMAGE, other, SCORES), WANTED).output == "scores"


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (facts(TensorFacts("x", "FP32", (-1, 8, 6, 3))), "x FP32 (n, 8, 6, 3)"),
        (facts(TensorFacts("x", "UINT8", (-1, 3, 8, 6))), "x UINT8 (n, 3, 8, 6)"),
        (facts(TensorFacts("x", "UINT8", (8, 6, 3))), "x UINT8 (8, 6, 3)"),
        (facts(TensorFacts("x", "BYTES", (-1,))), "x BYTES (n)"),
        (ModelFacts((IMAGE, IMAGE), (SCORES,)), "takes 2 inputs"),
        (ModelFacts((), (SCORES,)), "takes 0 inputs (nothing)"),
    ],
)
def test_another_input_is_refused_naming_both(found: ModelFacts, named: str) -> None:
    with pytest.raises(RequestError) as caught:
        agree(found, WANTED)
    assert named in str(caught.value)
    assert "the bundle wants UINT8 (n, 8, 6, 3)" in str(caught.value)


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorFacts("y", "FP32", (-1, 6)),),
        (TensorFacts("y", "BYTES", (-1, 5)),),
        (TensorFacts("y", "FP32", (-1, 5, 1)),),
        (SCORES, TensorFacts("y", "FP32", (-1, 5))),
    ],
)
def test_other_outputs_are_refused_naming_both(outputs) -> None:
    with pytest.raises(
        RequestError, match=r"answers with .*, the bundle wants one output \(n, 5\)"
    ):
        agree(facts(IMAGE, *outputs), WANTED)


def test_another_hash_is_refused_naming_both() -> None:
    with pytest.raises(RequestError, match=r"hash bbbbbbbbbbbb….*with aaaaaaaaaaaa…"):
        agree(facts(sha256="b" * 64), WANTED)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 6), np.float32), np.zeros((1, 5), np.float32), np.zeros(10, np.float32),
     np.zeros((2, 5), bool), np.zeros((2, 0), np.float32)],
)  # fmt: skip
def test_an_answer_of_another_shape_is_none(values) -> None:
    check_values(np.zeros((2, 5), np.float32), 2, WANTED)
    with pytest.raises(RequestError, match="answered"):
        check_values(values, 2, WANTED)


def test_jpeg_is_a_file_a_frame() -> None:
    batch = np.full((2, 8, 6, 3), 77, np.uint8)
    assert to_tensor(batch, Jpeg(90)).shape == (2,)
    assert to_tensor(batch, None) is batch
    with pytest.raises(EngineError, match="send it pixels"):
        to_tensor(batch.astype(np.float32), Jpeg(90))


def test_what_jpeg_wants_is_bytes() -> None:
    wanted = Wanted(Preprocess(Resize(8, 6)), OutputFormat(), classes=5, jpeg=True)
    for shape in ((-1,), (-1, 1)):
        contract = agree(facts(TensorFacts("jpeg", "BYTES", shape)), wanted)
        assert len(contract.input_shape) == len(shape) - 1
    with pytest.raises(RequestError, match=r"the bundle wants BYTES \(n\) of JPEG files"):
        agree(facts(), wanted)
