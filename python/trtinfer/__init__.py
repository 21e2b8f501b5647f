"""Low-latency neural network inference with in-flight batching."""

from __future__ import annotations

from trtinfer._core import __version__
from trtinfer.classifier import Classifier
from trtinfer.errors import (
    BackendError,
    ClosedError,
    DeadlineExceededError,
    InputError,
    ModelError,
    QueueFullError,
    TrtInferError,
)
from trtinfer.preprocess import Recipe
from trtinfer.ring import Slot
from trtinfer.session import Session
from trtinfer.types import TensorInfo

__all__ = [
    "BackendError",
    "Classifier",
    "ClosedError",
    "DeadlineExceededError",
    "InputError",
    "ModelError",
    "QueueFullError",
    "Recipe",
    "Session",
    "Slot",
    "TensorInfo",
    "TrtInferError",
    "__version__",
]
