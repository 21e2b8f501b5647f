"""The engines that run a model: of plans built for it or kept, or of the plan that it is itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trtinfer import _core, tensorrt_library
from trtinfer.backend import Value
from trtinfer.batching import NO_BATCH_AXIS, BatchAxis
from trtinfer.buckets import bucket_sizes
from trtinfer.build_target import find_target
from trtinfer.errors import BackendError, ModelError
from trtinfer.model_description import describe
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import Key, PlanCache, key_text
from trtinfer.plans import PlanBuilder, build_plans, runtime_cache_key
from trtinfer.preprocess import Recipe
from trtinfer.tensorrt_options import TensorRtOptions
from trtinfer.types import DTYPES

logger = logging.getLogger("trtinfer")


@dataclass(frozen=True)
class Engines:
    """What runs the batches of a model on one GPU.

    Attributes:
        library: TensorRT.
        device: Index of the GPU.
        axis: How the first axis of the model's tensors is used.
        buckets: Each batch size and its engine, ascending; sizes may share one.
        inputs: In the model's order.
        outputs: Likewise.
        plans: Names for what the engines were made of.
        kernels_key: Where kernels that TensorRT for RTX compiles for them are kept.
        model_for_cpu: Gives what ONNX Runtime can run instead; None: there is only a plan.
    """

    library: _core.TensorRtLibrary
    device: int
    axis: BatchAxis
    buckets: Sequence[tuple[int, _core.TensorRtEngine]]
    inputs: list[Value]
    outputs: list[Value]
    plans: frozenset[bytes]
    kernels_key: Key
    model_for_cpu: Callable[[], str | bytes] | None


def of_model(
    source: ModelSource,
    max_batch_size: int,
    recipe: Recipe | None,
    options: TensorRtOptions,
    batched: bool | None,
    cache: PlanCache,
) -> Callable[[int], Engines]:
    """Looks at an ONNX model.

    Args:
        source: The model.
        max_batch_size: The largest batch.
        recipe: Decides what varies in the only input; None: requests bring tensors.
        options: Of the backend.
        batched: Whether the first axis of every tensor is a batch axis; None finds out.
        cache: Keeps the plans.

    Returns:
        What opens its plans on a GPU; those that are not in the cache are built first.

    Raises:
        ModelError: The model cannot be read, or TensorRT does not take it.
        BackendError: There is no usable TensorRT or GPU.
    """
    library = tensorrt_library.find(options.library)
    description = describe(source, cache, batched)
    build, axis = options.build, description.axis
    if recipe is not None and recipe.fixed_output_shape is not None and not build.dimensions:
        build = replace(build, dimensions=description.dimensions_of(recipe.fixed_output_shape))
    sizes = bucket_sizes(max_batch_size, options.buckets, axis)
    order = [name for name, _ in description.inputs]

    def open_on(device: int) -> Engines:
        builder = PlanBuilder(library, source, axis, replace(build, device=device), cache)
        engines = {
            largest: _open(library, builder, cache, largest, plan)
            for largest, plan in build_plans(builder, sizes).items()
        }
        buckets = [(size, engines[min(b for b in engines if b >= size)]) for size in sizes]
        inputs, outputs = _values(buckets[-1][1], axis)
        inputs.sort(key=lambda value: order.index(value.name))
        plans = frozenset(key_text(builder.key(largest)) for largest in engines)
        key, for_cpu = builder.runtime_cache_key(), builder.model_for_cpu()
        return Engines(library, device, axis, buckets, inputs, outputs, plans, key, for_cpu)

    return open_on


def of_plan(
    source: ModelSource, max_batch_size: int, options: TensorRtOptions, batched: bool | None
) -> Callable[[int], Engines]:
    """Looks for the library of a plan, which runs the batches that it was built for.

    Arguments and errors as for `of_model`; BackendError, too, where there is no GPU.

    Returns:
        What opens the plan on a GPU.
    """
    if reason := _core.probe_cuda().reason:
        raise BackendError(f"a TensorRT plan runs on a GPU only: {reason}")
    library = tensorrt_library.find(options.library, source.plan_flavor)

    def open_on(device: int) -> Engines:
        engine = _core.TensorRtEngine(library, source.data, device)
        axis, smallest, largest = _batches(engine, batched)
        most = max(smallest, min(max_batch_size, largest))
        buckets = [(size, engine) for size in bucket_sizes(most, options.buckets, axis, smallest)]
        key = runtime_cache_key({"plan": source.digest}, library, find_target(library, (), device))
        plans, values = frozenset([key_text(key)]), _values(engine, axis)
        return Engines(library, device, axis, buckets, *values, plans, key, None)

    return open_on


def _open(
    library: _core.TensorRtLibrary, builder: PlanBuilder, cache: PlanCache, bucket: int, plan: bytes
) -> _core.TensorRtEngine:
    """Opens a plan; one that TensorRT refuses, though it was kept whole, is built once more."""
    try:
        return _core.TensorRtEngine(library, plan, builder.device)
    except ModelError as error:
        logger.warning("the plan for batch %d is built again: %s", bucket, error)
        cache.remove(builder.key(bucket))
        return _core.TensorRtEngine(library, builder.plan(bucket).data, builder.device)


def _batches(engine: _core.TensorRtEngine, batched: bool | None) -> tuple[BatchAxis, int, int]:
    """How an engine uses its first axis, and the smallest and the largest batch that it runs."""
    firsts = {tensor.shape[0] if tensor.shape else None for tensor in engine.tensors}
    first = firsts.pop()
    if firsts or first is None or batched is False:
        if batched:
            shapes = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in engine.tensors)
            raise ModelError(f"batched=True, but the first axes do not agree: {shapes}")
        return NO_BATCH_AXIS, 1, 1
    if first < 0:
        ranges = [engine.profile_shapes(t.name) for t in engine.tensors if t.is_input]
        smallest = max(profile.min[0] for profile in ranges)
        largest = min(profile.max[0] for profile in ranges)
        return BatchAxis(True, largest if smallest == largest else 0), smallest, largest
    return BatchAxis(True, first), first, first


def _values(engine: _core.TensorRtEngine, axis: BatchAxis) -> tuple[list[Value], list[Value]]:
    """An engine's inputs and outputs, with -1 for the batch axis and what else varies."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    for tensor in engine.tensors:
        if tensor.element_type not in DTYPES:
            raise ModelError(f"the elements of {tensor.name} are of a type that NumPy cannot hold")
        shape = _shape(engine, tensor)
        if axis.batched:
            shape[0] = axis.fixed or -1
        value = Value(tensor.name, tensor.element_type, shape)
        (inputs if tensor.is_input else outputs).append(value)
    return inputs, outputs


def _shape(engine: _core.TensorRtEngine, tensor: _core.TensorRtTensor) -> list[int]:
    """A tensor's shape, without -1 where its profile leaves one size only."""
    if not tensor.is_input or -1 not in tensor.shape:
        return list(tensor.shape)
    profile = engine.profile_shapes(tensor.name)
    sizes = zip(profile.min, profile.max, strict=True)
    return [smallest if smallest == largest else -1 for smallest, largest in sizes]
