"""How the server reads HTTP: what it takes, what it refuses, what it bounds."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models import WEIGHTS, matmul_model, slow_model, varying_model
from serving import Served, read_response, serving
from waiting import wait_until

SAMPLE = np.arange(256, dtype=np.float32)
RAW = {"Inference-Header-Content-Length": "0"}
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 0\r\n"
WHOLE = HEAD + b"Content-Length: 1024\r\n\r\n" + SAMPLE.tobytes()
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    with serving(
        {"m": matmul_model()},
        folder,
        max_body_bytes=100_000,
        max_header_bytes=4096,
        header_timeout=0.5,
        body_timeout=0.5,
        keep_alive=2.0,
    ) as served:
        yield served


def check_answer(body: bytes) -> None:
    raw = np.frombuffer(body[-64:], np.float32)
    np.testing.assert_allclose(raw, SAMPLE @ WEIGHTS, rtol=1e-3)


def test_bare_elements_are_answered(served: Served) -> None:
    status, body, headers = served.ask("POST", "/v2/models/m/infer", SAMPLE.tobytes(), RAW)
    assert status == 200
    length = int(headers["inference-header-content-length"])
    assert json.loads(body[:length])["outputs"][0]["shape"] == [1, 16]
    assert len(body) == length + 64
    check_answer(body)


def test_bare_elements_of_a_model_without_batch_axis_get_none(tmp_path: Path) -> None:
    options = {"session_options": {"batched": False}}
    with serving({"m": matmul_model(2)}, tmp_path, model_options=options) as served:
        body = SAMPLE.tobytes() * 2
        status, answer, headers = served.ask("POST", "/v2/models/m/infer", body, RAW)
    assert status == 200
    length = int(headers["inference-header-content-length"])
    assert json.loads(answer[:length])["outputs"][0]["shape"] == [2, 16]
    assert len(answer) == length + 128
    check_answer(answer)


def test_a_connection_serves_many_requests(served: Served) -> None:
    with served.connect() as connection:
        for _ in range(10):
            connection.sendall(WHOLE)
            status, body = read_response(connection)
            assert status == 200
            check_answer(body)


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    missing = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    with served.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(WHOLE + missing + WHOLE + b"GET /v2 HTTP/1.0\r\n\r\n")
        text = answers.read()
    assert statuses_in(text) == [200, 404, 200, 200]


def statuses_in(text: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", text)]


def test_more_pipelined_requests_than_may_wait_are_refused_after_the_answers(
    served: Served,
) -> None:
    with served.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(WHOLE + b"GET /v2 HTTP/1.1\r\n\r\n" * 200)
        text = answers.read()
    statuses = statuses_in(text)
    assert len(statuses) > 65
    assert statuses == [200] * (len(statuses) - 1) + [429]


def test_what_follows_whole_requests_takes_no_answer_from_them(served: Served) -> None:
    with served.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(WHOLE * 3 + b"nonsense\r\n\r\n")
        text = answers.read()
    assert statuses_in(text) == [200, 200, 200, 400]


def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    with served.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(HEAD)):
            connection.sendall(HEAD[i : i + 1])
        connection.sendall(WHOLE[len(HEAD) :])
        status, body = read_response(connection)
    assert status == 200
    check_answer(body)


def test_chunked_bodies_are_read(served: Served) -> None:
    data = SAMPLE.tobytes()
    chunks = b"".join(b"%x\r\n%s\r\n" % (256, data[i : i + 256]) for i in range(0, 1024, 256))
    with served.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        status, body = read_response(connection)
        assert status == 200
        check_answer(body)
        connection.sendall(WHOLE)
        assert read_response(connection)[0] == 200


def test_a_client_that_expects_100_is_told_to_go_on(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 1024\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(SAMPLE.tobytes())
        assert read_response(connection)[0] == 200


@pytest.mark.parametrize("offer", [b"", OFFER], ids=["plain", "offer"])
def test_a_client_that_expects_100_is_told_after_the_answers_before(
    served: Served, offer: bytes
) -> None:
    expecting = HEAD + offer + b"Expect: 100-continue\r\nContent-Length: 1024\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(WHOLE * 2 + expecting)
        text = receive_until_told_to_go_on(connection)
        assert statuses_in(text) == [200, 200, 100]
        connection.sendall(SAMPLE.tobytes())
        status, body = read_response(connection)
        assert status == 200
        check_answer(body)
        connection.sendall(expecting)
        assert receive_until_told_to_go_on(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        began = time.monotonic()
        assert read_response(connection)[0] == 408
        assert 0.3 < time.monotonic() - began < 1.6


def receive_until_told_to_go_on(connection: socket.socket) -> bytes:
    text = b""
    while not text.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        data = connection.recv(10_000)
        assert data, text
        text += data
    return text


def test_a_body_that_comes_unasked_is_not_asked_for(served: Served) -> None:
    with served.connect() as connection, connection.makefile("rb") as answers:
        expecting = HEAD + b"Expect: 100-continue\r\nContent-Length: 1024\r\n"
        last = expecting + b"Connection: close\r\n\r\n" + SAMPLE.tobytes()
        connection.sendall(WHOLE + expecting + b"\r\n" + SAMPLE.tobytes() + last)
        text = answers.read()
    assert statuses_in(text) == [200] * 3


def test_the_rest_of_a_request_must_come_in_time_after_an_answer(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(WHOLE + WHOLE[:-1])
        assert read_response(connection)[0] == 200
        began = time.monotonic()
        assert read_response(connection)[0] == 408
        assert 0.3 < time.monotonic() - began < 1.6


def test_a_client_that_expects_100_for_too_much_is_refused_at_once(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        assert read_response(connection)[0] == 413
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5, 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 10\r\nContent-Length: 11\r\n\r\n", 400),
        (HEAD + b"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"186a1\r\n" + b"x" * 100_001, 413),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 5000, 431),
        (b"GET /" + b"x" * 5000, 431),
        (b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % i for i in range(101)) + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 431),
        (b"\r\n" * 3000, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 5000, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000, 431),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(
    served: Served, sent: bytes, status: int
) -> None:
    with served.connect() as connection:
        connection.sendall(sent)
        assert read_response(connection)[0] == status
        assert connection.recv(1) == b""


@pytest.mark.parametrize("start", [b"GET /v2 HT", HEAD + b"Content-Length: 1024\r\n\r\n12345"])
def test_a_client_that_stops_in_a_request_is_cut_off(served: Served, start: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(start)
        began = time.monotonic()
        assert read_response(connection)[0] == 408
        assert connection.recv(1) == b""
        assert 0.3 < time.monotonic() - began < 2.0


def test_a_request_that_ends_early_is_told_so(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(WHOLE[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_response(connection)[0] == 400


def test_a_connection_without_requests_is_cut_off(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(WHOLE)
        assert read_response(connection)[0] == 200
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 1.5 < time.monotonic() - began < 5.0


def test_head_has_the_length_and_no_body(served: Served) -> None:
    status, body, headers = served.ask("HEAD", "/v2")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 10


def test_an_offer_to_upgrade_is_not_taken(served: Served) -> None:
    offer = {"Connection": "Upgrade", "Upgrade": "h2c"}
    status, body, headers = served.ask("GET", "/v2", headers=offer)
    assert status == 200
    assert json.loads(body)["name"] == "trtinfer"
    assert "connection" not in headers


def test_a_request_that_offers_an_upgrade_keeps_its_body(served: Served) -> None:
    data = SAMPLE.tobytes()
    with served.connect() as connection:
        for body in (
            b"Content-Length: 1024\r\n\r\n" + data,
            b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + data + b"\r\n0\r\n\r\n",
        ):
            connection.sendall(HEAD + OFFER + body)
            status, answer = read_response(connection)
            assert status == 200
            check_answer(answer)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_the_body_may_come_later_than_the_offer(served: Served, expect: bytes) -> None:
    with served.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(HEAD + OFFER + expect + b"Content-Length: 1024\r\n\r\n")
            if expect:
                assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            for part in (SAMPLE.tobytes()[:100], SAMPLE.tobytes()[100:]):
                time.sleep(0.05)
                connection.sendall(part)
            status, answer = read_response(connection)
            assert status == 200
            check_answer(answer)


def test_offers_may_be_pipelined(served: Served) -> None:
    offer = WHOLE.replace(b"Host: x\r\n", OFFER)
    last = offer.replace(b"Upgrade, ", b"close, Upgrade, ")
    with served.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(WHOLE + offer * 20 + WHOLE + last)
        text = answers.read()
    assert statuses_in(text) == [200] * 23
    assert text.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"Content-Length: 100001\r\n\r\n", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n186a1\r\n" + b"x" * 100_001, 413),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000, 431),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"Content-Length: 1024\r\n\r\n12345", 408),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_offer_lifts_no_limit(served: Served, sent: bytes, status: int) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + OFFER + sent)
        assert read_response(connection)[0] == status
        assert connection.recv(1) == b""


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
def test_a_tunnel_is_refused_and_the_connection_ends(served: Served, offer: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n\x16\x03\x01")
        assert read_response(connection)[0] == 404
        assert connection.recv(1) == b""


def test_unknown_paths_and_methods_are_told_apart(served: Served) -> None:
    assert served.ask("GET", "/v2/nothing")[0] == 404
    assert served.ask("GET", "/v2/models/m/infer")[0] == 405
    assert served.ask("DELETE", "/v2")[0] == 405


def test_an_answer_that_was_read_slowly_leaves_the_next_request_its_time(tmp_path: Path) -> None:
    size = 4 << 20
    parameters = {"binary_data_size": 4 * size}
    entry = {"name": "x", "datatype": "FP32", "shape": [1, size], "parameters": parameters}
    large = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    turns = np.float32(4_000_000)  # more than a second
    models = {"large": varying_model(), "slow": slow_model()}
    with serving(models, tmp_path, write_timeout=0.3) as served, served.connect() as connection:
        connection.sendall(
            inference("large", len(large), large + bytes(4 * size))
            + inference("slow", 0, turns.tobytes())
        )
        connection.recv(1, socket.MSG_PEEK)
        time.sleep(0.1)  # the rest of the answer finds no room
        assert read_response(connection)[0] == 200
        began = time.monotonic()
        assert read_response(connection)[0] == 200
        assert time.monotonic() - began > 1.0  # or the test says nothing


def inference(model: str, length: int, body: bytes) -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body


def test_more_connections_than_allowed_are_closed(tmp_path: Path) -> None:
    with (
        serving({"m": matmul_model()}, tmp_path, max_connections=2) as served,
        served.connect() as first,
        served.connect() as second,
        served.connect() as third,
    ):
        for connection in (first, second):
            connection.sendall(WHOLE)
            assert read_response(connection)[0] == 200
        assert read_response(third)[0] == 503
        assert third.recv(1) == b""


def test_health_is_told_as_the_protocol_writes_it(tmp_path: Path) -> None:
    with serving({"m": matmul_model()}, tmp_path, drain_delay=1.0) as served:
        assert served.ask_json("GET", "/v2/health/live") == (200, {"live": True})
        assert served.ask_json("GET", "/v2/health/ready") == (200, {"live": True, "ready": True})
        ready = (200, {"name": "m", "ready": True})
        assert served.ask_json("GET", "/v2/models/m/ready") == ready
        assert served.ask_json("GET", "/v2/models/m/versions/1/ready") == ready
        served.begin_stop()
        wait_until(lambda: served.ask("GET", "/v2/health/ready")[0] == 503)
        status, answer = served.ask_json("GET", "/v2/health/ready")
        assert (status, answer) == (503, {"live": False, "ready": False})


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    with serving({"m": matmul_model()}, tmp_path, token="secret") as served:
        assert served.ask("GET", "/v2")[0] == 401
        assert served.ask("GET", "/v2", headers={"Authorization": "Bearer wrong"})[0] == 401
        assert served.ask("GET", "/v2", headers={"Authorization": "Bearer secret"})[0] == 200
        assert served.ask("GET", "/v2/health/ready")[0] == 200
