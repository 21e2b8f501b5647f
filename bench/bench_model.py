"""What is left of a real network's speed behind a session, and how long do requests wait?

EfficientNet-Lite0 (or another model) on the CPU. A backlog of requests through a session against
loops of `session.run` with batches of 1 to 64 in the same round: the best loop is what the machine
can do. Before the first round the session has ten seconds of that load, in which its memory is
touched for the first time and the size that pays is learned. Then Poisson load at a share of that:
the p99 against what a request cannot avoid, the batch that is running when it comes and its own.
    python bench/bench_model.py [MODEL] [--rounds 15] [--seconds 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from measuring import (
    Sample,
    Turns,
    Verdict,
    clock,
    describe_machine,
    median_ratio,
    medians,
    quantiles,
    show_verdicts,
    take_turns,
    write_samples,
)
from numpy.typing import NDArray

import trtinfer
from trtinfer import default_model
from trtinfer.bench import Bench, Measurement
from trtinfer.verify import random_requests

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SATURATION = "saturation"
WARM_UP = 10  # seconds of load before the first round
Inputs = dict[str, NDArray[Any]]


def run_directly(
    direct: onnxruntime.InferenceSession, row: Inputs, batch: int, seconds: float
) -> Sample:
    """A loop of `session.run`, which has all cores for each batch."""
    inputs = {name: np.repeat(array, batch, axis=0) for name, array in row.items()}
    direct.run(None, inputs)
    times, begin = [], clock()
    while (started := clock()) - begin < seconds * 1e9:
        direct.run(None, inputs)
        times.append(clock() - started)
    return Sample(batch * len(times) * 1e9 / (clock() - begin), *quantiles(times))


def saturate(session: trtinfer.Session, row: Inputs, seconds: float) -> Sample:
    load = Bench(session, [row], seconds=seconds, warm_up=0).saturation().load
    return Sample(load.rate, *quantiles(load.latencies))


def make_turns(model: str, session: trtinfer.Session, row: Inputs, seconds: float) -> Turns:
    direct = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    turns: dict[str, Callable[[], Sample]] = {
        f"session.run, batch {batch}": functools.partial(run_directly, direct, row, batch, seconds)
        for batch in BATCHES
    }
    turns["trtinfer"] = functools.partial(saturate, session, row, seconds)
    return {SATURATION: turns}


def of_best(by_name: dict[str, list[Sample]]) -> float:
    """Our rate in parts of the best loop's, median of the rounds.

    The best is that of the highest median: the highest of a round would be the luckiest of five.
    """
    peers = [taken for name, taken in by_name.items() if name != "trtinfer"]
    best = max(peers, key=lambda taken: statistics.median(sample.rate for sample in taken))
    return median_ratio(by_name["trtinfer"], best)


def unavoidable(loaded: Measurement, session: trtinfer.Session) -> float:
    """Seconds of the batch that is running and of the request's own, at their 99th percentile."""
    largest = max(loaded.batches.sizes)
    timed = session.stats()["batch_compute"]
    return 2 * max(timing["p99"] for size, timing in timed.items() if size // 2 < largest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="ONNX (default: EfficientNet-Lite0)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1, help="of each turn")
    parser.add_argument("--share", type=float, default=0.7, help="of the saturation, for p99")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    options = parser.parse_args()
    model = options.model or str(default_model.path())
    with trtinfer.Session(model, backend="onnxruntime") as session:
        (row,) = random_requests(session.inputs, {}, 1)
        saturate(session, row, WARM_UP)
        samples = take_turns(make_turns(model, session, row, options.seconds), options.rounds)
        by_name = samples[SATURATION]
        rate = statistics.median(sample.rate for sample in by_name["trtinfer"])
    with trtinfer.Session(model, backend="onnxruntime") as session:  # with statistics of its own
        seconds = options.seconds * options.rounds
        loaded = Bench(session, [row], seconds=seconds).open_loop(options.share * rate)
        least = unavoidable(loaded, session)
    p99 = loaded.histogram.quantiles()["p99"]
    judged = {
        "saturation, in parts of the best session.run loop": Verdict(of_best(by_name), 0.98),
        f"p99 at {options.share:.0%} load, times the batch that runs and its own": Verdict(
            p99 / least, 1.5, at_most=True
        ),
    }
    rows, machine = medians(samples, "trtinfer"), describe_machine("trtinfer", "onnxruntime")
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    for name, figures in rows[SATURATION].items():
        print(f"{name:24}{figures['per_second']:10,.1f} images/s")
    late = " (the generator was late)" if loaded.load.generator_was_late else ""
    print(f"p99 at {options.share:.0%} load: {1e3 * p99:.1f} ms{late}; {loaded.batches.sizes}\n")
    show_verdicts(judged)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples, loaded=loaded.facts())


if __name__ == "__main__":
    main()
