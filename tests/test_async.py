"""Sessions in asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import threading
import time

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_until

import trtinfer

ONE = np.array(1, np.float32)
BUSY = np.array(models.BUSY, np.float32)


@pytest.fixture
def session():
    with trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1) as session:
        yield session


@pytest.fixture
def tiny():
    """Holds 2 requests and runs one at a time."""
    with trtinfer.Session(
        models.slow_model(), max_batch_size=1, capacity=2, max_inflight=1
    ) as session:
        yield session


async def until(condition) -> None:
    """`wait_until` that lets the loop run."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        await asyncio.sleep(0.001)


async def infer_all(session: trtinfer.Session, count: int) -> list[float]:
    xs = np.arange(count, dtype=np.float32)
    outputs = await asyncio.gather(*(session.ainfer(xs[i, ...]) for i in range(count)))
    return [float(output["y"]) for output in outputs]


def doubled(count: int) -> list[int]:
    return [2 * i for i in range(count)]


# --- Answers -------------------------------------------------------------------------------------


def test_answers_one_request(session):
    async def main() -> None:
        outputs = await session.ainfer(ONE)
        assert list(outputs) == ["y"]
        assert outputs["y"] == 2
        assert outputs["y"].shape == ()

    asyncio.run(main())


def test_answers_many_tasks(session):
    assert asyncio.run(infer_all(session, 500)) == doubled(500)
    stats = session.stats()
    assert stats["completed"] == 500
    assert max(stats["batch_sizes"]) == 8


def test_requests_of_one_turn_share_a_batch(session):
    assert asyncio.run(infer_all(session, 8)) == doubled(8)
    assert session.stats()["batch_sizes"] == {8: 1}


def test_takes_everything_that_infer_takes():
    async def main() -> None:
        with trtinfer.Session(models.several_model(), max_batch_size=4) as session:
            a, b = np.ones((9, 4), np.float32), np.ones((9, 2), np.int64)
            outputs = await session.ainfer({"a": a, "b": b})
            assert outputs["joined"].shape == (9, 6)
            outputs = await session.ainfer({"a": [1, 2, 3, 4], "b": [5, 6]})  # to be converted
            assert outputs["total"] == 11
        with trtinfer.Session(models.slow_model()) as session:
            assert (await session.ainfer(np.float32(4)))["y"] == 8
        with trtinfer.Session(models.string_model()) as session:
            outputs = await session.ainfer(np.array(["dog"], object))
            assert list(outputs["y"]) == ["DOG"]

    asyncio.run(main())


@pytest.mark.parametrize("turns", [1, models.BUSY])
def test_a_timeline_tells_when_a_request_reached_each_stage(session, turns):
    """Also where the answer is there before the request's future is known to be its."""

    async def main() -> None:
        timeline, begin = trtinfer.Timeline(), time.monotonic_ns()
        await session.ainfer(turns if turns == 1 else BUSY, timeline=timeline)
        end = time.monotonic_ns()
        assert begin <= timeline.arrival <= timeline.launch < timeline.completion <= end

    asyncio.run(main())


def test_futures_of_submit_can_be_awaited(session):
    async def main() -> None:
        outputs = await session.submit(ONE)
        assert outputs["y"] == 2
        first, second = await asyncio.gather(session.submit(ONE), session.submit(ONE))
        assert first["y"] == second["y"] == 2
        keep_busy(session)
        with pytest.raises(trtinfer.DeadlineExceededError):
            await session.submit(ONE, timeout=0.0)

    asyncio.run(main())


def test_claimed_slots_can_be_awaited(session):
    async def main() -> None:
        with session.claim() as slot:
            slot.inputs["x"][...] = 3
            outputs = await slot.publish()
        assert outputs["y"] == 6

    asyncio.run(main())


def test_the_loop_runs_on_while_a_batch_runs(session):
    async def main() -> None:
        task = asyncio.ensure_future(session.ainfer(BUSY))
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert turns > 10
        assert (await task)["y"] == 2 * models.BUSY

    asyncio.run(main())


