"""Many requests in one call, and many samples in one claim."""

from __future__ import annotations

import signal
import threading
import time

import models
import numpy as np
import pytest
from onnx import helper
from waiting import PATIENCE, keep_busy

import trtinfer

BUSY = np.array(models.BUSY, np.float32)


@pytest.fixture
def session():
    with trtinfer.Session(models.slow_model(), max_batch_size=8, max_inflight=1) as session:
        yield session


def scalars(count: int) -> list[np.ndarray]:
    return [np.array(x, np.float32) for x in range(count)]


def doubled(outputs) -> list[float]:
    return [float(output["y"]) for output in outputs]


# --- infer_many, submit_many ----------------------------------------------------------------------


def test_answers_in_order(session):
    assert doubled(session.infer_many(scalars(20))) == [2 * x for x in range(20)]


def test_takes_any_iterable_and_no_requests_at_all(session):
    assert doubled(session.infer_many(iter(scalars(3)))) == [0, 2, 4]
    assert session.infer_many([]) == []
    assert session.submit_many([]) == []


def test_requests_of_one_call_share_batches(session):
    keep_busy(session, models.VERY_BUSY)
    session.infer_many(scalars(64))
    assert session.stats()["batch_sizes"] == {1: 1, 8: 8}


def test_futures_come_in_order(session):
    futures = session.submit_many(scalars(20))
    assert doubled(future.result(PATIENCE) for future in futures) == [2 * x for x in range(20)]


def test_requests_keep_their_own_batch_axes(session):
    xs = [np.arange(3, dtype=np.float32), np.array(7, np.float32)]
    several, one = session.infer_many(xs)
    assert several["y"].tolist() == [0, 2, 4]
    assert one["y"].shape == ()


def test_more_than_the_ring_holds_wait_for_room():
    with trtinfer.Session(models.slow_model(), max_batch_size=2, capacity=4) as session:
        assert doubled(session.infer_many(scalars(50))) == [2 * x for x in range(50)]
        assert session.stats()["rejected"] == 0


def test_what_does_not_fit_exactly_is_converted(session):
    assert doubled(session.infer_many([1.5, np.array(2, np.float32), {"x": 3}])) == [3, 4, 6]


def test_a_bad_request_fails_alone(session):
    xs = [1.0, np.array(2, np.float64), 3.0]
    with pytest.raises(trtinfer.InputError, match="float64"):
        session.infer_many(xs)
    assert session.stats()["completed"] == 2
    first, bad, third = session.submit_many(xs)
    assert doubled([first.result(PATIENCE), third.result(PATIENCE)]) == [2, 6]
    assert isinstance(bad.exception(PATIENCE), trtinfer.InputError)
    assert session.stats()["invalid"] == 2


def test_futures_tell_which_requests_found_no_room():
    with trtinfer.Session(
        models.slow_model(), max_batch_size=1, capacity=2, max_inflight=1
    ) as session:
        keep_busy(session)
        futures = session.submit_many(scalars(4))
        errors = [future.exception(PATIENCE) for future in futures]
        assert isinstance(errors[-1], trtinfer.QueueFullError)
        assert session.stats()["rejected"] == sum(error is not None for error in errors)


def test_a_timeout_holds_for_each(session):
    keep_busy(session)
    with pytest.raises(trtinfer.DeadlineExceededError):
        session.infer_many(scalars(3), timeout=0.001)
    assert session.stats()["expired"] == 3


def test_the_first_do_not_wait_for_the_last_to_be_read(session):
    class Slow:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            time.sleep(0.005)
            return np.array(1, np.float32)

    outputs = session.infer_many([Slow() for _ in range(64)], timeout=0.2)
    assert doubled(outputs) == [2] * 64


def test_futures_can_be_cancelled(session):
    keep_busy(session)
    futures = session.submit_many(scalars(3))
    assert futures[1].cancel()
    assert doubled([futures[0].result(PATIENCE), futures[2].result(PATIENCE)]) == [0, 4]


