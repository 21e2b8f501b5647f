"""The TensorRT backend: plans of buckets become a pipeline on a GPU, backed up by the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trtinfer import _core, backend, model_metadata, onnxruntime_backend, tensorrt_library
from trtinfer.backend import (
    ModelTensors,
    OpenModel,
    RingSizes,
    Value,
    model_tensors,
    open_pipeline,
)
from trtinfer.batching import BatchAxis
from trtinfer.buckets import bucket_sizes
from trtinfer.build_options import BuildOptions
from trtinfer.errors import BackendError, ModelError
from trtinfer.model_description import describe
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import PlanCache
from trtinfer.plans import PlanBuilder, build_plans
from trtinfer.preprocess import Recipe

logger = logging.getLogger("trtinfer")


@dataclass(frozen=True)
class TensorRtOptions:
    """What only this backend has a choice in.

    Attributes:
        build: How plans are built; the session's GPUs take the place of its ``device``.
        buckets: Batch sizes that get a plan of their own; None: 1, 2, 4, ... and the largest.
        library: Path of TensorRT or of its folder; None: the first that is found.
        spin: Seconds that a wait for the GPU spins before it sleeps.
        falls_back: Whether requests go on on the CPU when the GPU fails.
    """

    build: BuildOptions = field(default_factory=BuildOptions)
    buckets: Sequence[int] | None = None
    library: str | None = None
    spin: float = 2e-3
    falls_back: bool = True


def unusable_reason(library: str | None = None) -> str:
    """Return why there is no GPU that TensorRT can be used on; empty when there is one."""
    probe = _core.probe_cuda()
    if not probe.devices:
        return probe.reason
    try:
        tensorrt_library.find(library)
    except BackendError as error:
        return str(error)
    return ""


def open_model(
    model: str | bytes,
    sizes: RingSizes,
    recipe: Recipe | None,
    options: TensorRtOptions,
    devices: Sequence[int] = (0,),
    *,
    batched: bool | None = None,
) -> OpenModel:
    """Open a model on GPUs; plans that are not in the cache are built first.

    GPUs of one kind share their plans; each has its own engines and ``sizes.max_inflight`` lanes.

    Raises:
        ModelError: The model cannot be read, or TensorRT does not take it.
        BackendError: There is no usable TensorRT or GPU.
    """
    library = tensorrt_library.find(options.library)
    source, cache = ModelSource(model), PlanCache()
    description = describe(source, cache, batched)
    build = options.build
    if recipe is not None and recipe.fixed_output_shape is not None and not build.dimensions:
        build = replace(build, dimensions=description.dimensions_of(recipe.fixed_output_shape))
    axis = description.axis
    buckets = bucket_sizes(sizes.max_batch_size, options.buckets, axis)
    gpus: dict[int, _core.TensorRtExecutor] = {}
    for device in devices:
        builder = PlanBuilder(library, source, axis, replace(build, device=device), cache)
        plans = build_plans(builder, buckets)
        engines = [(b, _open_engine(library, builder, cache, b, plan)) for b, plan in plans.items()]
        tensors = model_tensors(*_values(engines[-1][1], axis, description.inputs), axis, recipe)
        origin = builder, cache, library
        gpus[device] = _open_executor(engines, tensors, recipe, sizes, options, origin)
    executor, fallback = _joined(gpus, sizes.max_inflight), None
    if options.falls_back:
        second = _second_executor(model, builder, tensors, recipe, len(gpus) * sizes.max_inflight)
        executor = fallback = _core.FallbackExecutor(executor, second, _report)
    sizes = replace(sizes, max_batch_size=buckets[-1])
    pipeline = _open_pinned(executor, tensors, sizes, groups=len(gpus))
    opened = backend.open_model(pipeline, tensors, model_metadata.read(model), "tensorrt")
    return replace(opened, fallback=fallback, gpus=gpus)


def _joined(gpus: Mapping[int, _core.TensorRtExecutor], lanes_each: int) -> _core.Executor:
    numbers, executors = list(gpus), list(gpus.values())
    if len(executors) == 1:
        return executors[0]

    def report(index: int, reason: str) -> None:
        logger.error("GPU %d failed, requests go on without it: %s", numbers[index], reason)

    return _core.DevicesExecutor(executors, lanes_each, report)


def _open_engine(
    library: _core.TensorRtLibrary, builder: PlanBuilder, cache: PlanCache, bucket: int, plan: bytes
) -> _core.TensorRtEngine:
    """Open a plan; one that TensorRT refuses, though it was kept whole, is built once more."""
    device = builder.device
    try:
        return _core.TensorRtEngine(library, plan, device)
    except ModelError as error:
        logger.warning("the plan for batch %d is built again: %s", bucket, error)
        cache.remove(builder.key(bucket))
        return _core.TensorRtEngine(library, builder.plan(bucket).data, device)


def _values(
    engine: _core.TensorRtEngine, axis: BatchAxis, inputs: Sequence[tuple[str, tuple[int, ...]]]
) -> tuple[list[Value], list[Value]]:
    """Inputs in the model's order, and outputs, with the batch axis open again."""
    open_axis = axis.batched and not axis.fixed
    values = {
        tensor.name: Value(
            tensor.name,
            tensor.element_type,
            [-1, *tensor.shape[1:]] if open_axis else list(tensor.shape),
        )
        for tensor in engine.tensors
    }
    outputs = [values[tensor.name] for tensor in engine.tensors if not tensor.is_input]
    return [values[name] for name, _ in inputs], outputs


