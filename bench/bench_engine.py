"""What does serving cost beside the engine itself, and how do others do?

ResNet-50 in half precision (random weights), batches of 1, 8 and 64: the bare CUDA graph of the
same plan without Python, trtinfer, ONNX Runtime with NVIDIA's TensorRT-RTX provider and PyTorch
with a CUDA graph. Each answers one batch at a time, then as many as it can. Each has a process of
its own, in which it may fail or hang, and all take turns; medians over rounds are shown, also when
Ctrl-C or the time limit ends the bench. Needs a GPU; what else is missing is listed.
    python bench/bench_engine.py [--rounds 5] [--seconds 0.4] [--limit 300] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import math
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import contenders
import numpy as np
import onnxruntime
import peers
import resnet50
from contender_process import ContenderProcess, LeftOutError, Measure, Open
from contenders import BUCKETS, RECIPE, Contender, Work
from contest import Contest
from measuring import (
    Rows,
    Sample,
    Samples,
    Verdict,
    clock,
    describe_machine,
    median_ratio,
    medians,
    plot,
    quantiles,
    show_verdicts,
    write_samples,
)
from numpy.typing import NDArray

FLOOR = "bare graph"
PEERS: dict[str, Callable[[Work], AbstractContextManager[Contender]]] = {
    "ONNX Runtime, graph": peers.open_onnxruntime_graph,
    "ONNX Runtime, run": peers.open_onnxruntime,
    "PyTorch, graph": peers.open_torch_graph,
}
OPEN = {
    FLOOR: contenders.open_bare,
    "bare graph, in turn": contenders.open_bare_in_turn,
    "bare graph, copies": contenders.open_bare_with_copies,
    "trtinfer": contenders.open_arrays,
    "trtinfer, images": contenders.open_images,
    "trtinfer, images, threads": contenders.open_threads,
    "trtinfer, images, asyncio": contenders.open_tasks,
    **PEERS,
    "ONNX Runtime, graph, on the GPU": peers.open_onnxruntime_on_gpu,
    "PyTorch, graph, on the GPU": peers.open_torch_on_gpu,
}


# --- Work


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Waves and noise, of their own brightness and contrast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    lengths = rng.uniform(5, 60, (3, 2))
    waves = np.stack([np.sin(x / across + y / down) for across, down in lengths], -1)
    noise = rng.uniform(-20, 20, waves.shape)
    values = rng.uniform(60, 190) + rng.uniform(10, 60) * waves + noise
    return np.clip(values, 0, 255).astype(np.uint8)


def make_work(height: int, width: int) -> Work:
    """The largest batch, answered by ONNX Runtime on the CPU."""
    images = [picture(seed, height, width) for seed in range(BUCKETS[-1])]
    inputs = np.stack([RECIPE(image) for image in images])
    session = onnxruntime.InferenceSession(resnet50.build(), providers=["CPUExecutionProvider"])
    answers = session.run(None, {resnet50.INPUT: inputs})[0]
    return Work(images, inputs, answers.astype(np.float32))


def part(work: Work, size: int) -> Work:
    return Work(work.images[:size], work.inputs[:size].copy(), work.answers[:size])


# --- Measuring


def loop(ask: Callable[[], object], seconds: float) -> list[int]:
    """Nanoseconds of each call."""
    times, until = [], clock() + int(seconds * 1e9)
    while (begin := clock()) < until:
        ask()
        times.append(clock() - begin)
    return times


def turn(contender: Contender, work: Work, seconds: float) -> Sample:
    rate = p50 = p99 = float("nan")
    ask = contender.ask or contender.answer
    if contender.alone is not None:
        contender.alone(seconds / 10)
        p50, p99 = quantiles(contender.alone(seconds))
    elif ask is not None:
        loop(ask, seconds / 10)
        p50, p99 = quantiles(loop(ask, seconds))
    if contender.answer is not None:
        work.check(contender.answer())
    if contender.flood is not None:
        rate = contender.flood(seconds)
    return Sample(rate, p50, p99)


@contextmanager
def open_contender(name: str, work_file: Path) -> Iterator[Measure]:
    work = pickle.loads(work_file.read_bytes())
    with OPEN[name](work) as contender:
        yield functools.partial(turn, contender, work)


@contextmanager
def build_plans() -> Iterator[Measure]:
    """Into the cache, which all share."""
    contenders.open_session(BUCKETS[-1]).close()
    yield lambda seconds: Sample(*[float("nan")] * 3)


def ways_to_open(work: Work, folder: Path) -> dict[str, dict[str, Open]]:
    ways: dict[str, dict[str, Open]] = {}
    for size in BUCKETS:
        file = folder / str(size)
        file.write_bytes(pickle.dumps(part(work, size)))
        ways[f"batch {size}"] = {
            name: functools.partial(open_contender, name, file) for name in OPEN
        }
    return ways


def measure_all(options: argparse.Namespace) -> Contest:
    """Holds the contest; nothing but its samples and what went wrong is left of it."""
    until = time.monotonic() + options.limit
    width, height = map(int, options.image.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        plans = ContenderProcess(build_plans, Path(folder, "plans"), options.limit)
        try:
            work = make_work(height, width)
            plans.open(until)
        except LeftOutError as error:
            sys.exit(f"the plans cannot be built: {error}\n{plans.last_words()}")
        finally:
            plans.kill()
        with Contest(ways_to_open(work, Path(folder)), until=until) as contest:
            contest.hold(options.rounds, options.seconds)
    return contest


# --- Showing


def over_floor(by_name: dict[str, list[Sample]], name: str, quantile: str) -> float:
    """Microseconds above the floor's median of the same round; NaN without one of them."""
    if not {name, FLOOR} <= set(by_name):
        return math.nan
    pairs = zip(by_name[name], by_name[FLOOR], strict=True)
    return statistics.median(getattr(ours, quantile) - floor.p50 for ours, floor in pairs)


