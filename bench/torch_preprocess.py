"""Preprocessing a batch of images of one size on the GPU, as torchvision's users do it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trtinfer import Recipe

try:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms
except ImportError:
    transforms = None

NAME = "torchvision" if transforms is not None else "torch's interpolate"
_COPIED_BYTES = 1 << 30


def bandwidth() -> float:
    """Bytes a second that a copy within the GPU reads and writes."""
    source = torch.randint(0, 256, (_COPIED_BYTES,), dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(source)
    times = []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        copy.copy_(source)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * _COPIED_BYTES / sorted(times)[len(times) // 2]


class Batch:
    """Images (n, 3, height, width) in pinned and in device memory, preprocessed together."""

    def __init__(self, recipe: Recipe, images: Sequence[NDArray[np.uint8]]) -> None:
        self._recipe = recipe
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        self._sent = stacked.contiguous().pin_memory()
        self._on_gpu = self._sent.cuda()
        self._got = torch.empty_like(self._preprocess(self._on_gpu), device="cpu").pin_memory()

    def _preprocess(self, images: Tensor) -> Tensor:
        preprocess = _with_torch if transforms is None else _with_torchvision
        return preprocess(self._recipe, images)

    def without_copies(self) -> None:
        self._preprocess(self._on_gpu)
        torch.cuda.synchronize()

    def with_copies(self) -> None:
        self._got.copy_(self._preprocess(self._sent.to("cuda", non_blocking=True)))
        torch.cuda.synchronize()

    def answers(self) -> NDArray[Any]:
        return self._preprocess(self._on_gpu).cpu().numpy()


def _with_torchvision(recipe: Recipe, images: Tensor) -> Tensor:
    mode = InterpolationMode(recipe.filter)
    resized = transforms.resize(images, [recipe.resize], interpolation=mode, antialias=True)
    cropped = transforms.center_crop(resized, list(recipe.crop))
    values = transforms.to_dtype(cropped, torch.float16, scale=True)
    return transforms.normalize(values, list(recipe.mean), list(recipe.std))


def _with_torch(recipe: Recipe, images: Tensor) -> Tensor:
    side, (height, width) = recipe.resize, recipe.crop
    scale = side / min(images.shape[2:])
    size = [int(images.shape[2] * scale), int(images.shape[3] * scale)]
    resized = functional.interpolate(
        images.to(torch.float16), size, mode=recipe.filter, antialias=True
    )
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    mean, spread = _normalization(recipe)
    return (resized[:, :, top : top + height, left : left + width] - mean) / spread


@functools.cache
def _normalization(recipe: Recipe) -> tuple[Tensor, Tensor]:
    def load(values: Sequence[float]) -> Tensor:
        scaled = torch.tensor(values, dtype=torch.float16, device="cuda") * recipe.scale
        return scaled.view(1, 3, 1, 1)

    return load(recipe.mean), load(recipe.std)
