"""Which requests share a batch, and in which order they run."""

from __future__ import annotations

import threading
import time

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_for_queue, wait_until

import trtinfer


@pytest.fixture
def session():
    with trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1) as session:
        yield session


def requests_of(session: trtinfer.Session, values) -> list:
    return [session.submit(np.float32(value)) for value in values]


def answers(futures) -> list[float]:
    return [float(future.result(PATIENCE)["y"]) for future in futures]


def new_sizes(session: trtinfer.Session, before: trtinfer.metrics.Stats) -> dict[int, int]:
    """How many batches of each size ran since `before`."""
    sizes = session.stats()["batch_sizes"]
    counts = {size: n - before["batch_sizes"].get(size, 0) for size, n in sizes.items()}
    return {size: n for size, n in counts.items() if n}


def ran_in_order(session: trtinfer.Session, futures: dict) -> list:
    """Names of the futures in the order in which they end, for batches of one."""
    order: list = []
    for name, future in futures.items():
        future.add_done_callback(lambda _, name=name: order.append(name))
    wait_until(lambda: len(order) == len(futures))
    return order


def test_a_lone_request_runs_at_once_and_alone(session):
    for _ in range(3):
        session.infer(np.float32(1))
        session.submit(np.float32(1)).result(PATIENCE)
    assert session.stats()["batch_sizes"] == {1: 6}


def test_requests_that_arrive_while_a_batch_runs_form_the_next_one(session):
    before = session.stats()
    busy = keep_busy(session)
    futures = requests_of(session, range(5))
    wait_for_queue(session, 5)
    assert not any(future.running() for future in futures)
    assert answers([busy, *futures]) == [2 * models.BUSY, 0, 2, 4, 6, 8]
    assert new_sizes(session, before) == {1: 1, 5: 1}


def test_a_batch_never_exceeds_max_batch_size(session):
    before = session.stats()
    busy = keep_busy(session)
    futures = requests_of(session, range(21))
    assert answers([busy, *futures])[1:] == [2 * i for i in range(21)]
    assert new_sizes(session, before) == {1: 1, 8: 2, 5: 1}


def test_requests_of_several_samples_stay_together(session):
    before = session.stats()
    busy = keep_busy(session)
    futures = [session.submit(np.arange(3, dtype=np.float32)) for _ in range(5)]
    busy.result(PATIENCE)
    for future in futures:
        np.testing.assert_array_equal(future.result(PATIENCE)["y"], [0, 2, 4])
    assert new_sizes(session, before) == {1: 1, 6: 2, 3: 1}


def test_a_small_request_does_not_overtake_one_that_does_not_fit(session):
    before = session.stats()
    keep_busy(session)
    futures = [session.submit(np.zeros(count, np.float32)) for count in (5, 5, 2)]
    for future in futures:
        future.result(PATIENCE)
    assert new_sizes(session, before) == {1: 1, 5: 1, 7: 1}


def test_requests_of_threads_share_batches(session):
    before = session.stats()
    busy = keep_busy(session)
    results: list[float] = []

    def infer(i: int) -> None:
        results.append(float(session.infer(np.float32(i))["y"]))

    threads = [threading.Thread(target=infer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    wait_for_queue(session, 8)
    for thread in threads:
        thread.join(PATIENCE)
    busy.result(PATIENCE)  # its future ends on a thread of its own
    assert sorted(results) == [2 * i for i in range(8)]
    assert new_sizes(session, before) == {1: 1, 8: 1}


def test_only_requests_of_one_shape_share_a_batch():
    with trtinfer.Session(models.varying_model(), max_batch_size=8, max_delay=0.05) as session:
        lengths = [3, 5, 3, 5, 3]
        futures = [session.submit(np.full(length, length, np.float32)) for length in lengths]
        for length, future in zip(lengths, futures, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE)["y"], np.full(length, 2 * length))
        assert session.stats()["samples"] == 5
        assert session.stats()["batches"] >= 2


def test_a_fixed_batch_counts_its_samples_not_its_padding():
    with trtinfer.Session(models.matmul_model(4)) as session:
        session.infer(np.zeros((3, 256), np.float32))
        stats = session.stats()
        assert (stats["samples"], stats["batch_sizes"]) == (3, {3: 1})


# --- Priorities ----------------------------------------------------------------------------------


def test_higher_priorities_run_first_and_equal_ones_in_order():
    with trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1) as session:
        keep_busy(session)
        priorities = [0, -8, 7, 0, 3, 7]
        futures = {
            (priority, i): session.submit(np.float32(i), priority=priority)
            for i, priority in enumerate(priorities)
        }
        order = ran_in_order(session, futures)
        assert order == [(7, 2), (7, 5), (3, 4), (0, 0), (0, 3), (-8, 1)]


def test_a_high_priority_goes_to_the_next_batch_and_a_low_one_fills_it_up(session):
    before = session.stats()
    keep_busy(session)
    low = requests_of(session, range(8))
    high = [session.submit(np.float32(i), priority=5) for i in range(3)]
    assert answers(high) == [0, 2, 4]
    assert answers(low) == [2 * i for i in range(8)]
    assert new_sizes(session, before) == {1: 1, 8: 1, 3: 1}


# --- max_delay -----------------------------------------------------------------------------------


