"""Claimed slots: filled in place, published or given back."""

from __future__ import annotations

import gc
import threading

import models
import numpy as np
import pytest
from waiting import PATIENCE, keep_busy, wait_for_queue, wait_until

import trtinfer

RNG = np.random.default_rng(0)


def rows(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def session():
    with trtinfer.Session(models.matmul_model(), max_batch_size=4, capacity=8) as session:
        yield session


@pytest.fixture
def varying():
    """Rows of any length, in an arena of 64 kB."""
    with trtinfer.Session(
        models.varying_model(), max_batch_size=4, capacity=64, arena_bytes=1 << 16
    ) as session:
        yield session


def free_slots(session: trtinfer.Session) -> int:
    return session.stats()["free_slots"]


def filled_slot(session: trtinfer.Session) -> trtinfer.Slot:
    slot = session.claim()
    slot.inputs["x"][...] = 1
    return slot


def test_what_is_written_is_answered(session):
    x = rows(256)
    with session.claim() as slot:
        slot.inputs["x"][:] = x
        future = slot.publish()
    np.testing.assert_allclose(future.result()["y"], x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)


def test_inputs_are_writable_views_of_one_sample(session):
    with session.claim() as slot:
        view = slot.inputs["x"]
        assert list(slot.inputs) == ["x"]
        assert (view.dtype, view.shape) == (np.float32, (256,))
        assert view.flags.writeable
        assert not view.flags.owndata


def test_every_input_has_its_view():
    with trtinfer.Session(models.several_model()) as session, session.claim() as slot:
        slot.inputs["a"][:] = [1, 2, 3, 4]
        slot.inputs["b"][:] = [5, 6]
        outputs = slot.infer()
    np.testing.assert_array_equal(outputs["joined"], [1, 2, 3, 4, 5, 6])
    assert outputs["total"] == 11


def test_neighbouring_slots_are_neighbouring_memory(session):
    with session.claim() as first, session.claim() as second:
        a, b = first.inputs["x"], second.inputs["x"]
        assert b.ctypes.data - a.ctypes.data == a.nbytes
        assert not np.shares_memory(a, b)


def test_a_slot_is_the_same_ring_memory_when_claimed_again(session):
    with session.claim() as slot:
        before = slot.inputs["x"]
    with session.claim() as slot:
        assert np.shares_memory(before, slot.inputs["x"])


def test_a_slot_can_be_filled_by_readers_of_buffers(session, tmp_path):
    x = rows(256)
    (tmp_path / "x").write_bytes(x.tobytes())
    with session.claim() as slot, (tmp_path / "x").open("rb") as file:
        assert file.readinto(slot.inputs["x"]) == x.nbytes
        y = slot.infer()["y"]
    np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)


def test_leaving_the_block_gives_the_slot_back(session):
    with session.claim():
        assert free_slots(session) == 7
    assert free_slots(session) == 8
    assert session.stats()["accepted"] == 0


def test_an_error_in_the_block_gives_the_slot_back(session):
    with pytest.raises(KeyError), session.claim() as slot:
        slot.inputs["no such input"]
    assert free_slots(session) == 8


def test_an_abandoned_slot_is_given_back(session):
    slot = session.claim()
    assert free_slots(session) == 7
    del slot
    gc.collect()
    assert free_slots(session) == 8


def test_a_view_alone_does_not_hold_the_slot(session):
    view = session.claim().inputs["x"]
    gc.collect()
    assert free_slots(session) == 8
    view[:] = 0  # still memory, though no longer the caller's


def test_release_may_be_called_again(session):
    slot = session.claim()
    slot.release()
    slot.release()
    assert free_slots(session) == 8


def test_a_slot_is_published_once(session):
    with session.claim() as slot:
        slot.inputs["x"][:] = 0
        slot.publish().result()
        with pytest.raises(trtinfer.InputError, match="already published"):
            slot.publish()
        with pytest.raises(trtinfer.InputError, match="already published"):
            slot.infer()
    wait_until(lambda: free_slots(session) == 8)
    assert session.stats()["accepted"] == 1


def test_a_released_slot_cannot_be_published(session):
    slot = session.claim()
    slot.release()
    with pytest.raises(trtinfer.InputError, match="released"):
        slot.publish()


