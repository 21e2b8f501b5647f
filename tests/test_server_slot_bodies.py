"""Bodies of HTTP requests that are read from the socket straight into slots."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from onnx import helper
from serving import Served, read_response, serving
from waiting import wait_until

from trtinfer.server.http.connections import SCRATCH
from trtinfer.server.model import Model
from trtinfer.server.slot_body import SlotBody

LENGTH = 150_000  # numbers of a sample: 600 kB
CAPACITY = 16
RNG = np.random.default_rng(0)


def negating_model(factor: float = -1.0) -> bytes:
    """y = factor * x, of rows of numbers."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    shapes = [models.tensor(name, ["n", LENGTH]) for name in ("x", "y")]
    return models.build([node], shapes[:1], shapes[1:], factor=np.float32([factor]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    session_options = {"max_batch_size": 4, "capacity": CAPACITY}
    with serving(
        {"m": negating_model(), "two": models.several_model()},
        folder,
        model_options={"session_options": session_options},
        body_timeout=5.0,
    ) as served:
        yield served


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of bodies that were answered where they lay."""
    found: list[int] = []
    ainfer = SlotBody.ainfer

    def noting(self, *arguments, **named):
        found.append(len(self))
        return ainfer(self, *arguments, **named)

    monkeypatch.setattr(SlotBody, "ainfer", noting)
    return found


def model_of(served: Served) -> Model:
    return served.server._repository.get("m")


def is_at_rest(served: Served) -> bool:
    model = model_of(served)
    return model.reading == 0 and model.session.stats()["free_slots"] == CAPACITY


def rows(count: int) -> np.ndarray:
    return RNG.standard_normal((count, LENGTH), dtype=np.float32)


def request(body: bytes, headers: str, path: str = "m") -> bytes:
    head = f"POST /v2/models/{path}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def bare(x: np.ndarray) -> bytes:
    return request(x.tobytes(), "Inference-Header-Content-Length: 0\r\n")


def described(x: np.ndarray, **more: object) -> bytes:
    """With JSON before the elements, as Triton's clients send it."""
    size = {"binary_data_size": x.nbytes}
    entry = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": size, **more}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return request(head + x.tobytes(), f"Inference-Header-Content-Length: {len(head)}\r\n")


def receive(connection: socket.socket, x: np.ndarray, factor: float = -1.0) -> None:
    status, body = read_response(connection)
    assert status == 200, body
    y = np.frombuffer(body[-x.nbytes :], np.float32)
    np.testing.assert_array_equal(y, np.float32(factor) * x.ravel())


@pytest.mark.parametrize("pieces", [1, 2, 5, 60])
def test_bare_elements_are_read_into_a_slot(served: Served, answered, pieces: int) -> None:
    with served.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            (x,) = rows(1)
            sent = bare(x)
            step = -(-len(sent) // pieces)
            for start in range(0, len(sent), step):
                connection.sendall(sent[start : start + step])
            receive(connection, x)
    assert answered == [4 * LENGTH] * 3
    wait_until(lambda: is_at_rest(served))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_tensors_behind_json_are_read_into_slots(served: Served, answered, count: int) -> None:
    with served.connect() as connection:
        for _ in range(2):
            x = rows(count)
            connection.sendall(described(x))
            receive(connection, x)
    assert answered == [4 * LENGTH * count] * 2
    wait_until(lambda: is_at_rest(served))


@pytest.mark.gpu
def test_bodies_for_a_gpu_are_read_into_slots(tmp_path: Path, answered) -> None:
    options = {"session_options": {"backend": "tensorrt", "max_batch_size": 8}}
    source = {"m": negating_model()}
    with serving(source, tmp_path, model_options=options) as served, served.connect() as client:
        for x in rows(20):
            client.sendall(bare(x))
            receive(client, x)
        x = rows(8)
        client.sendall(described(x))
        receive(client, x)
    assert answered == [4 * LENGTH] * 20 + [32 * LENGTH]


def test_pipelined_bodies_have_slots_of_their_own(served: Served, answered) -> None:
    xs = rows(3)
    with served.connect() as connection, connection.makefile("rb") as answers:
        sender = threading.Thread(target=connection.sendall, args=(b"".join(map(bare, xs)),))
        sender.start()
        for x in xs:
            head = b"".join(iter(answers.readline, b"\r\n"))
            size = re.search(rb"Content-Length: (\d+)", head)
            assert size is not None, head
            y = np.frombuffer(answers.read(int(size[1]))[-x.nbytes :], np.float32)
            np.testing.assert_array_equal(y, -x)
        sender.join()
    assert len(answered) >= 1  # one that comes whole with the one before is read another way
    wait_until(lambda: is_at_rest(served))


def test_slow_clients_hold_a_quarter_of_the_slots(served: Served, answered) -> None:
    xs = rows(7)
    slow = [served.connect() for _ in xs[:-1]]
    try:
        for connection, x in zip(slow, xs, strict=False):
            connection.sendall(bare(x)[: SCRATCH + 5000])
        wait_until(lambda: model_of(served).reading == CAPACITY // 4)
        with served.connect() as connection:
            connection.sendall(described(xs[-1:]))
            receive(connection, xs[-1:])
        assert answered == []
        for connection, x in zip(slow, xs, strict=False):
            connection.sendall(bare(x)[SCRATCH + 5000 :])
            receive(connection, x)
        assert len(answered) == CAPACITY // 4
    finally:
        for connection in slow:
            connection.close()
    wait_until(lambda: is_at_rest(served))


def test_a_client_that_leaves_gives_its_slots_back(served: Served, answered) -> None:
    for _ in range(20):
        with served.connect() as connection:
            connection.sendall(described(rows(4))[: 2 * SCRATCH])
            wait_until(lambda: model_of(served).reading == 4)
        wait_until(lambda: is_at_rest(served))
    assert answered == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"datatype": "INT32"}, "FP32"),
        ({"shape": [LENGTH, 1]}, "shape"),
        ({"shape": [1.0, LENGTH]}, "shape"),
        ({"shape": "many"}, "shape"),
        ({"name": "z"}, "inputs"),
        ({"parameters": {"binary_data_size": 4 * LENGTH - 4}}, "bytes"),
    ],
)
def test_what_does_not_fit_is_refused_as_ever(served: Served, answered, more, reason) -> None:
    with served.connect() as connection:
        connection.sendall(described(rows(1), **more))
        status, body = read_response(connection)
    assert status == 400
    assert reason in json.loads(body)["error"]
    assert answered == []
    wait_until(lambda: is_at_rest(served))


