"""Sessions whose inputs are images."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import models
import numpy as np
import PIL.Image
import pytest
from waiting import PATIENCE, wait_until

import trtinfer

RNG = np.random.default_rng(0)
RECIPE = trtinfer.Recipe(resize=10, crop=8)


@pytest.fixture
def session():
    with trtinfer.Session(
        models.image_model(), preprocess=RECIPE, max_batch_size=4, capacity=16, arena_bytes=1 << 16
    ) as session:
        yield session


def random_image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def expected(image: np.ndarray) -> np.ndarray:
    return RECIPE(image).mean((1, 2))


def check(outputs: trtinfer.types.Outputs, image: np.ndarray) -> None:
    np.testing.assert_allclose(outputs["means"], expected(image), rtol=1e-5, atol=1e-6)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_the_input_is_an_image_of_any_size(session):
    assert [str(info) for info in session.inputs] == ["images: uint8[?, ?, 3]"]
    assert [str(info) for info in session.outputs] == ["means: float32[?, 3]"]


def test_takes_arrays_bytes_paths_files_and_pil_images(session, tmp_path: Path):
    image = random_image(20, 30)
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    for request in (image, png(image), path, str(path), PIL.Image.fromarray(image)):
        check(session.infer(request), image)
        check(session.submit(request).result(PATIENCE), image)
        check(asyncio.run(session.ainfer(request)), image)
    with path.open("rb") as file:
        check(session.infer(file), image)


def test_a_recipe_may_be_named():
    with trtinfer.Session(models.image_model(224), preprocess="yolov8-cls") as session:
        image = random_image(300, 400)
        means = trtinfer.Recipe.named("yolov8-cls")(image).mean((1, 2))
        np.testing.assert_allclose(session.infer(image)["means"], means, rtol=1e-4)


def test_images_of_every_size_share_batches():
    with trtinfer.Session(
        models.image_model(), preprocess=RECIPE, max_batch_size=4, max_delay=PATIENCE
    ) as session:
        images = [random_image(*size) for size in ((9, 9), (50, 20), (8, 100), (1, 1))]
        futures = [session.submit(image) for image in images]
        for image, future in zip(images, futures, strict=True):
            check(future.result(PATIENCE), image)
        assert sum(session.stats()["batch_sizes"].values()) <= 4


def test_a_slot_is_claimed_by_its_size(session):
    image = random_image(21, 13)
    with session.claim(shape=(21, 13, 3)) as slot:
        view = slot.inputs["images"]
        assert (view.shape, view.dtype) == ((21, 13, 3), np.uint8)
        view[:] = image
        check(slot.infer(), image)


@pytest.mark.parametrize("shape", [None, (), (5, 5), (5, 5, 4), (-1, 5, 3), (0, 5, 3), (5, 0, 3)])
def test_refuses_sizes_that_are_no_image(session, shape):
    with pytest.raises(trtinfer.InputError):
        session.claim(shape=shape)
    assert session.stats()["free_slots"] == 16


def test_the_arena_wraps_around_without_mixing_images(session):
    for _ in range(100):
        images = [random_image(*RNG.integers(1, 60, 2)) for _ in range(5)]
        futures = [session.submit(image, timeout=PATIENCE) for image in images]
        for image, future in zip(images, futures, strict=True):
            check(future.result(PATIENCE), image)
    wait_until(lambda: session.stats()["free_slots"] == 16)


def test_an_exhausted_arena_refuses_and_recovers(session):
    slots = [session.claim(shape=(100, 70, 3)) for _ in range(3)]
    with pytest.raises(trtinfer.QueueFullError, match="arena_bytes="):
        session.infer(random_image(100, 70))
    for slot in slots:
        slot.release()
    image = random_image(100, 70)
    check(session.infer(image), image)


def test_an_image_larger_than_the_arena_is_an_input_error(session):
    for request in (random_image(200, 200), png(random_image(200, 200))):
        with pytest.raises(trtinfer.InputError, match="arena_bytes"):
            session.infer(request)
    assert session.stats()["invalid"] == 2


@pytest.mark.parametrize(
    "request_",
    [
        *(b"", b"no image", "nowhere.png", 5, None, np.zeros((2, 2, 7))),
        *(np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0, 3), np.uint8)),
    ],
)
def test_a_bad_image_fails_alone(session, request_):
    image = random_image(9, 9)
    future = session.submit(image)
    with pytest.raises(trtinfer.InputError):
        session.infer(request_)
    check(future.result(PATIENCE), image)
    assert session.stats()["free_slots"] >= 15


def test_a_truncated_image_gives_its_slot_back(session):
    data = png(random_image(50, 50))
    with pytest.raises(trtinfer.InputError):
        session.infer(data[: len(data) // 2])
    assert session.stats()["free_slots"] == 16


@pytest.mark.parametrize(
    ("model", "options", "recipe"),
    [
        (models.matmul_model, (), "yolov8-cls"),
        (models.several_model, (), "yolov8-cls"),
        (models.string_model, (), "yolov8-cls"),
        (models.image_model, (9,), RECIPE),
        (models.image_model, (8,), trtinfer.Recipe(resize=10)),
        (models.image_model, (8,), RECIPE.replace(dtype="float16")),
    ],
)
def test_refuses_models_that_the_recipe_does_not_fit(model, options, recipe):
    with pytest.raises(trtinfer.ModelError, match="recipe"):
        trtinfer.Session(model(*options), preprocess=recipe)
