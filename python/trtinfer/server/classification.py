"""The protocol's classification extension: the K largest elements of each row, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtinfer.errors import InputError
from trtinfer.server.datatypes import BYTES
from trtinfer.server.tensors import Tensor
from trtinfer.types import Array

_WHOLE = "biu"  # kinds of element types, as NumPy has them


def largest(tensor: Tensor, count: int, labels: Sequence[str], batched: bool) -> Tensor:
    """Return "value:index:label" for the largest elements, the label only where one is known.

    Args:
        tensor: Of numbers; with a batch axis, its rows are ranked by themselves.
        count: How many elements of a row to return; all of them when there are fewer.
        labels: One for each element of a row, or none.
        batched: Whether the first axis is a batch axis.

    Returns:
        A BYTES tensor of shape (rows, count), or (count,) without batch axis.

    Raises:
        InputError: The tensor holds no numbers.
    """
    if tensor.datatype == BYTES:
        raise InputError(f"the output {tensor.name!r} holds no numbers that could be ranked")
    rows = tensor.array.reshape(tensor.shape[0] if batched else 1, -1)
    named = labels if len(labels) == rows.shape[1] else ()
    ranked = np.array([_ranked(row, count, named) for row in rows], dtype=object)
    return Tensor(tensor.name, BYTES, ranked if batched else ranked[0])


def _ranked(row: Array, count: int, labels: Sequence[str]) -> list[bytes]:
    # The complement of a whole number falls as it rises, whatever its size.
    falling = ~row if row.dtype.kind in _WHOLE else -row.astype(np.float64)
    order = np.argsort(falling, kind="stable")[:count]
    return [_entry(row[index], int(index), labels) for index in order]


def _entry(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    number = str(int(value)) if value.dtype.kind in _WHOLE else f"{float(value):f}"
    text = f"{number}:{index}"
    return (f"{text}:{labels[index]}" if labels else text).encode()
