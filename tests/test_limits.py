"""Capacity, timeouts, cancelling, and the counters that add up."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import CancelledError, wait

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_for_queue, wait_until

import trtinfer

ONE = np.float32(1)


@pytest.fixture
def session():
    """Holds 4 requests, runs batches of 2, one at a time."""
    with trtinfer.Session(
        models.slow_model(), max_batch_size=2, capacity=4, max_inflight=1
    ) as session:
        yield session
        wait_until(lambda: session.stats()["free_slots"] == 4)
        wait_until(lambda: session.stats()["batches_in_flight"] == 0)
        check_counters(session.stats())


def check_counters(stats: trtinfer.metrics.Stats) -> None:
    """Every accepted request ended in exactly one way."""
    ended = ("completed", "failed", "expired", "cancelled", "closed")
    assert stats["accepted"] == sum(stats[name] for name in ended)
    assert stats["queue_length"] == stats["batches_in_flight"] == 0
    sizes = stats["batch_sizes"]
    assert stats["batches"] == sum(sizes.values())
    assert stats["samples"] == sum(size * count for size, count in sizes.items())


def fill(session: trtinfer.Session) -> list:
    """Fills the ring of the fixture: one request runs, three wait."""
    return [keep_busy(session), *(session.submit(ONE) for _ in range(3))]


# --- Capacity ------------------------------------------------------------------------------------


def test_refuses_when_full_and_at_once(session):
    futures = fill(session)
    started = time.monotonic()
    for ask in (session.infer, session.submit):
        with pytest.raises(trtinfer.QueueFullError, match=r"4 of 4 slots.*timeout=.*capacity="):
            ask(ONE)
    with pytest.raises(trtinfer.QueueFullError):
        session.claim()
    assert time.monotonic() - started < 5
    assert not futures[0].done()
    stats = session.stats()
    assert (stats["rejected"], stats["accepted"]) == (3, 4)
    assert [future.result(PATIENCE)["y"] for future in futures[1:]] == [2, 2, 2]


@pytest.mark.parametrize("way", ["infer", "submit", "claim"])
def test_waits_for_room_up_to_its_timeout(session, way):
    fill(session)
    if way == "claim":
        slot = session.claim(timeout=PATIENCE)
        slot.inputs["x"][...] = 5
        y = slot.infer()["y"]
    elif way == "submit":
        y = session.submit(np.float32(5), timeout=PATIENCE).result()["y"]
    else:
        y = session.infer(np.float32(5), timeout=PATIENCE)["y"]
    assert y == 10
    assert session.stats()["rejected"] == 0


def test_gives_up_when_no_room_comes_in_time(session):
    futures = [keep_busy(session, models.VERY_BUSY), *(session.submit(ONE) for _ in range(3))]
    for ask in (session.infer, session.submit):
        started = time.monotonic()
        with pytest.raises(trtinfer.QueueFullError):
            ask(ONE, timeout=0.02)
        assert time.monotonic() - started >= 0.02
    assert not futures[0].done()
    assert session.stats()["rejected"] == 2


def test_a_request_that_needs_more_than_is_free_is_refused_whole(session):
    keep_busy(session)
    futures = [session.submit(ONE)]
    with pytest.raises(trtinfer.QueueFullError):
        session.submit(np.ones(4, np.float32))
    assert session.stats()["free_slots"] == 2
    assert futures[0].result(PATIENCE)["y"] == 2


def test_room_goes_to_every_waiter_in_the_end(session):
    results: list[float] = []

    def infer(i: int) -> None:
        results.append(float(session.infer(np.float32(i), timeout=PATIENCE)["y"]))

    keep_busy(session)
    threads = [threading.Thread(target=infer, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(results) == [2 * i for i in range(16)]


# --- Timeouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, PATIENCE, 1e30, float("inf")])
def test_a_timeout_that_is_not_reached_changes_nothing(session, timeout):
    assert session.infer(ONE, timeout=timeout)["y"] == 2
    assert session.submit(ONE, timeout=timeout).result(PATIENCE)["y"] == 2


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, float("nan")])
def test_a_timeout_of_nothing_expires_at_once(session, timeout):
    busy = keep_busy(session)
    with pytest.raises(trtinfer.DeadlineExceededError):
        session.submit(ONE, timeout=timeout).result(PATIENCE)
    with pytest.raises(trtinfer.DeadlineExceededError):
        session.infer(ONE, timeout=timeout)
    assert not busy.done()
    assert session.stats()["expired"] == 2


def test_waiting_requests_expire_while_a_batch_runs(session):
    busy = keep_busy(session, models.VERY_BUSY)
    started = time.monotonic()
    future = session.submit(ONE, timeout=0.02)
    with pytest.raises(trtinfer.DeadlineExceededError, match=r"0\.02 s"):
        session.infer(ONE, timeout=0.02)
    with pytest.raises(trtinfer.DeadlineExceededError, match=r"0\.02 s"):
        future.result(PATIENCE)
    assert time.monotonic() - started >= 0.02
    assert not busy.done()
    stats = session.stats()
    assert (stats["expired"], stats["free_slots"]) == (2, 3)


def test_expired_requests_never_run(session):
    busy = keep_busy(session)
    expired = [session.submit(ONE, timeout=0.0) for _ in range(3)]
    wait(expired, PATIENCE)
    busy.result(PATIENCE)
    assert session.infer(ONE)["y"] == 2
    assert session.stats()["samples"] == 2


def test_a_timeout_ends_the_wait_for_a_batch_that_runs(session):
    started = time.monotonic()
    with pytest.raises(trtinfer.DeadlineExceededError):
        session.infer(np.float32(models.VERY_BUSY), timeout=0.03)
    assert session.stats()["batches_in_flight"] == 1  # it cannot be interrupted
    assert time.monotonic() - started >= 0.03
    wait_until(lambda: session.stats()["batches_in_flight"] == 0)
    stats = session.stats()
    assert (stats["expired"], stats["completed"]) == (1, 0)


def test_the_wait_for_room_counts_towards_the_timeout(session):
    futures = fill(session)
    with pytest.raises((trtinfer.DeadlineExceededError, trtinfer.QueueFullError)):
        session.infer(np.float32(4 * models.VERY_BUSY), timeout=0.3)
    wait(futures, PATIENCE)
    stats = session.stats()
    assert stats["expired"] + stats["rejected"] == 1


def test_a_large_request_that_expires_between_its_parts_ends_once(session):
    with pytest.raises(trtinfer.DeadlineExceededError):
        session.infer(np.full(11, models.BUSY, np.float32), timeout=0.05)
    wait_until(lambda: session.stats()["free_slots"] == 4)
    stats = session.stats()
    assert (stats["accepted"], stats["expired"], stats["completed"]) == (1, 1, 0)
    assert session.infer(ONE)["y"] == 2


def test_thousands_of_timeouts_leave_nothing_behind():
    gc.collect()
    before = trtinfer._core.live_objects()
    with trtinfer.Session(models.slow_model(), max_batch_size=64, capacity=4096) as session:
        for _ in range(3):
            futures = [session.submit(ONE, timeout=60) for _ in range(1500)]
            for future in futures:
                assert future.result(PATIENCE)["y"] == 2
            del futures, future
        wait_until(lambda: trtinfer._core.live_objects()["requests"] <= before["requests"])
    del session
    gc.collect()
    assert trtinfer._core.live_objects() == before


def test_deadline_errors_are_timeout_errors(session):
    keep_busy(session)
    with pytest.raises(TimeoutError):
        session.infer(ONE, timeout=0)


# --- Cancelling ----------------------------------------------------------------------------------


def test_cancel_before_launch_takes_the_request_back(session):
    busy = keep_busy(session)
    future = session.submit(ONE)
    assert session.stats()["free_slots"] == 2
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert not future.running()
    stats = session.stats()
    assert (stats["cancelled"], stats["free_slots"], stats["queue_length"]) == (1, 3, 0)
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    assert busy.result(PATIENCE)["y"] == 2 * models.BUSY
    assert session.infer(ONE)["y"] == 2
    assert session.stats()["samples"] == 2


def test_cancel_after_launch_comes_too_late(session):
    busy = keep_busy(session)
    assert busy.running()
    assert not busy.cancel()
    assert busy.running()
    assert busy.result(PATIENCE)["y"] == 2 * models.BUSY
    assert not busy.cancel()
    assert not busy.cancelled()
    assert not busy.running()
    assert session.stats()["cancelled"] == 0


def test_cancelled_futures_call_back_and_wake_waiters(session):
    keep_busy(session)
    future = session.submit(ONE)
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    future.cancel()
    assert called.wait(PATIENCE)
    assert wait([future], PATIENCE).done == {future}


def test_cancel_races_with_the_batch_and_one_of_them_wins(session):
    cancelled = completed = 0
    for _ in range(300):
        future = session.submit(ONE)
        if future.cancel():
            cancelled += 1
            assert future.cancelled()
            with pytest.raises(CancelledError):
                future.result(PATIENCE)
        else:
            completed += 1
            assert future.result(PATIENCE)["y"] == 2
    stats = session.stats()
    assert (stats["cancelled"], stats["completed"]) == (cancelled, completed)


def test_part_of_a_split_request_cannot_be_cancelled_alone(session):
    future = session.submit(np.full(4, models.BUSY, np.float32))
    wait_until(future.running)
    assert future.cancel()  # its second half is not launched yet
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    wait_until(lambda: session.stats()["batches_in_flight"] == 0)
    stats = session.stats()
    assert (stats["cancelled"], stats["completed"], stats["samples"]) == (1, 0, 2)


# --- Counters ------------------------------------------------------------------------------------


WAYS = ["infer", "submit", "ainfer", "infer_many", "submit_many"]


def ask(session: trtinfer.Session, way: str, x: np.ndarray, timeout: float | None = None) -> None:
    """Asks in one of the ways and raises what comes of it."""
    if way == "infer":
        session.infer(x, timeout)
    elif way == "ainfer":
        asyncio.run(session.ainfer(x, timeout))
    elif way == "infer_many":
        session.infer_many([x], timeout)
    elif way == "submit_many":
        session.submit_many([x], timeout)[0].result(PATIENCE)
    else:
        session.submit(x, timeout).result(PATIENCE)


@pytest.mark.parametrize("timeout", [None, 0.01])
@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_for_lack_of_room_is_counted_once(way, timeout):
    with trtinfer.Session(
        models.slow_model(), max_batch_size=1, capacity=1, max_inflight=1
    ) as session:
        busy = keep_busy(session, models.VERY_BUSY)
        with pytest.raises(trtinfer.QueueFullError):
            ask(session, way, ONE, timeout)
        assert not busy.done()
        stats = session.stats()
    assert (stats["rejected"], stats["invalid"], stats["accepted"]) == (1, 0, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", ["dtype", "shape", "arena"])
def test_a_refusal_of_a_bad_request_is_counted_once(way, bad):
    x = {
        "dtype": np.ones(3, np.float64),
        "shape": np.ones((1, 2, 3), np.float32),
        "arena": np.ones(1 << 16, np.float32),
    }[bad]
    with trtinfer.Session(models.varying_model(), arena_bytes=1 << 16) as session:
        for count in (1, 2):
            with pytest.raises(trtinfer.InputError):
                ask(session, way, x)
            stats = session.stats()
            assert (stats["invalid"], stats["rejected"], stats["accepted"]) == (count, 0, 0)


def test_every_ending_is_counted_under_its_own_name():
    session = trtinfer.Session(models.slow_model(), max_batch_size=1, capacity=5, max_inflight=1)
    futures = [keep_busy(session)]
    futures += [session.submit(ONE), session.submit(ONE), session.submit(ONE, timeout=0.0)]
    futures[1].cancel()
    wait_until(futures[3].done)
    with pytest.raises(trtinfer.InputError):
        session.submit("nothing")
    futures += [session.submit(ONE) for _ in range(2)]
    wait_for_queue(session, 3)
    session.claim().release()
    futures.append(session.submit(ONE))
    with pytest.raises(trtinfer.QueueFullError):
        session.submit(ONE)
    session.close(drain=False)
    with pytest.raises(trtinfer.ClosedError):
        session.submit(ONE)
    stats = session.stats()
    check_counters(stats)
    names = ("accepted", "completed", "expired", "cancelled", "closed", "rejected", "invalid")
    assert [stats[name] for name in names] == [7, 1, 1, 1, 4, 1, 1]
    wait(futures, PATIENCE)
