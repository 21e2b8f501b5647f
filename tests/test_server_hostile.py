"""Thousands of broken requests: every one is answered, and other clients notice nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from classification import picture, png, ultralytics
from models import WEIGHTS, matmul_model, several_model, string_model
from serving import read_response
from tritonclient.grpc import service_pb2

SERVE = """
import asyncio, sys, uvloop
from trtinfer.server.options import ServerOptions
from trtinfer.server.server import Server
from trtinfer.server.source import FileSource

async def serve():
    folder, *names = sys.argv[1:]
    cpu = dict(session_options=dict(backend="onnxruntime"))
    sources = [FileSource(name=name, path=f"{folder}/{name}.onnx", **cpu) for name in names]
    times = dict(header_timeout=0.2, body_timeout=0.2)
    sizes = dict(max_body_bytes=100_000, max_header_bytes=8192)
    options = ServerOptions(http_port=0, grpc_port=0, allow_shared_memory=True, **times, **sizes)
    server = Server(sources, options)
    await server.start()
    print(server.http_port, server.grpc_port, flush=True)
    await server.serve_until_signalled()

uvloop.run(serve())
"""
X = np.arange(256, dtype=np.float32)
THREADS = 16

FEW = pytest.param(400, id="few")
MANY = pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)])


@dataclass
class Target:
    """The server under attack, in a process of its own."""

    process: subprocess.Popen[str]
    http_port: int
    grpc_port: int

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.http_port), timeout)

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("models")
    models = {
        "m": matmul_model(),
        "several": several_model(),
        "strings": string_model(),
        "colors": ultralytics(),
    }
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model)
    command = [sys.executable, "-c", SERVE, str(folder), *models]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    http_port, grpc_port = map(int, process.stdout.readline().split())
    yield Target(process, http_port, grpc_port)
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()


# --- Requests to start from


def http_request(path: str, body: bytes, **headers: object) -> bytes:
    named = {"Host": "x", **headers, "Content-Length": len(body)}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def json_body(name: str, datatype: str, shape: list[int], data: object) -> bytes:
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "data": data}]
    return json.dumps({"inputs": inputs, "parameters": {"timeout": 10**6}}).encode()


def binary_request() -> bytes:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 256]}
    entry["parameters"] = {"binary_data_size": 1024}  # type: ignore[assignment]
    outputs = [{"name": "y", "parameters": {"classification": 3, "binary_data": True}}]
    head = json.dumps({"inputs": [entry], "outputs": outputs}).encode()
    length = {"Inference_Header_Content_Length": len(head)}
    return http_request("/v2/models/m/infer", head + X.tobytes(), **length)


def form_request() -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = head + png(picture("red")) + b"\r\n--cut--\r\n"
    return http_request("/classify", body, Content_Type="multipart/form-data; boundary=cut")


HTTP_REQUESTS = [
    http_request("/v2/models/m/infer", X.tobytes(), Inference_Header_Content_Length=0),
    http_request("/v2/models/m/infer", json_body("x", "FP32", [1, 256], X.tolist())),
    http_request("/v2/models/strings/infer", json_body("x", "BYTES", [2], ["a", "b"])),
    binary_request(),
    form_request(),
    http_request("/v2/systemsharedmemory/region/r/register", b'{"key": "/x", "byte_size": 9}'),
    http_request("/v2/repository/index", b"{}"),
    b"GET /v2/models/m/versions/1/config HTTP/1.1\r\nHost: x\r\n\r\n",
]
TOKENS = [
    b"-1",
    b"0",
    b"999999999999",
    b"1e9",
    b"null",
    b"{}",
    b"[[",
    b'"',
    b"\r\n",
    b"\0",
    b"\xff",
]
WORDS = [b"FP32", b"BYTES", b"INT64", b"256", b"shape", b"data", b"name", b"1024", b"POST", b"HTTP"]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bytes after one to three accidents."""
    for _ in range(dice.randint(1, 3)):
        at, length = dice.randrange(len(data) + 1), dice.choice([1, 2, 8, 100, 1000])
        accident = dice.randrange(7)
        if accident == 0:
            data = data[:at]
        elif accident == 1:
            data = data[:at] + dice.randbytes(length) + data[at + length :]
        elif accident == 2:
            data = data[:at] + data[at + length :]
        elif accident == 3:
            data = data[:at] + data[at : at + length] * dice.randint(2, 50) + data[at:]
        elif accident == 4:
            data = data[:at] + dice.choice(TOKENS) + data[at:]
        elif accident == 5:
            data = data.replace(dice.choice(WORDS), dice.choice(TOKENS + WORDS))
        else:
            data = data.replace(b"\r\n", b"\r\nX: " + b"x" * dice.choice([10, 9000]) + b"\r\n", 1)
        data = data or b"x"
    return data


