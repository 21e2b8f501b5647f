"""Closing, forgetting, forking and ending the process, at any time."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from concurrent.futures import CancelledError, wait
from pathlib import Path

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_until

import trtinfer

ONE = np.array(1, np.float32)


def open_slow(**options) -> trtinfer.Session:
    return trtinfer.Session(models.slow_model(), max_batch_size=2, max_inflight=1, **options)


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


# --- The end of the process ----------------------------------------------------------------------

PRELUDE = """
import asyncio, faulthandler, sys, threading, time
import numpy as np
import models, trtinfer
from waiting import keep_busy, wait_until
faulthandler.dump_traceback_later(40, exit=True)
ONE = np.array(1, np.float32)
BUSY = np.array(models.BUSY, np.float32)
session = trtinfer.Session(models.slow_model(), max_batch_size=2, max_inflight=1)
"""

ENDINGS = {
    "idle": "",
    "used": "session.infer(ONE); session.submit(ONE).result()",
    "pending futures": "keep_busy(session); futures = [session.submit(ONE) for _ in range(9)]",
    "futures with timeouts": "f = [session.submit(BUSY, timeout=99) for _ in range(9)]",
    "a claimed slot": "slot = session.claim(); view = slot.inputs['x']",
    "an error": "keep_busy(session); future = session.submit(ONE); raise SystemExit(0)",
    "a reference cycle": "session.itself = session; keep_busy(session)",
    "threads in infer": """
        for _ in range(8):
            threading.Thread(target=session.infer, args=(BUSY,), daemon=True).start()
        wait_until(lambda: session.stats()["queue_length"] >= 4)
        """,
    "threads that go on and on": """
        def forever():
            while True:
                try:
                    session.infer(ONE)
                except trtinfer.ClosedError:
                    time.sleep(0)
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        wait_until(lambda: session.stats()["completed"] > 100)
        """,
    "threads that open and close": """
        def forever():
            while True:
                trtinfer.Session(models.slow_model(), intra_op_threads=1).close()
        opened = [trtinfer.Session(models.slow_model()) for _ in range(8)]
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.1)
        """,
    "threads that wait for room": """
        slots = [session.claim() for _ in range(1024)]
        for _ in range(4):
            threading.Thread(target=session.claim, kwargs={"timeout": 99}, daemon=True).start()
        time.sleep(0.01)
        """,
    "a loop in a thread": """
        async def forever():
            while True:
                await asyncio.gather(*(session.ainfer(ONE) for _ in range(8)))
        threading.Thread(target=lambda: asyncio.run(forever()), daemon=True).start()
        wait_until(lambda: session.stats()["completed"] > 100)
        """,
    "a loop left open": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(session.ainfer(ONE))
        task = loop.create_task(session.ainfer(BUSY))
        loop.run_until_complete(asyncio.sleep(0))
        """,
    "an executor": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(4)
        futures = [pool.submit(session.infer, BUSY) for _ in range(4)]
        """,
    "a callback under way": """
        future = keep_busy(session)
        future.add_done_callback(lambda _: time.sleep(0.2))
        future.result()
        """,
    "strings": """
        strings = trtinfer.Session(models.string_model())
        futures = [strings.submit(np.array(["a"] * 9, object)) for _ in range(99)]
        """,
}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_without_close(ending):
    process = run_python(ENDINGS[ending])
    noise = [line for line in process.stderr.splitlines() if "was never awaited" not in line]
    if ending == "a loop left open":
        noise = []  # asyncio complains of the task, rightly
    elif ending in ("threads in infer", "threads that wait for room", "a loop in a thread"):
        noise = [line for line in noise if "terminate" in line or "Fatal" in line]  # ClosedErrors
    assert process.returncode == 0, process.stderr
    assert noise == []


# --- Forks ---------------------------------------------------------------------------------------


def in_forked_child(check) -> int:
    """The exit status of a child in which `check` ran; 99 if it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, from Python 3.12 on
        pid = os.fork()
    if pid == 0:
        status = 99
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child did not end")


@pytest.fixture
def forked_session():
    """Has every thread that a session can have, and work under way."""
    with open_slow() as session:
        session.submit(ONE, timeout=60).result(PATIENCE)
        yield session
        assert session.infer(ONE)["y"] == 2  # the parent goes on


def test_a_child_is_refused_with_a_clear_error(forked_session):
    def check() -> None:
        for ask in (forked_session.infer, forked_session.submit):
            with pytest.raises(trtinfer.ClosedError, match="fork"):
                ask(ONE)
        with pytest.raises(trtinfer.ClosedError, match="fork"):
            forked_session.claim()

    keep_busy(forked_session)
    assert in_forked_child(check) == 0


def test_a_child_may_close_and_forget_what_it_inherits():
    def check() -> None:
        nonlocal session, futures, slot
        futures[1].cancel()
        slot.release()
        session.close()
        session = futures = slot = None
        gc.collect()

    session = open_slow()
    slot = session.claim()
    futures = [keep_busy(session), session.submit(ONE), session.submit(ONE, timeout=60)]
    assert in_forked_child(check) == 0
    slot.release()
    assert [float(future.result(PATIENCE)["y"]) for future in futures[1:]] == [2, 2]
    session.close()


def test_a_child_opens_its_own_session(forked_session):
    def check() -> None:
        with open_slow() as session:
            assert session.infer(ONE)["y"] == 2
            assert session.submit(ONE).result(PATIENCE)["y"] == 2

    assert in_forked_child(check) == 0


def use_in_child(session: trtinfer.Session) -> None:
    with pytest.raises(trtinfer.ClosedError, match="fork"):
        session.infer(ONE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_multiprocessing_ends_cleanly(forked_session):
    keep_busy(forked_session)
    child = multiprocessing.get_context("fork").Process(target=use_in_child, args=(forked_session,))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0


def test_a_child_that_leaves_through_the_interpreter_ends_cleanly():
    process = run_python(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        faulthandler.cancel_dump_traceback_later()  # its thread would be missing in the child
        futures = [keep_busy(session), session.submit(ONE, timeout=60)]
        pid = os.fork()
        if pid == 0:
            try:
                session.infer(ONE)
            except trtinfer.ClosedError:
                sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert futures[1].result()["y"] == 2
        """
    )
    assert (process.returncode, process.stderr) == (0, "")