def test_refuses_a_priority_out_of_range(session):
    with pytest.raises(ValueError, match="priority=99"):
        session.infer_many(scalars(2), priority=99)
    with pytest.raises(ValueError, match="priority=99"):
        session.submit_many(scalars(2), priority=99)
    assert session.stats()["accepted"] == 0


def test_a_closed_session_refuses_each(session):
    session.close()
    with pytest.raises(trtinfer.ClosedError):
        session.infer_many(scalars(2))
    errors = [future.exception(PATIENCE) for future in session.submit_many(scalars(2))]
    assert all(isinstance(error, trtinfer.ClosedError) for error in errors)


@pytest.fixture
def _ctrl_c_raises():
    """Where a shell has started the tests in the background, it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_raises")
def test_ctrl_c_takes_back_what_has_not_run():
    with trtinfer.Session(models.slow_model(), max_batch_size=1, max_inflight=1) as session:
        timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            session.infer_many([BUSY] * 1000)
        timer.join()
        assert session.stats()["cancelled"] > 0


def test_answers_many_images():
    with trtinfer.Session(models.image_model(224), preprocess="yolov8-cls") as session:
        images = [np.full((30 + i, 40, 3), 10 * i, np.uint8) for i in range(5)]
        single = [session.infer(image)["means"] for image in images]
        for output, expected in zip(session.infer_many(images), single, strict=True):
            np.testing.assert_array_equal(output["means"], expected)


def test_answers_values_that_are_no_tensors():
    with trtinfer.Session(models.string_model()) as session:
        outputs = session.infer_many([np.array(["a"], object), np.array(["b"], object)])
        assert [output["y"].tolist() for output in outputs] == [["A"], ["B"]]


# --- Large inputs, which are copied together


WIDE = 20_000  # numbers: 80 kB


@pytest.fixture(scope="module")
def negating_model() -> bytes:
    node = helper.make_node("Neg", ["x"], ["y"])
    x, y = (models.tensor(name, ["n", WIDE]) for name in "xy")
    return models.build([node], [x], [y])


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, WIDE), np.float32)


def are_negated(outputs, xs) -> bool:
    return all(np.array_equal(y["y"], -x) for y, x in zip(outputs, xs, strict=True))


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
@pytest.mark.parametrize("capacity", [8, 512])
def test_large_inputs_are_answered_in_order(negating_model, max_batch_size, capacity):
    xs = rows(70)
    sizes = {"max_batch_size": min(max_batch_size, capacity), "capacity": capacity}
    with trtinfer.Session(negating_model, **sizes) as session:
        assert are_negated(session.infer_many(list(xs)), xs)
        futures = session.submit_many(list(xs), timeout=PATIENCE)
        assert are_negated([future.result(PATIENCE) for future in futures], xs)
        assert session.stats()["completed"] == 140
        assert session.stats()["rejected"] == 0


def test_large_inputs_go_beside_small_and_bad_ones(negating_model):
    xs = rows(6)
    mixed = [xs[0], xs[1:3], "nothing", xs[3], xs[4].astype(np.float64), xs[5].tolist()]
    with trtinfer.Session(negating_model, max_batch_size=4) as session:
        futures = session.submit_many(mixed)
        errors = [future.exception(PATIENCE) for future in futures]
        assert [isinstance(error, trtinfer.InputError) for error in errors] == [
            False,
            False,
            True,
            False,
            True,
            False,
        ]
        right = [futures[i].result() for i in (0, 1, 3, 5)]
        assert are_negated(right, [xs[0], xs[1:3], xs[3], xs[5]])


def test_large_inputs_find_room_or_are_refused_alone(negating_model):
    xs = rows(12)
    with trtinfer.Session(negating_model, max_batch_size=4, capacity=4) as session:
        with session.claim(), session.claim():  # two slots are left
            futures = session.submit_many(list(xs))
            errors = [future.exception(PATIENCE) for future in futures]
            answered = [i for i, error in enumerate(errors) if error is None]
            assert 0 < len(answered) < len(xs)
            assert all(isinstance(e, trtinfer.QueueFullError) for e in errors if e is not None)
            assert are_negated([futures[i].result() for i in answered], xs[answered])
        assert session.stats()["rejected"] == len(xs) - len(answered)
        assert are_negated(session.infer_many(list(xs)), xs)


class Frames:
    """Arrays of one buffer, which is another array's as soon as the next is asked for."""

    buffer = np.empty(WIDE, np.float32)

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        self.buffer[:] = self.x
        return self.buffer


