"""The ONNX Runtime CPU backend: how a model is opened and whether and how it is batched.

Tensors go through the core, which calls ONNX Runtime's C interface from the library in the
``onnxruntime`` package and never takes the GIL. Models with other values (strings, sequences, maps)
run through ONNX Runtime's Python API, one request at a time, behind the same ring.
"""

from __future__ import annotations

import functools
import glob
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trtinfer import _core
from trtinfer.errors import ModelError, TrtInferError
from trtinfer.preprocess import Recipe
from trtinfer.types import DTYPES, Array, TensorInfo

logger = logging.getLogger("trtinfer")

#: A model whose lone run is quicker than this gains nothing from ONNX Runtime's own threads.
_SMALL_MODEL_SECONDS = 200e-6

#: A larger batch has to be cheaper per sample by this factor, or merging requests does not pay.
_WORTHWHILE = 0.93

#: How long the search for the batch size that pays may take when a session opens.
_SEARCH_SECONDS = 1.0

#: Size given to dimensions that vary (other than the batch) when a model is tried out.
_TRIAL_DIMENSION = 64


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
        has_tensors: Whether all values are numeric tensors, held in slots.
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
    if not all(value.is_tensor and value.element_type in DTYPES for value in _values(native)):
        if recipe is not None:
            raise ModelError("a recipe needs a model with one float image input")
        return _open_objects(source, native, sizes, threads)
    axis = _find_batch_axis(native, batched)
    cost = _cost_of_one(native, axis)
    if intra_op_threads is None and cost is not None and cost < _SMALL_MODEL_SECONDS:
        threads = 1
        native = _load(source, threads)
    return _open_tensors(native, sizes, recipe, axis, threads)


def _load(source: str | bytes, threads: int) -> _core.OnnxRuntimeModel:
    if isinstance(source, bytes) and not source:
        raise ModelError("an empty model: 0 bytes received, the bytes of an ONNX file expected")
    return _core.OnnxRuntimeModel(library_path(), source, threads, 1, {})


def _values(native: _core.OnnxRuntimeModel) -> list[_core.OnnxRuntimeValueInfo]:
    return [*native.inputs, *native.outputs]


def _info(value: _core.OnnxRuntimeValueInfo) -> TensorInfo:
    dtype = DTYPES.get(value.element_type, np.dtype(object))
    return TensorInfo(value.name, dtype, tuple(value.shape))


# --- Batch axis -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BatchAxis:
    """How the first axis is used: not at all, with any size, or with one fixed size."""

    batched: bool
    fixed: int = 0


_NO_BATCH_AXIS = _BatchAxis(batched=False)


def _declared_batch_axis(native: _core.OnnxRuntimeModel) -> _BatchAxis:
    """Read the batch axis off the declared shapes; they may lie, so the caller checks."""
    values = _values(native)
    if not native.inputs or any(not value.shape for value in values):
        return _NO_BATCH_AXIS
    sizes = {value.shape[0] for value in values}
    if sizes == {-1}:
        symbols = {value.symbols[0] for value in native.inputs}
        return _BatchAxis(batched=len(symbols) == 1)
    if len(sizes) == 1 and min(sizes) > 0:
        return _BatchAxis(batched=True, fixed=sizes.pop())
    return _NO_BATCH_AXIS


def _find_batch_axis(native: _core.OnnxRuntimeModel, batched: bool | None) -> _BatchAxis:
    declared = _declared_batch_axis(native)
    if batched is False:
        return _NO_BATCH_AXIS
    if batched is True:
        if not declared.batched:
            shapes = ", ".join(str(_info(value)) for value in _values(native))
            raise ModelError(f"batched=True, but the first axes do not agree: {shapes}")
        return declared
    if declared.batched and not _rows_are_independent(native, declared):
        logger.warning(
            "the first axis of this model is no batch axis (a row's answer depends on the others, "
            "or the model cannot be tried): requests run one at a time; batched= decides it"
        )
        return _NO_BATCH_AXIS
    return declared


def _trial_inputs(
    native: _core.OnnxRuntimeModel, rows: int | None, rng: np.random.Generator
) -> list[Array]:
    arrays = []
    for value in native.inputs:
        shape = [_TRIAL_DIMENSION if dim < 0 else dim for dim in value.shape]
        if rows is not None:
            shape[0] = rows
        dtype = DTYPES[value.element_type]
        if dtype.kind in "iub":
            arrays.append(rng.integers(0, 2, shape).astype(dtype))
        else:
            arrays.append(rng.random(shape, dtype=np.float32).astype(dtype))
    return arrays


def _try_run(native: _core.OnnxRuntimeModel, inputs: list[Array]) -> list[Array] | None:
    try:
        return native.run(inputs, [DTYPES[value.element_type] for value in native.outputs])
    except TrtInferError:
        return None


