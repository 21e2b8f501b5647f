"""Preprocessing on the GPU: the same bits as on the CPU, any sizes, one launch a batch."""

from __future__ import annotations

import numpy as np
import pytest
import reference_resize as reference

from trtinfer import _core
from trtinfer.preprocess import Recipe


def equals_cpu(recipe, images):
    got = _core.preprocess_gpu(recipe.native, images)
    expected = np.stack([recipe(image) for image in images])
    assert got.dtype == recipe.dtype
    wrong = [i for i in range(len(images)) if got[i].tobytes() != expected[i].tobytes()]
    assert not wrong, [images[i].shape for i in wrong]


def random_images(seed, count, largest=700):
    rng = np.random.default_rng(seed)
    kinds = ["noise", "smooth"]
    return [
        reference.random_image(rng, *reference.random_size(rng, largest), kinds[i % 2])
        for i in range(count)
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("pass_order", ["pillow-13", "horizontal-first"])
def test_equals_the_cpu_at_random_sizes(name, pass_order):
    rng = np.random.default_rng([1, len(name), len(pass_order)])
    images = random_images([2, len(name)], 200)
    for begin in range(0, 200, 10):
        height, width = reference.random_size(rng, 300)
        recipe = Recipe(resize=(height, width), filter=name, pass_order=pass_order)
        equals_cpu(recipe, images[begin : begin + 10])


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.named("torchvision"),
        Recipe.named("timm").replace(dtype="float16"),
        Recipe.named("efficientnet-lite0").replace(channel_order="BGR"),
        Recipe(resize=20, crop=(50, 70), pad_value=3),
        Recipe(crop=(33, 65)),
    ],
    ids=["bilinear", "bicubic-float16", "bgr", "padded", "crop-only"],
)
def test_mixed_batches_equal_the_cpu(recipe, count):
    equals_cpu(recipe, random_images(3, count))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(640, 640), (320, 417), (24, 1000)])
def test_letterboxes_equal_the_cpu(dtype, size):
    images = [*random_images(4, 24), np.full((*size, 3), 7, np.uint8)]
    equals_cpu(Recipe(letterbox=size, dtype=dtype), images)


@pytest.mark.gpu
def test_photos_of_common_sizes_equal_the_cpu():
    rng = np.random.default_rng(5)
    sizes = [(1080, 1920), (1920, 1080), (480, 640), (2160, 3840), (224, 224), (4000, 300)]
    images = [reference.random_image(rng, *size, "noise") for size in sizes]
    for name in ("yolov8-cls", "torchvision", "timm"):
        equals_cpu(Recipe.named(name), images)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(3, 20_000), (20_000, 3), (1, 65_000), (65_000, 1)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "opencv-bilinear"])
def test_windows_wider_than_shared_memory_equal_the_cpu(size, name):
    image = reference.random_image(np.random.default_rng(6), *size, "noise")
    equals_cpu(Recipe(resize=(40, 40), filter=name), [image])
    equals_cpu(Recipe(resize=(1, 1), filter=name), [image])


@pytest.mark.gpu
def test_views_of_larger_images_equal_the_cpu():
    image = reference.random_image(np.random.default_rng(7), 400, 500, "noise")
    views = [image[i : 300 + i, 2 * i : 350 + i] for i in range(16)]
    equals_cpu(Recipe.named("torchvision"), [*views, image[::-1], image[::3]])


@pytest.mark.gpu
def test_times_are_of_the_work():
    image = np.zeros((1080, 1920, 3), np.uint8)
    times = _core.time_preprocess_gpu(Recipe.named("torchvision").native, [image], 20)
    assert len(times) == 20
    best = min(times, key=lambda t: t.with_transfer)
    assert 0 < best.kernel < best.with_transfer


def test_a_recipe_of_varying_shape_is_refused():
    with pytest.raises(ValueError, match="outputs of one shape"):
        _core.preprocess_gpu(Recipe(resize=256).native, [np.zeros((5, 5, 3), np.uint8)])


def test_says_that_there_is_no_gpu():
    if not _core.probe_cuda().reason:
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="no GPU"):
        _core.preprocess_gpu(Recipe.named("timm").native, [np.zeros((5, 5, 3), np.uint8)])
