"""Bodies of HTTP requests: however long, compressed or not, whole or not."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models import WEIGHTS, matmul_model
from serving import Served, read_response, serving
from waiting import wait_until

from trtinfer import _core
from trtinfer.errors import InputError
from trtinfer.server.http import compression
from trtinfer.server.http.connections import SCRATCH

SAMPLE = np.arange(256, dtype=np.float32)
RAW = {"Inference-Header-Content-Length": "0"}
PART = 128 << 10  # bytes that are unpacked at a time
LONGEST = 300_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    with serving(
        {"m": matmul_model()},
        folder,
        max_body_bytes=LONGEST,
        body_timeout=0.5,
    ) as served:
        yield served


# --- Bodies that go past the parser ---------------------------------------------------------------


def long_request(rows: int, size: int) -> bytes:
    """Rows of ones, and spaces that make a body of so many bytes."""
    entry = {"name": "x", "datatype": "FP32", "shape": [rows, 256], "data": [1] * 256 * rows}
    body = json.dumps({"inputs": [entry]}).encode().ljust(size)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def receive_rows(connection: socket.socket, rows: int) -> None:
    status, body = read_response(connection)
    assert status == 200
    check_rows(body, rows)


def check_rows(body: bytes, rows: int) -> None:
    data = np.reshape(json.loads(body)["outputs"][0]["data"], (rows, 16))
    np.testing.assert_allclose(data, np.tile(WEIGHTS.sum(axis=0), (rows, 1)), rtol=1e-3)


@pytest.mark.parametrize("size", [SCRATCH - 1, SCRATCH, 2 * SCRATCH, 2 * SCRATCH + 1, LONGEST])
@pytest.mark.parametrize("pieces", [1, 2, 7, 100])
def test_a_body_of_any_length_is_read_whole(served: Served, size: int, pieces: int) -> None:
    with served.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for rows in (1, 3, 2):  # bytes that were left of the request before would be seen
            request = long_request(rows, size)
            step = -(-len(request) // pieces)
            for start in range(0, len(request), step):
                connection.sendall(request[start : start + step])
            receive_rows(connection, rows)


def test_long_bodies_may_be_pipelined(served: Served) -> None:
    sizes = [LONGEST, 0, 0, LONGEST, LONGEST, 0]
    requests = [long_request(rows, size) for rows, size in enumerate(sizes, 1)]
    with served.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(b"".join(requests) + b"GET /v2 HTTP/1.0\r\n\r\n")
        bodies = re.findall(rb"\{.*\}", answers.read())
    assert len(bodies) == len(sizes) + 1
    for rows in range(1, len(sizes) + 1):
        check_rows(bodies[rows - 1], rows)


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"])
def test_a_long_body_leaves_its_connection_as_the_client_wants_it(
    served: Served, ending: bytes
) -> None:
    request = long_request(1, LONGEST).replace(b"Host: x\r\n", b"Host: x\r\n" + ending)
    with served.connect() as connection:
        connection.sendall(request)
        receive_rows(connection, 1)
        connection.settimeout(0.2)
        with contextlib.nullcontext() if ending else pytest.raises(TimeoutError):
            assert connection.recv(1) == b""


def test_a_long_body_that_ends_early_is_told_so(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(long_request(1, LONGEST)[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_response(connection)[0] == 400


def test_a_long_body_must_come_in_time(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(long_request(1, LONGEST)[:-1])
        assert read_response(connection)[0] == 408
        assert connection.recv(1) == b""


def test_long_bodies_are_held_at_what_has_come(tmp_path: Path) -> None:
    request = long_request(1, LONGEST)
    with (
        serving({"m": matmul_model()}, tmp_path, max_held_bytes=4 * LONGEST) as served,
        contextlib.ExitStack() as stack,
    ):
        *early, late = (stack.enter_context(served.connect()) for _ in range(5))
        for connection in early:
            connection.sendall(request[:-1])
        held = served.server._connections
        assert held is not None
        wait_until(lambda: held.held == 4 * (LONGEST - 1))
        late.sendall(request)
        status, body = read_response(late)
        assert status == 503
        assert b"take all memory" in body
        late.close()
        wait_until(lambda: held.held == 4 * (LONGEST - 1))
        for connection in early:
            connection.sendall(request[-1:])
            receive_rows(connection, 1)
        wait_until(lambda: held.held == 0)


def test_a_body_that_there_is_no_memory_for_is_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(size: int) -> bytearray:
        raise MemoryError

    with served.connect() as connection, monkeypatch.context() as patch:
        patch.setattr(_core, "new_bytearray", refuse)
        connection.sendall(long_request(1, LONGEST))
        status, body = read_response(connection)
        assert status == 503
        assert b"no memory" in body


# --- Compressed bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(served: Served, encoding: str) -> None:
    compress, decompress = {
        "gzip": (gzip.compress, gzip.decompress),
        "deflate": (zlib.compress, zlib.decompress),
    }[encoding]
    inputs = [{"name": "x", "datatype": "FP32", "shape": [20, 256], "data": SAMPLE.tolist() * 20}]
    body = compress(json.dumps({"inputs": inputs}).encode())
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    status, answer, got = served.ask("POST", "/v2/models/m/infer", body, headers)
    assert status == 200
    assert got["content-encoding"] == encoding
    rows = np.reshape(json.loads(decompress(answer))["outputs"][0]["data"], (20, 16))
    np.testing.assert_allclose(rows, np.tile(SAMPLE @ WEIGHTS, (20, 1)), rtol=1e-3)


@pytest.mark.parametrize(
    "body",
    [gzip.compress(bytes(1_000_000)), gzip.compress(bytes(1000))[:-4], b"no gzip at all"],
    ids=["bomb", "truncated", "plain"],
)
def test_bad_compressed_bodies_are_refused(served: Served, body: bytes) -> None:
    headers = {**RAW, "Content-Encoding": "gzip"}
    assert served.ask("POST", "/v2/models/m/infer", body, headers)[0] == 400


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 10 * PART])
@pytest.mark.parametrize("random", [False, True])
def test_every_part_of_a_compressed_body_is_read(encoding: bytes, size: int, random: bool) -> None:
    data = np.random.default_rng(0).bytes(size) if random else bytes(size)
    sent = (gzip.compress if encoding == b"gzip" else zlib.compress)(data)
    assert b"".join(compression.decompress(sent, encoding)) == data
    for wrong in (sent[:-1], sent + b"x", sent + bytes(PART), b""):
        with pytest.raises(InputError):
            list(compression.decompress(wrong, encoding))


def test_compressed_bodies_are_held_at_the_size_that_they_unpack_to(tmp_path: Path) -> None:
    def ask(body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Encoding": "gzip"}
        return served.ask("POST", "/v2/repository/index", body, headers)[:2]

    padded = {"ready": True, "padding": "x" * 600_000}
    good = gzip.compress(json.dumps(padded).encode())
    with serving({"m": matmul_model()}, tmp_path, max_held_bytes=1 << 20) as served:
        for _ in range(3):
            assert ask(good)[0] == 200
            assert ask(good[:-1])[0] == 400
            status, answer = ask(gzip.compress(bytes(2 << 20)))
            assert status == 503
            assert b"take all memory" in answer


def test_a_connection_without_requests_keeps_no_body(tmp_path: Path) -> None:
    size = 24 << 20
    body = gzip.compress(json.dumps({"padding": "x" * size}).encode(), 1)
    head = f"Host: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    request = b"POST /v2/repository/index HTTP/1.1\r\n" + head.encode() + body
    with (
        serving({"m": matmul_model()}, tmp_path, max_held_bytes=4 * size) as served,
        contextlib.ExitStack() as stack,
    ):
        before = resident()
        for _ in range(12):
            connection = stack.enter_context(served.connect())
            connection.sendall(request)
            assert read_response(connection)[0] == 200
        assert resident() - before < 6 * size


def resident() -> int:
    """Bytes of this process's memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")
