"""Load on a session or any other callable: closed loops of callers, and open loops.

In a closed loop each of N callers sends its next request when it has the answer to the last one: a
stalled server is asked less, and the stall shows up in one request of each caller. In an open loop
requests arrive when they arrive. Latency is counted from that moment, so that a stall shows up in
all requests that should have been sent meanwhile (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trtinfer.session import Session

X = TypeVar("X")
Y = TypeVar("Y")

Nanoseconds = npt.NDArray[np.int64]
Progress = Callable[[float], object]  # called with what is done, from 0 to 1

#: A generator is late when the 99th percentile of its lateness is more than this share of the 99th
#: percentile of the latencies, and more than a thread needs to wake up at all.
_LATE_SHARE = 0.1
_LATE_NS = 100_000

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Attributes:
        latencies: Nanoseconds from arrival to answer, of each answered request.
        seconds: From the first arrival until the last request had ended.
        lateness: Open loop: nanoseconds from a request's arrival until it was sent.
        refused: Requests that found no room.
        failed: Requests that were accepted but not answered.
    """

    latencies: Nanoseconds
    seconds: float
    lateness: Nanoseconds = field(default_factory=lambda: np.zeros(0, np.int64))
    refused: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    @property
    def generator_was_late(self) -> bool:
        """Whether the generator, not the server, made a part of the latency that matters."""
        if not len(self.lateness) or not len(self.latencies):
            return False
        late = float(np.quantile(self.lateness, 0.99))
        return late > max(_LATE_NS, _LATE_SHARE * float(np.quantile(self.latencies, 0.99)))


def constant_arrivals(rate: float, seconds: float) -> Nanoseconds:
    """Arrivals at equal distances, in nanoseconds from the start."""
    return (np.arange(round(rate * seconds)) * (1e9 / rate)).astype(np.int64)


def poisson_arrivals(rate: float, seconds: float, seed: int = 0) -> Nanoseconds:
    """Arrivals of a Poisson process: the pauses are independent and exponentially distributed."""
    pauses = np.random.default_rng(seed).exponential(1e9 / rate, round(rate * seconds))
    return np.cumsum(pauses).astype(np.int64)


def open_loop(  # noqa: PLR0913
    session: Session,
    inputs: Sequence[object],
    arrivals: Nanoseconds,
    progress: Progress = lambda fraction: None,
    *,
    waits_for_room: bool = False,
    timeout: float | None = None,
    priorities: Sequence[int] = (0,),
) -> Load:
    """Sends requests to a session at set times, by a native thread.

    Args:
        session: Of numeric tensors or images.
        inputs: As for `Session.infer`, images as arrays; they take turns.
        arrivals: Nanoseconds from the start, ascending.
        progress: Called now and then.
        waits_for_room: When the ring is full, requests wait (and are late) instead of being
            refused.
        timeout: As for `Session.infer`, from each arrival.
        priorities: Likewise; they take turns.

    Raises:
        InputError: An input does not fit.
        ClosedError: The session was closed meanwhile.
    """
    # Beneath the session's public methods on purpose: they would pace the load.
    loop = session._pipeline.open_loop(
        list(inputs), session._intake.convert, arrivals, waits_for_room, timeout, priorities
    )
    errors: list[BaseException] = []
    thread = threading.Thread(target=_keep_error, args=(loop.run, errors))
    thread.start()
    try:
        while thread.is_alive():
            progress(loop.sent / max(1, len(arrivals)))
            thread.join(_PROGRESS_SECONDS)
    finally:
        loop.stop()
        thread.join()
    if errors:
        raise errors[0]
    latencies, lateness = loop.latencies, loop.lateness
    sent = latencies != loop.UNSENT
    refused = int(np.count_nonzero(latencies == loop.REFUSED))
    failed = int(np.count_nonzero(latencies == loop.FAILED))
    return Load(latencies[latencies >= 0], loop.elapsed / 1e9, lateness[sent], refused, failed)


def closed_loop_threads(
    ask: Callable[[X], Y],
    inputs: Sequence[X],
    seconds: float,
    progress: Progress = lambda fraction: None,
    *,
    check: Callable[[X, Y], object] = lambda x, answer: None,
) -> Load:
    """Lets one thread for each input ask over and over.

    Args:
        ask: Answers one request; called by all threads at a time.
        inputs: One for each caller.
        seconds: How long requests are sent.
        progress: Called now and then.
        check: Called with each input and the last answer to it.

    Raises:
        Exception: What ``ask`` or ``check`` raised first.
    """
    clock = time.perf_counter_ns
    latencies: list[list[int]] = [[] for _ in inputs]
    errors: list[BaseException] = []
    ready = threading.Barrier(len(inputs) + 1)
    until = 0

    def call(x: X, times: list[int]) -> None:
        ready.wait()
        while (begin := clock()) < until:
            answer = ask(x)
            times.append(clock() - begin)
        if times:
            check(x, answer)

    threads = [
        threading.Thread(target=_keep_error, args=(lambda x=x, t=t: call(x, t), errors))
        for x, t in zip(inputs, latencies, strict=True)
    ]
    for thread in threads:
        thread.start()
    begin = clock()
    until = begin + int(seconds * 1e9)
    ready.wait()
    try:
        for thread in threads:
            while thread.is_alive():
                progress((clock() - begin) / (seconds * 1e9))
                thread.join(_PROGRESS_SECONDS)
    finally:
        until = 0
    elapsed = (clock() - begin) / 1e9
    if errors:
        raise errors[0]
    return Load(np.concatenate(list(map(_array, latencies))), elapsed)


async def closed_loop_tasks(
    ask: Callable[[X], Awaitable[Y]],
    inputs: Sequence[X],
    seconds: float,
    progress: Progress = lambda fraction: None,
    *,
    check: Callable[[X, Y], object] = lambda x, answer: None,
) -> Load:
    """Likewise with asyncio tasks on the running loop."""
    clock = time.perf_counter_ns
    latencies: list[list[int]] = [[] for _ in inputs]
    begin = clock()
    until = begin + int(seconds * 1e9)

    async def call(x: X, times: list[int]) -> None:
        while (begin := clock()) < until:
            answer = await ask(x)
            times.append(clock() - begin)
        if times:
            check(x, answer)

    async def report() -> None:
        while True:
            progress((clock() - begin) / (seconds * 1e9))
            await asyncio.sleep(_PROGRESS_SECONDS)

    reporter = asyncio.create_task(report())
    try:
        await asyncio.gather(*(call(x, t) for x, t in zip(inputs, latencies, strict=True)))
    finally:
        reporter.cancel()
    elapsed = (clock() - begin) / 1e9
    return Load(np.concatenate(list(map(_array, latencies))), elapsed)


def _array(times: list[int]) -> Nanoseconds:
    return np.asarray(times, np.int64)


def _keep_error(run: Callable[[], object], errors: list[BaseException]) -> None:
    try:
        run()
    except BaseException as error:
        errors.append(error)
