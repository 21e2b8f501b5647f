"""Measures a session under load: what it can do at most, and how long requests take below that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from trtinfer.latency_histogram import LatencyHistogram
from trtinfer.load_generator import (
    Load,
    Progress,
    closed_loop_tasks,
    closed_loop_threads,
    constant_arrivals,
    open_loop,
    poisson_arrivals,
)
from trtinfer.metrics import Stats
from trtinfer.session import Session

ARRIVALS = ("poisson", "constant")
#: Of a request, in order; together they are its time in the session.
STAGES = ("queue", "input", "compute", "output")

_PROBE_SHARE = 0.1  # of the time for the saturation: to find how many requests fill that time


@dataclass(frozen=True)
class Batches:
    """The batches of a stretch of time.

    Attributes:
        sizes: How many there were of each size.
        queue: Mean seconds from a request's arrival until its batch was launched.
        input: Mean seconds that a request's batch spent on bringing inputs to the model.
        compute: Likewise on everything else.
        output: Likewise on bringing outputs to the requests.
    """

    sizes: dict[int, int]
    queue: float
    input: float
    compute: float
    output: float

    @classmethod
    def between(cls, before: Stats, after: Stats) -> Batches:
        """Those that ended between two looks at a session's statistics."""
        sizes = {
            size: count - before["batch_sizes"].get(size, 0)
            for size, count in after["batch_sizes"].items()
        }
        return cls(
            {size: count for size, count in sizes.items() if count > 0},
            *(_mean_between(before, after, stage) for stage in STAGES),
        )

    @property
    def transfer(self) -> float:
        """Mean seconds of a request's batch for its inputs and outputs."""
        return self.input + self.output

    @property
    def mean_size(self) -> float:
        """Samples per batch."""
        samples = sum(size * count for size, count in self.sizes.items())
        return samples / max(1, sum(self.sizes.values()))


@dataclass(frozen=True)
class Measurement:
    """What came of one load on a session.

    Attributes:
        name: Of the load, for people.
        load: Latencies and more.
        batches: Of the session meanwhile.
        offered: Arrivals per second; None: as many as were answered.
        is_timed: Whether latencies mean something: not those of requests that all came at once.
    """

    name: str
    load: Load
    batches: Batches
    offered: float | None = None
    is_timed: bool = True

    @cached_property
    def histogram(self) -> LatencyHistogram:
        """The latencies."""
        return LatencyHistogram(self.load.latencies)

    def facts(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        load = self.load
        facts: dict[str, Any] = {
            "load": self.name,
            "offered_per_second": self.offered,
            "answered_per_second": load.rate,
            "seconds": load.seconds,
            "refused": load.refused,
            "failed": load.failed,
            "latency": self.histogram.quantiles(),
            "mean_batch_size": self.batches.mean_size,
            "batch_sizes": self.batches.sizes,
            **{f"mean_{stage}": getattr(self.batches, stage) for stage in STAGES},
            "histogram": self.histogram.encoded(),
        }
        if self.offered is not None:
            facts["generator_was_late"] = load.generator_was_late
            facts["generator_lateness"] = LatencyHistogram(load.lateness).quantiles()
        return facts


class Bench:
    """Loads on one session, one after another."""

    def __init__(
        self,
        session: Session,
        inputs: Sequence[object],
        *,
        seconds: float = 5.0,
        warm_up: float = 1.0,
        progress: Callable[[float, str], object] = lambda fraction, step: None,
    ) -> None:
        """Measures nothing yet.

        Args:
            session: Asked through its public methods, but for the native open loop.
            inputs: As for `Session.infer`, images as arrays; requests take turns.
            seconds: How long requests are sent in each load.
            warm_up: Seconds of the same load before, which are not counted.
            progress: Called now and then with what is done of a load, from 0 to 1, and its name.
        """
        self._session = session
        self._inputs = inputs
        self._seconds = seconds
        self._warm_up = warm_up
        self._progress = progress

    def saturation(self) -> Measurement:
        """All requests arrive at once and wait for room: the rate is what the session can do."""

        def run(seconds: float, progress: Progress) -> Load:
            requests = 1
            while (probe := self._backlog(requests, progress)).seconds < _PROBE_SHARE * seconds:
                requests *= 4
            load = self._backlog(max(requests, round(probe.rate * seconds)), progress)
            while load.seconds < seconds / 2:  # something held up the requests that the rate is of
                load = self._backlog(round(load.rate * seconds), progress)
            return load

        return replace(self._measure("saturation", run), is_timed=False)

    def open_loop(self, rate: float, arrivals: str = "poisson", seed: int = 0) -> Measurement:
        """Requests arrive at a rate, whatever becomes of them.

        Args:
            rate: Per second.
            arrivals: One of `ARRIVALS`.
            seed: Of random arrivals.
        """

        def run(seconds: float, progress: Progress) -> Load:
            if arrivals == "constant":
                times = constant_arrivals(rate, seconds)
            else:
                times = poisson_arrivals(rate, seconds, seed)
            return open_loop(self._session, self._inputs, times, progress)

        return self._measure(f"{arrivals} {rate:,.6g}/s", run, rate)

    def threads(self, callers: int) -> Measurement:
        """Threads that call `Session.infer`, each with one request at a time."""

        def run(seconds: float, progress: Progress) -> Load:
            inputs = self._inputs_for(callers)
            return closed_loop_threads(self._session.infer, inputs, seconds, progress)

        return self._measure(f"{callers} thread{'s' * (callers > 1)}", run)

    def tasks(self, callers: int) -> Measurement:
        """Tasks of one event loop that await `Session.ainfer`, likewise."""

        def run(seconds: float, progress: Progress) -> Load:
            inputs = self._inputs_for(callers)
            return asyncio.run(closed_loop_tasks(self._session.ainfer, inputs, seconds, progress))

        return self._measure(f"{callers} task{'s' * (callers > 1)}", run)

    def _measure(
        self, name: str, run: Callable[[float, Progress], Load], offered: float | None = None
    ) -> Measurement:
        if self._warm_up > 0:
            run(self._warm_up, lambda fraction: self._progress(0.0, f"{name}: warming up"))
        before = self._session.stats()
        load = run(self._seconds, lambda fraction: self._progress(fraction, name))
        batches = Batches.between(before, self._session.stats())
        return Measurement(name, load, batches, offered)

    def _backlog(self, requests: int, progress: Progress) -> Load:
        arrivals = np.zeros(requests, np.int64)
        return open_loop(self._session, self._inputs, arrivals, progress, waits_for_room=True)

    def _inputs_for(self, callers: int) -> list[object]:
        return [self._inputs[i % len(self._inputs)] for i in range(callers)]


def _mean_between(before: Stats, after: Stats, stage: str) -> float:
    earlier, later = before[stage], after[stage]  # type: ignore[literal-required]
    count = later["count"] - earlier["count"]
    total = later["mean"] * later["count"] - earlier["mean"] * earlier["count"]
    return float(total) / count if count else 0.0
