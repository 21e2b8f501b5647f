"""What a server counts, as Prometheus reads it: Triton's names beside our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trtinfer.server.model import Model
from trtinfer.server.statistics import model_statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OUTCOMES = ("completed", "failed", "expired", "cancelled", "closed", "rejected", "invalid")
_QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "p99.9": "0.999"}
_DURATIONS = ("queue", "compute_input", "compute_infer", "compute_output")

_Labels = Mapping[str, str]


@dataclass
class _Family:
    """The samples of one metric."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, _Labels, float]] = field(default_factory=list)

    def add(self, labels: _Labels, value: float, suffix: str = "") -> None:
        self.samples.append((suffix, labels, value))

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for suffix, labels, value in self.samples:
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{suffix}{{{pairs}}} {value}"


def render(models: Iterable[Model], server: Iterable[tuple[str, str, _Labels, float]]) -> str:
    """Return the metrics of models, and those of the server itself.

    Args:
        models: Those that are loaded.
        server: Name, help, labels and value of each of the server's own counters.
    """
    families: dict[str, _Family] = {}

    def family(name: str, kind: str, text: str) -> _Family:
        return families.setdefault(name, _Family(name, kind, text))

    for model in models:
        labels = {"model": model.name, "version": model.version}
        stats = model.session.stats()
        _add_triton(family, labels, model, model_statistics(model))
        _add_own(family, labels, stats)
    for name, text, where, value in server:
        family(name, "counter" if name.endswith("_total") else "gauge", text).add(where, value)
    return "".join(f"{line}\n" for found in families.values() for line in found.lines())


_GetFamily = Callable[[str, str, str], _Family]


def _add_triton(
    family: _GetFamily, labels: _Labels, model: Model, statistics: Mapping[str, Any]
) -> None:
    times = statistics["inference_stats"]

    def count(name: str, text: str, value: float) -> None:
        family(f"nv_inference_{name}", "counter", text).add(labels, value)

    count("request_success", "Requests answered", times["success"]["count"])
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        failures = family("nv_inference_request_failure", "counter", "Requests that failed")
        failures.add({**labels, "reason": reason}, model.refusals[reason])
    count("count", "Samples inferred", statistics["inference_count"])
    count("exec_count", "Batches run", statistics["execution_count"])
    count("request_duration_us", "Time of requests", times["success"]["ns"] // 1000)
    for name in _DURATIONS:
        text = f"Time of requests in {name.replace('_', ' ')}"
        count(f"{name}_duration_us", text, times[name]["ns"] // 1000)
    pending = family("nv_inference_pending_request_count", "gauge", "Requests under way")
    pending.add(labels, model.waiting)


def _add_own(family: _GetFamily, labels: _Labels, stats: Mapping[str, Any]) -> None:
    requests = family("trtinfer_requests_total", "counter", "Requests of the session by outcome")
    for outcome in _OUTCOMES:
        requests.add({**labels, "outcome": outcome}, stats[outcome])
    family("trtinfer_queue_length", "gauge", "Samples that wait").add(labels, stats["queue_length"])
    for stage in ("queue", "compute", "total"):
        text = "Latency since the session was opened"
        latency = family("trtinfer_latency_seconds", "summary", text)
        named: dict[str, str] = {**labels, "stage": stage}
        for key, quantile in _QUANTILES.items():
            latency.add({**named, "quantile": quantile}, stats[stage][key])
        latency.add(named, stats[stage]["mean"] * stats[stage]["count"], "_sum")
        latency.add(named, stats[stage]["count"], "_count")
    _add_batch_sizes(
        family("trtinfer_batch_size", "histogram", "Samples in a batch"), labels, stats
    )


def _add_batch_sizes(family: _Family, labels: _Labels, stats: Mapping[str, Any]) -> None:
    sizes: Mapping[int, int] = stats["batch_sizes"]
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


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
