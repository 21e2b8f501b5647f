"""How long do requests wait on a GPU that is nearly full?

ResNet-50 in half precision (random weights). Poisson load at shares of what the bare CUDA graph of
the largest batch can do, without a latency target; then the highest load that sessions with one
(`latency_slo`) hold: 99 of 100 answers in time, 99 of 100 requests answered. Needs a GPU.
    python bench/bench_load.py [--shares 0.3,0.6,0.8,0.9] [--targets 0.005,0.015] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import resnet50
from measuring import Verdict, describe_machine, show_verdicts, to_json, write_json

import trtinfer
from trtinfer import TensorRtOptions
from trtinfer.bench import Bench, Measurement

LARGEST = contenders.BUCKETS[-1]
STEP = 0.05  # of the floor's throughput, between two loads that a target is tried at
MOST_REFUSED = 0.01
AIM_SHARE, AIM_TIMES = 0.8, 3


def make_work() -> contenders.Work:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((LARGEST, 3, resnet50.SIDE, resnet50.SIDE), np.float32)
    nobody_looks = [np.empty(0, np.uint8)] * LARGEST
    answers = np.empty((LARGEST, resnet50.CLASSES))
    return contenders.Work(nobody_looks, inputs.astype(np.float16), answers)


def measure_floor(work: contenders.Work) -> tuple[float, float]:
    """Images per second and seconds of a batch of the bare graph."""
    bare = contenders.bare(work, 1, transfers=False, in_turn=False)
    assert bare.alone is not None
    assert bare.flood is not None
    return bare.flood(1.0), statistics.median(bare.alone(0.5)) * 1e-9


def open_session(target: float | None) -> trtinfer.Session:
    return trtinfer.Session(
        resnet50.build(),
        backend="tensorrt",
        max_batch_size=LARGEST,
        latency_slo=target,
        tensorrt=TensorRtOptions(build=contenders.BUILD),
    )


def refused(loaded: Measurement) -> float:
    """Share of the requests."""
    answered = len(loaded.load.latencies)
    return loaded.load.refused / max(1, loaded.load.refused + answered)


def holds(loaded: Measurement, target: float) -> bool:
    return loaded.histogram.quantiles()["p99"] <= target and refused(loaded) <= MOST_REFUSED


def show(loaded: Measurement, share: float, target: float | None) -> None:
    times = {name: 1e3 * value for name, value in loaded.histogram.quantiles().items()}
    late = " late" if loaded.load.generator_was_late else ""
    milliseconds = "" if target is None else f"{1e3 * target:g}"
    print(
        f"| {milliseconds} | {share:.0%} | {loaded.load.rate:,.0f} "
        f"| {times['p50']:.2f} | {times['p99']:.2f} | {times['p99.9']:.2f} "
        f"| {loaded.batches.mean_size:.1f} | {refused(loaded):.2%}{late} |",
        flush=True,
    )


def highest_held(
    at_share: Callable[[float], Measurement], target: float
) -> tuple[float, list[dict[str, Any]]]:
    """Tries ever lower shares until one is held; 0: none was."""
    tried = []
    share = 1.0
    while share > STEP / 2:
        loaded = at_share(share)
        show(loaded, share, target)
        tried.append({"share": share, "refused": refused(loaded), **loaded.facts()})
        if holds(loaded, target):
            return share, tried
        share -= STEP
    return 0.0, tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", default="0.3,0.6,0.8,0.9", help="of the floor's throughput")
    parser.add_argument("--targets", default="0.005,0.015", help="seconds; empty: none")
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    work = make_work()
    inputs = list(work.inputs)
    rate, batch_seconds = measure_floor(work)
    machine = describe_machine("trtinfer", "numpy")
    print(f"{machine}\nfloor: {rate:,.0f} images/s, {1e3 * batch_seconds:.2f} ms a batch\n")
    print("| target ms | load | answered/s | p50 ms | p99 ms | p99.9 ms | mean batch | refused |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    results: dict[str, Any] = {"floor": {"rate": rate, "batch_seconds": batch_seconds}}
    judged: dict[str, Verdict] = {}
    with open_session(None) as session:
        bench = Bench(session, inputs, seconds=options.seconds)
        for share in map(float, options.shares.split(",")):
            loaded = bench.open_loop(share * rate)
            show(loaded, share, None)
            results[f"{share:.0%}"] = loaded.facts()
            if share == AIM_SHARE:
                times = loaded.histogram.quantiles()["p99"] / batch_seconds
                what = f"p99 at {share:.0%} load, times the floor of batch {LARGEST}"
                judged[what] = Verdict(times, AIM_TIMES, at_most=True)
    for target in map(float, filter(None, options.targets.split(","))):
        with open_session(target) as session:
            bench = Bench(session, inputs, seconds=options.seconds)
            held, tried = highest_held(lambda share, b=bench: b.open_loop(share * rate), target)
        results[f"target {target:g}"] = {"held": held, "tried": tried}
        print(f"target {1e3 * target:g} ms: {held:.0%} of the floor's throughput held", flush=True)
    show_verdicts(judged)
    if options.json:
        write_json(options.json, machine=machine, verdicts=to_json(judged), results=results)


if __name__ == "__main__":
    main()
