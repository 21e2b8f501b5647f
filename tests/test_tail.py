"""Nothing that a user may switch on, and nothing that other callers do, makes the tail longer."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import light_networks
import models
import numpy as np
import pytest
from waiting import wait_until

import trtinfer
from trtinfer.load_generator import Load, open_loop, poisson_arrivals

#: What may come on top of the tail: by all policies together, and by a storm of cancelled requests,
#: of which one may run when a request arrives, on cores that it keeps busy; a stall is far more.
POLICIES_COST, STORM_COST = 1.2, 5

#: Rounds of measurements: that are enough to pass, that it takes to fail, and all of them.
FEW, ENOUGH, MANY = 3, 9, 20

#: How long a batch runs, in seconds.
RUN = 0.001


def quantile_of(load: Load, quantile: float) -> float:
    """A latency in seconds."""
    return float(np.quantile(load.latencies, quantile)) * 1e-9


def median_ratio(
    usual: Callable[[int], Load], other: Callable[[int], Load], quantile: float, bound: float
) -> float:
    """How far a quantile of the other load is above that of the usual one, measured in turns.

    A round counts if the usual load, before and after the other, was sent in time: then the machine
    had no work of others. More are measured while the ratio is above the bound, since the tail of
    two seconds is a request or two, and work of others may meet those of the other load alone.
    """
    ratios: list[float] = []
    for seed in range(MANY):
        before, between, after = usual(seed), other(seed), usual(seed)
        if max(np.quantile(load.lateness, quantile) for load in (before, after)) > 2e9 * RUN:
            continue
        usually = (quantile_of(before, quantile) + quantile_of(after, quantile)) / 2
        ratios.append(quantile_of(between, quantile) / usually)
        if len(ratios) >= FEW and np.median(ratios) <= bound:
            break
    print(f"ratios: {np.round(ratios, 2)}")
    ratio = float(np.median(ratios or [np.inf]))
    if len(ratios) < (FEW if ratio <= bound else ENOUGH):
        pytest.skip("the machine is too busy with other work to tell")
    return ratio


def row_that_takes(session: trtinfer.Session, seconds: float) -> np.float32:
    """The row of `slow_model` for a batch of about this many seconds."""
    turns, times = 2000, []
    for _ in range(20):
        started = time.perf_counter()
        session.infer(np.float32(turns))
        times.append(time.perf_counter() - started)
    return np.float32(turns * seconds / min(times))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_policies_together_leave_the_tail_as_it_is_without():
    """The same arrivals, for half of what the device can do, with everything off and on in turns.

    Triton 2.51 once gained stalls of half a second from a limit of its queue, without being full.
    """
    options = {"max_batch_size": 8, "max_inflight": 1}
    policies = {"capacity": 256, "max_delay": 0.0, "latency_slo": 30.0}
    asked = {"waits_for_room": True, "timeout": 30.0, "priorities": (-1, 0, 1)}
    with (
        trtinfer.Session(models.slow_model(), **options) as off,
        trtinfer.Session(models.slow_model(), **options, **policies) as on,
    ):
        row = row_that_takes(off, RUN)

        def ask(session: trtinfer.Session, seed: int, **terms: object) -> Load:
            arrivals = poisson_arrivals(0.5 / RUN, 2, seed)
            load = open_loop(session, [row], arrivals, **terms)
            assert len(load.latencies) == len(arrivals)
            return load

        ratio = median_ratio(
            lambda seed: ask(off, seed), lambda seed: ask(on, seed, **asked), 0.999, POLICIES_COST
        )
    assert ratio <= POLICIES_COST


# --- Cancelled requests --------------------------------------------------------------------------


class Storm:
    """A thread that cancels requests of the lowest priority as soon as it has made them."""

    def __init__(self, session: trtinfer.Session, row: np.float32) -> None:
        self._session, self._rows = session, [row] * 50
        self._thread = threading.Thread(target=self._run)
        self._ends = False
        self.asked = self.cancelled = 0

    def _run(self) -> None:
        while not self._ends:
            futures = self._session.submit_many(self._rows, priority=-8)
            self.asked += len(futures)
            self.cancelled += sum(future.cancel() for future in futures)
            time.sleep(0.001)  # leaves the interpreter to others

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_storm_of_cancelled_requests_stalls_nobody_and_keeps_no_slot():
    gc.collect()
    before = trtinfer._core.live_objects()["requests"]
    rates: list[float] = []
    cancelled = 0
    with trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1) as session:
        row = row_that_takes(session, RUN)

        def calm(seed: int) -> Load:
            return open_loop(session, [row], poisson_arrivals(0.1 / RUN, 2, seed))

        def stormy(seed: int) -> Load:
            nonlocal cancelled
            arrivals = poisson_arrivals(0.1 / RUN, 2, seed)
            with Storm(session, row) as storm:
                load = open_loop(session, [row], arrivals, priorities=[7])
            cancelled += storm.cancelled
            rates.append(storm.cancelled / load.seconds)
            assert len(load.latencies) == len(arrivals)
            return load

        ratio = median_ratio(calm, stormy, 0.99, STORM_COST)
        wait_until(lambda: session.stats()["free_slots"] == session.sizes.capacity)
        wait_until(lambda: session.stats()["batches_in_flight"] == 0)
        stats = session.stats()
    assert stats["cancelled"] == cancelled
    assert stats["accepted"] == stats["completed"] + stats["cancelled"]
    assert ratio <= STORM_COST
    wait_until(lambda: trtinfer._core.live_objects()["requests"] == before)
    if max(rates) < 10_000:
        pytest.skip(f"the machine is too slow for a storm: {max(rates):,.0f} cancels a second")


# --- Batches of a new size -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["matmul", pytest.param("squeezenet", marks=pytest.mark.slow)])
def test_no_size_of_batch_is_slow_when_it_comes_first(name):
    """Nothing is compiled, tuned or allocated for seconds on the way of a request."""
    if name == "matmul":
        model, row = models.matmul_model(), np.ones(256, np.float32)
    else:
        model, row = light_networks.network(name), light_networks.smooth_image(0)[0]
    with trtinfer.Session(model, max_batch_size=16) as session:
        for size in range(1, 17):
            times = []
            for _ in range(4):
                started = time.perf_counter()
                session.infer(np.stack([row] * size))
                times.append(time.perf_counter() - started)
            assert times[0] < 3 * min(times[1:]) + 0.25, size
        assert set(session.stats()["batch_sizes"]) == set(range(1, 17))
