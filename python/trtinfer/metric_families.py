"""What sessions count, as families of Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trtinfer.metrics import Quantiles, Stats

Labels = Mapping[str, str]

_OUTCOMES = ("completed", "failed", "expired", "cancelled", "closed", "rejected", "invalid")
_STAGES = ("queue", "input", "compute", "output", "total")
_QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "p99.9": "0.999"}
_COUNTERS = {
    "accepted": ("trtinfer_requests_accepted_total", "Requests that took a place in the ring"),
    "rejected_by_slo": (
        "trtinfer_requests_rejected_by_slo_total",
        "Rejected requests that could no longer be answered in time",
    ),
    "retried": ("trtinfer_retries_total", "Runs of single requests after their batch had failed"),
    "batches": ("trtinfer_batches_total", "Batches run"),
    "samples": ("trtinfer_samples_total", "Samples in these batches"),
    "traces_dropped": ("trtinfer_traces_dropped_total", "Traces that the hook was too slow for"),
}
_GAUGES = {
    "queue_length": ("trtinfer_queue_length", "Samples that wait"),
    "free_slots": ("trtinfer_free_slots", "Slots of the ring that are free"),
    "batches_in_flight": ("trtinfer_batches_in_flight", "Batches that run"),
}


@dataclass
class Family:
    """The samples of one metric.

    Attributes:
        kind: "counter", "gauge", "summary" or "histogram".
        samples: Suffix of the name, labels and value of each.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, labels: Labels, value: float, suffix: str = "") -> None:
        """Add a sample."""
        self.samples.append((suffix, labels, value))

    def add_quantiles(self, labels: Labels, quantiles: Quantiles) -> None:
        """Add those of a summary."""
        for key, quantile in _QUANTILES.items():
            self.add({**labels, "quantile": quantile}, quantiles[key])  # type: ignore[literal-required]
        self.add(labels, quantiles["mean"] * quantiles["count"], "_sum")
        self.add(labels, quantiles["count"], "_count")


class Families:
    """Metrics by name, in the order in which they came."""

    def __init__(self) -> None:
        """Begin without any."""
        self._by_name: dict[str, Family] = {}

    def get(self, name: str, kind: str, text: str) -> Family:
        """Return a family, a new one where there is none of that name."""
        return self._by_name.setdefault(name, Family(name, kind, text))

    def all(self) -> list[Family]:
        """Return every family."""
        return list(self._by_name.values())

    def add_session(self, labels: Labels, stats: Stats) -> None:
        """Add what a session counts and measures, all of it."""
        requests = self.get("trtinfer_requests_total", "counter", "Requests by outcome")
        for outcome in _OUTCOMES:
            requests.add({**labels, "outcome": outcome}, stats[outcome])  # type: ignore[literal-required]
        for kind, metrics in (("counter", _COUNTERS), ("gauge", _GAUGES)):
            for key, (name, text) in metrics.items():
                self.get(name, kind, text).add(labels, stats[key])  # type: ignore[literal-required]
        gpus = self.get("trtinfer_gpu_batches_total", "counter", "Batches answered by each GPU")
        for gpu, count in stats["gpu_batches"].items():
            gpus.add({**labels, "gpu": str(gpu)}, count)
        self._add_latencies(labels, stats)
        self._add_batch_sizes(labels, stats["batch_sizes"])
        self._add_slo(labels, stats)

    def _add_latencies(self, labels: Labels, stats: Stats) -> None:
        latency = self.get(
            "trtinfer_latency_seconds", "summary", "Latency since the session was opened"
        )
        for stage in _STAGES:
            latency.add_quantiles({**labels, "stage": stage}, stats[stage])  # type: ignore[literal-required]
        batches = self.get(
            "trtinfer_batch_compute_seconds", "summary", "Compute time of batches up to each size"
        )
        for size, quantiles in stats["batch_compute"].items():
            batches.add_quantiles({**labels, "size": str(size)}, quantiles)

    def _add_batch_sizes(self, labels: Labels, sizes: Mapping[int, int]) -> None:
        family = self.get("trtinfer_batch_size", "histogram", "Samples in a batch")
        bound = 1
        while True:
            below = sum(count for size, count in sizes.items() if size <= bound)
            family.add({**labels, "le": str(bound)}, below, "_bucket")
            if bound >= max(sizes, default=1):
                break
            bound *= 2
        batches = sum(sizes.values())
        family.add({**labels, "le": "+Inf"}, batches, "_bucket")
        family.add(labels, sum(size * count for size, count in sizes.items()), "_sum")
        family.add(labels, batches, "_count")

    def _add_slo(self, labels: Labels, stats: Stats) -> None:
        slo = stats["slo"]
        if slo is None:
            return
        self.get("trtinfer_slo_target_seconds", "gauge", "The latency_slo").add(
            labels, slo["target"]
        )
        self.get("trtinfer_slo_margin_seconds", "gauge", "How far predictions fall short").add(
            labels, slo["margin"]
        )
        self.get("trtinfer_slo_batch_limit", "gauge", "Samples that a batch may have").add(
            labels, slo["batch_limit"]
        )
