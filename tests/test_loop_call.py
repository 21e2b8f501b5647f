"""What `Session.ainfer` and `Slot.ainfer` return: a coroutine, to all who look."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import models
import numpy as np
import pytest
from waiting import keep_busy

import trtinfer

ONE = np.array(1, np.float32)
Ask = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture
def session():
    with trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1) as session:
        yield session


def ask_with_slot(session: trtinfer.Session) -> Coroutine[Any, Any, Any]:
    slot = session.claim()
    slot.inputs["x"][...] = ONE
    return slot.ainfer()


@pytest.fixture(params=["as it is", "a claimed slot", "the longer way"])
def ask(request, session):
    """Calls that the core takes as they are, and one that goes on as a coroutine of Python's."""
    if request.param == "as it is":
        yield lambda: session.ainfer(ONE)
        return
    if request.param == "a claimed slot":
        yield lambda: ask_with_slot(session)
        return
    with trtinfer.Session(models.string_model()) as strings:
        yield lambda: strings.ainfer(np.array(["ab"], object))


def test_it_is_one_to_everybody(session):
    call = session.ainfer(ONE)
    assert asyncio.iscoroutine(call)
    assert inspect.isawaitable(call)
    assert isinstance(call, Coroutine)
    call.close()
    says = inspect if sys.version_info >= (3, 12) else asyncio
    assert says.iscoroutinefunction(session.ainfer)
    assert says.iscoroutinefunction(session.claim().ainfer)


def test_a_mock_of_a_session_is_awaited(session):
    async def main() -> object:
        return await mock.create_autospec(session).ainfer(1)

    asyncio.run(main())


def test_loops_run_it_by_itself(ask: Ask):
    assert set(asyncio.run(ask())) == {"y"}


def test_it_may_be_a_task_or_be_waited_for(ask: Ask):
    async def main() -> None:
        task = asyncio.create_task(ask())
        answers = [await task, await asyncio.wait_for(ask(), 30), await asyncio.shield(ask())]
        answers += await asyncio.gather(ask(), ask())
        done, _ = await asyncio.wait([asyncio.ensure_future(ask())])
        answers += [future.result() for future in done]
        assert all(answer == answers[0] for answer in answers)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")
def test_an_eager_task_publishes_it_at_once(session):
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(session.ainfer(np.array(3, np.float32)))
        assert session.stats()["accepted"] == 1
        assert (await task)["y"] == 6

    asyncio.run(main())


def test_nothing_happens_before_it_is_awaited(session):
    async def main() -> None:
        call = session.ainfer(ONE)
        await asyncio.sleep(0)
        assert session.stats()["accepted"] == 0
        await call
        assert session.stats()["accepted"] == 1

    asyncio.run(main())


def test_one_that_is_never_awaited_is_told_of(ask: Ask):
    with pytest.warns(RuntimeWarning, match=r"'(Session|Slot)\.ainfer' was never awaited"):
        ask()


