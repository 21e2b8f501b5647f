"""`trtinfer serve` from its start to its end by a signal."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from classification import ultralytics
from models import BUSY, VERY_BUSY, WEIGHTS, build, matmul_model, slow_model, tensor
from onnx import helper
from prometheus_client.parser import text_string_to_metric_families
from serving import serving
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_until

RAW = {"Inference-Header-Content-Length": "0"}


@contextlib.contextmanager
def program(
    *arguments: str, protocol: str = "HTTP", path: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program as a user starts it, with a folder of modules; and the port of a protocol."""
    command = [sys.executable, "-m", "trtinfer", "serve", "--backend", "onnxruntime"]
    for name in ("HTTP", "gRPC"):
        command += [f"--{name.lower()}", "0" if name == protocol else "-1"]
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)}
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        port = re.search(rf"{protocol} on 127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert port is not None
        yield process, int(port[1])
    finally:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, RAW)
        response = connection.getresponse()
        return response.status, response.read()


def test_a_signal_ends_it_without_losing_an_accepted_request(tmp_path: Path) -> None:
    model = tmp_path / "slow.onnx"
    model.write_bytes(slow_model())
    statuses: list[int] = []
    refused: list[OSError] = []
    body = np.float32(BUSY).tobytes()

    def load(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while True:
            try:
                connection.request("POST", "/v2/models/slow/infer", body, RAW)
                response = connection.getresponse()
                answer = response.read()
            except ConnectionRefusedError as error:
                refused.append(error)
                return
            assert response.status == 503 or answer[-4:] == np.float32(2 * BUSY).tobytes()
            statuses.append(response.status)

    with program(str(model)) as (process, port):
        threads = [threading.Thread(target=load, args=(port,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(statuses) < 12:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for thread in threads:
            thread.join(30)
    assert len(refused) == 6, "a client saw its connection end without an answer"
    assert set(statuses) <= {200, 503}


class GrpcLoad:
    """Callers that go on until the server is gone, and what became of their requests by id."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count()
        self.answered: set[str] = set()
        self.ends: list[str] = []

    def request(self) -> Any:
        return service_pb2.ModelInferRequest(
            model_name="slow",
            id=str(next(self._numbers)),
            inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}],
            raw_input_contents=[np.float32(BUSY).tobytes()],
        )

    def note(self, answer: Any) -> None:
        assert answer.raw_output_contents[0] == np.float32(2 * BUSY).tobytes()
        self.answered.add(answer.id)

    def call(self) -> None:
        """One request after the other."""
        with grpc.insecure_channel(self._address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while True:
                try:
                    self.note(stub.ModelInfer(self.request(), timeout=30))
                except grpc.RpcError as error:
                    self.ends.append(error.code().name)
                    return

    def stream(self) -> None:
        """Six requests at a time; each answer lets one more out."""
        room = threading.Semaphore(6)

        def requests() -> Iterator[Any]:
            while True:
                room.acquire()
                yield self.request()

        with grpc.insecure_channel(self._address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                for response in stub.ModelStreamInfer(requests()):
                    if response.error_message:
                        assert "shutting down" in response.error_message
                    else:
                        self.note(response.infer_response)
                        room.release()
            except grpc.RpcError as error:
                self.ends.append(error.code().name)
            room.release(1000)


def test_a_signal_ends_it_without_losing_a_call_or_an_answer_of_a_stream(tmp_path: Path) -> None:
    """A trace of each request that was accepted tells which these are."""
    model, traces = tmp_path / "slow.onnx", tmp_path / "trace.json"
    model.write_bytes(slow_model())
    options = ["--trace-file", str(traces), "--max-batch-size", "1"]
    with program(str(model), *options, protocol="gRPC") as (process, port):
        load = GrpcLoad(f"127.0.0.1:{port}")
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            on = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
            client.update_trace_settings(settings=on)
        loops = [load.call] * 4 + [load.stream] * 2
        threads = [threading.Thread(target=loop) for loop in loops]
        for thread in threads:
            thread.start()
        while len(load.answered) < 8:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for thread in threads:
            thread.join(30)
    entries = json.loads(traces.read_bytes())
    accepted = {entry["request_id"] for entry in entries if "request_id" in entry}
    assert load.answered == accepted
    assert set(load.ends) <= {"UNAVAILABLE", "CANCELLED"}
    assert len(load.ends) == 6


def doubling(size: int, folder: Path) -> Path:
    model = folder / "double.onnx"
    x, y = (tensor(name, ["n", size]) for name in "xy")
    model.write_bytes(build([helper.make_node("Add", ["x", "x"], ["y"])], [x], [y]))
    return model


def test_a_signal_waits_for_an_answer_that_is_read_slowly(tmp_path: Path) -> None:
    size = 1 << 21
    body = np.ones(size, np.float32).tobytes()
    with program(str(doubling(size, tmp_path))) as (process, port):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(client):
            client.request("POST", "/v2/models/double/infer", body, RAW)
            wait_until(
                lambda: (
                    b'nv_inference_count{model="double",version="1"} 1'
                    in ask(port, "GET", "/metrics")[1]
                )
            )
            process.send_signal(signal.SIGTERM)
            time.sleep(1.5)
            answer = client.getresponse().read()
        assert answer.endswith(np.full(size, 2, np.float32).tobytes())
        assert process.wait(30) == 0


def test_a_signal_waits_for_a_stream_that_is_read_slowly(tmp_path: Path) -> None:
    count, size = 8, 1 << 18
    model = doubling(size, tmp_path)
    sent = service_pb2.ModelInferRequest(
        model_name="double",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, size]}],
        raw_input_contents=[np.ones(size, np.float32).tobytes()],
    )
    open_end = threading.Event()

    def requests() -> Iterator[Any]:
        yield from [sent] * count
        open_end.wait(60)

    with program(str(model), protocol="gRPC") as (process, port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answers = stub.ModelStreamInfer(requests())
            asked = service_pb2.ModelStatisticsRequest(name="double")
            wait_until(lambda: stub.ModelStatistics(asked).model_stats[0].inference_count == count)
            process.send_signal(signal.SIGTERM)
            time.sleep(1.5)
            for _ in range(count):
                (data,) = next(answers).infer_response.raw_output_contents
                assert np.frombuffer(data, np.float32).tolist() == [2.0] * size
            open_end.set()
        assert process.wait(30) == 0


@pytest.mark.parametrize("end", [b"", b"nonsense\r\n\r\n"], ids=["whole", "nonsense"])
def test_what_waits_behind_a_request_is_answered_while_the_server_drains(
    tmp_path: Path, end: bytes
) -> None:
    request = (
        b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\n"
        b"Inference-Header-Content-Length: 0\r\nContent-Length: 4\r\n\r\n"
    ) + np.float32(VERY_BUSY).tobytes()
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        serving({"slow": slow_model()}, tmp_path) as served,
        served.connect() as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(request + live + request * 2 + live + request + end)
        wait_until(lambda: b"requests_under_way{} 1\n" in served.ask("GET", "/metrics")[1])
        served.begin_stop()
        text = answers.read()
    heads = re.findall(rb"HTTP/1\.1 (\d{3}) (.*?)\r\n\r\n", text, re.DOTALL)
    expected = [b"200", b"200", b"503", b"503", b"200", b"503"] + [b"400"] * bool(end)
    assert [status for status, _ in heads] == expected
    closing = [b"Connection: close" in head for _, head in heads]
    assert closing == [False] * (len(heads) - 1) + [True]


def test_readiness_turns_off_before_requests_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(matmul_model())
    with program(str(model), "--drain-delay", "1.5") as (process, port):
        assert ask(port, "GET", "/v2/health/ready")[0] == 200
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert ask(port, "GET", "/v2/health/ready")[0] == 503
        assert ask(port, "GET", "/v2/health/live")[0] == 200
        assert ask(port, "POST", "/v2/models/m/infer", bytes(1024))[0] == 200
        assert process.wait(30) == 0


def test_a_model_that_cannot_be_opened_ends_it_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "trtinfer", "serve", str(tmp_path / "bad.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "trtinfer: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_port_that_is_taken_ends_it_with_a_reason(tmp_path: Path, protocol: str) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(matmul_model())
    with serving({"other": matmul_model()}, tmp_path, grpc_port=0) as served:
        port = (served.address if protocol == "http" else served.grpc_address).rpartition(":")[2]
        ports = {"http": "0", "grpc": "0"} | {protocol: port}
        command = [sys.executable, "-m", "trtinfer", "serve", str(model)]
        for name, value in ports.items():
            command += [f"--{name}", value]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


def test_the_collector_leaves_alone_what_was_loaded(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import gc, signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print(gc.get_freeze_count(), flush=True))\n"
    )
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    with program(str(tmp_path / "m.onnx"), path=tmp_path) as (process, port):
        assert ask(port, "GET", "/v2/health/ready")[0] == 200
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 10_000


def test_two_models_are_served_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    (tmp_path / "c.onnx").write_bytes(ultralytics())
    with program(str(tmp_path / "m.onnx"), f"colors={tmp_path / 'c.onnx'}") as (_, port):
        x = np.ones(256, np.float32)
        status, body = ask(port, "POST", "/v2/models/m/infer", x.tobytes())
        assert status == 200
        np.testing.assert_allclose(np.frombuffer(body[-64:], np.float32), x @ WEIGHTS, rtol=1e-3)
        assert json.loads(ask(port, "GET", "/v2/models/colors")[1])["name"] == "colors"


def test_a_client_that_leaves_takes_its_request_back(tmp_path: Path) -> None:
    options = {"session_options": {"max_batch_size": 1, "max_inflight": 1}}
    request = (
        b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\n"
        b"Inference-Header-Content-Length: 0\r\nContent-Length: 4\r\n\r\n"
    ) + np.float32(BUSY).tobytes()
    with serving({"slow": slow_model()}, tmp_path, model_options=options) as served:
        connections = [served.connect() for _ in range(12)]
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            connection.close()
        end = time.monotonic() + 20
        pending = 'nv_inference_pending_request_count{model="slow",version="1"}'
        while True:  # they may not have come yet
            metrics = served.ask("GET", "/metrics")[1].decode()
            if f"{pending} 0" in metrics and 'reason="CANCELED"} 0\n' not in metrics:
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        _, answer = served.ask_json("GET", "/v2/models/slow/stats")
        assert answer["model_stats"][0]["inference_stats"]["fail"]["count"] > 0


def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    with serving({"m": matmul_model()}, tmp_path) as served:
        for _ in range(5):
            assert ask(served.port, "POST", "/v2/models/m/infer", bytes(1024))[0] == 200
        assert ask(served.port, "POST", "/v2/models/m/infer", b"x")[0] == 400
        status, body, headers = served.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")  # which this parser adds
            which = sample.labels.get("reason") or sample.labels.get("status") or ""
            samples[name, which] = sample.value
    assert samples["nv_inference_count", ""] == 5
    assert samples["nv_inference_request_success", ""] == 5
    assert samples["nv_inference_request_failure", "OTHER"] == 1
    assert samples["trtinfer_http_responses", "200"] == 5
    assert samples["trtinfer_http_responses", "400"] == 1
    assert samples["trtinfer_batch_size_count", ""] == 5
