"""Arrivals, open loops that wait for nobody, closed loops that do."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from models import gather_model, image_model, matmul_model, slow_model, string_model, varying_model

from trtinfer import ClosedError, InputError, Session
from trtinfer.load_generator import (
    Load,
    closed_loop_tasks,
    closed_loop_threads,
    constant_arrivals,
    open_loop,
    poisson_arrivals,
)

ROW = np.ones(256, np.float32)


def test_constant_arrivals_keep_their_distance():
    times = constant_arrivals(2000, 1.5)
    assert len(times) == 3000
    assert times[0] == 0
    assert set(np.diff(times).tolist()) == {500_000}


def test_poisson_arrivals_are_exponential_and_independent():
    times = poisson_arrivals(1000, 100, seed=3)
    pauses = np.diff(times, prepend=0) / 1e6
    assert len(pauses) == 100_000
    assert pauses.min() >= 0
    assert pauses.mean() == pytest.approx(1, rel=0.02)
    assert pauses.std() == pytest.approx(1, rel=0.02)
    for t in (0.1, 1.0, 3.0):
        assert np.mean(pauses > t) == pytest.approx(np.exp(-t), rel=0.1)
    assert abs(np.corrcoef(pauses[:-1], pauses[1:])[0, 1]) < 0.02
    counts = np.bincount((times // 10_000_000).astype(int))[:-1]  # in 10 ms
    assert counts.var() / counts.mean() == pytest.approx(1, rel=0.1)


def test_seeds_choose_the_arrivals():
    assert np.array_equal(poisson_arrivals(10, 9, seed=1), poisson_arrivals(10, 9, seed=1))
    assert not np.array_equal(poisson_arrivals(10, 9, seed=1), poisson_arrivals(10, 9, seed=2))


def test_open_loop_answers_all_and_keeps_its_pace():
    with Session(matmul_model()) as session:
        load = open_loop(session, [ROW, ROW * 2], constant_arrivals(500, 0.4))
        assert session.stats()["completed"] == 200
    assert len(load.latencies) == len(load.lateness) == 200
    assert (load.refused, load.failed) == (0, 0)
    assert load.seconds >= 0.398
    assert load.latencies.min() > 0
    assert load.lateness.min() >= 0


def stall_of(session: Session) -> tuple[float, float]:
    """Turns of the slow model's loop that take about 0.2 s, and how many seconds they take."""
    turns = 1000.0
    while True:
        started = time.perf_counter()
        session.infer(np.float32(turns))
        seconds = time.perf_counter() - started
        if seconds > 0.15:
            return turns, seconds
        turns *= 2


def test_open_loop_counts_what_a_stall_delays():
    """One request in 100 stalls the server: those that arrive meanwhile are late by the rest."""
    with Session(slow_model(), max_batch_size=1, max_inflight=1) as session:
        turns, _ = stall_of(session)
        inputs = [np.float32(turns)] + [np.float32(0)] * 99
        load = open_loop(session, inputs, constant_arrivals(250, 0.4))
        stall = load.latencies.max() / 1e9  # a machine may be quicker than a moment before
        slow = np.count_nonzero(load.latencies > stall / 2 * 1e9)
        expected = 250 * min(stall / 2, 0.4)
        assert slow > expected / 2

        # Callers who wait do not ask meanwhile, and so hardly notice.
        asked = iter(inputs)
        closed = closed_loop_threads(lambda _: session.infer(next(asked, np.float32(0))), [0], 0.6)
        assert np.count_nonzero(closed.latencies > stall / 2 * 1e9) <= 2
        assert len(closed.latencies) > 20


def test_refused_requests_are_counted_and_not_timed():
    with Session(slow_model(), max_batch_size=1, max_inflight=1, capacity=4) as session:
        turns, _ = stall_of(session)
        inputs = [np.float32(turns)] + [np.float32(0)] * 49
        load = open_loop(session, inputs, constant_arrivals(5000, 0.01))
        assert load.refused == session.stats()["rejected"] > 40
        assert len(load.latencies) + load.refused == 50


