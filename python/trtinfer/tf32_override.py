"""Exact products of fp32 numbers with TensorRT for RTX, which takes that from the environment.

Release 1.6.1 multiplies in TF32 (11 significant bits of each factor) on compute capability 9.0,
whatever its builder is told: kernels are chosen when a plan is opened. With the variable
``NVIDIA_TF32_OVERRIDE=0`` it does not. A plan holds the value that it was built under and is
refused under another; kernels seem to be chosen by the value at the process's first plan.
"""

from __future__ import annotations

import logging
import os

from trtinfer import _core

VARIABLE = "NVIDIA_TF32_OVERRIDE"

logger = logging.getLogger("trtinfer")
_was_left_open = False


def current() -> str | None:
    """Return the value that plans built now hold; None: the variable is not set."""
    return os.environ.get(VARIABLE)


def settle(library: _core.TensorRtLibrary, *, exact: bool) -> None:
    """Decide before a plan is built or opened; what the user has set stays as it is.

    The variable counts for the whole process: cuBLAS and cuDNN look at it, too.

    Args:
        library: Builds and opens the plan.
        exact: Whether products of fp32 numbers must be exact.
    """
    global _was_left_open
    if not library.is_rtx or current() is not None:
        return
    if not exact:
        _was_left_open = True
        return
    if _was_left_open:
        logger.warning(
            "products of fp32 numbers may be rounded to TF32, as an earlier session of this "
            "process allowed: set %s=0 before the program starts",
            VARIABLE,
        )
    os.environ[VARIABLE] = "0"
