"""The clients of bench_server.py: wrk for HTTP/1.1 and h2load for gRPC, on a core of their own."""

from __future__ import annotations

import http.client
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
from measuring import Sample, quantiles
from server_process import Server, cores, pinned
from server_request import Array, Request

TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client"}  # and Debian's packages of them

Ask = Callable[[Server, Request], bytes]

_PATIENCE = 90.0  # seconds for a server to start
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
_SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
{headers}
"""


def ask_http(server: Server, request: Request) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{response.status}: {body[:300]!r}")
    return body


def ask_grpc(server: Server, request: Request) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            return channel.unary_unary(request.path)(request.body, timeout=10)  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            raise OSError(f"{error.code()}: {error.details()}") from None


def check(ask: Ask, server: Server, request: Request, expected: Array) -> None:
    """Wait until a server answers, and compare its answer."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            answer = ask(server, request)
            break
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"{server.name} gives no answer: {error}") from error
        time.sleep(0.1)
    np.testing.assert_allclose(request.read(answer), expected, rtol=1e-3, atol=1e-3)


def load_http(server: Server, request: Request, connections: int, seconds: float) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "script.lua")
        body.write_bytes(request.body)
        lines = [f'wrk.headers["{name}"] = "{text}"' for name, text in request.headers.items()]
        script.write_text(_SCRIPT.format(body=body, headers="\n".join(lines)))
        url = f"http://127.0.0.1:{server.http_port}{request.path}"
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            "--timeout=60",
            "--latency",
            "-s",
            str(script),
            url,
        ]
        return _read_wrk(_run(*command, f"-d{seconds:g}"))


def _read_wrk(text: str) -> Sample:
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


def load_grpc(server: Server, request: Request, connections: int, seconds: float) -> Sample:
    """One request at a time on each connection; each must bring a message and the status 0."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        length = len(request.body).to_bytes(4, "big")
        body.write_bytes(b"\0" + length + request.body)  # as HTTP/2 carries a message of gRPC
        headers = [f"--header={name}: {text}" for name, text in request.headers.items()]
        command = ["h2load", f"-c{connections}", "-m1", f"-D{seconds:g}", f"-d{body}", *headers]
        url = f"http://127.0.0.1:{server.grpc_port}{request.path}"
        return _read_h2load(_run(*command, f"--log-file={log}", url), log)


def _read_h2load(text: str, log: Path) -> Sample:
    counts = re.search(r"(\d+) done, (\d+) succeeded", text)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    if counts is None or rate is None or counts[1] != counts[2]:
        raise RuntimeError(f"h2load said: {text}")
    microseconds = np.loadtxt(log, usecols=2, ndmin=1)
    return Sample(float(rate[1]), *quantiles(microseconds * 1e3))


def _run(*command: str) -> str:
    done = subprocess.run(pinned(cores()[1], *command), check=True, capture_output=True, text=True)
    return done.stdout
