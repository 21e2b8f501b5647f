"""What a session counts and measures."""

from __future__ import annotations

from typing import TypedDict

Quantiles = TypedDict(
    "Quantiles",
    {
        "count": int,
        "mean": float,
        "p50": float,
        "p90": float,
        "p99": float,
        "p99.9": float,
        "max": float,
    },
)
"""Latencies in seconds; each quantile is at most 1.6 % above the true one."""


class SloStats(TypedDict):
    """How a session with ``latency_slo`` decides; seconds.

    Batches have at most ``batch_limit`` samples: who comes right after a launch waits for one and
    then for its own. A request is refused when its predicted latency and ``margin``, the 99 %
    quantile of how far predictions fell short, exceed ``target``. ``batch_costs``: by batch size.
    """

    target: float
    batch_limit: int
    margin: float
    batch_costs: dict[int, float]


class Stats(TypedDict):
    """Counters and latencies of a session since it was opened.

    ``accepted = completed + failed + expired + cancelled + closed`` once nothing is pending;
    ``rejected`` (no room; of these ``rejected_by_slo``: no time) and ``invalid`` (refused before it
    took a slot) requests were never accepted. ``queue`` is arrival to launch, ``total`` arrival to
    completion. The run of a batch is ``input`` (copies to where the model reads), ``compute`` and
    ``output`` (copies to the requests), each counted for every request of the batch.
    ``batch_sizes`` counts batches by their number of samples; ``batch_input`` and ``batch_output``
    are mean seconds of these, and ``batch_compute`` of batches up to each size (powers of two).
    ``gpu_batches`` counts those that each GPU has answered. ``retried`` requests were run again,
    alone, after their batch had failed; ``traces_dropped`` of those that ended were too many for
    the ``trace`` hook. ``queue_length`` samples wait; those, the ones that run and those being
    filled are not among the ``free_slots``. ``backend`` runs the batches now, and ``fallback``
    would if it failed; None: it has failed already, or nothing would. ``slo`` is None without
    ``latency_slo``.
    """

    backend: str
    fallback: str | None
    accepted: int
    completed: int
    failed: int
    expired: int
    cancelled: int
    closed: int
    rejected: int
    rejected_by_slo: int
    invalid: int
    retried: int
    traces_dropped: int
    batches: int
    samples: int
    batch_sizes: dict[int, int]
    gpu_batches: dict[int, int]
    queue_length: int
    free_slots: int
    batches_in_flight: int
    queue: Quantiles
    input: Quantiles
    compute: Quantiles
    output: Quantiles
    total: Quantiles
    batch_input: dict[int, float]
    batch_compute: dict[int, Quantiles]
    batch_output: dict[int, float]
    slo: SloStats | None
