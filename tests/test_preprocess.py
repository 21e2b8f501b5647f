"""Preprocessing on the CPU: the same bits as Pillow, torch and OpenCV."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import reference_resize as reference

from trtinfer import _core
from trtinfer.preprocess import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels_of(recipe, image):
    """A recipe's output before normalization: height x width x 3 bytes."""
    planes = recipe.replace(scale=1, mean=0, std=1, dtype="float32")(image)
    assert np.array_equal(planes, planes.astype(np.uint8))
    return planes.astype(np.uint8).transpose(1, 2, 0)


@pytest.fixture(params=["simd", "portable"])
def code(request):
    _core.allow_simd(request.param == "simd")
    yield
    _core.allow_simd(True)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
@pytest.mark.usefixtures("code")
def test_equals_the_installed_pillow_at_random_sizes(name, kind):
    rng = np.random.default_rng([1, len(name), len(kind)])
    for _ in range(100):
        height, width = reference.random_size(rng, 500)
        image = reference.random_image(rng, *reference.random_size(rng, 700), kind)
        resized = PIL.Image.fromarray(image).resize((width, height), reference.PILLOW_FILTERS[name])
        got = pixels_of(Recipe(resize=(height, width), filter=name), image)
        assert np.array_equal(got, np.asarray(resized)), (image.shape, height, width)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("source", [(1, 1), (1, 9), (9, 1), (2, 3), (1, 2000), (3000, 2)])
@pytest.mark.parametrize("target", [(1, 1), (1, 7), (7, 1), (40, 3), (224, 224)])
def test_equals_the_installed_pillow_at_the_edges(name, source, target):
    image = reference.random_image(np.random.default_rng(2), *source, "noise")
    expected = PIL.Image.fromarray(image).resize(target[::-1], reference.PILLOW_FILTERS[name])
    assert np.array_equal(pixels_of(Recipe(resize=target, filter=name), image), expected)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("pass_order", ["horizontal-first", "pillow-13"])
@pytest.mark.usefixtures("code")
def test_both_pass_orders_equal_their_definition(name, pass_order):
    rng = np.random.default_rng([3, len(name)])
    for _ in range(40):
        height, width = reference.random_size(rng, 60)
        source = height + int(rng.integers(0, 200)), width + int(rng.integers(0, 60))
        image = reference.random_image(rng, *source, "noise")
        expected = reference.pillow_resize(image, height, width, name, pass_order)
        recipe = Recipe(resize=(height, width), filter=name, pass_order=pass_order)
        assert np.array_equal(pixels_of(recipe, image), expected), (image.shape, height, width)


def test_pass_orders_differ_for_tall_images_only():
    rng = np.random.default_rng(4)
    recipe = Recipe(resize=(32, 32), filter="bicubic", pass_order="pillow-13")
    other = recipe.replace(pass_order="horizontal-first")
    tall, wide = (rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in [(300, 60), (60, 300)])
    assert not np.array_equal(recipe(tall), other(tall))
    assert np.array_equal(recipe(wide), other(wide))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_short_side_and_center_crop_equal_torchvision(name):
    rng = np.random.default_rng([5, len(name)])
    for _ in range(60):
        side, crop = (int(n) for n in rng.integers(1, 90, 2))
        height, width = (int(n) for n in rng.integers(1, 200, 2))
        image = reference.random_image(rng, height, width, "noise")
        expected = reference.short_side_and_crop(image, side, crop, name)
        got = pixels_of(Recipe(resize=side, filter=name, crop=crop), image)
        assert np.array_equal(got, expected), (image.shape, side, crop)


def test_a_crop_without_resize_pads_small_images_with_zeros():
    image = np.full((3, 6, 3), 200, np.uint8)
    got = pixels_of(Recipe(crop=(6, 4)), image)
    expected = np.zeros((6, 4, 3), np.uint8)
    expected[1:4] = 200  # the odd row of padding goes below
    assert np.array_equal(got, expected)


def test_crop_offsets_are_rounded_half_to_even():
    image = np.zeros((9, 7, 3), np.uint8)
    image[..., 0] = np.arange(9)[:, None]
    image[..., 1] = np.arange(7)
    got = pixels_of(Recipe(crop=(4, 4)), image)
    assert got[0, 0, 0] == 2  # (9 - 4) / 2 = 2.5
    assert got[0, 0, 1] == 2  # (7 - 4) / 2 = 1.5


@pytest.mark.usefixtures("code")
def test_opencv_bilinear_equals_its_definition():
    rng = np.random.default_rng(6)
    for _ in range(200):
        height, width = reference.random_size(rng, 400)
        image = reference.random_image(rng, *reference.random_size(rng, 500), "noise")
        expected = reference.opencv_resize(image, height, width)
        got = pixels_of(Recipe(resize=(height, width), filter="opencv-bilinear"), image)
        assert np.array_equal(got, expected), (image.shape, height, width)


