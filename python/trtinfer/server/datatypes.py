"""The Open Inference Protocol's names of element types, and its layout of byte strings.

A BYTES tensor is, for each element, its length (4 bytes, little-endian) and then its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from trtinfer.errors import InputError, ModelError

BYTES = "BYTES"

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(object),
}
DATATYPES = tuple(_DTYPES)
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<I")


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Return NumPy's type of a datatype; ``object`` for BYTES.

    Raises:
        InputError: There is no such datatype.
    """
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InputError(f"the datatype {datatype!r} is none of {', '.join(_DTYPES)}")
    return dtype


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the datatype of NumPy's type.

    Raises:
        ModelError: The protocol has no name for it.
    """
    name = _NAMES.get(dtype)
    if name is None:
        raise ModelError(f"the Open Inference Protocol has no tensors of {dtype}: cast them")
    return name


def unpack_bytes(buffer: bytes | memoryview, count: int) -> list[bytes]:
    """Read the elements of a BYTES tensor.

    Raises:
        InputError: The buffer does not hold exactly ``count`` elements.
    """
    elements: list[bytes] = []
    place, end = 0, len(buffer)
    while place < end and len(elements) < count:
        if end - place < _LENGTH.size:
            break
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(buffer, place)[0]
        elements.append(bytes(buffer[start:place]))
    if place != end or len(elements) != count:
        raise InputError(f"{end} bytes do not hold exactly {count} elements of a BYTES tensor")
    return elements


def pack_bytes(elements: Iterable[Any]) -> bytes:
    """Write the elements (bytes or text) of a BYTES tensor."""
    parts: list[bytes] = []
    for element in elements:
        data = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)
