"""Low-latency neural network inference with in-flight batching."""

from __future__ import annotations

from trtinfer._core import __version__
from trtinfer.errors import (
    BackendError,
    ClosedError,
    DeadlineExceededError,
    InputError,
    ModelError,
    QueueFullError,
    TrtInferError,
)

__all__ = [
    "BackendError",
    "ClosedError",
    "DeadlineExceededError",
    "InputError",
    "ModelError",
    "QueueFullError",
    "TrtInferError",
    "__version__",
]
