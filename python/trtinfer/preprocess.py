"""Recipes: how an image becomes the network's input, exactly as Pillow, torch and OpenCV do it."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
import PIL

from trtinfer import _core, images
from trtinfer.errors import InputError

Choice = TypeVar("Choice")

_FILTERS: Final = {
    "bilinear": _core.Filter.BILINEAR,
    "bicubic": _core.Filter.BICUBIC,
    "opencv-bilinear": _core.Filter.OPENCV_LINEAR,
}
_PASS_ORDERS: Final = {
    "horizontal-first": _core.PassOrder.HORIZONTAL_FIRST,
    "pillow-13": _core.PassOrder.PILLOW13,
}
_CHANNEL_ORDERS: Final = {"RGB": _core.ChannelOrder.RGB, "BGR": _core.ChannelOrder.BGR}
_DTYPES: Final = {"float32": _core.Dtype.FLOAT32, "float16": _core.Dtype.FLOAT16}
_LARGEST_SIDE: Final = 65536
_MAX_THREADS: Final = 8
_LARGEST_FLOAT32: Final = float(np.finfo(np.float32).max)
_SMALLEST_FLOAT32: Final = float(np.finfo(np.float32).tiny)

_IMAGENET: Final[dict[str, Any]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_NAMED: Final[dict[str, dict[str, Any]]] = {
    "yolov8-cls": {"resize": 224, "crop": 224},
    "torchvision": {"resize": 256, "crop": 224, **_IMAGENET},
    "torchvision-v2": {"resize": 232, "crop": 224, **_IMAGENET},
    "timm": {"resize": 256, "filter": "bicubic", "crop": 224, **_IMAGENET},
    "efficientnet-lite0": {"resize": 256, "crop": 224, "mean": 127 / 255, "std": 128 / 255},
    "letterbox": {"letterbox": 640},
}


@dataclasses.dataclass(frozen=True, init=False)
class Recipe:
    """Resize, crop or letterbox, and normalization of an RGB image; immutable and thread-safe.

    Every step is bit-exact with the library it is named after: "bilinear" and "bicubic" with
    Pillow's antialiased `Image.resize`, "opencv-bilinear" with OpenCV's `INTER_LINEAR`, sizes and
    crops with torchvision's `Resize` and `CenterCrop`, the letterbox with ultralytics' `LetterBox`,
    normalization with torch's `ToTensor` and `Normalize` in float32: (pixel / scale - mean) / std.

    Attributes:
        resize: The short side in pixels (the long one keeps the aspect, cut off to an integer), or
            (height, width) to stretch to, or None.
        filter: "bilinear", "bicubic" or "opencv-bilinear".
        crop: (height, width) taken from the center, or None; a smaller image is padded.
        letterbox: (height, width) that the image is fitted into, centered, or None; instead of
            resize and crop.
        pad_value: Pixel value, 0 to 255, of padding.
        channel_order: "RGB" or "BGR", of the output; images are RGB.
        scale: Pixel value that becomes 1.
        mean: One float for each output channel, in the output's order.
        std: One float for each output channel, in the output's order.
        dtype: Of the output: float32, or float16 (the float32 value rounded to nearest even).
        pass_order: "pillow-13" (tall images are shrunk vertically first, as Pillow 13 does) or
            "horizontal-first" (Pillow 12 and older); they differ in the last bits of tall images.
        native: The same parameters for the native core.
    """

    resize: int | tuple[int, int] | None
    filter: str
    crop: tuple[int, int] | None
    letterbox: tuple[int, int] | None
    pad_value: int
    channel_order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: np.dtype[Any]
    pass_order: str
    native: _core.Recipe = dataclasses.field(init=False, repr=False, compare=False)
    _host: _core.HostPreprocessor = dataclasses.field(init=False, repr=False, compare=False)

    def __init__(  # noqa: PLR0913
        self,
        *,
        resize: int | Sequence[int] | None = None,
        filter: str | None = None,
        crop: int | Sequence[int] | None = None,
        letterbox: int | Sequence[int] | None = None,
        pad_value: int | None = None,
        channel_order: str = "RGB",
        scale: float = 255.0,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        dtype: npt.DTypeLike = np.float32,
        pass_order: str | None = None,
    ) -> None:
        """Checks the parameters; see the class for what they mean.

        Args:
            resize: As the attribute.
            filter: As the attribute; by default "bilinear", for a letterbox "opencv-bilinear".
            crop: As the attribute; one number means a square.
            letterbox: As the attribute; one number means a square.
            pad_value: As the attribute; by default 0, for a letterbox 114.
            channel_order: As the attribute.
            scale: As the attribute.
            mean: As the attribute; one number is for every channel.
            std: As the attribute; one number is for every channel.
            dtype: As the attribute; anything that `numpy.dtype` takes.
            pass_order: As the attribute; by default that of the installed Pillow.

        Raises:
            ValueError: A parameter is out of range, or two of them exclude each other.
        """
        boxed = letterbox is not None
        if boxed and (resize is not None or crop is not None):
            raise ValueError("letterbox replaces resize and crop: pass letterbox alone")
        values = {
            "resize": _size(resize, "resize")
            if _integer(resize) is None
            else _side(resize, "resize"),
            "filter": filter or ("opencv-bilinear" if boxed else "bilinear"),
            "crop": _size(crop, "crop"),
            "letterbox": _size(letterbox, "letterbox"),
            "pad_value": _pad_value((114 if boxed else 0) if pad_value is None else pad_value),
            "channel_order": channel_order,
            "scale": _positive(scale, "scale"),
            "mean": _per_channel(mean, "mean", _finite),
            "std": _per_channel(std, "std", _positive),
            "dtype": _dtype(dtype),
            "pass_order": pass_order or _installed_pass_order(),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "native", _native(self))
        object.__setattr__(self, "_host", _core.HostPreprocessor(self.native, _threads()))

    @classmethod
    def named(cls, name: str) -> Recipe:
        """The recipe of a model family: `Recipe.named("timm").replace(dtype="float16")`, say.

        Args:
            name: "yolov8-cls", "torchvision", "torchvision-v2" (short side 232), "timm" (bicubic),
                "efficientnet-lite0" (all: short side, then a crop of 224) or "letterbox" (640).

        Raises:
            ValueError: There is no such recipe.
        """
        if name not in _NAMED:
            raise ValueError(f"no recipe is named {name!r}: choose one of {', '.join(_NAMED)}")
        return cls(**_NAMED[name])

    def replace(self, **changes: Any) -> Recipe:
        """This recipe with other values of some attributes; see the class."""
        return dataclasses.replace(self, **changes)

    @property
    def fixed_output_shape(self) -> tuple[int, int, int] | None:
        """(3, height, width) when images of every size give that shape, else None."""
        return self.output_shape(1, 1) if self.native.has_fixed_output else None

    def output_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(3, height, width) of the output for an image of `height` x `width` pixels.

        Raises:
            InputError: Such an image has no pixels, or its output would have too many.
        """
        try:
            channels, rows, columns = self._host.output_shape(height, width)
        except ValueError as error:
            raise InputError(str(error)) from error
        return channels, rows, columns

    def __call__(self, image: object) -> npt.NDArray[Any]:
        """Preprocesses one image on the CPU, without the GIL.

        Args:
            image: height x width x 3 uint8 array, RGB, used without a copy when its rows are whole;
                or anything that `Classifier` takes: a path, bytes, a PIL image.

        Returns:
            A new C-contiguous array of shape `output_shape(height, width)` and of `dtype`.

        Raises:
            InputError: The image cannot be read, or cannot be resized.
        """
        pixels = image if _is_rgb(image) else images.decode(image)
        if pixels.strides[2] != 1 or pixels.strides[1] != 3:
            pixels = np.ascontiguousarray(pixels)
        try:
            return self._host(pixels)
        except ValueError as error:
            raise InputError(str(error)) from error

    def __reduce__(self) -> tuple[Callable[[], Recipe], tuple[()]]:
        """Pickles the parameters; the native part is made anew."""
        names = [field.name for field in dataclasses.fields(self) if field.init]
        return functools.partial(type(self), **{name: getattr(self, name) for name in names}), ()


