"""What an ONNX file says about itself, read without loading the model or needing onnx.

A `ModelProto` is a row of protobuf fields; the metadata are small ones beside the large graph, and
the graph is skipped (onnx.proto: `ModelProto.metadata_props` 14; key 1 and value 2 in an entry).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO

_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_ENTRY = 16 << 20  # bytes; a damaged length must not be believed


def read(model: str | os.PathLike[str] | bytes) -> dict[str, str]:
    """Reads the custom metadata of a model.

    Args:
        model: Path or contents of an ONNX file.

    Returns:
        Key to value; empty when there are none, or when this is no ONNX file: opening it as a model
        will say so better.
    """
    try:
        with io.BytesIO(model) if isinstance(model, bytes) else open(model, "rb") as file:
            entries = [
                dict(_fields(io.BytesIO(entry), (_KEY_FIELD, _VALUE_FIELD)))
                for _, entry in _fields(file, (_METADATA_FIELD,))
            ]
        return {
            entry.get(_KEY_FIELD, b"").decode(): entry.get(_VALUE_FIELD, b"").decode()
            for entry in entries
        }
    except (OSError, ValueError):
        return {}


def _fields(file: IO[bytes], wanted: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    """Yields the wanted byte fields of a message, and seeks past every other field."""
    while (tag := _varint(file)) is not None:
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, io.SEEK_CUR)
        elif kind == _BYTES:
            length = _varint(file) or 0
            if field not in wanted:
                file.seek(length, io.SEEK_CUR)
            elif length <= _LARGEST_ENTRY and len(data := file.read(length)) == length:
                yield field, data
            else:
                raise ValueError(f"field {field} is cut off")
        else:
            raise ValueError(f"no protobuf: wire type {kind}")


def _varint(file: IO[bytes]) -> int | None:
    """Reads a base-128 number; None at the end of the file."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ValueError("no protobuf: a number of more than 64 bits")
    if shift:
        raise ValueError("no protobuf: a number is cut off")
    return None
