"""Outputs that stay on the GPU: right, complete, taken by others, and used again only in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import models
import numpy as np
import pytest
import reference_resize as reference
from apart import apart, main
from gpu import Gpu
from onnx import helper

import trtinfer
from trtinfer import DeviceTensor, InputError, TensorRtOptions, _core

WIDTH, MOST = 256, 8
BUSY = 400_000_000  # cycles: 0.2 s or more
ROWS = np.random.default_rng(8).random((64, WIDTH), np.float32)


def doubling_model(width: int = WIDTH) -> bytes:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    x, y = (models.tensor(name, ["n", width]) for name in "xy")
    return models.build([node], [x], [y])


def open_session(model: bytes, **more: object) -> trtinfer.Session:
    options = TensorRtOptions(outputs_on_gpu=True)
    more = {"max_batch_size": MOST, **more}
    return trtinfer.Session(model, backend="tensorrt", tensorrt=options, **more)


@pytest.fixture(scope="module")
def session() -> Iterator[trtinfer.Session]:
    with open_session(doubling_model()) as session:
        yield session


def check(y: object, x: np.ndarray) -> None:
    assert isinstance(y, DeviceTensor)
    assert y.shape == x.shape
    np.testing.assert_array_equal(y.numpy(), 2 * x)


@pytest.mark.gpu
def test_every_way_in_leads_there(session):
    check(session.infer(ROWS[0])["y"], ROWS[0])
    check(session.infer(ROWS[:5], timeout=30)["y"], ROWS[:5])
    check(asyncio.run(session.ainfer(ROWS[3]))["y"], ROWS[3])
    futures = [session.submit(row) for row in ROWS]
    for row, future in zip(ROWS, futures, strict=True):
        check(future.result(30)["y"], row)
    for row, outputs in zip(ROWS, session.infer_many(ROWS), strict=True):
        check(outputs["y"], row)
    with session.claim(3) as slot:
        slot.inputs["x"][:] = ROWS[:3]
        check(slot.publish().result(30)["y"], ROWS[:3])


@pytest.mark.gpu
def test_others_take_them_without_a_copy(session):
    torch = pytest.importorskip("torch")
    y = session.infer(ROWS[:4])["y"]
    given = torch.from_dlpack(y)
    assert given.is_cuda
    assert given.data_ptr() == y.__cuda_array_interface__["data"][0]
    np.testing.assert_array_equal(given.cpu().numpy(), 2 * ROWS[:4])
    by_interface = torch.as_tensor(y, device="cuda")
    assert by_interface.data_ptr() == given.data_ptr()
    np.testing.assert_array_equal(np.asarray(y, np.float64), (2 * ROWS[:4]).astype(np.float64))


@pytest.mark.gpu
def test_the_next_session_reads_them_where_they_lie(session):
    with open_session(doubling_model()) as next_session:
        y = next_session.infer(session.infer(ROWS[:6])["y"])["y"]
    np.testing.assert_array_equal(y.numpy(), 4 * ROWS[:6])


@pytest.mark.gpu
def test_what_is_held_stays_as_it_is(session):
    held = [(row, session.infer(row)["y"]) for row in ROWS[:10]]
    for _ in range(20):
        session.infer_many(ROWS)
    for row, y in held:
        check(y, row)


@pytest.mark.gpu
def test_what_is_given_back_is_used_again(session):
    session.infer_many(ROWS)
    before = _core.gpu_memory()[0]
    for _ in range(50):
        session.infer_many(ROWS)
    assert before - _core.gpu_memory()[0] < 1 << 20


@pytest.mark.gpu
def test_memory_is_used_again_only_after_work_on_the_default_stream(session):
    torch = pytest.importorskip("torch")
    for row in ROWS[:5]:
        torch.cuda._sleep(BUSY)
        copy = torch.from_dlpack(
            session.infer(row)["y"]
        ).clone()  # still waits; its source is given up
        session.infer_many(ROWS)
        np.testing.assert_array_equal(copy.cpu().numpy(), 2 * row)


@pytest.mark.gpu
def test_outputs_outlive_their_session():
    with open_session(doubling_model()) as session:
        y = session.infer(ROWS[0])["y"]
    check(y, ROWS[0])


@pytest.mark.gpu
def test_a_request_is_at_most_a_batch(session):
    with pytest.raises(InputError, match="more than a batch of 8"):
        session.infer(ROWS[: MOST + 1])
    assert session.stats()["invalid"] > 0


@pytest.mark.gpu
def test_images_give_such_outputs_too():
    recipe = trtinfer.Recipe.named("torchvision")
    rng = np.random.default_rng(1)
    images = [reference.random_image(rng, *size, "noise") for size in ((300, 400), (77, 501))]
    with open_session(models.image_identity_model(), preprocess=recipe) as session:
        for image, outputs in zip(images, session.infer_many(images), strict=True):
            np.testing.assert_array_equal(outputs["y"].numpy(), recipe(image))


def lose_the_gpu() -> None:
    with open_session(doubling_model(), capacity=64, max_batch_size=1) as session:
        check(session.infer(ROWS[0])["y"], ROWS[0])
        trap = Gpu().hold()
        futures = [session.submit(row) for row in ROWS]
        trap()
        for row, future in zip(ROWS, futures, strict=True):
            y = future.result(60)["y"]
            assert isinstance(y, np.ndarray)
            np.testing.assert_array_equal(y, 2 * row)
        assert session.backend == "onnxruntime"


@pytest.mark.gpu
def test_after_the_gpu_has_failed_they_are_arrays():
    apart(lose_the_gpu)


if __name__ == "__main__":
    main(globals())