def test_a_warning_made_an_error_goes_to_the_hook(session, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.ainfer(ONE)
    assert told == [RuntimeWarning]


def test_one_that_was_closed_or_thrown_at_is_over(ask: Ask):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed, thrown = ask(), ask()
        closed.close()
        closed.close()
        with pytest.raises(KeyError, match="why"):
            thrown.throw(KeyError("why"))
        for call in (closed, thrown):
            with pytest.raises(RuntimeError, match="already awaited"):
                call.send(None)
            with pytest.raises(RuntimeError, match="already awaited"):
                call.throw(KeyError)
        del call, closed, thrown


def test_one_under_way_can_be_closed_and_thrown_at(ask: Ask):
    async def main() -> None:
        for end in (lambda call: call.close(), lambda call: call.throw(ValueError(1))):
            call = ask()
            assert asyncio.isfuture(call.send(None))
            try:
                end(call)
            except ValueError as error:
                assert error.args == (1,)  # noqa: PT017
            with pytest.raises(RuntimeError, match="already awaited"):
                call.send(None)

    asyncio.run(main())


def test_only_none_starts_it(session):
    call = session.ainfer(ONE)
    with pytest.raises(TypeError, match="just-started"):
        call.send(1)
    with pytest.raises(TypeError):
        call.throw(1)


def test_it_needs_a_running_loop(session):
    with pytest.raises(RuntimeError, match="no running event loop"):
        session.ainfer(ONE).send(None)


def test_it_is_awaited_once(session):
    async def main() -> None:
        call = session.ainfer(ONE)
        await call
        with pytest.raises(RuntimeError, match="already awaited"):
            await call

    asyncio.run(main())


@pytest.mark.parametrize("arguments", [{"timeout": "soon"}, {"priority": "high"}, {"priority": 9}])
def test_arguments_are_refused_when_it_is_awaited(session, arguments):
    call = session.ainfer(ONE, **arguments)
    with pytest.raises((TypeError, ValueError)):
        asyncio.run(call)


def test_it_keeps_its_session_open():
    async def main() -> float:
        return float((await trtinfer.Session(models.slow_model()).ainfer(np.float32(4)))["y"])

    assert asyncio.run(main()) == 8


def test_a_cancelled_task_that_has_not_begun_publishes_nothing(session):
    async def main() -> None:
        task = asyncio.create_task(session.ainfer(ONE))
        of_slot = asyncio.create_task(ask_with_slot(session))
        assert "Session.ainfer" in repr(task)
        assert "Slot.ainfer" in repr(of_slot)
        assert task.cancel()
        assert of_slot.cancel()
        for each in (task, of_slot):
            with pytest.raises(asyncio.CancelledError):
                await each

    asyncio.run(main())
    assert session.stats()["accepted"] == 0


def test_a_task_of_it_alone_can_be_cancelled(session):
    async def main() -> None:
        busy = keep_busy(session)
        task = asyncio.create_task(session.ainfer(ONE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await busy

    asyncio.run(main())
    assert session.stats()["cancelled"] == 1


def test_a_cycle_through_it_is_collected(session):
    class Holder:
        call: object = None

    holder = Holder()
    holder.call = session.ainfer(holder)
    gone = weakref.ref(holder)
    del holder
    with pytest.warns(RuntimeWarning, match="never awaited"):
        gc.collect()
    assert gone() is None


def test_two_tasks_cannot_await_one(session):
    async def main() -> None:
        keep_busy(session)
        call = session.ainfer(ONE)
        first = asyncio.ensure_future(call)
        await asyncio.sleep(0)

        async def second() -> Any:
            return await call

        with pytest.raises(RuntimeError, match="awaited already"):
            await asyncio.wait_for(second(), 5)
        assert (await first)["y"] == 2

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.01, 0.03])
def test_another_thread_closes_one_before_or_after_it_starts(seconds):
    x = np.ones(30_000_000, np.float32)  # takes a while to copy, without the GIL
    with trtinfer.Session(models.varying_model(), max_batch_size=1) as session:
        call = session.ainfer(x)
        closed: list[str] = []

        def close() -> None:
            try:
                call.close()
                closed.append("")
            except ValueError as error:
                closed.append(str(error))

        async def main() -> Any:
            closer.start()
            (answer,) = await asyncio.gather(call, return_exceptions=True)
            return answer

        closer = threading.Timer(seconds, close)
        answer = asyncio.run(main())
        assert isinstance(answer, RuntimeError) or answer["y"][-1] == 2
        closer.join()
    assert closed in ([""], ["coroutine already executing"])


def test_one_that_closes_itself_while_it_runs_is_over():
    class Closing:
        call: Any = None

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            self.call.close()
            return ONE

    with trtinfer.Session(models.slow_model()) as session:
        x = Closing()
        x.call = session.ainfer(x)
        with pytest.raises((RuntimeError, ValueError, trtinfer.InputError)):
            asyncio.run(x.call)
