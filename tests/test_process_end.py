"""The end of a process that has sessions open, and forks of it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, open_slow

import trtinfer

ONE = np.array(1, np.float32)


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
