"""Reads weights that old PyTorch (before 1.6) saved, with neither PyTorch nor free unpickling.

Such a file is a row of pickles (magic, version, machine, tensors, storage keys), then the storages:
a 64-bit count and that many numbers each, in the order of the keys.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trtinfer.errors import ModelError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


class _Tensor(NamedTuple):
    """Where a tensor lies; its numbers come after the pickles."""

    storage: tuple[str, np.dtype[Any]]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: object


# All that a pickle of weights may name; nothing here runs code of the file's choice.
_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _WeightsUnpickler(pickle.Unpickler):
    """Builds `_Tensor`s in place of PyTorch's objects."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ModelError(
                f"the checkpoint names {module}.{name}, which no plain state dict does; "
                "it may be hostile, do not load it elsewhere"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ModelError(f"the checkpoint refers to {pid!r}; only storages can be read")
        return str(key), dtype


def read(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Reads every tensor of a checkpoint.

    Args:
        data: The whole file.

    Returns:
        Tensor name to array (float32 or int64), read-only views of `data`.

    Raises:
        ModelError: It is no such checkpoint, is damaged, or names anything but tensors.
    """
    file = io.BytesIO(data)
    try:
        head = [_WeightsUnpickler(file).load() for _ in range(5)]
        magic, version, machine, tensors, keys = head
        if magic != _MAGIC or version != _VERSION or not machine.get("little_endian", True):
            raise ModelError(
                f"expected a little-endian PyTorch checkpoint of version {_VERSION}, got version "
                f"{version!r}; save the weights as a plain state dict in the old format"
            )
        dtypes = dict(tensor.storage for tensor in tensors.values())
        storages = {key: _take_storage(file, data, dtypes[key]) for key in keys}
        return {
            name: _view(tensor, storages[tensor.storage[0]]) for name, tensor in tensors.items()
        }
    except ModelError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ModelError(
            f"the checkpoint of {len(data)} bytes cannot be read: {error!r}; download it again"
        ) from error


def _take_storage(file: io.BytesIO, data: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    (count,) = struct.unpack("<q", file.read(8))
    start = file.tell()
    file.seek(count * dtype.itemsize, io.SEEK_CUR)
    return np.frombuffer(data, dtype, count, start)


def _view(tensor: _Tensor, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lays a tensor over its storage; NumPy refuses strides that leave it."""
    size = storage.itemsize
    strides = [stride * size for stride in tensor.strides]
    return np.ndarray(tensor.shape, storage.dtype, storage, tensor.offset * size, strides)
