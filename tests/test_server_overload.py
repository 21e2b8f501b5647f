"""More load than the server can take: what is accepted stays quick, the rest is refused quickly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from models import slow_model
from serving import read_response, serving

from trtinfer.load_generator import poisson_arrivals

SERVE = """
import sys, uvloop
from trtinfer.server.options import ServerOptions
from trtinfer.server.server import Server
from trtinfer.server.source import FileSource

async def serve():
    path, capacity = sys.argv[1], int(sys.argv[2])
    session = dict(backend="onnxruntime", capacity=capacity, max_batch_size=1, max_inflight=1)
    source = FileSource(name="slow", path=path, session_options=session)
    server = Server([source], ServerOptions(http_port=0, grpc_port=None))
    await server.start()
    print(server.http_port, flush=True)
    await server.serve_until_signalled()

uvloop.run(serve())
"""
TURNS = 10_000.0  # of the model's loop: some milliseconds
CONNECTIONS = 64
# Seconds, and how many times the p99 at 90 % the p99 may be; a short run has few slow ones.
SHORT = pytest.param(4.0, 5.0, id="short")
LONG = pytest.param(60.0, 2.0, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(400)])


@dataclass
class Outcome:
    """Seconds that requests took from when they were due."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return float(np.quantile(self.answered, 0.99))


@contextlib.contextmanager
def server(folder: Path, capacity: int) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its id and its port."""
    model = folder / "slow.onnx"
    model.write_bytes(slow_model())
    command = [sys.executable, "-c", SERVE, str(model), str(capacity)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(30) == 0
        if process.stdout is not None:
            process.stdout.close()


def request() -> bytes:
    return (
        b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        b"Inference-Header-Content-Length: 0\r\n\r\n" + np.float32(TURNS).tobytes()
    )


async def ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
    reader, writer = streams
    writer.write(request())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def open_loop(port: int, rate: float, seconds: float) -> Outcome:
    """Requests as a Poisson process, each timed from when it was due.

    At a constant rate of 90 % nobody would ever wait, on a machine with nothing else to do.
    """
    outcome = Outcome()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def one(due: float) -> None:
        streams = await free.get()
        status = await ask(streams)
        free.put_nowait(streams)
        took = time.monotonic() - due
        (outcome.answered if status == 200 else outcome.refused).append(took)
        assert status in (200, 503)

    start = time.monotonic()
    tasks = []
    for arrival in poisson_arrivals(rate, seconds):
        due = start + arrival * 1e-9
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for _ in range(CONNECTIONS):
        free.get_nowait()[1].close()
    return outcome


async def capacity_of(port: int) -> float:
    """Requests a second, one after the other from two connections."""
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]

    async def closed_loop(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
        count, until = 0, time.monotonic() + 2
        while time.monotonic() < until:
            count += await ask(streams) == 200
        return count

    counts = await asyncio.gather(*map(closed_loop, pairs))
    for _, writer in pairs:
        writer.close()
    return sum(counts) / 2


@pytest.mark.parametrize(("seconds", "times"), [SHORT, LONG])
def test_overload_is_refused_and_what_is_answered_stays_quick(
    tmp_path: Path, seconds: float, times: float
) -> None:
    with server(tmp_path, capacity=4) as (process, port):
        capacity = asyncio.run(capacity_of(port))
        busy = asyncio.run(open_loop(port, 0.9 * capacity, seconds))
        memory = resident(process)
        overload = asyncio.run(open_loop(port, 3 * capacity, seconds))
        grown = resident(process) - memory
    print(f"capacity {capacity:.0f}/s, p99 {busy.p99 * 1e3:.1f} ms at 90 %,")
    print(f"at 300 %: p99 {overload.p99 * 1e3:.1f} ms of {len(overload.answered)} answered,")
    refusal = float(np.quantile(overload.refused, 0.99))
    print(f"p99 {refusal * 1e3:.1f} ms of {len(overload.refused)} refused")
    assert len(overload.answered) > 0.25 * capacity * seconds
    assert len(overload.refused) > 0.2 * capacity * seconds
    assert overload.p99 <= times * busy.p99
    assert refusal <= busy.p99
    assert grown < 16 << 20


def resident(process: int) -> int:
    """Bytes of memory."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def test_more_than_the_queue_holds_is_refused_and_counted(tmp_path: Path) -> None:
    options = {"session_options": {"capacity": 2, "max_batch_size": 1, "max_inflight": 1}}
    with serving({"slow": slow_model()}, tmp_path, model_options=options) as served:
        busy = np.float32(60_000).tobytes()
        request = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\n" + (
            b"Inference-Header-Content-Length: 0\r\nContent-Length: 4\r\n\r\n" + busy
        )
        connections = [served.connect() for _ in range(8)]
        for connection in connections:
            connection.sendall(request)
        statuses = sorted(read_response(connection)[0] for connection in connections)
        for connection in connections:
            connection.close()
        refused = statuses.count(503)
        assert statuses == [200] * (8 - refused) + [503] * refused
        assert 1 <= refused <= 6
        metrics = served.ask("GET", "/metrics")[1].decode()
        labels = 'model="slow",version="1",reason="REJECTED"'
        assert f"nv_inference_request_failure{{{labels}}} {refused}\n" in metrics
        assert f'trtinfer_http_responses_total{{status="503"}} {refused}\n' in metrics
