"""What tasks await in `ainfer`: the protocol of asyncio.Future, and where it differs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy

import trtinfer
from trtinfer import _core

ONE = np.array(1, np.float32)


@pytest.fixture
def session():
    with trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1) as session:
        yield session


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


TASKS = {"C": asyncio.tasks.Task, "Python": asyncio.tasks._PyTask}


@pytest.fixture(params=TASKS)
def task_loop(loop, request):
    """A loop whose tasks are those written in C, or those that debuggers and old code may use."""
    kind = TASKS[request.param]
    loop.set_task_factory(lambda loop, coro, **options: kind(coro, loop=loop, **options))
    return loop


async def ask(session: trtinfer.Session, x: int) -> float:
    return float((await session.ainfer(np.array(x, np.float32)))["y"])


def test_tasks_of_any_kind_get_answers(session, task_loop):
    async def main() -> list[float]:
        return await asyncio.gather(*(ask(session, x) for x in range(20)))

    assert task_loop.run_until_complete(main()) == [2 * x for x in range(20)]


def test_errors_reach_tasks_of_any_kind(task_loop):
    async def main() -> None:
        session.close()
        await session.ainfer(ONE)

    with trtinfer.Session(models.slow_model()) as session, pytest.raises(trtinfer.ClosedError):
        task_loop.run_until_complete(main())


def test_every_task_goes_on_in_its_own_context(session, task_loop):
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def call(x: int) -> tuple[float, int]:
        variable.set(x)
        first = await ask(session, x)
        variable.set(variable.get() + 100)
        return first + await ask(session, x), variable.get()

    async def main() -> list[tuple[float, int]]:
        return await asyncio.gather(*(call(x) for x in range(8)))

    assert task_loop.run_until_complete(main()) == [(4 * x, x + 100) for x in range(8)]


def test_tasks_of_one_batch_go_on_in_the_order_of_their_requests(session, loop):
    order = []

    async def call(x: int) -> None:
        await ask(session, x)
        order.append(x)

    async def main() -> None:
        await asyncio.gather(*(call(x) for x in range(8)))

    loop.run_until_complete(main())
    assert order == list(range(8))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_task_that_ends_the_loop_takes_no_answer_from_the_others(session, loop, error):
    async def call(x: int) -> float:
        answer = await ask(session, x)
        if x == 0:
            raise error
        return answer

    tasks = [loop.create_task(call(x)) for x in range(4)]
    with pytest.raises(error):
        loop.run_until_complete(asyncio.wait(tasks))
    others = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks[1:]), 5))
    assert others == [2, 4, 6]
    assert asyncio.run(call(4)) == 8  # on another loop of this thread
    with pytest.raises(error):
        tasks[0].result()


def test_an_exception_of_a_task_stays_its_own(session, loop):
    async def call(x: int) -> float:
        answer = await ask(session, x)
        if x == 1:
            raise LookupError(x)
        return answer

    async def main() -> list[object]:
        return await asyncio.gather(*(call(x) for x in range(3)), return_exceptions=True)

    first, second, third = loop.run_until_complete(main())
    assert (first, third) == (0, 4)
    assert isinstance(second, LookupError)


def test_a_cancelled_task_sees_the_message(session, task_loop):
    async def call() -> str:
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await ask(session, 1)
        return str(cancelled.value)

    async def main() -> str:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel("not needed")
        return await task

    assert task_loop.run_until_complete(main()) == "not needed"


def test_a_request_published_for_a_cancelled_future_is_taken_back(loop):
    with trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1) as session:
        busy = session.submit(np.array(models.BUSY, np.float32))
        future = _core.LoopFuture(loop)
        assert future.cancel()
        notifier = _core.Notifier()
        future.attach(session._pipeline.submit(ONE, notifier, future))
        assert session.stats()["cancelled"] == 1
        busy.result()


def test_a_request_attached_while_its_future_is_cancelled_is_taken_back(loop):
    rounds = 200
    ready = threading.Barrier(2)
    notifier = _core.Notifier()
    futures = [_core.LoopFuture(loop) for _ in range(rounds)]
    with trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1) as session:
        busy = keep_busy(session, models.VERY_BUSY)
        pending = [session._pipeline.submit(ONE, notifier, future) for future in futures]

        def attach() -> None:
            for future, request in zip(futures, pending, strict=True):
                ready.wait(PATIENCE)
                future.attach(request)

        thread = threading.Thread(target=attach)
        thread.start()
        for future in futures:
            ready.wait(PATIENCE)
            assert future.cancel()
        thread.join(PATIENCE)
        assert not busy.done()
        assert session.stats()["cancelled"] == rounds


def test_one_awaiter_only(loop):
    future = _core.LoopFuture(loop)
    future.add_done_callback(print)
    with pytest.raises(RuntimeError, match="one awaiter"):
        future.add_done_callback(print)


def test_an_awaiter_of_an_ended_future_is_scheduled(loop):
    future, seen = _core.LoopFuture(loop), []
    assert not future.done()
    assert future.cancel()
    assert not future.cancel()
    future.add_done_callback(seen.append)
    assert seen == []
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == [future]


def test_has_no_result_before_its_end(loop):
    with pytest.raises(asyncio.InvalidStateError):
        _core.LoopFuture(loop).result()


def test_a_forgotten_awaiter_is_collected(loop):
    class Awaiter:
        def __init__(self) -> None:
            self.future = _core.LoopFuture(loop)
            self.future.add_done_callback(self.call)

        def call(self, future: object) -> None:
            """Never called."""

    awaiter = weakref.ref(Awaiter())
    gc.collect()
    assert awaiter() is None


def test_runs_its_awaiter_at_once_when_resolved(loop):
    future, seen = _core.LoopFuture(loop), []

    async def wait():
        seen.append(await future)

    async def main():
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        loop.call_soon(lambda: (future.resolve(), seen.append("resolved")))
        await task

    loop.run_until_complete(main())

    assert seen == [None, "resolved"]