def test_letterbox_equals_its_definition():
    rng = np.random.default_rng(7)
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(8, 200, 2))
        image = reference.random_image(rng, *reference.random_size(rng, 400), "noise")
        expected = reference.letterbox(image, height, width)
        got = pixels_of(Recipe(letterbox=(height, width)), image)
        assert np.array_equal(got, expected), (image.shape, height, width)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (255, MEAN, STD),
        (255, (0, 0, 0), (1, 1, 1)),
        (255, (127 / 255,) * 3, (128 / 255,) * 3),
        (1, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (255, (0, 1e-4, 0.5), (3e-5, 1e4, 1e-9)),  # beyond float16's range, and subnormal
    ],
)
def test_normalization_equals_torch_bit_for_bit(dtype, scale, mean, std):
    image = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    with np.errstate(over="ignore"):
        expected = reference.normalize(image, scale, mean, std, dtype)
    got = Recipe(scale=scale, mean=mean, std=std, dtype=dtype)(image)
    assert got.dtype == dtype
    assert got.tobytes() == expected.tobytes()


def test_bgr_output_has_mean_and_std_in_its_own_order():
    image = reference.random_image(np.random.default_rng(8), 20, 30, "noise")
    got = Recipe(channel_order="BGR", mean=MEAN, std=STD)(image)
    assert np.array_equal(got, reference.normalize(image[..., ::-1], 255, MEAN, STD))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, ::3],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],
        lambda a: a[5:6, 7:8],
        lambda a: a[:, ::40],
        lambda a: np.asfortranarray(a),
    ],
)
def test_takes_views_of_any_layout(view):
    image = view(reference.random_image(np.random.default_rng(9), 60, 80, "noise"))
    recipe = Recipe(resize=24, crop=20)
    assert np.array_equal(recipe(image), recipe(np.array(image, order="C")))


def test_read_only_images_stay_as_they_are():
    image = reference.random_image(np.random.default_rng(10), 50, 40, "noise")
    before = image.copy()
    image.flags.writeable = False
    Recipe.named("torchvision")(image)
    assert np.array_equal(image, before)


def test_threads_share_a_recipe():
    rng = np.random.default_rng(11)
    recipe = Recipe.named("torchvision")
    images = [rng.integers(0, 256, (100 + i, 300 - i, 3), dtype=np.uint8) for i in range(40)]
    expected = [recipe(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(recipe, images * 4), expected * 4, strict=True):
            assert np.array_equal(got, want)


def test_other_threads_run_meanwhile():
    image = np.zeros((6000, 6000, 3), np.uint8)
    recipe = Recipe(resize=(2000, 2000))
    span = []

    def work():
        span.append(time.perf_counter())
        recipe(image)
        span.append(time.perf_counter())

    thread = threading.Thread(target=work)
    stamps = []
    thread.start()
    while thread.is_alive():
        stamps.append(time.perf_counter())
        time.sleep(0.001)
    thread.join()
    begin, end = span
    inside = [s for s in stamps if begin + (end - begin) / 4 < s < end - (end - begin) / 4]
    assert len(inside) >= 3


def test_an_extreme_aspect_costs_only_the_crop():
    image = reference.random_image(np.random.default_rng(12), 1, 60_000, "noise")
    begin = time.perf_counter()
    out = Recipe.named("torchvision")(image)  # resized whole it would be 256 x 15,360,000
    assert out.shape == (3, 224, 224)
    assert time.perf_counter() - begin < 1


def test_one_thread_takes_at_most_six_tenths_of_pillow_and_numpy():
    image = reference.random_image(np.random.default_rng(13), 1080, 1920, "noise")
    picture = PIL.Image.fromarray(image)
    native = _core.HostPreprocessor(Recipe.named("torchvision").native, 1)
    mean, std = np.float32(MEAN), np.float32(STD)

    def with_pillow():
        resized = picture.resize((455, 256), PIL.Image.Resampling.BILINEAR)
        pixels = np.asarray(resized.crop((116, 16, 340, 240)), np.float32)
        pixels = (pixels / np.float32(255) - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    assert np.array_equal(native(image), with_pillow())
    times = {with_pillow: [], native: []}
    for _ in range(9):
        for run, measured in times.items():
            begin = time.perf_counter()
            run(image) if run is native else run()
            measured.append(time.perf_counter() - begin)
    assert np.median(times[native]) <= 0.6 * np.median(times[with_pillow])
