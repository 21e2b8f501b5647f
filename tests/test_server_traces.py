"""Traces: who is traced, where it is written, and what it says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from classification import picture, png, ultralytics
from models import matmul_model
from serving import Served, read_response, serving
from triton_clients import MODULES, client_of

X = np.zeros((2, 256), np.float32)
ON = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
COMMON = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"]
STAGES = {
    "http": ["HTTP_RECV_START", "HTTP_RECV_END", *COMMON, "HTTP_SEND_START", "HTTP_SEND_END"],
    "grpc": [
        *("GRPC_WAITREAD_START", "GRPC_WAITREAD_END"),
        *COMMON,
        *("GRPC_SEND_START", "GRPC_SEND_END"),
    ],
}


@contextlib.contextmanager
def traced(folder: Path) -> Iterator[Served]:
    models = {"m": matmul_model(), "other": matmul_model(), "colors": ultralytics()}
    file = str(folder / "trace.json")
    with serving(models, folder, grpc_port=0, trace_file=file) as served:
        yield served


def infer(client: Any, protocol: str, model: str = "m", request_id: str = "") -> None:
    sent = MODULES[protocol].InferInput("x", [2, 256], "FP32")
    sent.set_data_from_numpy(X)
    client.infer(model, [sent], request_id=request_id)


def read(path: Path) -> dict[int, dict[str, Any]]:
    """What a file says of each trace by its id; the stages with their times."""
    traces: dict[int, dict[str, Any]] = {}
    for entry in json.loads(path.read_bytes()):
        trace = traces.setdefault(entry["id"], {"stages": {}})
        stamps = entry.pop("timestamps", [])
        trace["stages"] |= {stamp["name"]: stamp["ns"] for stamp in stamps}
        trace |= entry
    return traces


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_trace_tells_every_stage_in_order(tmp_path: Path, protocol: str) -> None:
    with traced(tmp_path) as served, client_of(served, protocol) as client:
        begin = time.monotonic_ns()
        client.update_trace_settings(settings=ON)
        infer(client, protocol, request_id="seven")
        end = time.monotonic_ns()
    (trace,) = read(tmp_path / "trace.json").values()
    assert (trace["model_name"], trace["model_version"], trace["request_id"]) == ("m", 1, "seven")
    assert list(trace["stages"]) == STAGES[protocol]
    times = list(trace["stages"].values())
    assert times == sorted(times)
    assert begin < times[0]
    assert times[0] < trace["stages"]["COMPUTE_START"] < trace["stages"]["COMPUTE_END"] < end


def test_raw_bodies_and_images_are_traced(tmp_path: Path) -> None:
    image = png(picture("green"))
    entry = {"name": "images", "datatype": "BYTES", "shape": [2, 1]}
    size = {"parameters": {"binary_data_size": 2 * (len(image) + 4)}}
    head = json.dumps({"inputs": [{**entry, **size}]}).encode()
    element = len(image).to_bytes(4, "little") + image
    with traced(tmp_path) as served:
        served.ask_json("POST", "/v2/trace/setting", ON)
        raw = {"Inference-Header-Content-Length": "0"}
        assert served.ask("POST", "/v2/models/m/infer", X[0].tobytes(), raw)[0] == 200
        headers = {"Inference-Header-Content-Length": str(len(head))}
        body = head + 2 * element
        assert served.ask("POST", "/v2/models/colors/infer", body, headers)[0] == 200
    traces = read(tmp_path / "trace.json")
    assert [list(trace["stages"]) for trace in traces.values()] == 2 * [STAGES["http"]]


def test_requests_of_a_stream_are_traced(tmp_path: Path) -> None:
    with traced(tmp_path) as served, client_of(served, "grpc") as client:
        client.update_trace_settings(settings=ON)
        answers: list[Any] = []
        client.start_stream(lambda result, error: answers.append(error))
        sent = tritonclient.grpc.InferInput("x", [2, 256], "FP32")
        sent.set_data_from_numpy(X)
        for number in range(3):
            client.async_stream_infer("m", [sent], request_id=str(number))
        client.stop_stream()
    assert answers == [None] * 3
    traces = read(tmp_path / "trace.json").values()
    assert {trace["request_id"] for trace in traces} == {"0", "1", "2"}


def test_one_in_so_many_requests_is_traced(tmp_path: Path) -> None:
    with traced(tmp_path) as served, client_of(served, "http") as client:
        client.update_trace_settings(settings={**ON, "trace_rate": "3"})
        for number in range(1, 11):
            infer(client, "http", request_id=str(number))
    traces = read(tmp_path / "trace.json").values()
    assert [trace["request_id"] for trace in traces] == ["3", "6", "9"]


def test_files_are_set_aside_when_they_hold_enough(tmp_path: Path) -> None:
    with traced(tmp_path) as served, client_of(served, "http") as client:
        client.update_trace_settings(settings={**ON, "log_frequency": "2"})
        for _ in range(5):
            infer(client, "http")
    assert not (tmp_path / "trace.json").exists()
    numbers = [set(read(tmp_path / f"trace.json.{index}")) for index in range(3)]
    assert numbers == [{1, 2}, {3, 4}, {5}]


def test_the_count_ends_the_traces_and_their_file(tmp_path: Path) -> None:
    with traced(tmp_path) as served, client_of(served, "http") as client:
        client.update_trace_settings(settings={**ON, "trace_count": "2"})
        infer(client, "http")
        assert client.get_trace_settings()["trace_count"] == "1"
        infer(client, "http")
        infer(client, "http")
        assert client.get_trace_settings()["trace_count"] == "0"
        assert len(read(tmp_path / "trace.json.0")) == 2, "before the server ends"
    assert not (tmp_path / "trace.json").exists()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_has_settings_of_its_own_until_they_are_cleared(
    tmp_path: Path, protocol: str
) -> None:
    with traced(tmp_path) as served, client_of(served, protocol) as client:
        client.update_trace_settings("m", ON)
        infer(client, protocol, "m")
        infer(client, protocol, "other")
        client.update_trace_settings(settings={"trace_rate": "5"})
        assert level_and_rate(client, "m") == ("TIMESTAMPS", "1")
        client.update_trace_settings("m", {"trace_level": None, "trace_rate": None})
        assert level_and_rate(client, "m") == ("OFF", "5")
        infer(client, protocol, "m")
    traces = read(tmp_path / "trace.json").values()
    assert [trace["model_name"] for trace in traces] == ["m"]


def level_and_rate(client: Any, model: str) -> tuple[str, str]:
    answer = client.get_trace_settings(model)
    if isinstance(answer, dict):
        return answer["trace_level"][0], answer["trace_rate"]
    return answer.settings["trace_level"].value[0], answer.settings["trace_rate"].value[0]


def test_a_request_that_fails_leaves_a_trace_that_ends_early(tmp_path: Path) -> None:
    with traced(tmp_path) as served:
        served.ask_json("POST", "/v2/trace/setting", ON)
        assert served.ask_json("POST", "/v2/models/m/infer", {"inputs": []})[0] == 400
    (trace,) = read(tmp_path / "trace.json").values()
    assert list(trace["stages"]) == ["HTTP_RECV_START", "HTTP_RECV_END", "REQUEST_START"]


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_level": ["TENSORS"]},
        {"trace_level": "TIMESTAMPS!"},
        {"trace_rate": "0"},
        {"trace_rate": "1.5"},
        {"trace_rate": "-3"},
        {"trace_rate": ["1", "2"]},
        {"trace_count": "-2"},
        {"log_frequency": "x"},
        {"log_frequency": {}},
        {"trace_file": "/tmp/elsewhere"},
        {"trace_mode": "opentelemetry"},
        {"unknown": "1"},
        {"trace_level": ["TIMESTAMPS"], "trace_rate": "no"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_and_change_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with traced(tmp_path) as served:
        before = served.ask_json("GET", "/v2/trace/setting")
        status, answer = served.ask_json("POST", "/v2/trace/setting", changes)
        assert status == 400
        assert "trace setting" in answer["error"]
        assert served.ask_json("GET", "/v2/trace/setting") == before


@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/m/trace/setting"])
def test_a_body_of_a_question_changes_no_setting(tmp_path: Path, path: str) -> None:
    with traced(tmp_path) as served:
        before = served.ask("GET", path)[:2]
        with served.connect() as connection:
            for body in (b'{"trace_rate": "7"}', b"{}", b"no JSON"):
                head = f"GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                assert read_response(connection) == before
        assert served.ask("GET", path)[:2] == before


def test_a_file_that_cannot_be_written_costs_traces_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = str(tmp_path / "missing" / "trace.json")
    with (
        serving({"m": matmul_model()}, tmp_path, trace_file=file) as served,
        client_of(served, "http") as client,
    ):
        client.update_trace_settings(settings=ON)
        infer(client, "http")
        infer(client, "http")
    assert caplog.text.count("traces are lost") == 1


def test_the_program_traces_to_the_file_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    command = [sys.executable, "-m", "trtinfer", "serve", "--http", "0", "--grpc", "-1"]
    command += ["--trace-file", str(tmp_path / "trace.json"), str(tmp_path / "m.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip().rpartition(":")[2]
            with tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}") as client:
                client.update_trace_settings(settings=ON)
                infer(client, "http")
        finally:
            process.terminate()
        assert process.wait(30) == 0
    assert len(read(tmp_path / "trace.json")) == 1