class CountingSelector(selectors.DefaultSelector):
    """Counts how often a session's descriptor woke the loop."""

    wakes = 0

    def select(self, timeout=None):
        ready = super().select(timeout)
        for key, _ in ready:
            reader = key.data[0]
            owner = getattr(getattr(reader, "_callback", None), "__self__", None)
            self.wakes += type(owner).__module__ == "trtinfer._core"
        return ready


def test_the_loop_is_woken_once_per_batch(session):
    selector = CountingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        assert loop.run_until_complete(infer_all(session, 64)) == doubled(64)
    finally:
        loop.close()
    assert 1 <= selector.wakes <= session.stats()["batches"] <= 9


# --- Errors --------------------------------------------------------------------------------------


def test_errors_reach_the_task_that_asked():
    async def main() -> None:
        with trtinfer.Session(models.gather_model(), max_batch_size=4) as session:
            good, bad, late = await asyncio.gather(
                session.ainfer(np.int64(3)),
                session.ainfer(np.int64(99)),
                session.ainfer(np.int64(3), timeout=0.0),
                return_exceptions=True,
            )
            np.testing.assert_array_equal(good["row"], models.TABLE[3])
            assert isinstance(bad, trtinfer.BackendError)
            assert isinstance(late, trtinfer.DeadlineExceededError)
            with pytest.raises(trtinfer.InputError, match="float32"):
                await session.ainfer(ONE)
            with pytest.raises(ValueError, match="99"):
                await session.ainfer(np.int64(3), priority=99)
            stats = session.stats()
            assert (stats["failed"], stats["expired"], stats["invalid"]) == (1, 1, 1)

    asyncio.run(main())


def test_a_timeout_counts_from_arrival(session):
    async def main() -> None:
        busy = keep_busy(session)
        started = time.monotonic()
        with pytest.raises(trtinfer.DeadlineExceededError):
            await session.ainfer(ONE, timeout=0.03)
        assert time.monotonic() - started >= 0.03
        assert not busy.done()

    asyncio.run(main())


def test_a_full_ring_refuses_at_once(tiny):
    async def main() -> None:
        keep_busy(tiny)
        task = asyncio.ensure_future(tiny.ainfer(ONE))
        await asyncio.sleep(0)
        with pytest.raises(trtinfer.QueueFullError):
            await tiny.ainfer(ONE)
        assert tiny.stats()["rejected"] == 1
        assert (await task)["y"] == 2

    asyncio.run(main())


def test_waiting_for_room_does_not_block_the_loop(tiny):
    async def main() -> None:
        busy = keep_busy(tiny)
        tasks = [
            asyncio.ensure_future(tiny.ainfer(np.array(i, np.float32), timeout=PATIENCE))
            for i in range(20)
        ]
        turns = 0
        while not busy.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert turns > 10
        assert [float(output["y"]) for output in await asyncio.gather(*tasks)] == doubled(20)
        assert tiny.stats()["rejected"] == 0

    asyncio.run(main())


def test_time_in_the_line_for_room_counts(tiny):
    """More callers wait for room than the loop has threads to wait in: all give up in time."""

    async def main() -> None:
        busy = keep_busy(tiny, models.VERY_BUSY)
        tiny.submit(ONE)
        outcomes = await asyncio.gather(
            *(tiny.ainfer(ONE, timeout=0.05) for _ in range(100)), return_exceptions=True
        )
        assert not busy.done()
        assert {type(outcome) for outcome in outcomes} == {trtinfer.QueueFullError}

    asyncio.run(main())


# --- Cancelling ----------------------------------------------------------------------------------


def test_cancelling_a_task_takes_its_request_back(session):
    async def main() -> None:
        busy = keep_busy(session)
        tasks = [asyncio.ensure_future(session.ainfer(ONE)) for _ in range(4)]
        await until(lambda: session.stats()["queue_length"] == 4)
        for task in tasks[:3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:3]] == [asyncio.CancelledError] * 3
        assert outcomes[3]["y"] == 2
        busy.result(PATIENCE)  # its future ends on a thread of its own
        stats = session.stats()
        assert (stats["cancelled"], stats["samples"]) == (3, 2)

    asyncio.run(main())


