"""`trtinfer.Recipe`: what it accepts, what it refuses, and the named ones."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import PIL
import PIL.Image
import pytest
import reference_resize as reference

from trtinfer.errors import InputError
from trtinfer.preprocess import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ["yolov8-cls", "torchvision", "torchvision-v2", "timm", "efficientnet-lite0", "letterbox"]


def photo(height=90, width=120):
    return reference.random_image(np.random.default_rng(1), height, width, "smooth")


@pytest.mark.parametrize(
    ("name", "side", "filter_name", "mean", "std"),
    [
        ("yolov8-cls", 224, "bilinear", (0, 0, 0), (1, 1, 1)),
        ("torchvision", 256, "bilinear", MEAN, STD),
        ("torchvision-v2", 232, "bilinear", MEAN, STD),
        ("timm", 256, "bicubic", MEAN, STD),
        ("efficientnet-lite0", 256, "bilinear", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
def test_named_recipes_equal_their_sources(name, side, filter_name, mean, std):
    image = photo(300, 401)
    pixels = reference.short_side_and_crop(image, side, 224, filter_name)
    got = Recipe.named(name)(image)
    assert np.array_equal(got, reference.normalize(pixels, 255, mean, std))


def test_named_letterbox_is_640_gray_and_unit_range():
    image = photo(300, 401)
    expected = reference.normalize(reference.letterbox(image, 640, 640), 255, (0, 0, 0), (1, 1, 1))
    assert np.array_equal(Recipe.named("letterbox")(image), expected)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet': choose one of yolov8-cls, .*, letterbox"):
        Recipe.named("resnet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 0}, "resize is 0"),
        ({"resize": 65537}, "resize is 65537"),
        ({"resize": 2.5}, "resize is 2.5"),
        ({"resize": True}, "resize is True"),
        ({"resize": "224"}, "resize is '224'"),
        ({"resize": (224,)}, "resize is"),
        ({"resize": (224, -1)}, "resize is -1"),
        ({"crop": (1, 2, 3)}, "crop is"),
        ({"crop": 0}, "crop is 0"),
        ({"letterbox": None, "filter": "nearest"}, "filter is 'nearest': choose one of bilinear"),
        ({"letterbox": 640, "crop": 224}, "pass letterbox alone"),
        ({"letterbox": 640, "resize": 224}, "pass letterbox alone"),
        ({"pad_value": 256}, "pad_value is 256"),
        ({"pad_value": 0.5}, "pad_value is 0.5"),
        ({"channel_order": "GBR"}, "channel_order is 'GBR': choose one of RGB, BGR"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": math.nan}, "scale is nan"),
        ({"scale": 1e-60}, "scale is 1e-60"),
        ({"mean": (0.5, 0.5)}, "mean is"),
        ({"mean": "gray"}, "mean is 'gray'"),
        ({"mean": (0, 0, math.inf)}, "mean is inf"),
        ({"mean": 1e39}, "mean is 1e"),
        ({"std": (1, 0, 1)}, "std is 0"),
        ({"std": -1}, "std is -1"),
        ({"dtype": "float64"}, "dtype is 'float64': choose one of float32, float16"),
        ({"dtype": None}, "dtype is None"),
        ({"dtype": "no such"}, "dtype is 'no such'"),
        ({"pass_order": "vertical"}, "pass_order is 'vertical'"),
    ],
)
def test_wrong_parameters_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Recipe(**changes)


def test_positional_parameters_are_refused():
    with pytest.raises(TypeError):
        Recipe(224)


def test_numbers_of_numpy_are_accepted():
    recipe = Recipe(resize=np.int64(16), mean=np.float32([0.5, 0.25, 0.125]), scale=np.float32(255))
    assert recipe == Recipe(resize=16, mean=(0.5, 0.25, 0.125))
    assert isinstance(recipe.resize, int)


@pytest.mark.parametrize(
    ("recipe", "size", "shape"),
    [
        (Recipe(), (5, 7), (3, 5, 7)),
        (Recipe(resize=256), (480, 640), (3, 256, 341)),
        (Recipe(resize=256), (640, 480), (3, 341, 256)),
        (Recipe(resize=(10, 20)), (480, 640), (3, 10, 20)),
        (Recipe(resize=256, crop=(200, 100)), (480, 640), (3, 200, 100)),
        (Recipe(letterbox=(320, 640)), (480, 640), (3, 320, 640)),
    ],
)
def test_output_shape_is_known_before(recipe, size, shape):
    assert recipe.output_shape(*size) == shape
    assert recipe(photo(*size)).shape == shape


def test_fixed_output_shape_is_told_from_varying_ones():
    assert Recipe.named("timm").fixed_output_shape == (3, 224, 224)
    assert Recipe(letterbox=(32, 64)).fixed_output_shape == (3, 32, 64)
    assert Recipe(resize=(32, 64)).fixed_output_shape == (3, 32, 64)
    assert Recipe(resize=256).fixed_output_shape is None
    assert Recipe().fixed_output_shape is None


def test_output_is_new_contiguous_and_of_the_dtype():
    recipe = Recipe.named("torchvision").replace(dtype=np.float16)
    image = photo()
    first, second = recipe(image), recipe(image)
    assert recipe.dtype == first.dtype == np.float16
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert not np.shares_memory(first, second)


def test_default_pass_order_is_the_installed_pillows():
    newest = int(PIL.__version__.split(".")[0]) >= 13
    assert Recipe().pass_order == ("pillow-13" if newest else "horizontal-first")


def test_letterbox_has_defaults_of_its_own():
    recipe = Recipe(letterbox=64)
    assert (recipe.filter, recipe.pad_value) == ("opencv-bilinear", 114)
    other = Recipe(letterbox=64, filter="bicubic", pad_value=0)
    assert (other.filter, other.pad_value) == ("bicubic", 0)


def test_letterbox_works_with_pillows_filters():
    image = photo(100, 50)
    expected = PIL.Image.fromarray(image).resize((32, 64), PIL.Image.Resampling.BICUBIC)
    got = Recipe(letterbox=64, filter="bicubic", scale=1)(image)
    assert np.array_equal(got[:, :, 16:48], np.asarray(expected).transpose(2, 0, 1))
    assert (got[:, :, :16] == 114).all()
    assert (got[:, :, 48:] == 114).all()


def test_replace_keeps_the_rest():
    recipe = Recipe.named("timm").replace(dtype="float16", channel_order="BGR")
    assert (recipe.filter, recipe.mean, recipe.resize) == ("bicubic", MEAN, 256)
    assert recipe != Recipe.named("timm")
    with pytest.raises(TypeError):
        recipe.replace(sharpness=1)


def test_recipes_are_values():
    for recipe in (*map(Recipe.named, NAMES), Recipe(resize=(3, 4))):
        for twin in (pickle.loads(pickle.dumps(recipe)), copy.deepcopy(recipe), recipe.replace()):
            assert twin == recipe
            assert hash(twin) == hash(recipe)
            assert np.array_equal(twin(photo()), recipe(photo()))
    with pytest.raises(AttributeError):
        Recipe().scale = 2.0


def test_takes_files_and_pil_images():
    image, recipe = photo(), Recipe.named("torchvision")
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG")
    for source in (PIL.Image.fromarray(image), file.getvalue(), io.BytesIO(file.getvalue())):
        assert np.array_equal(recipe(source), recipe(image))


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0, 3), np.uint8), np.zeros((4, 4, 3)), b"", 7],
)
def test_what_is_no_image_is_an_input_error(image):
    with pytest.raises(InputError):
        Recipe.named("torchvision")(image)


def test_sizes_without_an_output_are_an_input_error():
    with pytest.raises(InputError, match="0 x 5"):
        Recipe.named("torchvision").output_shape(0, 5)
    with pytest.raises(InputError, match="crop it"):
        Recipe(resize=256).output_shape(1, 60_000)
