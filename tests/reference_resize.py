"""What preprocessing must equal, written from the definitions in NumPy, with no regard to speed."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image

PILLOW_FILTERS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}
PRECISION_BITS = 22


def _kernel(name, x):
    x = np.abs(x)
    if name == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _pillow_weights(name, source, target):
    """For every output pixel the first source pixel and the integer weights."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = (1.0 if name == "bilinear" else 2.0) * stretch
    for i in range(target):
        center = (i + 0.5) * scale
        begin = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), source)
        weights = _kernel(name, (np.arange(begin, end) - center + 0.5) * (1.0 / stretch))
        total = sum(weights.tolist())
        if total != 0:
            weights = weights / total
        rounding = np.where(weights < 0, -0.5, 0.5)
        yield begin, np.trunc(rounding + weights * (1 << PRECISION_BITS)).astype(np.int64)


def _pillow_pass(image, target, name):
    """Resamples axis 0."""
    source = image.astype(np.int64)
    rows = []
    for begin, weights in _pillow_weights(name, len(image), target):
        window = source[begin : begin + len(weights)]
        total = np.tensordot(weights, window, axes=1) + (1 << (PRECISION_BITS - 1))
        rows.append(np.clip(total >> PRECISION_BITS, 0, 255))
    return np.stack(rows).astype(np.uint8)


def pillow_resize(image, height, width, name, pass_order):
    """Pillow's `Image.resize` as of the version that has this pass order."""

    def vertical(a):
        return a if len(a) == height else _pillow_pass(a, height, name)

    def horizontal(a):
        if a.shape[1] == width:
            return a
        return _pillow_pass(a.swapaxes(0, 1), width, name).swapaxes(0, 1)

    shrink = image.shape[0] - height
    tall = shrink > 0 and shrink > 2 * (image.shape[1] - width)
    if pass_order == "pillow-13" and tall:
        return horizontal(vertical(image))
    return vertical(horizontal(image))


def _opencv_taps(source, target, clamp_weight):
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position)
    fraction = position - first
    if clamp_weight:  # columns: a tap outside gives its weight to the one inside
        outside = (first < 0) | (first >= source - 1)
        fraction = np.where(outside, np.float32(0), fraction)
        first = np.clip(first, 0, source - 1)
    one = np.float32(2048)
    low = np.rint((np.float32(1) - fraction) * one).astype(np.int64)
    high = np.rint(fraction * one).astype(np.int64)
    first = first.astype(np.int64)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), low, high


def opencv_resize(image, height, width):
    """OpenCV's `resize` with INTER_LINEAR, of bytes: 11-bit weights, no antialiasing."""
    source = image.astype(np.int64)
    x0, x1, a0, a1 = _opencv_taps(image.shape[1], width, clamp_weight=True)
    y0, y1, b0, b1 = _opencv_taps(image.shape[0], height, clamp_weight=False)
    wide = source[:, x0] * a0[:, None] + source[:, x1] * a1[:, None]
    upper = (b0[:, None, None] * (wide[y0] >> 4)) >> 16
    lower = (b1[:, None, None] * (wide[y1] >> 4)) >> 16
    return np.clip((upper + lower + 2) >> 2, 0, 255).astype(np.uint8)


def letterbox(image, height, width, pad_value=114):
    """ultralytics' LetterBox with a fixed size, scaling up too."""
    ratio = min(height / image.shape[0], width / image.shape[1])
    inner_height = max(round(image.shape[0] * ratio), 1)
    inner_width = max(round(image.shape[1] * ratio), 1)
    top = round((height - inner_height) / 2 - 0.1)
    left = round((width - inner_width) / 2 - 0.1)
    out = np.full((height, width, 3), pad_value, np.uint8)
    resized = opencv_resize(image, inner_height, inner_width)
    out[top : top + inner_height, left : left + inner_width] = resized
    return out


def short_side_and_crop(image, side, crop, name):
    """torchvision's Resize(side) and CenterCrop(crop) of a PIL image, as bytes."""
    height, width = image.shape[:2]
    longer = int(side * max(height, width) / min(height, width))
    size = (side, longer) if width <= height else (longer, side)
    resized = PIL.Image.fromarray(image).resize(size, PILLOW_FILTERS[name])
    missing_x, missing_y = max(crop - size[0], 0), max(crop - size[1], 0)
    padded = np.pad(
        np.asarray(resized),
        (
            (missing_y // 2, (missing_y + 1) // 2),
            (missing_x // 2, (missing_x + 1) // 2),
            (0, 0),
        ),
    )
    top = round((padded.shape[0] - crop) / 2.0)
    left = round((padded.shape[1] - crop) / 2.0)
    return padded[top : top + crop, left : left + crop]


def normalize(pixels, scale, mean, std, dtype=np.float32):
    """torch's ToTensor and Normalize: float32 step by step, channels first."""
    planes = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(scale)
    planes = planes - np.asarray(mean, np.float32).reshape(-1, 1, 1)
    planes = planes / np.asarray(std, np.float32).reshape(-1, 1, 1)
    assert planes.dtype == np.float32
    return planes.astype(dtype)


def random_size(rng, largest):
    """Height and width, small ones as often as large ones; every eighth side is one pixel."""
    height, width = np.exp(rng.uniform(0, math.log(largest), 2)).astype(int)
    if rng.integers(8) == 0:
        height = 1
    if rng.integers(8) == 0:
        width = 1
    return int(height), int(width)


def random_image(rng, height, width, kind):
    """Noise, or a smooth picture."""
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / 17 + y / 31 + c) for c in range(3)]
    return np.stack(waves, -1).astype(np.uint8)