def test_a_task_may_be_cancelled_while_its_batch_runs(session):
    async def main() -> None:
        task = asyncio.ensure_future(session.ainfer(BUSY))
        await until(lambda: session.stats()["batches_in_flight"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.ainfer(ONE))["y"] == 2
        stats = session.stats()
        assert (stats["cancelled"], stats["completed"]) == (0, 2)

    asyncio.run(main())


def test_a_task_may_be_cancelled_while_it_waits_for_room(tiny):
    async def main() -> None:
        keep_busy(tiny)
        other = asyncio.ensure_future(tiny.ainfer(ONE))
        await asyncio.sleep(0)
        task = asyncio.ensure_future(tiny.ainfer(ONE, timeout=PATIENCE))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await other)["y"] == 2

    asyncio.run(main())
    wait_until(lambda: tiny.stats()["free_slots"] == 2)


def test_wait_for_ends_in_time(session):
    async def main() -> None:
        keep_busy(session)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.ainfer(ONE), 0.02)
        assert session.stats()["cancelled"] == 1

    asyncio.run(main())


# --- Loops ---------------------------------------------------------------------------------------


def test_serves_one_loop_after_another(session):
    for _ in range(20):
        assert asyncio.run(infer_all(session, 9)) == doubled(9)


def test_closed_loops_leave_nothing_behind(session):
    asyncio.run(infer_all(session, 3))
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    requests = trtinfer._core.live_objects()["requests"]
    for _ in range(20):
        asyncio.run(infer_all(session, 3))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
    assert trtinfer._core.live_objects()["requests"] == requests


def test_a_loop_that_ends_with_requests_under_way_leaves_nothing_behind(session):
    requests = trtinfer._core.live_objects()["requests"]

    async def give_up() -> None:
        tasks = [asyncio.ensure_future(session.ainfer(BUSY)) for _ in range(3)]
        await until(lambda: session.stats()["batches_in_flight"] == 1)
        del tasks

    asyncio.run(give_up())  # cancels the tasks, whose requests are launched
    wait_until(lambda: session.stats()["batches_in_flight"] == 0)
    assert asyncio.run(infer_all(session, 3)) == doubled(3)
    asyncio.run(infer_all(session, 1))
    gc.collect()
    assert trtinfer._core.live_objects()["requests"] == requests


def test_serves_loops_in_several_threads(session):
    results: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(infer_all(session, 100))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [doubled(100)] * 4


def test_serves_loops_and_threads_side_by_side(session):
    stop = threading.Event()
    results: list[float] = []

    def infer() -> None:
        while not stop.is_set():
            results.append(float(session.infer(ONE)["y"]))

    thread = threading.Thread(target=infer)
    thread.start()
    try:
        for _ in range(5):
            assert asyncio.run(infer_all(session, 50)) == doubled(50)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert set(results) == {2.0}


# --- Closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [True, False])
def test_close_resolves_the_tasks_of_its_own_loop(drain):
    session = trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1)

    async def main() -> None:
        running = asyncio.ensure_future(session.ainfer(BUSY))
        await until(lambda: session.stats()["batches_in_flight"] == 1)
        waiting = asyncio.ensure_future(session.ainfer(ONE))
        await asyncio.sleep(0)
        session.close(drain=drain)
        assert (await running)["y"] == 2 * models.BUSY
        if drain:
            assert (await waiting)["y"] == 2
        else:
            with pytest.raises(trtinfer.ClosedError):
                await waiting
        with pytest.raises(trtinfer.ClosedError):
            await session.ainfer(ONE)

    asyncio.run(main())


def test_close_in_another_thread_resolves_the_tasks_of_a_loop():
    session = trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1)

    async def main() -> None:
        tasks = [asyncio.ensure_future(session.ainfer(BUSY)) for _ in range(3)]
        await until(lambda: session.stats()["queue_length"] == 2)
        await asyncio.to_thread(session.close, False)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [dict] + [trtinfer.ClosedError] * 2

    asyncio.run(main())


def test_a_closed_session_leaves_its_loop_alone():
    async def main() -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with trtinfer.Session(models.slow_model()) as session:
                assert (await session.ainfer(ONE))["y"] == 2
            del session
            await asyncio.sleep(0)
            gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= descriptors

    asyncio.run(main())
