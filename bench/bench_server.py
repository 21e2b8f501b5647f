"""What does a request over HTTP or gRPC cost, beside the model itself, here and in other servers?

wrk (HTTP) and h2load (gRPC), in a closed loop over 1, 8 and 64 connections, ask servers one after
the other; each lives for its turn only, since an idle peer takes time from the others. A server
with all its processes has one core, its client another. Two models: 256 x 16 with 256 floats of
input, and a convolution network on 3 x 112 x 112 floats (150,528 bytes).
    python bench/bench_server.py [--rounds 3] [--seconds 2] [--load small convolution grpc]
        [--server trtinfer uvicorn mosec=/path/of/its/python ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import convolution_network
import numpy as np
import overhead_model
from measuring import (
    Rows,
    Sample,
    Verdict,
    describe_machine,
    median_ratio,
    medians,
    show_verdicts,
    write_samples,
)
from server_load import TOOLS, Ask, ask_grpc, ask_http, check, load_grpc, load_http
from server_process import NAMES, Server, running
from server_request import Array, Request, grpc_request, http_request

CONNECTIONS = (1, 8, 64)
_WARM_UP = 1  # seconds of load that do not count
#: What batches nothing, and so is no batching peer: runs the model inline, or hardly ever.
INLINE, BARE_GRPC = "uvicorn", "grpcaio"
OVER_GRPC = ("trtinfer", "pytriton", BARE_GRPC)


@dataclass(frozen=True)
class ServerSample(Sample):
    """A turn, and the microseconds that all processes of the server computed for a request."""

    cpu: float


ServerSamples = dict[str, dict[str, list[ServerSample]]]


@dataclass(frozen=True)
class Load:
    """A model and a protocol.

    Attributes:
        make_model: The ONNX model, whose input is x and whose output is y.
        shape: Of a sample.
        request: What to send to a server.
        ask: Asks once.
        run: A turn of the client; seconds.
    """

    make_model: Callable[[], bytes]
    shape: tuple[int, ...]
    request: Callable[[str, Array], Request] = http_request
    ask: Ask = ask_http
    run: Callable[[Server, Request, int, float], Sample] = load_http


_SHAPE = (3, convolution_network.SIDE, convolution_network.SIDE)
LOADS = {
    "small": Load(overhead_model.make_model, (256,)),
    "convolution": Load(convolution_network.make_model, _SHAPE),
    "grpc": Load(
        overhead_model.make_model, (256,), lambda _, x: grpc_request(x), ask_grpc, load_grpc
    ),
}


def measure(
    loads: list[str], servers: dict[str, str], rounds: int, seconds: float
) -> ServerSamples:
    """Samples by scenario and server; who comes first changes from round to round.

    Who fails in a scenario is left out of it.
    """
    samples: ServerSamples = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in loads:
            asked = [s for s in servers if (s in OVER_GRPC if name == "grpc" else s != BARE_GRPC)]
            scenarios = {count: _scenario(name, count) for count in CONNECTIONS}
            samples |= {scenario: {s: [] for s in asked} for scenario in scenarios.values()}
            model = Path(folder, f"{name}.onnx")
            model.write_bytes(LOADS[name].make_model())
            for i in range(rounds):
                for server in asked[i % len(asked) :] + asked[: i % len(asked)]:
                    busy = os.getloadavg()[0]
                    print(f"round {i + 1}, {name}, {server}; load {busy:.1f}", file=sys.stderr)
                    taken = take_turn(LOADS[name], server, servers[server], model, seconds)
                    for count, sample in taken.items():
                        samples[scenarios[count]][server].append(sample)
    return {
        scenario: {name: taken for name, taken in by_name.items() if len(taken) == rounds}
        for scenario, by_name in samples.items()
    }


def take_turn(
    load: Load, name: str, python: str, model: Path, seconds: float
) -> dict[int, ServerSample]:
    """Samples of one server by the number of connections; without those that failed."""
    x = np.random.default_rng(2).standard_normal(load.shape, dtype=np.float32)
    request, taken = load.request(name, x), {}
    with running(name, python, model) as server:
        check(load.ask, server, request, _expected(model, x))
        for count in CONNECTIONS:
            try:
                taken[count] = _measure(load, server, request, count, seconds)
            except RuntimeError as error:
                print(f"{name}, {count} connections: {error}", file=sys.stderr)
    return taken


def _measure(
    load: Load, server: Server, request: Request, connections: int, seconds: float
) -> ServerSample:
    load.run(server, request, connections, _WARM_UP)
    before = server.cpu_seconds
    sample = load.run(server, request, connections, seconds)
    if not sample.rate:
        raise RuntimeError(f"no answer within {seconds:g} s")
    used = server.cpu_seconds - before
    return ServerSample(**asdict(sample), cpu=used * 1e6 / (sample.rate * seconds))


def _expected(model: Path, x: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, {"x": x[np.newaxis]})[0][0]
    return answer


def _scenario(load: str, connections: int) -> str:
    return f"{load}, {connections} connection{'s' if connections > 1 else ''}"


#: By scenario: times the rate of the best batching peer, times uvicorn's.
_ASKED = {
    "small, 1 connection": (8.0, None),
    "small, 8 connections": (4.0, None),
    "small, 64 connections": (1.3, 1.1),
    "convolution, 1 connection": (None, 1.0),
    "convolution, 8 connections": (None, 1.0),
    "convolution, 64 connections": (None, 1.0),
    "grpc, 1 connection": (3.0, None),
    "grpc, 8 connections": (3.0, None),
    "grpc, 64 connections": (3.0, None),
}
_ASKED_P99 = ("convolution, 64 connections", 0.5)


def judge(samples: ServerSamples, rows: Rows) -> dict[str, Verdict]:
    judged: dict[str, Verdict] = {}
    for scenario, by_name in samples.items():
        over_peers, over_inline = _ASKED[scenario]
        ours = by_name["trtinfer"]
        peers = [name for name in by_name if name not in ("trtinfer", INLINE, BARE_GRPC)]
        if over_peers is not None and peers:
            ratio = min(median_ratio(ours, by_name[name]) for name in peers)
            judged[f"{scenario}: times the best batching peer"] = Verdict(ratio, over_peers)
        if over_inline is not None and INLINE in by_name:
            ratio = median_ratio(ours, by_name[INLINE])
            judged[f"{scenario}: times {INLINE} inline"] = Verdict(ratio, over_inline)
        if scenario == _ASKED_P99[0] and peers:
            p99 = {name: row["p99_us"] for name, row in rows[scenario].items()}
            ratio = p99["trtinfer"] / min(p99[name] for name in peers)
            judged[f"{scenario}: p99 in parts of the best peer's"] = Verdict(
                ratio, _ASKED_P99[1], at_most=True
            )
    return judged


def describe_peers(servers: dict[str, str]) -> str:
    """Their versions, as each one's environment has them."""
    packages = {"grpcaio": "grpcio", "pytriton": "nvidia-pytriton"}
    found = []
    for name, python in servers.items():
        package = packages.get(name, name)
        code = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        found.append(f"{package} {done.stdout.strip()}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each turn of a client")
    parser.add_argument("--load", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument(
        "--server",
        nargs="+",
        default=["trtinfer", INLINE],
        metavar="NAME[=PYTHON]",
        help=f"any of {', '.join(NAMES)}",
    )
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    options = parser.parse_args()
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is needed (Debian: apt install {package})")
    pairs = (text.partition("=") for text in options.server)
    servers = {name: python or sys.executable for name, _, python in pairs}
    samples = measure(options.load, servers, options.rounds, options.seconds)
    rows = medians(samples, "trtinfer")
    for scenario, by_name in samples.items():
        for name, taken in by_name.items():
            rows[scenario][name]["cpu_us"] = statistics.median(sample.cpu for sample in taken)
    judged = judge(samples, rows)
    machine = f"{describe_machine('onnxruntime')}, {describe_peers(servers)}"
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    print("| load | server | requests/s | p50 us | p99 us | CPU us | trtinfer is |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for scenario, by_name in rows.items():
        for name, row in by_name.items():
            print(
                f"| {scenario} | {name} | {row['per_second']:,.0f} | {row['p50_us']:,.0f} "
                f"| {row['p99_us']:,.0f} | {row['cpu_us']:,.0f} "
                f"| {row['trtinfer_over_this']:.2f} x |"
            )
    print()
    show_verdicts(judged)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples)


if __name__ == "__main__":
    main()
