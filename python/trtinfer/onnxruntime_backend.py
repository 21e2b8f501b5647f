"""The ONNX Runtime CPU backend: how a model is opened and whether and how it is batched.

Tensors go through the core, which calls ONNX Runtime's C interface from the library in the
``onnxruntime`` package and never takes the GIL. Models with other values (strings, sequences, maps)
run through its Python API, and those with elements of less than a byte through a direct run in the
core: one request at a time, behind the same ring.
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trtinfer import _core
from trtinfer.batching import BatchAxis, Trial, find_batch_axis, find_merge_limit, try_one
from trtinfer.errors import ModelError
from trtinfer.preprocess import Recipe
from trtinfer.types import DTYPES, PACKED_TYPES, TensorInfo, fits

#: A model whose lone run is quicker than this gains nothing from ONNX Runtime's own threads.
_SMALL_MODEL_SECONDS = 200e-6


@dataclass(frozen=True)
class RingSizes:
    """The sizes of a session's ring: see `trtinfer.Session` for their meaning."""

    max_batch_size: int = 64
    max_delay: float = 0.0
    capacity: int = 1024
    max_inflight: int = 2
    arena_bytes: int = 256 << 20


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
    """

    pipeline: _core.Pipeline
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batched: bool
    has_tensors: bool
    metadata: Mapping[str, str] = field(default_factory=dict)


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
    model: str | os.PathLike[str] | bytes,
    sizes: RingSizes,
    recipe: Recipe | None = None,
    *,
    batched: bool | None = None,
    intra_op_threads: int | None = None,
) -> OpenModel:
    """Open a model on the CPU.

    Args:
        model: A path, or the bytes of an ONNX file.
        sizes: Of the ring.
        recipe: Turns images into the model's only input; None: requests bring tensors.
        batched: Whether the first axis of every input and output is a batch axis; None finds out.
        intra_op_threads: Threads of one run; None chooses for the lowest latency.

    Raises:
        ModelError: The model cannot be read or does not fit the recipe.
    """
    source = model if isinstance(model, bytes) else os.fspath(model)
    if isinstance(source, str) and not Path(source).is_file():
        raise ModelError(f"no model file at {source!r}: give the path or the bytes of an ONNX file")
    threads = intra_op_threads or available_cores()
    native = _load(source, threads)
    if run := _object_run(native, source, threads):
        if recipe is not None:
            raise ModelError("a recipe needs a model with one float image input")
        return _open_objects(native, run, sizes)
    axis = find_batch_axis(native, batched)
    trial = try_one(native, axis)
    if intra_op_threads is None and trial is not None and trial.seconds < _SMALL_MODEL_SECONDS:
        threads = 1
        native = _load(source, threads)
    return _open_tensors(native, sizes, recipe, axis, trial, threads)


def _load(source: str | bytes, threads: int) -> _core.OnnxRuntimeModel:
    if isinstance(source, bytes) and not source:
        raise ModelError("an empty model: 0 bytes received, the bytes of an ONNX file expected")
    return _core.OnnxRuntimeModel(library_path(), source, threads, 1, {})


# --- Opening ----------------------------------------------------------------------------------

_Tensor = tuple[str, int, "np.dtype[Any]", list[int]]


def _tensors(values: Sequence[_core.OnnxRuntimeValueInfo], batched: bool) -> list[_Tensor]:
    return [
        (v.name, v.element_type, DTYPES[v.element_type], v.shape[1:] if batched else v.shape)
        for v in values
    ]


def _output_tensors(
    native: _core.OnnxRuntimeModel, axis: BatchAxis, trial: Trial | None
) -> list[_Tensor]:
    """Describe the outputs; a declared shape may lie: unless a run confirmed it, any will do."""
    tensors = _tensors(native.outputs, axis.batched)
    for i, value in enumerate(native.outputs):
        if trial is None or not fits(trial.shapes[i], tuple(value.shape)):
            tensors[i] = (*tensors[i][:3], [-1])
    return tensors


def _open_tensors(
    native: _core.OnnxRuntimeModel,
    sizes: RingSizes,
    recipe: Recipe | None,
    axis: BatchAxis,
    trial: Trial | None,
    threads: int,
) -> OpenModel:
    if not axis.batched:
        max_batch_size = merge_limit = 1
    else:
        max_batch_size = axis.fixed or sizes.max_batch_size
        merge_limit = find_merge_limit(native, axis, max_batch_size)
    model_inputs = _tensors(native.inputs, axis.batched)
    requests, inputs = model_inputs, tuple(TensorInfo.of(value) for value in native.inputs)
    preprocessor = None
    if recipe is not None:
        _check_recipe(recipe, inputs, axis)
        model_inputs = [(*model_inputs[0][:3], list(recipe.fixed_output_shape or ()))]
        preprocessor = _core.HostPreprocessor(recipe.native, threads)
        requests = [(inputs[0].name, 2, np.dtype(np.uint8), [-1, -1, 3])]
        inputs = (TensorInfo(inputs[0].name, np.dtype(np.uint8), (-1, -1, 3)),)
    varies = any(dim < 0 for _, _, _, shape in requests for dim in shape)
    pipeline = _core.Pipeline.onnxruntime(
        native,
        preprocessor,
        requests,
        model_inputs,
        _output_tensors(native, axis, trial),
        axis.fixed,
        axis.batched,
        capacity=max(sizes.capacity, max_batch_size),
        arena_bytes=sizes.arena_bytes if varies else 0,
        lanes=max(1, min(sizes.max_inflight, available_cores() // threads)),
        max_batch_size=max_batch_size,
        merge_limit=merge_limit,
        max_delay=sizes.max_delay,
    )
    outputs = tuple(TensorInfo.of(value) for value in native.outputs)
    return OpenModel(pipeline, inputs, outputs, axis.batched, True, native.metadata)


def _check_recipe(recipe: Recipe, inputs: tuple[TensorInfo, ...], axis: BatchAxis) -> None:
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
    pipeline = _core.Pipeline.objects(
        run,
        capacity=sizes.capacity,
        arena_bytes=0,
        lanes=1,
        max_batch_size=1,
        merge_limit=1,
        max_delay=0.0,
    )
    inputs = tuple(TensorInfo.of(value) for value in native.inputs)
    outputs = tuple(TensorInfo.of(value) for value in native.outputs)
    return OpenModel(pipeline, inputs, outputs, False, False, native.metadata)
