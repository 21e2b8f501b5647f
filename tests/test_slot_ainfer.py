"""Claimed slots that are published and awaited on an event loop."""

from __future__ import annotations

import asyncio
import time

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy

import trtinfer

RNG = np.random.default_rng(0)


@pytest.fixture
def slow():
    with trtinfer.Session(models.slow_model(), max_inflight=1) as session:
        yield session


def filled_slot(session: trtinfer.Session, turns: float = 1) -> trtinfer.Slot:
    slot = session.claim()
    slot.inputs["x"][...] = turns
    return slot


def test_slots_of_one_turn_of_the_loop_share_batches():
    xs = RNG.standard_normal((24, 256), dtype=np.float32)

    async def ask(session: trtinfer.Session, x: np.ndarray) -> np.ndarray:
        with session.claim(timeout=PATIENCE) as slot:
            slot.inputs["x"][:] = x
            return (await slot.ainfer())["y"]

    async def main(session: trtinfer.Session) -> list[np.ndarray]:
        answers = []
        for some in np.split(xs, 3):  # as many as there are slots
            answers += await asyncio.gather(*(ask(session, x) for x in some))
        return answers

    with trtinfer.Session(models.matmul_model(), max_batch_size=4, capacity=8) as session:
        answers = asyncio.run(main(session))
        np.testing.assert_allclose(answers, xs @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
        stats = session.stats()
    assert stats["free_slots"] == 8
    assert stats["batch_sizes"] == {4: 6}


def test_a_cancelled_task_takes_its_slot_back(slow):
    async def main() -> None:
        keep_busy(slow)
        task = asyncio.create_task(filled_slot(slow).ainfer())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert slow.stats()["cancelled"] == 1


def test_a_slot_takes_a_timeout_and_is_published_once(slow):
    async def main() -> None:
        keep_busy(slow)
        slot = filled_slot(slow)
        with pytest.raises(trtinfer.DeadlineExceededError):
            await slot.ainfer(timeout=0.0, priority=7)
        with pytest.raises(trtinfer.InputError, match="published"):
            await slot.ainfer(timeout=1.0)

    asyncio.run(main())


def test_a_timeline_tells_when_a_slot_reached_each_stage(slow):
    async def main() -> None:
        timeline, begin = trtinfer.Timeline(), time.monotonic_ns()
        await filled_slot(slow, models.BUSY).ainfer(timeline=timeline)
        end = time.monotonic_ns()
        assert begin <= timeline.arrival <= timeline.launch < timeline.completion <= end

    asyncio.run(main())
