"""Latencies as an HdrHistogram: quantiles, and a log that other runs can be added to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trtinfer.errors import TrtInferError
from trtinfer.metrics import Quantiles

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

_LONGEST_NS = 3_600_000_000_000  # an hour
_DIGITS = 3  # significant, of every value


class LatencyHistogram:
    """Latencies of one load, off by 0.1 % at most."""

    def __init__(self, nanoseconds: npt.NDArray[np.int64]) -> None:
        """Counts the latencies.

        Args:
            nanoseconds: One for each request.

        Raises:
            TrtInferError: The package hdrhistogram is not installed.
        """
        self._histogram = _new()
        for value, count in zip(*np.unique(nanoseconds, return_counts=True), strict=True):
            self._histogram.record_value(min(max(int(value), 1), _LONGEST_NS), int(count))

    def quantiles(self) -> Quantiles:
        """Count, mean and quantiles, in seconds."""
        histogram = self._histogram
        count = int(histogram.get_total_count())
        return {
            "count": count,
            "mean": float(histogram.get_mean_value()) / 1e9 if count else 0.0,
            "p50": self._at(50),
            "p90": self._at(90),
            "p99": self._at(99),
            "p99.9": self._at(99.9),
            "max": self._at(100),
        }

    def cumulative(self) -> tuple[list[float], list[float]]:
        """Latencies in seconds, and the share of requests that took no longer than each."""
        total = max(1, self._histogram.get_total_count())
        # One object goes through all steps of the iterator.
        steps = (
            (step.value_iterated_to / 1e9, step.total_count_to_this_value / total)
            for step in self._histogram.get_recorded_iterator()
        )
        points = list(steps)
        return [latency for latency, _ in points], [share for _, share in points]

    def encoded(self) -> str:
        """The histogram in HdrHistogram's compressed text form (nanoseconds)."""
        return bytes(self._histogram.encode()).decode("ascii")

    def _at(self, percentile: float) -> float:
        return float(self._histogram.get_value_at_percentile(percentile)) / 1e9


def _new() -> HdrHistogram:
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise TrtInferError(
            'latencies are counted by hdrhistogram; run: pip install "trtinfer[bench]"'
        ) from None
    return HdrHistogram(1, _LONGEST_NS, _DIGITS)
