"""What does a request cost beside the model itself, alone and in company?

A model of a few microseconds (256 x 16 MatMul) is asked by one thread, 8 and 64 threads and 64
asyncio callers, each in a closed loop, through trtinfer, `onnxruntime` directly, the PyPI package
`batched` and a batcher thread behind a queue. All take turns in one process; medians over rounds
are shown.
    python bench/bench_overhead.py [--rounds 7] [--seconds 0.5] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import queue
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import batched
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import trtinfer

MAX_BATCH_SIZE = 64
WEIGHTS = np.random.default_rng(1).standard_normal((256, 16), dtype=np.float32)

Array = NDArray[np.float32]
Ask = Callable[[Array], Array]
AsyncAsk = Callable[[Array], Awaitable[Array]]


def make_model() -> bytes:
    """y = x @ WEIGHTS with a dynamic batch."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "overhead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def open_directly(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# --- Contenders: each opens anew for every measurement, so that no idle one takes time from another


class Direct:
    """Every caller runs the model itself."""

    def __init__(self, direct: onnxruntime.InferenceSession) -> None:
        self._run = direct.run

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        yield lambda x: self._run(None, {"x": x[None]})[0][0]

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        async def ask(x: Array) -> Array:
            await asyncio.sleep(0)  # without it one caller would keep the loop to itself
            return self._run(None, {"x": x[None]})[0][0]  # type: ignore[no-any-return]

        yield ask


class Trtinfer:
    def __init__(self, model: bytes) -> None:
        self._model = model

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        with trtinfer.Session(self._model, max_batch_size=MAX_BATCH_SIZE) as session:
            yield lambda x: session.infer(x)["y"]

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        with trtinfer.Session(self._model, max_batch_size=MAX_BATCH_SIZE) as session:

            async def ask(x: Array) -> Array:
                return (await session.ainfer(x))["y"]

            yield ask


class Batched:
    """The decorators of `batched`: its threaded one for threads, that of `aio` for tasks."""

    def __init__(self, direct: onnxruntime.InferenceSession, **options: float) -> None:
        self._run = direct.run
        self._options = options

    def _run_batch(self, rows: list[Array]) -> list[Array]:
        return list(self._run(None, {"x": np.stack(rows)})[0])

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        processor = batched.dynamically(lambda rows: self._run_batch(rows), **self._options)
        try:
            yield processor
        finally:
            processor.shutdown()

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        async def run_batch(rows: list[Array]) -> list[Array]:
            return self._run_batch(rows)  # a few microseconds: cheaper here than in a thread

        yield batched.aio.dynamically(run_batch, **self._options)


class QueueAndFuture:
    """One thread takes all that is queued, up to a whole batch, and never waits for company."""

    def __init__(self, direct: onnxruntime.InferenceSession, make_queue: Callable[[], Any]) -> None:
        self._run = direct.run
        self._make_queue = make_queue

    def _batches(self, requests: Any) -> Iterator[list[tuple[Array, Future[Array]]]]:
        while (first := requests.get()) is not None:
            batch = [first]
            while len(batch) < MAX_BATCH_SIZE:
                try:
                    request = requests.get_nowait()
                except queue.Empty:
                    break
                if request is None:
                    yield batch
                    return
                batch.append(request)
            yield batch

    def _serve(self, requests: Any) -> None:
        for batch in self._batches(requests):
            try:
                rows = self._run(None, {"x": np.stack([x for x, _ in batch])})[0]
                for (_, future), row in zip(batch, rows, strict=True):
                    future.set_result(row)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    @contextmanager
    def _submit(self) -> Iterator[Callable[[Array], Future[Array]]]:
        requests = self._make_queue()

        def submit(x: Array) -> Future[Array]:
            future: Future[Array] = Future()
            requests.put((x, future))
            return future

        thread = threading.Thread(target=self._serve, args=(requests,))
        thread.start()
        try:
            yield submit
        finally:
            requests.put(None)
            thread.join()

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        with self._submit() as submit:
            yield lambda x: submit(x).result()

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        with self._submit() as submit:

            async def ask(x: Array) -> Array:
                return await asyncio.wrap_future(submit(x))

            yield ask


Contender = Direct | Trtinfer | Batched | QueueAndFuture


# --- Measuring


@dataclass(frozen=True)
class Sample:
    """One contender's turn: requests per second, and microseconds of a request."""

    rate: float
    p50: float
    p99: float


def check(x: Array, answer: Array) -> None:
    if not np.allclose(answer, x @ WEIGHTS, rtol=1e-3, atol=1e-3):
        raise AssertionError("a wrong answer")


def summarize(latencies: list[list[int]], seconds: float) -> Sample:
    times = np.concatenate([np.asarray(times) for times in latencies]) / 1e3
    p50, p99 = np.quantile(times, [0.5, 0.99]).tolist()
    return Sample(len(times) / seconds, p50, p99)


def make_inputs(callers: int) -> list[Array]:
    return list(np.random.default_rng(2).standard_normal((callers, 256), dtype=np.float32))


def measure_threads(opened: AbstractContextManager[Ask], callers: int, seconds: float) -> Sample:
    clock = time.perf_counter_ns
    latencies: list[list[int]] = [[] for _ in range(callers)]
    errors: list[Exception] = []
    ready = threading.Barrier(callers + 1)

    def call(x: Array, times: list[int]) -> None:
        try:
            for _ in range(20):
                check(x, ask(x))
            ready.wait()
            until = clock() + int(seconds * 1e9)
            while (begin := clock()) < until:
                answer = ask(x)
                times.append(clock() - begin)
            check(x, answer)
        except Exception as error:
            errors.append(error)
            ready.abort()

    with opened as ask:
        pairs = zip(make_inputs(callers), latencies, strict=True)
        threads = [threading.Thread(target=call, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        ready.wait()
        begin = clock()
        for thread in threads:
            thread.join()
        elapsed = (clock() - begin) / 1e9
    if errors:
        raise errors[0]
    return summarize(latencies, elapsed)


async def measure_tasks(
    opened: AbstractContextManager[AsyncAsk], callers: int, seconds: float
) -> Sample:
    clock = time.perf_counter_ns
    latencies: list[list[int]] = [[] for _ in range(callers)]

    async def warm(x: Array) -> None:
        for _ in range(20):
            check(x, await ask(x))

    async def call(x: Array, times: list[int]) -> None:
        while (begin := clock()) < until:
            answer = await ask(x)
            times.append(clock() - begin)
        check(x, answer)

    with opened as ask:
        inputs = make_inputs(callers)
        await asyncio.gather(*(warm(x) for x in inputs))
        begin = clock()
        until = begin + int(seconds * 1e9)
        await asyncio.gather(*(call(*pair) for pair in zip(inputs, latencies, strict=True)))
        elapsed = (clock() - begin) / 1e9
    return summarize(latencies, elapsed)


SCENARIOS = {
    "1 thread": (False, 1),
    "8 threads": (False, 8),
    "64 threads": (False, 64),
    "64 asyncio": (True, 64),
}

Samples = dict[str, dict[str, list[Sample]]]


def measure_all(contenders: dict[str, Contender], rounds: int, seconds: float) -> Samples:
    """Samples by scenario and contender, one of each per round."""
    samples: Samples = {scenario: {name: [] for name in contenders} for scenario in SCENARIOS}
    turns = rounds * len(SCENARIOS) * len(contenders)
    names = list(contenders)
    done = 0
    for i in range(rounds):
        for scenario, (is_async, callers) in SCENARIOS.items():
            for name in names[i % len(names) :] + names[: i % len(names)]:
                print(f"\r{done}/{turns} {scenario}, {name:40}", end="", file=sys.stderr)
                contender = contenders[name]
                if is_async:
                    sample = asyncio.run(measure_tasks(contender.tasks(), callers, seconds))
                else:
                    sample = measure_threads(contender.threads(), callers, seconds)
                samples[scenario][name].append(sample)
                done += 1
    print(f"\r{'':70}\r", end="", file=sys.stderr)
    return samples


# --- Showing


def median_ratio(ours: list[Sample], theirs: list[Sample]) -> float:
    """Of our rate over theirs in the same round."""
    return statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))


def summary(samples: Samples) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for scenario, by_name in samples.items():
        rows[scenario] = {
            name: {
                "requests_per_second": statistics.median(s.rate for s in taken),
                "p50_us": statistics.median(s.p50 for s in taken),
                "p99_us": statistics.median(s.p99 for s in taken),
                "trtinfer_over_this": median_ratio(by_name["trtinfer"], taken),
            }
            for name, taken in by_name.items()
        }
    return rows


def verdicts(samples: Samples) -> dict[str, tuple[float, float, bool]]:
    """What is asked of trtinfer: the figure, its bound, and whether it is met."""
    tasks, eight, lone = samples["64 asyncio"], samples["8 threads"], samples["1 thread"]
    batched_ratio = min(
        median_ratio(tasks["trtinfer"], taken)
        for name, taken in tasks.items()
        if name.startswith("batched")
    )
    queue_ratio = median_ratio(eight["trtinfer"], eight["queue.Queue + Future"])
    added = statistics.median(
        ours.p50 - direct.p50
        for ours, direct in zip(lone["trtinfer"], lone["session.run"], strict=True)
    )
    return {
        "64 asyncio callers, times the better `batched`": (batched_ratio, 6.0, batched_ratio >= 6),
        "8 threads, times queue.Queue + Future": (queue_ratio, 2.5, queue_ratio >= 2.5),
        "lone thread, p50 over session.run in us": (added, 25.0, added <= 25),
    }


def describe_machine() -> str:
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("trtinfer", "onnxruntime", "batched", "numpy")
    )
    cores = len(os.sched_getaffinity(0))
    cpu = f"{cores} cores of {models[0] if models else platform.machine()}"
    return f"{cpu}, Python {platform.python_version()}, {packages}"


