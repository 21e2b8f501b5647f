"""`trtinfer bench`: a model under load."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trtinfer import bench_plots, default_model, info
from trtinfer.bench import ARRIVALS, Bench, Measurement
from trtinfer.build_options import BuildOptions
from trtinfer.command_options import (
    BACKENDS,
    add_device,
    add_format,
    add_model,
    read_dimensions,
    whole_numbers,
)
from trtinfer.latency_histogram import LatencyHistogram
from trtinfer.progress import ProgressBar
from trtinfer.session import Session
from trtinfer.tensorrt_options import TensorRtOptions
from trtinfer.types import Array
from trtinfer.verify import random_requests

_SHARES = "0.3,0.6,0.8,0.9"
_INPUTS = 64  # that requests take turns with
_IMAGE = {0: (480,) * 3, 1: (640,) * 3}

_COLUMNS = (
    ("load", 22),
    ("answers/s", 12),
    ("batch", 7),
    ("p50 ms", 10),
    ("p90 ms", 10),
    ("p99 ms", 10),
    ("p99.9 ms", 10),
    ("queue ms", 10),  # mean of arrival to launch
    ("transfer ms", 13),  # mean of the batches' copies of inputs and outputs
    ("compute ms", 12),  # mean of the batches' runs without these
)


def bench(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Measure latency and throughput under load."""
    add_model(parser)
    loads = parser.add_argument_group(
        "loads", f"(default: saturation, then --share {_SHARES}); lists are separated by commas"
    )
    loads.add_argument("--rate", metavar="R,...", help="open loop: arrivals per second")
    loads.add_argument("--share", metavar="S,...", help="likewise, as shares of the saturation")
    loads.add_argument("--threads", metavar="N,...", help="closed loop of threads: infer()")
    loads.add_argument("--tasks", metavar="N,...", help="closed loop of asyncio tasks: ainfer()")
    loads.add_argument("--arrivals", choices=ARRIVALS, default="poisson", help="(default: poisson)")
    loads.add_argument("--seconds", type=float, default=5.0, metavar="S", help="each (default: 5)")
    loads.add_argument("--warm-up", type=float, default=1.0, metavar="S", help="(default: 1)")
    loads.add_argument("--seed", type=int, default=0, metavar="N", help="of random arrivals")
    parser.add_argument("--recipe", metavar="NAME", help="requests are images, prepared by this")
    parser.add_argument("--backend", default="auto", choices=BACKENDS)
    add_device(parser)
    parser.add_argument("--max-batch-size", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--max-delay", type=float, default=0.0, metavar="S", help="(default: 0)")
    parser.add_argument("--max-inflight", type=int, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--capacity", type=int, default=1024, metavar="N", help="(default: 1024)")
    parser.add_argument("--output", metavar="DIR", help="write bench.json and plots here")
    add_format(parser, default="table")
    return _bench


def _bench(options: argparse.Namespace) -> int:
    if options.seconds <= 0 or options.warm_up < 0:
        raise ValueError("--seconds must be more than 0, and --warm-up not less")
    plan = _Plan(options)
    model = options.model or str(default_model.path())
    measured: list[Measurement] = []
    bar = ProgressBar(Path(model).name)
    with _open(model, options) as session:
        bench = Bench(
            session,
            _inputs(session, options),
            seconds=options.seconds,
            warm_up=options.warm_up,
            progress=lambda part, step: bar.show((len(measured) + part) / plan.total, step),
        )
        backend = session.backend
        for measurement in plan.run(bench):
            bar.clear()
            measured.append(measurement)
            if options.format == "table":
                _print_row(measurement, first=len(measured) == 1)
    facts = _facts(model, backend, options, measured)
    if options.format == "json":
        print(json.dumps(facts, indent=2))
    if options.output:
        _write(Path(options.output), f"{Path(model).name}, {backend}", facts, measured)
    return 0


class _Plan:
    """The loads that the options ask for."""

    def __init__(self, options: argparse.Namespace) -> None:
        chosen = options.rate or options.share or options.threads or options.tasks
        self._arrivals, self._seed = options.arrivals, options.seed
        self._rates = _numbers(options.rate)
        self._shares = _numbers(options.share or ("" if chosen else _SHARES))
        self._threads = _counts(options.threads)
        self._tasks = _counts(options.tasks)
        rates, callers = [*self._rates, *self._shares], [*self._threads, *self._tasks]
        self.total = len(rates) + len(callers) + bool(self._shares)

    def run(self, bench: Bench) -> Iterator[Measurement]:
        rates = list(self._rates)
        if self._shares:
            saturation = bench.saturation()
            yield saturation
            rates += [share * saturation.load.rate for share in self._shares]
        for rate in rates:
            yield bench.open_loop(rate, self._arrivals, self._seed)
        yield from map(bench.threads, self._threads)
        yield from map(bench.tasks, self._tasks)


def _open(model: str, options: argparse.Namespace) -> Session:
    build = BuildOptions(options.precision, read_dimensions(options.dimension), tf32=options.tf32)
    return Session(
        model,
        backend=options.backend,
        device=whole_numbers(options.device),
        max_batch_size=options.max_batch_size,
        max_delay=options.max_delay,
        max_inflight=options.max_inflight,
        capacity=options.capacity,
        preprocess=options.recipe,
        tensorrt=TensorRtOptions(build, library=options.tensorrt),
    )


def _inputs(session: Session, options: argparse.Namespace) -> list[dict[str, Array]]:
    images = {session.inputs[0].name: _IMAGE} if options.recipe else None
    sizes = read_dimensions(options.dimension, images)
    return list(random_requests(session.inputs, sizes, _INPUTS))


def _numbers(text: str | None) -> list[float]:
    numbers = [float(number) for number in (text or "").split(",") if number]
    if any(not 0 < number < math.inf for number in numbers):
        raise ValueError(f"{text!r}: rates and shares are numbers above 0")
    return numbers


def _counts(text: str | None) -> list[int]:
    counts = whole_numbers(text) if text else []
    if 0 in counts:
        raise ValueError(f"{text!r}: there is at least one caller")
    return counts


def _print_row(measurement: Measurement, first: bool) -> None:
    if first:
        print("".join(f"{name:>{width}}" for name, width in _COLUMNS))
    load, batches, quantiles = (
        measurement.load,
        measurement.batches,
        measurement.histogram.quantiles(),
    )
    times = [quantiles["p50"], quantiles["p90"], quantiles["p99"], quantiles["p99.9"]]
    times += [batches.queue, batches.transfer, batches.compute]
    figures = [f"{load.rate:,.1f}", f"{batches.mean_size:.1f}", *(f"{1e3 * t:.3f}" for t in times)]
    cells = zip([measurement.name, *figures], _COLUMNS, strict=True)
    print("".join(f"{cell:>{width}}" for cell, (_, width) in cells), flush=True)
    for remark in _remarks(measurement):
        print(f"  {remark}", flush=True)


def _remarks(measurement: Measurement) -> Iterator[str]:
    load = measurement.load
    if measurement.offered is not None:
        late = LatencyHistogram(load.lateness).quantiles()
        flag = "GENERATOR LATE" if load.generator_was_late else "generator"
        yield f"{flag}: lateness p99 {1e3 * late['p99']:.3f} ms, max {1e3 * late['max']:.3f} ms"
    if load.refused or load.failed:
        yield f"{load.refused} requests refused (no room), {load.failed} failed"


def _facts(
    model: str, backend: str, options: argparse.Namespace, measured: Sequence[Measurement]
) -> dict[str, Any]:
    asked = {name: value for name, value in vars(options).items() if name != "run"}
    return {
        "machine": info.collect(),
        "model": model,
        "backend": backend,
        "options": asked,
        "loads": [measurement.facts() for measurement in measured],
    }


def _write(
    folder: Path, title: str, facts: dict[str, Any], measured: Sequence[Measurement]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    note = info.summary("trtinfer", "onnxruntime")
    timed = [m for m in measured if m.is_timed]
    if timed:
        bench_plots.plot_cumulative(timed, folder / "latency.png", title, note)
        bench_plots.plot_stages(timed, folder / "latency_stages.png", title, note)
    offered = [m for m in timed if m.offered is not None]
    if len(offered) > 1:
        bench_plots.plot_against_load(offered, folder / "latency_against_load.png", title, note)
