"""How a session's model is opened: on which backend, and what becomes of models that it refuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from trtinfer import onnxruntime_backend, tensorrt_backend
from trtinfer.backend import OpenModel, RingSizes
from trtinfer.errors import BackendError, ModelError
from trtinfer.model_source import ModelSource
from trtinfer.preprocess import Recipe
from trtinfer.tensorrt_options import TensorRtOptions

logger = logging.getLogger("trtinfer")

_MOST_LANES = 32


def check(backend: str, devices: Sequence[int], sizes: RingSizes) -> None:
    """Refuse options of a session that mean nothing.

    Raises:
        ValueError: One is out of its range; it says which.
    """
    capacity, max_batch_size = sizes.capacity, sizes.max_batch_size
    max_inflight, max_delay = sizes.max_inflight, sizes.max_delay
    arena_bytes, latency_slo = sizes.arena_bytes, sizes.latency_slo
    if backend not in ("auto", "onnxruntime", "tensorrt"):
        raise ValueError(f'{backend=}: choose "auto", "onnxruntime" or "tensorrt"')
    if not devices or min(devices) < 0 or len(set(devices)) < len(devices):
        raise ValueError(f"device={list(devices)} must name GPUs, counted from 0, each once")
    if not 1 <= max_batch_size <= capacity:
        raise ValueError(f"{max_batch_size=} must be at least 1 and at most {capacity=}")
    if not 1 <= max_inflight <= _MOST_LANES // len(devices):
        raise ValueError(f"{max_inflight=} must be 1 to {_MOST_LANES // len(devices)} on each GPU")
    if max_delay < 0 or arena_bytes <= 0:
        raise ValueError(f"{max_delay=} and {arena_bytes=} must not be negative")
    if latency_slo is not None and latency_slo <= 0:
        raise ValueError(f"{latency_slo=} must be above 0")


@dataclass(frozen=True)
class Opening:
    """A model and what a session asks of it, whichever backend runs it.

    Attributes:
        source: The model.
        sizes: Of the ring.
        recipe: Turns images into the model's only input; None: requests bring tensors.
        batched: Whether the first axis of every tensor is a batch axis; None finds out.
        intra_op_threads: Of a run on the CPU; None chooses.
        devices: The GPUs.
    """

    source: ModelSource
    sizes: RingSizes
    recipe: Recipe | None
    batched: bool | None
    intra_op_threads: int | None
    devices: Sequence[int]

    def open(self, backend: str, options: TensorRtOptions) -> OpenModel:
        """Open the model.

        Args:
            backend: "auto" takes TensorRT where it can be used and takes the model; one log line
                says why not.
            options: For TensorRT.

        Raises:
            ModelError: The model cannot be read, or the backend does not take it.
            BackendError: The backend cannot be used.
        """
        if self.source.plan_flavor:
            if backend == "onnxruntime":
                raise BackendError(
                    "a TensorRT plan does not run on ONNX Runtime: give an ONNX model"
                )
            return self._on_gpus(options)
        if backend == "onnxruntime":
            return self._on_cpu()
        if backend == "tensorrt":
            return self._on_gpus(options)
        if reason := tensorrt_backend.unusable_reason(options.library):
            logger.info("requests run on the CPU: %s", reason)
            return self._on_cpu()
        try:
            return self._on_gpus(options)
        except ModelError as error:
            logger.warning("requests run on the CPU, as TensorRT refuses the model: %s", error)
            return self._on_cpu()

    def _on_gpus(self, options: TensorRtOptions) -> OpenModel:
        return tensorrt_backend.open_model(
            self.source, self.sizes, self.recipe, options, self.devices, batched=self.batched
        )

    def _on_cpu(self) -> OpenModel:
        return onnxruntime_backend.open_model(
            self.source,
            self.sizes,
            self.recipe,
            batched=self.batched,
            intra_op_threads=self.intra_op_threads,
        )
