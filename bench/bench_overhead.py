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
import functools
import queue
import statistics
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import batched
import numpy as np
import onnxruntime
from measuring import (
    Load,
    Rows,
    Sample,
    Samples,
    Verdict,
    describe_machine,
    measure_tasks,
    measure_threads,
    median_ratio,
    medians,
    plot,
    show_verdicts,
    take_turns,
    write_samples,
)
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


def check(x: Array, answer: Array) -> None:
    if not np.allclose(answer, x @ WEIGHTS, rtol=1e-3, atol=1e-3):
        raise AssertionError("a wrong answer")


def make_inputs(callers: int) -> list[Array]:
    return list(np.random.default_rng(2).standard_normal((callers, 256), dtype=np.float32))


SCENARIOS = {
    "1 thread": (False, 1),
    "8 threads": (False, 8),
    "64 threads": (False, 64),
    "64 asyncio": (True, 64),
}


def turn(contender: Contender, is_async: bool, callers: int, seconds: float) -> Sample:
    load = Load(make_inputs(callers), check, seconds)
    if is_async:
        return asyncio.run(measure_tasks(contender.tasks(), load))
    return measure_threads(contender.threads(), load)


def measure_all(contenders: dict[str, Contender], rounds: int, seconds: float) -> Samples:
    turns = {
        scenario: {
            name: functools.partial(turn, contender, is_async, callers, seconds)
            for name, contender in contenders.items()
        }
        for scenario, (is_async, callers) in SCENARIOS.items()
    }
    return take_turns(turns, rounds)


# --- Showing


def verdicts(samples: Samples) -> dict[str, Verdict]:
    """What is asked of trtinfer."""
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
        "64 asyncio callers, times the better `batched`": Verdict(batched_ratio, 6),
        "8 threads, times queue.Queue + Future": Verdict(queue_ratio, 2.5),
        "lone thread, p50 over session.run in us": Verdict(added, 25, at_most=True),
    }


def show(rows: Rows) -> None:
    print("| callers | contender | requests/s | p50 us | p99 us | trtinfer is |")
    print("|---|---|---:|---:|---:|---:|")
    for scenario, by_name in rows.items():
        for name, row in by_name.items():
            print(
                f"| {scenario} | {name} | {row['per_second']:,.0f} | {row['p50_us']:,.1f} "
                f"| {row['p99_us']:,.1f} | {row['trtinfer_over_this']:.2f} x |"
            )
    print()


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
    rows, judged = medians(samples, "trtinfer"), verdicts(samples)
    machine = describe_machine("trtinfer", "onnxruntime", "batched", "numpy")
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    show(rows)
    show_verdicts(judged)
    if options.plot:
        plot(rows, options.plot, "256 x 16 MatMul: overhead", "requests", machine)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples)


if __name__ == "__main__":
    main()
