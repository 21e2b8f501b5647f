"""What a trace hook is told of requests, and that it disturbs nobody."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_for_queue, wait_until

import trtinfer
from trtinfer.trace import RequestTrace

ONE = np.float32(1)
WHO = contextvars.ContextVar("who", default="nobody")


@contextmanager
def traced(model: bytes, **options: object) -> Iterator[tuple[trtinfer.Session, list]]:
    """A session and the traces of its requests, which are complete when it is closed."""
    traces: list[RequestTrace] = []
    with trtinfer.Session(model, trace=traces.extend, **options) as session:
        yield session, traces


def trace_threads() -> int:
    return sum(thread.name == "trtinfer-trace" for thread in threading.enumerate())


def test_tells_times_and_batch_of_an_answered_request():
    before = time.time_ns()
    with traced(models.slow_model()) as (session, traces):
        session.infer(np.ones(3, np.float32))
    (trace,) = traces
    assert before <= trace.arrival <= trace.launched <= trace.finished <= time.time_ns()
    assert (trace.outcome, trace.samples, trace.batch_size, trace.error) == ("completed", 3, 3, "")


def test_its_times_are_those_of_the_statistics():
    with traced(models.slow_model(), max_inflight=1) as (session, traces):
        keep_busy(session)
        session.infer(ONE)
        total = session.stats()["total"]
    waited = [trace.launched - trace.arrival for trace in traces]
    assert waited[1] > waited[0]
    sum_of_traces = sum(trace.finished - trace.arrival for trace in traces) * 1e-9
    assert sum_of_traces == pytest.approx(total["mean"] * 2, rel=1e-3)


def test_requests_of_a_batch_tell_its_size():
    with traced(models.slow_model(), max_batch_size=8, max_inflight=1) as (session, traces):
        keep_busy(session)
        futures = [session.submit(x) for x in (ONE, np.ones(2, np.float32), ONE)]
        wait_for_queue(session, 4)
    assert all(future.done() for future in futures)
    assert [(trace.samples, trace.batch_size) for trace in traces[1:]] == [(1, 4), (2, 4), (1, 4)]
    assert len({trace.launched for trace in traces[1:]}) == 1


def test_a_request_of_several_batches_is_told_once():
    with traced(models.slow_model(), max_batch_size=4) as (session, traces):
        session.infer(np.ones(10, np.float32))
    (trace,) = traces
    assert trace.samples == 10
    assert trace.batch_size in (2, 4)


def test_every_ending_is_told_under_its_own_name():
    hook: list[RequestTrace] = []
    session = trtinfer.Session(
        models.slow_model(), max_batch_size=1, max_inflight=1, capacity=4, trace=hook.extend
    )
    keep_busy(session)
    expired, cancelled, closed = (session.submit(ONE, timeout=t) for t in (0.0, None, None))
    assert cancelled.cancel()
    with pytest.raises(trtinfer.DeadlineExceededError):
        expired.result(PATIENCE)
    session.close(drain=False)
    with pytest.raises(trtinfer.ClosedError):
        closed.result(PATIENCE)
    outcomes = {trace.outcome: trace for trace in hook}
    assert sorted(outcomes) == ["cancelled", "closed", "completed", "expired"]
    assert len(hook) == 4
    for trace in hook:
        launched = trace.outcome == "completed"
        assert (trace.launched is not None, trace.batch_size) == (launched, int(launched))
        assert trace.finished >= trace.arrival


def test_a_failure_tells_what_the_backend_said():
    with traced(models.gather_model()) as (session, traces):
        with pytest.raises(trtinfer.BackendError):
            session.infer(np.int64(99))
        session.infer(np.int64(1))
    assert [trace.outcome for trace in traces] == ["failed", "completed"]
    assert "99" in traces[0].error
    assert traces[1].error == ""


def test_refused_requests_are_not_told():
    with traced(models.slow_model(), max_batch_size=1, capacity=1) as (session, traces):
        keep_busy(session)
        with pytest.raises(trtinfer.QueueFullError):
            session.submit(ONE)
        with pytest.raises(trtinfer.InputError):
            session.submit("nothing")
    assert len(traces) == 1


# --- The caller's context ------------------------------------------------------------------------


def ask_every_way(session: trtinfer.Session, x: object) -> int:
    """Asks in every way of a session without images; returns how many requests that were."""
    futures = [session.submit(x), *session.submit_many([x, x])]
    session.infer(x)
    session.infer_many([x, x])
    with session.claim() as slot:
        slot.inputs[session.inputs[0].name][...] = x
        futures.append(slot.publish())
    for future in futures:
        future.result(PATIENCE)
    asyncio.run(session.ainfer(x))
    return 8


def test_brings_the_context_of_every_caller():
    with traced(models.slow_model()) as (session, traces):
        WHO.set("me")
        count = ask_every_way(session, ONE)
        WHO.set("nobody")
    assert [trace.context[WHO] for trace in traces] == ["me"] * count


def test_brings_the_context_of_each_task():
    async def ask(session: trtinfer.Session, who: str) -> None:
        WHO.set(who)
        await session.ainfer(ONE)

    async def ask_all(session: trtinfer.Session) -> None:
        await asyncio.gather(*(ask(session, f"task {i}") for i in range(9)))

    with traced(models.slow_model()) as (session, traces):
        asyncio.run(ask_all(session))
    assert sorted(trace.context[WHO] for trace in traces) == [f"task {i}" for i in range(9)]


def test_brings_the_context_of_tasks_whose_images_are_decoded_on_a_thread(tmp_path):
    image = np.zeros((300, 300, 3), np.uint8)
    model = models.image_model(224)

    async def ask(session: trtinfer.Session) -> None:
        WHO.set("painter")
        await session.ainfer(image)

    with traced(model, preprocess="torchvision") as (session, traces):
        asyncio.run(ask(session))
        contextvars.copy_context().run(lambda: (WHO.set("other"), session.infer(image)))
    assert [trace.context[WHO] for trace in traces] == ["painter", "other"]


def test_brings_the_context_with_values_that_are_no_tensors():
    with traced(models.string_model()) as (session, traces):
        WHO.set("writer")
        session.infer(np.array(["a"], object))
        session.submit(np.array(["a"], object)).result(PATIENCE)
        WHO.set("nobody")
    assert [trace.context[WHO] for trace in traces] == ["writer"] * 2


# --- The hook disturbs nobody --------------------------------------------------------------------


def test_without_a_hook_there_is_no_thread():
    with trtinfer.Session(models.slow_model()) as session:
        session.infer(ONE)
        assert trace_threads() == 0
        assert session.stats()["traces_dropped"] == 0


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_hook_that_raises_is_called_again(error, caplog):
    called: list[int] = []

    def hook(traces: object) -> None:
        called.append(len(traces))
        raise error("the hook")

    with trtinfer.Session(models.slow_model(), trace=hook) as session:
        for n in range(1, 4):
            assert session.infer(ONE)["y"] == 2
            wait_until(lambda n=n: sum(called) == n)
    assert "the trace hook failed" in caplog.text


def test_a_slow_hook_holds_nobody_up_and_its_losses_are_counted():
    go_on = threading.Event()
    told: list[int] = []

    def hook(traces: list) -> None:
        told.append(len(traces))
        go_on.wait(PATIENCE)

    xs = [np.ones(256, np.float32)] * 35_000
    with trtinfer.Session(models.matmul_model(), trace=hook) as session:
        session.infer(xs[0])
        wait_until(lambda: told)
        for _ in range(2):
            assert len(session.infer_many(xs)) == len(xs)
        dropped = session.stats()["traces_dropped"]
        go_on.set()
    assert dropped > 0
    assert sum(told) + dropped == 2 * len(xs) + 1


def test_the_hook_is_called_rarely():
    calls: list[int] = []
    with trtinfer.Session(models.matmul_model(), trace=lambda t: calls.append(len(t))) as session:
        started = time.monotonic()
        for _ in range(2000):
            session.infer(np.ones(256, np.float32))
        seconds = time.monotonic() - started
    assert sum(calls) == 2000
    assert len(calls) <= 2 + seconds / 0.01


def test_the_hook_may_close_its_session():
    closed = threading.Event()
    sessions: list[trtinfer.Session] = []

    def hook(traces: object) -> None:
        sessions[0].close()
        closed.set()

    sessions.append(trtinfer.Session(models.slow_model(), trace=hook))
    sessions[0].infer(ONE)
    assert closed.wait(PATIENCE)
    wait_until(lambda: trace_threads() == 0)


def test_traces_leave_nothing_behind():
    gc.collect()
    before = trtinfer._core.live_objects()
    with traced(models.slow_model(), max_inflight=1) as (session, traces):
        for _ in range(50):
            ask_every_way(session, ONE)
        keep_busy(session)
        future = session.submit(ONE)
        future.cancel()
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    traces.clear()
    del session, future
    gc.collect()
    wait_until(lambda: trtinfer._core.live_objects() == before)
    assert trace_threads() == 0


def test_a_forgotten_session_ends_its_thread():
    session = trtinfer.Session(models.slow_model(), trace=lambda traces: None)
    session.infer(ONE)
    assert trace_threads() == 1
    del session
    gc.collect()
    wait_until(lambda: trace_threads() == 0)


def test_a_forked_child_may_forget_a_traced_session():
    with trtinfer.Session(models.slow_model(), trace=lambda traces: None) as session:
        session.infer(ONE)
        child = os.fork()
        if child == 0:
            session.close()
            os._exit(0)
        end = time.monotonic() + PATIENCE
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert session.infer(ONE)["y"] == 2
