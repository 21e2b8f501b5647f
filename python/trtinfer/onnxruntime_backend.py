"""The ONNX Runtime CPU backend: how a model is opened and whether and how it is batched.

Tensors go through the core, which calls ONNX Runtime's C interface from the library in the
``onnxruntime`` package and never takes the GIL. Models with other values (strings, sequences, maps)
run through its Python API, and those with elements of less than a byte through a direct run in the
core: one request at a time, behind the same ring.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
from collections.abc import Callable, Mapping
from typing import Any

from trtinfer import _core, backend, batch_policy
from trtinfer.backend import ModelTensors, OpenModel, RingSizes, model_tensors, open_pipeline
from trtinfer.batching import (
    NO_BATCH_AXIS,
    BatchAxis,
    Trial,
    find_batch_axis,
    merge_limit,
    time_batches,
    try_one,
    with_larger,
)
from trtinfer.buckets import bucket_sizes
from trtinfer.errors import ModelError
from trtinfer.model_source import ModelSource
from trtinfer.preprocess import Recipe
from trtinfer.types import DTYPES, PACKED_TYPES, TensorInfo, fits

#: A model whose lone run is quicker than this gains nothing from ONNX Runtime's own threads.
_SMALL_MODEL_SECONDS = 200e-6

#: A batch of a quicker model takes as long as its callers need the cores meanwhile, which says
#: little of its size.
_LARGE_MODEL_SECONDS = 2e-3


@functools.cache
def library_path() -> str:
    """Return the path of ONNX Runtime's shared library in the installed package.

    Raises:
        BackendError: There is none: the package is older than 1.20 or is not installed whole.
    """
    import onnxruntime

    folder = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")
    found = sorted(glob.glob(os.path.join(folder, "libonnxruntime.so*")))
    if not found:
        from trtinfer.errors import BackendError

        raise BackendError(
            f"no libonnxruntime.so in {folder}: install onnxruntime 1.20 or newer for this platform"
        )
    return found[0]


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def open_model(
    source: ModelSource,
    sizes: RingSizes,
    recipe: Recipe | None = None,
    *,
    batched: bool | None = None,
    intra_op_threads: int | None = None,
) -> OpenModel:
    """Open a model on the CPU.

    Args:
        source: The model.
        sizes: Of the ring.
        recipe: Turns images into the model's only input; None: requests bring tensors.
        batched: Whether the first axis of every input and output is a batch axis; None finds out.
        intra_op_threads: Threads of one run; None chooses for the lowest latency.

    Raises:
        ModelError: The model cannot be read or does not fit the recipe.
    """
    threads = intra_op_threads or available_cores()
    native = load(source.given, threads)
    if run := _object_run(native, source.given, threads):
        if recipe is not None:
            raise ModelError("a recipe needs a model with one float image input")
        return _open_objects(native, run, sizes)
    axis = find_batch_axis(native, batched)
    trial = try_one(native, axis)
    if intra_op_threads is None and trial is not None and trial.seconds < _SMALL_MODEL_SECONDS:
        threads = 1
        native = load(source.given, threads)
    return _open_tensors(native, sizes, recipe, axis, trial, threads)


def load(source: str | bytes, threads: int) -> _core.OnnxRuntimeModel:
    """Open a model for runs on ``threads`` threads each.

    Raises:
        ModelError: It cannot be read.
    """
    return _core.OnnxRuntimeModel(library_path(), source, threads, 1, {})


def open_executor(
    native: _core.OnnxRuntimeModel,
    tensors: ModelTensors,
    recipe: Recipe | None,
    *,
    threads: int,
    lanes: int,
) -> _core.OnnxRuntimeExecutor:
    """Return what runs batches of an open model, on ``threads`` threads each."""
    preprocessor = None if recipe is None else _core.HostPreprocessor(recipe.native, threads)
    batching = (tensors.axis.batched, tensors.axis.fixed)
    return _core.OnnxRuntimeExecutor(
        native, preprocessor, tensors.inputs, tensors.outputs, batching, lanes
    )


def _confirmed(
    tensors: ModelTensors, native: _core.OnnxRuntimeModel, trial: Trial | None
) -> ModelTensors:
    """Let an output have any shape, unless a run confirmed the declared one: it may lie."""
    outputs = [
        tensor if trial and fits(trial.shapes[i], tuple(value.shape)) else (*tensor[:3], [-1])
        for i, (tensor, value) in enumerate(zip(tensors.outputs, native.outputs, strict=True))
    ]
    return dataclasses.replace(tensors, outputs=outputs)


def _open_tensors(
    native: _core.OnnxRuntimeModel,
    sizes: RingSizes,
    recipe: Recipe | None,
    axis: BatchAxis,
    trial: Trial | None,
    threads: int,
) -> OpenModel:
    tensors = _confirmed(model_tensors(native.inputs, native.outputs, axis, recipe), native, trial)
    lanes = max(1, min(sizes.max_inflight, available_cores() // threads))
    executor = open_executor(native, tensors, recipe, threads=threads, lanes=lanes)
    costs = time_batches(native, axis, sizes.max_batch_size)
    limit = axis.fixed or (merge_limit(costs, sizes.max_batch_size) if axis.batched else 1)
    policy = None
    if sizes.latency_slo is not None:
        policy = _core.LatencyPolicy(
            sizes.latency_slo,
            lanes,
            bucket_sizes(limit, None, axis),
            lanes_share=lanes == 1,
            pads=axis.fixed > 0,
        )
    elif lanes == 1 and costs.get(1, 0) >= _LARGE_MODEL_SECONDS:
        costs = with_larger(costs, sizes.max_batch_size)
        limit = max(costs)
        policy = _adaptive(costs)
    pipeline = open_pipeline(
        executor, tensors, sizes, lanes=lanes, merge_limit=limit, policy=policy
    )
    if sizes.latency_slo is not None and policy is not None:
        batch_policy.learn_costs(policy, pipeline, tensors, recipe)
    opened = backend.open_model(pipeline, tensors, native.metadata, "onnxruntime")
    return dataclasses.replace(opened, policy=policy)


def _adaptive(costs: Mapping[int, float]) -> _core.LatencyPolicy:
    """Which size is best changes with what else the machine does, so it is learned on."""
    policy = _core.LatencyPolicy(None, 1, sorted(costs), lanes_share=True, pads=False)
    for size, cost in costs.items():
        policy.learn(size, size * cost)
    return policy


_ObjectRun = Callable[[dict[str, Any]], dict[str, Any]]


def _object_run(
    native: _core.OnnxRuntimeModel, source: str | bytes, threads: int
) -> _ObjectRun | None:
    """Return how to run a model whose values do not lie in slots; None: slots can hold them."""
    values = [*native.inputs, *native.outputs]
    if not all(value.is_tensor and value.element_type in DTYPES for value in values):
        return _python_run(native, source, threads)
    if any(value.element_type in PACKED_TYPES for value in values):
        return functools.partial(_direct_run, native)
    return None


def _python_run(native: _core.OnnxRuntimeModel, source: str | bytes, threads: int) -> _ObjectRun:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in native.outputs]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def _direct_run(native: _core.OnnxRuntimeModel, inputs: dict[str, Any]) -> dict[str, Any]:
    arrays = [inputs[value.name] for value in native.inputs]
    outputs = native.run(arrays, [DTYPES[value.element_type] for value in native.outputs])
    return {value.name: out for value, out in zip(native.outputs, outputs, strict=True)}


def _open_objects(native: _core.OnnxRuntimeModel, run: _ObjectRun, sizes: RingSizes) -> OpenModel:
    inputs = tuple(TensorInfo.of(value) for value in native.inputs)
    outputs = tuple(TensorInfo.of(value) for value in native.outputs)
    opaque = ModelTensors(NO_BATCH_AXIS, [], [], [], inputs, outputs)
    pipeline = open_pipeline(_core.ObjectExecutor(run), opaque, sizes, lanes=1)
    return OpenModel(pipeline, inputs, outputs, False, False, native.metadata)