def _native(recipe: Recipe) -> _core.Recipe:
    native = _core.Recipe()
    if recipe.letterbox is not None:
        native.resize = _core.Resize.LETTERBOX
        native.resize_height, native.resize_width = recipe.letterbox
    elif isinstance(recipe.resize, int):
        native.resize, native.resize_height = _core.Resize.SHORT_SIDE, recipe.resize
    elif recipe.resize is not None:
        native.resize = _core.Resize.EXACT
        native.resize_height, native.resize_width = recipe.resize
    native.crop_height, native.crop_width = recipe.crop or (0, 0)
    native.filter = _choice(_FILTERS, recipe.filter, "filter")
    native.pass_order = _choice(_PASS_ORDERS, recipe.pass_order, "pass_order")
    native.channel_order = _choice(_CHANNEL_ORDERS, recipe.channel_order, "channel_order")
    native.dtype = _choice(_DTYPES, recipe.dtype.name, "dtype")
    native.pad_value, native.scale = recipe.pad_value, recipe.scale
    native.mean, native.std = recipe.mean, recipe.std
    return native


def _choice(choices: Mapping[str, Choice], value: str, name: str) -> Choice:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
    return choices[value]


def _is_rgb(image: object) -> TypeGuard[npt.NDArray[np.uint8]]:
    if not isinstance(image, np.ndarray):
        return False
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _installed_pass_order() -> str:
    return "pillow-13" if int(PIL.__version__.split(".")[0]) >= 13 else "horizontal-first"


