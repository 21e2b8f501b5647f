"""What a user hands in, turned into the exact arrays that a model reads, or refused."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from trtinfer import _core, device_tensor
from trtinfer.errors import InputError
from trtinfer.types import ELEMENT_TYPES, Array, TensorInfo, fits

#: A shape for the only input, or one for each input by name.
Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]


class InputReader:
    """Reads requests for one model. Immutable, thread-safe.

    Values that fit exactly never come here: the core takes them as they are.
    """

    def __init__(self, infos: tuple[TensorInfo, ...], batched: bool, tensors: bool) -> None:
        """Describe what to expect.

        Args:
            infos: The model's inputs.
            batched: Whether the first axis of each is a batch axis that a sample lacks.
            tensors: Whether slots can hold them: all are numeric tensors of whole bytes.
        """
        self._infos = infos
        self._batched = batched
        self._tensors = tensors
        self._varies = any(dim < 0 for info in infos for dim in self._sample(info))

    def read(self, x: object) -> dict[str, Any]:
        """Return exact, C-contiguous arrays by input name; values of other kinds as they are.

        Tensors on a GPU become `_core.DeviceTensor`.

        Raises:
            InputError: Something is missing, unknown, or of the wrong dtype or shape.
        """
        if not isinstance(x, Mapping):
            if len(self._infos) != 1:
                raise InputError(
                    f"the model has the inputs {self._names()}: pass a dict, not {_describe(x)}"
                )
            x = {self._infos[0].name: x}
        self._check_names(x)
        values = {info.name: self._read_one(info, x[info.name]) for info in self._infos}
        self._check_rows(values)
        return values

    def claim_shapes(self, shape: Shapes | None, rows: int | None) -> list[list[int]]:
        """Return the shapes that claimed slots have to hold; empty when they are always the same.

        Args:
            shape: Of a sample.
            rows: Samples; None: one, without batch axis.

        Raises:
            InputError: A shape is missing or does not fit its input, or there is no batch axis.
        """
        if not self._tensors:
            raise InputError("slots cannot hold this model's values: use infer()")
        if rows is not None and not self._batched:
            raise InputError(f"{rows=}: requests to this model have no batch axis")
        if rows is not None and rows < 1:
            raise InputError(f"{rows=} must be at least 1")
        if shape is None:
            if self._varies:
                wanted = ", ".join(map(str, self._infos))
                raise InputError(f"claim() needs shape=, which varies for this model: {wanted}")
            return []
        if not isinstance(shape, Mapping):
            if len(self._infos) != 1:
                raise InputError(f"a dict of shapes is needed for the inputs {self._names()}")
            shape = {self._infos[0].name: shape}
        self._check_names(shape)
        shapes = []
        for info in self._infos:
            given = _dimensions(shape[info.name])
            if not fits(given, self._sample(info)):
                raise InputError(f"the shape {given} does not fit {self._sample(info)} of {info}")
            shapes.append([rows or 1, *given] if self._batched else list(given))
        return shapes

    def _names(self) -> str:
        return ", ".join(info.name for info in self._infos)

    def _check_names(self, values: Mapping[Any, object]) -> None:
        needed = {info.name for info in self._infos}
        if set(values) != needed:
            raise InputError(
                f"inputs {sorted(needed)} are needed, {sorted(map(str, values))} were received"
            )

    def _sample(self, info: TensorInfo) -> tuple[int, ...]:
        return info.shape[1:] if self._batched else info.shape

    def _read_one(self, info: TensorInfo, value: object) -> object:
        if info.dtype == object:
            return value
        on_gpu = _core.DeviceTensor.is_on_gpu(value)
        return self._exact_on_gpu(info, value) if on_gpu else self._exact(info, value)

    def _exact(self, info: TensorInfo, value: object) -> Array:
        if value is None:  # to NumPy it is a NaN
            raise InputError(f"the input {info} is missing: None was received")
        shared = device_tensor.as_array(value)
        if shared is not None:
            value = shared
        typed = isinstance(value, np.ndarray | np.generic)
        try:
            array = np.asarray(value) if typed else np.asarray(value, dtype=info.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{_describe(value)} cannot become {info}: {error}") from None
        if array.dtype.newbyteorder("=") != info.dtype:
            raise InputError(
                f"the model's input is {info}, an array of dtype {array.dtype} was received: "
                f"convert it with .astype({info.dtype.name!r})"
            )
        self._check_shape(info, array.shape)
        return np.asarray(array, dtype=info.dtype, order="C")

    def _exact_on_gpu(self, info: TensorInfo, value: object) -> _core.DeviceTensor:
        tensor = device_tensor.read(value)
        if not self._tensors:
            raise InputError(f"this model's values are read in host memory: bring {info} there")
        element_type, sample = ELEMENT_TYPES[info.dtype], list(self._sample(info))
        tensor = tensor.as_samples(element_type, sample, self._batched) or tensor
        if tensor.element_type != element_type:
            raise InputError(
                f"the model's input is {info}, a tensor of dtype {device_tensor.dtype_of(tensor)} "
                f"on GPU {tensor.device} was received: convert it to {info.dtype.name}"
            )
        self._check_shape(info, tensor.shape)
        if not tensor.is_dense:
            raise InputError(
                f"the tensor of shape {tensor.shape} on GPU {tensor.device} for {info} is empty or "
                "has gaps: pass .contiguous(); only the first axis may have any stride"
            )
        return tensor

    def _check_shape(self, info: TensorInfo, shape: tuple[int, ...]) -> None:
        sample = self._sample(info)
        several = self._batched and len(shape) > 0 and fits(shape[1:], sample)
        if not several and not fits(shape, sample):
            wanted = f"{sample} for one sample or {(-1, *sample)} for several"
            raise InputError(
                f"the input {info.name!r} takes the shape {wanted if self._batched else sample} "
                f"(-1: any), an array of shape {shape} was received"
            )
        if several and shape[0] == 0:
            raise InputError(f"an array without samples, shape {shape}, was received")

    def _check_rows(self, arrays: Mapping[str, Any]) -> None:
        if not self._batched:
            return
        rows = {
            array.shape[0] if len(array.shape) == len(info.shape) else None
            for info, array in zip(self._infos, arrays.values(), strict=True)
        }
        if len(rows) > 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise InputError(f"the inputs differ in their number of samples: {shapes}")


def _dimensions(shape: object) -> tuple[int, ...]:
    try:
        dims = tuple(operator.index(dim) for dim in shape)  # type: ignore[attr-defined]
    except TypeError:
        raise InputError(f"a shape is a tuple of integers, {shape!r} was received") from None
    if any(not 0 <= dim < 1 << 63 for dim in dims):
        raise InputError(f"the shape {dims} has a dimension that no array has")
    return dims


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    return f"an object of type {type(value).__name__}"
