"""`trtinfer serve` from its start to its end by a signal."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from classification import ultralytics
from models import BUSY, WEIGHTS, matmul_model, slow_model
from prometheus_client.parser import text_string_to_metric_families
from serving import serving

RAW = {"Inference-Header-Content-Length": "0"}


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program as a user starts it, and its HTTP port."""
    command = [sys.executable, "-m", "trtinfer", "serve", "--http", "0", "--grpc", "-1"]
    command += ["--backend", "onnxruntime"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = re.search(r"HTTP on 127\.0\.0\.1:(\d+)", process.stdout.readline())
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


def test_a_port_that_is_taken_ends_it_with_a_reason(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(matmul_model())
    with program(str(model)) as (_, port):
        command = [sys.executable, "-m", "trtinfer", "serve", str(model), "--http", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


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
        while True:
            _, answer = served.ask_json("GET", "/v2/models/slow/stats")
            stats = answer["model_stats"][0]
            metrics = served.ask("GET", "/metrics")[1].decode()
            if 'nv_inference_pending_request_count{model="slow",version="1"} 0' in metrics:
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        assert stats["inference_stats"]["fail"]["count"] > 0
        assert 'reason="CANCELED"} 0\n' not in metrics


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
