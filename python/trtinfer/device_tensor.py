"""Tensors of other libraries: on a GPU they are read where they lie, in host memory as arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from trtinfer import _core
from trtinfer.types import DTYPES, Array

DeviceTensor = _core.DeviceTensor


def hold(x: object) -> object:
    """Return a request whose tensors on a GPU have been read.

    What their libraries call the current stream is that of the thread that reads them.
    """
    if isinstance(x, Mapping):
        return {name: hold(value) for name, value in x.items()}
    return read(x) if _core.DeviceTensor.is_on_gpu(x) else x


def read(value: object) -> _core.DeviceTensor:
    """Return a value that lies on a GPU as what it is to the core."""
    return value if isinstance(value, _core.DeviceTensor) else DeviceTensor(value)


def dtype_of(tensor: _core.DeviceTensor) -> np.dtype[Any] | None:
    """Return NumPy's type of its elements; None: no model has it."""
    return DTYPES.get(tensor.element_type)


def as_array(value: object) -> Array | None:
    """Return a tensor in host memory as an array that shares it; None: NumPy has to see to it."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return None
    with contextlib.suppress(BufferError, RuntimeError, TypeError, ValueError):
        array: Array = np.from_dlpack(value)
        return array
    return None