def _open_executor(
    engines: list[tuple[int, _core.TensorRtEngine]],
    tensors: ModelTensors,
    recipe: Recipe | None,
    sizes: RingSizes,
    options: TensorRtOptions,
    origin: tuple[PlanBuilder, PlanCache, _core.TensorRtLibrary],
) -> _core.TensorRtExecutor:
    builder, cache, library = origin
    kernels, stored = None, None
    if library.is_rtx:  # its plans hold no kernels: these are compiled when a context is made
        kernels = _core.TensorRtRuntimeCache(engines[0][1])
        stored = cache.get(builder.runtime_cache_key())
        if stored is not None and not kernels.deserialize(stored):
            stored = None
    executor = _core.TensorRtExecutor(
        [(size if tensors.axis.batched else 0, engine) for size, engine in engines],
        None if recipe is None else recipe.native,
        tensors.inputs,
        tensors.outputs,
        device=builder.device,
        lanes=sizes.max_inflight,
        spin=options.spin,
        cache=kernels,
    )
    if kernels is not None and (compiled := kernels.serialize()) != stored:
        cache.put(builder.runtime_cache_key(), compiled)
    return executor


def _second_executor(
    model: str | bytes,
    builder: PlanBuilder,
    tensors: ModelTensors,
    recipe: Recipe | None,
    lanes: int,
) -> Callable[[], _core.Executor]:
    def make() -> _core.Executor:
        threads = onnxruntime_backend.available_cores()
        same = builder.converted() if builder.changes_io_types else model
        native = onnxruntime_backend.load(same, threads)
        return onnxruntime_backend.open_executor(
            native, tensors, recipe, threads=threads, lanes=lanes
        )

    return make


def _report(reason: str) -> None:
    logger.error("the GPU failed, requests go on on the CPU: %s", reason)


def _open_pinned(
    executor: _core.Executor, tensors: ModelTensors, sizes: RingSizes, groups: int
) -> _core.Pipeline:
    """Open a pipeline with pinned slots; where there is not enough such memory, with fewer."""
    while True:
        try:
            lanes = groups * sizes.max_inflight
            return open_pipeline(executor, tensors, sizes, lanes=lanes, groups=groups)
        except BackendError as error:
            fewer = replace(sizes, capacity=sizes.capacity // 2, arena_bytes=sizes.arena_bytes // 2)
            if fewer.capacity < sizes.max_batch_size:
                raise
            logger.warning(
                "%d slots do not fit pinned memory (%s): trying %d",
                *(sizes.capacity, error, fewer.capacity),
            )
            sizes = fewer