def _rows_are_independent(native: _core.OnnxRuntimeModel, axis: _BatchAxis) -> bool:
    """Run a row beside different company, before and behind it: its answer must not change."""
    rows = axis.fixed or 2
    if rows == 1:
        return True
    rng = np.random.default_rng(0)
    first = _trial_inputs(native, rows, rng)
    other = _trial_inputs(native, rows, rng)
    for kept in (0, rows - 1):
        mixed = [array.copy() for array in other]
        for array, row in zip(mixed, first, strict=True):
            array[kept] = row[kept]
        expected, got = _try_run(native, first), _try_run(native, mixed)
        if expected is None or got is None:
            return False
        for a, b in zip(expected, got, strict=True):
            if a.ndim == 0 or a.shape[0] != rows or a.shape != b.shape:
                return False
            if not _close(a[kept], b[kept]):
                return False
    return True


def _close(a: Array, b: Array) -> bool:
    if a.dtype.kind not in "fciub":  # ml_dtypes' types, which NumPy cannot compare closely
        a, b = a.astype(np.float32), b.astype(np.float32)
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True))


# --- What a batch costs -----------------------------------------------------------------------


def _median_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _cost_of_one(native: _core.OnnxRuntimeModel, axis: _BatchAxis) -> float | None:
    """Seconds of a run with one row (or without batch axis); None: the model cannot be tried."""
    rows = (axis.fixed or 1) if axis.batched else None
    inputs = _trial_inputs(native, rows, np.random.default_rng(0))
    if _try_run(native, inputs) is None:
        return None
    return _median_seconds(functools.partial(_try_run, native, inputs))


def _merge_limit(native: _core.OnnxRuntimeModel, axis: _BatchAxis, max_batch_size: int) -> int:
    """Warm the batch sizes up and return the largest to which merging requests pays.

    On a CPU a convolution network gains nothing from a batch, and requests that share one wait for
    each other; a small fully connected network gains tenfold.
    """
    if not axis.batched or axis.fixed or _cost_of_one(native, axis) is None:
        return max_batch_size
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    best, size, per_sample = 1, 1, math.inf
    while size <= max_batch_size and time.perf_counter() - started < _SEARCH_SECONDS:
        inputs = _trial_inputs(native, size, rng)
        _try_run(native, inputs)
        cost = _median_seconds(functools.partial(_try_run, native, inputs)) / size
        if cost < _WORTHWHILE * per_sample:
            best, per_sample = size, cost
        elif size > 2 * best:
            break
        size = max_batch_size if size < max_batch_size < 2 * size else 2 * size
    return best


# --- Opening ----------------------------------------------------------------------------------

_Tensor = tuple[str, int, "np.dtype[Any]", list[int]]


def _tensors(values: Sequence[_core.OnnxRuntimeValueInfo], batched: bool) -> list[_Tensor]:
    return [
        (v.name, v.element_type, DTYPES[v.element_type], v.shape[1:] if batched else v.shape)
        for v in values
    ]


def _open_tensors(
    native: _core.OnnxRuntimeModel,
    sizes: RingSizes,
    recipe: Recipe | None,
    axis: _BatchAxis,
    threads: int,
) -> OpenModel:
    if not axis.batched:
        max_batch_size = merge_limit = 1
    else:
        max_batch_size = axis.fixed or sizes.max_batch_size
        merge_limit = _merge_limit(native, axis, max_batch_size)
    model_inputs = _tensors(native.inputs, axis.batched)
    requests, inputs = model_inputs, tuple(_info(value) for value in native.inputs)
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
        _tensors(native.outputs, axis.batched),
        axis.fixed,
        axis.batched,
        capacity=max(sizes.capacity, max_batch_size),
        arena_bytes=sizes.arena_bytes if varies else 0,
        lanes=max(1, min(sizes.max_inflight, available_cores() // threads)),
        max_batch_size=max_batch_size,
        merge_limit=merge_limit,
        max_delay=sizes.max_delay,
    )
    outputs = tuple(_info(value) for value in native.outputs)
    return OpenModel(pipeline, inputs, outputs, axis.batched, True, native.metadata)


def _check_recipe(recipe: Recipe, inputs: tuple[TensorInfo, ...], axis: _BatchAxis) -> None:
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


def _open_objects(
    source: str | bytes, native: _core.OnnxRuntimeModel, sizes: RingSizes, threads: int
) -> OpenModel:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in native.outputs]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    pipeline = _core.Pipeline.objects(
        run,
        capacity=sizes.capacity,
        arena_bytes=0,
        lanes=1,
        max_batch_size=1,
        merge_limit=1,
        max_delay=0.0,
    )
    inputs = tuple(_info(value) for value in native.inputs)
    outputs = tuple(_info(value) for value in native.outputs)
    return OpenModel(pipeline, inputs, outputs, False, False, native.metadata)