def test_publish_takes_a_timeout_and_a_priority():
    with trtinfer.Session(models.slow_model(), max_inflight=1) as session:
        keep_busy(session)
        future = filled_slot(session).publish(timeout=0.0, priority=7)
        with pytest.raises(trtinfer.DeadlineExceededError):
            future.result(PATIENCE)


def test_a_full_ring_refuses_claims(session):
    slots = [session.claim() for _ in range(8)]
    with pytest.raises(trtinfer.QueueFullError, match="8 of 8"):
        session.claim()
    slots.pop().release()
    session.claim().release()


def test_a_slow_filler_blocks_nobody_else(session):
    with session.claim() as slow:
        for _ in range(50):  # many times around the ring
            x = rows(256)
            y = session.infer(x)["y"]
            np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
        slow.inputs["x"][:] = 1
        y = slow.infer()["y"]
    np.testing.assert_allclose(y, models.WEIGHTS.sum(0), rtol=1e-3, atol=1e-3)


def test_slots_published_out_of_order_get_their_own_answers(session):
    for _ in range(30):
        slots = [session.claim() for _ in range(5)]
        xs = rows(5, 256)
        for slot, x in zip(slots, xs, strict=True):
            slot.inputs["x"][:] = x
        order = RNG.permutation(5)
        futures = {i: slots[i].publish() for i in order}
        for i, future in futures.items():
            np.testing.assert_allclose(
                future.result()["y"], xs[i] @ models.WEIGHTS, rtol=1e-4, atol=1e-4
            )


def test_wraps_around_with_requests_of_every_size(session):
    for count in RNG.integers(1, 9, 300):
        x = rows(count, 256)
        y = session.infer(x)["y"]
        np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
    assert free_slots(session) == 8


def test_a_batch_of_scattered_slots_is_gathered():
    with trtinfer.Session(
        models.slow_model(), max_batch_size=8, capacity=16, max_inflight=1
    ) as session:
        busy = keep_busy(session)
        slots = [session.claim() for _ in range(8)]
        for i, slot in enumerate(slots):
            slot.inputs["x"][...] = i
        futures = [slot.publish() for slot in slots[::2]]
        assert busy.result()["y"] == 2 * models.BUSY
        assert [future.result()["y"] for future in futures] == [0, 4, 8, 12]
        for slot in slots[1::2]:
            slot.release()


# --- Shapes that vary ----------------------------------------------------------------------------


def test_a_claim_says_its_shape(varying):
    for length in (1, 7, 4000):
        x = rows(length)
        with varying.claim(shape=(length,)) as slot:
            assert slot.inputs["x"].shape == (length,)
            slot.inputs["x"][:] = x
            np.testing.assert_array_equal(slot.infer()["y"], x + x)


def test_shapes_go_by_name_for_several_inputs():
    with trtinfer.Session(models.several_model()) as session:
        with session.claim(shape={"a": (4,), "b": (2,)}) as slot:
            assert slot.inputs["b"].shape == (2,)
        with pytest.raises(trtinfer.InputError, match="a, b"):
            session.claim(shape=(4,))
        for shape in ({"a": (4,)}, {"a": (4,), "b": (2,), "c": (2,)}):
            with pytest.raises(trtinfer.InputError, match="'a', 'b'"):
                session.claim(shape=shape)


def test_a_shape_that_varies_must_be_said(varying):
    with pytest.raises(trtinfer.InputError, match=r"shape=.*x: float32\[\?, \?\]"):
        varying.claim()


@pytest.mark.parametrize("shape", [(), (2, 3), (-1,), (1 << 63,), (1 << 70,), 5, "no", (1.5,)])
def test_refuses_shapes_that_do_not_fit(varying, shape):
    before = varying.stats()
    with pytest.raises(trtinfer.InputError):
        varying.claim(shape=shape)
    after = varying.stats()
    assert after["invalid"] == before["invalid"] + 1
    assert after["free_slots"] == before["free_slots"]


@pytest.mark.parametrize("length", [1 << 14, 1 << 40, 1 << 61, 1 << 62])
def test_refuses_shapes_beyond_the_arena(varying, length):
    with varying.claim(shape=((1 << 14) - 16,)):
        pass
    with pytest.raises(trtinfer.InputError, match="arena_bytes"):
        varying.claim(shape=(length + 1,))