def test_max_delay_gathers_company():
    with trtinfer.Session(models.slow_model(), max_batch_size=4, max_delay=PATIENCE) as session:
        futures = requests_of(session, range(4))  # a full batch waits no longer
        assert answers(futures) == [0, 2, 4, 6]
        assert session.stats()["batch_sizes"] == {4: 1}


def test_max_delay_counts_from_the_first_arrival():
    delay = 0.15
    with trtinfer.Session(models.slow_model(), max_batch_size=64, max_delay=delay) as session:
        started = time.monotonic()
        first = session.submit(np.float32(1))
        for _ in range(1000):  # later arrivals do not put it off
            if first.done():
                break
            session.submit(np.float32(1))
            time.sleep(0.01)
        assert first.done()
        assert time.monotonic() - started >= delay


def test_max_delay_holds_for_callers_who_wait():
    with trtinfer.Session(models.slow_model(), max_batch_size=4, max_delay=0.05) as session:
        started = time.monotonic()
        assert session.infer(np.float32(3))["y"] == 6
        assert session.infer(np.float32(3), timeout=PATIENCE)["y"] == 6
        assert 0.1 <= time.monotonic() - started < PATIENCE


def test_max_delay_overlaps_the_batch_that_runs():
    with trtinfer.Session(
        models.slow_model(), max_batch_size=4, max_delay=0.25, max_inflight=1
    ) as session:
        busy = keep_busy(session, models.VERY_BUSY)
        waiting = session.submit(np.float32(1))
        busy.result(PATIENCE)
        ended = time.monotonic()
        waiting.result(PATIENCE)
        assert time.monotonic() - ended < 0.25


def test_close_does_not_wait_for_company():
    with trtinfer.Session(models.slow_model(), max_batch_size=4, max_delay=PATIENCE) as session:
        future = session.submit(np.float32(1))
    assert future.result(0)["y"] == 2


# --- Failures ------------------------------------------------------------------------------------


def test_a_failing_request_does_not_fail_its_batch_mates():
    table = models.TABLE
    with trtinfer.Session(models.gather_model(4), max_delay=PATIENCE, max_inflight=1) as session:
        futures = [session.submit(np.int64(i)) for i in (1, 99, 3, 2)]
        for i, future in zip((1, None, 3, 2), futures, strict=True):
            if i is not None:
                np.testing.assert_array_equal(future.result(PATIENCE)["row"], table[i])
        with pytest.raises(trtinfer.BackendError, match="99"):
            futures[1].result(PATIENCE)
        stats = session.stats()
        assert (stats["completed"], stats["failed"], stats["retried"]) == (3, 1, 4)


def test_every_failure_of_a_batch_has_its_own_message():
    with trtinfer.Session(models.gather_model(2), max_delay=PATIENCE, max_inflight=1) as session:
        futures = [session.submit(np.int64(i)) for i in (77, 99)]
        for text, future in zip(("77", "99"), futures, strict=True):
            with pytest.raises(trtinfer.BackendError, match=text):
                future.result(PATIENCE)


def test_a_failing_part_fails_the_whole_of_a_split_request():
    with trtinfer.Session(models.gather_model(), max_batch_size=4) as session:
        index = np.arange(10)
        index[6] = 50
        for _ in range(20):
            with pytest.raises(trtinfer.BackendError, match="50"):
                session.infer(index)
        np.testing.assert_array_equal(session.infer(np.arange(10))["row"], models.TABLE)
        wait_until(lambda: session.stats()["free_slots"] == 1024)
        stats = session.stats()
        assert (stats["accepted"], stats["failed"], stats["completed"]) == (21, 20, 1)


def test_a_failure_reaches_the_caller_who_waits():
    with trtinfer.Session(models.gather_model()) as gather:
        with pytest.raises(trtinfer.BackendError, match="99"):
            gather.infer(np.int64(99))
        np.testing.assert_array_equal(gather.infer(np.int64(9))["row"], models.TABLE[9])


# --- Latencies -----------------------------------------------------------------------------------


def test_stats_tell_copies_of_a_batch_from_its_compute():
    rows, length = 8, 1 << 18  # 8 MB, at less than 100 GB/s
    with trtinfer.Session(models.varying_model(), max_batch_size=rows) as session:
        session.infer_many([np.ones(length, np.float32)] * rows)
        stats = session.stats()
    assert stats["batch_sizes"] == {rows: 1}
    assert stats["output"]["count"] == rows
    assert stats["batch_output"] == {rows: pytest.approx(stats["output"]["mean"])}
    assert stats["output"]["mean"] > 80e-6
    stages = [stats[stage]["mean"] for stage in ("queue", "input", "compute", "output")]
    assert all(stages)
    assert sum(stages) <= stats["total"]["mean"] * 1.01


def test_stats_tell_queue_compute_and_total_apart(session):
    started = time.monotonic()
    busy = keep_busy(session)
    second = session.submit(np.float32(1))
    wait_until(second.done)
    elapsed = time.monotonic() - started
    stats = session.stats()
    assert busy.done()
    assert stats["compute"]["count"] == stats["queue"]["count"] == stats["total"]["count"] == 2
    assert 0 < stats["queue"]["max"] <= elapsed * 1.02
    assert stats["compute"]["max"] <= stats["total"]["max"] * 1.02 <= elapsed * 1.05
    assert stats["compute"]["p50"] <= stats["compute"]["max"]
    assert set(stats["batch_compute"]) == {1}
