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


class Stats(TypedDict):
    """Counters and latencies of a session since it was opened.

    ``accepted = completed + failed + expired + cancelled + closed`` once nothing is pending;
    ``rejected`` (no room) and ``invalid`` (refused before it took a slot) requests were never
    accepted. ``queue`` is arrival to launch, ``compute`` the batch's run, ``total`` arrival to
    completion. ``batch_sizes`` counts batches by their number of samples; ``batch_compute`` gives
    the run times of batches up to each size (powers of two). ``gpu_batches`` counts those that each
    GPU has answered. ``backend`` runs the batches now, and ``fallback`` would if it failed; None:
    it has failed already, or nothing would.
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
    invalid: int
    retried: int
    batches: int
    samples: int
    batch_sizes: dict[int, int]
    gpu_batches: dict[int, int]
    queue_length: int
    free_slots: int
    batches_in_flight: int
    queue: Quantiles
    compute: Quantiles
    total: Quantiles
    batch_compute: dict[int, Quantiles]