def of_floor(by_name: dict[str, list[Sample]], name: str) -> float:
    """Throughput; NaN without one of them."""
    if not {name, FLOOR} <= set(by_name):
        return math.nan
    return median_ratio(by_name[name], by_name[FLOOR])


def times_quicker(by_name: dict[str, list[Sample]], peer: str) -> float:
    pairs = zip(by_name["trtinfer"], by_name[peer], strict=True)
    return statistics.median(theirs.p50 / ours.p50 for ours, theirs in pairs)


def verdicts(samples: Samples) -> dict[str, Verdict]:
    """What is asked of trtinfer; NaN, which is not met, where it or the floor has no figure."""
    judged = {}
    for name in ("trtinfer", "trtinfer, images"):
        for quantile, bound in (("p50", 60), ("p99", 150)):
            added = over_floor(samples["batch 1"], name, quantile)
            what = f"{name}, a lone request: {quantile} over the floor's p50 in us"
            judged[what] = Verdict(added, bound, at_most=True)
    full = samples[f"batch {BUCKETS[-1]}"]
    shares = [of_floor(full, name) for name in full if name.startswith("trtinfer, images")]
    judged["trtinfer, images, batch 64: share of the floor's throughput"] = Verdict(
        max(shares, default=math.nan), 0.95
    )
    for scenario, by_name in samples.items():
        for peer in [peer for peer in PEERS if {peer, "trtinfer"} <= set(by_name)]:
            quicker = times_quicker(by_name, peer)
            more = median_ratio(by_name["trtinfer"], by_name[peer])
            judged[f"{scenario}, one at a time: times quicker than {peer}"] = Verdict(quicker, 1)
            judged[f"{scenario}, saturated: times the rate of {peer}"] = Verdict(more, 1)
    return judged


def text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:,.0f}"


def show(rows: Rows, samples: Samples) -> None:
    print("| batch | contender | p50 us | p99 us | p50 over floor | images/s | of the floor |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for scenario, by_name in rows.items():
        for name, row in by_name.items():
            added = over_floor(samples[scenario], name, "p50")
            share = of_floor(samples[scenario], name)
            print(
                f"| {scenario.removeprefix('batch ')} | {name} | {text(row['p50_us'])} "
                f"| {text(row['p99_us'])} | {text(added)} | {text(row['per_second'])} "
                f"| {share:.1%} |"
            )
    print()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each half of a turn")
    parser.add_argument("--limit", type=float, default=300, help="seconds of the whole bench")
    parser.add_argument("--image", default="256x256", help="width and height of the images")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    return parser.parse_args()


def main() -> None:
    options = read_arguments()
    contest = measure_all(options)
    samples, rows = contest.samples, medians(contest.samples, "trtinfer")
    judged = verdicts(samples)
    machine = describe_machine("trtinfer", "onnxruntime", "torch", "numpy")
    print(f"{machine}; {contest.rounds} rounds of {options.seconds:g} s, medians")
    print(f"Rounds are missing: {contest.ended}.\n" if contest.ended else "")
    show(rows, samples)
    show_verdicts(judged)
    for name, reason in contest.left_out.items():
        print(f"left out: {name} ({reason})")
    if options.json:
        more = {"left_out": contest.left_out, "ended": contest.ended}
        write_samples(options.json, machine, rows, judged, samples, **more)
    if options.plot:
        plot(rows, options.plot, "ResNet-50, float16", "images", machine)


if __name__ == "__main__":
    main()
