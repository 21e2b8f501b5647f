"""When batches are launched and how large they are: the native policy, made and read."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence

from trtinfer import _core
from trtinfer.backend import ModelTensors
from trtinfer.errors import QueueFullError
from trtinfer.metrics import SloStats
from trtinfer.preprocess import Recipe

_REPEATS = 5


def learn_costs(
    policy: _core.LatencyPolicy,
    pipeline: _core.Pipeline,
    tensors: ModelTensors,
    recipe: Recipe | None,
) -> None:
    """Time batches of each size that the policy tells apart, before the first request comes.

    Where the shapes of inputs vary and no recipe says what to expect, it learns from requests only.

    Args:
        policy: What is to know.
        pipeline: Runs them.
        tensors: Of the model.
        recipe: Images of the size that it makes are taken for the usual ones; None: no images.
    """
    shapes: Sequence[Sequence[int]] = ()
    if recipe is not None:
        shapes = ((*(recipe.fixed_output_shape or (3, 224, 224))[1:], 3),)
    elif any(dim < 0 for _, _, _, shape in tensors.requests for dim in shape):
        return
    with contextlib.suppress(QueueFullError):  # a small arena: larger batches never come either
        for size in policy.sizes:
            times = [pipeline.time_batch(size, shapes) for _ in range(_REPEATS)]
            policy.learn(size, statistics.median(times))


def describe(policy: _core.LatencyPolicy, target: float) -> SloStats:
    """Say what the policy knows and does now; times in seconds."""
    return {
        "target": target,
        "batch_limit": policy.batch_limit,
        "margin": policy.margin,
        "batch_costs": {size: policy.cost(size) for size in policy.sizes},
    }
