"""Closing and forgetting sessions, at any time."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, open_slow, wait_until

import trtinfer

ONE = np.array(1, np.float32)


def count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def live_objects() -> dict[str, int]:
    gc.collect()
    return trtinfer._core.live_objects()


# --- Closing -------------------------------------------------------------------------------------


def test_close_with_drain_answers_everything():
    session = open_slow()
    futures = [keep_busy(session), *(session.submit(ONE) for _ in range(20))]
    session.close()
    assert all(future.done() for future in futures)
    assert {float(future.result()["y"]) for future in futures[1:]} == {2.0}
    assert session.stats()["completed"] == 21


def test_close_without_drain_ends_what_is_not_launched():
    session = open_slow()
    futures = [keep_busy(session), *(session.submit(ONE) for _ in range(20))]
    session.close(drain=False)
    assert all(future.done() for future in futures)
    assert futures[0].result()["y"] == 2 * models.BUSY
    for future in futures[1:]:
        with pytest.raises(trtinfer.ClosedError):
            future.result()
    stats = session.stats()
    assert (stats["completed"], stats["closed"]) == (1, 20)


def test_close_may_be_called_again():
    session = open_slow()
    session.infer(ONE)
    for drain in (True, False, True):
        session.close(drain)
        assert session.closed


def test_an_impatient_close_cuts_a_patient_one_short():
    session = open_slow()
    busy = keep_busy(session, models.VERY_BUSY)
    futures = [session.submit(ONE) for _ in range(4)]
    patient = threading.Thread(target=session.close)
    patient.start()
    wait_until(lambda: session.closed)
    session.close(drain=False)
    patient.join(PATIENCE)
    assert busy.result(0)["y"] == 2 * models.VERY_BUSY
    assert {type(future.exception(0)) for future in futures} == {trtinfer.ClosedError}


def test_a_closed_session_refuses_everything():
    session = open_slow()
    session.close()
    with pytest.raises(trtinfer.ClosedError, match="closed"):
        session.infer(ONE)
    with pytest.raises(trtinfer.ClosedError):
        session.submit(ONE)
    with pytest.raises(trtinfer.ClosedError):
        session.claim()
    with pytest.raises(trtinfer.ClosedError):
        session.infer(1.0)  # the slower path, too
    assert session.stats()["accepted"] == 0
    assert session.inputs[0].name == "x"


def test_a_block_closes_its_session():
    with open_slow() as session:
        future = session.submit(ONE)
    assert session.closed
    assert future.result(0)["y"] == 2


def test_a_block_left_by_an_error_does_not_drain():
    with contextlib.suppress(KeyError), open_slow() as session:
        keep_busy(session)
        future = session.submit(ONE)
        raise KeyError
    assert isinstance(future.exception(0), trtinfer.ClosedError)


def test_close_from_a_callback_of_a_future():
    session = open_slow()
    closed = threading.Event()

    def close(_) -> None:
        session.close()
        closed.set()

    busy = keep_busy(session)
    futures = [session.submit(ONE) for _ in range(5)]
    busy.add_done_callback(close)
    assert closed.wait(PATIENCE)
    assert wait(futures, PATIENCE).not_done == set()
    assert {float(future.result()["y"]) for future in futures} == {2.0}


def test_close_while_threads_submit():
    for drain in (True, False):
        session = trtinfer.Session(models.slow_model(), max_batch_size=8, capacity=64)
        futures, endings = [], []
        started = threading.Barrier(5)

        def submit(session=session, futures=futures, endings=endings, started=started) -> None:
            started.wait(PATIENCE)
            try:
                while True:
                    with contextlib.suppress(trtinfer.QueueFullError):
                        futures.append(session.submit(ONE))
            except trtinfer.ClosedError:
                endings.append("closed")

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait(PATIENCE)
        wait_until(lambda futures=futures: len(futures) > 100)
        session.close(drain)
        for thread in threads:
            thread.join(PATIENCE)
        assert endings == ["closed"] * 4
        assert wait(futures, PATIENCE).not_done == set()
        stats = session.stats()
        assert stats["accepted"] == len(futures) == stats["completed"] + stats["closed"]
        assert stats["free_slots"] == 64


def test_close_while_threads_wait_for_answers():
    session = open_slow()
    endings: list[object] = []

    def infer() -> None:
        try:
            endings.append(float(session.infer(ONE)["y"]))
        except trtinfer.ClosedError:
            endings.append("closed")

    keep_busy(session)
    threads = [threading.Thread(target=infer) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: session.stats()["queue_length"] == 6)
    session.close(drain=False)
    for thread in threads:
        thread.join(PATIENCE)
    assert endings == ["closed"] * 6


def test_several_threads_may_close_at_once():
    session = open_slow()
    futures = [keep_busy(session), *(session.submit(ONE) for _ in range(4))]
    threads = [threading.Thread(target=session.close, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert all(future.done() for future in futures)


def test_close_ends_the_threads():
    before = set(os.listdir("/proc/self/task"))
    session = open_slow()
    session.submit(ONE, timeout=60).result(PATIENCE)
    started = set(os.listdir("/proc/self/task")) - before
    assert len(started) >= 3  # lane, completion, timeouts
    session.close()
    wait_until(lambda: not started & set(os.listdir("/proc/self/task")))


# --- Callbacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_harms_no_other_future(error):
    def fail(_) -> None:
        raise error

    with open_slow() as session:
        busy = keep_busy(session)
        busy.add_done_callback(fail)
        others = [session.submit(ONE) for _ in range(3)]
        assert {float(future.result(PATIENCE)["y"]) for future in others} == {2.0}
        assert session.submit(ONE).result(PATIENCE)["y"] == 2


def test_a_callback_may_submit_and_wait():
    answers = []
    with open_slow() as session:

        def again(_) -> None:
            answers.append(float(session.infer(ONE)["y"]))
            session.submit(ONE).add_done_callback(lambda f: answers.append(float(f.result()["y"])))

        session.submit(ONE).add_done_callback(again)
        wait_until(lambda: answers == [2.0, 2.0])


# --- Forgetting ----------------------------------------------------------------------------------


def test_a_forgotten_session_ends_its_threads_and_its_requests():
    before, threads = live_objects(), count_threads()
    session = open_slow()
    reference = weakref.ref(session)
    busy = keep_busy(session)
    waiting = session.submit(ONE)
    del session
    gc.collect()
    assert reference() is None
    assert busy.result(PATIENCE)["y"] == 2 * models.BUSY
    with pytest.raises(trtinfer.ClosedError):
        waiting.result(PATIENCE)
    del busy, waiting
    wait_until(lambda: count_threads() <= threads)
    wait_until(lambda: live_objects() == before)


def test_a_session_in_a_cycle_is_collected():
    before = live_objects()

    class Holder:
        pass

    holder = Holder()
    holder.itself = holder
    holder.session = open_slow()
    holder.future = holder.session.submit(ONE)
    holder.future.add_done_callback(lambda _, holder=holder: None)
    wait_until(holder.future.done)
    del holder
    wait_until(lambda: live_objects() == before)


def test_a_session_may_be_collected_on_a_thread_of_its_own():
    """Objects (strings here) are run with the GIL, so that the collector may run there as well."""
    before = live_objects()
    x = np.array(["dog"] * 64, dtype=object)
    for _ in range(20):

        class Holder:
            pass

        holder = Holder()
        holder.itself = holder
        holder.session = trtinfer.Session(models.string_model())
        holder.futures = [holder.session.submit(x) for _ in range(4)]
        del holder
        thresholds = gc.get_threshold()
        gc.set_threshold(1)
        try:
            time.sleep(0.005)  # lets the lane in; it may finish, or find the garbage
        finally:
            gc.set_threshold(*thresholds)
    wait_until(lambda: live_objects() == before)


@pytest.mark.parametrize("on_own_thread", [False, True])
def test_a_session_is_dropped_while_threads_cannot_end(on_own_thread, monkeypatch):
    """As where the collector runs in threading itself, with the lock that ending threads take."""
    before = live_objects()
    session = open_slow(trace=lambda traces: None)
    session.submit(ONE).result()
    monkeypatch.setattr(trtinfer._core, "on_own_thread", lambda: on_own_thread)
    with threading._active_limbo_lock:
        del session
    wait_until(lambda: live_objects() == before)


@pytest.mark.parametrize("way", ["submit", "infer", "timeout", "cancel", "fail", "claim"])
def test_requests_leave_nothing_behind(way):
    before = live_objects()["requests"]
    with trtinfer.Session(models.gather_model(), max_batch_size=8) as session:
        for i in range(50):
            index = np.array(99 if way == "fail" else i % 10)
            with contextlib.suppress(trtinfer.TrtInferError, CancelledError):
                if way == "infer":
                    session.infer(index)
                elif way == "claim":
                    session.claim().release()
                else:
                    future = session.submit(index, timeout=0.0 if way == "timeout" else None)
                    if way == "cancel":
                        future.cancel()
                    future.result(PATIENCE)
        future = None
        wait_until(lambda: live_objects()["requests"] == before)


def test_opening_and_closing_leaks_no_descriptors_threads_or_memory():
    def once() -> None:
        with trtinfer.Session(models.matmul_model(), max_batch_size=4) as session:
            session.submit(np.zeros(256, np.float32), timeout=60).result(PATIENCE)

    once()
    descriptors, threads, before = count_descriptors(), count_threads(), live_objects()
    for _ in range(200):
        once()
    assert count_descriptors() == descriptors
    wait_until(lambda: count_threads() <= threads)
    assert live_objects() == before