# --- Bystanders


@dataclass
class Bystander:
    """A client with good requests, at least one, who counts answers and the longest wait."""

    target: Target
    answers: int = 0
    longest: float = 0.0
    errors: list[BaseException] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        try:
            with self.target.connect() as connection:
                while not (self.answers and stop.is_set()):
                    began = time.monotonic()
                    connection.sendall(HTTP_REQUESTS[0])
                    status, body = read_response(connection)
                    assert status == 200
                    y = np.frombuffer(body[-64:], np.float32)
                    np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-3)
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.answers += 1
                    time.sleep(0.005)
        except BaseException as error:
            self.errors.append(error)


@contextlib.contextmanager
def bystander(target: Target) -> Iterator[Bystander]:
    stop, client = threading.Event(), Bystander(target)
    thread = threading.Thread(target=client.run, args=(stop,))
    thread.start()
    try:
        yield client
    finally:
        stop.set()
        thread.join(30)
    assert not client.errors
    assert client.answers > 0
    assert client.longest < 5.0


def attack(target: Target, count: int, send: Callable[[int], str]) -> Counter[str]:
    """Outcomes of many broken requests; memory and descriptors must not grow with them."""
    outcomes: Counter[str] = Counter()
    with ThreadPoolExecutor(THREADS) as pool, bystander(target):
        outcomes.update(pool.map(send, range(count // 4)))
        memory, descriptors = target.resident, target.descriptors
        outcomes.update(pool.map(send, range(count // 4, count)))
    assert target.process.poll() is None
    assert target.resident - memory < 64 << 20
    end = time.monotonic() + 20
    while target.descriptors > descriptors + THREADS:
        assert time.monotonic() < end, "connections are left behind"
        time.sleep(0.1)
    return outcomes


@pytest.mark.parametrize("count", [FEW, MANY])
def test_broken_http_is_answered(target: Target, count: int) -> None:
    def send(seed: int) -> str:
        dice = random.Random(seed)
        with target.connect() as connection:
            # Who is refused may be cut off while it sends.
            with contextlib.suppress(ConnectionError):
                connection.sendall(mutated(dice.choice(HTTP_REQUESTS), dice))
            try:
                answer = connection.recv(64)
            except ConnectionError:
                return "reset"
        assert answer.startswith(b"HTTP/1.1 "), (seed, answer)
        return answer[9:12].decode()

    outcomes = attack(target, count, send)
    assert outcomes["reset"] <= count // 100
    assert set(outcomes) <= {
        "reset", "100", "200", "400", "403", "404", "405", "408", "413", "429", "431", "500", "503"
    }  # fmt: skip
    assert outcomes["500"] <= count // 100
    assert outcomes["400"] > count // 10


@pytest.mark.parametrize("count", [FEW, MANY])
def test_broken_messages_over_grpc_get_a_status(target: Target, count: int) -> None:
    good = service_pb2.ModelInferRequest(
        model_name="m",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 256]}],
        outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 3}}}],
        raw_input_contents=[X.tobytes()],
    ).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def send(seed: int) -> str:
            dice = random.Random(seed)
            try:
                call(mutated(good, dice), timeout=30)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        outcomes = attack(target, count, send)
    assert set(outcomes) <= {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "UNAVAILABLE", "PERMISSION_DENIED"
    }  # fmt: skip
    assert outcomes["INVALID_ARGUMENT"] > count // 10


def test_bytes_that_are_no_grpc_are_survived(target: Target) -> None:
    with bystander(target):
        for seed in range(100):
            connection = socket.create_connection(("127.0.0.1", target.grpc_port), 5)
            with connection, contextlib.suppress(ConnectionError):
                connection.sendall(random.Random(seed).randbytes(2000))
    with grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert call(b"", timeout=10)


def test_clients_that_are_slow_or_vanish_are_survived(target: Target) -> None:
    request = HTTP_REQUESTS[0]
    with bystander(target):
        slow = [target.connect() for _ in range(200)]
        for i, connection in enumerate(slow):
            connection.sendall(request[: i % len(request)])
        gone = [target.connect() for _ in range(200)]
        for i, connection in enumerate(gone):
            connection.sendall(request[: 1 + i * 5 % len(request)])
            # Reset, as when a machine vanishes.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        never_reading = [target.connect() for _ in range(20)]
        for connection in never_reading:
            connection.sendall(request * 60)
        time.sleep(1.5)
        for connection in (*slow, *never_reading):
            connection.close()
    assert target.process.poll() is None
