"""Tensors of other libraries: on a GPU they are read where they lie, in host memory as arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from trtinfer import _core
from trtinfer.types import DTYPES, Array


class DeviceTensor(_core.DeviceTensor):
    """A tensor that another library keeps on a GPU, and the stream whose work writes it.

    Sessions take tensors on a GPU as they are: whatever speaks DLPack or
    ``__cuda_array_interface__`` (PyTorch, CuPy, JAX, Numba, cuda.core). They are read after the
    work that their library names: PyTorch and CuPy name the current stream of the calling thread.
    Wrap those whose library names none (the buffers of cuda.core), or that are written on another
    stream::

        session.infer(trtinfer.DeviceTensor(buffer, stream=stream))

    Plain bytes (a ``cuda.core.Buffer``, say) are samples if their number is that of a sample, or,
    for models with a batch axis, a multiple of it.

    Attributes:
        shape: Its dimensions.
        device: The number of its GPU.
        element_type: As in ONNX; 0 for a type that no model has.
        is_dense: Whether a session can read it: no gaps, except between the rows of the first axis.
    """

    def __init__(self, value: object, stream: object = None) -> None:
        """Read where ``value`` lies; nothing is copied.

        Args:
            value: A tensor on a GPU. It is kept alive.
            stream: Where work that writes it has been enqueued before this call: an object with
                ``__cuda_stream__``, or a handle as an integer; of the tensor's GPU.

        Raises:
            InputError: ``value`` lies on no GPU, or cannot be read there, or ``stream`` is none.
        """
        super().__init__(value, stream)


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
