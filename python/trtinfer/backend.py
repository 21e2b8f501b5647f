"""What the backends share: the tensors of a model, the sizes of a ring, an open model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trtinfer import _core
from trtinfer.batching import BatchAxis
from trtinfer.errors import ModelError
from trtinfer.preprocess import Recipe
from trtinfer.types import DTYPES, SaysItsShape, TensorInfo

#: Name, element type as in ONNX, dtype, shape (of one sample when the model is batched).
Tensor = tuple[str, int, "np.dtype[Any]", list[int]]

_UINT8 = 2


@dataclass(frozen=True)
class RingSizes:
    """The sizes of a session's ring: see `trtinfer.Session` for their meaning."""

    max_batch_size: int = 64
    max_delay: float = 0.0
    capacity: int = 1024
    max_inflight: int = 2  # of each GPU
    arena_bytes: int = 256 << 20
    latency_slo: float | None = None


@dataclass(frozen=True)
class OpenModel:
    """A model that is ready to run behind a ring.

    Attributes:
        pipeline: The native pipeline.
        inputs: The model's inputs, as requests bring them.
        outputs: The model's outputs.
        batched: Whether the first axis is a batch axis.
        has_tensors: Whether all values are numeric tensors of whole bytes, held in slots.
        metadata: Custom metadata of the ONNX file.
        backend: "tensorrt" or "onnxruntime".
        fallback: Runs batches on the CPU once the GPU has failed; None: nothing to fall back on.
        gpus: What runs batches on each GPU, by its number.
        policy: Chooses batches; None: an idle lane takes what there is.
    """

    pipeline: _core.Pipeline
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batched: bool
    has_tensors: bool
    metadata: Mapping[str, str] = field(default_factory=dict)
    backend: str = "onnxruntime"
    fallback: _core.FallbackExecutor | None = None
    gpus: Mapping[int, _core.TensorRtExecutor] = field(default_factory=dict)
    policy: _core.LatencyPolicy | None = None


@dataclass(frozen=True)
class Value:
    """What a backend says of an input or output: element type as in ONNX, -1 for what varies."""

    name: str
    element_type: int
    shape: list[int]


@dataclass(frozen=True)
class ModelTensors:
    """The tensors of a model, as requests bring them and as the model reads and gives them.

    Attributes:
        axis: How the first axis is used.
        requests: What a request brings: the model's inputs, or an image of any size.
        inputs: What the model reads.
        outputs: What it gives back.
        request_infos: ``requests`` for a user's eyes.
        output_infos: ``outputs`` for a user's eyes.
    """

    axis: BatchAxis
    requests: list[Tensor]
    inputs: list[Tensor]
    outputs: list[Tensor]
    request_infos: tuple[TensorInfo, ...]
    output_infos: tuple[TensorInfo, ...]


def model_tensors(
    inputs: Sequence[SaysItsShape],
    outputs: Sequence[SaysItsShape],
    axis: BatchAxis,
    recipe: Recipe | None,
) -> ModelTensors:
    """Describe a model whose values are all numeric tensors.

    Args:
        inputs: In the model's order.
        outputs: Likewise.
        axis: How the first axis is used.
        recipe: Turns images into the only input; None: requests bring tensors.

    Raises:
        ModelError: The recipe does not make what the model reads.
    """
    read, given = _tensors(inputs, axis.batched), _tensors(outputs, axis.batched)
    infos = tuple(TensorInfo.of(value) for value in inputs)
    output_infos = tuple(TensorInfo.of(value) for value in outputs)
    if recipe is None:
        return ModelTensors(axis, read, read, given, infos, output_infos)
    made = _check_recipe(recipe, infos, axis)
    name, element_type, dtype, _ = read[0]
    image = TensorInfo(name, np.dtype(np.uint8), (-1, -1, 3))
    return ModelTensors(
        axis,
        [(name, _UINT8, image.dtype, list(image.shape))],
        [(name, element_type, dtype, list(made))],
        given,
        (image,),
        output_infos,
    )


def open_model(
    pipeline: _core.Pipeline,
    tensors: ModelTensors,
    metadata: Mapping[str, str],
    backend: str,
) -> OpenModel:
    """Return a model whose values are all numeric tensors, behind its pipeline."""
    return OpenModel(
        pipeline,
        tensors.request_infos,
        tensors.output_infos,
        tensors.axis.batched,
        True,
        metadata,
        backend,
    )


def open_pipeline(  # noqa: PLR0913
    executor: _core.Executor,
    tensors: ModelTensors,
    sizes: RingSizes,
    *,
    lanes: int,
    groups: int = 1,
    merge_limit: int = 0,
    policy: _core.LatencyPolicy | None = None,
) -> _core.Pipeline:
    """Put a ring before an executor that has ``lanes`` lanes, in groups of neighbours."""
    axis = tensors.axis
    max_batch_size = (axis.fixed or sizes.max_batch_size) if axis.batched else 1
    varies = any(dim < 0 for _, _, _, shape in tensors.requests for dim in shape)
    return _core.Pipeline(
        executor,
        tensors.requests,
        tensors.outputs,
        axis.batched and tensors.requests is tensors.inputs,
        policy,
        capacity=max(sizes.capacity, max_batch_size),
        arena_bytes=sizes.arena_bytes if varies else 0,
        lanes=lanes,
        groups=groups,
        max_batch_size=max_batch_size,
        merge_limit=merge_limit or max_batch_size,
        max_delay=sizes.max_delay,
    )


def _tensors(values: Sequence[SaysItsShape], batched: bool) -> list[Tensor]:
    return [
        (v.name, v.element_type, DTYPES[v.element_type], list(v.shape[1:] if batched else v.shape))
        for v in values
    ]


def _check_recipe(
    recipe: Recipe, inputs: tuple[TensorInfo, ...], axis: BatchAxis
) -> tuple[int, int, int]:
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not axis.batched:
        found = ", ".join(map(str, inputs))
        raise ModelError(
            f"a recipe needs a model with one N x C x H x W input, this one has {found}"
        )
    made, wanted = recipe.fixed_output_shape, inputs[0].shape[1:]
    if made is None:
        raise ModelError("the recipe's output size depends on the image: give it a crop")
    if any(w not in (-1, m) for w, m in zip(wanted, made, strict=True)):
        raise ModelError(f"the recipe makes {made} tensors, but the model's input is {inputs[0]}")
    if np.dtype(recipe.dtype) != inputs[0].dtype:
        raise ModelError(f"the recipe makes {recipe.dtype}, but the model's input is {inputs[0]}")
    return made
