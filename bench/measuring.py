"""What the benches share: callers in a closed loop, rounds in turns, and how figures are shown."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtinfer import _core, load_generator
from trtinfer.load_generator import closed_loop_tasks, closed_loop_threads

Ask = Callable[[Any], Any]
AsyncAsk = Callable[[Any], Awaitable[Any]]

clock = time.perf_counter_ns


@dataclass(frozen=True)
class Sample:
    """One contender's turn: requests per second, and microseconds of a request; NaN: not asked."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Load:
    """What callers ask: each its own request, again and again, for some seconds."""

    requests: Sequence[Any]
    check: Callable[[Any, Any], None]  # of a request and its answer
    seconds: float
    warm_up: int = 20


@dataclass(frozen=True)
class Verdict:
    """A figure that has to reach a bound, from below or from above."""

    figure: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound


#: By scenario and contender: one sample a round.
Samples = dict[str, dict[str, list[Sample]]]
Rows = dict[str, dict[str, dict[str, float]]]
Turns = Mapping[str, Mapping[str, Callable[[], Sample]]]


# --- Closed loops


def quantiles(nanoseconds: Sequence[int] | NDArray[Any]) -> tuple[float, float]:
    """The median and the 99th percentile, in microseconds."""
    p50, p99 = np.quantile(np.asarray(nanoseconds) / 1e3, [0.5, 0.99]).tolist()
    return p50, p99


def summarize(load: load_generator.Load) -> Sample:
    return Sample(load.rate, *quantiles(load.latencies))


def measure_threads(opened: AbstractContextManager[Ask], load: Load) -> Sample:
    """A thread for each request."""
    with opened as ask:

        def warm(x: Any) -> None:
            for _ in range(load.warm_up):
                load.check(x, ask(x))

        with ThreadPoolExecutor(len(load.requests)) as threads:
            list(threads.map(warm, load.requests))
        return summarize(closed_loop_threads(ask, load.requests, load.seconds, check=load.check))


async def measure_tasks(opened: AbstractContextManager[AsyncAsk], load: Load) -> Sample:
    """A task of one event loop for each request."""

    async def warm(x: Any) -> None:
        for _ in range(load.warm_up):
            load.check(x, await ask(x))

    with opened as ask:
        await asyncio.gather(*map(warm, load.requests))
        return summarize(
            await closed_loop_tasks(ask, load.requests, load.seconds, check=load.check)
        )


# --- Rounds


def take_turns(turns: Turns, rounds: int) -> Samples:
    """A sample of everything in each round; who comes first changes from round to round."""
    samples: Samples = {scenario: {name: [] for name in by} for scenario, by in turns.items()}
    count, done = rounds * sum(map(len, turns.values())), 0
    for i in range(rounds):
        for scenario, by_name in turns.items():
            names = list(by_name)
            for name in names[i % len(names) :] + names[: i % len(names)]:
                print(f"\r{done}/{count} {scenario}, {name:44}", end="", file=sys.stderr)
                samples[scenario][name].append(by_name[name]())
                done += 1
    print(f"\r{'':80}\r", end="", file=sys.stderr)
    return samples


def median_ratio(ours: list[Sample], theirs: list[Sample]) -> float:
    """Of our rate over theirs in the same round; NaN when we had no turn."""
    if not ours:
        return float("nan")
    return statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))


def medians(samples: Samples, ours: str) -> Rows:
    """Over the rounds, and how many times the rate of each is that of `ours`."""
    rows: Rows = {}
    for scenario, by_name in samples.items():
        rows[scenario] = {
            name: {
                "per_second": statistics.median(s.rate for s in taken),
                "p50_us": statistics.median(s.p50 for s in taken),
                "p99_us": statistics.median(s.p99 for s in taken),
                f"{ours}_over_this": median_ratio(by_name.get(ours, []), taken),
            }
            for name, taken in by_name.items()
        }
    return rows


# --- Showing


def describe_machine(*packages: str) -> str:
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    cpu = f"{cores} cores of {models[0] if models else platform.machine()}"
    gpus = [device.name for device in _core.probe_cuda().devices]
    versions = [text for text in map(_version, packages) if text]
    return ", ".join([*gpus, cpu, f"Python {platform.python_version()}", *versions])


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def show_verdicts(judged: Mapping[str, Verdict]) -> None:
    for what, verdict in judged.items():
        asked = f"{'at most' if verdict.at_most else 'at least'} {verdict.bound:g}"
        met = "met" if verdict.met else "NOT met"
        print(f"{what}: {verdict.figure:.2f} (asked: {asked}, {met})")


def to_json(judged: Mapping[str, Verdict]) -> dict[str, Any]:
    return {what: asdict(verdict) | {"met": verdict.met} for what, verdict in judged.items()}


def write_json(path: Path, **results: Any) -> None:
    finite = json.loads(json.dumps(results), parse_constant=lambda _: None)  # JSON knows no NaN
    path.write_text(json.dumps(finite, indent=2) + "\n")


def write_samples(
    path: Path,
    machine: str,
    rows: Rows,
    judged: Mapping[str, Verdict],
    samples: Samples,
    **more: Any,
) -> None:
    rounds = {
        scenario: {name: [asdict(sample) for sample in taken] for name, taken in by.items()}
        for scenario, by in samples.items()
    }
    verdicts = to_json(judged)
    write_json(path, machine=machine, medians=rows, verdicts=verdicts, rounds=rounds, **more)


def plot(rows: Rows, path: Path, title: str, unit: str, machine: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, times) = pyplot.subplots(2, 1, figsize=(10, 8), sharex=True)
    names = list(dict.fromkeys(name for by_name in rows.values() for name in by_name))
    absent = dict.fromkeys(("per_second", "p50_us", "p99_us"), np.nan)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * width
        taken = [by_name.get(name, absent) for by_name in rows.values()]
        rates.bar(places, [row["per_second"] for row in taken], width, label=name)
        half = np.array([row["p50_us"] for row in taken])
        above = np.array([row["p99_us"] for row in taken]) - half
        times.bar(places, half, width, yerr=[np.zeros_like(above), above], capsize=2)
    rates.set(ylabel=f"{unit} per second", yscale="log", title=title)
    times.set(ylabel="latency, us: p50, whisker to p99", yscale="log")
    times.set_xticks(np.arange(len(rows)), list(rows))
    rates.legend(fontsize="small", ncols=3)
    figure.text(0.5, 0.01, machine, ha="center", fontsize="x-small")
    figure.savefig(path, dpi=120, bbox_inches="tight")
