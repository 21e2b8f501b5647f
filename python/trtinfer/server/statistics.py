"""What a model has done so far, as the protocol's statistics extension tells it."""

from __future__ import annotations

from typing import Any

from trtinfer.metrics import Quantiles
from trtinfer.server.model import Model


def model_statistics(model: Model) -> dict[str, Any]:
    """Return a model's statistics since it was loaded."""
    stats = model.session.stats()
    done = stats["completed"]
    failed = sum(model.outcomes.refusals.values())
    nothing = {"count": 0, "ns": 0}
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
            "compute_input": _duration(stats["input"], done),
            "compute_infer": _duration(stats["compute"], done),
            "compute_output": _duration(stats["output"], done),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _batches(count, stats["batch_input"][size]),
                "compute_infer": _batches(count, _mean_near(stats["batch_compute"], size)),
                "compute_output": _batches(count, stats["batch_output"][size]),
            }
            for size, count in sorted(stats["batch_sizes"].items())
        ],
        "memory_usage": [],
    }


def _duration(quantiles: Quantiles, count: int | None = None) -> dict[str, int]:
    """The sum of all times; of ``count`` requests where several shared one."""
    number = quantiles["count"] if count is None else count
    return {"count": number, "ns": round(quantiles["mean"] * number * 1e9)}


def _batches(count: int, mean: float) -> dict[str, int]:
    return {"count": count, "ns": round(mean * count * 1e9)}


def _mean_near(by_size: dict[int, Quantiles], size: int) -> float:
    """Of the sizes that are measured together with this one."""
    return next((quantiles["mean"] for bound, quantiles in by_size.items() if bound >= size), 0.0)