def test_refuses_a_shape_whose_bytes_overflow():
    with trtinfer.Session(models.nonzero_model(), batched=False) as session:
        for length in (1 << 62, (1 << 62) + 1, (1 << 63) - 1):
            with pytest.raises(trtinfer.InputError, match="arena_bytes"):
                session.claim(shape=(length,))


def test_a_full_arena_refuses_and_recovers(varying):
    slots = [varying.claim(shape=(4000,)) for _ in range(4)]
    with pytest.raises(trtinfer.QueueFullError):
        varying.claim(shape=(4000,))
    slots[0].release()
    varying.claim(shape=(3000,)).release()
    for slot in slots:
        slot.release()
    varying.claim(shape=((1 << 14) - 16,)).release()


def test_the_arena_wraps_around_without_mixing_requests(varying):
    held: list[tuple[np.ndarray, trtinfer.ring.Slot]] = []
    for length in RNG.integers(1, 3000, 300):
        x = rows(length)
        while True:
            try:
                slot = varying.claim(shape=(int(length),))
                break
            except trtinfer.QueueFullError:
                expected, oldest = held.pop(int(RNG.integers(len(held))))
                np.testing.assert_array_equal(oldest.infer()["y"], expected + expected)
        slot.inputs["x"][:] = x
        held.append((x, slot))
    for x, slot in held:
        np.testing.assert_array_equal(slot.infer()["y"], x + x)
    assert free_slots(varying) == 64


# --- Waiting and closing -------------------------------------------------------------------------


def test_a_waiting_claim_gets_the_first_free_slot(session):
    slots = [session.claim() for _ in range(8)]
    got: list[trtinfer.ring.Slot] = []
    thread = threading.Thread(target=lambda: got.append(session.claim(timeout=PATIENCE)))
    thread.start()
    slots[3].release()
    thread.join(PATIENCE)
    assert len(got) == 1
    assert session.stats()["rejected"] == 0


def test_a_claim_outlives_the_close_of_its_session():
    session = trtinfer.Session(models.matmul_model())
    slot = session.claim()
    session.close()
    slot.inputs["x"][:] = 1
    with pytest.raises(trtinfer.ClosedError):
        slot.publish()
    slot.release()
    with pytest.raises(trtinfer.ClosedError):
        session.claim()


def test_memory_of_a_view_outlives_everything():
    session = trtinfer.Session(models.matmul_model())
    view = session.claim().inputs["x"]
    session.close()
    del session
    gc.collect()
    view[:] = 3
    assert view.sum() == 3 * 256


def test_close_refuses_those_who_wait_for_room():
    session = trtinfer.Session(models.matmul_model(), max_batch_size=1, capacity=1)
    held = session.claim()
    errors: list[BaseException] = []

    def claim() -> None:
        try:
            session.claim(timeout=PATIENCE)
        except trtinfer.ClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    session.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(errors) == 3
    held.release()


def test_a_published_slot_waits_in_the_queue():
    with trtinfer.Session(models.slow_model(), max_inflight=1) as session:
        keep_busy(session)
        with session.claim() as slot:
            slot.inputs["x"][...] = 3
            future = slot.publish()
        wait_for_queue(session, 1)
        assert future.result()["y"] == 6


def test_one_of_the_threads_that_publish_a_slot_at_once_does():
    threads, rounds = 4, 100
    outcomes: list[object] = []
    ready = threading.Barrier(threads)

    def publish(slots: list[trtinfer.Slot]) -> None:
        for i, slot in enumerate(slots):
            ready.wait(PATIENCE)
            try:
                outcomes.append((i, float(slot.publish().result(PATIENCE)["y"])))
            except trtinfer.InputError:
                slot.release()

    with trtinfer.Session(models.slow_model()) as session:
        slots = [session.claim() for _ in range(rounds)]
        for i, slot in enumerate(slots):
            slot.inputs["x"][...] = i % 8
        callers = [threading.Thread(target=publish, args=(slots,)) for _ in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(PATIENCE)
        assert sorted(outcomes) == [(i, 2.0 * (i % 8)) for i in range(rounds)]
        stats = session.stats()
        assert (stats["accepted"], stats["completed"]) == (rounds, rounds)
        assert stats["free_slots"] == session.sizes.capacity
