"""What sessions say of their tensors and of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: What a request gives back: one array for each output, by name.
Outputs = dict[str, Array]

#: NumPy's (or ml_dtypes') type for each element type, numbered as in ONNX Runtime's C interface (up
#: to 23 as in ``onnx.TensorProto.DataType``).
DTYPES: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(scalar)
    for number, scalar in {
        1: np.float32,
        2: np.uint8,
        3: np.int8,
        4: np.uint16,
        5: np.int16,
        6: np.int32,
        7: np.int64,
        9: np.bool_,
        10: np.float16,
        11: np.float64,
        12: np.uint32,
        13: np.uint64,
        14: np.complex64,
        15: np.complex128,
        16: ml_dtypes.bfloat16,
        17: ml_dtypes.float8_e4m3fn,
        18: ml_dtypes.float8_e4m3fnuz,
        19: ml_dtypes.float8_e5m2,
        20: ml_dtypes.float8_e5m2fnuz,
        21: ml_dtypes.uint4,
        22: ml_dtypes.int4,
        24: ml_dtypes.uint2,
        25: ml_dtypes.int2,
        26: ml_dtypes.float8_e8m0fnu,
    }.items()
}

#: The other way round.
ELEMENT_TYPES: Mapping[np.dtype[Any], int] = {dtype: number for number, dtype in DTYPES.items()}

#: Those whose elements share a byte in ONNX Runtime, but have one each in an array.
PACKED_TYPES = frozenset({21, 22, 24, 25})


class SaysItsShape(Protocol):
    """An input or output as a backend describes it."""

    @property
    def name(self) -> str:
        """As in the model."""

    @property
    def element_type(self) -> int:
        """As in ONNX."""

    @property
    def shape(self) -> Sequence[int]:
        """-1 for what varies."""


@dataclass(slots=True)
class Timeline:
    """When a request reached each stage: nanoseconds of the clock that `time.monotonic_ns` reads.

    Attributes:
        arrival: When it came to the ring.
        launch: When its batch was launched, the last one of several.
        completion: When its answer was there; 0 if none came.
    """

    arrival: int = 0
    launch: int = 0
    completion: int = 0


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model.

    Attributes:
        name: As in the model.
        dtype: NumPy's (or ml_dtypes') type; ``object`` for values that are no numeric tensors
            (strings, sequences, maps).
        shape: The model's whole shape; -1 is the batch axis or another dimension that varies.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, value: SaysItsShape) -> TensorInfo:
        """Return what the core says of an input or output."""
        dtype = DTYPES.get(value.element_type, np.dtype(object))
        return cls(value.name, dtype, tuple(value.shape))

    def __str__(self) -> str:
        """Return ``name: dtype[dim, dim]`` with ``?`` for dimensions that vary."""
        dims = ", ".join("?" if dim < 0 else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether a shape is the wanted one, where -1 stands for any size."""
    return len(shape) == len(wanted) and all(
        w in (-1, s) for s, w in zip(shape, wanted, strict=True)
    )
