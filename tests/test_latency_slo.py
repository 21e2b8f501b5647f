"""Sessions with a latency target."""

from __future__ import annotations

import asyncio
import threading
import time

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy

import trtinfer

ONE = np.array(1, np.float32)


@pytest.fixture
def session():
    with trtinfer.Session(
        models.slow_model(), max_batch_size=8, max_inflight=1, latency_slo=0.1
    ) as session:
        yield session


def test_answers_as_without_a_target(session):
    xs = np.arange(20, dtype=np.float32)
    assert session.infer(ONE)["y"] == 2
    assert session.infer(xs)["y"].tolist() == (2 * xs).tolist()
    assert [float(out["y"]) for out in session.infer_many(list(xs))] == (2 * xs).tolist()
    assert asyncio.run(session.ainfer(ONE))["y"] == 2


def test_costs_are_known_before_the_first_request(session):
    slo = session.stats()["slo"]
    assert slo["target"] == 0.1
    assert slo["batch_limit"] == 8
    assert set(slo["batch_costs"]) == {1, 2, 4, 8}
    assert all(0 < cost < 0.1 for cost in slo["batch_costs"].values())
    assert session.stats()["batches"] == 0


def test_says_nothing_of_a_target_that_there_is_not():
    with trtinfer.Session(models.slow_model()) as session:
        assert session.stats()["slo"] is None


@pytest.fixture
def hurried():
    """Two batches, which take one sample each, are more than the target allows."""
    with trtinfer.Session(
        models.slow_model(), max_batch_size=1, max_inflight=1, latency_slo=0.02
    ) as session:
        yield session


def turns_of_half_a_target(session: trtinfer.Session) -> np.float32:
    turns, took = 1.0, 0.0
    while session.stats()["slo"]["batch_costs"][1] < 0.011:
        turns *= 1.5 if took < 0.015 else 1  # what it costs is learned step by step
        started = time.perf_counter()
        session.infer(np.float32(turns))
        took = time.perf_counter() - started
    return np.float32(turns)


def test_refuses_at_arrival_what_can_no_longer_make_it(hurried):
    turns = turns_of_half_a_target(hurried)
    running = hurried.submit(turns)
    futures = hurried.submit_many([turns] * 8)
    errors = [future.exception(PATIENCE) for future in futures]
    refused = [error for error in errors if error is not None]
    assert refused
    assert all(isinstance(error, trtinfer.QueueFullError) for error in refused)
    assert "latency_slo=0.02" in str(refused[0])
    running.result(PATIENCE)
    stats = hurried.stats()
    assert stats["rejected"] == stats["rejected_by_slo"] == len(refused)
    assert stats["free_slots"] == 1024


def test_a_slot_that_cannot_make_it_does_not_wait_and_stays_claimed(hurried):
    turns = turns_of_half_a_target(hurried)

    async def main() -> None:
        futures = hurried.submit_many([turns] * 9)
        with hurried.claim() as slot:
            slot.inputs["x"][...] = turns
            with pytest.raises(trtinfer.QueueFullError, match=r"latency_slo=0\.02"):
                await slot.ainfer(timeout=PATIENCE)  # which a full ring would be waited for
            for future in futures:
                future.exception(PATIENCE)
            assert (await slot.ainfer())["y"] == pytest.approx(2 * turns)

    asyncio.run(main())
    assert hurried.stats()["free_slots"] == 1024


def test_an_idle_session_refuses_nobody():
    with trtinfer.Session(
        models.slow_model(), max_batch_size=1, max_inflight=1, latency_slo=1e-6
    ) as session:
        for _ in range(3):
            assert session.infer(ONE)["y"] == 2
        assert session.stats()["rejected_by_slo"] == 0


@pytest.mark.parametrize("target", [None, 0.1])
def test_an_idle_session_takes_no_processor(target):
    with trtinfer.Session(models.slow_model(), max_inflight=1, latency_slo=target) as session:
        session.infer(ONE)
        session.submit(ONE).result(PATIENCE)
        time.sleep(0.1)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05


def test_requests_wait_for_company_while_the_device_is_busy(session):
    keep_busy(session)
    session.infer_many([ONE] * 5)
    assert session.stats()["batch_sizes"] == {1: 1, 5: 1}


def test_many_threads_and_cancellations_lose_no_request(session):
    answers: list[float] = []
    refused: list[Exception] = []

    def call(x: float) -> None:
        for _ in range(50):
            try:
                if x % 3 == 0:
                    session.submit(np.float32(x)).cancel()
                answers.append(float(session.infer(np.float32(x))["y"]) / 2 - x)
            except trtinfer.QueueFullError as error:
                refused.append(error)

    threads = [threading.Thread(target=call, args=(float(x),)) for x in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(answers) <= {0.0}
    session.close()
    stats = session.stats()
    assert stats["accepted"] == stats["completed"] + stats["cancelled"]
    assert stats["rejected"] >= len(refused)
    assert stats["free_slots"] == 1024


def test_a_held_batch_is_launched_in_time():
    """However often: a lane that holds a batch back must look at it again."""
    with trtinfer.Session(
        models.slow_model(), max_batch_size=8, max_inflight=2, latency_slo=5.0
    ) as session:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            futures = session.submit_many([np.float32(x) for x in (300, 1, 2)])
            assert [float(f.result(PATIENCE)["y"]) for f in futures] == [600, 2, 4]


@pytest.mark.parametrize("target", [0, -0.01])
def test_refuses_targets_that_are_none(target):
    with pytest.raises(ValueError, match="latency_slo"):
        trtinfer.Session(models.slow_model(), latency_slo=target)


def test_images_have_costs_too():
    with trtinfer.Session(
        models.image_model(224), preprocess="yolov8-cls", max_batch_size=4, latency_slo=0.5
    ) as session:
        assert all(cost > 0 for cost in session.stats()["slo"]["batch_costs"].values())
        assert session.infer(np.zeros((300, 200, 3), np.uint8))["means"].shape == (3,)