def test_large_inputs_may_use_one_buffer_again(negating_model):
    xs = rows(6)
    with trtinfer.Session(negating_model, max_batch_size=8) as session:
        assert are_negated(session.infer_many(map(Frames, xs)), xs)
        futures = session.submit_many(map(Frames, xs))
        assert are_negated([future.result(PATIENCE) for future in futures], xs)
        mixed = [xs[0], Frames(xs[1]), {"x": xs[2]}, Frames(xs[3])]
        assert are_negated(session.infer_many(mixed), xs[:4])


def test_large_inputs_hold_no_room_while_others_are_read(negating_model):
    xs = rows(8)

    class Asks:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            return session.infer(xs[-1], timeout=PATIENCE)["y"]

    with trtinfer.Session(negating_model, max_batch_size=8, capacity=8) as session:
        outputs = session.infer_many([*xs, Asks()])
        assert are_negated(outputs, [*xs, -xs[-1]])


def test_large_inputs_of_many_rows_are_published_by_rows(negating_model):
    xs = rows(96).reshape(6, 16, WIDE)
    with trtinfer.Session(negating_model, max_batch_size=16, capacity=32) as session:
        assert are_negated(session.infer_many(list(xs)), xs)


def test_large_inputs_share_batches(negating_model):
    with trtinfer.Session(negating_model, max_batch_size=64, max_inflight=1) as session:
        session.infer_many([{"x": row} for row in rows(48)])
        assert max(session.stats()["batch_sizes"]) > 1


def test_a_closed_session_refuses_each_large_input(negating_model):
    session = trtinfer.Session(negating_model)
    session.close()
    errors = [future.exception(PATIENCE) for future in session.submit_many(list(rows(2)))]
    assert all(isinstance(error, trtinfer.ClosedError) for error in errors)


# --- claim(rows) ----------------------------------------------------------------------------------


def test_a_claim_of_rows_is_one_block_with_a_batch_axis(session):
    with session.claim(5) as slot:
        assert slot.inputs["x"].shape == (5,)
        slot.inputs["x"][:] = range(5)
        assert slot.infer()["y"].tolist() == [0, 2, 4, 6, 8]
    assert session.stats()["batch_sizes"] == {5: 1}


def test_a_claim_of_rows_can_be_published(session):
    with session.claim(1) as slot:
        slot.inputs["x"][:] = 4
        assert slot.publish().result(PATIENCE)["y"].tolist() == [8]


@pytest.mark.parametrize("rows", [0, -1, 9])
def test_refuses_claims_that_fit_no_batch(session, rows):
    with pytest.raises(trtinfer.InputError, match=f"rows={rows}"):
        session.claim(rows)


def test_refuses_rows_without_a_batch_axis():
    with (
        trtinfer.Session(models.image_model(224), preprocess="yolov8-cls") as session,
        pytest.raises(trtinfer.InputError, match="no batch axis"),
    ):
        session.claim(2, shape=(10, 10, 3))


def test_rows_of_varying_shape_share_the_claim():
    with trtinfer.Session(models.varying_model(), max_batch_size=4) as session:
        with session.claim(3, shape=(7,)) as slot:
            assert slot.inputs["x"].shape == (3, 7)
            slot.inputs["x"][:] = np.arange(21, dtype=np.float32).reshape(3, 7)
            outputs = slot.infer()
        assert outputs["y"].shape == (3, 7)
