"""What the server says of itself and of its models, in the protocol's words.

Both protocols tell the same; HTTP as JSON, gRPC as messages with fields of the same names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trtinfer._core import __version__
from trtinfer.server.datatypes import BYTES, datatype_of
from trtinfer.server.model import Model
from trtinfer.types import TensorInfo

NAME = "trtinfer"
EXTENSIONS = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)

_PLATFORMS = {"tensorrt": "tensorrt_plan", "onnxruntime": "onnxruntime_onnx"}
_CONFIG_TYPES = {BYTES: "TYPE_STRING"}


def server_metadata() -> dict[str, Any]:
    """Describe the server."""
    return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: Model, versions: list[str]) -> dict[str, Any]:
    """Describe a model's tensors, the batch axis included."""
    session = model.session
    return {
        "name": model.name,
        "versions": versions,
        "platform": _PLATFORMS[session.backend],
        "inputs": [_tensor(info, model) for info in _inputs(model)],
        "outputs": [_tensor(info, model) for info in session.outputs],
    }


def model_config(model: Model) -> dict[str, Any]:
    """Describe a model as a Triton configuration, whose dimensions leave out the batch axis."""
    session = model.session
    config: dict[str, Any] = {
        "name": model.name,
        "platform": _PLATFORMS[session.backend],
        "backend": session.backend,
        "max_batch_size": session.sizes.max_batch_size if session.batched else 0,
        "input": [_configured(info, model) for info in _inputs(model)],
        "output": [_configured(info, model) for info in session.outputs],
        "instance_group": [
            {
                "name": model.name,
                "kind": _KINDS[session.backend],
                "count": session.sizes.max_inflight,
            }
        ],
    }
    if session.batched:
        microseconds = round(session.sizes.max_delay * 1e6)
        config["dynamic_batching"] = {"max_queue_delay_microseconds": microseconds}
    return config


_KINDS = {"tensorrt": "KIND_GPU", "onnxruntime": "KIND_CPU"}


def _inputs(model: Model) -> tuple[TensorInfo, ...]:
    """The inputs as clients bring them: an image is one element of a BYTES tensor."""
    session = model.session
    if session.recipe is None:
        return session.inputs
    shape = (-1, 1) if session.batched else (1,)
    return tuple(TensorInfo(info.name, np.dtype(object), shape) for info in session.inputs)


def _shape(info: TensorInfo, model: Model) -> list[int]:
    return [-1, *info.shape[1:]] if model.session.batched else list(info.shape)


def _tensor(info: TensorInfo, model: Model) -> dict[str, Any]:
    return {
        "name": info.name,
        "datatype": datatype_of(info.dtype),
        "shape": _shape(info, model),
    }


def _configured(info: TensorInfo, model: Model) -> dict[str, Any]:
    datatype = datatype_of(info.dtype)
    return {
        "name": info.name,
        "data_type": _CONFIG_TYPES.get(datatype, f"TYPE_{datatype}"),
        "dims": _shape(info, model)[1 if model.session.batched else 0 :],
    }
