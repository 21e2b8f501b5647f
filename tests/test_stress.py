"""Threads and asyncio callers at once on one session, with all that callers do wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import models
import numpy as np
import pytest

from trtinfer import DeadlineExceededError, InputError, QueueFullError, Session, _core
from trtinfer.metrics import Stats

THREADS, TASKS = 64, 256
MAX_BATCH_SIZE = 32

#: What may come on top of the resident memory of the middle of the run: the allocator's own swings.
GROWTH_BYTES = 24 << 20

BAD_INPUTS = [
    None,
    "not an array",
    np.zeros(256),
    np.zeros(255, np.float32),
    np.zeros((0, 256), np.float32),
    np.zeros((2, 3, 256), np.float32),
    {"x": np.zeros(256, np.float32), "y": np.zeros(256, np.float32)},
    {},
]

Array = np.ndarray


def make_questions() -> list[tuple[Array, Array]]:
    """Inputs of one sample, of a few, and of several batches, with their answers."""
    rng = np.random.default_rng(3)
    rows = [None] * 24 + [1, 2, 3, 5, 8, 13, 31, 32] * 2 + [33, 64, 70, 100]
    inputs = [rng.standard_normal(256 if n is None else (n, 256), dtype=np.float32) for n in rows]
    return [(x, x @ models.WEIGHTS) for x in inputs]


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Callers:
    """What each caller does, over and over, and a count of what came of it."""

    def __init__(self, session: Session, until: float) -> None:
        self.session = session
        self.until = until
        self.questions = make_questions()
        self.singles = [question for question in self.questions if question[0].ndim == 1]
        self.ends: Counter[str] = Counter()
        self.callbacks = 0
        self.futures = 0
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    # --- Threads

    def thread(self, seed: int) -> None:
        rng = random.Random(seed)
        ends: Counter[str] = Counter()
        actions = [self.infer] * 4 + [self.infer_in_time, self.submit, self.submit_and_cancel]
        actions += [self.fill_slowly, self.fill_and_infer, self.abandon, self.ask_nonsense]
        while time.monotonic() < self.until:
            self.tally(ends, rng, rng.choice(actions))
        with self.lock:
            self.ends += ends

    def tally(
        self, ends: Counter[str], rng: random.Random, action: Callable[[random.Random], str]
    ) -> None:
        try:
            ends[action(rng)] += 1
        except QueueFullError:
            ends["rejected"] += 1
        except DeadlineExceededError:
            ends["expired"] += 1
        except InputError:
            ends["invalid"] += 1
        except CancelledError:
            ends["cancelled"] += 1
        except Exception as error:
            self.wrong.append(repr(error))

    def check(self, outputs: dict[str, Array], answer: Array) -> str:
        if list(outputs) != ["y"] or outputs["y"].shape != answer.shape:
            self.wrong.append(f"outputs of shape {[y.shape for y in outputs.values()]}")
        elif not np.allclose(outputs["y"], answer, rtol=1e-3, atol=1e-3):
            self.wrong.append("a wrong answer")
        return "completed"

    def infer(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.questions)
        return self.check(self.session.infer(x, priority=rng.randrange(-8, 8)), answer)

    def infer_in_time(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.questions)
        timeout = rng.choice([0.0, 1e-4, 1e-3, 1e-2, 30.0])
        return self.check(self.session.infer({"x": x}, timeout), answer)

    def submit(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.questions)
        future = self.session.submit(x, rng.choice([None, 1e-3, 30.0]))
        self.count_future(future)
        return self.check(future.result(60), answer)

    def submit_and_cancel(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.questions)
        future = self.session.submit(x)
        self.count_future(future)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 1e-4)
        if future.cancel() != future.cancelled():
            self.wrong.append("cancel() and cancelled() differ")
        return self.check(future.result(60), answer)

    def fill_slowly(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.singles)
        with self.session.claim() as slot:
            slot.inputs["x"][:128] = x[:128]
            time.sleep(rng.random() * 1e-3)
            slot.inputs["x"][128:] = x[128:]
            future = slot.publish()
        self.count_future(future)
        return self.check(future.result(60), answer)

    def fill_and_infer(self, rng: random.Random) -> str:
        x, answer = rng.choice(self.singles)
        slot = self.session.claim(timeout=0.01)
        slot.inputs["x"][:] = x
        return self.check(slot.infer(30.0), answer)

    def abandon(self, rng: random.Random) -> str:
        if rng.random() < 0.5:
            with self.session.claim():
                return "abandoned"
        slot = self.session.claim(timeout=0.001)
        slot.inputs["x"][:] = np.nan
        return "abandoned"  # and dropped without a word

    def ask_nonsense(self, rng: random.Random) -> str:
        ask = rng.choice([self.session.infer, self.session.submit])
        ask(rng.choice(BAD_INPUTS))
        self.wrong.append("took a bad input")
        return "lost"

    def count_future(self, future: Future[dict[str, Array]]) -> None:
        with self.lock:
            self.futures += 1
        future.add_done_callback(self.count_callback)

    def count_callback(self, _: object) -> None:
        with self.lock:
            self.callbacks += 1

    # --- asyncio

    async def task(self, seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < self.until:
            x, answer = rng.choice(self.questions)
            try:
                self.ends[await self.ask(rng, x, answer)] += 1
            except QueueFullError:
                self.ends["rejected"] += 1
                await asyncio.sleep(0.001)
            except DeadlineExceededError:
                self.ends["expired"] += 1
            except InputError:
                self.ends["invalid"] += 1
            except Exception as error:
                self.wrong.append(repr(error))

    async def ask(self, rng: random.Random, x: Array, answer: Array) -> str:
        kind = rng.random()
        if kind < 0.1:
            await self.session.ainfer(rng.choice(BAD_INPUTS))
            self.wrong.append("took a bad input")
        if kind < 0.2:
            task = asyncio.ensure_future(self.session.ainfer(x))
            await asyncio.sleep(0)
            task.cancel()
            try:
                self.check(await task, answer)
            except asyncio.CancelledError:
                return "given up"  # its batch may have been launched
            return "completed"
        if kind < 0.3:
            timeout = rng.choice([0.0, 1e-3, 30.0])
            return self.check(await self.session.ainfer(x, timeout), answer)
        if kind < 0.4:
            future = self.session.submit(x)
            self.count_future(future)
            return self.check(await future, answer)
        return self.check(await self.session.ainfer(x), answer)

    async def tasks(self) -> None:
        everyone = asyncio.gather(*(self.task(1000 + i) for i in range(TASKS)))
        await asyncio.wait_for(everyone, self.until - time.monotonic() + 60)


def run_callers(session: Session, seconds: float) -> tuple[Callers, int]:
    """Let all callers run; return them, and how much memory the second half took."""
    callers = Callers(session, time.monotonic() + seconds)
    threads = [threading.Thread(target=callers.thread, args=(i,)) for i in range(THREADS)]
    threads.append(threading.Thread(target=lambda: asyncio.run(callers.tasks())))
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    middle = resident_bytes()
    time.sleep(max(0.0, callers.until - time.monotonic()))
    growth = resident_bytes() - middle
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return callers, growth


def check_counters(callers: Callers, stats: Stats) -> None:
    ends = callers.ends
    asked = sum(ends.values()) - ends["abandoned"]
    answered = stats["completed"] + stats["failed"] + stats["expired"]
    ended = answered + stats["cancelled"] + stats["closed"]
    assert stats["accepted"] == ended
    assert stats["rejected"] == ends["rejected"]
    assert stats["invalid"] == ends["invalid"]
    assert asked == ended + stats["rejected"] + stats["invalid"]
    # Who gave up may have been answered all the same, or have been taken back in time.
    assert stats["failed"] == stats["closed"] == 0
    assert 0 <= stats["completed"] - ends["completed"] <= ends["given up"]
    assert 0 <= stats["cancelled"] - ends["cancelled"] <= ends["given up"]
    assert stats["expired"] == ends["expired"]
    assert stats["free_slots"] == 128
    assert stats["queue_length"] == stats["batches_in_flight"] == 0
    assert sum(size * n for size, n in stats["batch_sizes"].items()) == stats["samples"]
    for kind in ("completed", "rejected", "expired", "cancelled", "given up", "abandoned"):
        assert ends[kind] > 0, f"the run had no {kind} requests: {ends}"


@pytest.mark.parametrize(
    "seconds", [2.0, pytest.param(20.0, marks=pytest.mark.slow)], ids=["2s", "20s"]
)
def test_answers_every_request_once_under_stress(seconds: float) -> None:
    with Session(models.matmul_model()):  # ONNX Runtime itself opens files, once
        gc.collect()
    objects, descriptors = _core.live_objects(), open_descriptors()
    session = Session(models.matmul_model(), max_batch_size=MAX_BATCH_SIZE, capacity=128)
    callers, growth = run_callers(session, seconds)
    stats = session.stats()
    print(dict(callers.ends), f"memory grew by {growth / 1e6:.1f} MB")
    assert callers.wrong == []
    assert callers.callbacks == callers.futures
    check_counters(callers, stats)
    assert growth < GROWTH_BYTES
    session.close()
    del session, callers
    gc.collect()
    assert _core.live_objects() == objects
    assert open_descriptors() == descriptors
    assert not [t for t in threading.enumerate() if t.name.startswith("trtinfer")]
