"""Does anything grow while a session answers for a long time, and do its answers stay the same?

Slices of open-loop load, and beside each a little of everything else: threads, an event loop of its
own, cancelled and expired requests, wrong inputs. What there is after each slice is noted; the last
quarter of the slices is compared with the second, when all that is lazy has happened.
    python bench/soak.py [MODEL] [--minutes 10] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Verdict, describe_machine, show_verdicts, to_json, write_json

import trtinfer
from trtinfer import _core, default_model
from trtinfer.bench import Bench
from trtinfer.bench_plots import new_figure, save
from trtinfer.load_generator import open_loop, poisson_arrivals
from trtinfer.progress import ProgressBar
from trtinfer.types import Outputs
from trtinfer.verify import random_requests

PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTE = 1 << 20
SOME = 16  # inputs of those beside the load
TOLERANCE = 0.02  # of the range: batches of other sizes are rounded otherwise


@dataclass(frozen=True)
class Slice:
    """What there was after a slice of load.

    Attributes:
        minute: Since the start.
        memory: Resident, in MB.
        descriptors: Open ones.
        threads: Of the process.
        requests: That the core holds.
        p50: Of the open loop, in milliseconds.
        p99: Likewise.
    """

    minute: float
    memory: float
    descriptors: int
    threads: int
    requests: int
    p50: float
    p99: float


def look(minute: float, latencies: Any) -> Slice:
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * PAGE / MEGABYTE
    p50, p99 = (np.quantile(latencies, [0.5, 0.99]) / 1e6).tolist()
    return Slice(
        minute,
        resident,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        _core.live_objects()["requests"],
        p50,
        p99,
    )


class Answers:
    """Those to some inputs while nothing else runs, for comparison with later ones.

    Attributes:
        worst: Difference so far, in parts of the range of an output.
    """

    def __init__(self, session: trtinfer.Session, inputs: Sequence[Any]) -> None:
        self._expected = [session.infer(x) for x in inputs]
        self.worst = 0.0

    def compare(self, answers: Sequence[Outputs]) -> None:
        for expected, answer in zip(self._expected, answers, strict=True):
            for name, array in expected.items():
                error = np.abs(answer[name].astype(np.float32) - array).max() / np.ptp(array)
                self.worst = max(self.worst, float(error))


def use_otherwise(
    session: trtinfer.Session, inputs: Sequence[Any], answers: Answers, stop: threading.Event
) -> None:
    """What callers do beside sending requests that are answered."""
    while not stop.wait(0.05):
        with contextlib.suppress(trtinfer.QueueFullError):
            session.infer(inputs[0])
            answers.compare(session.infer_many(inputs))
            for future in [session.submit(x) for x in inputs[:8]]:
                future.cancel()
            with contextlib.suppress(trtinfer.DeadlineExceededError):
                session.infer(inputs[0], timeout=1e-6)
            with contextlib.suppress(trtinfer.InputError):
                session.infer(object())
            with session.claim():
                pass  # given back unfilled
            asyncio.run(_gather(session, inputs[:4]))
            session.stats()


async def _gather(session: trtinfer.Session, inputs: Sequence[Any]) -> None:
    tasks = [asyncio.ensure_future(session.ainfer(x)) for x in inputs]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def soak(
    session: trtinfer.Session,
    inputs: list[Any],
    rate: float,
    answers: Answers,
    options: argparse.Namespace,
) -> list[Slice]:
    slices: list[Slice] = []
    bar = ProgressBar("soak")
    started = time.monotonic()
    while (minute := (time.monotonic() - started) / 60) < options.minutes:
        bar.show(minute / options.minutes, f"{minute:.1f} minutes")
        stop = threading.Event()
        other = threading.Thread(target=use_otherwise, args=(session, inputs[:SOME], answers, stop))
        other.start()
        try:
            arrivals = poisson_arrivals(rate, options.slice, seed=len(slices))
            load = open_loop(session, inputs, arrivals)
        finally:
            stop.set()
            other.join()
        slices.append(look(minute, load.latencies))
    bar.clear()
    return slices


def verdicts(slices: Sequence[Slice], worst: float) -> dict[str, Verdict]:
    """The last quarter against the second; the worst difference of an answer."""
    quarter = len(slices) // 4
    early, late = slices[quarter : 2 * quarter], slices[-quarter:]

    def grown(name: str) -> tuple[float, float]:
        before, after = (
            statistics.median(getattr(s, name) for s in part) for part in (early, late)
        )
        return before, after

    memory, descriptors, requests, p50 = map(grown, ("memory", "descriptors", "requests", "p50"))
    return {
        "memory grown, MB": Verdict(memory[1] - memory[0], 4 + 0.01 * memory[0], at_most=True),
        "descriptors grown": Verdict(descriptors[1] - descriptors[0], 0, at_most=True),
        "requests left behind": Verdict(requests[1] - requests[0], 0, at_most=True),
        "median latency, times the earlier": Verdict(p50[1] / p50[0], 1.2, at_most=True),
        "answers beside others, off by parts of their range": Verdict(worst, TOLERANCE, True),
    }


def plot(slices: Sequence[Slice], path: Path, machine: str) -> None:
    figure, axes = new_figure("Soak", machine)
    minutes = [s.minute for s in slices]
    axes.plot(minutes, [s.memory for s in slices], label="memory, MB")
    axes.plot(minutes, [s.descriptors for s in slices], label="descriptors")
    axes.plot(minutes, [s.threads for s in slices], label="threads")
    axes.plot(minutes, [s.p50 for s in slices], label="p50, ms")
    axes.plot(minutes, [s.p99 for s in slices], label="p99, ms")
    axes.set(xlabel="minutes", yscale="log")
    axes.legend(fontsize="small")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="ONNX (default: EfficientNet-Lite0)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--slice", type=float, default=3, help="seconds of load between two looks")
    parser.add_argument("--share", type=float, default=0.5, help="of the rate at saturation")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    options = parser.parse_args()
    with trtinfer.Session(
        options.model or default_model.path(), backend=options.backend
    ) as session:
        inputs: list[Any] = list(random_requests(session.inputs, {}, 64))
        rate = options.share * Bench(session, inputs, seconds=3).saturation().load.rate
        answers = Answers(session, inputs[:SOME])
        slices = soak(session, inputs, rate, answers, options)
        stats = session.stats()
    if len(slices) < 8:
        sys.exit(f"{len(slices)} slices are too few to compare: more --minutes, less --slice")
    judged, machine = verdicts(slices, answers.worst), describe_machine("trtinfer", "onnxruntime")
    print(f"{machine}; {options.minutes:g} minutes, {rate:,.1f} requests/s, Poisson\n")
    show_verdicts(judged)
    if options.plot:
        plot(slices, options.plot, machine)
    if options.json:
        facts = {"slices": [asdict(s) for s in slices], "stats": stats, "rate": rate}
        write_json(options.json, machine=machine, verdicts=to_json(judged), **facts)
    sys.exit(0 if all(verdict.met for verdict in judged.values()) else 1)


if __name__ == "__main__":
    main()
