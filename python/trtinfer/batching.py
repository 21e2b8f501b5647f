"""Whether and up to which size requests share a batch: found out by runs on invented inputs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trtinfer import _core
from trtinfer.errors import ModelError, TrtInferError
from trtinfer.types import DTYPES, Array, TensorInfo

logger = logging.getLogger("trtinfer")

#: How long the search for the batch size that pays may take when a session opens, and how large
#: the inputs of all its batches may be: each size is timed so often, and smaller sizes only where a
#: model is slow or has large inputs.
_SEARCH_SECONDS = 1.0
_SEARCH_BYTES = 1 << 28
_ROUNDS = 4

#: How long the runs that time one input may take together; at least two are timed.
_TIMING_SECONDS = 0.1

#: Sizes that take longer than this, in seconds, are not tried: those who wait would see it.
_LONGEST_BATCH = 0.2

#: Size given to dimensions that vary (other than the batch), as long as the input stays this small.
_TRIAL_DIMENSION = 64
_TRIAL_ELEMENTS = 1 << 20

#: Integers that inputs are made of: first without 0, since an integer division by zero ends the
#: process, then without 2, which may be no valid index (BERT's token types are 0 and 1).
_TRIAL_INTEGERS = ((1, 2), (0, 1))


@dataclass(frozen=True)
class BatchAxis:
    """How a model uses the first axis of its tensors.

    Attributes:
        batched: Whether it is a batch axis.
        fixed: Its only size; 0 when any will do.
    """

    batched: bool
    fixed: int = 0


NO_BATCH_AXIS = BatchAxis(batched=False)


def find_batch_axis(native: _core.OnnxRuntimeModel, batched: bool | None) -> BatchAxis:
    """Return how the first axis is used, from the declared shapes and from trial runs.

    Args:
        native: All values are numeric tensors.
        batched: What the user says of it; None finds out.

    Raises:
        ModelError: ``batched`` is true, but the declared shapes do not agree.
    """
    if batched is False:
        return NO_BATCH_AXIS
    declared = _declared_batch_axis(native)
    if batched is True:
        if not declared.batched:
            shapes = ", ".join(map(str, map(TensorInfo.of, _values(native))))
            raise ModelError(f"batched=True, but the first axes do not agree: {shapes}")
        return declared
    if declared.batched and not _rows_are_independent(native, declared):
        logger.warning(
            "the first axis of this model is no batch axis (a row's answer depends on the others, "
            "or the model cannot be tried): requests run one at a time; batched=True or False "
            "decides it"
        )
        return NO_BATCH_AXIS
    return declared


@dataclass(frozen=True)
class Trial:
    """A run on invented inputs, of one row if the model is batched.

    Attributes:
        seconds: How long it takes.
        shapes: Of the outputs, whole.
    """

    seconds: float
    shapes: list[tuple[int, ...]]


def try_one(native: _core.OnnxRuntimeModel, axis: BatchAxis) -> Trial | None:
    """Run the model on one row; None if it fails on invented inputs."""
    accepted = _invent(native, (axis.fixed or 1) if axis.batched else None)
    if accepted is None:
        return None
    inputs, outputs = accepted
    return Trial(_least_seconds(native, inputs), [array.shape for array in outputs])


def time_batches(
    native: _core.OnnxRuntimeModel, axis: BatchAxis, max_batch_size: int
) -> dict[int, float]:
    """Warm the batch sizes up and return the seconds per sample of each.

    Of a slow model, or one of large inputs, only small sizes are timed. Empty if it has one size
    only, or fails on invented inputs.
    """
    if not axis.batched or axis.fixed:
        return {}
    accepted = _invent(native, 1)
    if accepted is None:
        return {}
    inputs = {1: accepted[0]}
    alone = _least_seconds(native, accepted[0])
    row_bytes = max(1, sum(array.nbytes for array in accepted[0]))
    most_rows = max(2.0, min(_SEARCH_SECONDS / _ROUNDS / alone, _SEARCH_BYTES / row_bytes))
    for size in _sizes_up_to(max_batch_size):
        if sum(inputs) + size > most_rows or (accepted := _invent(native, size)) is None:
            break
        inputs[size] = accepted[0]
    return _least_per_row(native, inputs)


def merge_limit(costs: dict[int, float], max_batch_size: int) -> int:
    """Return the batch size that pays: on a CPU a convolution network gains little beyond a few.

    Args:
        costs: As `time_batches` returns them.
        max_batch_size: The limit where nothing is known.
    """
    policy = _core.LatencyPolicy

    def price(size: int) -> float:
        doubled = math.pow(policy.DOUBLING_PAYS, math.log2(size))
        return (costs[size] + policy.OVERHEAD / size) * doubled

    return min(costs, key=price, default=max_batch_size)


def with_larger(costs: Mapping[int, float], most: int) -> dict[int, float]:
    """Return also the sizes that were too slow to be timed, priced as the largest timed."""
    per_row = costs[max(costs)]
    larger = [size for size in _sizes_up_to(most) if size > max(costs)]
    return {**costs, **{size: per_row for size in larger if size * per_row <= _LONGEST_BATCH}}


def _sizes_up_to(most: int) -> list[int]:
    """2, 4, 8, ... and the largest."""
    sizes = [2**i for i in range(1, most.bit_length()) if 2**i < most]
    return [*sizes, most] if most > 1 else []


def _least_per_row(
    native: _core.OnnxRuntimeModel, inputs: dict[int, list[Array]]
) -> dict[int, float]:
    """Time batches of each size in turns, as what disturbs them comes and goes."""
    times = dict.fromkeys(inputs, math.inf)
    for _ in range(_ROUNDS):
        for size, arrays in inputs.items():
            start = time.perf_counter()
            _try_run(native, arrays)
            times[size] = min(times[size], (time.perf_counter() - start) / size)
    return times


# --- Batch axis -------------------------------------------------------------------------------


def _values(native: _core.OnnxRuntimeModel) -> list[_core.OnnxRuntimeValueInfo]:
    return [*native.inputs, *native.outputs]


def _declared_batch_axis(native: _core.OnnxRuntimeModel) -> BatchAxis:
    """Read the batch axis off the declared shapes; they may lie, so the caller checks."""
    values = _values(native)
    if not native.inputs or any(not value.shape for value in values):
        return NO_BATCH_AXIS
    sizes = {value.shape[0] for value in values}
    if sizes == {-1}:
        symbols = {value.symbols[0] for value in native.inputs}
        return BatchAxis(batched=len(symbols) == 1)
    if len(sizes) == 1 and min(sizes) > 0:
        return BatchAxis(batched=True, fixed=sizes.pop())
    return NO_BATCH_AXIS


def _rows_are_independent(native: _core.OnnxRuntimeModel, axis: BatchAxis) -> bool:
    """Run the same row beside different company: its answer must not change."""
    rows = axis.fixed or 2
    if rows == 1:
        return True
    one, two = _invent(native, rows, seed=0), _invent(native, rows, seed=1)
    if one is None or two is None:
        return False
    (first, expected), (other, _) = one, two
    for kept in (0, rows - 1):
        mixed = [array.copy() for array in other]
        for array, row in zip(mixed, first, strict=True):
            array[kept] = row[kept]
        got = _try_run(native, mixed)
        if got is None:
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


# --- Trial runs -------------------------------------------------------------------------------


def _invent(
    native: _core.OnnxRuntimeModel, rows: int | None, seed: int = 0
) -> tuple[list[Array], list[Array]] | None:
    """Return inputs that the model accepts, and its outputs; None: none were found."""
    for integers in _TRIAL_INTEGERS:
        inputs = _invented_inputs(native, rows, integers, seed)
        outputs = _try_run(native, inputs)
        if outputs is not None:
            return inputs, outputs
        if all(array.dtype.kind not in "iu" for array in inputs):
            break
    return None


def _invented_inputs(
    native: _core.OnnxRuntimeModel, rows: int | None, integers: Sequence[int], seed: int
) -> list[Array]:
    rng = np.random.default_rng(seed)
    varying = _trial_dimension(native)
    arrays = []
    for value in native.inputs:
        shape = [varying if dim < 0 else dim for dim in value.shape]
        if rows is not None:
            shape[0] = rows
        dtype = DTYPES[value.element_type]
        if dtype.kind in "iub":
            values = (0, 1) if dtype.kind == "b" else integers
            arrays.append(rng.choice(values, shape).astype(dtype))
        else:
            arrays.append(rng.random(shape, dtype=np.float32).astype(dtype))
    return arrays


def _trial_dimension(native: _core.OnnxRuntimeModel) -> int:
    """Return one size for all dimensions that vary: inputs may have to agree in some of them."""
    sizes = [_TRIAL_DIMENSION]
    for value in native.inputs:
        known = math.prod(dim for dim in value.shape if dim > 0)
        if varying := sum(dim < 0 for dim in value.shape):
            sizes.append(max(1, int((_TRIAL_ELEMENTS / known) ** (1 / varying))))
    return min(sizes)


def _try_run(native: _core.OnnxRuntimeModel, inputs: list[Array]) -> list[Array] | None:
    try:
        return native.run(inputs, [DTYPES[value.element_type] for value in native.outputs])
    except TrtInferError:
        return None


def _least_seconds(native: _core.OnnxRuntimeModel, inputs: list[Array], repeats: int = 5) -> float:
    """Time the model undisturbed: what else the machine does only adds to a run."""
    times: list[float] = []
    while len(times) < 2 or (len(times) < repeats and sum(times) < _TIMING_SECONDS):
        start = time.perf_counter()
        _try_run(native, inputs)
        times.append(time.perf_counter() - start)
    return min(times)
