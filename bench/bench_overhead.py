"""What does a request cost beside the model itself, alone and in company?

A model of a few microseconds (256 x 16 MatMul) is asked by 1 to 256 threads and 64 asyncio callers,
each in a closed loop, through trtinfer, `onnxruntime` directly, the PyPI packages `batched`,
`async-batcher` and `ray` (in a process of its own), and a batcher thread behind a queue. All take
turns; medians over rounds are shown.
    python bench/bench_overhead.py [--rounds 7] [--seconds 0.5] [--ray] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import queue
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray_serve
from batchers import (
    MAX_BATCH_SIZE,
    AsyncBatched,
    Batched,
    Direct,
    QueueAndFuture,
    Trtinfer,
    open_directly,
)
from measuring import (
    Load,
    Rows,
    Sample,
    Samples,
    Turns,
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
from overhead_model import check, make_inputs, make_model

PEERS = ("onnxruntime", "batched", "async-batcher", "ray")

SCENARIOS = {
    "1 thread": (False, 1),
    "8 threads": (False, 8),
    "64 threads": (False, 64),
    "256 threads": (False, 256),
    "64 asyncio": (True, 64),
}


def turn(contender: Any, is_async: bool, callers: int, seconds: float) -> Sample:
    load = Load(make_inputs(callers), check, seconds)
    if is_async:
        return asyncio.run(measure_tasks(contender.tasks(), load))
    return measure_threads(contender.threads(), load)


def make_turns(model: bytes, seconds: float, with_ray: bool) -> Turns:
    direct = open_directly(model)
    contenders = {
        "session.run": Direct(direct),
        "trtinfer": Trtinfer(model),
        "batched, 1 ms": Batched(direct, batch_size=MAX_BATCH_SIZE, timeout_ms=1.0),
        "batched, defaults": Batched(direct),
        "async-batcher, greedy": AsyncBatched(direct, max_queue_time=0.0),
        "async-batcher, 10 ms": AsyncBatched(direct),
        "queue.Queue + Future": QueueAndFuture(direct, queue.Queue),
        "queue.SimpleQueue + Future": QueueAndFuture(direct, queue.SimpleQueue),
    }
    turns: dict[str, dict[str, Callable[[], Sample]]] = {}
    for scenario, (is_async, callers) in SCENARIOS.items():
        turns[scenario] = {
            name: functools.partial(turn, contender, is_async, callers, seconds)
            for name, contender in contenders.items()
            if hasattr(contender, "tasks" if is_async else "threads")
        }
        if with_ray:
            run = functools.partial(ray_serve.measure, model, is_async, callers, seconds)
            turns[scenario]["Ray Serve"] = run
    return turns


# --- Showing


def verdicts(samples: Samples) -> dict[str, Verdict]:
    """What is asked of trtinfer."""
    peer = "queue.Queue + Future"

    def over(scenario: str, *names: str) -> float:
        by_name = samples[scenario]
        return min(median_ratio(by_name["trtinfer"], by_name[name]) for name in names)

    lone, many = samples["1 thread"], samples["256 threads"]
    added = _median(lone["trtinfer"], lone["session.run"], lambda a, b: a.p50 - b.p50)
    tail = _median(many["trtinfer"], many[peer], lambda a, b: a.p99 / b.p99)
    batched = ("batched, 1 ms", "batched, defaults")
    async_batcher = ("async-batcher, greedy", "async-batcher, 10 ms")
    return {
        "lone thread, p50 over session.run in us": Verdict(added, 8, at_most=True),
        "8 threads, times queue.Queue + Future": Verdict(over("8 threads", peer), 3),
        "64 asyncio callers, times the better `batched`": Verdict(over("64 asyncio", *batched), 8),
        "64 asyncio callers, times the better async-batcher": Verdict(
            over("64 asyncio", *async_batcher), 3
        ),
        "256 threads, times queue.Queue + Future": Verdict(over("256 threads", peer), 1.5),
        "256 threads, p99 in parts of that of queue.Queue + Future": Verdict(
            tail, 0.5, at_most=True
        ),
    }


def _median(
    ours: list[Sample], theirs: list[Sample], compare: Callable[[Sample, Sample], float]
) -> float:
    """Of a comparison in each round."""
    return statistics.median(compare(a, b) for a, b in zip(ours, theirs, strict=True))


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
    parser.add_argument("--ray", action="store_true", help="Ray Serve, too: 10 s more a turn")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    options = parser.parse_args()
    if options.ray and not ray_serve.installed:
        parser.error("--ray needs: pip install 'ray[serve]'")
    turns = make_turns(make_model(), options.seconds, options.ray)
    samples = take_turns(turns, options.rounds)
    rows, judged = medians(samples, "trtinfer"), verdicts(samples)
    machine = describe_machine(
        "trtinfer", "onnxruntime", "batched", "async-batcher", "numpy", "ray"
    )
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    show(rows)
    show_verdicts(judged)
    if options.plot:
        plot(rows, options.plot, "256 x 16 MatMul: overhead", "requests", machine)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples)


if __name__ == "__main__":
    main()
