"""What does serving cost beside the engine itself, and how do others do?

ResNet-50 in half precision (random weights), batches of 1, 8 and 64: the bare CUDA graph of the
same plan without Python, trtinfer, ONNX Runtime with NVIDIA's TensorRT-RTX provider and PyTorch
with a CUDA graph. Each answers one batch at a time, then as many as it can; all take turns in one
process; medians over rounds are shown. Needs a GPU; what else is missing is listed.
    python bench/bench_engine.py [--rounds 5] [--seconds 0.5] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import contenders
import numpy as np
import onnxruntime
import resnet50
from contenders import BUCKETS, RECIPE, Contender, Work
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
    take_turns,
    write_samples,
)
from numpy.typing import NDArray

Open = Callable[[Work], AbstractContextManager[dict[str, Contender]]]

FLOOR = "bare graph"
OPEN: dict[str, Open] = {
    FLOOR: contenders.open_bare,
    "trtinfer": contenders.open_trtinfer,
    "ONNX Runtime with onnxruntime-ep-nv-tensorrt-rtx-cu13": contenders.open_onnxruntime,
    "PyTorch": contenders.open_torch,
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
        p50, p99 = quantiles(contender.alone(seconds))
    elif ask is not None:
        loop(ask, seconds / 10)
        p50, p99 = quantiles(loop(ask, seconds))
    if contender.answer is not None:
        work.check(contender.answer())
    if contender.flood is not None:
        rate = contender.flood(seconds)
    return Sample(rate, p50, p99)


def open_all(stack: ExitStack, work: Work) -> tuple[dict[str, Contender], dict[str, str]]:
    """Who takes part, and why others do not."""
    found: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name, opened in OPEN.items():
        print(f"\ropening {name}, batch {work.size} {'':40}", end="", file=sys.stderr)
        try:
            found |= stack.enter_context(opened(work))
        except Exception as error:
            if name in (FLOOR, "trtinfer"):
                raise
            missing[name] = f"{type(error).__name__}: {error}"
    return found, missing


def measure_all(
    work: Work, rounds: int, seconds: float
) -> tuple[Samples, dict[str, str], set[str]]:
    """Samples by batch size and contender, who is missing, and who is a peer from host to host."""
    samples: Samples = {}
    missing: dict[str, str] = {}
    peers: set[str] = set()
    for size in BUCKETS:
        batch = part(work, size)
        with ExitStack() as stack:
            found, absent = open_all(stack, batch)
            turns = {
                name: functools.partial(turn, contender, batch, seconds)
                for name, contender in found.items()
            }
            samples |= take_turns({f"batch {size}": turns}, rounds)
            missing |= absent
            theirs = {name for name, contender in found.items() if contender.from_host}
            peers |= {name for name in theirs if not name.startswith(("trtinfer", FLOOR))}
    return samples, missing, peers


# --- Showing


def over_floor(by_name: dict[str, list[Sample]], name: str, quantile: str) -> float:
    """Microseconds above the floor's median of the same round."""
    pairs = zip(by_name[name], by_name[FLOOR], strict=True)
    return statistics.median(getattr(ours, quantile) - floor.p50 for ours, floor in pairs)


def times_quicker(by_name: dict[str, list[Sample]], peer: str) -> float:
    pairs = zip(by_name["trtinfer"], by_name[peer], strict=True)
    return statistics.median(theirs.p50 / ours.p50 for ours, theirs in pairs)


def verdicts(samples: Samples, peers: set[str]) -> dict[str, Verdict]:
    """What is asked of trtinfer."""
    judged = {}
    for name in ("trtinfer", "trtinfer, images"):
        for quantile, bound in (("p50", 60), ("p99", 150)):
            added = over_floor(samples["batch 1"], name, quantile)
            what = f"{name}, a lone request: {quantile} over the floor's p50 in us"
            judged[what] = Verdict(added, bound, at_most=True)
    full = samples[f"batch {BUCKETS[-1]}"]
    share = max(
        median_ratio(taken, full[FLOOR])
        for name, taken in full.items()
        if name.startswith("trtinfer, images")
    )
    judged["trtinfer, images, batch 64: share of the floor's throughput"] = Verdict(share, 0.95)
    for scenario, by_name in samples.items():
        for peer in sorted(peers & set(by_name)):
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
            share = median_ratio(samples[scenario][name], samples[scenario][FLOOR])
            print(
                f"| {scenario.removeprefix('batch ')} | {name} | {text(row['p50_us'])} "
                f"| {text(row['p99_us'])} | {text(added)} | {text(row['per_second'])} "
                f"| {share:.1%} |"
            )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each half of a turn")
    parser.add_argument("--image", default="256x256", help="width and height of the images")
    parser.add_argument("--json", type=Path, help="write the figures of every round here")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    options = parser.parse_args()
    width, height = map(int, options.image.split("x"))
    work = make_work(height, width)
    contenders.open_session(BUCKETS[-1]).close()  # builds what is not in the cache yet
    samples, missing, peers = measure_all(work, options.rounds, options.seconds)
    rows, judged = medians(samples, "trtinfer"), verdicts(samples, peers)
    machine = describe_machine("trtinfer", "onnxruntime", "torch", "numpy")
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s, medians\n")
    show(rows, samples)
    show_verdicts(judged)
    for name, reason in missing.items():
        print(f"missing: {name} ({reason})")
    if options.plot:
        plot(rows, options.plot, "ResNet-50, float16", "images", machine)
    if options.json:
        write_samples(options.json, machine, rows, judged, samples, missing=missing)


if __name__ == "__main__":
    main()