def test_requests_may_wait_for_room():
    with Session(matmul_model(), max_batch_size=4, capacity=4) as session:
        arrivals = np.zeros(500, np.int64)
        load = open_loop(session, [ROW], arrivals, waits_for_room=True)
    assert (len(load.latencies), load.refused) == (500, 0)


def test_requests_that_fail_are_counted():
    with Session(gather_model()) as session:
        inputs = [np.int64(1), np.int64(99)]
        load = open_loop(session, inputs, constant_arrivals(1000, 0.1))
    assert (len(load.latencies), load.failed) == (50, 50)


def test_images_and_rows_of_any_length_are_sent():
    with Session(varying_model()) as session:
        rows = [np.ones(n, np.float32) for n in (1, 5)]
        assert len(open_loop(session, rows, constant_arrivals(1000, 0.02)).latencies) == 20
    with Session(image_model(224), preprocess="torchvision") as session:
        images = [np.ones((n, 300, 3), np.uint8) for n in (250, 300)]
        assert len(open_loop(session, images, constant_arrivals(1000, 0.02)).latencies) == 20


def test_what_cannot_be_sent_is_refused_before():
    with Session(matmul_model()) as session:
        with pytest.raises(InputError, match="256"):
            open_loop(session, [np.ones(3, np.float32)], constant_arrivals(10, 1))
        with pytest.raises(InputError, match="one batch"):
            open_loop(session, [np.ones((65, 256), np.float32)], constant_arrivals(10, 1))
        with pytest.raises(ValueError, match="ascend"):
            open_loop(session, [ROW], np.array([2, 1]))
    with Session(string_model()) as strings, pytest.raises(InputError):
        open_loop(strings, [np.array(["a"])], constant_arrivals(10, 1))
    with pytest.raises(ClosedError):
        open_loop(session, [ROW], constant_arrivals(10, 1))


def test_late_generator_is_flagged():
    latencies = np.full(1000, 1_000_000)
    punctual, late = np.full(1000, 20_000), np.full(1000, 20_000)
    late[:50] = 400_000
    assert not Load(latencies, 1.0, punctual).generator_was_late
    assert Load(latencies, 1.0, late).generator_was_late
    assert not Load(latencies * 100, 1.0, late).generator_was_late  # does not matter there
    assert not Load(latencies, 1.0).generator_was_late


def test_a_busy_generator_knows_that_it_is_late():
    with Session(matmul_model()) as session:
        load = open_loop(session, [ROW], np.zeros(5000, np.int64), waits_for_room=True)
    assert load.lateness[-1] > load.lateness[0]
    assert load.lateness[-1] > 100_000


def test_closed_loops_ask_as_often_as_they_are_answered():
    def ask(x: int) -> int:
        time.sleep(0.01)
        return x

    async def ask_async(x: int) -> int:
        await asyncio.sleep(0.01)
        return x

    for load in (
        closed_loop_threads(ask, [1, 2, 3], 0.2),
        asyncio.run(closed_loop_tasks(ask_async, [1, 2, 3], 0.2)),
    ):
        assert 15 <= len(load.latencies) <= 60
        assert load.latencies.min() >= 9_000_000
        assert load.rate == pytest.approx(len(load.latencies) / load.seconds)


def test_errors_of_callers_come_out():
    def fail(x: int) -> None:
        raise RuntimeError("asked")

    with pytest.raises(RuntimeError, match="asked"):
        closed_loop_threads(fail, [1, 2], 5)
    with pytest.raises(RuntimeError, match="asked"):
        closed_loop_threads(time.sleep, [0.01], 0.05, check=lambda x, answer: fail(x))


def test_progress_goes_up_to_the_end():
    seen: list[float] = []
    closed_loop_threads(lambda x: time.sleep(0.01), [1], 0.35, seen.append)
    with Session(matmul_model()) as session:
        open_loop(session, [ROW], constant_arrivals(100, 0.35), seen.append)
    assert len(seen) >= 6
    assert 0 <= min(seen) <= max(seen) <= 1.5
