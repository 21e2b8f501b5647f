"""The TensorRT backend: engines become a pipeline on GPUs, backed up by the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from trtinfer import (
    _core,
    backend,
    batch_policy,
    engines,
    model_metadata,
    onnxruntime_backend,
    tensorrt_library,
)
from trtinfer.backend import ModelTensors, OpenModel, RingSizes, model_tensors, open_pipeline
from trtinfer.engines import Engines
from trtinfer.errors import BackendError
from trtinfer.kernel_cache import kernels_for
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import PlanCache
from trtinfer.preprocess import Recipe
from trtinfer.tensorrt_options import TensorRtOptions

logger = logging.getLogger("trtinfer")


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
    source: ModelSource,
    sizes: RingSizes,
    recipe: Recipe | None,
    options: TensorRtOptions,
    devices: Sequence[int] = (0,),
    *,
    batched: bool | None = None,
) -> OpenModel:
    """Open a model, or a plan, on GPUs; plans that are not in the cache are built first.

    GPUs of one kind share their plans; each has its own engines and ``sizes.max_inflight`` lanes.

    Raises:
        ModelError: The model cannot be read, or TensorRT does not take it.
        BackendError: There is no usable TensorRT or GPU.
    """
    cache, most = PlanCache(), sizes.max_batch_size
    if source.plan_flavor:
        open_on = engines.of_plan(source, most, options, batched)
    else:
        open_on = engines.of_model(source, most, recipe, options, batched, cache)
    engines_on = {device: open_on(device) for device in devices}
    found = engines_on[devices[0]]
    tensors = model_tensors(found.inputs, found.outputs, found.axis, recipe)
    buckets = [size for size, _ in found.buckets]
    with _alone_on(devices, cache):
        gpus = {
            device: _open_executor(engines, tensors, recipe, sizes, options, cache)
            for device, engines in engines_on.items()
        }
        executor, fallback = _joined(gpus, sizes.max_inflight), None
        if options.falls_back and found.model_for_cpu is not None:
            lanes = len(gpus) * sizes.max_inflight
            second = _second_executor(found.model_for_cpu, tensors, recipe, lanes)
            executor = fallback = _core.FallbackExecutor(executor, second, _report)
        sizes = replace(sizes, max_batch_size=buckets[-1])
        policy = _policy(sizes, buckets, groups=len(gpus))
        pipeline = _open_pinned(executor, tensors, sizes, groups=len(gpus), policy=policy)
        if policy is not None:
            batch_policy.learn_costs(policy, pipeline, tensors, recipe)
    metadata = {} if source.plan_flavor else model_metadata.read(source.given)
    opened = backend.open_model(pipeline, tensors, metadata, "tensorrt")
    return replace(opened, fallback=fallback, gpus=gpus, policy=policy)


@contextmanager
def _alone_on(devices: Sequence[int], cache: PlanCache) -> Iterator[None]:
    """Lets no other process open a model on these GPUs: what is timed meanwhile would be wrong.

    Several that open the same model at once also compile its kernels once that way.
    """
    by_index = {device.index: device.pci_address for device in _core.probe_cuda().devices}
    with ExitStack() as stack:
        for address in sorted({by_index[device] for device in devices}):
            stack.enter_context(cache.alone_on(address))
        yield


def _policy(sizes: RingSizes, buckets: Sequence[int], groups: int) -> _core.LatencyPolicy | None:
    """Lanes of one GPU take turns, so that a batch waits for company while another one runs."""
    if groups > 1 and sizes.latency_slo is None:
        return None
    lanes = groups * sizes.max_inflight
    return _core.LatencyPolicy(
        sizes.latency_slo, lanes, buckets, lanes_share=groups == 1, pads=True
    )


def _joined(gpus: Mapping[int, _core.TensorRtExecutor], lanes_each: int) -> _core.Executor:
    numbers, executors = list(gpus), list(gpus.values())
    if len(executors) == 1:
        return executors[0]

    def report(index: int, reason: str) -> None:
        logger.error("GPU %d failed, requests go on without it: %s", numbers[index], reason)

    return _core.DevicesExecutor(executors, lanes_each, report)


def _open_executor(
    found: Engines,
    tensors: ModelTensors,
    recipe: Recipe | None,
    sizes: RingSizes,
    options: TensorRtOptions,
    cache: PlanCache,
) -> _core.TensorRtExecutor:
    with kernels_for(found, cache) as kernels:
        return _core.TensorRtExecutor(
            [(size if found.axis.batched else 0, engine) for size, engine in found.buckets],
            None if recipe is None else recipe.native,
            tensors.inputs,
            tensors.outputs,
            device=found.device,
            lanes=sizes.max_inflight,
            spin=options.spin,
            keeps_outputs=options.outputs_on_gpu,
            cache=kernels,
        )


def _second_executor(
    model: Callable[[], str | bytes], tensors: ModelTensors, recipe: Recipe | None, lanes: int
) -> Callable[[], _core.Executor]:
    def make() -> _core.Executor:
        threads = onnxruntime_backend.available_cores()
        native = onnxruntime_backend.load(model(), threads)
        return onnxruntime_backend.open_executor(
            native, tensors, recipe, threads=threads, lanes=lanes
        )

    return make


def _report(reason: str) -> None:
    logger.error("the GPU failed, requests go on on the CPU: %s", reason)


def _open_pinned(
    executor: _core.Executor,
    tensors: ModelTensors,
    sizes: RingSizes,
    groups: int,
    policy: _core.LatencyPolicy | None,
) -> _core.Pipeline:
    """Open a pipeline with pinned slots; where there is not enough such memory, with fewer."""
    while True:
        try:
            lanes = groups * sizes.max_inflight
            return open_pipeline(
                executor, tensors, sizes, lanes=lanes, groups=groups, policy=policy
            )
        except BackendError as error:
            fewer = replace(sizes, capacity=sizes.capacity // 2, arena_bytes=sizes.arena_bytes // 2)
            if fewer.capacity < sizes.max_batch_size:
                raise
            logger.warning(
                "%d slots do not fit pinned memory (%s): trying %d",
                *(sizes.capacity, error, fewer.capacity),
            )
            sizes = fewer
