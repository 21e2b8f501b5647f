"""What a model has done so far, as the protocol's statistics extension tells it."""

from __future__ import annotations

from typing import Any

from trtinfer.metrics import Quantiles
from trtinfer.server.model import Model


def model_statistics(model: Model) -> dict[str, Any]:
    """Return a model's statistics since it was loaded.

    Copies into and out of batches happen on the way of a request and are not timed by themselves:
    `compute_input` and `compute_output` have counts, and no time.
    """
    stats = model.session.stats()
    done = stats["completed"]
    failed = sum(model.outcomes.refusals.values())
    nothing = {"count": 0, "ns": 0}
    copies = {"count": done, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": model.outcomes.last_inference,
        "inference_count": stats["samples"],
        "execution_count": stats["batches"],
        "inference_stats": {
            "success": _duration(stats["total"], model.outcomes.answered),
            "fail": {"count": failed, "ns": 0},
            "queue": _duration(stats["queue"]),
            "compute_input": copies,
            "compute_infer": _duration(stats["compute"], done),
            "compute_output": copies,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": {"count": count, "ns": 0},
                "compute_infer": _batches(count, stats["batch_compute"], size),
                "compute_output": {"count": count, "ns": 0},
            }
            for size, count in sorted(stats["batch_sizes"].items())
        ],
        "memory_usage": [],
    }


def _duration(quantiles: Quantiles, count: int | None = None) -> dict[str, int]:
    """The sum of all times; of ``count`` requests where several shared one."""
    number = quantiles["count"] if count is None else count
    return {"count": number, "ns": round(quantiles["mean"] * number * 1e9)}


def _batches(count: int, by_size: dict[int, Quantiles], size: int) -> dict[str, int]:
    """Batches of a size, timed by the mean of the sizes that are measured together."""
    bucket = next((quantiles for bound, quantiles in by_size.items() if bound >= size), None)
    return {"count": count, "ns": round(bucket["mean"] * count * 1e9) if bucket else 0}