def show(rows: dict[str, Any], judged: dict[str, tuple[float, float, bool]]) -> None:
    print("| callers | contender | requests/s | p50 us | p99 us | trtinfer is |")
    print("|---|---|---:|---:|---:|---:|")
    for scenario, by_name in rows.items():
        for name, row in by_name.items():
            print(
                f"| {scenario} | {name} | {row['requests_per_second']:,.0f} | {row['p50_us']:,.1f} "
                f"| {row['p99_us']:,.1f} | {row['trtinfer_over_this']:.2f} x |"
            )
    print()
    for what, (figure, bound, met) in judged.items():
        print(f"{what}: {figure:.1f} (asked: {bound:g}, {'met' if met else 'NOT met'})")


def plot(rows: dict[str, Any], path: Path, machine: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, times) = pyplot.subplots(2, 1, figsize=(10, 8), sharex=True)
    names = list(next(iter(rows.values())))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * width
        taken = [by_name[name] for by_name in rows.values()]
        rates.bar(places, [row["requests_per_second"] for row in taken], width, label=name)
        medians = np.array([row["p50_us"] for row in taken])
        above = np.array([row["p99_us"] for row in taken]) - medians
        times.bar(places, medians, width, yerr=[np.zeros_like(above), above], capsize=2)
    rates.set(ylabel="requests per second", yscale="log", title="256 x 16 MatMul: overhead")
    times.set(ylabel="latency, us: p50, whisker to p99", yscale="log")
    times.set_xticks(np.arange(len(rows)), list(rows))
    rates.legend(fontsize="small", ncols=3)
    figure.text(0.5, 0.01, machine, ha="center", fontsize="x-small")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    options = parser.parse_args()
    model = make_model()
    direct = open_directly(model)
    contenders: dict[str, Contender] = {
        "session.run": Direct(direct),
        "trtinfer": Trtinfer(model),
        "batched, 1 ms": Batched(direct, batch_size=MAX_BATCH_SIZE, timeout_ms=1.0),
        "batched, defaults": Batched(direct),
        "queue.Queue + Future": QueueAndFuture(direct, queue.Queue),
        "queue.SimpleQueue + Future": QueueAndFuture(direct, queue.SimpleQueue),
    }
    samples = measure_all(contenders, options.rounds, options.seconds)
    rows, judged, machine = summary(samples), verdicts(samples), describe_machine()
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    show(rows, judged)
    if options.plot:
        plot(rows, options.plot, machine)
    if options.json:
        rounds = {
            scenario: {name: [vars(sample) for sample in taken] for name, taken in by_name.items()}
            for scenario, by_name in samples.items()
        }
        results = {"machine": machine, "medians": rows, "verdicts": judged, "rounds": rounds}
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
