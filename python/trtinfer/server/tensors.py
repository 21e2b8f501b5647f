"""A named tensor on its way from a client to a model, or back; knows neither JSON nor protobuf."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trtinfer import _core
from trtinfer.errors import InputError
from trtinfer.server.datatypes import BYTES, datatype_of, dtype_of, pack_bytes, unpack_bytes
from trtinfer.types import Array

#: For each kind of NumPy's dtypes, the kinds of lists that it is read from: "1.5" and 1.5 are no
#: integers, though NumPy would convert them. V is bfloat16's.
_READ_FROM = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf", "O": "O"}

_MOST_AXES = 32  # that NumPy goes through
_MOST_ELEMENTS = 1 << 60  # 2**63 bytes are too many for NumPy even where an axis is empty
_CHEAP_COPY = 4096  # bytes; up to here a copy costs less than a view


class TensorHead(NamedTuple):
    """What a client says of a tensor before its elements.

    Attributes:
        name: Of the model's input.
        datatype: As in the protocol.
        shape: A list, if it follows the protocol.
    """

    name: str
    datatype: str
    shape: object


@dataclass(slots=True)
class Tensor:
    """A tensor.

    Attributes:
        name: Of the model's input or output.
        datatype: As in the protocol.
        array: Its elements; of dtype ``object``, holding bytes or text, when ``datatype`` is BYTES.
    """

    name: str
    datatype: str
    array: Array

    @classmethod
    def of(cls, name: str, array: Array) -> Tensor:
        """Name an array."""
        return cls(name, datatype_of(array.dtype), array)

    @classmethod
    def from_raw(
        cls, name: str, datatype: str, shape: Sequence[int], buffer: bytes | memoryview
    ) -> Tensor:
        """Read little-endian elements in C order; the array borrows the buffer.

        Raises:
            InputError: The shape, the datatype and the number of bytes do not agree.
        """
        if datatype == BYTES:
            elements = unpack_bytes(buffer, _count(name, shape))
            return cls(name, datatype, _objects(elements, shape))
        dtype = checked_size(name, datatype, shape, len(buffer))
        return cls(name, datatype, np.frombuffer(buffer, dtype).reshape(shape))

    @classmethod
    def from_values(
        cls, name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]
    ) -> Tensor:
        """Read elements from a list in C order, flat or nested.

        Raises:
            InputError: The list does not hold elements of the datatype, or not as many as the
                shape says.
        """
        dtype, count = dtype_of(datatype), _count(name, shape)
        try:
            found = np.array(values, dtype=object if datatype == BYTES else None)
            if found.ndim > _MOST_AXES:
                raise InputError(f"lists nested {found.ndim} deep were received")
            fits = found.dtype.kind in _READ_FROM[dtype.kind] or not found.size
            if not fits and not (dtype.kind in "iu" and _mixed_integers(found, values)):
                raise InputError(f"{found.dtype} was received")
            array = np.array(values, dtype=dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the data of input {name!r} is not {datatype}: {error}") from None
        if array.size != count:
            raise InputError(
                f"the input {name!r} of shape {list(shape)} takes {count} elements, "
                f"{array.size} were received"
            )
        if datatype == BYTES:
            array = _objects([_as_bytes(name, value) for value in array.flat], shape)
        return cls(name, datatype, array.reshape(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of elements along each axis."""
        return self.array.shape

    def reshaped(self, shape: tuple[int, ...]) -> Array:
        """Return what a session takes."""
        return self.array.reshape(shape)

    def raw(self) -> bytes | memoryview:
        """Return the elements as the protocol lays them out; borrows the array where it can."""
        if self.datatype == BYTES:
            return pack_bytes(self.array.flat)
        return raw_elements(self.array)

    def values(self) -> list[Any]:
        """Return the elements as a flat list in C order: numbers, booleans or text.

        Raises:
            InputError: Bytes are no text: they can only be sent as binary data.
        """
        if self.datatype != BYTES:
            exact = self.array if self.datatype != "BF16" else self.array.astype(np.float32)
            values: list[Any] = exact.reshape(-1).tolist()
            return values
        try:
            return [
                value.decode() if isinstance(value, bytes) else value for value in self.array.flat
            ]
        except UnicodeDecodeError:
            raise InputError(f"{self.name!r} is no UTF-8 text: ask for binary data") from None


@dataclass(slots=True)
class DeviceTensor:
    """A tensor of numbers that stays on a GPU; only an input is one.

    Attributes:
        name: Of the model's input.
        datatype: As in the protocol.
        shape: The number of elements along each axis.
        reshaped: Returns what a session takes, of a shape with as many elements.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    reshaped: Callable[[tuple[int, ...]], _core.DeviceTensor]

    @property
    def array(self) -> _core.DeviceTensor:
        """What a session takes."""
        return self.reshaped(self.shape)


def checked_size(name: str, datatype: str, shape: Sequence[int], size: int) -> np.dtype[Any]:
    """Return NumPy's type of a tensor of numbers that has so many bytes.

    Raises:
        InputError: The shape, the datatype and the number of bytes do not agree.
    """
    dtype, count = dtype_of(datatype), _count(name, shape)
    if size != count * dtype.itemsize:
        raise InputError(
            f"the input {name!r} of shape {list(shape)} and datatype {datatype} takes "
            f"{count * dtype.itemsize} bytes, {size} were received"
        )
    return dtype


def raw_elements(array: Array) -> bytes | memoryview:
    """Return the bytes of an array of numbers; borrows the array where that is cheaper."""
    if array.nbytes <= _CHEAP_COPY:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _count(name: str, shape: Sequence[int]) -> int:
    if (
        any(type(size) is not int or size < 0 for size in shape)
        or len(shape) > _MOST_AXES
        or math.prod(filter(None, shape)) >= _MOST_ELEMENTS
    ):
        raise InputError(f"the input {name!r} has the shape {shape}, which no tensor has")
    return math.prod(shape)


def _mixed_integers(found: Array, values: Sequence[Any]) -> bool:
    """Whether NumPy made floats of integers, as it does where only some of them need uint64."""
    if found.dtype.kind != "f":
        return False
    return all(type(value) is int for value in np.array(values, dtype=object).flat)


def _objects(elements: list[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _as_text(element: Any) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)


def _as_bytes(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise InputError(f"the BYTES input {name!r} takes strings, {value!r} was received")
    return value.encode()