def test_what_is_no_slots_bytes_is_read_elsewhere(served: Served, answered) -> None:
    """More samples than a batch, compressed bodies, other models, no model at all."""
    headers = {"Inference-Header-Content-Length": "0", "Content-Encoding": "gzip"}
    x = np.zeros(LENGTH, np.float32)
    packed = gzip.compress(x.tobytes(), 0)
    infer = "/v2/models/{}/infer".format
    assert served.ask("POST", infer("m"), packed, headers)[0] == 200
    del headers["Content-Encoding"]
    assert served.ask("POST", infer("m"), rows(2).tobytes(), headers)[0] == 400
    assert served.ask("POST", infer("two"), x.tobytes(), headers)[0] == 400
    assert served.ask("POST", infer("none"), x.tobytes(), headers)[0] == 404
    assert served.ask("PUT", infer("m"), x.tobytes(), headers)[0] == 405
    with served.connect() as connection:
        connection.sendall(described(rows(5)))
        assert read_response(connection)[0] == 400
    assert answered == []


def test_without_a_token_nobody_holds_slots(tmp_path: Path, answered) -> None:
    with serving({"m": negating_model()}, tmp_path, token="secret") as served:
        (x,) = rows(1)
        with served.connect() as connection:
            connection.sendall(bare(x)[: 2 * SCRATCH])
            with served.connect() as other:
                other.sendall(bare(x).replace(b"Host", b"Authorization: Bearer secret\r\nHost"))
                receive(other, x)
            assert model_of(served).reading == 0
            connection.sendall(bare(x)[2 * SCRATCH :])
            assert read_response(connection)[0] == 401
        assert len(answered) == 1


def test_bodies_in_slots_are_traced(tmp_path: Path, answered) -> None:
    file = tmp_path / "trace.json"
    x = rows(2)
    with serving({"m": negating_model()}, tmp_path, trace_file=str(file)) as served:
        settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
        served.ask_json("POST", "/v2/trace/setting", settings)
        with served.connect() as connection:
            for sent, expected in ((bare(x[0]), x[0]), (described(x), x)):
                connection.sendall(sent)
                receive(connection, expected)
    assert answered == [x[0].nbytes, x.nbytes]
    stamps = [entry["timestamps"] for entry in json.loads(file.read_bytes())[1::2]]
    order = ["HTTP_RECV_END", "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END"]
    for stages in stamps:
        assert [stage["name"] for stage in stages][1:6] == order
    assert len(stamps) == 2


def test_a_model_that_is_replaced_meanwhile_is_not_asked(tmp_path: Path, answered) -> None:
    with serving({"m": negating_model()}, tmp_path, allow_repository_control=True) as served:
        (x,) = rows(1)
        with served.connect() as connection:
            connection.sendall(bare(x)[: 2 * SCRATCH])
            wait_until(lambda: model_of(served).reading == 1)
            (tmp_path / "m.onnx").write_bytes(negating_model(2.0))
            assert served.ask_json("POST", "/v2/repository/models/m/load")[0] == 200
            connection.sendall(bare(x)[2 * SCRATCH :])
            receive(connection, x, 2.0)
        assert answered == []
