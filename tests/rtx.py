"""TensorRT for RTX, which builds plans without a GPU."""

from __future__ import annotations

import functools

import pytest
from onnx import TensorProto

from trtinfer import _core, tensorrt_library
from trtinfer.errors import BackendError

#: ONNX's element types that engines take and give.
TYPES = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
)

#: A GPU that the release can be told to build for.
CAPABILITY = "8.9"


@functools.cache
def _find() -> _core.TensorRtLibrary | str:
    """The library, or why there is none."""
    try:
        library = tensorrt_library.find()
    except BackendError as error:
        return str(error)
    if not library.is_rtx:
        return f"TensorRT {library.version} is found first, which needs a GPU to build"
    return library if library.can_build else library.build_reason


def library() -> _core.TensorRtLibrary:
    """The library; the test is skipped where it is not installed."""
    found = _find()
    if isinstance(found, str):
        pytest.skip(found)
    return found
