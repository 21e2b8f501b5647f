"""Low-latency neural network inference with in-flight batching."""

from __future__ import annotations

from trtinfer._core import __version__
from trtinfer.build_options import BuildOptions
from trtinfer.classifier import Classifier
from trtinfer.device_tensor import DeviceTensor
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
from trtinfer.tensorrt_options import TensorRtOptions
from trtinfer.types import TensorInfo, Timeline

__all__ = [
    "BackendError",
    "BuildOptions",
    "Classifier",
    "ClosedError",
    "DeadlineExceededError",
    "DeviceTensor",
    "InputError",
    "ModelError",
    "QueueFullError",
    "Recipe",
    "Session",
    "Slot",
    "TensorInfo",
    "TensorRtOptions",
    "Timeline",
    "TrtInferError",
    "__version__",
]
