"""What does a request over HTTP cost, beside the model itself, here and in other servers?

wrk, in a closed loop over 1, 8 and 64 connections, asks servers one after the other; each lives for
its turn only, since an idle peer takes time from the others. Two models: 256 x 16 with 256 floats
of input, and a convolution network on 3 x 112 x 112 floats (150,528 bytes).
    python bench/bench_server.py [--rounds 3] [--seconds 2] [--model small convolution]
        [--server trtinfer uvicorn mosec=/path/of/its/python ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import (
    Sample,
    Samples,
    Verdict,
    describe_machine,
    median_ratio,
    medians,
    show_verdicts,
    write_samples,
)
from onnx import TensorProto, helper, numpy_helper
from overhead_model import make_model

CONNECTIONS = (1, 8, 64)
SIDE = 112
_PATIENCE = 60.0  # seconds for a server to start
_RAW = {"Inference-Header-Content-Length": "0"}
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
_SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
{headers}
"""


def make_convolution_network() -> bytes:
    """Three convolutions, a mean and a classification: some milliseconds on a core."""
    dice = np.random.default_rng(4)
    nodes, constants, source, channels = [], [], "x", 3
    for i, width in enumerate((16, 32, 64)):
        weights = dice.standard_normal((width, channels, 3, 3), dtype=np.float32) / channels
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes.append(
            helper.make_node("Conv", [source, f"w{i}"], [f"c{i}"], strides=[2, 2], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        source, channels = f"r{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    last = dice.standard_normal((channels, 16), dtype=np.float32)
    constants.append(numpy_helper.from_array(last, "last"))
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["y"]))
    shape = ["n", 3, SIDE, SIDE]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    graph = helper.make_graph(nodes, "convolution", [x], [y], constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


MODELS = {"small": (make_model, 256), "convolution": (make_convolution_network, 3 * SIDE * SIDE)}


@dataclass(frozen=True)
class Request:
    """What a server is asked.

    Attributes:
        path: Where.
        headers: With which headers.
        body: With which body.
    """

    path: str
    headers: dict[str, str]
    body: bytes


def request_to(server: str, values: np.ndarray) -> Request:
    if server == "trtinfer":
        return Request("/v2/models/model/infer", _RAW, values.tobytes())
    if server == "mosec":
        return Request("/inference", {}, values.tobytes())
    if server == "litserve":
        body = b'{"body": "%s"}' % base64.b64encode(values.tobytes())
        return Request("/predict", {"Content-Type": "application/json"}, body)
    return Request("/", {}, values.tobytes())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(server: str, python: str, model: Path) -> Iterator[int]:
    """A server that answers, and its port."""
    port = free_port()
    script = Path(__file__).with_name("servers.py")
    process = subprocess.Popen(
        [python, str(script), server, str(model), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def ask(port: int, request: Request) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_for(port: int, request: Request) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            status, body = ask(port, request)
            if status == 200:
                return
            reason = f"{status}: {body[:300]!r}"
        except OSError as error:
            reason = str(error)
        if time.monotonic() > end:
            raise RuntimeError(f"no answer: {reason}")
        time.sleep(0.1)


def load(port: int, request: Request, connections: int, seconds: float) -> Sample:
    """A turn of wrk, after half a second that does not count."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "script.lua")
        body.write_bytes(request.body)
        lines = [f'wrk.headers["{name}"] = "{text}"' for name, text in request.headers.items()]
        script.write_text(_SCRIPT.format(body=body, headers="\n".join(lines)))
        url = f"http://127.0.0.1:{port}{request.path}"
        command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script), url]
        subprocess.run([*command, "-d1"], check=True, capture_output=True)
        done = subprocess.run(
            [*command, f"-d{seconds:g}"], check=True, capture_output=True, text=True
        )
    return read_wrk(done.stdout)


def read_wrk(text: str) -> Sample:
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"requests failed: {text}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+\w+)\s*$", text, re.M))
    if rate is None or len(percentiles) != 2:
        raise RuntimeError(f"wrk said: {text}")
    return Sample(
        float(rate[1]), _microseconds(percentiles["50"]), _microseconds(percentiles["99"])
    )


def _microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def measure(models: list[str], servers: dict[str, str], rounds: int, seconds: float) -> Samples:
    """Samples by scenario and server; who comes first changes from round to round."""
    scenarios = [_scenario(model, count) for model in models for count in CONNECTIONS]
    samples: Samples = {scenario: {name: [] for name in servers} for scenario in scenarios}
    names = list(servers)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            make, size = MODELS[model]
            path = Path(folder, f"{model}.onnx")
            path.write_bytes(make())
            values = np.random.default_rng(2).standard_normal(size, dtype=np.float32)
            for i in range(rounds):
                for name in names[i % len(names) :] + names[: i % len(names)]:
                    print(f"\rround {i + 1}, {model}, {name:12}", end="", file=sys.stderr)
                    request = request_to(name, values)
                    with running(name, servers[name], path) as port:
                        wait_for(port, request)
                        for count in CONNECTIONS:
                            sample = load(port, request, count, seconds)
                            samples[_scenario(model, count)][name].append(sample)
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    return samples


def _scenario(model: str, connections: int) -> str:
    return f"{model}, {connections} connection{'s' if connections > 1 else ''}"


#: By model and connections: times the best batching peer, times uvicorn.
_ASKED = {
    "small, 1 connection": (8.0, None),
    "small, 8 connections": (4.0, None),
    "small, 64 connections": (1.3, 1.1),
    "convolution, 1 connection": (None, 1.0),
    "convolution, 8 connections": (None, 1.0),
    "convolution, 64 connections": (None, 1.0),
}


def judge(samples: Samples) -> dict[str, Verdict]:
    judged: dict[str, Verdict] = {}
    for scenario, by_name in samples.items():
        over_peers, over_uvicorn = _ASKED[scenario]
        ours = by_name["trtinfer"]
        peers = [by for name, by in by_name.items() if name not in ("trtinfer", "uvicorn")]
        if over_peers is not None and peers:
            ratio = min(median_ratio(ours, taken) for taken in peers)
            judged[f"{scenario}: times the best batching peer"] = Verdict(ratio, over_peers)
        if over_uvicorn is not None and "uvicorn" in by_name:
            ratio = median_ratio(ours, by_name["uvicorn"])
            judged[f"{scenario}: times uvicorn inline"] = Verdict(ratio, over_uvicorn)
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each turn of wrk")
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--server", nargs="+", default=["trtinfer", "uvicorn"], metavar="NAME[=PYTHON]"
    )
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed (Debian: apt install wrk)")
    pairs = (text.partition("=") for text in options.server)
    servers = {name: python or sys.executable for name, _, python in pairs}
    samples = measure(options.model, servers, options.rounds, options.seconds)
    rows, judged = medians(samples, "trtinfer"), judge(samples)
    machine = describe_machine("trtinfer", "onnxruntime", "uvicorn", "uvloop", "httptools")
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    print("| load | server | requests/s | p50 us | p99 us | trtinfer is |")
    print("|---|---|---:|---:|---:|---:|")
    for scenario, by_name in rows.items():
        for name, row in by_name.items():
            print(
                f"| {scenario} | {name} | {row['per_second']:,.0f} | {row['p50_us']:,.0f} "
                f"| {row['p99_us']:,.0f} | {row['trtinfer_over_this']:.2f} x |"
            )
    print()
    show_verdicts(judged)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples)


if __name__ == "__main__":
    main()
