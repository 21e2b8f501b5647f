"""TensorRT for RTX, which builds plans without a GPU."""

from __future__ import annotations

import functools

import pytest

from trtinfer import _core, tensorrt_library
from trtinfer.errors import BackendError

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
