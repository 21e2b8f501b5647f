"""Plots of measured loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtinfer.bench import STAGES, Measurement
from trtinfer.errors import TrtInferError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTILES = ("p50", "p90", "p99", "p99.9")


def new_figure(title: str, note: str) -> tuple[Figure, Axes]:
    """An empty plot with what was measured above it, and where below.

    Raises:
        TrtInferError: The package matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TrtInferError(
            'plots are drawn by matplotlib; run: pip install "trtinfer[bench]"'
        ) from None
    figure = Figure(figsize=(9, 5.5), dpi=120)
    axes = figure.add_subplot(title=title)
    axes.grid(visible=True, which="both", alpha=0.25)
    figure.text(0.5, 0.0, note, ha="center", va="top", fontsize="x-small")
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    figure.savefig(path, bbox_inches="tight")


def plot_cumulative(measurements: Sequence[Measurement], path: Path, title: str, note: str) -> None:
    """Draws which share of requests took longer than a latency, down to the slowest.

    Args:
        measurements: A line for each.
        path: Of the PNG.
        title: What was measured.
        note: Where.
    """
    figure, axes = new_figure(f"{title}: latency", note)
    for measurement in measurements:
        latencies, shares = measurement.histogram.cumulative()
        longer = [1 - share for share in shares[:-1]]
        axes.plot([1e3 * t for t in latencies[:-1]], longer, label=measurement.name, lw=1.2)
    axes.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="share of slower requests")
    axes.legend(fontsize="small")
    save(figure, path)


def plot_against_load(
    measurements: Sequence[Measurement], path: Path, title: str, note: str
) -> None:
    """Draws quantiles of the latency against the offered load.

    Args:
        measurements: Of open loops.
        path: Of the PNG.
        title: What was measured.
        note: Where.
    """
    figure, axes = new_figure(f"{title}: latency against load", note)
    measured = sorted(measurements, key=lambda m: m.offered or 0.0)
    rates = [measurement.offered or 0.0 for measurement in measured]
    for name in _QUANTILES:
        times = [1e3 * m.histogram.quantiles()[name] for m in measured]  # type: ignore[literal-required]
        axes.plot(rates, times, marker="o", label=name)
    axes.set(yscale="log", xlabel="requests per second", ylabel="latency, ms", xlim=(0, None))
    axes.legend(fontsize="small")
    save(figure, path)


def plot_stages(measurements: Sequence[Measurement], path: Path, title: str, note: str) -> None:
    """Draws how long requests spent where in the session, as means.

    Args:
        measurements: A bar for each.
        path: Of the PNG.
        title: What was measured.
        note: Where.
    """
    figure, axes = new_figure(f"{title}: where requests spend their time", note)
    names = [measurement.name for measurement in measurements]
    left = [0.0] * len(names)
    for stage in STAGES:
        times = [1e3 * getattr(measurement.batches, stage) for measurement in measurements]
        axes.barh(names, times, left=left, label=stage)
        left = [sum(pair) for pair in zip(left, times, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="mean, ms")
    axes.legend(fontsize="small")
    save(figure, path)