def _threads() -> int:
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def _side(value: object, name: str) -> int:
    side = _integer(value)
    if side is None or not 1 <= side <= _LARGEST_SIDE:
        raise ValueError(f"{name} is {value!r}: pass pixels, 1 to {_LARGEST_SIDE}")
    return side


def _size(value: object, name: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [value] * 2 if _integer(value) is not None else value
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise ValueError(f"{name} is {value!r}: pass pixels, or (height, width) in pixels")
    return _side(sides[0], name), _side(sides[1], name)


def _pad_value(value: object) -> int:
    pad = _integer(value)
    if pad is None or not 0 <= pad <= 255:
        raise ValueError(f"pad_value is {value!r}: pass a pixel value, 0 to 255")
    return pad


def _integer(value: object) -> int | None:
    """The value as an int, None for anything that is no integer (True and False are none)."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _finite(value: object, name: str) -> float:
    """The float32 that the arithmetic will use must be finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= _LARGEST_FLOAT32:
        raise ValueError(f"{name} is {value!r}: pass a finite number")
    return number


def _positive(value: object, name: str) -> float:
    number = _finite(value, name)
    if number < _SMALLEST_FLOAT32:
        raise ValueError(f"{name} is {value!r}: pass a positive number")
    return number


def _per_channel(
    value: object, name: str, check: Callable[[object, str], float]
) -> tuple[float, float, float]:
    values = value if isinstance(value, (Sequence, np.ndarray)) else [value] * 3
    if isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name} is {value!r}: pass one number, or one for each of 3 channels")
    first, second, third = (check(v, name) for v in values)
    return first, second, third


def _dtype(value: npt.DTypeLike) -> np.dtype[Any]:
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in _DTYPES or value is None:
        raise ValueError(f"dtype is {value!r}: choose one of {', '.join(_DTYPES)}")
    return dtype.newbyteorder("=")
